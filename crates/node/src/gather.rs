//! Gathers what a plan must know: the image, the guest kernel, the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use hac::model::Isolation;
use hac::{Manifest, Settings};
use hypercore::cgroup;
use hypercore::confinement::Confinement;
use hypercore::driver::container;
use hypercore::driver::wasm::{self, ProgramError};
use hypercore::initramfs::{self, InitramfsError};
use hypercore::jail::Strength;
use hypercore::kernel::{Kernel, KernelStore};
use hypercore::routed;
use hypercore::scratch::Owner;
use image::layer::reader::{Kind, ReadError, Reader};
use image::{Image, OpenError, Owners, Reference, SettingsError, Store, StoreOptions, TreeError};

use crate::home::Home;
use crate::plan::{Facts, ImageFacts, KernelFacts, Layer, MachineFacts, Virtual, WasmFacts};
use crate::volume::{self, Content, VolumeError};

/// Why something that a plan must know can't be found out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatherError {
    /// A layer can't be unpacked.
    #[error("can't unpack the image {image}")]
    Trees {
        /// The image.
        image: String,
        /// Why.
        source: TreeError,
    },
    /// The Wasm program can't be understood.
    #[error("can't run the Wasm program of the image {image}")]
    Program {
        /// The image.
        image: String,
        /// Why.
        source: ProgramError,
    },
    /// The image's settings can't be told.
    #[error("can't tell what the image {image} demands of how it is run")]
    Settings {
        /// The image.
        image: String,
        /// Why.
        source: SettingsError,
    },
    /// The image's settings have mistakes.
    #[error("the settings that the image {image} carries have mistakes, so it can't run\n\n{rendered}")]
    WrongSettings {
        /// The image.
        image: String,
        /// Every mistake with its line.
        rendered: String,
    },
    /// A layer can't be read.
    #[error("can't read a layer of the image {image}")]
    Layer {
        /// The image.
        image: String,
        /// Why.
        source: ReadError,
    },
}

/// What a plan must know of an image for this isolation. A container's layers are unpacked if they aren't yet.
///
/// # Errors
/// The layers can't be unpacked, or the Wasm program can't be understood.
pub fn image_facts(store: &Store, image: &Image, isolation: Isolation) -> Result<ImageFacts, GatherError> {
    const BLOCK: u64 = 4096;
    let name = || image.reference.to_string();
    let layer = |layer: &image::ImageLayer| Layer {
        path: layer.path.clone(),
        digest: layer.digest.to_string(),
        bytes: layer.total_bytes,
        verity_root: layer.verity_root_hex(),
        data_blocks: layer.verity_data_blocks,
        hash_start: layer.verity_hash_offset / BLOCK,
    };
    let trees = match isolation {
        Isolation::Container => {
            store.trees(image).map_err(|source| GatherError::Trees { image: name(), source })?
        }
        Isolation::MicroVM | Isolation::Unikernel | Isolation::Wasm | Isolation::TEE => Vec::new(),
    };
    let wasm = match &image.wasm {
        Some(module) => Some(wasm_facts(image, module, isolation)?),
        None => None,
    };
    Ok(ImageFacts {
        reference: name(),
        digest: image.digest.to_string(),
        config: image.config.clone(),
        layers: image.layers.iter().map(layer).collect(),
        trees,
        wasm,
        settings: settings(store, image)?,
    })
}

/// What an image demands of how it is run; nothing if it carries no settings.
///
/// # Errors
/// It carries some that can't be understood. It can't run then: what it demands isn't known.
pub fn settings(store: &Store, image: &Image) -> Result<Option<Settings>, GatherError> {
    let failed = |source| GatherError::Settings { image: image.reference.to_string(), source };
    let Some(text) = store.carried(image, hac::settings::KEY).map_err(failed)? else { return Ok(None) };
    hac::settings::parse(&text).map(Some).map_err(|wrong| GatherError::WrongSettings {
        image: image.reference.to_string(),
        rendered: wrong.render(hac::settings::KEY, &text, false).trim_end().to_owned(),
    })
}

fn wasm_facts(
    image: &Image,
    module: &image::WasmModule,
    isolation: Isolation,
) -> Result<WasmFacts, GatherError> {
    let failed = |source| GatherError::Program { image: image.reference.to_string(), source };
    Ok(WasmFacts {
        name: program_name(&image.reference),
        path: module.path.clone(),
        digest: module.digest.hex().to_owned(),
        bytes: module.bytes,
        sockets: isolation == Isolation::Wasm && wasm::wants_network(&module.path).map_err(failed)?,
    })
}

/// The last part of an image's name, which stands for the program in `args[0]`.
fn program_name(reference: &Reference) -> String {
    let (Reference::Layout { path, .. }
    | Reference::OciArchive { path, .. }
    | Reference::DockerArchive { path, .. }
    | Reference::Wasm { path }) = reference
    else {
        return match reference {
            Reference::Registry(name) => {
                name.repository().rsplit('/').next().unwrap_or(name.repository()).to_owned()
            }
            other => other.to_string(),
        };
    };
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// What a plan must know, put together. `kernel` is that of an isolation that has one.
#[must_use]
pub fn facts(image: ImageFacts, kernel: Option<&Kernel>, machine: MachineFacts) -> Facts {
    Facts {
        image,
        kernel: kernel.map(|kernel| KernelFacts {
            release: kernel.release.clone(),
            digest: kernel.digest.clone(),
            path: kernel.image.clone(),
        }),
        machine,
    }
}

/// What a plan must know of this machine for this isolation; what only others need isn't looked for, since some of it is found out by
/// trying. `kvm_missing` says why KVM doesn't work here, if it doesn't; `scan_missing` why images aren't scanned, if they aren't.
pub fn machine_facts(
    isolation: Isolation,
    kvm_missing: Option<String>,
    scan_missing: Option<String>,
) -> MachineFacts {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let system = rustix::system::sysinfo();
    let memory = u64::from(system.mem_unit).saturating_mul(system.totalram);
    let routed_missing = routed::usable().err().map(|missing| missing.to_string());
    MachineFacts {
        kvm_missing,
        container_missing: match isolation {
            Isolation::Container => container::usable().err().map(|missing| missing.to_string()),
            _ => None,
        },
        group_missing: match isolation {
            Isolation::MicroVM => cgroup::usable().err().map(|missing| missing.to_string()),
            _ => None,
        },
        jail: (isolation == Isolation::MicroVM).then(Strength::here),
        confinement: Confinement::here(),
        scan_missing,
        is_root: rustix::process::geteuid().is_root(),
        container_ids: container::Ids::here(),
        routed_hindered: routed_missing.is_none().then(routed::hindered).flatten(),
        routed_missing,
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        memory,
        secrets: BTreeSet::new(),
        volumes: BTreeMap::new(),
    }
}

/// What the volumes hold that a manifest names and its spacecore has on this machine already, by their names.
///
/// # Errors
/// One can't be read, or a newer Vimana made it.
pub fn volumes(home: &Home, manifest: &Manifest) -> Result<BTreeMap<String, Content>, VolumeError> {
    let mut volumes = BTreeMap::new();
    for mount in manifest.spec.mounts.iter().filter(|mount| mount.is_volume()) {
        let name = mount.source.as_deref().unwrap_or_default();
        if let Some(content) = volume::content(&home.volume(&manifest.metadata.name, name), name)? {
            volumes.insert(name.to_owned(), content);
        }
    }
    Ok(volumes)
}

/// Who owns the folder of the image at which a volume is mounted: a new volume belongs to the same. The root's where the
/// image has no such folder.
///
/// # Errors
/// A layer can't be read.
pub fn owner_at(image: &Image, destination: &str) -> Result<Owner, GatherError> {
    let failed = |source| GatherError::Layer { image: image.reference.to_string(), source };
    let wanted = destination.trim_matches('/').as_bytes();
    for layer in image.layers.iter().rev() {
        let reader = Reader::open(&layer.file).map_err(failed)?;
        for entry in reader.entries() {
            let entry = entry.map_err(failed)?;
            if entry.path == wanted && entry.kind == Kind::Directory && !entry.is_implied() {
                return Ok(Owner { uid: entry.uid, gid: entry.gid, mode: u32::from(entry.mode) });
            }
            if entry.path == wanted && !entry.is_implied() {
                return Ok(Owner::default());
            }
        }
    }
    Ok(Owner::default())
}

/// The initramfs that a plan's guest boots from, made if it isn't in the cache yet.
///
/// # Errors
/// The kernel lacks a module, or the cache can't be written.
pub fn initramfs(home: &Home, kernel: &Kernel, machine: &Virtual) -> Result<PathBuf, InitramfsError> {
    use hypercore::guest::{DIGEST, GUEST};
    initramfs::cached(&home.cache().join("initramfs"), kernel, &machine.modules, GUEST, DIGEST)
}

/// Opens the store of images, with the owners that this user's containers can have.
///
/// # Errors
/// Its folder can't be made, or isn't a store.
pub fn images(home: &Home, options: StoreOptions) -> Result<Store, OpenError> {
    let owners = container::Ids::here().range().map(|first| Owners {
        first,
        count: container::IDS,
        inside: container::inside,
    });
    Store::open(&home.images(), StoreOptions { owners, ..options })
}

/// Opens the store of guest kernels.
///
/// # Errors
/// Its folder can't be made.
pub fn kernels(home: &Home) -> Result<KernelStore, hypercore::kernel::StoreError> {
    KernelStore::open(&home.kernels())
}

/// A new spacecore's identifier: its name and 48 random bits.
///
/// # Errors
/// The host has no entropy to give.
pub fn new_id(name: &str) -> io::Result<String> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{name}-{:012x}", u64::from_ne_bytes(random) >> 16))
}

/// Makes a path of the host's absolute and free of links, with an error that names it.
///
/// # Errors
/// It doesn't exist.
pub fn existing(path: &Path) -> io::Result<PathBuf> {
    path.canonicalize().map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
