//! What a container's control group tells: the files of version 2 where there is one, else those of version 1.
//!
//! Source: the Linux kernel's `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/`.

use std::sync::atomic::{AtomicU64, Ordering};

use spacecore::wire::message::Stats;

use crate::stats::{CLOCK_TICK_US, network_bytes, proc_file};

const ROOT: &str = "/sys/fs/cgroup";

/// How many processes the kernel had ended for want of memory when it was last asked.
static ENDED: AtomicU64 = AtomicU64::new(0);

fn file(name: &str) -> Option<String> {
    std::fs::read_to_string(format!("{ROOT}/{name}")).ok()
}

fn number(name: &str) -> Option<u64> {
    file(name)?.trim().parse().ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Whether the kernel has ended a process of this container for want of memory since it was last asked.
pub(crate) fn ran_out_of_memory() -> bool {
    let text = file("memory.events").or_else(|| file("memory/memory.oom_control")).unwrap_or_default();
    let ended = field(&text, "oom_kill").unwrap_or(0);
    ended > ENDED.swap(ended, Ordering::Relaxed)
}

/// Limit and use of memory, and what of the use could be dropped at once.
fn memory() -> Option<(u64, u64, u64)> {
    if let Some(used) = number("memory.current") {
        let cache = field(&file("memory.stat")?, "inactive_file").unwrap_or(0);
        return Some((number("memory.max").unwrap_or(used), used, cache));
    }
    let used = number("memory/memory.usage_in_bytes")?;
    let cache = field(&file("memory/memory.stat")?, "total_inactive_file").unwrap_or(0);
    Some((number("memory/memory.limit_in_bytes").unwrap_or(used), used, cache))
}

/// Time of user code and of the kernel, in microseconds.
fn processor() -> Option<(u64, u64)> {
    if let Some(stat) = file("cpu.stat") {
        return Some((field(&stat, "user_usec")?, field(&stat, "system_usec")?));
    }
    let stat = file("cpuacct/cpuacct.stat")?;
    let time = |name| Some(field(&stat, name)?.saturating_mul(CLOCK_TICK_US));
    Some((time("user")?, time("system")?))
}

/// Measures; what can't be measured is 0.
pub(crate) fn measure() -> Stats {
    let (limit, used, cache) = memory().unwrap_or_default();
    let (user, system) = processor().unwrap_or_default();
    let processes = number("pids.current").or_else(|| number("pids/pids.current")).unwrap_or(0);
    let disk = rustix::fs::statvfs("/").ok();
    let disk = |blocks: fn(&rustix::fs::StatVfs) -> u64| {
        disk.as_ref().map_or(0, |stat| blocks(stat).saturating_mul(stat.f_frsize))
    };
    let (received, sent) = network_bytes(&proc_file("net/dev"));
    Stats {
        memory_total: limit,
        memory_available: limit.saturating_sub(used.saturating_sub(cache)),
        cpu_user_us: user,
        cpu_system_us: system,
        // PID 1 isn't the workload's.
        processes: u32::try_from(processes.saturating_sub(1)).unwrap_or(u32::MAX),
        // The kernel has none for a container, and the host's is nobody's business here.
        load_milli: 0,
        upper_used: disk(|stat| stat.f_blocks.saturating_sub(stat.f_bfree)),
        upper_total: disk(|stat| stat.f_blocks),
        network_received: received,
        network_sent: sent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "oom 3\noom_kill_disable 0\noom_kill 2\n";
        assert_eq!(field(text, "oom_kill"), Some(2));
        assert_eq!(field(text, "oom"), Some(3));
        assert_eq!(field(text, "missing"), None);
    }
}
