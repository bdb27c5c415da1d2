//! What the guest measures of itself, and whether the kernel killed a process for want of memory.

use std::fs::File;
use std::io::Read;

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use rustix::process::Pid;
use spacecore::wire::message::Stats;

use crate::boot::mount_kernel_fs;
use crate::root::WRITABLE;

pub(crate) const CLOCK_TICK_US: u64 = 10_000;

/// A file of `/proc`; empty where it can't be read.
pub(crate) fn proc_file(name: &str) -> String {
    if let Ok(text) = std::fs::read_to_string(format!("/proc/{name}")) {
        return text;
    }
    // PID 1 needs its own /proc for nothing else, so that it is mounted when it is first asked for.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if mount_kernel_fs("proc", "/proc", flags, c"").is_err() {
        return String::new();
    }
    std::fs::read_to_string(format!("/proc/{name}")).unwrap_or_default()
}

/// Measures; what can't be measured is 0.
pub(crate) fn measure(workload: Option<Pid>) -> Stats {
    if crate::mode::is_container() {
        return crate::limits::measure();
    }
    let memory = proc_file("meminfo");
    let kib = |name: &str| memory_line(&memory, name).saturating_mul(1024);
    let (user, system) = cpu_ticks(&proc_file("stat"));
    let disk = rustix::fs::statvfs(WRITABLE).ok();
    let disk = |blocks: fn(&rustix::fs::StatVfs) -> u64| {
        disk.as_ref().map_or(0, |stat| blocks(stat).saturating_mul(stat.f_frsize))
    };
    let (received, sent) = network_bytes(&proc_file("net/dev"));
    Stats {
        memory_total: kib("MemTotal:"),
        memory_available: kib("MemAvailable:"),
        cpu_user_us: user.saturating_mul(CLOCK_TICK_US),
        cpu_system_us: system.saturating_mul(CLOCK_TICK_US),
        processes: workload.map_or(0, count_processes),
        load_milli: load(&proc_file("loadavg")),
        upper_used: disk(|stat| stat.f_blocks.saturating_sub(stat.f_bfree)),
        upper_total: disk(|stat| stat.f_blocks),
        network_received: received,
        network_sent: sent,
    }
}

fn memory_line(meminfo: &str, name: &str) -> u64 {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// User (with nice) and kernel (with interrupts) ticks of all CPUs.
fn cpu_ticks(stat: &str) -> (u64, u64) {
    let fields = stat
        .lines()
        .next()
        .unwrap_or("")
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or(0))
        .collect::<Vec<u64>>();
    let sum = |at: &[usize]| {
        at.iter().filter_map(|at| fields.get(*at)).fold(0u64, |sum, field| sum.saturating_add(*field))
    };
    (sum(&[0, 1]), sum(&[2, 5, 6]))
}

/// The first field of `/proc/loadavg`, `0.25`, in thousandths.
fn load(loadavg: &str) -> u64 {
    let first = loadavg.split_whitespace().next().unwrap_or("");
    let (whole, part) = first.split_once('.').unwrap_or((first, ""));
    let part = format!("{:0<3}", part.get(..part.len().min(3)).unwrap_or(""));
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    number(whole).saturating_mul(1000).saturating_add(number(&part))
}

/// Bytes received and sent by all interfaces but loopback.
pub(crate) fn network_bytes(dev: &str) -> (u64, u64) {
    let mut sums = (0u64, 0u64);
    for (name, counters) in dev.lines().filter_map(|line| line.split_once(':')) {
        if name.trim() != "lo" {
            let counters = counters.split_whitespace().collect::<Vec<_>>();
            let at = |index: usize| counters.get(index).and_then(|text| text.parse().ok()).unwrap_or(0);
            sums = (sums.0.saturating_add(at(0)), sums.1.saturating_add(at(8)));
        }
    }
    sums
}

/// Counts the processes in the workload's pid namespace but its first, which isn't the workload's.
fn count_processes(workload: Pid) -> u32 {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(&workload.as_raw_nonzero().to_string()) else {
        return 0;
    };
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let inside = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|name| namespace(name).is_some_and(|namespace| namespace == own))
        .count();
    u32::try_from(inside.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// Whether the kernel's log, or in a container the control group, says that this process was killed for want of memory.
pub(crate) fn ran_out_of_memory(pid: Pid) -> bool {
    if crate::mode::is_container() {
        return crate::limits::ran_out_of_memory();
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(log) = rustix::fs::open("/dev/kmsg", flags, Mode::empty()) else {
        return false;
    };
    let wanted = format!("Killed process {} (", pid.as_raw_nonzero());
    let (mut log, mut record) = (File::from(log), [0; 8192]);
    loop {
        match log.read(&mut record) {
            Ok(0) => return false,
            Ok(length) if String::from_utf8_lossy(&record[..length]).contains(&wanted) => return true,
            Ok(_) => {}
            // The oldest record was overwritten while it was to be read.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_files_are_read_as_they_are_written() {
        let meminfo = "MemTotal:         241404 kB\nMemFree:   100 kB\nMemAvailable:     200000 kB\n";
        assert_eq!(memory_line(meminfo, "MemTotal:"), 241_404);
        assert_eq!(memory_line(meminfo, "MemAvailable:"), 200_000);
        assert_eq!(cpu_ticks("cpu  10 2 30 400 5 6 7 0 0 0\ncpu0 1 1 1"), (12, 43));
        assert_eq!(load("0.25 0.10 0.05 1/50 77\n"), 250);
        assert_eq!(load("12.07 1 1"), 12_070);
        let dev = "Inter-| Receive | Transmit\n face |bytes\n    lo: 5 0 0 0 0 0 0 0 5 0\n  eth0: 70 1 0 0 0 0 0 0 90 1 0\n";
        assert_eq!(network_bytes(dev), (70, 90));
    }

    #[test]
    fn files_that_say_nothing_measure_nothing() {
        assert_eq!(
            (memory_line("", "x"), cpu_ticks(""), load(""), network_bytes("")),
            (0, (0, 0), 0, (0, 0))
        );
    }
}
