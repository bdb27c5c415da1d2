//! What the observer knows: anomalies, and what workloads say of themselves.

use std::collections::BTreeMap;

use super::writer::{Exposition, Kind};
use super::{Measured, labels, listed};
use crate::anomaly::Rule;
use crate::daemon::observer::Seen;
use crate::exposition;
use crate::exposition::merge::{Whose, merge};

pub(super) fn anomalies(out: &mut Exposition, measured: &Measured<'_>) {
    let seen: Vec<_> = listed(measured.deployments)
        .filter_map(|one| Some((labels(one), measured.seen.get(&one.name)?)))
        .collect();
    let mut rounds = out.family(
        "vimana_spacecore_baseline_rounds",
        Kind::Gauge,
        None,
        "Rounds that are known of what is usual for it.",
    );
    for (labels, one) in &seen {
        one.rounds.into_iter().for_each(|count| rounds.sample(labels, count));
    }
    let mut each = |name, kind, help, value: &dyn Fn(&Seen, Rule) -> u64| {
        let mut family = out.family(name, kind, None, help);
        for ([deployment, spacecore], one) in &seen {
            // What was never found has no series: nearly all of them.
            for rule in Rule::ALL.into_iter().filter(|rule| one.found.contains_key(rule)) {
                family.sample(&[*deployment, *spacecore, ("rule", rule.name())], value(one, rule));
            }
        }
    };
    let is_active = |one: &Seen, rule| u64::from(one.active.contains(&rule));
    each("vimana_spacecore_anomalous", Kind::Gauge, "Whether it behaves unlike itself now.", &is_active);
    let count = |one: &Seen, rule| one.found.get(&rule).copied().unwrap_or_default();
    each(
        "vimana_spacecore_anomalies",
        Kind::Counter,
        "How often it was found to behave unlike itself.",
        &count,
    );
}

pub(super) fn pages(out: &mut Exposition, measured: &Measured<'_>) {
    let asked: Vec<_> = listed(measured.deployments)
        .filter_map(|one| Some((one, measured.seen.get(&one.name).filter(|seen| seen.is_asked)?)))
        .collect();
    let mut up = out.family(
        "vimana_workload_up",
        Kind::Gauge,
        None,
        "Whether the workload's own metrics could be read when they were asked for last.",
    );
    for (one, seen) in &asked {
        up.sample(&labels(one), u64::from(seen.page.is_some()));
    }
    let pages = asked.iter().filter_map(|(one, seen)| {
        let whose = Whose { deployment: &one.deployment, spacecore: &one.name };
        Some((whose, &**seen.page.as_ref()?))
    });
    let merged = merge(pages);
    let taken = merged.taken.iter().map(|(whose, count)| (*whose, *count as u64)).collect();
    counts(out, "vimana_workload_series", "Series of the workload's own that are shown.", taken);
    let left_out = merged.left_out.clone();
    let help =
        "Series of the workload's own that are not shown: too many, too long, or in contradiction to others.";
    counts(out, "vimana_workload_dropped_series", help, left_out);
    for (name, family) in &merged.families {
        let kind = match family.kind {
            exposition::Kind::Counter => Kind::Counter,
            exposition::Kind::Gauge => Kind::Gauge,
            exposition::Kind::Histogram => Kind::Histogram,
            exposition::Kind::Summary => Kind::Summary,
            exposition::Kind::Unknown => Kind::Unknown,
        };
        let mut written = out.family(name, kind, None, family.help);
        for sample in &family.samples {
            written.named(sample.name, &sample.labels, sample.value);
        }
    }
}

fn counts(out: &mut Exposition, name: &str, help: &str, counts: Vec<(Whose<'_>, u64)>) {
    let mut family = out.family(name, Kind::Gauge, None, help);
    let by_name: BTreeMap<&str, (Whose<'_>, u64)> =
        counts.into_iter().map(|(whose, count)| (whose.spacecore, (whose, count))).collect();
    for (whose, count) in by_name.into_values() {
        family.sample(&[("deployment", whose.deployment), ("spacecore", whose.spacecore)], count);
    }
}
