//! Who holds how much of what the node offers, and whether more fits.

use std::collections::BTreeSet;

use hac::Manifest;
use hac::model::Class;

use super::{Core, Deployment, Leaving, Spacecore};
use crate::capacity::{Ask, Claim, Holder, Request};
use crate::daemon::call::Refusal;
use crate::daemon::view::Allocation;
use crate::rollout::Stage;
use crate::supervisor::Phase;

/// What a deployment may have run at once.
#[derive(Clone)]
struct Wish {
    /// What replicas may run that aren't there yet, or are replaced.
    asks: Vec<Ask>,
    replicas: u32,
    running: bool,
    /// Whether replicas that have ended hold nothing.
    settled: bool,
}

impl Core {
    /// What each deployment holds.
    pub(super) fn allocation(&self) -> Allocation {
        let holders = self.holders("");
        let total = holders.iter().fold(Claim::default(), |sum, holder| sum.and(holder.claim));
        Allocation { total, deployments: holders }
    }

    /// Whether a deployment may have so many replicas of this manifest, besides what it has; those that have ended too, if one of them
    /// is to begin anew.
    pub(super) fn check_room(&self, name: &str, manifest: &Manifest, replicas: u32) -> Result<(), Refusal> {
        let found = self.deployments.get(name);
        let running = found.is_none_or(|found| found.record.running);
        self.check(name, Some(manifest), replicas, running, !self.failed(name).is_empty())
    }

    /// Whether a deployment that has one may run with as many replicas as it has now.
    pub(super) fn check_revival(&self, name: &str) -> Result<(), Refusal> {
        let replicas = self.deployments.get(name).map_or(0, |found| found.record.replicas);
        self.check(name, None, replicas, true, true)
    }

    /// Whether a deployment may have more replicas of what it runs.
    pub(super) fn check_scale(&self, name: &str, replicas: u32) -> Result<(), Refusal> {
        let running = self.deployments.get(name).is_some_and(|found| found.record.running);
        self.check(name, None, replicas, running, false)
    }

    fn check(
        &self,
        name: &str,
        newest: Option<&Manifest>,
        replicas: u32,
        running: bool,
        revives: bool,
    ) -> Result<(), Refusal> {
        let found = self.deployments.get(name);
        let now = found.map(|found| self.wish(found));
        let before = now.as_ref().map_or_else(Claim::default, |wish| self.claim(name, wish));
        let mut wish = Wish { replicas, running, ..now.unwrap_or_else(Wish::none) };
        let old = found.and_then(|found| found.newest().1);
        if let Some(newest) = newest {
            wish.asks.push(self.ask(newest));
            let is_another_try = found.is_some_and(|found| found.record.rollout.has_failed());
            wish.settled &= !is_another_try && !old.is_some_and(|old| is_replaced(old, newest));
        }
        wish.settled &= !revives;
        let class = newest.or(old).map_or(Class::Burstable, |manifest| manifest.spec.resources.class);
        let with = |replicas| self.claim(name, &Wish { replicas, ..wish.clone() });
        let others = self.holders(name);
        let request = Request { name, class, before, replicas, with: &with, others: &others };
        self.offer.admit(&request).map_err(|no_room| Refusal::NoRoom(Box::new(no_room)))
    }

    /// Everybody but one.
    fn holders(&self, but: &str) -> Vec<Holder> {
        let others = self.deployments.iter().filter(|(name, _)| *name != but);
        let holder = |(name, found): (&String, &Deployment)| Holder {
            deployment: name.clone(),
            claim: self.claim(name, &self.wish(found)),
        };
        others.map(holder).collect()
    }

    fn ask(&self, manifest: &Manifest) -> Ask {
        Ask::of(manifest, self.rootless)
    }

    /// What a deployment may run as things stand.
    fn wish(&self, deployment: &Deployment) -> Wish {
        let (record, rollout) = (&deployment.record, &deployment.record.rollout);
        let newest = deployment.newest().0;
        let (revisions, settled) = match rollout.stage() {
            Some(Stage::Updating) => (vec![Some(newest), rollout.target(), rollout.good()], false),
            // What failed isn't tried again by itself.
            Some(Stage::Reverting { .. }) => (vec![rollout.target()], false),
            Some(Stage::Reverted { .. }) => (vec![rollout.target()], true),
            Some(Stage::Done | Stage::Stopped { .. }) | None => (vec![Some(newest), rollout.target()], true),
        };
        let manifests =
            revisions.into_iter().flatten().filter_map(|revision| deployment.manifests.get(&revision));
        Wish {
            asks: manifests.map(|manifest| self.ask(manifest)).collect(),
            replicas: if record.removing { 0 } else { record.replicas },
            running: record.running && !record.removing,
            settled,
        }
    }

    /// What a deployment claims that may come to this: each replica by what it may run, including what it runs now.
    fn claim(&self, name: &str, wish: &Wish) -> Claim {
        let there: Vec<&Spacecore> = self.of(name).collect();
        let indexes: BTreeSet<u32> = there.iter().map(|found| found.record.index).collect();
        let missing = (0..wish.replicas).filter(|index| !indexes.contains(index));
        let new = if wish.running {
            Claim::of(&wish.asks, self.offer.oversell)
        } else {
            Claim::at_rest(&wish.asks)
        };
        let sum = missing.fold(Claim::default(), |sum, _| sum.and(new));
        there.into_iter().fold(sum, |sum, found| sum.and(self.claim_of(found, wish)))
    }

    fn claim_of(&self, spacecore: &Spacecore, wish: &Wish) -> Claim {
        let deployment = self.deployments.get(&spacecore.record.deployment);
        let next = match spacecore.leaving {
            Some(Leaving::Replace(revision)) => Some(revision),
            Some(Leaving::Remove) | None => None,
        };
        let revisions = [Some(spacecore.record.revision), next].into_iter().flatten();
        let manifests =
            revisions.filter_map(|revision| deployment.and_then(|found| found.manifests.get(&revision)));
        let mut asks: Vec<Ask> = manifests.map(|manifest| self.ask(manifest)).collect();
        let is_wanted = spacecore.record.index < wish.replicas;
        if is_wanted {
            asks.extend(&wish.asks);
        }
        let may_run = is_wanted && wish.running && !(spacecore.has_ended() && wish.settled);
        // Once it rests its keeper is gone, with all the memory that it had.
        if may_run || !spacecore.record.state.phase().is_restful() {
            Claim::of(&asks, self.offer.oversell)
        } else {
            Claim::at_rest(&asks)
        }
    }
}

impl Spacecore {
    /// Whether its workload has ended, so that it holds nothing until somebody starts it again.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.record.state.phase(), Phase::Completed | Phase::Failed)
    }
}

impl Wish {
    fn none() -> Self {
        Self { asks: Vec::new(), replicas: 0, running: true, settled: true }
    }
}

/// Whether what runs is replaced when one manifest follows another.
fn is_replaced(old: &Manifest, new: &Manifest) -> bool {
    crate::daemon::difference::differences(old, new).iter().any(|change| change.replaces)
}
