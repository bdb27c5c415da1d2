//! Making a group, limiting it, and putting a process into it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Group, ROOT};
use crate::driver::Class;

/// The period over which processor time is shared out, in microseconds.
pub(crate) const PERIOD_US: u64 = 100_000;
/// The least share of it that the kernel takes, in microseconds.
const LEAST_QUOTA_US: u64 = 1000;

/// The weight of a whole processor on version 1, where a process that belongs to nobody's group has this too, and the bounds.
const SHARES: u64 = 1024;
const SHARES_RANGE: std::ops::RangeInclusive<u64> = 2..=262_144;
/// The same on version 2.
const WEIGHT: u64 = 100;
const WEIGHT_RANGE: std::ops::RangeInclusive<u64> = 1..=10_000;
/// How many times as heavy a guaranteed processor is as one that is shared: on a processor where seven others want all of it, who has it
/// guaranteed keeps nine tenths.
const GUARANTEED: u64 = 64;

/// What the processes of a group may take together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Limits {
    /// Processor time in thousandths of a CPU, at least 1.
    pub cpu_milli: u32,
    /// Memory in bytes, without swap: what they have allocated, and what the kernel keeps for them of files, which it gives
    /// up first.
    pub memory_bytes: u64,
    /// Processes and threads at a time.
    pub threads: u64,
    /// How firmly they have processors and memory.
    pub class: Class,
}

/// How heavy so many thousandths of a CPU are beside what others have, on version 1.
pub(crate) fn shares(cpu_milli: u32, class: Class) -> u64 {
    weighed(SHARES, cpu_milli, class).clamp(*SHARES_RANGE.start(), *SHARES_RANGE.end())
}

/// The same on version 2.
fn weight(cpu_milli: u32, class: Class) -> u64 {
    weighed(WEIGHT, cpu_milli, class).clamp(*WEIGHT_RANGE.start(), *WEIGHT_RANGE.end())
}

fn weighed(unit: u64, cpu_milli: u32, class: Class) -> u64 {
    let times = match class {
        Class::Guaranteed => GUARANTEED,
        Class::Burstable => 1,
    };
    u64::from(cpu_milli).saturating_mul(unit).saturating_mul(times) / 1000
}

/// How much of each period so many thousandths of a CPU are, in microseconds.
pub(crate) fn quota_us(cpu_milli: u32) -> u64 {
    u64::from(cpu_milli).saturating_mul(PERIOD_US / 1000).max(LEAST_QUOTA_US)
}

impl Group {
    /// Makes the group with its limits. It holds nobody yet.
    ///
    /// # Errors
    /// A folder can't be made, or the kernel refuses a limit; nothing is left then.
    pub fn make(&self, limits: &Limits) -> io::Result<()> {
        let made = match self.unified {
            true => self.make_unified(limits),
            false => self.make_in_hierarchies(limits),
        };
        made.inspect_err(|_| {
            // Why it couldn't be made matters more than what can't be cleared away.
            let _ = self.remove();
        })
    }

    fn make_unified(&self, limits: &Limits) -> io::Result<()> {
        if self.parent == Path::new(ROOT) {
            write(&self.parent.join("cgroup.subtree_control"), "+cpu +memory +pids")?;
        }
        let folder = self.parent.join(&self.name);
        make(&folder)?;
        let set = |name: &str, value: String| write(&folder.join(name), &value);
        set("memory.max", limits.memory_bytes.to_string())?;
        optional(set("memory.swap.max", "0".to_owned()))?;
        optional(set("memory.oom.group", "1".to_owned()))?;
        if limits.class == Class::Guaranteed {
            // Never taken back for others. A kernel before 4.18 doesn't know it.
            optional(set("memory.min", limits.memory_bytes.to_string()))?;
        }
        set("cpu.weight", weight(limits.cpu_milli, limits.class).to_string())?;
        set("cpu.max", format!("{} {PERIOD_US}", quota_us(limits.cpu_milli)))?;
        set("pids.max", limits.threads.to_string())
    }

    fn make_in_hierarchies(&self, limits: &Limits) -> io::Result<()> {
        for folder in self.hierarchies() {
            make(&folder)?;
        }
        let set = |controller: &str, name: &str, value: String| {
            write(&Path::new(ROOT).join(controller).join(&self.name).join(name), &value)
        };
        let memory = limits.memory_bytes.min(i64::MAX.unsigned_abs()).to_string();
        set("memory", "memory.limit_in_bytes", memory.clone())?;
        // The same with swap as without, so that there is none. A kernel may not count swap.
        optional(set("memory", "memory.memsw.limit_in_bytes", memory))?;
        set("cpu", "cpu.shares", shares(limits.cpu_milli, limits.class).to_string())?;
        set("cpu", "cpu.cfs_period_us", PERIOD_US.to_string())?;
        set("cpu", "cpu.cfs_quota_us", quota_us(limits.cpu_milli).to_string())?;
        set("pids", "pids.max", limits.threads.to_string())
    }

    /// The folders that it is given on version 1.
    fn hierarchies(&self) -> impl Iterator<Item = PathBuf> {
        ["memory", "cpu", "pids"]
            .into_iter()
            .map(|controller| Path::new(ROOT).join(controller).join(&self.name))
    }

    /// Puts a process into it, with all its threads.
    ///
    /// # Errors
    /// There is no such group or process.
    pub fn put(&self, pid: i32) -> io::Result<()> {
        let pid = pid.to_string();
        match self.unified {
            true => write(&self.parent.join(&self.name).join("cgroup.procs"), &pid),
            false => self.hierarchies().try_for_each(|folder| write(&folder.join("cgroup.procs"), &pid)),
        }
    }

    /// How many of its processes the kernel has ended because they took more than its memory; 0 where that can't be read.
    pub fn killed_for_memory(&self) -> u64 {
        let events = self.file("memory.events", "memory", "memory.oom_control");
        let events = fs::read_to_string(events).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        count.unwrap_or(0)
    }
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        // Two controllers may be mounted together.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(named(folder, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    // Not to be made where it doesn't exist.
    let opened = fs::OpenOptions::new().write(true).open(file);
    let written = opened.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|error| named(file, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// What an older kernel doesn't have isn't missed.
fn optional(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_guaranteed_outweighs_what_is_shared_and_all_stays_within_what_the_kernel_takes() {
        for cpu_milli in [100, 1000, 1500] {
            assert!(shares(cpu_milli, Class::Guaranteed) >= 60 * shares(cpu_milli, Class::Burstable));
            assert!(weight(cpu_milli, Class::Guaranteed) >= 60 * weight(cpu_milli, Class::Burstable));
        }
        assert_eq!((shares(1000, Class::Burstable), weight(1000, Class::Burstable)), (1024, 100));
        assert_eq!((shares(1000, Class::Guaranteed), weight(1000, Class::Guaranteed)), (65_536, 6400));
        assert_eq!((shares(1, Class::Burstable), weight(1, Class::Burstable)), (2, 1));
        assert_eq!(
            (shares(u32::MAX, Class::Guaranteed), weight(u32::MAX, Class::Burstable)),
            (262_144, 10_000)
        );
    }
}
