//! The workload's control group: less memory than the machine has, so that the kernel ends what eats too much; and no more
//! processes than it may have.
//!
//! Without a limit of its own a workload that fills the machine makes the kernel evict program code and read it again for
//! minutes before it ends anything; within a limit it is ended at once, and PID 1 keeps room to say so.

use std::fs;

use rustix::mount::MountFlags;
use spacecore::refusal::OrRefuse;
use spacecore::wire::message::{Refusal, RefusalKind};

use crate::boot::mount_kernel_fs;

const ROOT: &str = "/sys/fs/cgroup";
const WORKLOAD: &str = "/sys/fs/cgroup/workload";

/// What is left to the kernel and PID 1, in bytes: a sixteenth of what is free, at least this.
const LEAST_RESERVE: u64 = 6 << 20;

/// Makes the group and limits it to most of the memory that is free now, and to so many processes and threads. A kernel
/// without control groups for memory runs the workload without that limit.
///
/// # Errors
/// The number of processes can't be limited.
pub(crate) fn make(pids: Option<u32>) -> Result<(), Refusal> {
    const WHAT: fn() -> String = || "limiting the number of processes".to_owned();
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounted = mount_kernel_fs("cgroup2", ROOT, flags, c"");
    let Some(pids) = pids else {
        if mounted.is_ok() {
            limit_memory();
        }
        return Ok(());
    };
    mounted?;
    limit_memory();
    fs::write(format!("{ROOT}/cgroup.subtree_control"), "+pids").or_refuse(RefusalKind::Other, WHAT)?;
    fs::write(format!("{WORKLOAD}/pids.max"), pids.to_string()).or_refuse(RefusalKind::Other, WHAT)
}

fn limit_memory() {
    let system = rustix::system::sysinfo();
    let free = system.freeram.saturating_mul(u64::from(system.mem_unit));
    let _ = fs::write(format!("{ROOT}/cgroup.subtree_control"), "+memory");
    if fs::create_dir(WORKLOAD).is_ok() {
        let _ = fs::write(format!("{WORKLOAD}/memory.max"), limit(free).to_string());
    }
}

fn limit(free: u64) -> u64 {
    free.saturating_sub((free / 16).max(LEAST_RESERVE))
}

/// Moves the calling process into the group, if there is one; its children are born in it.
///
/// # Errors
/// There is one, and it can't be moved there: its limits wouldn't hold.
pub(crate) fn join() -> Result<(), Refusal> {
    if !std::path::Path::new(WORKLOAD).exists() {
        return Ok(());
    }
    let moved = fs::write(format!("{WORKLOAD}/cgroup.procs"), "0");
    moved.or_refuse(RefusalKind::Other, || "moving the process to its limits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_stays_whatever_the_size() {
        assert_eq!(limit(64 << 20), 58 << 20);
        assert_eq!(limit(16 << 30), 15 << 30);
        assert_eq!(limit(1 << 20), 0);
    }
}
