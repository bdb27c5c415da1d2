//! Brings a deployment's replicas to the wanted revision and number, free of I/O and clocks.
//!
//! ```text
//!                 every replica is good             another revision is wanted
//!   Updating -------------------------------> Done ----------------------------> Updating
//!      |  |                                                                       (from everywhere)
//!      |  | a replica fails, or nothing gets ahead
//!      |  +------- no good revision to go back to, or no auto_revert -------> Stopped
//!      |                                                                         ^
//!      +--> Reverting ------------- the same happens again ----------------------+
//!               |
//!               +---- every replica is good ----> Reverted
//! ```
//!
//! [`plan`] compares what is wanted with what is seen and says what is to be moved now. It is asked again whenever either
//! changes, and at [`Rollout::wake_ms`]. A replica is good when it is ready, or has completed.
//!
//! - **Rolling**: replicas of other revisions are replaced, those that aren't good first. At most `max_parallel` new ones
//!   may not be good yet; and a good one is replaced only while fewer than `max_parallel` of all replicas aren't good.
//! - **Canary**: one is replaced first; once it has been good for [`SOAK_MS`], it goes on as rolling.
//! - **Recreate**: all others are removed; once they are gone, the new ones are added together.
//! - **Failing**: a new replica has failed, or was restarted more than [`MAX_RESTARTS`] times, or no further replica has
//!   got good for [`PROGRESS_MS`]. That is judged until the update is done; afterwards a replica is its supervisor's matter.
//! - **Going back** leads to the last revision that was done, once: a revert that fails stops. So two revisions can't
//!   take turns.
//! - **Scaling** is independent: what is missing is added at once, what is too many is removed, highest index first. During
//!   an update whose revision hasn't yet proven itself in one replica, the last good revision is what is added.

#[cfg(test)]
mod fleet;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use hac::model::UpdateStrategy;
use serde::{Deserialize, Serialize};

use crate::supervisor::Phase;

/// How long a canary has to be good before the others follow: 30 seconds.
pub const SOAK_MS: u64 = 30_000;

/// How long an update may go without one more replica getting good: 10 minutes.
pub const PROGRESS_MS: u64 = 600_000;

/// How often a new replica may be restarted during the update.
pub const MAX_RESTARTS: u32 = 3;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The revision of the manifest. Applying one again makes a new revision.
    pub revision: u64,
    /// How many replicas, with the indexes from 0.
    pub replicas: u32,
    /// How a new revision replaces the old one.
    pub strategy: UpdateStrategy,
    /// How many replicas are replaced at a time; 0 is as 1.
    pub max_parallel: u32,
    /// Whether an update that fails is taken back.
    pub auto_revert: bool,
    /// Whether the deployment runs. While it stands still nothing is moved, and no time counts.
    pub running: bool,
}

/// A replica as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its index.
    pub index: u32,
    /// The revision that it runs, or is on its way to: the new one as soon as a [`Move::Replace`] is accepted.
    pub revision: u64,
    /// Its phase under this revision; while the old one still goes down, [`Phase::Stopping`].
    pub phase: Phase,
    /// Since when it has been in this phase.
    pub since_ms: u64,
    /// How often it was restarted under this revision.
    pub restarts: u32,
    /// Whether it was removed and isn't gone yet.
    pub leaving: bool,
}

impl Seen {
    fn is_good(&self) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Completed)
    }
}

/// What is to be done. A move that was given is accepted before the next [`plan`]: [`Seen`] shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Makes and runs a replica.
    Add {
        /// Its index, which is free.
        index: u32,
        /// Its revision.
        revision: u64,
    },
    /// Stops a replica and starts the new revision in its place.
    Replace {
        /// Its index.
        index: u32,
        /// The new revision.
        revision: u64,
    },
    /// Stops a replica for good.
    Remove {
        /// Its index.
        index: u32,
    },
    /// The update is taken back. The moves for it are given too; this one is for the record.
    Revert {
        /// The revision that comes back.
        to: u64,
        /// What was wrong with the new one.
        reason: String,
    },
    /// Every replica has this revision and is good.
    Done {
        /// The revision.
        revision: u64,
    },
    /// Says what happened, for logs and people.
    Tell(Event),
}

/// Something that happened, for logs and people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An update begins.
    Began {
        /// The new revision.
        revision: u64,
    },
    /// The canary has stayed good; the others follow.
    Proven {
        /// The new revision.
        revision: u64,
    },
    /// The update has failed and nothing is moved for it any more.
    Stopped {
        /// The revision that was wanted.
        revision: u64,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began { revision } => write!(f, "the update to revision {revision} begins"),
            Self::Proven { revision } => write!(f, "the canary of revision {revision} has stayed good"),
            Self::Stopped { revision, reason } => {
                write!(f, "the update to revision {revision} is stopped: {reason}")
            }
        }
    }
}

/// Where an update stands; see the module's diagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Stage {
    /// Replicas are brought to the wanted revision.
    Updating,
    /// They have it.
    Done,
    /// Replicas are brought back to an earlier revision.
    Reverting {
        /// What was wrong with the wanted one.
        reason: String,
    },
    /// They are back.
    Reverted {
        /// What was wrong with the wanted one.
        reason: String,
    },
    /// Neither the wanted revision nor an earlier one could be reached.
    Stopped {
        /// Why.
        reason: String,
    },
}

/// A deployment's updates: what has to be known of them beyond what is seen, and is written down.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rollout {
    /// The last revision that was done.
    good: Option<u64>,
    update: Option<Update>,
}

/// The last update that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Update {
    wanted: u64,
    /// The wanted revision, or the one that it goes back to.
    target: u64,
    stage: Stage,
    /// Replicas that had the target before the update came to it: however they are, it isn't the update's doing.
    spared: BTreeSet<u32>,
    /// Whether one replica has shown that the target can get good, and stay so where the strategy asks for that.
    proven: bool,
    /// The most replicas of the target that were good at a time.
    most_good: usize,
    /// When that number grew last.
    progress_ms: u64,
    wake_ms: Option<u64>,
}

/// Decides what is to be moved; `now_ms` is the clock of [`Seen::since_ms`].
pub fn plan(now_ms: u64, rollout: &mut Rollout, wanted: &Wanted, seen: &[Seen]) -> Vec<Move> {
    let mut moves = Vec::new();
    if !wanted.running {
        if let Some(update) = &mut rollout.update {
            (update.progress_ms, update.wake_ms) = (now_ms, None);
        }
        return moves;
    }
    let fleet = Fleet::of(wanted, seen);
    let mut update =
        rollout.update.take().filter(|update| update.wanted == wanted.revision).unwrap_or_else(|| {
            moves.push(Move::Tell(Event::Began { revision: wanted.revision }));
            Update::begin(wanted.revision, rollout.good, &fleet, now_ms)
        });
    moves.extend(fleet.surplus.iter().map(|index| Move::Remove { index: *index }));
    update.judge(now_ms, wanted, rollout.good, &fleet, &mut moves);
    update.settle(&mut rollout.good, &fleet, &mut moves);
    update.scale(wanted, rollout.good, &fleet, &mut moves);
    update.replace(wanted, &fleet, &mut moves);
    rollout.update = Some(update);
    moves
}

impl Rollout {
    /// Where the last update stands; `None` before the first.
    pub fn stage(&self) -> Option<&Stage> {
        self.update.as_ref().map(|update| &update.stage)
    }

    /// The last revision that was done.
    pub fn good(&self) -> Option<u64> {
        self.good
    }

    /// The revision that replicas are brought to: the wanted one, or the one that it goes back to.
    pub fn target(&self) -> Option<u64> {
        self.update.as_ref().map(|update| update.target)
    }

    /// Whether the last update wanted this revision, and something else is aimed at by now.
    pub fn has_given_up(&self, revision: u64) -> bool {
        self.update.as_ref().is_some_and(|update| update.wanted == revision && update.target != revision)
    }

    /// Whether the last update has failed, so that the same manifest is another try.
    pub fn has_failed(&self) -> bool {
        match self.stage() {
            Some(Stage::Reverting { .. } | Stage::Reverted { .. } | Stage::Stopped { .. }) => true,
            Some(Stage::Updating | Stage::Done) | None => false,
        }
    }

    /// Lets an update that was stopped begin once more, because somebody has asked for that.
    pub fn try_again(&mut self) {
        if let Some(Stage::Stopped { .. }) = self.stage() {
            self.update = None;
        }
    }

    /// When [`plan`] has to be asked again even if nothing changes.
    pub fn wake_ms(&self) -> Option<u64> {
        self.update.as_ref().and_then(|update| update.wake_ms)
    }
}

/// What is seen, sorted by what the rules ask for.
struct Fleet<'a> {
    /// The replicas that shall be there, by index.
    present: Vec<&'a Seen>,
    leaving: Vec<&'a Seen>,
    /// Indexes that shall be there and aren't, not even on their way out.
    missing: Vec<u32>,
    /// Indexes of replicas beyond the wanted number, the highest first.
    surplus: Vec<u32>,
    wanted: usize,
}

impl<'a> Fleet<'a> {
    fn of(wanted: &Wanted, seen: &'a [Seen]) -> Self {
        let (leaving, staying): (Vec<_>, Vec<_>) = seen.iter().partition(|seen| seen.leaving);
        let (mut present, beyond): (Vec<_>, Vec<_>) =
            staying.into_iter().partition(|seen| seen.index < wanted.replicas);
        present.sort_by_key(|seen| seen.index);
        let mut surplus: Vec<u32> = beyond.iter().map(|seen| seen.index).collect();
        surplus.sort_by_key(|index| std::cmp::Reverse(*index));
        let taken: BTreeSet<u32> = present.iter().chain(&leaving).map(|seen| seen.index).collect();
        let missing = (0..wanted.replicas).filter(|index| !taken.contains(index)).collect();
        Self { present, leaving, missing, surplus, wanted: wanted.replicas as usize }
    }

    fn of_revision(&self, revision: u64) -> impl Iterator<Item = &'a Seen> {
        self.present.iter().copied().filter(move |seen| seen.revision == revision)
    }

    fn of_others(&self, revision: u64) -> impl Iterator<Item = &'a Seen> {
        self.present.iter().copied().filter(move |seen| seen.revision != revision)
    }
}

impl Update {
    fn begin(wanted: u64, good: Option<u64>, fleet: &Fleet<'_>, now_ms: u64) -> Self {
        let mut update = Self {
            wanted,
            target: wanted,
            stage: Stage::Updating,
            spared: BTreeSet::new(),
            proven: false,
            most_good: 0,
            progress_ms: now_ms,
            wake_ms: None,
        };
        update.aim(wanted, good, fleet, now_ms);
        update
    }

    fn aim(&mut self, target: u64, good: Option<u64>, fleet: &Fleet<'_>, now_ms: u64) {
        self.target = target;
        self.proven = good == Some(target);
        self.spared = fleet.of_revision(target).filter(|_| self.proven).map(|seen| seen.index).collect();
        (self.most_good, self.progress_ms) = (0, now_ms);
    }

    fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Updating | Stage::Reverting { .. })
    }

    /// Finds out whether the update gets ahead or has failed.
    fn judge(
        &mut self,
        now_ms: u64,
        wanted: &Wanted,
        good: Option<u64>,
        fleet: &Fleet<'_>,
        moves: &mut Vec<Move>,
    ) {
        self.wake_ms = None;
        self.spared.retain(|index| fleet.of_revision(self.target).any(|seen| seen.index == *index));
        if !self.is_under_way() {
            return;
        }
        // Without a replica to be good there is nothing to wait for; and a machine's restart begins its clock anew.
        if wanted.replicas == 0 || self.progress_ms > now_ms {
            self.progress_ms = now_ms;
        }
        self.look_for_proof(now_ms, wanted, fleet, moves);
        let good_now = self.judged(fleet).filter(|seen| seen.is_good()).count();
        if good_now > self.most_good {
            (self.most_good, self.progress_ms) = (good_now, now_ms);
        }
        let Some(reason) = self.failure(now_ms, fleet) else {
            let deadline_ms = self.progress_ms.saturating_add(PROGRESS_MS);
            self.wake_ms = Some(self.wake_ms.map_or(deadline_ms, |soaked_ms| soaked_ms.min(deadline_ms)));
            return;
        };
        self.wake_ms = None;
        match (&self.stage, good.filter(|good| *good != self.target)) {
            (Stage::Updating, Some(to)) if wanted.auto_revert => {
                moves.push(Move::Revert { to, reason: reason.clone() });
                self.stage = Stage::Reverting { reason };
                self.aim(to, good, fleet, now_ms);
                self.wake_ms = Some(now_ms.saturating_add(PROGRESS_MS));
            }
            (earlier, _) => {
                let reason = match earlier {
                    Stage::Reverting { reason: first } => format!("{first}; and going back failed: {reason}"),
                    _ => reason,
                };
                let told = Event::Stopped { revision: self.wanted, reason: reason.clone() };
                moves.push(Move::Tell(told));
                self.stage = Stage::Stopped { reason };
            }
        }
    }

    /// The replicas whose well-being is the update's doing.
    fn judged<'a>(&self, fleet: &Fleet<'a>) -> impl Iterator<Item = &'a Seen> {
        fleet.of_revision(self.target).filter(|seen| !self.spared.contains(&seen.index))
    }

    fn look_for_proof(&mut self, now_ms: u64, wanted: &Wanted, fleet: &Fleet<'_>, moves: &mut Vec<Move>) {
        if self.proven {
            return;
        }
        let soak_ms = if wanted.strategy == UpdateStrategy::Canary { SOAK_MS } else { 0 };
        let good_since_ms = self.judged(fleet).filter(|seen| seen.is_good()).map(|seen| seen.since_ms).min();
        let Some(soaked_ms) = good_since_ms.map(|since_ms| since_ms.min(now_ms).saturating_add(soak_ms))
        else {
            return;
        };
        if soaked_ms <= now_ms {
            self.proven = true;
            if soak_ms > 0 {
                moves.push(Move::Tell(Event::Proven { revision: self.target }));
            }
        } else {
            self.wake_ms = Some(soaked_ms);
        }
    }

    fn failure(&self, now_ms: u64, fleet: &Fleet<'_>) -> Option<String> {
        let target = self.target;
        for Seen { index, phase, restarts, .. } in self.judged(fleet) {
            if *phase == Phase::Failed {
                return Some(format!("replica {index} of revision {target} failed"));
            }
            if *restarts > MAX_RESTARTS {
                return Some(format!("replica {index} of revision {target} was restarted {restarts} times"));
            }
        }
        let minutes = PROGRESS_MS / 60_000;
        (now_ms.saturating_sub(self.progress_ms) >= PROGRESS_MS && !self.is_complete(fleet))
            .then(|| format!("no replica of revision {target} got ready for {minutes} minutes"))
    }

    fn is_complete(&self, fleet: &Fleet<'_>) -> bool {
        let complete = |seen: &Seen| seen.is_good() || self.spared.contains(&seen.index);
        fleet.wanted > 0
            && fleet.of_revision(self.target).filter(|seen| complete(seen)).count() == fleet.wanted
    }

    fn settle(&mut self, good: &mut Option<u64>, fleet: &Fleet<'_>, moves: &mut Vec<Move>) {
        if !self.is_under_way() || !self.proven || !self.is_complete(fleet) {
            return;
        }
        self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Reverting { reason } => Stage::Reverted { reason },
            _ => Stage::Done,
        };
        self.wake_ms = None;
        *good = Some(self.target);
        moves.push(Move::Done { revision: self.target });
    }

    fn scale(&self, wanted: &Wanted, good: Option<u64>, fleet: &Fleet<'_>, moves: &mut Vec<Move>) {
        let stopped = matches!(self.stage, Stage::Stopped { .. });
        let others = fleet.of_others(self.target).next().is_some();
        let others_leave = fleet.leaving.iter().any(|seen| seen.revision != self.target);
        let recreates = wanted.strategy == UpdateStrategy::Recreate;
        if recreates && !stopped && (others || others_leave) {
            return;
        }
        let unproven = stopped || (others && !self.proven && !recreates);
        let revision = good.filter(|_| unproven).unwrap_or(self.target);
        moves.extend(fleet.missing.iter().map(|index| Move::Add { index: *index, revision }));
    }

    fn replace(&self, wanted: &Wanted, fleet: &Fleet<'_>, moves: &mut Vec<Move>) {
        if matches!(self.stage, Stage::Stopped { .. }) {
            return;
        }
        let mut others: Vec<_> = fleet.of_others(self.target).collect();
        if wanted.strategy == UpdateStrategy::Recreate {
            moves.extend(others.iter().rev().map(|seen| Move::Remove { index: seen.index }));
            return;
        }
        let at_a_time = wanted.max_parallel.max(1) as usize;
        let on_the_way = self.judged(fleet).filter(|seen| !seen.is_good()).count();
        let mut budget = at_a_time.saturating_sub(on_the_way);
        if wanted.strategy == UpdateStrategy::Canary && !self.proven {
            budget = budget.min(1usize.saturating_sub(self.judged(fleet).count()));
        }
        let fit = |seen: &&&Seen| seen.is_good() || self.spared.contains(&seen.index);
        let mut unfit = fleet.wanted.saturating_sub(fleet.present.iter().filter(fit).count());
        others.sort_by_key(|seen| (seen.is_good(), seen.index));
        for seen in others.into_iter().take(budget) {
            if seen.is_good() {
                if unfit >= at_a_time {
                    break;
                }
                unfit += 1;
            }
            moves.push(Move::Replace { index: seen.index, revision: self.target });
        }
    }
}
