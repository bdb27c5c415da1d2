//! A manifest and what this machine can do become an exact plan.
//!
//! [`Plan::decide`] is pure: what it is told is all that it knows, so that every refusal can be tested without a machine.
//! A plan can be printed as it is; [`Plan::assignment`] turns it into what a keeper is told.

mod checks;
mod error;
mod process;
mod request;
mod show;

use std::path::{Path, PathBuf};

use hac::model::Isolation;
use hypercore::driver::{Accelerator, Body, Disk, Machine, Network, Virtual};
use hypercore::passt::{self, NetworkPlan, Publish};
use serde::Serialize;
use spacecore::wire;
use spacecore::wire::message::{Configuration, LayerDisk, Mount, MountSource, Process, Root, Upper, Verity};

use checks::Hardware;

use crate::keeper::assignment::{self, Assignment, FolderShare, Lifetime, Patience, ScratchDisk};
pub use error::PlanError;
pub use process::signal_number;
pub use request::{Facts, ImageFacts, KernelFacts, Layer, MachineFacts, Request, Share};

/// Exactly what will run.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The spacecore's name.
    pub name: String,
    /// The isolation that was asked for.
    pub isolation: Isolation,
    /// The driver that provides it.
    pub driver: &'static str,
    /// What executes the guest's instructions.
    pub accelerator: Accelerator,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The image's name.
    pub image: String,
    /// The image's digest.
    pub image_digest: String,
    /// The read-only file systems, lowest first.
    pub layers: Vec<Layer>,
    /// Whether the guest holds the layers to their Merkle roots.
    pub verity: bool,
    /// The writable disk in bytes; none where writes go to memory.
    pub scratch_bytes: Option<u64>,
    /// The guest kernel.
    pub kernel: KernelFacts,
    /// Modules that the guest loads, without those that they need in turn.
    pub modules: Vec<&'static str>,
    /// Published ports.
    pub publish: Vec<Publish>,
    /// Whether there is a network at all.
    pub network: bool,
    /// Folders and files of the host.
    pub shares: Vec<Share>,
    /// Empty folders in memory: destination and size in bytes.
    pub memory_mounts: Vec<(String, u64)>,
    /// The workload.
    #[serde(serialize_with = "show::process")]
    pub process: Process,
    /// What a person should know before trusting this.
    pub notices: Vec<String>,
}

impl Plan {
    /// Decides all that neither image nor kernel matter for, so that a refusal needs neither of them to be fetched.
    ///
    /// # Errors
    /// The manifest can't be fulfilled on this machine; the error says what would run instead, or what is missing.
    pub fn check(request: &Request, machine: &MachineFacts) -> Result<(), PlanError> {
        Hardware::decide(request, machine).map(drop)
    }

    /// Decides what will run.
    ///
    /// # Errors
    /// As [`Plan::check`]; or the image can't be run.
    pub fn decide(request: &Request, facts: &Facts) -> Result<Self, PlanError> {
        let spec = &request.manifest.spec;
        let Hardware { accelerator, vcpus, mounts, publish, network, notices } =
            Hardware::decide(request, &facts.machine)?;
        if facts.image.layers.is_empty() {
            return Err(PlanError::EmptyImage { image: facts.image.reference.clone() });
        }
        let mut plan = Self {
            name: request.manifest.metadata.name.clone(),
            isolation: spec.virtualization.isolation,
            driver: "qemu",
            accelerator,
            vcpus,
            memory_mib: spec.resources.memory.as_mib_ceil(),
            image: facts.image.reference.clone(),
            image_digest: facts.image.digest.clone(),
            layers: facts.image.layers.clone(),
            verity: request.verity || accelerator == Accelerator::Kvm,
            scratch_bytes: spec.resources.storage.map(|bytes| bytes.as_u64()),
            kernel: facts.kernel.clone(),
            modules: Vec::new(),
            publish,
            network,
            shares: mounts.shares,
            memory_mounts: mounts.memory,
            process: process::workload(request, &facts.image)?,
            notices,
        };
        plan.modules = plan.needed_modules();
        let bytes = serde_json::to_vec(&plan.configuration(|_| wire::FIRST_FOLDER))
            .map_or(usize::MAX, |json| json.len());
        if bytes > MAX_CONFIGURATION {
            return Err(PlanError::TooLong { bytes, most: MAX_CONFIGURATION });
        }
        Ok(plan)
    }

    fn needed_modules(&self) -> Vec<&'static str> {
        let base =
            ["virtio_pci", "virtio_console", "squashfs", "overlay", "virtio_blk"].map(|name| (true, name));
        let more = [
            (self.verity, "dm-verity"),
            (self.scratch_bytes.is_some(), "ext4"),
            (!self.shares.is_empty(), "fuse"),
            (self.network, "virtio_net"),
        ];
        base.into_iter().chain(more).filter(|(needed, _)| *needed).map(|(_, name)| name).collect()
    }

    /// The machine that the driver is asked for.
    pub fn machine(&self, id: &str, initramfs: &Path, run_folder: &Path) -> Machine {
        let layer = |(index, layer): (usize, &Layer)| Disk {
            path: layer.path.clone(),
            readonly: true,
            serial: layer_serial(index),
        };
        let mut disks: Vec<Disk> = self.layers.iter().enumerate().map(layer).collect();
        if self.scratch_bytes.is_some() {
            disks.push(Disk {
                path: scratch_path(run_folder),
                readonly: false,
                serial: SCRATCH_SERIAL.to_owned(),
            });
        }
        Machine {
            name: id.to_owned(),
            cpu_milli: self.vcpus.saturating_mul(1000),
            memory_mib: self.memory_mib,
            network: self.network.then_some(Network { mac: passt::MAC, mtu: passt::MTU }),
            body: Body::Virtual(Virtual {
                accelerator: self.accelerator,
                kernel: self.kernel.path.clone(),
                initramfs: initramfs.to_owned(),
                command_line: Vec::new(),
                disks,
                console: false,
            }),
        }
    }

    /// What a keeper is told.
    pub fn assignment(&self, id: &str, run: &Path, initramfs: &Path, lifetime: Lifetime) -> Assignment {
        let run_folder = run.join(id);
        let scratch = self.scratch_bytes.map(|bytes| ScratchDisk { path: scratch_path(&run_folder), bytes });
        let stream =
            |index: usize| wire::FIRST_FOLDER.saturating_add(u16::try_from(index).unwrap_or(u16::MAX));
        let share = |(index, share): (usize, &Share)| FolderShare {
            source: share.source.clone(),
            readonly: share.readonly,
            stream: stream(index),
        };
        Assignment {
            version: assignment::VERSION,
            id: id.to_owned(),
            machine: self.machine(id, initramfs, &run_folder),
            network: self.network.then(|| NetworkPlan { published: self.publish.clone() }),
            configuration: self.configuration(stream),
            folders: self.shares.iter().enumerate().map(share).collect(),
            scratch: scratch.into_iter().collect(),
            orderly_end: false,
            patience: Patience::default(),
            driver: self.driver.to_owned(),
            lifetime,
            run_folder,
        }
    }

    fn configuration(&self, stream: impl Fn(usize) -> u16) -> Configuration {
        let layer = |(index, layer): (usize, &Layer)| LayerDisk {
            serial: layer_serial(index),
            verity: self.verity.then(|| Verity {
                root: layer.verity_root.clone(),
                data_blocks: layer.data_blocks,
                hash_start: layer.hash_start,
            }),
        };
        let upper = match self.scratch_bytes {
            Some(_) => Upper::Disk { serial: SCRATCH_SERIAL.to_owned() },
            None => Upper::Memory { bytes: self.memory_mib * 1024 * 1024 / 2 },
        };
        let folders = self.shares.iter().enumerate().map(|(index, share)| Mount {
            source: MountSource::Folder { stream: stream(index), file: share.file },
            destination: share.destination.clone(),
            readonly: share.readonly,
        });
        let memory = self.memory_mounts.iter().map(|(destination, bytes)| Mount {
            source: MountSource::Memory { bytes: *bytes },
            destination: destination.clone(),
            readonly: false,
        });
        let mut mounts: Vec<Mount> = folders.chain(memory).collect();
        // A mount below another one comes after it.
        mounts.sort_by_key(|mount| mount.destination.matches('/').count());
        Configuration {
            version: wire::VERSION,
            hostname: self.name.clone(),
            unix_time_ns: 0,
            entropy: String::new(),
            root: Some(Root {
                layers: self.layers.iter().enumerate().map(layer).collect(),
                upper,
                readonly: false,
            }),
            mounts,
            network: None,
            process: self.process.clone(),
        }
    }
}

/// The largest configuration that fits into one message to the guest, with room for what the keeper adds.
const MAX_CONFIGURATION: usize = 1024 * 1024 - 16 * 1024;

const SCRATCH_SERIAL: &str = "scratch";

fn layer_serial(index: usize) -> String {
    format!("layer{index}")
}

fn scratch_path(run_folder: &Path) -> PathBuf {
    run_folder.join("scratch.img")
}

#[cfg(test)]
mod tests;
