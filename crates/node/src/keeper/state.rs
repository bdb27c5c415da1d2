//! The keeper's decisions, free of I/O.
//!
//! ```text
//!              Hello               Configured, Started
//!   Booting ----------> Configuring -----------------> Running
//!      |                     |                            |  workload ended, or stop asked
//!      |                     |                            v
//!      |  too late, refused, violation, machine ended   Stopping   (only where the end must be orderly)
//!      |                     |                            |
//!      +---------------------+-------> Ending <-----------+
//!                                        | the machine's process is gone
//!                                        v
//!                                      finished
//! ```
//!
//! - **Booting**: the VMM was started; the guest has [`Patience::boot_ms`] to say `Hello`.
//! - **Configuring**: the guest was told everything; the workload has to start within [`Patience::configure_ms`].
//! - **Running**: nothing is awaited. A workload may run for years.
//! - **Stopping**: the guest was told to shut down and has the grace period and [`Patience::shutdown_ms`] for it.
//! - **Ending**: the VMM was killed; only its end is awaited.
//!
//! The first cause decides the outcome: what happens on the way down can't overwrite it. One exception: while a stop that
//! was asked for is under way, the workload's own exit status is what the user wants to see.

use spacecore::wire;
use spacecore::wire::message::{ExitStatus, Refusal, RefusalKind};

use super::assignment::Patience;
use super::report::{Outcome, Standing};

/// What has happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The guest's first message.
    Hello {
        /// The version of the protocol that it speaks.
        version: u32,
    },
    /// The guest has set everything up.
    Configured,
    /// The workload runs.
    WorkloadStarted,
    /// The workload ended.
    WorkloadEnded(ExitStatus),
    /// The guest refused its configuration or the workload.
    Refused(Refusal),
    /// The guest broke the protocol.
    Violation(String),
    /// The guest closed the channel.
    ChannelClosed,
    /// The VMM's process ended.
    MachineEnded(String),
    /// The network's process ended while the machine runs.
    NetworkEnded(String),
    /// The machine could not be started at all.
    NotStarted(String),
    /// The process that this keeper is bound to is gone.
    ParentGone,
    /// Somebody asks for an orderly end.
    StopAsked {
        /// Milliseconds between stop signal and kill.
        grace_ms: u64,
    },
    /// Somebody asks for an end at once.
    KillAsked,
    /// The deadline that was set last has passed.
    DeadlinePassed,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Sends the configuration to the guest.
    Configure,
    /// Tells the guest to shut down.
    Shutdown {
        /// Milliseconds between stop signal and kill.
        grace_ms: u64,
    },
    /// Replaces the deadline by one so many milliseconds from now.
    SetDeadline(u64),
    /// Removes the deadline.
    ClearDeadline,
    /// Tells the clients where the spacecore stands.
    Announce(Standing),
    /// Kills the VMM; its end comes back as [`Input::MachineEnded`].
    KillMachine,
    /// Tells the clients the outcome, then ends the keeper.
    Finish(Outcome),
}

/// A keeper's state.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    standing: Standing,
    patience: Patience,
    orderly_end: bool,
    /// Whether somebody asked for the end, so that the workload's status still counts.
    stop_asked: bool,
    /// Whether the guest has said that it is configured, which it says once.
    configured: bool,
    outcome: Option<Outcome>,
    /// How long the current deadline was, for the message when it passes.
    awaited_ms: u64,
    finished: bool,
}

impl State {
    /// The state of a keeper whose VMM is about to start, with the effects that begin its life.
    pub fn new(patience: Patience, orderly_end: bool) -> (Self, Vec<Effect>) {
        let awaited_ms = patience.boot_ms;
        let state = Self {
            standing: Standing::Booting,
            patience,
            orderly_end,
            stop_asked: false,
            configured: false,
            outcome: None,
            awaited_ms,
            finished: false,
        };
        (state, vec![Effect::Announce(Standing::Booting), Effect::SetDeadline(awaited_ms)])
    }

    /// Where the spacecore stands.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Decides what follows from an input.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        if self.finished {
            return Vec::new();
        }
        match input {
            Input::Hello { version } => self.hello(version),
            Input::Configured => self.configured(),
            Input::WorkloadStarted => self.workload_started(),
            Input::WorkloadEnded(status) => self.workload_ended(status),
            Input::Refused(refusal) => self.end(Outcome::Refused(refusal)),
            Input::Violation(reason) => self.end(Outcome::Violation { reason }),
            Input::ChannelClosed => self.channel_closed(),
            Input::MachineEnded(reason) => self.finish(Outcome::MachineEnded { reason }),
            Input::NetworkEnded(reason) => self.end(Outcome::NetworkEnded { reason }),
            Input::NotStarted(reason) => self.finish(Outcome::NotStarted { reason }),
            Input::ParentGone | Input::KillAsked => self.end(Outcome::Stopped),
            Input::StopAsked { grace_ms } => self.stop_asked(grace_ms),
            Input::DeadlinePassed => self.deadline_passed(),
        }
    }

    fn hello(&mut self, version: u32) -> Vec<Effect> {
        if self.standing != Standing::Booting {
            return self.out_of_turn("said hello");
        }
        if version != wire::VERSION {
            let message = format!(
                "the guest speaks version {version} of the channel; this keeper speaks {}",
                wire::VERSION
            );
            return self.end(Outcome::Refused(Refusal { kind: RefusalKind::Protocol, message }));
        }
        self.standing = Standing::Configuring;
        self.awaited_ms = self.patience.configure_ms;
        vec![Effect::Configure, Effect::Announce(self.standing), Effect::SetDeadline(self.awaited_ms)]
    }

    fn configured(&mut self) -> Vec<Effect> {
        match self.standing {
            Standing::Configuring if !self.configured => {
                self.configured = true;
                Vec::new()
            }
            Standing::Stopping | Standing::Ending => Vec::new(),
            Standing::Booting | Standing::Configuring | Standing::Running => {
                self.out_of_turn("said that it is configured")
            }
        }
    }

    fn workload_started(&mut self) -> Vec<Effect> {
        match self.standing {
            Standing::Configuring => {
                self.standing = Standing::Running;
                vec![Effect::ClearDeadline, Effect::Announce(self.standing)]
            }
            // A stop that overtook the start.
            Standing::Stopping | Standing::Ending => Vec::new(),
            Standing::Booting | Standing::Running => self.out_of_turn("said that the workload started"),
        }
    }

    fn workload_ended(&mut self, status: ExitStatus) -> Vec<Effect> {
        match self.standing {
            Standing::Running => {
                self.outcome = Some(Outcome::Exited(status));
                if self.orderly_end { self.shut_down(0) } else { self.kill() }
            }
            Standing::Stopping if self.stop_asked => {
                self.outcome = Some(Outcome::Exited(status));
                if self.orderly_end { Vec::new() } else { self.kill() }
            }
            Standing::Ending => Vec::new(),
            Standing::Booting | Standing::Configuring | Standing::Stopping => {
                self.out_of_turn("said that the workload ended")
            }
        }
    }

    fn channel_closed(&mut self) -> Vec<Effect> {
        match self.standing {
            // The guest powers off; the machine's end follows, or the deadline.
            Standing::Stopping | Standing::Ending => Vec::new(),
            // The VMM closes the channel when it dies: its own end says more. It gets a moment to come.
            Standing::Booting | Standing::Configuring | Standing::Running => {
                self.outcome.get_or_insert(Outcome::MachineEnded {
                    reason: "the guest closed its channel".to_owned(),
                });
                self.standing = Standing::Ending;
                vec![Effect::Announce(self.standing), Effect::SetDeadline(200)]
            }
        }
    }

    fn stop_asked(&mut self, grace_ms: u64) -> Vec<Effect> {
        match self.standing {
            Standing::Booting | Standing::Configuring => self.end(Outcome::Stopped),
            Standing::Running => {
                self.stop_asked = true;
                self.outcome = Some(Outcome::Stopped);
                self.shut_down(grace_ms)
            }
            Standing::Stopping | Standing::Ending => Vec::new(),
        }
    }

    fn deadline_passed(&mut self) -> Vec<Effect> {
        let awaited = match self.standing {
            Standing::Booting => "the guest's first message",
            Standing::Configuring => "the workload's start",
            Standing::Running => return Vec::new(),
            Standing::Stopping | Standing::Ending => return self.kill(),
        };
        let (awaited, after_ms) = (awaited.to_owned(), self.awaited_ms);
        self.end(Outcome::Silent { awaited, after_ms })
    }

    fn shut_down(&mut self, grace_ms: u64) -> Vec<Effect> {
        self.standing = Standing::Stopping;
        self.awaited_ms = self.patience.shutdown_ms.saturating_add(grace_ms);
        vec![
            Effect::Shutdown { grace_ms },
            Effect::Announce(self.standing),
            Effect::SetDeadline(self.awaited_ms),
        ]
    }

    fn out_of_turn(&mut self, what: &str) -> Vec<Effect> {
        let reason = format!("the guest {what} while the spacecore was {:?}", self.standing);
        self.end(Outcome::Violation { reason })
    }

    fn end(&mut self, outcome: Outcome) -> Vec<Effect> {
        if self.standing == Standing::Ending {
            return Vec::new();
        }
        self.outcome.get_or_insert(outcome);
        self.kill()
    }

    fn kill(&mut self) -> Vec<Effect> {
        self.standing = Standing::Ending;
        vec![Effect::ClearDeadline, Effect::Announce(self.standing), Effect::KillMachine]
    }

    fn finish(&mut self, last: Outcome) -> Vec<Effect> {
        self.finished = true;
        let outcome = match (self.outcome.take(), last) {
            // The channel closed a moment before: the machine's own end says more.
            (Some(Outcome::MachineEnded { .. }) | None, last) => last,
            (Some(first), _) => first,
        };
        vec![Effect::ClearDeadline, Effect::Finish(outcome)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATIENCE: Patience = Patience { boot_ms: 10, configure_ms: 20, shutdown_ms: 30 };

    /// Runs the inputs and returns the outcome, with every kill answered by the machine's end.
    fn outcome_of(orderly_end: bool, inputs: &[Input]) -> Option<Outcome> {
        let (mut state, _) = State::new(PATIENCE, orderly_end);
        let mut queue: std::collections::VecDeque<Input> = inputs.iter().cloned().collect();
        while let Some(input) = queue.pop_front() {
            for effect in state.step(input) {
                match effect {
                    Effect::KillMachine => queue.push_front(Input::MachineEnded("killed".into())),
                    Effect::Finish(outcome) => return Some(outcome),
                    _ => {}
                }
            }
        }
        None
    }

    fn up() -> Vec<Input> {
        vec![Input::Hello { version: wire::VERSION }, Input::Configured, Input::WorkloadStarted]
    }

    fn with(mut first: Vec<Input>, more: &[Input]) -> Vec<Input> {
        first.extend_from_slice(more);
        first
    }

    #[test]
    fn a_life_without_incident_ends_with_the_workload_s_status() {
        let ended = Input::WorkloadEnded(ExitStatus::Code(7));
        assert_eq!(outcome_of(false, &with(up(), &[ended])), Some(Outcome::Exited(ExitStatus::Code(7))));
    }

    #[test]
    fn a_disk_that_outlives_the_run_is_shut_down_in_order() {
        let ended = Input::WorkloadEnded(ExitStatus::Code(0));
        assert_eq!(
            outcome_of(true, &with(up(), std::slice::from_ref(&ended))),
            None,
            "the guest must power off first"
        );
        let off = Input::MachineEnded("exit code 0".into());
        assert_eq!(
            outcome_of(true, &with(up(), &[ended.clone(), off])),
            Some(Outcome::Exited(ExitStatus::Code(0)))
        );
        assert_eq!(
            outcome_of(true, &with(up(), &[ended, Input::DeadlinePassed])),
            Some(Outcome::Exited(ExitStatus::Code(0))),
            "a guest that never powers off is killed"
        );
    }

    #[test]
    fn a_stop_shows_the_workload_s_own_status_where_it_gives_one() {
        let stop = Input::StopAsked { grace_ms: 5 };
        let ended = Input::WorkloadEnded(ExitStatus::Code(143));
        assert_eq!(
            outcome_of(false, &with(up(), &[stop.clone(), ended])),
            Some(Outcome::Exited(ExitStatus::Code(143)))
        );
        assert_eq!(outcome_of(false, &with(up(), &[stop, Input::DeadlinePassed])), Some(Outcome::Stopped));
    }

    #[test]
    fn a_guest_that_never_answers_is_ended_wherever_it_stays_silent() {
        assert!(matches!(
            outcome_of(false, &[Input::DeadlinePassed]),
            Some(Outcome::Silent { after_ms: 10, .. })
        ));
        assert!(matches!(
            outcome_of(false, &[Input::Hello { version: wire::VERSION }, Input::DeadlinePassed]),
            Some(Outcome::Silent { after_ms: 20, .. })
        ));
    }

    #[test]
    fn a_guest_that_speaks_out_of_turn_is_ended() {
        let hello = Input::Hello { version: wire::VERSION };
        for inputs in [
            vec![Input::WorkloadStarted],
            vec![Input::Configured],
            vec![Input::WorkloadEnded(ExitStatus::Code(0))],
            vec![hello.clone(), hello.clone()],
            with(up(), &[hello]),
            with(up(), &[Input::WorkloadStarted]),
            vec![Input::Hello { version: wire::VERSION }, Input::Configured, Input::Configured],
        ] {
            assert!(matches!(outcome_of(false, &inputs), Some(Outcome::Violation { .. })), "{inputs:?}");
        }
    }

    #[test]
    fn the_first_cause_is_the_one_that_is_told() {
        let inputs = [Input::Violation("garbage".into()), Input::ChannelClosed, Input::ParentGone];
        assert_eq!(outcome_of(false, &inputs), Some(Outcome::Violation { reason: "garbage".into() }));
        let inputs = with(up(), &[Input::ChannelClosed, Input::MachineEnded("killed by signal 9".into())]);
        assert_eq!(
            outcome_of(false, &inputs),
            Some(Outcome::MachineEnded { reason: "killed by signal 9".into() })
        );
    }

    fn any_input() -> impl Strategy<Value = Input> {
        prop_oneof![
            (0u32..3).prop_map(|version| Input::Hello { version }),
            Just(Input::Configured),
            Just(Input::WorkloadStarted),
            any::<u8>().prop_map(|code| Input::WorkloadEnded(ExitStatus::Code(code))),
            Just(Input::Refused(Refusal { kind: RefusalKind::Root, message: "no disk".into() })),
            Just(Input::Violation("garbage".into())),
            Just(Input::ChannelClosed),
            Just(Input::MachineEnded("killed".into())),
            Just(Input::NetworkEnded("killed".into())),
            Just(Input::NotStarted("no program".into())),
            Just(Input::ParentGone),
            (0u64..100).prop_map(|grace_ms| Input::StopAsked { grace_ms }),
            Just(Input::KillAsked),
            Just(Input::DeadlinePassed),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_keeper_finishes_once_and_only_when_the_machine_is_gone(
            inputs in proptest::collection::vec(any_input(), 0..40),
            orderly_end: bool,
        ) {
            let (mut state, mut effects) = State::new(PATIENCE, orderly_end);
            let (mut finished, mut machine_gone, mut deadline, mut killed) = (0, false, false, false);
            for input in inputs {
                for effect in effects.drain(..) {
                    match effect {
                        Effect::SetDeadline(_) => deadline = true,
                        Effect::ClearDeadline => deadline = false,
                        Effect::KillMachine => killed = true,
                        Effect::Finish(_) => finished += 1,
                        _ => {}
                    }
                }
                prop_assert!(finished == usize::from(machine_gone));
                // Nothing that isn't running may wait for ever.
                let waits = state.standing() != Standing::Running && !machine_gone;
                prop_assert!(!waits || deadline || killed, "{state:?} waits for nothing");
                machine_gone |= matches!(input, Input::MachineEnded(_) | Input::NotStarted(_));
                if matches!(input, Input::DeadlinePassed) {
                    if !deadline { continue; }
                    deadline = false;
                }
                effects = state.step(input);
            }
        }
    }
}
