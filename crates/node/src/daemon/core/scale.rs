//! How many spacecores a deployment has, where that follows its load.

use hac::Manifest;
use hac::model::ScalingMetric;

use super::{Core, now_ms};
use crate::autoscale;
use crate::daemon::call::Refusal;
use crate::daemon::sampler::Measured;
use crate::supervisor::Phase;

impl Core {
    /// The deployments whose load decides on their number.
    pub(super) fn to_measure(&self) -> Vec<Measured> {
        let scaling =
            self.deployments.values().filter(|found| found.record.running && !found.record.removing);
        let measured = scaling.filter_map(|found| {
            let spec = &found.newest().1?.spec;
            let scaling = spec.scaling.as_ref()?;
            let ready = self.of(&found.record.name).filter(|one| one.record.state.phase() == Phase::Ready);
            Some(Measured {
                deployment: found.record.name.clone(),
                metric: scaling.metric,
                series: scaling.series.clone(),
                cpu_milli: spec.resources.cpu.0,
                spacecores: ready.map(|one| one.record.name.clone()).collect(),
            })
        });
        measured.collect()
    }

    /// Lets a measured load decide.
    pub(super) fn load(&mut self, name: &str, samples: &[u64]) {
        let Some(deployment) = self.deployments.get_mut(name) else { return };
        let manifest = deployment.newest().1.cloned().unwrap_or_default();
        let Some(scaling) = &manifest.spec.scaling else { return };
        let before = deployment.record.replicas;
        let decided = autoscale::step(now_ms(), &mut deployment.record.autoscaler, scaling, before, samples);
        let Some(replicas) = decided else { return };
        let mut record = deployment.record.clone();
        record.replicas = replicas;
        let fits = self.check_replicas(name, replicas).and_then(|()| self.check_scale(name, replicas));
        let kept = fits.and_then(|()| self.replace(record));
        let average = samples.iter().sum::<u64>() / u64::try_from(samples.len()).unwrap_or(1).max(1) / 10;
        let (kind, text) = match kept {
            Ok(()) => {
                self.mark(name);
                (
                    "scaled",
                    match &scaling.series {
                        Some(series) => format!("from {before} to {replicas}: {series} at {average}"),
                        None => format!("from {before} to {replicas}: {} at {average} %", scaling.metric),
                    },
                )
            }
            Err(refusal) => ("not-scaled", format!("{replicas} were asked for by the load: {refusal}")),
        };
        self.events.note(kind, Some(name), None, text);
    }

    /// How many spacecores a manifest asks for: where the load decides, as many as there are, within the bounds.
    pub(super) fn replicas_of(&self, manifest: &Manifest) -> u32 {
        let asked = manifest.spec.deployment.replicas;
        let Some(scaling) = &manifest.spec.scaling else { return asked };
        let there = self
            .deployments
            .get(&manifest.metadata.name)
            .filter(|found| found.newest().1.is_some_and(|newest| newest.spec.scaling.is_some()));
        let min = scaling.min.max(1);
        there.map_or(asked, |found| found.record.replicas).clamp(min, scaling.max.max(min))
    }
}

/// Refuses what can't be measured yet.
pub(super) fn check_metric(manifest: &Manifest) -> Result<(), Refusal> {
    match manifest.spec.scaling.as_ref().map(|scaling| scaling.metric) {
        Some(metric @ (ScalingMetric::Connections | ScalingMetric::Requests)) => {
            Err(Refusal::Metric { metric })
        }
        Some(ScalingMetric::Cpu | ScalingMetric::Memory | ScalingMetric::Workload) | None => Ok(()),
    }
}
