//! How a run ended, for a person and for a shell.

use std::io::Write;

use node::keeper::report::Outcome;
use node::plan::Plan;
use serde_json::json;
use spacecore::wire::message::{ExitStatus, RefusalKind};

use super::FAILED;
use super::attach::Ended;

/// Says what a person should know beyond the workload's own output, and gives the exit code.
pub fn report(ended: &Ended, plan: &Plan, json: bool) -> anyhow::Result<u8> {
    let (code, message) = judge(ended, Some(plan.memory_mib));
    if json {
        let line =
            json!({ "event": "ended", "exit_code": code, "outcome": ended.outcome, "message": message });
        writeln!(std::io::stdout(), "{line}")?;
    } else if let Some(message) = message {
        writeln!(std::io::stderr(), "vimana: {message}")?;
    }
    Ok(code)
}

/// The same for a process beside a workload.
pub fn report_beside(ended: &Ended) -> anyhow::Result<u8> {
    let (code, message) = judge(ended, None);
    if let Some(message) = message {
        writeln!(std::io::stderr(), "vimana: {message}")?;
    }
    Ok(code)
}

fn judge(ended: &Ended, memory_mib: Option<u64>) -> (u8, Option<String>) {
    match &ended.outcome {
        Outcome::Exited(status @ ExitStatus::Signal { out_of_memory: true, .. }) => {
            let had = memory_mib.map(|mib| format!("; it had {mib} MiB (-m, spec.resources.memory)"));
            let message = format!("the workload was killed for want of memory{}", had.unwrap_or_default());
            (status.shell_code(), Some(message))
        }
        Outcome::Exited(status) => (status.shell_code(), None),
        Outcome::Stopped => {
            let signal = ended.asked.unwrap_or(libc::SIGKILL);
            let status = ExitStatus::Signal { signal, out_of_memory: false };
            (status.shell_code(), Some("stopped before the workload ended".to_owned()))
        }
        Outcome::Refused(refusal) => {
            let code = match refusal.kind {
                RefusalKind::NotFound => 127,
                RefusalKind::NotExecutable => 126,
                RefusalKind::Protocol
                | RefusalKind::Root
                | RefusalKind::Mount
                | RefusalKind::Network
                | RefusalKind::User
                | RefusalKind::Other => FAILED,
            };
            (code, Some(refusal.message.clone()))
        }
        Outcome::NotStarted { reason } => (FAILED, Some(format!("it can't be started: {reason}"))),
        Outcome::Silent { awaited, after_ms, .. } => {
            (FAILED, Some(format!("the guest gave no sign for {} s; awaited was {awaited}", after_ms / 1000)))
        }
        Outcome::Violation { reason } => {
            (FAILED, Some(format!("the guest broke the protocol of its channel and was ended: {reason}")))
        }
        Outcome::NetworkEnded { reason } => (FAILED, Some(format!("passt, its network, ended: {reason}"))),
        Outcome::MachineEnded { reason } => (FAILED, Some(format!("its machine ended unasked: {reason}"))),
    }
}
