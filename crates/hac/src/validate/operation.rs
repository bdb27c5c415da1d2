//! Scaling, updates and restarts.

use crate::decode::Context;
use crate::model::{FailoverStrategy, MetricsPage, RestartPolicy, Scaling, ScalingMetric, Spec};
use crate::units::Duration;

const REPLICAS: &str = "spec.deployment.replicas";

pub(super) fn check(spec: &Spec, context: &mut Context<'_>) {
    let replicas = spec.deployment.replicas;
    let most = spec.scaling.as_ref().map_or(replicas, |scaling| scaling.max.max(replicas));
    if let Some(scaling) = &spec.scaling {
        check_scaling(scaling, replicas, context);
        check_series(scaling, spec.observability.metrics.is_some(), context);
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
    if let Some(page) = &spec.observability.metrics {
        check_metrics(page, context);
    }
    if spec.task.deadline.is_some_and(|deadline| deadline.0 < 1000) {
        let help = "write at least \"1s\", or leave it out for a workload that may run for ever".to_owned();
        context.conflict(
            &["spec.task.deadline"],
            "no workload can keep a deadline of less than a second",
            help,
        );
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

/// Whether a series is named where one decides, and can be read.
fn check_series(scaling: &Scaling, has_page: bool, context: &mut Context<'_>) {
    let (metric, series) = ("spec.scaling.metric", "spec.scaling.series");
    match (&scaling.series, scaling.metric == ScalingMetric::Workload) {
        (None, false) => {}
        (Some(_), false) => {
            let message = format!("the metric {} has no series", scaling.metric);
            context.conflict(&[series, metric], message, "write metric = \"workload\"".to_owned());
        }
        (None, true) => {
            let help = "write its name, such as series = \"queue_length\"".to_owned();
            context.conflict(&[metric], "a workload's own metric needs a `series`", help);
        }
        (Some(_), true) if !has_page => {
            let help = "write spec.observability.metrics = { port = 9090 }".to_owned();
            context.conflict(&[series], "nobody says where the workload serves its metrics", help);
        }
        (Some(name), true) => {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
            if name.is_empty() || !name.bytes().all(is_plain) || name.as_bytes()[0].is_ascii_digit() {
                let help = "write it without labels; the values of all of its labels are added".to_owned();
                context.conflict(&[series], format!("{name:?} can't be the name of a metric"), help);
            }
        }
    }
}

fn check_metrics(page: &MetricsPage, context: &mut Context<'_>) {
    let (port, path, interval) = (
        "spec.observability.metrics.port",
        "spec.observability.metrics.path",
        "spec.observability.metrics.interval",
    );
    if page.port.is_none() {
        let help = "write the port inside on which the workload serves its metrics, such as port = 9090";
        context.conflict(&[port, "spec.observability.metrics"], "metrics need a `port`", help.to_owned());
    }
    if !page.path.starts_with('/')
        || page.path.len() > 2048
        || !page.path.bytes().all(|byte| byte.is_ascii_graphic())
    {
        let message = format!("{:?} can't be the path of a request", page.path);
        context.conflict(&[path], message, "it starts with / and has no blanks".to_owned());
    }
    if page.interval < Duration::from_secs(1) || page.interval > Duration::from_secs(3600) {
        let message = format!("metrics can't be read every {}", page.interval);
        context.conflict(&[interval], message, "write \"1s\" to \"1h\"; \"15s\" is common".to_owned());
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
        ScalingMetric::Connections | ScalingMetric::Requests | ScalingMetric::Workload
            if scaling.target == 0 =>
        {
            let help = "write how many one replica should have".to_owned();
            context.conflict(&[target], format!("a target of 0 {} is never reached", scaling.metric), help);
        }
        ScalingMetric::Cpu
        | ScalingMetric::Memory
        | ScalingMetric::Connections
        | ScalingMetric::Requests
        | ScalingMetric::Workload => {}
    }
}
