//! A host in memory: it performs a supervisor's effects and checks at each step what has to hold always.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use hac::model::RestartPolicy;
use spacecore::wire::message::ExitStatus;

use super::{CheckRule, Effect, End, Event, Input, Phase, Rules, State, Timer};

/// Rules that restart on failure, without checks.
pub(super) fn rules() -> Rules {
    Rules {
        restart: RestartPolicy::OnFailure,
        backoff_ms: 1000,
        max_attempts: 0,
        recovers: false,
        deadline_ms: None,
        grace_ms: 5000,
        drain_ms: 0,
        checks: Vec::new(),
    }
}

/// A check that is asked each 10 seconds, waits 2 for the answer, and allows 30 seconds of grace and 2 failures.
pub(super) fn check() -> CheckRule {
    CheckRule { interval_ms: 10_000, timeout_ms: 2000, grace_ms: 30_000, retries: 3 }
}

pub(super) fn exit(code: u8) -> End {
    End::Exited(ExitStatus::Code(code))
}

pub(super) struct Twin {
    pub(super) state: State,
    pub(super) now_ms: u64,
    pub(super) alive: Option<u64>,
    pub(super) timers: BTreeMap<Timer, u64>,
    pub(super) asked: BTreeSet<usize>,
    /// When each attempt was begun.
    pub(super) starts: Vec<u64>,
    pub(super) told: Vec<Event>,
    pub(super) kills: u32,
    /// How often the keeper itself was killed.
    pub(super) destroyed: u32,
    /// Whether the last command was to stand still.
    halted: bool,
}

impl Twin {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            state: State::new(rules),
            now_ms: 1_000_000,
            alive: None,
            timers: BTreeMap::new(),
            asked: BTreeSet::new(),
            starts: Vec::new(),
            told: Vec::new(),
            kills: 0,
            destroyed: 0,
            halted: true,
        }
    }

    /// A twin whose first attempt's workload runs.
    pub(super) fn running(rules: Rules) -> Self {
        let mut twin = Self::new(rules);
        twin.give(Input::Run);
        twin.started();
        twin
    }

    pub(super) fn give(&mut self, input: Input) {
        match &input {
            Input::Run | Input::Restart => self.halted = false,
            Input::Halt => self.halted = true,
            _ => {}
        }
        let before = (self.state.clone(), input.clone());
        let effects = self.state.step(self.now_ms, input);
        self.perform(effects, &before);
    }

    pub(super) fn phase(&self) -> Phase {
        self.state.phase()
    }

    pub(super) fn started(&mut self) {
        self.give(Input::Started { attempt: self.state.attempt() });
    }

    /// Ends the attempt that is alive.
    pub(super) fn ended(&mut self, end: End) {
        let attempt = self.alive.take().expect("an attempt is alive");
        self.asked.clear();
        self.give(Input::Ended { attempt, end });
    }

    pub(super) fn answer(&mut self, check: usize, passes: bool) {
        assert!(self.asked.remove(&check), "check {check} was asked");
        let result = if passes { Ok(()) } else { Err("refused".to_owned()) };
        self.give(Input::Checked { attempt: self.state.attempt(), check, result });
    }

    /// Goes on to the next timer and lets it run out; tells which it was.
    pub(super) fn next_timer(&mut self) -> Option<Timer> {
        let (&timer, &at_ms) = self.timers.iter().min_by_key(|(_, at_ms)| **at_ms)?;
        self.timers.remove(&timer);
        self.now_ms = self.now_ms.max(at_ms);
        self.give(Input::Timer(timer));
        Some(timer)
    }

    /// Lets so much time pass, and every timer in it run out.
    pub(super) fn pass(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while self.timers.values().any(|at_ms| *at_ms <= until_ms) {
            self.next_timer();
        }
        self.now_ms = until_ms;
    }

    /// Lets the daemon die and come back with what was written down; attempts outlive it, timers and questions don't.
    pub(super) fn daemon_dies(&mut self, now_ms: u64) -> Vec<Effect> {
        let written = serde_json::to_string(&self.state).expect("a state can be written");
        let read: State = serde_json::from_str(&written).expect("a state can be read back");
        assert_eq!(read, self.state);
        self.now_ms = now_ms;
        self.timers.clear();
        self.asked.clear();
        let (state, effects) = read.recovered(now_ms);
        self.state = state;
        self.perform(effects.clone(), &written);
        effects
    }

    fn perform(&mut self, effects: Vec<Effect>, before: &dyn Debug) {
        for effect in effects {
            match effect {
                Effect::Start { attempt } => {
                    assert_eq!(self.alive, None, "a second attempt: {before:?}");
                    assert!(!self.halted, "a start after a halt: {before:?}");
                    self.alive = Some(attempt);
                    self.starts.push(self.now_ms);
                }
                Effect::Stop { attempt, .. } | Effect::Find { attempt } => {
                    assert_eq!(self.alive, Some(attempt), "{before:?}");
                }
                Effect::Kill { attempt } => {
                    assert_eq!(self.alive, Some(attempt), "{before:?}");
                    self.kills += 1;
                }
                Effect::Destroy { attempt } => {
                    assert_eq!(self.alive, Some(attempt), "{before:?}");
                    self.destroyed += 1;
                }
                Effect::RunCheck { attempt, check, .. } => {
                    assert_eq!(self.alive, Some(attempt), "{before:?}");
                    self.asked.insert(check);
                }
                Effect::SetTimer { timer, after_ms } => {
                    self.timers.insert(timer, self.now_ms.saturating_add(after_ms));
                }
                Effect::ClearTimer(timer) => {
                    assert!(self.timers.remove(&timer).is_some(), "{timer:?} was set: {before:?}");
                }
                Effect::Tell(event) => self.told.push(event),
            }
        }
        self.check_that_it_goes_on(before);
    }

    /// Whatever isn't restful has a timer, or an attempt whose next word is awaited.
    fn check_that_it_goes_on(&self, before: &dyn Debug) {
        let timers: Vec<Timer> = self.timers.keys().copied().collect();
        let phase = self.phase();
        assert_eq!(phase.is_alive(), self.alive.is_some(), "{before:?}");
        match phase {
            Phase::Idle | Phase::Completed | Phase::Failed | Phase::Halted | Phase::Starting => {
                assert_eq!(timers, [], "{before:?}");
            }
            Phase::Waiting => assert_eq!(timers, [Timer::Backoff], "{before:?}"),
            Phase::Stopping => assert_eq!(timers, [Timer::Stop], "{before:?}"),
            Phase::Running | Phase::Ready => {
                let rules = self.state.rules();
                let deadline = rules.deadline_ms.map(|_| Timer::Deadline);
                let checks = (0..rules.checks.len()).map(Timer::Check);
                let expected: Vec<Timer> = deadline.into_iter().chain(checks).collect();
                assert_eq!(timers, expected, "{before:?}");
            }
        }
        if phase == Phase::Halted {
            assert!(self.halted, "{before:?}");
        }
    }
}
