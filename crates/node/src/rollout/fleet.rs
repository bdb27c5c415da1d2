//! A fleet in memory that does what a plan says, under a seed.

use std::collections::BTreeMap;

use hac::model::UpdateStrategy;

use super::{Move, Rollout, Seen, Stage, Wanted, plan};
use crate::supervisor::Phase;

/// What becomes of the replicas of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// They get ready within 20 seconds.
    Well,
    /// They fail.
    Fails,
    /// They are restarted again and again.
    Loops,
    /// They run and never get ready.
    Hangs,
    /// Each is one of the above, mostly the first.
    Mixed,
}

struct Replica {
    seen: Seen,
    nature: Nature,
    /// When it changes next by itself.
    next_ms: Option<u64>,
}

pub(super) struct Fleet {
    pub(super) now_ms: u64,
    pub(super) rollout: Rollout,
    pub(super) wanted: Wanted,
    pub(super) natures: BTreeMap<u64, Nature>,
    replicas: BTreeMap<u32, Replica>,
    seed: u64,
    /// Everything that was moved.
    pub(super) moves: Vec<Move>,
    /// The fewest that were available at a time since this was set.
    pub(super) least_available: usize,
}

pub(super) fn wanted(revision: u64, replicas: u32) -> Wanted {
    Wanted {
        revision,
        replicas,
        strategy: UpdateStrategy::RollingUpdate,
        max_parallel: 1,
        auto_revert: true,
        running: true,
    }
}

impl Fleet {
    pub(super) fn new(wanted: Wanted, seed: u64) -> Self {
        Self {
            now_ms: 1_000_000,
            rollout: Rollout::default(),
            wanted,
            natures: BTreeMap::new(),
            replicas: BTreeMap::new(),
            seed,
            moves: Vec::new(),
            least_available: usize::MAX,
        }
    }

    /// A fleet whose revision 1 is done.
    pub(super) fn settled(wanted: Wanted, seed: u64) -> Self {
        let mut fleet = Self::new(wanted, seed);
        fleet.settle();
        assert_eq!(fleet.rollout.stage(), Some(&Stage::Done));
        fleet.moves.clear();
        fleet.least_available = fleet.available();
        fleet
    }

    pub(super) fn wants(&mut self, revision: u64, nature: Nature) {
        self.wanted.revision = revision;
        self.natures.insert(revision, nature);
    }

    /// A number below `bound`, by xorshift.
    pub(super) fn random(&mut self, bound: u64) -> u64 {
        self.seed = self.seed.max(1);
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) % bound
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.replicas.values().map(|replica| replica.seen.clone()).collect()
    }

    pub(super) fn available(&self) -> usize {
        self.replicas.values().filter(|replica| replica.seen.phase == Phase::Ready).count()
    }

    /// The revision and phase of each replica.
    pub(super) fn shows(&self) -> Vec<(u64, Phase)> {
        self.replicas.values().map(|replica| (replica.seen.revision, replica.seen.phase)).collect()
    }

    /// Changes a replica by hand.
    pub(super) fn becomes(&mut self, index: u32, phase: Phase) {
        let replica = self.replicas.get_mut(&index).expect("it is there");
        (replica.seen.phase, replica.seen.since_ms, replica.next_ms) = (phase, self.now_ms, None);
    }

    /// Plans once and does what the plan says; the state is written down and read back on the way.
    pub(super) fn plan(&mut self) -> Vec<Move> {
        let seen = self.seen();
        let moves = plan(self.now_ms, &mut self.rollout, &self.wanted, &seen);
        let written = serde_json::to_string(&self.rollout).expect("it can be written");
        assert_eq!(serde_json::from_str::<Rollout>(&written).expect("it can be read back"), self.rollout);
        for step in &moves {
            match *step {
                Move::Add { index, revision } => {
                    assert!(!self.replicas.contains_key(&index), "{index} is free");
                    assert!(index < self.wanted.replicas);
                    self.place(index, revision, Phase::Starting);
                }
                Move::Replace { index, revision } => {
                    let old = &self.replicas[&index].seen;
                    assert!(old.revision != revision && !old.leaving, "{old:?} can become {revision}");
                    self.place(index, revision, Phase::Stopping);
                }
                Move::Remove { index } => {
                    let after_ms = self.random(5000);
                    let replica = self.replicas.get_mut(&index).expect("it is there");
                    assert!(!replica.seen.leaving, "{index} was removed already");
                    replica.seen.leaving = true;
                    (replica.seen.phase, replica.next_ms) = (Phase::Stopping, Some(self.now_ms + after_ms));
                }
                Move::Revert { .. } | Move::Done { .. } | Move::Tell(_) => {}
            }
        }
        self.moves.extend(moves.iter().cloned());
        self.least_available = self.least_available.min(self.available());
        moves
    }

    fn place(&mut self, index: u32, revision: u64, phase: Phase) {
        let nature = match self.natures.get(&revision).copied().unwrap_or(Nature::Well) {
            Nature::Mixed => {
                let dice = self.random(12);
                [Nature::Fails, Nature::Loops, Nature::Hangs]
                    .get(dice as usize)
                    .copied()
                    .unwrap_or(Nature::Well)
            }
            nature => nature,
        };
        let seen = Seen { index, revision, phase, since_ms: self.now_ms, restarts: 0, leaving: false };
        let next_ms = Some(self.now_ms + self.random(5000));
        self.replicas.insert(index, Replica { seen, nature, next_ms });
    }

    /// Goes on to the next moment at which something happens; tells whether there is one.
    pub(super) fn next(&mut self) -> bool {
        let own_ms = self.replicas.values().filter_map(|replica| replica.next_ms).min();
        let Some(next_ms) = own_ms.into_iter().chain(self.rollout.wake_ms()).min() else { return false };
        assert!(next_ms >= self.now_ms, "what is to come lies ahead");
        self.now_ms = next_ms;
        let due = |replica: &Replica| replica.next_ms.is_some_and(|at_ms| at_ms <= next_ms);
        self.replicas.retain(|_, replica| !(replica.seen.leaving && due(replica)));
        let indexes: Vec<u32> =
            self.replicas.iter().filter(|(_, replica)| due(replica)).map(|(index, _)| *index).collect();
        for index in indexes {
            let after_ms = 500 + self.random(19_000);
            self.replicas.get_mut(&index).expect("it is there").go_on(next_ms, after_ms);
        }
        true
    }

    /// Tells whether the update has come to an end, a good one or not.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.rollout.stage(), Some(Stage::Done | Stage::Reverted { .. } | Stage::Stopped { .. }))
    }

    /// Plans and goes on until nothing happens any more or the update is over; tells in how many steps.
    pub(super) fn settle(&mut self) -> usize {
        for step in 0..10_000 {
            self.plan();
            let still = self.replicas.values().all(|replica| !replica.seen.leaving);
            if self.is_over() && still && self.plan().is_empty() || !self.next() {
                return step;
            }
        }
        panic!("it goes on for ever: {:?}", self.rollout);
    }
}

impl Replica {
    fn go_on(&mut self, now_ms: u64, after_ms: u64) {
        let (phase, next_ms) = match (self.seen.phase, self.nature) {
            (Phase::Stopping, _) => (Phase::Starting, Some(now_ms + after_ms)),
            (Phase::Starting | Phase::Waiting, Nature::Well) => (Phase::Ready, None),
            (Phase::Starting, Nature::Fails) => (Phase::Failed, None),
            (Phase::Starting, Nature::Loops) => (Phase::Waiting, Some(now_ms + after_ms)),
            (Phase::Waiting, Nature::Loops) => {
                self.seen.restarts += 1;
                (Phase::Starting, Some(now_ms + after_ms))
            }
            (Phase::Starting, Nature::Hangs) => (Phase::Running, None),
            (phase, _) => (phase, None),
        };
        (self.seen.phase, self.seen.since_ms, self.next_ms) = (phase, now_ms, next_ms);
    }
}
