//! Scaling, updates and restarts.

use crate::decode::Context;
use crate::model::{FailoverStrategy, RestartPolicy, Scaling, ScalingMetric, Spec};

const REPLICAS: &str = "spec.deployment.replicas";

pub(super) fn check(spec: &Spec, context: &mut Context<'_>) {
    let replicas = spec.deployment.replicas;
    let most = spec.scaling.as_ref().map_or(replicas, |scaling| scaling.max.max(replicas));
    if let Some(scaling) = &spec.scaling {
        check_scaling(scaling, replicas, context);
    }
    if spec.update.max_parallel == 0 {
        let help = "write 1 to replace one replica after another".to_owned();
        context.conflict(
            &["spec.update.max_parallel"],
            "an update that replaces 0 at a time never ends",
            help,
        );
    } else if spec.update.max_parallel > most && most > 0 {
        context.conflict(
            &["spec.update.max_parallel", REPLICAS],
            format!(
                "{} replicas can't be replaced at a time when there are at most {most}",
                spec.update.max_parallel
            ),
            format!("write {most} or less, or strategy = \"Recreate\" to replace all at once"),
        );
    }
    if spec.restart.backoff.0 == 0 {
        let help = "write at least \"1ms\"; the wait doubles with each restart".to_owned();
        context.conflict(&["spec.restart.backoff"], "a wait of 0 would restart without end", help);
    }
    // With source text, the presets have already said this and shown both lines.
    if spec.failover.strategy == FailoverStrategy::AutoRecovery
        && spec.restart.policy == RestartPolicy::Never
        && !context.is_set("spec.restart.policy")
    {
        context.conflict(
            &["spec.restart.policy", "spec.failover.strategy"],
            "a spacecore that is never restarted can't recover automatically",
            None,
        );
    }
}

fn check_scaling(scaling: &Scaling, replicas: u32, context: &mut Context<'_>) {
    let (min, max, target) = ("spec.scaling.min", "spec.scaling.max", "spec.scaling.target");
    if scaling.min == 0 {
        context.conflict(&[min], "at least one replica must run", "write 1 or more".to_owned());
    }
    if scaling.min > scaling.max {
        context.conflict(
            &[min, max],
            format!(
                "the least number of replicas, {}, is more than the greatest, {}",
                scaling.min, scaling.max
            ),
            "exchange them, or raise `max`".to_owned(),
        );
    } else if replicas != 0 && !(scaling.min..=scaling.max).contains(&replicas) {
        context.conflict(
            &[REPLICAS, if replicas < scaling.min { min } else { max }],
            format!(
                "{replicas} replicas aren't between {} and {}, where scaling keeps them",
                scaling.min, scaling.max
            ),
            format!("start with {} to {}, or change `spec.scaling`", scaling.min, scaling.max),
        );
    }
    match scaling.metric {
        ScalingMetric::Cpu | ScalingMetric::Memory if !(1..=100).contains(&scaling.target) => context
            .conflict(
                &[target, "spec.scaling.metric"],
                format!("a target of {} % of {} can't be reached", scaling.target, scaling.metric),
                "write a percentage from 1 to 100".to_owned(),
            ),
        ScalingMetric::Connections | ScalingMetric::Requests if scaling.target == 0 => {
            let help = "write how many one replica should have".to_owned();
            context.conflict(&[target], format!("a target of 0 {} is never reached", scaling.metric), help);
        }
        ScalingMetric::Cpu | ScalingMetric::Memory | ScalingMetric::Connections | ScalingMetric::Requests => {
        }
    }
}
