//! What runs: the workload, its folders, its health checks, what runs beside it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::units::{Bytes, Duration, MilliCpu};
use crate::words::words;

/// The workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Deployment {
    /// The reference of the OCI image. The one key without a default.
    pub image: String,
    /// Replaces the image's entrypoint; `None` keeps it.
    pub command: Option<Vec<String>>,
    /// Replaces the image's arguments; `None` keeps them unless `command` is given.
    pub args: Option<Vec<String>>,
    /// Environment variables, on top of the image's.
    pub env: BTreeMap<String, String>,
    /// Names of secrets, each of which becomes a file `/run/secrets/NAME`.
    pub secrets: Vec<String>,
    /// The user, as `name`, `uid`, `name:group` or `uid:gid`; `None` is the image's.
    pub user: Option<String>,
    /// The absolute working folder; `None` is the image's.
    pub workdir: Option<String>,
    /// Whether the workload can't write to its root; its mounts can still be written.
    pub readonly_root: bool,
    /// How many copies run, at least 1.
    pub replicas: u32,
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            image: String::new(),
            command: None,
            args: None,
            env: BTreeMap::new(),
            secrets: Vec::new(),
            user: None,
            workdir: None,
            readonly_root: false,
            replicas: 1,
        }
    }
}

/// A folder or volume of a spacecore.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Mount {
    /// A host folder if it starts with `/`, `./`, `../` or `~/`, else the name of a volume; `None` is an empty folder that
    /// ends with the spacecore.
    pub source: Option<String>,
    /// The absolute path inside.
    pub destination: String,
    /// The size of a volume or empty folder.
    pub size: Option<Bytes>,
    /// Whether writing is refused.
    pub readonly: bool,
    /// Whether a volume is encrypted by the guest that uses it.
    pub encrypted: bool,
}

impl Mount {
    /// Tells whether the source is a folder of the host rather than a volume or an empty folder.
    pub fn is_host_folder(&self) -> bool {
        self.source.as_deref().is_some_and(|source| {
            matches!(source, "." | ".." | "~")
                || ["/", "./", "../", "~/"].iter().any(|start| source.starts_with(start))
        })
    }

    /// Tells whether the source names a volume.
    pub fn is_volume(&self) -> bool {
        self.source.is_some() && !self.is_host_folder()
    }
}

words! {
    /// How a health check asks.
    pub enum CheckKind {
        /// A GET that must answer with a status from 200 to 399.
        Http = "http",
        /// A connection that must open.
        Tcp = "tcp",
        /// A command inside that must end with 0.
        Exec = "exec",
    }
}

/// A health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Check {
    /// How it asks.
    #[serde(rename = "type")]
    pub kind: CheckKind,
    /// The port inside, for `http` and `tcp`.
    pub port: Option<u16>,
    /// The path, for `http`.
    pub path: String,
    /// The command, for `exec`.
    pub command: Option<Vec<String>>,
    /// The time from one check to the next.
    pub interval: Duration,
    /// How long an answer may take, at most the interval.
    pub timeout: Duration,
    /// How long after the start failures don't count.
    pub grace_period: Duration,
    /// How many failures in a row make the spacecore unhealthy, at least 1.
    pub retries: u32,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            kind: CheckKind::Tcp,
            port: None,
            path: "/".to_owned(),
            command: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            grace_period: Duration::from_secs(10),
            retries: 3,
        }
    }
}

/// A container beside the workload, within the same isolation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Sidecar {
    /// A DNS label, unique among the sidecars.
    pub name: String,
    /// The reference of the OCI image.
    pub image: String,
    /// Replaces the image's entrypoint.
    pub command: Option<Vec<String>>,
    /// Replaces the image's arguments.
    pub args: Option<Vec<String>>,
    /// Environment variables, on top of the image's.
    pub env: BTreeMap<String, String>,
    /// The most CPU it may use, out of the spacecore's.
    pub cpu: Option<MilliCpu>,
    /// The most memory it may use, out of the spacecore's.
    pub memory: Option<Bytes>,
}
