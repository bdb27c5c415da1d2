//! The control group that a virtual machine's monitor gets, tried in the machine of [`crate::unified`], where groups are of version
//! 2 alone. A monitor itself would be a machine in a machine.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use hypercore::cgroup::{Group, Limits};
use hypercore::driver::Class;

/// The argument with which this program does nothing else.
pub const ARGUMENT: &str = "try-a-group";

/// Makes a group, sees that it holds a process, and removes it; as whoever calls this.
pub fn hold() -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    let group = Group::prepare(folder.path()).unwrap();
    group
        .make(&Limits { cpu_milli: 250, memory_bytes: 32 << 20, threads: 8, class: Class::Guaranteed })
        .unwrap();
    // It begins when it is in the group.
    let mut eater = Command::new("sh")
        .args(["-c", "read go; exec dd if=/dev/zero of=/dev/null bs=64M count=1"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = i32::try_from(eater.id()).unwrap();
    group.put(pid).unwrap();
    let listed = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = listed.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let place = Path::new("/sys/fs/cgroup").join(own);
    let read = |name: &str| fs::read_to_string(place.join(name)).unwrap().trim().to_owned();
    assert_eq!(read("memory.max"), (32 << 20).to_string());
    // A quarter of a processor, guaranteed; never taken back for others.
    assert_eq!((read("cpu.weight").as_str(), read("memory.min")), ("1600", (32 << 20).to_string()));
    assert_eq!((read("cpu.max").as_str(), read("pids.max").as_str()), ("25000 100000", "8"));
    drop(eater.stdin.take());
    let ended = eater.wait().unwrap();
    assert!(!ended.success(), "it took 64 MiB of 32");
    assert!(group.killed_for_memory() > 0, "{ended:?}");
    group.remove().unwrap();
    assert!(!place.exists());
    ExitCode::SUCCESS
}
