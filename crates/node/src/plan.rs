//! A manifest and what this machine can do become an exact plan.
//!
//! [`Plan::decide`] is pure: what it is told is all that it knows, so that every refusal can be tested without a machine.
//! A plan can be printed as it is; [`Plan::assignment`] turns it into what a keeper is told.

mod error;
mod process;
mod show;

use std::path::{Path, PathBuf};

use hac::Manifest;
use hac::model::{Accel, Isolation, Level, NetworkType, Provider};
use hypercore::driver::{Accelerator, Disk, Mac, Machine, Network};
use hypercore::passt::{NetworkPlan, Protocol, Publish};
use serde::Serialize;
use spacecore::wire;
use spacecore::wire::message::{
    Configuration, LayerDisk, Mount, MountSource, Process, Root, TerminalSize, Upper, Verity,
};

use crate::keeper::assignment::{self, Assignment, FolderShare, Lifetime, Patience, ScratchDisk};
pub use error::PlanError;
pub use process::signal_number;

/// The largest packet between guest and network helper, in bytes.
const MTU: u16 = 65520;

/// The hardware address of every guest: each has a wire of its own, on which nobody else is.
const MAC: Mac = Mac([0x52, 0x54, 0x00, 0x76, 0x69, 0x6d]);

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The manifest, with what the command line changes in it already applied.
    pub manifest: Manifest,
    /// Ports to publish; for a guest port they replace what the manifest says of it.
    pub publish: Vec<Publish>,
    /// Folders and files of the host to mount, beside those of the manifest.
    pub shares: Vec<Share>,
    /// Whether the workload gets this side's standard input.
    pub stdin: bool,
    /// The size of the terminal that the workload gets.
    pub terminal: Option<TerminalSize>,
    /// Whether the guest holds its layers to their Merkle roots also where that isn't the default.
    pub verity: bool,
}

/// A folder or file of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Where it is on the host: an absolute path.
    pub source: PathBuf,
    /// Where the workload finds it: an absolute path.
    pub destination: String,
    /// Whether the workload can't write to it.
    pub readonly: bool,
    /// Whether it is a single file.
    pub file: bool,
}

/// What is known of machine, image and kernel.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The image's parts that matter here.
    pub image: ImageFacts,
    /// The guest kernel.
    pub kernel: KernelFacts,
    /// Why KVM doesn't work here; `None` where it does.
    pub kvm_missing: Option<String>,
    /// CPUs of this machine.
    pub cpus: u32,
    /// Memory of this machine in bytes.
    pub memory: u64,
}

/// What a plan needs to know of an image.
#[derive(Debug, Clone, Default)]
pub struct ImageFacts {
    /// Its name.
    pub reference: String,
    /// Its manifest's digest.
    pub digest: String,
    /// How to run it.
    pub config: image::ImageConfig,
    /// Its file systems, lowest first.
    pub layers: Vec<Layer>,
}

/// One read-only file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Its file.
    pub path: PathBuf,
    /// The digest of the layer that it was made from.
    pub digest: String,
    /// The size of the file in bytes, hash tree included.
    pub bytes: u64,
    /// The root of its Merkle tree, in hexadecimal digits.
    pub verity_root: String,
    /// Blocks of 4096 bytes that the tree covers; it starts at the block after them.
    pub data_blocks: u64,
    /// The block at which the tree starts.
    pub hash_start: u64,
}

/// What a plan needs to know of a guest kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KernelFacts {
    /// Its release, as `uname -r` says.
    pub release: String,
    /// The digest over image and modules.
    pub digest: String,
    /// Its image.
    pub path: PathBuf,
}

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
    /// Decides what will run.
    ///
    /// # Errors
    /// The manifest can't be fulfilled on this machine; the error says what would run instead, or what is missing.
    pub fn decide(request: &Request, facts: &Facts) -> Result<Self, PlanError> {
        let spec = &request.manifest.spec;
        check_isolation(&request.manifest)?;
        let accelerator = choose_accelerator(&request.manifest, facts)?;
        let mut notices = Vec::new();
        if accelerator == Accelerator::Tcg {
            let why = facts
                .kvm_missing
                .as_deref()
                .unwrap_or("accel = \"tcg\" was asked for");
            notices.push(format!(
                "QEMU's emulator (TCG) executes the guest, because {why}; its authors don't promise isolation for it as they do for KVM"
            ));
        }
        notices.extend(not_yet(&request.manifest));

        let vcpus = spec.resources.cpu.0.div_ceil(1000).max(1);
        if vcpus > facts.cpus {
            notices.push(format!(
                "{vcpus} virtual CPUs share the {} of this machine",
                facts.cpus
            ));
        }
        let memory = spec.resources.memory.as_u64();
        if memory > facts.memory {
            return Err(PlanError::Memory {
                wanted: memory,
                there: facts.memory,
            });
        }
        if facts.image.layers.is_empty() {
            return Err(PlanError::EmptyImage {
                image: facts.image.reference.clone(),
            });
        }
        let mounts = mounts(request)?;
        let publish = publish(request)?;
        let network = spec.networking.network_type != NetworkType::None;
        if !network && !publish.is_empty() {
            return Err(PlanError::PortsWithoutNetwork);
        }
        let mut plan = Self {
            name: request.manifest.metadata.name.clone(),
            isolation: spec.virtualization.isolation,
            driver: "qemu",
            accelerator,
            vcpus,
            memory_mib: memory.div_ceil(1024 * 1024),
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
        if let Some(bytes) = plan.scratch_bytes {
            use hypercore::scratch::{MAX_BYTES, MIN_BYTES};
            if !(MIN_BYTES..=MAX_BYTES).contains(&bytes) {
                return Err(PlanError::Storage {
                    bytes,
                    least: MIN_BYTES,
                    most: MAX_BYTES,
                });
            }
        }
        plan.modules = plan.needed_modules();
        Ok(plan)
    }

    fn needed_modules(&self) -> Vec<&'static str> {
        let base = [
            "virtio_pci",
            "virtio_console",
            "squashfs",
            "overlay",
            "virtio_blk",
        ]
        .map(|name| (true, name));
        let more = [
            (self.verity, "dm-verity"),
            (self.scratch_bytes.is_some(), "ext4"),
            (!self.shares.is_empty(), "fuse"),
            (self.network, "virtio_net"),
        ];
        base.into_iter()
            .chain(more)
            .filter(|(needed, _)| *needed)
            .map(|(_, name)| name)
            .collect()
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
            accelerator: self.accelerator,
            kernel: self.kernel.path.clone(),
            initramfs: initramfs.to_owned(),
            command_line: Vec::new(),
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            disks,
            network: self.network.then_some(Network { mac: MAC, mtu: MTU }),
            console: false,
        }
    }

    /// What a keeper is told.
    pub fn assignment(&self, id: &str, run: &Path, initramfs: &Path, lifetime: Lifetime) -> Assignment {
        let run_folder = run.join(id);
        let scratch = self.scratch_bytes.map(|bytes| ScratchDisk {
            path: scratch_path(&run_folder),
            bytes,
        });
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
            network: self.network.then(|| NetworkPlan {
                published: self.publish.clone(),
            }),
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
            Some(_) => Upper::Disk {
                serial: SCRATCH_SERIAL.to_owned(),
            },
            None => Upper::Memory {
                bytes: self.memory_mib * 1024 * 1024 / 2,
            },
        };
        let folders = self.shares.iter().enumerate().map(|(index, share)| Mount {
            source: MountSource::Folder {
                stream: stream(index),
                file: share.file,
            },
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
            root: Root {
                layers: self.layers.iter().enumerate().map(layer).collect(),
                upper,
                readonly: false,
            },
            mounts,
            network: None,
            process: self.process.clone(),
        }
    }
}

const SCRATCH_SERIAL: &str = "scratch";

fn layer_serial(index: usize) -> String {
    format!("layer{index}")
}

fn scratch_path(run_folder: &Path) -> PathBuf {
    run_folder.join("scratch.img")
}

/// Isolations that aren't there yet are refused; none is replaced by another.
fn check_isolation(manifest: &Manifest) -> Result<(), PlanError> {
    let virtualization = &manifest.spec.virtualization;
    match virtualization.isolation {
        Isolation::MicroVM => {}
        other @ (Isolation::Unikernel | Isolation::Container | Isolation::Wasm | Isolation::TEE) => {
            return Err(PlanError::IsolationNotYet { isolation: other });
        }
    }
    match virtualization.provider {
        Some(provider @ (Provider::Firecracker | Provider::CloudHypervisor | Provider::Kata)) => {
            Err(PlanError::ProviderNotYet { provider })
        }
        _ => Ok(()),
    }
}

fn choose_accelerator(manifest: &Manifest, facts: &Facts) -> Result<Accelerator, PlanError> {
    let virtualization = &manifest.spec.virtualization;
    let high = virtualization.criteria.security == Level::High;
    let kvm_provider = virtualization.provider.filter(|provider| provider.needs_kvm());
    let wanted = match (virtualization.accel, kvm_provider) {
        (Accel::Tcg, Some(provider)) => return Err(PlanError::ProviderAgainstTcg { provider }),
        (Accel::Tcg, None) => Accelerator::Tcg,
        (Accel::Kvm, _) | (Accel::Auto, Some(_)) => Accelerator::Kvm,
        (Accel::Auto, None) if facts.kvm_missing.is_none() => Accelerator::Kvm,
        (Accel::Auto, None) => Accelerator::Tcg,
    };
    if high && wanted == Accelerator::Tcg {
        return Err(PlanError::HighSecurityNeedsKvm {
            why: facts.kvm_missing.clone(),
        });
    }
    match (&facts.kvm_missing, wanted) {
        (Some(why), Accelerator::Kvm) => {
            let provider = kvm_provider.map(|provider| provider.to_string());
            Err(PlanError::NoKvm {
                why: why.clone(),
                provider,
                high,
            })
        }
        // What high security promises beyond KVM isn't there yet, and nobody shall believe that it is.
        (None, Accelerator::Kvm) if high => Err(PlanError::HighSecurityNotYet),
        _ => Ok(wanted),
    }
}

struct Mounts {
    shares: Vec<Share>,
    memory: Vec<(String, u64)>,
}

fn mounts(request: &Request) -> Result<Mounts, PlanError> {
    let mut memory = Vec::new();
    for mount in &request.manifest.spec.mounts {
        match &mount.source {
            // Those were resolved to paths of this host, and are among the request's shares.
            Some(_) if mount.is_host_folder() => {}
            Some(volume) => {
                return Err(PlanError::VolumeNotYet {
                    volume: volume.clone(),
                });
            }
            None => {
                let half = request.manifest.spec.resources.memory.as_u64() / 2;
                memory.push((
                    mount.destination.clone(),
                    mount.size.map_or(half, |size| size.as_u64()),
                ));
            }
        }
    }
    let shares = request.shares.clone();
    if shares.len() > usize::from(wire::MAX_FOLDERS) {
        return Err(PlanError::TooManyFolders {
            count: shares.len(),
            most: wire::MAX_FOLDERS,
        });
    }
    let mut seen = std::collections::BTreeSet::new();
    for destination in shares
        .iter()
        .map(|share| &share.destination)
        .chain(memory.iter().map(|(path, _)| path))
    {
        let normal = destination.trim_end_matches('/');
        if !destination.starts_with('/')
            || normal.is_empty()
            || destination.split('/').any(|part| part == "..")
        {
            return Err(PlanError::Destination {
                destination: destination.clone(),
            });
        }
        if !seen.insert(normal) {
            return Err(PlanError::DestinationTwice {
                destination: destination.clone(),
            });
        }
    }
    Ok(Mounts { shares, memory })
}

fn publish(request: &Request) -> Result<Vec<Publish>, PlanError> {
    let named = request.manifest.spec.networking.inbound_ports.values().copied();
    let overridden = |port: u16| {
        request
            .publish
            .iter()
            .any(|p| p.guest == port && p.protocol == Protocol::Tcp)
    };
    let mut all: Vec<Publish> = named
        .filter(|port| !overridden(*port))
        .map(|port| Publish {
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            host: port,
            guest: port,
            protocol: Protocol::Tcp,
        })
        .collect();
    all.extend(request.publish.iter().cloned());
    for (index, one) in all.iter().enumerate() {
        let same = |other: &Publish| {
            other.host == one.host && other.protocol == one.protocol && other.address == one.address
        };
        if one.host != 0 && all[..index].iter().any(same) {
            return Err(PlanError::PortTwice { port: one.host });
        }
    }
    Ok(all)
}

/// What the manifest asks for and a foreground run doesn't do yet.
fn not_yet(manifest: &Manifest) -> Vec<String> {
    let spec = &manifest.spec;
    let network = &spec.networking;
    let limited = network.bandwidth_limit.is_some() || network.ingress.is_some() || network.egress.is_some();
    let defaults = hac::model::Spec::default();
    let asked = [
        (
            spec.deployment.replicas > 1,
            "replicas: one runs in the foreground",
        ),
        (!spec.checks.is_empty(), "checks"),
        (spec.scaling.is_some(), "scaling"),
        (spec.restart != defaults.restart, "restart"),
        (!spec.sidecars.is_empty(), "sidecars"),
        (limited, "network rate limits"),
        (
            spec.resources.iops.is_some() || spec.resources.disk_bandwidth.is_some(),
            "disk rate limits",
        ),
        (
            spec.resources.gpu > 0 || !spec.resources.accelerators.is_empty(),
            "GPUs and accelerators",
        ),
        (spec.resources.cpu_pinning, "CPU pinning"),
        (
            !spec.resources.cpu.0.is_multiple_of(1000),
            "fractions of a CPU: whole virtual CPUs are given",
        ),
        (!spec.conditions.is_empty(), "conditions"),
    ];
    let mut notices: Vec<String> = asked
        .into_iter()
        .filter(|(asked, _)| *asked)
        .map(|(_, what)| format!("the manifest asks for something that `vimana run` doesn't do yet: {what}"))
        .collect();
    notices.push("no jail is around the virtual machine yet, and no egress policy on its network".to_owned());
    notices
}

#[cfg(test)]
mod tests;
