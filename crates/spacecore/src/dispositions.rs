//! What a process does about a signal, as `/proc/PID/status` tells (proc(5)).

use rustix::process::Pid;

/// Whether a signal ends a process that says nothing about it (signal(7)). SIGKILL needs no help.
pub(crate) fn ends_by_default(signal: i32) -> bool {
    !matches!(
        signal,
        libc::SIGKILL
            | libc::SIGCHLD
            | libc::SIGCONT
            | libc::SIGURG
            | libc::SIGWINCH
            | libc::SIGSTOP
            | libc::SIGTSTP
            | libc::SIGTTIN
            | libc::SIGTTOU
    )
}

/// Whether a process catches, ignores or blocks a signal. What can't be read counts as expecting it.
pub(crate) fn expects(pid: Pid, signal: i32) -> bool {
    let status = crate::stats::proc_file(&format!("{}/status", pid.as_raw_nonzero()));
    status.is_empty() || is_in_masks(&status, signal)
}

fn is_in_masks(status: &str, signal: i32) -> bool {
    let Ok(bit) = u32::try_from(signal.saturating_sub(1)) else {
        return true;
    };
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    };
    ["SigBlk:", "SigIgn:", "SigCgt:"]
        .into_iter()
        .any(|name| mask(name).checked_shr(bit).unwrap_or(0) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_expected_if_it_is_blocked_ignored_or_caught() {
        let status =
            "Name:\tsh\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000000002\nSigCgt:\t0000000000004000\n";
        let expected: Vec<i32> = (1..=64).filter(|signal| is_in_masks(status, *signal)).collect();
        assert_eq!(expected, [1, 2, 15]);
    }
}
