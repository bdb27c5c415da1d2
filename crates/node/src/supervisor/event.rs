//! What a supervisor says of its work.

use std::fmt;

use hac::units::Duration;

use super::{End, Phase};

/// Something that happened, for logs and people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An attempt begins.
    Starting {
        /// Its number.
        attempt: u64,
    },
    /// The workload runs.
    Running {
        /// The attempt.
        attempt: u64,
    },
    /// Every check has passed.
    Ready {
        /// The attempt.
        attempt: u64,
    },
    /// A check failed.
    CheckFailed {
        /// The attempt.
        attempt: u64,
        /// The check's place in the rules.
        check: usize,
        /// How many failures in a row count now; 0 within the grace period.
        in_a_row: u32,
        /// Why.
        reason: String,
    },
    /// The workload runs longer than it may.
    Overdue {
        /// The attempt.
        attempt: u64,
        /// How long it may run.
        after_ms: u64,
    },
    /// An attempt was told to stop.
    Stopping {
        /// Its number.
        attempt: u64,
    },
    /// An attempt didn't stop in time and is killed.
    Killing {
        /// Its number.
        attempt: u64,
    },
    /// An attempt's keeper doesn't do as it is told, and is killed.
    Destroying {
        /// Its number.
        attempt: u64,
    },
    /// An attempt is over.
    Ended {
        /// Its number.
        attempt: u64,
        /// How.
        end: End,
    },
    /// The next attempt follows after a wait.
    Waiting {
        /// How long.
        after_ms: u64,
        /// Which restart in a row it will be.
        in_a_row: u32,
    },
    /// The last attempt that the rules allow is over.
    GaveUp {
        /// How many restarts in a row were tried.
        restarts: u32,
    },
    /// Nothing more happens until somebody asks for it.
    Rests {
        /// Where it stands.
        phase: Phase,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting { attempt } => write!(f, "attempt {attempt} starts"),
            Self::Running { attempt } => write!(f, "attempt {attempt} runs"),
            Self::Ready { attempt } => write!(f, "attempt {attempt} is ready"),
            Self::CheckFailed { attempt, check, in_a_row: 0, reason } => {
                write!(f, "check {check} of attempt {attempt} doesn't pass yet: {reason}")
            }
            Self::CheckFailed { attempt, check, in_a_row, reason } => {
                write!(f, "check {check} of attempt {attempt} failed, {in_a_row} in a row: {reason}")
            }
            Self::Overdue { attempt, after_ms } => {
                write!(f, "attempt {attempt} takes longer than its deadline, {}", Duration(*after_ms))
            }
            Self::Stopping { attempt } => write!(f, "attempt {attempt} is stopped"),
            Self::Killing { attempt } => write!(f, "attempt {attempt} didn't stop in time and is killed"),
            Self::Destroying { attempt } => {
                write!(f, "the keeper of attempt {attempt} doesn't do as it is told; its process is killed")
            }
            Self::Ended { attempt, end } => write!(f, "attempt {attempt} ended: {end}"),
            Self::Waiting { after_ms, in_a_row } => {
                write!(f, "restart {in_a_row} in a row follows in {after_ms} ms")
            }
            Self::GaveUp { restarts } => write!(f, "given up after {restarts} restarts in a row"),
            Self::Rests { phase: Phase::Completed } => f.write_str("completed"),
            Self::Rests { phase: Phase::Failed } => f.write_str("failed"),
            Self::Rests { phase: Phase::Halted } => f.write_str("halted"),
            Self::Rests { phase } => write!(f, "rests as {phase:?}"),
        }
    }
}
