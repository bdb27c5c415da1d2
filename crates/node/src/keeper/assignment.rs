//! What a keeper is told to keep: everything is decided, nothing is left to look up.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use hypercore::driver::Machine;
use hypercore::network::NetworkPlan;
use hypercore::scratch::Owner;
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use spacecore::wire::message::Configuration;

use crate::volume::Form;

/// The version of the assignment's form.
pub const VERSION: u32 = 5;

/// The largest assignment in bytes.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Everything that a keeper needs to know. Travels as JSON in memory that only parent and keeper hold (a memfd), because
/// the environment in it may hold secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// [`VERSION`].
    pub version: u32,
    /// The spacecore's identifier: its run folder's name.
    pub id: String,
    /// The folder that is the spacecore's while it runs; the keeper removes it at the end of a bound life.
    pub run_folder: PathBuf,
    /// Whom the keeper outlives.
    pub lifetime: Lifetime,
    /// The driver's name.
    pub driver: String,
    /// The machine to start.
    pub machine: Machine,
    /// passt's plan; none where the spacecore has no network.
    pub network: Option<NetworkPlan>,
    /// What the guest will be told. Entropy, time and network addresses are filled in by the keeper.
    pub configuration: Configuration,
    /// Folders of the host that the guest may reach, by the stream that carries each.
    pub folders: Vec<FolderShare>,
    /// Named volumes, which outlive the run.
    pub volumes: Vec<VolumeUse>,
    /// Disks to make in the run folder before the machine starts.
    pub scratch: Vec<ScratchDisk>,
    /// Whether the guest must shut down in order when the workload ends, because a disk outlives the run.
    pub orderly_end: bool,
    /// How long each part may take.
    pub patience: Patience,
    /// Where the workload's output is kept. An independent keeper without it lets go of what nobody reads; a bound one keeps
    /// nothing either way.
    pub log: Option<LogPlan>,
}

/// Where a workload's output is kept, and how much of it. [`crate::log`] says what is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPlan {
    /// A folder of this log's own, outside of the run folder; made where it isn't there.
    pub folder: PathBuf,
    /// The size in bytes at which a file is set aside.
    pub file_bytes: u64,
    /// How many older files are kept beside the current one, 0 to 100.
    pub files: u32,
}

/// Whom a keeper outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lifetime {
    /// It ends when the process that started it is gone.
    Bound,
    /// It outlives the process that started it and can be adopted.
    Independent,
}

/// A folder or file of the host that the guest may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderShare {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Whether the guest can't write to it.
    pub readonly: bool,
    /// The stream that carries it.
    pub stream: u16,
}

/// A named volume, and how it is used. [`crate::volume`] says what is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeUse {
    /// The volume's folder.
    pub folder: PathBuf,
    /// Its name, for people.
    pub name: String,
    /// In what form the spacecore uses it.
    pub form: Form,
    /// Its size in bytes, where one is asked for.
    pub bytes: Option<u64>,
    /// Whether it is only read.
    pub readonly: bool,
    /// Whether it is encrypted; the key is in the configuration.
    pub encrypted: bool,
    /// Who owns its root folder, if it is made for this use; root where nothing is said.
    pub owner: Option<Owner>,
}

/// A writable disk that lives as long as the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScratchDisk {
    /// Its file, inside the run folder.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

/// How long each part may take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patience {
    /// From the VMM's start to the guest's first message.
    pub boot_ms: u64,
    /// From the configuration's sending to the workload's start.
    pub configure_ms: u64,
    /// From the order to shut down to the machine's end, beyond the workload's own grace.
    pub shutdown_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { boot_ms: 60_000, configure_ms: 60_000, shutdown_ms: 10_000 }
    }
}

impl Assignment {
    /// Writes the assignment into memory that a keeper can inherit.
    ///
    /// # Errors
    /// No memory or no descriptor is left.
    pub fn to_memfd(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(memfd_create("vimana-assignment", MemfdFlags::CLOEXEC)?);
        file.write_all(&serde_json::to_vec(self)?)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file.into())
    }

    /// Reads what [`Assignment::to_memfd`] wrote.
    ///
    /// # Errors
    /// The bytes aren't an assignment of this version.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::from(fd).take(MAX_BYTES).read_to_end(&mut bytes)?;
        let assignment: Self = serde_json::from_slice(&bytes)?;
        if assignment.version == VERSION {
            Ok(assignment)
        } else {
            let found = assignment.version;
            Err(io::Error::other(format!(
                "the assignment has version {found}; this keeper reads version {VERSION}"
            )))
        }
    }
}
