//! How it is operated: scaling, updates, restarts, failover, observation.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::units::Duration;
use crate::words::{UnknownWord, words};

words! {
    /// What is measured to decide on the number of replicas.
    pub enum ScalingMetric {
        /// CPU, in percent of what was asked for.
        Cpu = "cpu",
        /// Memory, in percent of what was asked for.
        Memory = "memory",
        /// Open connections of each replica.
        Connections = "connections",
        /// Requests a second of each replica.
        Requests = "requests",
        /// What the workload itself measures: a series of its metrics.
        Workload = "workload",
    }
}

words! {
    /// The short forms of `spec.operations.scaling`.
    pub enum ScalingPreset {
        /// `spec.scaling` with its defaults.
        HorizontalAutoScaling = "HorizontalAutoScaling",
        /// No scaling.
        Fixed = "Fixed" | "None",
    }
}

/// Horizontal scaling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Scaling {
    /// The least number of replicas.
    pub min: u32,
    /// The greatest number of replicas, at least `min`.
    pub max: u32,
    /// What is measured.
    pub metric: ScalingMetric,
    /// The value that is aimed at: percent for `cpu` and `memory`, a count for the others.
    pub target: u32,
    /// The name of the series, for `workload`.
    pub series: Option<String>,
}

impl Default for Scaling {
    fn default() -> Self {
        Self { min: 1, max: 3, metric: ScalingMetric::Cpu, target: 80, series: None }
    }
}

words! {
    /// How a new version replaces the old one.
    pub enum UpdateStrategy {
        /// A few replicas at a time; each must be healthy before the next.
        RollingUpdate = "RollingUpdate" | "rolling",
        /// All at once: the old ones end, then the new ones start.
        Recreate = "Recreate",
        /// One new replica first; the others follow when it has stayed healthy.
        Canary = "Canary",
    }
}

/// How a new version replaces the old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Update {
    /// The strategy.
    pub strategy: UpdateStrategy,
    /// How many replicas are replaced at a time, at least 1.
    pub max_parallel: u32,
    /// Whether an update that doesn't get healthy is taken back.
    pub auto_revert: bool,
}

impl Default for Update {
    fn default() -> Self {
        Self { strategy: UpdateStrategy::RollingUpdate, max_parallel: 1, auto_revert: true }
    }
}

words! {
    /// When a workload that ended is started again.
    pub enum RestartPolicy {
        /// Never.
        Never = "never" | "no",
        /// When it ended with another code than 0, or by a signal, or became unhealthy.
        OnFailure = "on-failure",
        /// Whenever it ended.
        Always = "always",
    }
}

/// What happens on the same node when the workload ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Restart {
    /// When it is started again.
    pub policy: RestartPolicy,
    /// The wait before the first restart; it doubles with each one, up to 5 minutes.
    pub backoff: Duration,
    /// How many restarts in a row are tried; 0 is without limit.
    pub max_attempts: u32,
}

impl Default for Restart {
    fn default() -> Self {
        Self { policy: RestartPolicy::Never, backoff: Duration::from_secs(1), max_attempts: 0 }
    }
}

/// What holds for a workload that is to come to an end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Task {
    /// How long the workload may run, from its start to its end, each time anew; `None` is without bound.
    pub deadline: Option<Duration>,
}

words! {
    /// What happens when the node is lost.
    pub enum FailoverStrategy {
        /// Nothing: the spacecore is lost with it.
        None = "none",
        /// It is started on another node.
        AutoRecovery = "auto-recovery",
    }
}

/// What happens when the node is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Failover {
    /// The strategy.
    pub strategy: FailoverStrategy,
}

impl Default for Failover {
    fn default() -> Self {
        Self { strategy: FailoverStrategy::None }
    }
}

words! {
    /// What reads the metrics.
    pub enum MonitoringTool {
        /// An endpoint that Prometheus scrapes.
        Prometheus = "Prometheus",
        /// A dashboard for Grafana.
        Grafana = "Grafana",
    }
}

words! {
    /// What takes the logs.
    pub enum LoggingTool {
        /// Grafana Loki.
        Loki = "Loki",
        /// Fluentd's forward protocol.
        Fluentd = "Fluentd",
        /// Elasticsearch's bulk interface.
        Elk = "ELK",
    }
}

/// Defines a set of words that the manifest writes with slashes between them.
macro_rules! slashed {
    ($(#[$meta:meta])* $name:ident of $word:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct $name(pub BTreeSet<$word>);

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                let words = text.split('/').map(str::trim).filter(|word| !word.is_empty());
                words.map(str::parse).collect::<Result<_, _>>().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let words: Vec<_> = self.0.iter().map(|word| word.as_str()).collect();
                f.pad(&words.join("/"))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "anyOf": [
                        { "type": "string" },
                        { "type": "array", "items": generator.subschema_for::<$word>() },
                    ],
                })
            }
        }
    };
}

slashed! {
    /// The tools that read the metrics, as in `"Prometheus/Grafana"`.
    Monitoring of MonitoringTool
}

slashed! {
    /// The tools that take the logs, as in `"Loki/Fluentd/ELK"`.
    Logging of LoggingTool
}

words! {
    /// What the node does about a spacecore that behaves unlike itself.
    pub enum AnomalyAction {
        /// It says so: an event, and a metric.
        Alert = "alert",
        /// It also has the spacecore stand still, as it is.
        Pause = "pause",
        /// It also ends the deployment's spacecores.
        Stop = "stop",
        /// Nothing: it doesn't look.
        Ignore = "ignore" | "off",
    }
}

/// Where the workload says what it measures of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct MetricsPage {
    /// The port inside.
    pub port: Option<u16>,
    /// The page's path.
    pub path: String,
    /// The time from one reading to the next.
    pub interval: Duration,
}

impl Default for MetricsPage {
    fn default() -> Self {
        Self { port: None, path: "/metrics".to_owned(), interval: Duration::from_secs(15) }
    }
}

/// Metrics and logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Observability {
    /// Whether the observing sidecar runs beside the workload.
    pub sidecar: bool,
    /// What reads the metrics.
    pub monitoring: Monitoring,
    /// What takes the logs.
    pub logging: Logging,
    /// The workload's own metrics, in the form that Prometheus reads.
    pub metrics: Option<MetricsPage>,
    /// What is done about anomalies.
    pub anomalies: AnomalyAction,
}

impl Default for Observability {
    fn default() -> Self {
        Self {
            sidecar: false,
            monitoring: Monitoring::default(),
            logging: Logging::default(),
            metrics: None,
            anomalies: AnomalyAction::Alert,
        }
    }
}
