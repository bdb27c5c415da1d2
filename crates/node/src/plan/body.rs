//! What differs by isolation: how it is decided, and what a driver and a guest are told of it.

use std::path::{Path, PathBuf};

use hac::model::Isolation;
use hypercore::driver::wasm::COMPILE_SECONDS;
use hypercore::driver::{self, Accelerator, Disk, DiskRates};
use hypercore::jail::Strength;
use serde::Serialize;
use spacecore::wire;
use spacecore::wire::message::{Configuration, LayerDisk, Mount, MountSource, Root, Upper, Verity};

use super::confinement::Confined;
use super::{
    Facts, ImageFacts, KernelFacts, Layer, Plan, PlanError, Request, SCRATCH_SERIAL, Share, Volume,
    WasmFacts, checks, folder_stream, layer_serial, scratch_path, volume_serial,
};
use crate::home::Home;
use crate::keeper::assignment::{FolderShare, Lifetime, Patience, ScratchDisk, VolumeUse};
use crate::run_folder::{CONTAINER, MACHINE};
use crate::volume::{self, Form};

/// What differs by isolation.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Body {
    /// A virtual machine.
    Virtual(Virtual),
    /// A container.
    Container(Container),
    /// A Wasm program.
    Wasm(Wasm),
}

/// A virtual machine.
#[derive(Debug, Clone, Serialize)]
pub struct Virtual {
    /// What executes the guest's instructions.
    pub accelerator: Accelerator,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// The read-only file systems, lowest first.
    pub layers: Vec<Layer>,
    /// Whether the guest holds the layers to their Merkle roots.
    pub verity: bool,
    /// How fast its disks may be read and written, all together.
    pub rates: DiskRates,
    /// The writable disk in bytes; none where writes go to memory.
    pub scratch_bytes: Option<u64>,
    /// Whether the workload can't write to its root.
    pub readonly_root: bool,
    /// The most processes and threads at a time.
    pub pids: u32,
    /// The guest kernel.
    pub kernel: KernelFacts,
    /// Modules that the guest loads, without those that they need in turn.
    pub modules: Vec<&'static str>,
    /// How far the jail around it reaches, where that was looked for.
    pub jail: Option<Strength>,
    /// Whether its monitor gets an AppArmor profile.
    pub profile: bool,
    /// Whether a control group holds its monitor to its processor time and memory.
    pub limited: bool,
}

/// A container.
#[derive(Debug, Clone, Serialize)]
pub struct Container {
    /// The read-only layers as unpacked trees, lowest first.
    pub trees: Vec<PathBuf>,
    /// The most bytes that may be written to the root; none where only this machine's disk limits it.
    pub upper_bytes: Option<u64>,
    /// Whether the workload can't write to its root.
    pub readonly_root: bool,
    /// The most processes and threads at a time.
    pub pids: u32,
    /// Whether it runs without root: its volumes are plain files then.
    pub rootless: bool,
}

/// A Wasm program.
#[derive(Debug, Clone, Serialize)]
pub struct Wasm {
    /// The module or component.
    pub module: WasmFacts,
    /// The most elements in all of its tables.
    pub table_elements: u32,
    /// Whether it runs in one keeper with the owner's other Wasm spacecores.
    pub shared_keeper: bool,
    /// Whether it runs in a process in a jail.
    pub jailed: bool,
    /// Whether a control group holds the process in the jail to its processor time and memory, where it has one of its own.
    pub limited: bool,
}

impl Wasm {
    /// What is around the process that runs it, for people.
    pub(super) fn describe_jail(&self, network: bool) -> &'static str {
        match (self.jailed, network) {
            (true, false) => {
                "a user, a root folder and namespaces of its own for all Wasm programs, a filter of system calls"
            }
            (true, true) => {
                "a user, a root folder and namespaces of its own, a filter of system calls, sockets of TCP and UDP alone"
            }
            (false, _) => "none: without root a program runs in the keeper, which is the user who starts it",
        }
    }
}

/// A body, and what a person should know of it.
pub(super) struct Decided {
    pub(super) body: Body,
    pub(super) notices: Vec<String>,
}

impl Body {
    pub(super) fn decide(
        request: &Request,
        facts: &Facts,
        network: bool,
        folders: bool,
    ) -> Result<Decided, PlanError> {
        let spec = &request.manifest.spec;
        match spec.virtualization.isolation {
            Isolation::MicroVM => Virtual::decide(request, facts, network, folders),
            Isolation::Container => Container::decide(request, facts),
            Isolation::Wasm => Wasm::decide(request, facts),
            other @ (Isolation::Unikernel | Isolation::TEE) => {
                Err(PlanError::IsolationNotYet { isolation: other })
            }
        }
    }

    /// Whether there is anything in it that would use a network.
    pub(super) fn wants_network(&self) -> bool {
        match self {
            Self::Virtual(_) | Self::Container(_) => true,
            Self::Wasm(wasm) => wasm.module.sockets,
        }
    }

    /// How long each part of its life may take.
    pub(super) fn patience(&self) -> Patience {
        let patience = Patience::default();
        match self {
            Self::Virtual(_) | Self::Container(_) => patience,
            // Its compiler has that much of a processor, which others may want too.
            Self::Wasm(_) => Patience { configure_ms: (COMPILE_SECONDS + 60) * 1000, ..patience },
        }
    }

    /// The driver that provides it.
    pub(super) fn driver(&self) -> &'static str {
        match self {
            Self::Virtual(_) => "qemu",
            Self::Container(_) => "container",
            Self::Wasm(_) => "wasm",
        }
    }
}

impl Virtual {
    fn decide(request: &Request, facts: &Facts, network: bool, folders: bool) -> Result<Decided, PlanError> {
        let spec = &request.manifest.spec;
        let checks::Hardware { accelerator, vcpus, notices } =
            checks::Hardware::decide(request, &facts.machine)?;
        let image = &facts.image;
        if image.layers.is_empty() {
            return Err(without_root(image));
        }
        let kernel = facts.kernel.clone().ok_or(PlanError::NoKernel)?;
        let verity = request.verity || accelerator == Accelerator::Kvm;
        let scratch_bytes = spec.resources.storage.map(|bytes| bytes.as_u64());
        let volumes = spec.mounts.iter().any(hac::model::Mount::is_volume);
        let encrypted = spec.mounts.iter().any(|mount| mount.encrypted);
        let base = ["virtio_pci", "virtio_console", "squashfs", "overlay", "virtio_blk"];
        let more = [
            (verity, "dm-verity"),
            (scratch_bytes.is_some() || volumes, "ext4"),
            (folders, "fuse"),
            (network, "virtio_net"),
            (encrypted, "dm-crypt"),
            (encrypted, "xts"),
            (encrypted, "ecb"),
            // Ten times faster where the processor has it; other architectures' kernels have theirs built in.
            (encrypted && cfg!(target_arch = "x86_64"), "aesni-intel"),
        ];
        let more = more.into_iter().filter(|(needed, _)| *needed).map(|(_, name)| name);
        let machine = Self {
            accelerator,
            vcpus,
            layers: image.layers.clone(),
            verity,
            rates: checks::disk_rates(&spec.resources)?,
            scratch_bytes,
            readonly_root: spec.deployment.readonly_root,
            pids: spec.resources.pids,
            kernel,
            modules: base.into_iter().chain(more).collect(),
            jail: facts.machine.jail,
            profile: Confined::decide(spec, &facts.machine)?.profile,
            limited: facts.machine.group_missing.is_none(),
        };
        Ok(Decided { body: Body::Virtual(machine), notices })
    }
}

impl Container {
    fn decide(request: &Request, facts: &Facts) -> Result<Decided, PlanError> {
        let spec = &request.manifest.spec;
        let image = &facts.image;
        checks::container(&facts.machine)?;
        if image.trees.is_empty() {
            return Err(without_root(image));
        }
        let ids = facts.machine.container_ids;
        let user = spec.deployment.user.as_ref().unwrap_or(&image.config.user);
        checks::one_id(user, ids)?;
        let mut notices = checks::more_cpu_than_there_is(request, &facts.machine);
        notices.extend(checks::rootless_notices(request, ids));
        if request.verity {
            notices.push(
                "a container's layers aren't held to their Merkle roots: --verity is for MicroVM".to_owned(),
            );
        }
        let container = Self {
            trees: image.trees.clone(),
            upper_bytes: spec.resources.storage.map(|bytes| bytes.as_u64()),
            readonly_root: spec.deployment.readonly_root,
            pids: spec.resources.pids,
            rootless: ids.is_rootless(),
        };
        Ok(Decided { body: Body::Container(container), notices })
    }
}

/// Why an image without file systems can't be run as anything that has a root.
fn without_root(image: &ImageFacts) -> PlanError {
    let name = image.reference.clone();
    match image.wasm {
        Some(_) => PlanError::OnlyWasm { image: name },
        None => PlanError::EmptyImage { image: name },
    }
}

impl Wasm {
    fn decide(request: &Request, facts: &Facts) -> Result<Decided, PlanError> {
        let spec = &request.manifest.spec;
        let image = &facts.image;
        let module =
            image.wasm.clone().ok_or_else(|| PlanError::NoWasm { image: image.reference.clone() })?;
        checks::wasm(request)?;
        let mut notices = checks::more_cpu_than_there_is(request, &facts.machine);
        if request.by_image {
            notices.push(
                "the image is a Wasm program, so it runs as Wasm: no isolation is asked for".to_owned(),
            );
        }
        if spec.deployment.user.is_some() {
            notices.push("a Wasm program has no users; spec.deployment.user changes nothing".to_owned());
        }
        if spec.deployment.workdir.is_some() {
            notices.push(
                "a Wasm program has no working folder; spec.deployment.workdir changes nothing".to_owned(),
            );
        }
        for mount in spec.mounts.iter().filter(|mount| mount.is_volume() && mount.size.is_some()) {
            let name = mount.source.as_deref().unwrap_or_default();
            notices.push(format!(
                "a Wasm program's volume is plain files; the size that is asked for {name} limits nothing"
            ));
        }
        let wasm = Self {
            module,
            table_elements: spec.resources.table_elements,
            shared_keeper: true,
            jailed: facts.machine.is_root,
            limited: facts.machine.is_root && facts.machine.group_missing.is_none(),
        };
        Ok(Decided { body: Body::Wasm(wasm), notices })
    }
}

/// What a driver and a guest are told.
impl Plan {
    pub(super) fn machine_body(
        &self,
        home: &Home,
        run_folder: &Path,
        initramfs: Option<&Path>,
        lifetime: Lifetime,
    ) -> driver::Body {
        match &self.body {
            Body::Virtual(machine) => {
                let layer = |(index, layer): (usize, &Layer)| Disk {
                    path: layer.path.clone(),
                    readonly: true,
                    serial: layer_serial(index),
                };
                let mut disks: Vec<Disk> = machine.layers.iter().enumerate().map(layer).collect();
                if machine.scratch_bytes.is_some() {
                    disks.push(Disk {
                        path: scratch_path(run_folder),
                        readonly: false,
                        serial: SCRATCH_SERIAL.to_owned(),
                    });
                }
                disks.extend(self.volumes.iter().enumerate().map(|(index, volume)| Disk {
                    path: volume::disk(&home.volume(&self.name, &volume.name)),
                    readonly: volume.readonly,
                    serial: volume_serial(index),
                }));
                driver::Body::Virtual(driver::Virtual {
                    accelerator: machine.accelerator,
                    kernel: machine.kernel.path.clone(),
                    initramfs: initramfs.map(Path::to_owned).unwrap_or_default(),
                    command_line: Vec::new(),
                    disks,
                    rates: machine.rates,
                    profile: machine.profile,
                    console: false,
                    cache: Some(home.cache().join("jail")),
                    folder: machine.limited.then(|| run_folder.join(MACHINE)),
                })
            }
            Body::Container(container) => driver::Body::Container(driver::Container {
                layers: container.trees.clone(),
                folder: run_folder.join(CONTAINER),
                hostname: self.name.clone(),
                readonly: container.readonly_root,
                upper_bytes: container.upper_bytes,
                mounts: self.driver_mounts(home),
                pids: container.pids,
            }),
            Body::Wasm(wasm) => driver::Body::Wasm(driver::Wasm {
                module: wasm.module.path.clone(),
                digest: wasm.module.digest.clone(),
                cache: home.cache().join("wasm"),
                mounts: self.driver_mounts(home),
                table_elements: u64::from(wasm.table_elements),
                // Programs that share a keeper share a process, unless they have a network.
                folder: (wasm.limited && (self.network || lifetime == Lifetime::Independent))
                    .then(|| run_folder.join(MACHINE)),
            }),
        }
    }

    /// Folders that a keeper serves over the channel.
    pub(super) fn folder_shares(&self) -> Vec<FolderShare> {
        let share = |(index, share): (usize, &Share)| FolderShare {
            source: share.source.clone(),
            readonly: share.readonly,
            stream: folder_stream(index),
        };
        match &self.body {
            Body::Virtual(_) => self.shares.iter().enumerate().map(share).collect(),
            Body::Container(_) | Body::Wasm(_) => Vec::new(),
        }
    }

    /// Disks that end with the run.
    pub(super) fn scratch(&self, run_folder: &Path) -> Vec<ScratchDisk> {
        let bytes = self.virtual_machine().and_then(|machine| machine.scratch_bytes);
        bytes.map(|bytes| ScratchDisk { path: scratch_path(run_folder), bytes }).into_iter().collect()
    }

    pub(super) fn volume_use(&self, home: &Home, volume: &Volume) -> VolumeUse {
        VolumeUse {
            folder: home.volume(&self.name, &volume.name),
            name: volume.name.clone(),
            form: self.volume_form(),
            bytes: volume.bytes,
            readonly: volume.readonly,
            encrypted: volume.encrypted,
            owner: None,
        }
    }

    fn volume_form(&self) -> Form {
        let rootless = matches!(&self.body, Body::Container(container) if container.rootless);
        Form::of(self.isolation, rootless)
    }

    /// What a container or a Wasm program finds mounted, folders before what lies in them.
    fn driver_mounts(&self, home: &Home) -> Vec<driver::Mount> {
        use driver::MountSource;
        let shares = self.shares.iter().map(|share| driver::Mount {
            source: match share.file {
                true => MountSource::File(share.source.clone()),
                false => MountSource::Folder(share.source.clone()),
            },
            destination: share.destination.clone(),
            readonly: share.readonly,
        });
        let memory = self.memory_mounts.iter().map(|(destination, bytes)| driver::Mount {
            source: MountSource::Memory(*bytes),
            destination: destination.clone(),
            readonly: false,
        });
        let volumes = self.volumes.iter().map(|volume| {
            let folder = home.volume(&self.name, &volume.name);
            driver::Mount {
                source: match self.volume_form() {
                    Form::Folder | Form::OwnedFolder => MountSource::Folder(volume::files(&folder)),
                    Form::HostDisk | Form::GuestDisk => MountSource::Disk(volume::disk(&folder)),
                },
                destination: volume.destination.clone(),
                readonly: volume.readonly,
            }
        });
        let mut mounts: Vec<driver::Mount> = shares.chain(memory).chain(volumes).collect();
        mounts.sort_by_key(|mount| mount.destination.matches('/').count());
        mounts
    }

    pub(super) fn configuration(&self) -> Configuration {
        let (root, mounts, pids) = match &self.body {
            Body::Virtual(machine) => (Some(self.root(machine)), self.guest_mounts(), Some(machine.pids)),
            Body::Container(_) | Body::Wasm(_) => (None, Vec::new(), None),
        };
        Configuration {
            version: wire::VERSION,
            hostname: self.name.clone(),
            unix_time_ns: 0,
            entropy: String::new(),
            root,
            mounts,
            network: None,
            pids,
            secrets: Vec::new(),
            process: self.process.clone(),
        }
    }

    fn root(&self, machine: &Virtual) -> Root {
        let layer = |(index, layer): (usize, &Layer)| LayerDisk {
            serial: layer_serial(index),
            verity: machine.verity.then(|| Verity {
                root: layer.verity_root.clone(),
                data_blocks: layer.data_blocks,
                hash_start: layer.hash_start,
            }),
        };
        let upper = match machine.scratch_bytes {
            Some(_) => Upper::Disk { serial: SCRATCH_SERIAL.to_owned() },
            None => Upper::Memory { bytes: self.memory_mib * 1024 * 1024 / 2 },
        };
        let layers = machine.layers.iter().enumerate().map(layer).collect();
        Root { layers, upper, readonly: machine.readonly_root }
    }

    fn guest_mounts(&self) -> Vec<Mount> {
        let folders = self.shares.iter().enumerate().map(|(index, share)| Mount {
            source: MountSource::Folder { stream: folder_stream(index), file: share.file },
            destination: share.destination.clone(),
            readonly: share.readonly,
        });
        let memory = self.memory_mounts.iter().map(|(destination, bytes)| Mount {
            source: MountSource::Memory { bytes: *bytes },
            destination: destination.clone(),
            readonly: false,
        });
        let volumes = self.volumes.iter().enumerate().map(|(index, volume)| Mount {
            source: MountSource::Disk { serial: volume_serial(index), crypt: None },
            destination: volume.destination.clone(),
            readonly: volume.readonly,
        });
        let mut mounts: Vec<Mount> = folders.chain(memory).chain(volumes).collect();
        // A mount below another one comes after it.
        mounts.sort_by_key(|mount| mount.destination.matches('/').count());
        mounts
    }
}
