//! Metrics and logs in OTLP's JSON form: pure.
//!
//! Source: OpenTelemetry Protocol specification 1.5, `metrics.proto` and `logs.proto`, with numbers of 64 bits as text as "JSON
//! Protobuf Encoding" says.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::tail::Record;
use crate::daemon::metrics::{Kind, Recorded};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u32 = 2;
/// `SEVERITY_NUMBER_UNSPECIFIED`: nobody knows what a workload's lines mean.
const UNSPECIFIED: u32 = 0;

/// Whose something is.
#[derive(Debug, Clone)]
pub(super) struct Resource {
    version: String,
    attributes: Vec<(&'static str, String)>,
}

impl Resource {
    /// The node.
    pub(super) fn node(version: &str) -> Self {
        let attributes =
            vec![("service.name", "vimana".to_owned()), ("service.version", version.to_owned()), host()];
        Self { version: version.to_owned(), attributes }
    }

    /// A spacecore: a service is a deployment, and it an instance.
    pub(super) fn spacecore(version: &str, deployment: &str, spacecore: &str) -> Self {
        let attributes = vec![
            ("service.name", deployment.to_owned()),
            ("service.instance.id", spacecore.to_owned()),
            host(),
        ];
        Self { version: version.to_owned(), attributes }
    }

    fn json(&self) -> Value {
        json!({ "attributes": attributes(self.attributes.iter().map(|(name, value)| (*name, value.as_str()))) })
    }

    fn scope(&self) -> Value {
        json!({ "name": "vimana", "version": self.version })
    }
}

fn host() -> (&'static str, String) {
    ("host.name", rustix::system::uname().nodename().to_string_lossy().into_owned())
}

fn attributes<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    pairs.map(|(name, value)| json!({ "key": name, "value": { "stringValue": value } })).collect()
}

/// Encodes all families, and counts their numbers. What is no number (`NaN`, infinities) is left out: JSON has none of them.
/// Histograms and summaries are sent as the numbers that they consist of, by the names that `/metrics` has.
pub(super) fn metrics(
    resource: &Resource,
    families: &[Recorded],
    start_ns: u64,
    now_ns: u64,
) -> (Vec<u8>, u64) {
    let (mut encoded, mut count) = (Vec::new(), 0u64);
    for family in families {
        let mut points: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for sample in &family.samples {
            let Some(value) = sample.value.parse::<f64>().ok().filter(|value| value.is_finite()) else {
                continue;
            };
            let labels = sample.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            points.entry(&sample.name).or_default().push(json!({
                "attributes": attributes(labels),
                "startTimeUnixNano": start_ns.to_string(),
                "timeUnixNano": now_ns.to_string(),
                "asDouble": value,
            }));
            count = count.saturating_add(1);
        }
        for (name, points) in points {
            let mut metric =
                json!({ "name": name, "description": family.help, "unit": unit(family.unit.as_deref()) });
            let (key, data) = if rises(family.kind, name) {
                (
                    "sum",
                    json!({ "dataPoints": points, "aggregationTemporality": CUMULATIVE, "isMonotonic": true }),
                )
            } else {
                ("gauge", json!({ "dataPoints": points }))
            };
            metric[key] = data;
            encoded.push(metric);
        }
    }
    let whole = json!({ "resourceMetrics": [{
        "resource": resource.json(),
        "scopeMetrics": [{ "scope": resource.scope(), "metrics": encoded }],
    }] });
    (whole.to_string().into_bytes(), count)
}

/// Whether numbers of this name only rise.
fn rises(kind: Kind, name: &str) -> bool {
    match kind {
        Kind::Counter => true,
        Kind::Histogram | Kind::Summary => {
            ["_bucket", "_count", "_sum"].iter().any(|suffix| name.ends_with(suffix))
        }
        Kind::Gauge | Kind::Info | Kind::Unknown => false,
    }
}

/// A unit as UCUM writes it.
fn unit(unit: Option<&str>) -> String {
    match unit {
        None => String::new(),
        Some("bytes") => "By".to_owned(),
        Some("seconds") => "s".to_owned(),
        Some(other) => format!("{{{other}}}"),
    }
}

/// Encodes lines of one log, in their order.
pub(super) fn logs(resource: &Resource, lines: &[Record], now_ns: u64) -> Vec<u8> {
    let records: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({
                "timeUnixNano": line.unix_ns.to_string(),
                "observedTimeUnixNano": now_ns.to_string(),
                "severityNumber": UNSPECIFIED,
                "body": { "stringValue": line.text },
                "attributes": attributes(std::iter::once(("log.iostream", line.stream.name()))),
            })
        })
        .collect();
    let whole = json!({ "resourceLogs": [{
        "resource": resource.json(),
        "scopeLogs": [{ "scope": resource.scope(), "logRecords": records }],
    }] });
    whole.to_string().into_bytes()
}
