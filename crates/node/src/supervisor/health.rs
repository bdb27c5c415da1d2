//! The checks of an attempt whose workload runs.

use serde::{Deserialize, Serialize};

use super::{After, Effect, End, Event, Phase, State, Timer, Turn};

/// How much longer than its timeout a check's answer is awaited; without one by then the check has failed.
const ANSWER_PATIENCE_MS: u64 = 1000;

/// How often a check that hasn't passed yet is asked within its grace period, if its own interval is longer: nobody
/// should wait for ten seconds for a workload that takes half a second to listen.
const EAGER_INTERVAL_MS: u64 = 1000;

/// What is known of one check.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Health {
    passed: bool,
    /// Failures in a row that count.
    failures: u32,
    /// When the question was asked whose answer is awaited.
    pub(super) asked_ms: Option<u64>,
}

impl State {
    /// Begins to check the workload, which has just started.
    pub(super) fn watch(&mut self, turn: &mut Turn) {
        self.health = vec![Health::default(); self.rules.checks.len()];
        for check in 0..self.health.len() {
            self.ask(check, turn);
        }
        self.become_ready(turn);
    }

    /// Notes a check's answer.
    pub(super) fn checked(&mut self, check: usize, result: Result<(), String>, turn: &mut Turn) {
        if !matches!(self.phase, Phase::Running | Phase::Ready) {
            return;
        }
        let Some((rule, health)) = self.rules.checks.get(check).zip(self.health.get_mut(check)) else {
            return;
        };
        // A second answer to one question, or one from before the daemon's death.
        let Some(asked_ms) = health.asked_ms.take() else { return };
        let runs_for_ms = turn.now_ms.saturating_sub(self.started_ms.unwrap_or(turn.now_ms));
        let in_grace = runs_for_ms < rule.grace_ms;
        match result {
            Ok(()) => {
                health.passed = true;
                health.failures = 0;
            }
            Err(reason) => {
                health.failures = if in_grace { 0 } else { health.failures.saturating_add(1) };
                let (attempt, in_a_row) = (self.attempt, health.failures);
                turn.tell(Event::CheckFailed { attempt, check, in_a_row, reason: reason.clone() });
                if in_a_row >= rule.retries.max(1) {
                    let cause =
                        End::Unhealthy(format!("check {check} failed {in_a_row} times in a row: {reason}"));
                    return self.stop(After::Judge(cause), turn);
                }
            }
        }
        let eager = in_grace && !health.passed;
        let interval_ms = if eager { rule.interval_ms.min(EAGER_INTERVAL_MS) } else { rule.interval_ms };
        let since_asked_ms = turn.now_ms.saturating_sub(asked_ms);
        let pause_ms = interval_ms.max(1).saturating_sub(since_asked_ms);
        self.timers.set(Timer::Check(check), pause_ms, turn);
        self.become_ready(turn);
    }

    /// Asks a check that is due, or notes that it has stayed without an answer.
    pub(super) fn check_due(&mut self, check: usize, turn: &mut Turn) {
        let unanswered = self.health.get(check).is_some_and(|health| health.asked_ms.is_some());
        if unanswered {
            self.checked(check, Err("no answer in time".to_owned()), turn);
        } else {
            self.ask(check, turn);
        }
    }

    fn ask(&mut self, check: usize, turn: &mut Turn) {
        let Some((rule, health)) = self.rules.checks.get(check).zip(self.health.get_mut(check)) else {
            return;
        };
        health.asked_ms = Some(turn.now_ms);
        let timeout_ms = rule.timeout_ms;
        turn.push(Effect::RunCheck { attempt: self.attempt, check, timeout_ms });
        self.timers.set(Timer::Check(check), timeout_ms.saturating_add(ANSWER_PATIENCE_MS), turn);
    }

    fn become_ready(&mut self, turn: &mut Turn) {
        if self.phase == Phase::Running && self.health.iter().all(|health| health.passed) {
            self.phase = Phase::Ready;
            self.ready_ms = Some(turn.now_ms);
            turn.tell(Event::Ready { attempt: self.attempt });
        }
    }
}
