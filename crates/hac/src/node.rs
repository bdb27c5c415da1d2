//! What an operator says of a machine that runs a node: `node.toml`.
//!
//! ```
//! let settings = hac::node::parse("[offer]\nmemory = \"8GiB\"\n")?;
//! assert_eq!(settings.offer.memory, Some(hac::units::Bytes::from_gib(8)));
//! assert_eq!((settings.offer.cpu, settings.offer.oversell), (None, 150));
//! # Ok::<(), hac::Diagnostics>(())
//! ```

use crate::decode::{Context, Decode};
use crate::diagnostic::{Diagnostics, LineIndex};
use crate::tree::{self, Format};
use crate::units::{Bytes, Duration, MilliCpu};

/// What a node is to do. The default offers nearly all of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeSettings {
    /// What of the machine spacecores may have.
    pub offer: OfferSettings,
    /// How long anomalies take to be found.
    pub anomalies: AnomalySettings,
    /// Where metrics and logs are sent.
    pub telemetry: TelemetrySettings,
}

/// Where metrics and logs are sent, by OTLP over HTTP: `[telemetry]`. Without an endpoint nothing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// `http://` or `https://`, before `/v1/metrics` and `/v1/logs`.
    pub endpoint: Option<String>,
    /// From one sending of metrics to the next; 1 s to 1 h.
    pub interval: Duration,
    /// A file with a header on each line, as `Authorization: Bearer ...`. Only its owner may read it.
    pub headers_file: Option<String>,
    /// Whether metrics are sent.
    pub metrics: bool,
    /// Whether logs are sent of the deployments that ask for it by `spec.observability.logging`.
    pub logs: bool,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            interval: Duration::from_secs(30),
            headers_file: None,
            metrics: true,
            logs: true,
        }
    }
}

/// Says what is wrong with where telemetry is sent.
fn check_telemetry(telemetry: &TelemetrySettings, context: &mut Context<'_>) {
    if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&telemetry.interval) {
        let message = format!("`telemetry.interval` is {}; it can be 1s to 1h", telemetry.interval);
        context.conflict(&["telemetry.interval"], message, "write \"30s\", which is usual".to_owned());
    }
    let place = "telemetry.endpoint";
    let Some(endpoint) = &telemetry.endpoint else {
        if telemetry.headers_file.is_some() {
            let help = "write where to send it: endpoint = \"http://127.0.0.1:4318\"".to_owned();
            context.conflict(&["telemetry.headers_file"], "headers without an `endpoint` go nowhere", help);
        }
        return;
    };
    let authority = ["http://", "https://"].iter().find_map(|scheme| endpoint.strip_prefix(scheme));
    let authority = authority.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let is_plain = endpoint.bytes().all(|byte| byte.is_ascii_graphic()) && !endpoint.contains(['?', '#']);
    match authority.filter(|authority| !authority.is_empty() && is_plain) {
        None => {
            let help = "write it as \"http://127.0.0.1:4318\", without /v1/metrics".to_owned();
            context.conflict(&[place], format!("{endpoint:?} is no address of a collector"), help);
        }
        Some(authority) if authority.contains('@') => {
            let help = "put an Authorization header into a file, and name that in headers_file".to_owned();
            context.conflict(&[place], "a name or password has no place in an address", help);
        }
        Some(authority) => {
            let host = authority.strip_prefix('[').map_or_else(
                || authority.split(':').next().unwrap_or_default(),
                |six| six.split(']').next().unwrap_or_default(),
            );
            let is_here = host == "localhost" || host == "::1" || host.starts_with("127.");
            if endpoint.starts_with("http://") && telemetry.headers_file.is_some() && !is_here {
                context.conflict(
                    &[place, "telemetry.headers_file"],
                    "the headers would cross the network as anybody could read them",
                    "write https:// to a collector that isn't on this machine".to_owned(),
                );
            }
        }
    }
}

/// How long anomalies take to be found: `[anomalies]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnomalySettings {
    /// Over how long a spacecore's figures are averaged; 1 s to 1 h. An anomaly has to last for three rounds.
    pub round: Duration,
    /// How many rounds are seen before anything is unusual; 5 to 240.
    pub warm_up: u32,
}

impl Default for AnomalySettings {
    fn default() -> Self {
        Self { round: Duration::from_secs(60), warm_up: 30 }
    }
}

/// What of the machine spacecores may have: `[offer]`. Without an amount the node decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferSettings {
    /// How much CPU.
    pub cpu: Option<MilliCpu>,
    /// How much memory.
    pub memory: Option<Bytes>,
    /// How much of the file system in which the node's home lies.
    pub disk: Option<Bytes>,
    /// How much memory burstable spacecores may be promised together, in percent of what no guaranteed one has; 100 to 1000.
    pub oversell: u32,
    /// How much of the machine's memory should be available always; with less, burstable spacecores have to go.
    pub evict_below: Option<Bytes>,
}

/// The bounds of [`OfferSettings::oversell`].
const OVERSELL: std::ops::RangeInclusive<u32> = 100..=1000;

impl Default for OfferSettings {
    fn default() -> Self {
        Self { cpu: None, memory: None, disk: None, oversell: 150, evict_below: None }
    }
}

/// Reads a node's settings, which are TOML.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn parse(source: &str) -> Result<NodeSettings, Diagnostics> {
    let root = tree::read(source, Format::Toml)
        .map_err(|error| Diagnostics(vec![error.into_diagnostic(&LineIndex::new(source))]))?;
    let mut context = Context::of("the node's settings", Some(source), other_place);
    let settings = NodeSettings::decode(&root, "", &mut context).unwrap_or_default();
    if !OVERSELL.contains(&settings.offer.oversell) {
        context.conflict(
            &["offer.oversell"],
            format!(
                "`offer.oversell` is {} %; it can be {} to {}",
                settings.offer.oversell,
                OVERSELL.start(),
                OVERSELL.end()
            ),
            "write 100 to promise no more than there is, 150 for half as much again".to_owned(),
        );
    }
    let AnomalySettings { round, warm_up } = &settings.anomalies;
    if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(round) {
        let message = format!("`anomalies.round` is {round}; it can be 1s to 1h");
        context.conflict(&["anomalies.round"], message, "write \"1m\", which is usual".to_owned());
    }
    if !(5..=240).contains(warm_up) {
        let message = format!("`anomalies.warm_up` is {warm_up} rounds; it can be 5 to 240");
        context.conflict(&["anomalies.warm_up"], message, "write 30, which is usual".to_owned());
    }
    check_telemetry(&settings.telemetry, &mut context);
    context.finish().map(|()| settings)
}

/// Where a key belongs that stands elsewhere.
fn other_place(key: &str) -> Option<&'static str> {
    let plain = key.to_ascii_lowercase();
    let places = [
        "offer.cpu",
        "offer.memory",
        "offer.disk",
        "offer.oversell",
        "offer.evict_below",
        "anomalies.round",
        "anomalies.warm_up",
        "telemetry.endpoint",
        "telemetry.interval",
        "telemetry.headers_file",
        "telemetry.metrics",
        "telemetry.logs",
    ];
    places.into_iter().find(|place| place.rsplit('.').next() == Some(plain.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(source: &str) -> String {
        parse(source).unwrap_err().render("node.toml", source, false)
    }

    #[test]
    fn nothing_said_offers_what_the_node_decides() {
        assert_eq!(parse("").unwrap(), NodeSettings::default());
        assert_eq!(parse("[offer]\n").unwrap(), NodeSettings::default());
    }

    #[test]
    fn amounts_are_written_as_in_a_manifest() {
        let settings = parse(
            "[offer]\ncpu = 1.5\nmemory = \"2Gi\"\ndisk = \"10GiB\"\noversell = 200\nevict_below = \"1GiB\"",
        )
        .unwrap();
        let offer = OfferSettings {
            cpu: Some(MilliCpu(1500)),
            memory: Some(Bytes::from_gib(2)),
            disk: Some(Bytes::from_gib(10)),
            oversell: 200,
            evict_below: Some(Bytes::from_gib(1)),
        };
        assert_eq!(settings.offer, offer);
    }

    #[test]
    fn mistakes_are_shown_where_they_stand_all_at_once() {
        let said = wrong("[offer]\nmemroy = \"2Gi\"\ncpu = \"lots\"\n");
        for part in ["node.toml:2:1", "did you mean `memory`?", "node.toml:3:7"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let said = wrong("[offer]\noversell = 50\n");
        assert!(said.contains("node.toml:2:") && said.contains("100 to 1000"), "{said}");
        let said = wrong("memory = \"2Gi\"\n");
        assert!(said.contains("offer.memory"), "{said}");
    }

    #[test]
    fn anomalies_have_bounds_of_their_own() {
        let settings = parse("[anomalies]\nround = \"10s\"\nwarm_up = 60").unwrap();
        assert_eq!(settings.anomalies, AnomalySettings { round: Duration::from_secs(10), warm_up: 60 });
        let said = wrong("[anomalies]\nround = \"10ms\"\nwarm_up = 1\n");
        assert!(said.contains("node.toml:2:") && said.contains("1s to 1h"), "{said}");
        assert!(said.contains("node.toml:3:") && said.contains("5 to 240"), "{said}");
    }

    #[test]
    fn telemetry_goes_where_headers_stay_secret() {
        let source = "[telemetry]\nendpoint = \"https://collector.example:4318/otlp\"\nheaders_file = \"/etc/h\"\nlogs = false";
        let telemetry = parse(source).unwrap().telemetry;
        assert_eq!(telemetry.endpoint.as_deref(), Some("https://collector.example:4318/otlp"));
        assert!(telemetry.metrics && !telemetry.logs && telemetry.interval == Duration::from_secs(30));
        for here in ["http://127.0.0.1:4318", "http://[::1]:4318", "http://localhost"] {
            assert!(
                parse(&format!("[telemetry]\nendpoint = {here:?}\nheaders_file = \"/h\"")).is_ok(),
                "{here}"
            );
        }
        for (line, part) in [
            ("endpoint = \"collector:4318\"", "is no address of a collector"),
            ("endpoint = \"https://\"", "is no address of a collector"),
            ("endpoint = \"https://a b\"", "is no address of a collector"),
            ("endpoint = \"https://me:pw@collector\"", "a name or password"),
            ("endpoint = \"http://collector\"\nheaders_file = \"/h\"", "anybody could read them"),
            ("headers_file = \"/h\"", "go nowhere"),
            ("interval = \"2h\"", "1s to 1h"),
        ] {
            let said = wrong(&format!("[telemetry]\n{line}\n"));
            assert!(said.contains(part) && said.contains("node.toml:2:"), "{line}: {said}");
        }
    }
}
