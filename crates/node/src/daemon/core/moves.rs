//! What is done with the spacecores of a deployment, so that they become what is wanted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Core, Happening, Leaving, Spacecore, now_ms, unix_ms};
use crate::daemon::record;
use crate::rollout::{self, Move, Rollout, Seen, Wanted};
use crate::supervisor::{Input, Phase, State};

impl Core {
    /// Brings a deployment one move nearer to what is wanted of it.
    pub(super) fn reconcile(&mut self, name: &str) {
        let Some(deployment) = self.deployments.get_mut(name) else { return };
        if deployment.record.removing {
            self.remove_all(name);
            return;
        }
        let (revision, Some(manifest)) = deployment.newest() else { return };
        let update = &manifest.spec.update;
        let wanted = Wanted {
            revision,
            replicas: deployment.record.replicas,
            strategy: update.strategy,
            max_parallel: update.max_parallel,
            auto_revert: update.auto_revert,
            running: deployment.record.running,
        };
        let of_it = self.spacecores.values().filter(|spacecore| spacecore.record.deployment == name);
        let mut seen: Vec<Seen> = of_it.map(Spacecore::seen).collect();
        seen.sort_by_key(|seen| seen.index);
        let before = deployment.record.rollout.clone();
        let moves = rollout::plan(now_ms(), &mut deployment.record.rollout, &wanted, &seen);
        let after = &deployment.record.rollout;
        let standing = |rollout: &Rollout| (rollout.stage().cloned(), rollout.good(), rollout.target());
        let has_changed = standing(&before) != standing(after);
        let wake_ms = after.wake_ms();
        for one in moves {
            self.make(name, one);
        }
        let kept = self
            .deployments
            .get(name)
            .filter(|_| has_changed)
            .map(|found| self.keep_deployment(&found.record));
        if let Some(Err(refusal)) = kept {
            self.events.note("not-kept", Some(name), None, refusal.to_string());
        }
        self.wake(name, wake_ms);
    }

    /// Has a deployment be looked at again, even if nothing happens until then.
    fn wake(&mut self, name: &str, at_ms: Option<u64>) {
        let Some(deployment) = self.deployments.get_mut(name).filter(|found| found.wakes_ms != at_ms) else {
            return;
        };
        deployment.wakes_ms = at_ms;
        let Some(at_ms) = at_ms else { return };
        let (tell, deployment) = (self.tell.clone(), name.to_owned());
        let wait = Duration::from_millis(at_ms.saturating_sub(now_ms()));
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // Where nobody hears it the node is ending.
            let _ = tell.send(Happening::Wake { deployment, at_ms });
        });
    }

    pub(super) fn woken(&mut self, name: &str, at_ms: u64) {
        if let Some(deployment) = self.deployments.get_mut(name).filter(|found| found.wakes_ms == Some(at_ms))
        {
            deployment.wakes_ms = None;
            self.mark(name);
        }
    }

    fn make(&mut self, name: &str, one: Move) {
        match one {
            Move::Add { index, revision } => self.add(name, index, revision),
            Move::Replace { index, revision } => self.leave(name, index, Leaving::Replace(revision)),
            Move::Remove { index } => self.leave(name, index, Leaving::Remove),
            Move::Revert { to, reason } => {
                self.events.note(
                    "reverted",
                    Some(name),
                    None,
                    format!("goes back to revision {to}: {reason}"),
                );
            }
            Move::Done { revision } => {
                self.events.note("updated", Some(name), None, format!("revision {revision} is there"));
            }
            Move::Tell(event) => self.events.note("update", Some(name), None, event.to_string()),
        }
    }

    fn add(&mut self, deployment: &str, index: u32, revision: u64) {
        let Some(found) = self.deployments.get(deployment) else { return };
        let name = found.spacecore(index);
        if self.spacecores.contains_key(&name) {
            return;
        }
        let record = record::Spacecore {
            version: record::VERSION,
            name: name.clone(),
            deployment: deployment.to_owned(),
            index,
            revision,
            keeper: None,
            state: State::new(found.rules(revision)),
            image_digest: None,
            ports: Vec::new(),
            published: BTreeMap::new(),
            since_ms: now_ms(),
            since_unix_ms: unix_ms(),
        };
        let running = found.record.running;
        self.spacecores.insert(name.clone(), Spacecore::new(record));
        self.keep(&name);
        if running {
            self.step(&name, Input::Run);
        }
    }

    /// Ends a spacecore in order, for what comes once it stands still.
    fn leave(&mut self, deployment: &str, index: u32, leaving: Leaving) {
        let Some(name) = self.deployments.get(deployment).map(|found| found.spacecore(index)) else { return };
        let Some(spacecore) = self.spacecores.get_mut(&name).filter(|found| found.leaving != Some(leaving))
        else {
            return;
        };
        spacecore.leaving = Some(leaving);
        if spacecore.is_at_rest() {
            self.settle(&name);
        } else {
            self.step(&name, Input::Halt);
        }
    }

    /// Starts a spacecore that stands still as another revision.
    pub(super) fn begin_as(&mut self, name: &str, revision: u64) {
        let Some(spacecore) = self.spacecores.get_mut(name) else { return };
        spacecore.leaving = None;
        let Some(deployment) = self.deployments.get(&spacecore.record.deployment) else { return };
        let running = deployment.record.running;
        spacecore.record.revision = revision;
        spacecore.record.state = State::new(deployment.rules(revision));
        spacecore.record.stands_since(now_ms(), unix_ms());
        spacecore.timers.clear();
        spacecore.complaints.clear();
        self.keep(name);
        if running {
            self.step(name, Input::Run);
        }
    }

    pub(super) fn forget(&mut self, name: &str) {
        let Some(spacecore) = self.spacecores.remove(name) else { return };
        let deployment = spacecore.record.deployment;
        if let Err(error) = self.records.forget_spacecore(name) {
            self.events.note("not-kept", Some(&deployment), Some(name), image::whole(&error));
        }
        self.events.note(
            "removed",
            Some(&deployment),
            Some(name),
            "nothing of it is left but its log".to_owned(),
        );
    }

    fn remove_all(&mut self, deployment: &str) {
        let of_it = self.spacecores.values().filter(|found| found.record.deployment == deployment);
        let indexes: Vec<u32> = of_it.map(|found| found.record.index).collect();
        indexes.into_iter().for_each(|index| self.leave(deployment, index, Leaving::Remove));
        self.finish_removal(deployment);
    }

    /// Forgets a deployment once the last of its spacecores is gone.
    pub(super) fn finish_removal(&mut self, deployment: &str) {
        let is_removing = self.deployments.get(deployment).is_some_and(|found| found.record.removing);
        let is_empty = !self.spacecores.values().any(|found| found.record.deployment == deployment);
        if !is_removing || !is_empty || self.balancers.contains_key(deployment) {
            return;
        }
        if self.deployments.get(deployment).is_some_and(|found| found.record.removes_logs) {
            self.remove_logs(deployment);
        }
        match self.records.forget_deployment(deployment) {
            Ok(()) => {
                let removed = self.deployments.remove(deployment);
                let kept = match removed.is_some_and(|found| found.record.removes_logs) {
                    true => "volumes are kept",
                    false => "volumes and logs are kept",
                };
                self.events.note("removed", Some(deployment), None, format!("is gone; its {kept}"));
                self.keep_logs_in_bounds();
            }
            Err(error) => self.events.note("not-kept", Some(deployment), None, image::whole(&error)),
        }
    }
}

impl Spacecore {
    fn seen(&self) -> Seen {
        let (index, state) = (self.record.index, &self.record.state);
        let leaving = self.leaving == Some(Leaving::Remove);
        match self.leaving {
            // It is the new one already, which just hasn't begun.
            Some(Leaving::Replace(revision)) => Seen {
                index,
                revision,
                phase: Phase::Stopping,
                since_ms: self.record.since_ms,
                restarts: 0,
                leaving,
            },
            Some(Leaving::Remove) | None => Seen {
                index,
                revision: self.record.revision,
                phase: state.phase(),
                since_ms: self.record.since_ms,
                restarts: state.restarts_in_a_row(),
                leaving,
            },
        }
    }
}
