//! How much memory an instance takes: proportional set sizes, over the started process and all below it.

use std::collections::BTreeMap;
use std::fs;

/// What the processes of an instance take, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// All of it.
    pub whole: u64,
    /// Without the workload's process, and without a guest's memory.
    pub beyond: u64,
}

/// Adds up what a process and all below it take. `guest_bytes` is the size of a virtual machine's memory, by which its
/// mapping is recognised; `workload` the name of the workload's program.
pub fn of(pid: u32, guest_bytes: u64, workload: &str) -> Taken {
    let mut taken = Taken::default();
    for pid in family(pid) {
        // A process that has ended since takes nothing.
        let Ok(smaps) = fs::read_to_string(format!("/proc/{pid}/smaps")) else { continue };
        let (whole, guest) = sizes(&smaps, guest_bytes);
        taken.whole = taken.whole.saturating_add(whole);
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim_end() != workload {
            taken.beyond = taken.beyond.saturating_add(whole.saturating_sub(guest));
        }
    }
    taken
}

/// The proportional set size of all mappings, and of those that are a guest's memory, in bytes.
fn sizes(smaps: &str, guest_bytes: u64) -> (u64, u64) {
    let (mut whole, mut guest, mut size) = (0u64, 0u64, 0u64);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (name, number) = (words.next(), words.next());
        let Some(bytes) = number.and_then(|n| n.parse::<u64>().ok()).map(|n| n.saturating_mul(1024)) else {
            continue;
        };
        match name {
            Some("Size:") => size = bytes,
            Some("Pss:") => {
                whole = whole.saturating_add(bytes);
                if size == guest_bytes {
                    guest = guest.saturating_add(bytes);
                }
            }
            Some(_) | None => {}
        }
    }
    (whole, guest)
}

/// A process and all that descend from it.
fn family(first: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name in brackets may hold anything; the parent is the second word behind it.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![first];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_s_memory_is_known_by_its_size() {
        let smaps = "55e0-55f0 r--p 0 08:01 1 /bin/x\nSize: 64 kB\nRss: 60 kB\nPss: 30 kB\nPss_Dirty: 8 kB\n\
                     7f00-7f80 rw-p 0 00:00 0 \nSize: 131072 kB\nPss: 20480 kB\nSwapPss: 0 kB\n";
        assert_eq!(sizes(smaps, 128 << 20), ((30 + 20480) << 10, 20480 << 10));
        assert_eq!(sizes(smaps, 0).1, 0);
    }

    #[test]
    fn the_workload_s_own_memory_is_not_beyond_it() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let named =
            || fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap_or_default() == "sleep\n";
        while !named() {
            std::thread::yield_now();
        }
        let (workload, other) = (of(child.id(), 0, "sleep"), of(child.id(), 0, "another"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(workload.whole > 0 && workload.beyond == 0);
        assert!(other.beyond > 0);
    }
}
