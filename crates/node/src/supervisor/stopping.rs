//! Ending an attempt: told, then killed by its keeper, then with its keeper.

use super::{After, Effect, Event, KILL_PATIENCE_MS, Phase, STOP_PATIENCE_MS, State, Timer, Turn};

impl State {
    pub(super) fn stop(&mut self, after: After, turn: &mut Turn) {
        self.timers.clear_all(turn);
        self.after = Some(after);
        self.phase = Phase::Stopping;
        turn.tell(Event::Stopping { attempt: self.attempt });
        turn.push(self.stop_effect());
        let allowed_ms = self.drain_ms().saturating_add(self.rules.grace_ms);
        self.timers.set(Timer::Stop, allowed_ms.saturating_add(STOP_PATIENCE_MS), turn);
    }

    /// First its keeper is asked; one that doesn't do it is killed itself, which is said once and done until it has ended.
    pub(super) fn kill(&mut self, turn: &mut Turn) {
        let attempt = self.attempt;
        match self.kills {
            0 => {
                turn.tell(Event::Killing { attempt });
                turn.push(Effect::Kill { attempt });
            }
            1 => {
                turn.tell(Event::Destroying { attempt });
                turn.push(Effect::Destroy { attempt });
            }
            _ => turn.push(Effect::Destroy { attempt }),
        }
        self.kills = self.kills.saturating_add(1);
        self.timers.set(Timer::Stop, KILL_PATIENCE_MS, turn);
    }

    pub(super) fn stop_effect(&self) -> Effect {
        Effect::Stop { attempt: self.attempt, drain_ms: self.drain_ms(), grace_ms: self.rules.grace_ms }
    }

    /// What isn't well serves nobody to the end.
    fn drain_ms(&self) -> u64 {
        match self.after {
            Some(After::Halt | After::Start) => self.rules.drain_ms,
            Some(After::Judge(_)) | None => 0,
        }
    }
}
