//! What a workload that is root inside can't do.

use crate::rig::{Ran, Rig};
use crate::{Behaviour, behaviours};

pub const BEHAVIOURS: &[Behaviour] = behaviours![
    what_tells_of_the_machine_is_masked,
    what_rules_the_machine_cant_be_written,
    privileges_are_bounded
];

/// One run as root.
fn as_root(rig: &Rig) -> Ran {
    rig.shared("root", || {
        let probe = [
            "read",
            "/proc/kcore",
            ",",
            "read",
            "/proc/keys",
            ",",
            "read",
            "/proc/timer_list",
            ",",
            "list",
            "/proc/scsi",
            ",",
            "list",
            "/sys/firmware",
            ",",
            "write",
            "/proc/sysrq-trigger",
            "h",
            ",",
            "write",
            "/proc/sys/kernel/core_pattern",
            "|/x",
            ",",
            "write",
            "/proc/sys/vm/drop_caches",
            "1",
            ",",
            "folder",
            "/sys/fs/cgroup/mine",
            ",",
            "write",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "-1",
            ",",
            "write",
            "/sys/fs/cgroup/memory.max",
            "max",
            ",",
            "status",
        ];
        rig.output(&[], &probe)
    })
}

fn what_tells_of_the_machine_is_masked(rig: &Rig) {
    let ran = as_root(rig);
    let said = ran.said();
    assert_eq!((ran.code, said.len()), (0, 12), "{ran:?}");
    let nothing = |said: &String| said.is_empty() || said == "ok" || said.starts_with("fail");
    assert!(said[..5].iter().all(nothing), "{ran:?}");
}

fn what_rules_the_machine_cant_be_written(rig: &Rig) {
    let ran = as_root(rig);
    assert!(ran.said()[5..11].iter().all(|said| said.starts_with("fail")), "{ran:?}");
}

/// CAP_SYS_ADMIN, CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_PTRACE, CAP_SYS_BOOT, CAP_SYS_TIME, CAP_NET_ADMIN, CAP_BPF.
const DANGEROUS: [u32; 8] = [21, 16, 17, 19, 22, 25, 12, 39];

fn privileges_are_bounded(rig: &Rig) {
    assert_eq!(privilege(rig, "NoNewPrivs:"), 1);
    capabilities_are_bounded(rig);
}

/// Neither root nor a program that makes root of its user has any of them.
pub fn capabilities_are_bounded(rig: &Rig) {
    for set in ["CapEff:", "CapPrm:", "CapBnd:", "CapInh:", "CapAmb:"] {
        let held = privilege(rig, set);
        assert!(DANGEROUS.iter().all(|bit| held & (1 << bit) == 0), "{set} {held:x}");
    }
}

fn privilege(rig: &Rig, name: &str) -> u64 {
    let status = as_root(rig).part("status");
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{status}"));
    u64::from_str_radix(line.split_whitespace().nth(1).unwrap_or_default(), 16).unwrap()
}
