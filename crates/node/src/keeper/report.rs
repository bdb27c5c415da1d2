//! What keeper and clients say to each other over a unix socket, in the frames of [`spacecore::wire`].

use hypercore::network::{Publish, Traffic};
use serde::{Deserialize, Serialize};
use spacecore::wire::message::{ExitStatus, Fetched, Probe, Process, Refusal, Stats, Step, TerminalSize};

use crate::clock::Mark;

/// The version of what independent keepers and those who adopt them say to each other, which a keeper leaves in its run folder. It rises when
/// there is something new to say, and [`ToKeeper::since`] says since when.
pub const PROTOCOL: u32 = 2;

/// The oldest version whose keepers can be spoken with.
pub const OLDEST_PROTOCOL: u32 = 1;

/// Whether this version can speak with keepers of that one.
pub fn is_spoken(protocol: u32) -> bool {
    (OLDEST_PROTOCOL..=PROTOCOL).contains(&protocol)
}

/// What a client asks of a keeper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum ToKeeper {
    /// The workload's streams shall go to this client from now on.
    Attach,
    /// Sends a signal to a process of this client's, or to the workload (0).
    Signal {
        /// The process' number.
        process: u16,
        /// The signal's number.
        signal: i32,
    },
    /// The size of a process' terminal has changed.
    Resize {
        /// The process' number.
        process: u16,
        /// The new size.
        size: TerminalSize,
    },
    /// Starts one more process; answered by [`FromKeeper::Opened`].
    Exec {
        /// Returned with the answer.
        request: u32,
        /// What to start.
        spec: Process,
    },
    /// Asks for [`FromKeeper::Stats`].
    Stats {
        /// Returned with the answer.
        request: u32,
    },
    /// Asks whether the workload is well; answered by [`FromKeeper::Checked`], also where the guest says nothing.
    Check {
        /// Returned with the answer.
        request: u32,
        /// How to find out.
        probe: Probe,
        /// Milliseconds after which no answer of the workload's counts as failure; the guest has one second more to say so.
        timeout_ms: u64,
    },
    /// Asks for a page that the workload serves about itself; answered by [`FromKeeper::Fetched`], also where the guest says
    /// nothing.
    Fetch {
        /// Returned with the answer.
        request: u32,
        /// The port inside.
        port: u16,
        /// The page's path.
        path: String,
        /// Milliseconds that the guest may take; it has one second more to say that it took longer.
        timeout_ms: u64,
    },
    /// Has the machine stand still as it is, until the spacecore is stopped.
    Pause,
    /// Ends the spacecore in order: stop signal, grace period, kill.
    Stop {
        /// Milliseconds between stop signal and kill.
        grace_ms: u64,
    },
    /// Ends the spacecore at once.
    Kill,
}

impl ToKeeper {
    /// The version of keepers that first understood this. An older one ends the connection over it, so that it isn't told.
    pub fn since(&self) -> u32 {
        match self {
            Self::Fetch { .. } | Self::Pause => 2,
            Self::Exec { spec, .. } if spec.transfer.is_some() => 2,
            Self::Attach
            | Self::Signal { .. }
            | Self::Resize { .. }
            | Self::Exec { .. }
            | Self::Stats { .. }
            | Self::Check { .. }
            | Self::Stop { .. }
            | Self::Kill => 1,
        }
    }
}

/// What a keeper tells its clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum FromKeeper {
    /// Where the spacecore stands; the first message to every client, and again at each change.
    Standing(Standing),
    /// Where the spacecore's ports are published, with those that the machine chose; once its network is ready, and to every client
    /// that comes later.
    Published(Vec<Publish>),
    /// The process that an `Exec` asked for has this number; its streams are open.
    Opened {
        /// The number from the question.
        request: u32,
        /// The process' number.
        process: u16,
    },
    /// A process runs.
    Started {
        /// Its number.
        process: u16,
    },
    /// A process ended; all of its output came before.
    Ended {
        /// Its number.
        process: u16,
        /// How it ended.
        status: ExitStatus,
    },
    /// A process beside the workload could not be started.
    Refused {
        /// Its number.
        process: u16,
        /// Why.
        refusal: Refusal,
    },
    /// The answer to [`ToKeeper::Stats`].
    Stats {
        /// The number from the question.
        request: u32,
        /// What the guest claims of itself.
        guest: Stats,
        /// Memory of the VMM's process that lies in RAM, in bytes.
        vmm_resident: u64,
        /// CPU time of the VMM's process in microseconds.
        vmm_cpu_us: u64,
        /// What the machine has seen pass between the guest and its network, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traffic: Option<Traffic>,
        /// Whether this keeper knows [`ToKeeper::Fetch`] and [`ToKeeper::Pause`]; those of earlier versions don't.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        fetches: bool,
    },
    /// The answer to [`ToKeeper::Check`].
    Checked {
        /// The number from the question.
        request: u32,
        /// Why the check failed, for a person; none where it passed.
        failure: Option<String>,
    },
    /// The answer to [`ToKeeper::Fetch`].
    Fetched {
        /// The number from the question.
        request: u32,
        /// What came of it.
        fetched: Fetched,
    },
    /// The last message: the spacecore has ended and its machine is gone.
    Finished {
        /// How it ended.
        outcome: Outcome,
        /// The keeper's moments.
        marks: Vec<Mark>,
        /// The guest's own steps while it was configured.
        guest_steps: Vec<Step>,
    },
}

/// Where a spacecore stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Standing {
    /// The machine starts; the guest hasn't spoken yet.
    Booting,
    /// The guest sets up what it was told.
    Configuring,
    /// The workload runs.
    Running,
    /// The workload has ended or been asked to.
    Stopping,
    /// The machine is being ended.
    Ending,
}

/// How a spacecore ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Outcome {
    /// The workload ended.
    Exited(ExitStatus),
    /// The spacecore was ended before its workload was.
    Stopped,
    /// The workload could not be started, as the image or the request has it.
    Refused(Refusal),
    /// The machine could not be started.
    NotStarted {
        /// Why, the whole chain of causes.
        reason: String,
    },
    /// The guest didn't answer in time.
    Silent {
        /// What was awaited.
        awaited: String,
        /// For how long, in milliseconds.
        after_ms: u64,
    },
    /// The guest broke the protocol of its channel.
    Violation {
        /// How.
        reason: String,
    },
    /// The network's process ended; a spacecore that can't be reached any more doesn't go on as if nothing were wrong.
    NetworkEnded {
        /// Its last words.
        reason: String,
    },
    /// The machine ended without being asked to.
    MachineEnded {
        /// The VMM's exit code or signal and its last words.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What keepers of version 1 say and are told, a line each.
    const SAID: &str = include_str!("report/said-1.jsonl");
    const TOLD: &str = include_str!("report/told-1.jsonl");

    #[test]
    fn what_keepers_that_run_say_is_understood_and_what_they_are_told_is_what_they_understand() {
        for line in SAID.lines() {
            let said: FromKeeper =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(serde_json::to_string(&said).unwrap(), line, "a change of this raises PROTOCOL");
        }
        for line in TOLD.lines() {
            let told: ToKeeper = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(serde_json::to_string(&told).unwrap(), line, "a change of this raises PROTOCOL");
            assert_eq!(told.since(), 1, "{line}");
        }
    }

    #[test]
    fn keepers_between_the_oldest_and_the_present_version_are_spoken_with() {
        for (protocol, spoken) in
            [(0, false), (OLDEST_PROTOCOL, true), (PROTOCOL, true), (PROTOCOL + 1, false)]
        {
            assert_eq!(is_spoken(protocol), spoken, "{protocol}");
        }
    }
}
