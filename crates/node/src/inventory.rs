//! What this machine has: processors, memory, disk, network interfaces, accelerators, and what vouches for it.
//!
//! Everything is read from `/proc` and `/sys` below a root that can be another than `/`, in some milliseconds, without changing
//! anything. What isn't there, or isn't as the kernel writes it, is left out: an inventory is always given.
//!
//! Source: the kernel's Documentation/ABI/{stable,testing}/sysfs-*, Documentation/filesystems/proc.rst; the PCI Code and ID Assignment
//! Specification for classes.

mod devices;
mod processors;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use devices::{Accelerator, AcceleratorKind, Confidential, Interface};
pub use processors::{NumaNode, Processors};

/// The largest file that is read, in bytes: `/proc/cpuinfo` of the largest machines has some hundred thousand.
const FILE_MAX: u64 = 4 << 20;
/// The most entries of a folder that are looked at.
const ENTRIES_MAX: usize = 4096;
/// The most characters of a word that is taken over.
const WORD_MAX: usize = 128;

/// What a machine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Inventory {
    /// Its processors.
    pub processors: Processors,
    /// Its memory.
    pub memory: Memory,
    /// The file system in which the node's home lies.
    pub disk: Disk,
    /// Its network interfaces but the loopback; those of hardware first.
    pub interfaces: Vec<Interface>,
    /// Its GPUs and other accelerators.
    pub accelerators: Vec<Accelerator>,
    /// The TPM's version, such as `2`, if there is one.
    pub tpm: Option<String>,
    /// What can hide a guest's memory from this machine.
    pub confidential: Confidential,
}

/// A machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    /// All of it in bytes, less what the kernel keeps for itself.
    pub total: u64,
    /// What could be taken without swapping, in bytes.
    pub available: u64,
    /// The size of a huge page in bytes; 0 where there are none.
    pub huge_page: u64,
    /// How many huge pages are set aside.
    pub huge_pages: u64,
}

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Disk {
    /// Its size in bytes.
    pub total: u64,
    /// What of it this node's user can still write, in bytes.
    pub free: u64,
}

/// Where a machine shows what it has.
pub(crate) struct Tree {
    root: PathBuf,
}

impl Inventory {
    /// Reads this machine's, for a node whose home lies there.
    pub fn of_this_machine(home: &Path) -> Self {
        let uname = rustix::system::uname();
        Self::read(Path::new("/"), &uname.machine().to_string_lossy(), disk(home))
    }

    /// Reads the inventory that a tree of files shows. `machine` is what the kernel calls the architecture.
    pub fn read(root: &Path, machine: &str, disk: Disk) -> Self {
        let tree = Tree { root: root.to_owned() };
        let processors = Processors::read(&tree, machine);
        let confidential = Confidential::read(&tree, &processors.flags);
        Self {
            processors,
            memory: Memory::read(&tree),
            disk,
            interfaces: devices::interfaces(&tree),
            accelerators: devices::accelerators(&tree),
            tpm: tree.word("sys/class/tpm/tpm0/tpm_version_major"),
            confidential,
        }
    }
}

/// The file system of a folder, or of the nearest one above that is there.
fn disk(folder: &Path) -> Disk {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let Ok(found) = rustix::fs::statvfs(there) else { return Disk::default() };
    Disk {
        total: found.f_blocks.saturating_mul(found.f_frsize),
        free: found.f_bavail.saturating_mul(found.f_frsize),
    }
}

impl Memory {
    fn read(tree: &Tree) -> Self {
        let text = tree.text("proc/meminfo").unwrap_or_default();
        let number = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        let kib = |key| number(key).saturating_mul(1024);
        Self {
            total: kib("MemTotal"),
            available: kib("MemAvailable"),
            huge_page: kib("Hugepagesize"),
            huge_pages: number("HugePages_Total"),
        }
    }
}

impl Tree {
    /// A file's text, if it is there and of sound size.
    fn text(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        // Some files can only be read in part, which is better than not at all.
        let _ = File::open(self.root.join(path)).ok()?.take(FILE_MAX).read_to_end(&mut bytes);
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file's one word or line, fit to be shown.
    fn word(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let word = hac::text::printable(text.trim(), WORD_MAX);
        (!word.is_empty()).then_some(word)
    }

    /// A file's number: decimal, or hexadecimal after `0x`.
    fn number(&self, path: &str) -> Option<u64> {
        let word = self.word(path)?;
        match word.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => word.parse().ok(),
        }
    }

    /// Whether there is something.
    fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// The last part of where a link leads.
    fn target(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.root.join(path)).ok()?;
        Some(hac::text::printable(&target.file_name()?.to_string_lossy(), WORD_MAX))
    }

    /// The names in a folder, in order.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.take(ENTRIES_MAX).filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}
