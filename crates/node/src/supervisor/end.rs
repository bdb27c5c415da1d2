//! How an attempt ended.

use std::fmt;

use hac::units::Duration;
use serde::{Deserialize, Serialize};
use spacecore::wire::message::{ExitStatus, Refusal, RefusalKind};

use crate::keeper::report::Outcome;

/// How an attempt ended, as far as it matters for what follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum End {
    /// The workload ended.
    Exited(ExitStatus),
    /// The spacecore was ended before its workload was.
    Stopped,
    /// The workload can't be started, and another attempt would not change that.
    Refused(String),
    /// It could not be started this time.
    NotStarted(String),
    /// The keeper or the machine died, or the guest can't be spoken to any more.
    Lost(String),
    /// The daemon died before it began the attempt: there is no trace of a keeper. A start that was under way when the
    /// daemon died is repeated; at any other time this is as [`End::NotStarted`].
    NeverBegun,
    /// A check failed too often. The supervisor's own verdict.
    Unhealthy(String),
    /// The machine couldn't keep it, for this reason. The supervisor's own verdict.
    Evicted(String),
    /// The workload ran longer than it may. The supervisor's own verdict.
    Overdue {
        /// How long it may run.
        after_ms: u64,
    },
}

impl End {
    /// Reads a keeper's last words.
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Exited(status) => Self::Exited(*status),
            Outcome::Stopped => Self::Stopped,
            Outcome::Refused(refusal) => Self::refused(refusal),
            Outcome::NotStarted { reason } => Self::NotStarted(reason.clone()),
            Outcome::Silent { awaited, after_ms } => {
                Self::Lost(format!("{awaited} didn't come within {after_ms} ms"))
            }
            Outcome::Violation { reason } => Self::Lost(format!("the guest broke the protocol: {reason}")),
            Outcome::NetworkEnded { reason } => Self::Lost(format!("the network's process ended: {reason}")),
            Outcome::MachineEnded { reason } => Self::Lost(format!("the machine ended: {reason}")),
        }
    }

    fn refused(refusal: &Refusal) -> Self {
        let message = refusal.message.clone();
        match refusal.kind {
            RefusalKind::Protocol
            | RefusalKind::Root
            | RefusalKind::Mount
            | RefusalKind::User
            | RefusalKind::NotFound
            | RefusalKind::NotExecutable => Self::Refused(message),
            // What the host lends may be short for a moment, and "other" is mostly want of memory or processes.
            RefusalKind::Network | RefusalKind::Other => Self::NotStarted(message),
        }
    }

    /// The exit code that a shell would see: the workload's own, or, where it took longer than it may, that of timeout(1); none
    /// where it never came to an end of its own.
    pub fn shell_code(&self) -> Option<u8> {
        match self {
            Self::Exited(status) => Some(status.shell_code()),
            Self::Overdue { .. } => Some(124),
            Self::Stopped
            | Self::Refused(_)
            | Self::NotStarted(_)
            | Self::Lost(_)
            | Self::NeverBegun
            | Self::Evicted(_)
            | Self::Unhealthy(_) => None,
        }
    }

    /// Tells whether the workload ended by itself and well.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited(ExitStatus::Code(0)))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(ExitStatus::Code(code)) => write!(f, "exit code {code}"),
            Self::Exited(ExitStatus::Signal { signal, out_of_memory: false }) => write!(f, "signal {signal}"),
            Self::Exited(ExitStatus::Signal { signal, out_of_memory: true }) => {
                write!(f, "signal {signal}, out of memory")
            }
            Self::Stopped => f.write_str("stopped"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::NotStarted(reason) => write!(f, "not started: {reason}"),
            Self::Lost(reason) => write!(f, "lost: {reason}"),
            Self::NeverBegun => f.write_str("never begun"),
            Self::Unhealthy(reason) => write!(f, "unhealthy: {reason}"),
            Self::Evicted(reason) => write!(f, "evicted: {reason}"),
            Self::Overdue { after_ms } => write!(f, "took longer than its deadline, {}", Duration(*after_ms)),
        }
    }
}
