//! What holds in every history.

use hac::model::RestartPolicy;
use proptest::prelude::*;
use spacecore::wire::message::ExitStatus;

use super::rules::BACKOFF_CAP_MS;
use super::twin::Twin;
use super::{CheckRule, End, Input, Phase, Rules, Timer};

/// What may happen next.
#[derive(Debug, Clone)]
enum Happening {
    /// The next timer runs out.
    NextTimer,
    /// Time passes, and the timers in it don't run out, as on a machine that is too busy.
    Late(u64),
    Started,
    Ended(End),
    Answer {
        check: usize,
        passes: bool,
    },
    /// An input about another attempt, or a timer that isn't due.
    Stray(Input),
    Run,
    Halt,
    Restart,
    Evict,
    /// The daemon dies; the attempt lives on.
    DaemonDies,
    /// The daemon dies, and the attempt with it or before it.
    BothDie(End),
    /// The machine starts anew: its clock too.
    Reboot,
}

fn any_end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => (0u8..3).prop_map(|code| End::Exited(ExitStatus::Code(code))),
        1 => Just(End::Exited(ExitStatus::Signal { signal: 9, out_of_memory: true })),
        1 => Just(End::Stopped),
        1 => Just(End::Refused("no such program".to_owned())),
        1 => Just(End::NotStarted("no memory".to_owned())),
        1 => Just(End::Lost("killed".to_owned())),
        1 => Just(End::NeverBegun),
    ]
}

fn any_timer() -> impl Strategy<Value = Timer> {
    prop_oneof![
        Just(Timer::Backoff),
        Just(Timer::Stop),
        Just(Timer::Deadline),
        (0usize..3).prop_map(Timer::Check)
    ]
}

fn any_stray() -> impl Strategy<Value = Input> {
    const OTHERS: [u64; 2] = [0, u64::MAX];
    prop_oneof![
        any_timer().prop_map(Input::Timer),
        (0usize..2).prop_map(|other| Input::Started { attempt: OTHERS[other] }),
        (0usize..2, any_end()).prop_map(|(other, end)| Input::Ended { attempt: OTHERS[other], end }),
        (0usize..2, 0usize..3).prop_map(|(other, check)| Input::Checked {
            attempt: OTHERS[other],
            check,
            result: Ok(())
        }),
    ]
}

/// What the world does by itself.
fn any_event() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => Just(Happening::NextTimer),
        2 => (0u64..20_000).prop_map(Happening::Late),
        1 => (0u64..2 * BACKOFF_CAP_MS).prop_map(Happening::Late),
        6 => Just(Happening::Started),
        6 => any_end().prop_map(Happening::Ended),
        8 => (0usize..3, prop::bool::weighted(0.7)).prop_map(|(check, passes)| Happening::Answer { check, passes }),
        2 => any_stray().prop_map(Happening::Stray),
        1 => Just(Happening::DaemonDies),
        1 => any_end().prop_map(Happening::BothDie),
    ]
}

fn anything() -> impl Strategy<Value = Happening> {
    prop_oneof![
        10 => any_event(),
        1 => Just(Happening::Run),
        1 => Just(Happening::Halt),
        1 => Just(Happening::Restart),
        1 => Just(Happening::Evict),
        1 => Just(Happening::Reboot),
    ]
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let policy =
        prop_oneof![Just(RestartPolicy::Never), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Always)];
    let check = (0u64..20_000, 0u64..5000, 0u64..40_000, 0u32..4).prop_map(
        |(interval_ms, timeout_ms, grace_ms, retries)| CheckRule {
            interval_ms,
            timeout_ms,
            grace_ms,
            retries,
        },
    );
    let backoff = prop_oneof![0u64..5000, Just(2 * BACKOFF_CAP_MS)];
    (
        policy,
        backoff,
        0u32..4,
        any::<bool>(),
        prop::option::of(0u64..100_000),
        prop::collection::vec(check, 0..3),
    )
        .prop_map(|(restart, backoff_ms, max_attempts, recovers, deadline_ms, checks)| Rules {
            restart,
            backoff_ms,
            max_attempts,
            recovers,
            deadline_ms,
            grace_ms: 5000,
            drain_ms: 2000,
            checks,
        })
}

impl Twin {
    /// Lets something happen, if it can; the twin checks every step.
    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::NextTimer => drop(self.next_timer()),
            Happening::Late(ms) => self.now_ms += ms,
            Happening::Started if self.alive.is_some() => self.started(),
            Happening::Ended(end) if self.alive.is_some() => self.ended(end),
            Happening::Answer { check, passes } if self.asked.contains(&check) => self.answer(check, passes),
            Happening::Started | Happening::Ended(_) | Happening::Answer { .. } => {}
            Happening::Stray(Input::Timer(timer))
                if self.timers.get(&timer).is_some_and(|at| *at <= self.now_ms) => {}
            Happening::Stray(input) => {
                let before = self.state.clone();
                self.give(input);
                assert_eq!(before, self.state, "what is out of date changes nothing");
            }
            Happening::Run => self.give(Input::Run),
            Happening::Halt => self.give(Input::Halt),
            Happening::Restart => self.give(Input::Restart),
            Happening::Evict => self.give(Input::Evict { reason: "no memory".to_owned() }),
            Happening::DaemonDies => drop(self.daemon_dies(self.now_ms)),
            Happening::BothDie(end) => {
                self.daemon_dies(self.now_ms);
                if self.alive.is_some() {
                    self.ended(end);
                }
            }
            Happening::Reboot => {
                self.daemon_dies(0);
                if self.alive.is_some() {
                    self.ended(End::Lost("the machine was started anew".to_owned()));
                }
            }
        }
    }

    /// Plays a host that does everything at once and a workload that is well.
    fn goes_well(&mut self) {
        match (self.phase(), self.asked.first().copied()) {
            (Phase::Starting, _) => self.started(),
            (Phase::Stopping, _) => self.ended(End::Stopped),
            (Phase::Running | Phase::Ready, Some(check)) => self.answer(check, true),
            _ => drop(self.next_timer()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    // At most one attempt, no start after a halt, a timer or an awaited word everywhere: the twin checks at each step.
    #[test]
    fn every_history_has_one_attempt_at_a_time_and_never_waits_for_nothing(
        rules in any_rules(),
        history in prop::collection::vec(anything(), 0..80),
    ) {
        let mut twin = Twin::new(rules);
        twin.give(Input::Run);
        for happening in history {
            twin.happens(happening);
        }
    }

    #[test]
    fn a_halt_leads_to_a_halt_from_everywhere(
        rules in any_rules(),
        history in prop::collection::vec(anything(), 0..40),
    ) {
        let mut twin = Twin::new(rules);
        for happening in history {
            twin.happens(happening);
        }
        twin.give(Input::Halt);
        for _ in 0..2 {
            twin.goes_well();
        }
        prop_assert_eq!(twin.phase(), Phase::Halted);
        let starts = twin.starts.len();
        while twin.next_timer().is_some() {}
        prop_assert_eq!(twin.starts.len(), starts);
    }

    #[test]
    fn a_workload_that_is_well_gets_ready_from_everywhere_or_rests(
        rules in any_rules(),
        history in prop::collection::vec(anything(), 0..40),
    ) {
        // A deadline may pass before checks do, again and again.
        let mut twin = Twin::new(Rules { deadline_ms: None, ..rules });
        for happening in history {
            twin.happens(happening);
        }
        let settled = |twin: &Twin| twin.phase() == Phase::Ready || twin.phase().is_restful();
        for _ in 0..40 {
            if !settled(&twin) {
                twin.goes_well();
            }
        }
        prop_assert!(settled(&twin), "{:?}", twin.state);
    }

    // With W the window, b the back-off and c its cap: an attempt ends a row only by being ready for c, so there are at
    // most 1 + W/c rows in the window; the waits of a row double, so that k starts take b(2^(k-1) - 1), until each takes c.
    #[test]
    fn the_starts_in_any_window_are_bounded_by_the_back_off(
        rules in any_rules(),
        history in prop::collection::vec(any_event(), 0..200),
    ) {
        let (base_ms, cap_ms) = (rules.backoff_ms.max(1), BACKOFF_CAP_MS.max(rules.backoff_ms));
        let mut twin = Twin::new(rules);
        twin.give(Input::Run);
        let mut repeats = 0;
        for happening in history {
            // A start that was never begun is repeated at once: once for each death of the daemon.
            repeats += u64::from(matches!(happening, Happening::DaemonDies | Happening::BothDie(_)));
            twin.happens(happening);
        }
        for (first, from_ms) in twin.starts.iter().enumerate() {
            for (last, to_ms) in twin.starts.iter().enumerate().skip(first) {
                let window_ms = to_ms - from_ms;
                let in_a_row = 1 + u64::from((1 + window_ms / base_ms).ilog2());
                let bound = (1 + window_ms / cap_ms) * in_a_row + window_ms / cap_ms + repeats;
                prop_assert!((last - first + 1) as u64 <= bound, "{:?}", twin.starts);
            }
        }
    }
}
