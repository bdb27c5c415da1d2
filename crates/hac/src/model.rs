//! The manifest as the rest of the system sees it: every default filled in, every preset resolved.
//!
//! Field names here are the manifest's keys unless an attribute says otherwise. The meaning of each key, for people,
//! is in [`crate::reference`].

mod hardware;
mod operation;
mod trust;
mod workload;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

pub use hardware::{
    Accel, Accelerator, AcceleratorKind, Class, Criteria, Isolation, Level, NetworkType, Networking,
    Provider, Resources, Virtualization,
};
pub use operation::{
    AnomalyAction, Failover, FailoverStrategy, Logging, LoggingTool, MetricsPage, Monitoring, MonitoringTool,
    Observability, Restart, RestartPolicy, Scaling, ScalingMetric, ScalingPreset, Task, Update,
    UpdateStrategy,
};
pub use trust::{
    Attestation, Condition, ConditionKind, Confinement, Placement, Pricing, Security, SecurityModule,
    Verification, VerificationMode,
};
pub use workload::{Check, CheckKind, Deployment, Mount, Sidecar};

use crate::words::words;

words! {
    /// The version of the manifest's language. Old versions are read; the newest is written.
    pub enum ApiVersion {
        /// The first version, as proposed to EigenLayer.
        VistaraEigenlayerV1 = "vistara.eigenlayer/v1",
    }
}

impl ApiVersion {
    /// The version that is written.
    pub const NEWEST: Self = Self::VistaraEigenlayerV1;
}

words! {
    /// What a manifest describes.
    pub enum Kind {
        /// One deployed unit: workload, isolation, network, sidecar.
        AvsSpaceCore = "AVSSpaceCore" | "SpaceCore",
    }
}

/// One spacecore, described completely.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the language.
    #[serde(rename = "apiVersion")]
    pub api_version: ApiVersion,
    /// What is described.
    pub kind: Kind,
    /// The name and labels.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: Spec,
}

impl Default for Manifest {
    /// Gives every default; the image and the name, which have none, are empty.
    fn default() -> Self {
        Self {
            api_version: ApiVersion::NEWEST,
            kind: Kind::AvsSpaceCore,
            metadata: Metadata::default(),
            spec: Spec::default(),
        }
    }
}

impl Manifest {
    /// Makes the manifest of an image: every default, and a name derived from the reference.
    pub fn from_image(image: &str) -> Self {
        let mut manifest = Self::default();
        manifest.metadata.name = name_of_image(image);
        image.clone_into(&mut manifest.spec.deployment.image);
        manifest
    }
}

/// Derives a DNS label from an image reference: `docker://ghcr.io/acme/Web_App:1.2@sha256:...` gives `web-app`.
pub(crate) fn name_of_image(image: &str) -> String {
    let before_digest = image.split('@').next().unwrap_or_default();
    let last = before_digest.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    // `oci:folder:tag` has its transport in the same segment; a tag alone comes after the name.
    let mut parts = last.split(':');
    let first = parts.next().unwrap_or_default();
    let stem = match first {
        "oci" | "oci-archive" | "docker-archive" | "docker" => parts.next().unwrap_or_default(),
        _ => first,
    };
    let stem = stem.strip_suffix(".tar").unwrap_or(stem);
    let label: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(63)
        .collect();
    match label.trim_matches('-') {
        "" => "spacecore".to_owned(),
        name => name.to_owned(),
    }
}

/// The name and labels of a spacecore.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Metadata {
    /// A DNS label of 1 to 63 characters.
    pub name: String,
    /// Labels that select and group.
    pub labels: BTreeMap<String, String>,
}

/// What is wanted of a spacecore.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Spec {
    /// The workload: image, command, environment.
    pub deployment: Deployment,
    /// CPU, memory, disk, accelerators.
    pub resources: Resources,
    /// The isolation and who provides it.
    pub virtualization: Virtualization,
    /// Bandwidth, reachability, ports.
    pub networking: Networking,
    /// Folders and volumes.
    pub mounts: Vec<Mount>,
    /// Health checks.
    pub checks: Vec<Check>,
    /// Containers beside the workload, within the same isolation.
    pub sidecars: Vec<Sidecar>,
    /// Signature scheme and confinement.
    pub security: Security,
    /// Metrics and logs.
    pub observability: Observability,
    /// Horizontal scaling; `None` keeps the number of replicas fixed.
    pub scaling: Option<Scaling>,
    /// How a new version replaces the old one.
    pub update: Update,
    /// What happens on the same node when the workload ends.
    pub restart: Restart,
    /// What holds for a workload that is to come to an end.
    pub task: Task,
    /// What happens when the node is lost.
    pub failover: Failover,
    /// Where it may run.
    pub placement: Placement,
    /// What it may cost.
    pub pricing: Pricing,
    /// How others check what it did.
    pub verification: Verification,
    /// What must hold before it is provisioned.
    pub conditions: Vec<Condition>,
}
