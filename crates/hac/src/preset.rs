//! Short forms and the defaults that follow from other keys.
//!
//! The short forms (`updateStrategy`, `scaling = "HorizontalAutoScaling"`, `strategy = "auto-recovery"`, `criteria`)
//! choose defaults of the tables (`spec.update`, `spec.scaling`, `spec.restart`, `spec.resources`), which refine them.
//! A table that says the opposite of a short form is a contradiction, which is shown with both places.

use std::collections::BTreeSet;

use crate::decode::{Context, Decode};
use crate::model::{
    Class, FailoverStrategy, Level, Manifest, RestartPolicy, Scaling, ScalingMetric, ScalingPreset,
    UpdateStrategy, Verification, VerificationMode, name_of_image,
};
use crate::tree::{Node, Value};

/// The table of short forms; the model has none, because it holds what they mean.
#[derive(Debug, Clone, Default, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Operations {
    #[serde(rename = "updateStrategy")]
    pub(crate) update_strategy: Option<UpdateStrategy>,
    pub(crate) scaling: Option<ScalingPreset>,
}

/// Reads `spec.operations`, if it is there.
pub(crate) fn operations(root: &Node, context: &mut Context<'_>) -> Operations {
    root.get("spec")
        .and_then(|spec| spec.get("operations"))
        .filter(|node| !matches!(node.value, Value::Null))
        .and_then(|node| Operations::decode(node, "spec.operations", context))
        .unwrap_or_default()
}

/// Applies the short forms, then fills in every default that follows from another key.
pub(crate) fn resolve(manifest: &mut Manifest, operations: &Operations, context: &mut Context<'_>) {
    apply_operations(manifest, operations, context);
    let derived = Derived::of(manifest);
    let spec = &mut manifest.spec;
    if !context.is_set("metadata.name") {
        manifest.metadata.name = derived.name;
    }
    if !context.is_set("spec.restart.policy") {
        spec.restart.policy = derived.restart_policy;
    } else if spec.failover.strategy == FailoverStrategy::AutoRecovery
        && spec.restart.policy == RestartPolicy::Never
    {
        context.conflict(
            &["spec.restart.policy", "spec.failover.strategy"],
            "a spacecore that is never restarted can't recover automatically",
            "write policy = \"on-failure\", or remove strategy = \"auto-recovery\"".to_owned(),
        );
    }
    if !context.is_set("spec.resources.cpu_pinning") {
        spec.resources.cpu_pinning = derived.cpu_pinning;
    }
    if !context.is_set("spec.resources.class") {
        spec.resources.class = derived.class;
    }
    if !context.is_set("spec.networking.ingress") {
        spec.networking.ingress = spec.networking.bandwidth_limit;
    }
    if !context.is_set("spec.networking.egress") {
        spec.networking.egress = spec.networking.bandwidth_limit;
    }
    if let Some(scaling) = &mut spec.scaling {
        if !context.is_set("spec.scaling.target") {
            scaling.target = default_target(scaling.metric);
        }
        if !context.is_set("spec.scaling.max") {
            scaling.max = default_max(scaling.min);
        }
        if !context.is_set("spec.deployment.replicas") {
            spec.deployment.replicas = scaling.min;
        }
    }
    if !context.is_set("spec.verification.replicas") {
        spec.verification.replicas = default_replicas(&spec.verification.modes);
    }
    if !context.is_set("spec.verification.quorum") {
        spec.verification.quorum = least_quorum(&spec.verification);
    }
}

fn apply_operations(manifest: &mut Manifest, operations: &Operations, context: &mut Context<'_>) {
    let spec = &mut manifest.spec;
    if let Some(strategy) = operations.update_strategy {
        if !context.is_set("spec.update.strategy") {
            spec.update.strategy = strategy;
        } else if spec.update.strategy != strategy {
            context.conflict(
                &["spec.update.strategy", "spec.operations.updateStrategy"],
                format!("two update strategies: {} here, {strategy} as the short form", spec.update.strategy),
                "keep one of the two".to_owned(),
            );
        }
    }
    match operations.scaling {
        None => {}
        Some(ScalingPreset::HorizontalAutoScaling) => {
            spec.scaling.get_or_insert_with(Scaling::default);
        }
        Some(ScalingPreset::Fixed) if spec.scaling.is_some() => context.conflict(
            &["spec.scaling", "spec.operations.scaling"],
            "this table scales, and the short form says that the number of replicas is fixed",
            "remove one of the two".to_owned(),
        ),
        Some(ScalingPreset::Fixed) => {}
    }
}

/// Defaults that follow from other keys.
struct Derived {
    name: String,
    restart_policy: RestartPolicy,
    cpu_pinning: bool,
    class: Class,
}

impl Derived {
    fn of(manifest: &Manifest) -> Self {
        let high = manifest.spec.virtualization.criteria.performance == Level::High;
        Self {
            name: name_of_image(&manifest.spec.deployment.image),
            restart_policy: match manifest.spec.failover.strategy {
                FailoverStrategy::None => RestartPolicy::Never,
                FailoverStrategy::AutoRecovery => RestartPolicy::OnFailure,
            },
            cpu_pinning: high,
            class: if high { Class::Guaranteed } else { Class::Burstable },
        }
    }
}

/// Gives the manifest that has every key's default, where the keys that others follow from are as in `manifest`:
/// what is equal to it needn't be written.
pub(crate) fn defaults_beside(manifest: &Manifest) -> Manifest {
    let derived = Derived::of(manifest);
    let mut defaults = Manifest::default();
    defaults.metadata.name = derived.name;
    let spec = &mut defaults.spec;
    spec.restart.policy = derived.restart_policy;
    spec.resources.cpu_pinning = derived.cpu_pinning;
    spec.resources.class = derived.class;
    spec.networking.ingress = manifest.spec.networking.bandwidth_limit;
    spec.networking.egress = manifest.spec.networking.bandwidth_limit;
    spec.scaling = manifest.spec.scaling.as_ref().map(|scaling| Scaling {
        target: default_target(scaling.metric),
        max: default_max(scaling.min),
        ..Scaling::default()
    });
    spec.deployment.replicas = manifest.spec.scaling.as_ref().map_or(1, |scaling| scaling.min);
    spec.verification.replicas = default_replicas(&manifest.spec.verification.modes);
    spec.verification.quorum = least_quorum(&manifest.spec.verification);
    defaults
}

fn default_target(metric: ScalingMetric) -> u32 {
    match metric {
        ScalingMetric::Cpu | ScalingMetric::Memory => 80,
        ScalingMetric::Connections | ScalingMetric::Requests | ScalingMetric::Workload => 100,
    }
}

fn default_max(min: u32) -> u32 {
    min.max(Scaling::default().max)
}

fn default_replicas(modes: &BTreeSet<VerificationMode>) -> u32 {
    let needed = modes.iter().map(|mode| match mode {
        VerificationMode::Attest | VerificationMode::Replay | VerificationMode::Zk => 1,
        VerificationMode::Redundant | VerificationMode::Mpc => 3,
        VerificationMode::Consensus => 4,
    });
    needed.max().unwrap_or(1)
}

/// Gives the smallest quorum that the modes allow: all but f of 3f+1 for a committee, otherwise more than half.
pub(crate) fn least_quorum(verification: &Verification) -> u32 {
    if verification.modes.contains(&VerificationMode::Consensus) {
        let faulty = verification.replicas.saturating_sub(1) / 3;
        verification.replicas.saturating_sub(faulty)
    } else {
        (verification.replicas / 2).saturating_add(1)
    }
}
