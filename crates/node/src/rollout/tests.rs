use hac::model::UpdateStrategy;
use proptest::prelude::*;

use super::fleet::{Fleet, Nature, wanted};
use super::*;

fn with_strategy(strategy: UpdateStrategy, replicas: u32) -> Wanted {
    Wanted { strategy, ..wanted(1, replicas) }
}

fn replaced(moves: &[Move]) -> Vec<u32> {
    moves
        .iter()
        .filter_map(|step| match step {
            Move::Replace { index, .. } => Some(*index),
            _ => None,
        })
        .collect()
}

fn reverts(moves: &[Move]) -> usize {
    moves.iter().filter(|step| matches!(step, Move::Revert { .. })).count()
}

fn reason(fleet: &Fleet) -> &str {
    match fleet.rollout.stage() {
        Some(Stage::Stopped { reason } | Stage::Reverting { reason } | Stage::Reverted { reason }) => reason,
        stage => panic!("{stage:?} has no reason"),
    }
}

#[test]
fn the_first_revision_is_started_on_all_replicas_at_once() {
    for strategy in [UpdateStrategy::RollingUpdate, UpdateStrategy::Recreate, UpdateStrategy::Canary] {
        let mut fleet = Fleet::new(with_strategy(strategy, 3), 1);
        let added = fleet.plan().iter().filter(|step| matches!(step, Move::Add { .. })).count();
        assert_eq!(added, 3, "{strategy}");
        fleet.settle();
        assert_eq!(fleet.rollout.good(), Some(1));
        assert!(fleet.moves.contains(&Move::Done { revision: 1 }));
    }
}

#[test]
fn a_rolling_update_replaces_the_next_only_once_the_ones_before_are_ready() {
    let mut fleet = Fleet::settled(Wanted { max_parallel: 2, ..wanted(1, 5) }, 1);
    fleet.wants(2, Nature::Well);
    assert_eq!(replaced(&fleet.plan()), [0, 1]);
    assert_eq!(replaced(&fleet.plan()), [0; 0]);
    fleet.becomes(1, Phase::Ready);
    assert_eq!(replaced(&fleet.plan()), [2], "one is still on its way");
}

#[test]
fn replicas_that_are_not_good_are_replaced_first_and_count_as_unavailable() {
    let mut fleet = Fleet::settled(wanted(1, 4), 1);
    fleet.becomes(2, Phase::Failed);
    fleet.wants(2, Nature::Well);
    assert_eq!(replaced(&fleet.plan()), [2]);
    fleet.becomes(3, Phase::Waiting);
    fleet.becomes(2, Phase::Ready);
    assert_eq!(replaced(&fleet.plan()), [3], "no good one while another is down");
}

#[test]
fn an_update_that_fails_goes_back_to_the_last_good_revision() {
    for (nature, why) in [
        (Nature::Fails, "replica 0 of revision 2 failed"),
        (Nature::Loops, "replica 0 of revision 2 was restarted 4 times"),
        (Nature::Hangs, "no replica of revision 2 got ready for 10 minutes"),
    ] {
        let mut fleet = Fleet::settled(wanted(1, 3), 7);
        fleet.wants(2, nature);
        fleet.settle();
        assert_eq!(reason(&fleet), why);
        assert!(matches!(fleet.rollout.stage(), Some(Stage::Reverted { .. })));
        assert_eq!(fleet.shows(), [(1, Phase::Ready); 3]);
        assert_eq!(fleet.least_available, 2);
        assert_eq!(replaced(&fleet.moves), [0, 0], "the others were never touched");
    }
}

#[test]
fn an_update_that_fails_stops_where_it_is_if_it_is_not_to_be_taken_back() {
    let mut fleet = Fleet::settled(Wanted { auto_revert: false, ..wanted(1, 3) }, 1);
    fleet.wants(2, Nature::Fails);
    fleet.settle();
    assert_eq!(fleet.shows(), [(2, Phase::Failed), (1, Phase::Ready), (1, Phase::Ready)]);
    assert_eq!(reason(&fleet), "replica 0 of revision 2 failed");
}

#[test]
fn a_revision_that_was_never_good_is_not_gone_back_to() {
    let mut fleet = Fleet::new(wanted(1, 2), 1);
    fleet.wants(1, Nature::Fails);
    fleet.settle();
    assert!(matches!(fleet.rollout.stage(), Some(Stage::Stopped { .. })));
    fleet.wants(2, Nature::Fails);
    fleet.settle();
    assert!(matches!(fleet.rollout.stage(), Some(Stage::Stopped { .. })));
    assert_eq!(reverts(&fleet.moves), 0);
    fleet.wants(3, Nature::Well);
    fleet.settle();
    assert_eq!((fleet.rollout.stage(), fleet.rollout.good()), (Some(&Stage::Done), Some(3)));
}

#[test]
fn a_revert_that_fails_stops() {
    let mut fleet = Fleet::settled(wanted(1, 3), 1);
    fleet.natures.insert(1, Nature::Fails);
    fleet.wants(2, Nature::Fails);
    fleet.settle();
    assert_eq!(
        reason(&fleet),
        "replica 0 of revision 2 failed; and going back failed: replica 0 of revision 1 failed"
    );
    assert_eq!(reverts(&fleet.moves), 1);
    assert_eq!(fleet.available(), 2);
}

#[test]
fn a_good_revision_that_is_wanted_again_and_fails_is_not_gone_back_to_itself() {
    let mut fleet = Fleet::settled(wanted(1, 3), 1);
    fleet.wants(2, Nature::Hangs);
    fleet.plan();
    fleet.wants(1, Nature::Fails);
    fleet.settle();
    assert_eq!(reason(&fleet), "replica 0 of revision 1 failed");
    assert_eq!(reverts(&fleet.moves), 0);
}

#[test]
fn a_good_replica_is_not_replaced_while_another_is_missing() {
    let mut fleet = Fleet::settled(wanted(1, 3), 1);
    fleet.wanted.replicas = 2;
    fleet.plan();
    fleet.wanted.replicas = 3;
    fleet.wants(2, Nature::Well);
    assert_eq!(replaced(&fleet.plan()), [0; 0], "index 2 is still on its way out");
    fleet.settle();
    assert_eq!(fleet.shows(), [(2, Phase::Ready); 3]);
}

#[test]
fn a_replica_that_was_broken_before_does_not_make_the_revert_fail() {
    let mut fleet = Fleet::settled(wanted(1, 3), 1);
    fleet.wants(2, Nature::Fails);
    fleet.plan();
    fleet.becomes(2, Phase::Failed);
    fleet.settle();
    assert!(matches!(fleet.rollout.stage(), Some(Stage::Reverted { .. })), "{:?}", fleet.rollout);
}

#[test]
fn a_recreation_adds_the_new_ones_when_all_old_ones_are_gone() {
    let mut fleet = Fleet::settled(with_strategy(UpdateStrategy::Recreate, 3), 1);
    fleet.wants(2, Nature::Well);
    let moves = fleet.plan();
    assert_eq!(moves.iter().filter(|step| matches!(step, Move::Remove { .. })).count(), 3);
    while !fleet.seen().is_empty() {
        assert!(!fleet.plan().iter().any(|step| matches!(step, Move::Add { .. })));
        fleet.next();
    }
    assert_eq!(fleet.plan().len(), 3);
    fleet.settle();
    assert_eq!(fleet.shows(), [(2, Phase::Ready); 3]);
}

#[test]
fn a_recreation_that_fails_is_recreated_as_it_was() {
    let mut fleet = Fleet::settled(with_strategy(UpdateStrategy::Recreate, 3), 1);
    fleet.wants(2, Nature::Fails);
    fleet.settle();
    assert!(matches!(fleet.rollout.stage(), Some(Stage::Reverted { .. })));
    assert_eq!(fleet.shows(), [(1, Phase::Ready); 3]);
}

#[test]
fn a_canary_has_to_stay_good_before_the_others_follow() {
    let mut fleet = Fleet::settled(Wanted { max_parallel: 2, ..with_strategy(UpdateStrategy::Canary, 4) }, 1);
    fleet.wants(2, Nature::Well);
    assert_eq!(replaced(&fleet.plan()), [0], "one, whatever is allowed at a time");
    fleet.becomes(0, Phase::Ready);
    assert_eq!(replaced(&fleet.plan()), [0; 0]);
    assert_eq!(fleet.rollout.wake_ms(), Some(fleet.now_ms + SOAK_MS));
    fleet.now_ms += SOAK_MS - 1;
    assert_eq!(replaced(&fleet.plan()), [0; 0]);
    fleet.now_ms += 1;
    assert_eq!(replaced(&fleet.plan()), [1, 2]);
}

#[test]
fn a_canary_that_fails_while_it_is_watched_is_taken_back() {
    let mut fleet = Fleet::settled(with_strategy(UpdateStrategy::Canary, 4), 1);
    fleet.wants(2, Nature::Well);
    fleet.plan();
    fleet.becomes(0, Phase::Ready);
    fleet.plan();
    fleet.becomes(0, Phase::Failed);
    fleet.settle();
    assert_eq!(fleet.shows(), [(1, Phase::Ready); 4]);
    assert_eq!(fleet.least_available, 3);
}

#[test]
fn scaling_adds_at_once_and_removes_the_highest_indexes() {
    let mut fleet = Fleet::settled(wanted(1, 2), 1);
    fleet.wanted.replicas = 5;
    let added = |index| Move::Add { index, revision: 1 };
    assert_eq!(fleet.plan(), [added(2), added(3), added(4)]);
    fleet.settle();
    fleet.wanted.replicas = 3;
    assert_eq!(fleet.plan(), [Move::Remove { index: 4 }, Move::Remove { index: 3 }]);
    fleet.wanted.replicas = 4;
    assert_eq!(fleet.plan(), [], "index 3 isn't gone yet");
    while fleet.next() {
        fleet.plan();
    }
    assert_eq!(fleet.shows(), [(1, Phase::Ready); 4]);
}

#[test]
fn what_is_added_while_a_revision_has_not_proven_itself_is_the_good_one() {
    let mut fleet = Fleet::settled(wanted(1, 2), 1);
    fleet.wants(2, Nature::Well);
    fleet.plan();
    fleet.wanted.replicas = 3;
    assert_eq!(fleet.plan(), [Move::Add { index: 2, revision: 1 }]);
    fleet.becomes(0, Phase::Ready);
    fleet.wanted.replicas = 4;
    assert!(fleet.plan().contains(&Move::Add { index: 3, revision: 2 }));
    fleet.settle();
    assert_eq!(fleet.shows(), [(2, Phase::Ready); 4]);
}

#[test]
fn no_time_counts_while_a_deployment_stands_still() {
    let mut fleet = Fleet::settled(wanted(1, 2), 1);
    fleet.wants(2, Nature::Hangs);
    fleet.plan();
    fleet.wanted.running = false;
    fleet.now_ms += 2 * PROGRESS_MS;
    assert_eq!(fleet.plan(), []);
    assert_eq!(fleet.rollout.wake_ms(), None);
    fleet.wanted.running = true;
    assert_eq!(fleet.plan(), []);
    assert_eq!(fleet.rollout.stage(), Some(&Stage::Updating));
}

#[test]
fn a_revision_that_is_wanted_during_another_s_update_takes_its_place() {
    let mut fleet = Fleet::settled(wanted(1, 3), 1);
    fleet.wants(2, Nature::Hangs);
    fleet.plan();
    fleet.wants(3, Nature::Well);
    assert_eq!(replaced(&fleet.plan()), [0], "the one that isn't good yet");
    fleet.settle();
    assert_eq!(fleet.shows(), [(3, Phase::Ready); 3]);
}

#[test]
fn a_replica_that_fails_after_the_update_is_not_the_update_s_matter() {
    let mut fleet = Fleet::settled(wanted(1, 3), 1);
    fleet.becomes(1, Phase::Failed);
    assert_eq!(fleet.plan(), []);
    assert_eq!(fleet.rollout.stage(), Some(&Stage::Done));
}

fn any_strategy() -> impl Strategy<Value = UpdateStrategy> {
    prop_oneof![
        Just(UpdateStrategy::RollingUpdate),
        Just(UpdateStrategy::Recreate),
        Just(UpdateStrategy::Canary)
    ]
}

fn any_nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        3 => Just(Nature::Well),
        1 => Just(Nature::Fails),
        1 => Just(Nature::Loops),
        1 => Just(Nature::Hangs),
        2 => Just(Nature::Mixed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_good_update_never_takes_more_than_max_parallel_replicas_away(
        seed: u64, replicas in 1u32..9, max_parallel in 0u32..4, canary: bool,
    ) {
        let strategy = if canary { UpdateStrategy::Canary } else { UpdateStrategy::RollingUpdate };
        let mut fleet = Fleet::settled(Wanted { strategy, max_parallel, ..wanted(1, replicas) }, seed);
        fleet.wants(2, Nature::Well);
        fleet.settle();
        prop_assert_eq!(fleet.rollout.stage(), Some(&Stage::Done));
        prop_assert!(fleet.least_available + max_parallel.max(1) as usize >= replicas as usize);
    }

    // Whatever the revisions are like: a bad one takes no more than max_parallel away either, while it can be gone back.
    #[test]
    fn a_bad_update_takes_no_more_away_and_comes_back(
        seed: u64, replicas in 1u32..9, max_parallel in 1u32..4, nature in any_nature(),
    ) {
        let mut fleet = Fleet::settled(Wanted { max_parallel, ..wanted(1, replicas) }, seed);
        fleet.wants(2, nature);
        fleet.settle();
        let came_back = matches!(fleet.rollout.stage(), Some(Stage::Reverted { .. }));
        prop_assert!(came_back || fleet.rollout.stage() == Some(&Stage::Done));
        prop_assert!(fleet.least_available + max_parallel as usize >= replicas as usize);
        prop_assert_eq!(fleet.available(), replicas as usize);
    }

    #[test]
    fn every_deployment_converges_and_then_nothing_moves(
        seed: u64,
        strategy in any_strategy(),
        max_parallel in 1u32..4,
        auto_revert: bool,
        first in any_nature(),
        // The next revision's nature, or the same one again; the replicas; how many steps pass before the next.
        changes in prop::collection::vec((prop::option::of(any_nature()), 1u32..7, 0usize..30), 0..6),
    ) {
        let mut fleet = Fleet::new(Wanted { strategy, max_parallel, auto_revert, ..wanted(1, 3) }, seed);
        fleet.natures.insert(1, first);
        for (nature, replicas, steps) in changes {
            for _ in 0..steps {
                fleet.plan();
                fleet.next();
            }
            fleet.wanted.replicas = replicas;
            if let Some(nature) = nature {
                fleet.wants(fleet.wanted.revision + 1, nature);
            }
        }
        let steps = fleet.settle();
        prop_assert!(steps < 300, "{steps} steps");
        prop_assert!(fleet.is_over());
        prop_assert_eq!(fleet.plan(), []);
        // Replicas of a revision that was stopped may be restarted for ever.
        for _ in 0..50 {
            fleet.next();
            prop_assert_eq!(fleet.plan(), []);
        }
        // Each revision is taken back at most once, and never to one that was itself taken back.
        prop_assert!(reverts(&fleet.moves) <= fleet.wanted.revision as usize);
        let mut done = Vec::new();
        for step in &fleet.moves {
            match step {
                Move::Done { revision } => done.push(*revision),
                Move::Revert { to, .. } => prop_assert_eq!(done.last(), Some(to)),
                _ => {}
            }
        }
        prop_assert_eq!(fleet.rollout.good(), done.last().copied());
    }
}
