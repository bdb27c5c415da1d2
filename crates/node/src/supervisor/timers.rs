//! Which timers run, so that each can be cleared, told apart from one that was replaced, and set anew.

use serde::{Deserialize, Serialize};

use super::{Effect, Turn};

/// What a timer is for; there is at most one of each at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Timer {
    /// The next attempt may begin.
    Backoff,
    /// An attempt that was told to stop, or killed, should have ended.
    Stop,
    /// The workload has run as long as it may.
    Deadline,
    /// The check at this place in the rules is due.
    Check(usize),
}

/// A timer that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Running {
    timer: Timer,
    at_ms: u64,
    /// How long it was set for, which bounds what can be left of it.
    after_ms: u64,
}

/// The timers that run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Timers(Vec<Running>);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, after_ms: u64, turn: &mut Turn) {
        self.0.retain(|running| running.timer != timer);
        self.0.push(Running { timer, at_ms: turn.now_ms.saturating_add(after_ms), after_ms });
        turn.push(Effect::SetTimer { timer, after_ms });
    }

    pub(super) fn clear_all(&mut self, turn: &mut Turn) {
        for running in self.0.drain(..) {
            turn.push(Effect::ClearTimer(running.timer));
        }
    }

    /// Notes that a timer is said to have run out, and tells whether it has.
    ///
    /// A timer that was cleared or replaced may have been on its way: the first is none of those that run, the second
    /// comes too early and is set for the rest of its time.
    pub(super) fn ran_out(&mut self, timer: Timer, turn: &mut Turn) -> bool {
        let Some(place) = self.0.iter().position(|running| running.timer == timer) else { return false };
        let left_ms = self.0[place].at_ms.saturating_sub(turn.now_ms);
        if left_ms > 0 {
            turn.push(Effect::SetTimer { timer, after_ms: left_ms });
            return false;
        }
        self.0.remove(place);
        true
    }

    /// Sets every timer for what is left of its time.
    pub(super) fn set_anew(&mut self, turn: &mut Turn) {
        for running in &mut self.0 {
            let left_ms = running.at_ms.saturating_sub(turn.now_ms).min(running.after_ms);
            running.at_ms = turn.now_ms.saturating_add(left_ms);
            turn.push(Effect::SetTimer { timer: running.timer, after_ms: left_ms });
        }
    }
}
