//! Who may have to go when the machine is short of memory, and how.

use hac::model::Class;

use super::{Core, Spacecore, now_ms};
use crate::daemon::pressure::Evictable;
use crate::supervisor::{Input, Phase};

impl Core {
    /// The burstable spacecores that run.
    pub(super) fn to_evict(&self) -> Vec<Evictable> {
        let evictable = |found: &Spacecore| {
            let (record, state) = (&found.record, &found.record.state);
            let manifest =
                self.deployments.get(&record.deployment).and_then(|of| of.manifests.get(&record.revision))?;
            let resources = &manifest.spec.resources;
            let runs = matches!(state.phase(), Phase::Running | Phase::Ready);
            (runs && resources.class == Class::Burstable).then(|| Evictable {
                name: record.name.clone(),
                promised: resources.memory.as_u64(),
                running_ms: state.started_ms().map_or(0, |since| now_ms().saturating_sub(since)),
            })
        };
        self.spacecores.values().filter_map(evictable).collect()
    }

    /// Has a spacecore go; it comes back when its back-off is over.
    pub(super) fn evict(&mut self, name: &str, reason: String) {
        let Some(found) = self.spacecores.get(name) else { return };
        let deployment = found.record.deployment.clone();
        self.events.note("evicted", Some(&deployment), Some(name), reason.clone());
        self.step(name, Input::Evict { reason });
    }
}
