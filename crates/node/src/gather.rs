//! Gathers what a plan must know: the image, the guest kernel, the machine.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use hypercore::initramfs::{self, InitramfsError};
use hypercore::kernel::{Kernel, KernelStore};
use image::Image;

use crate::home::Home;
use crate::plan::{Facts, ImageFacts, KernelFacts, Layer, MachineFacts, Plan};

/// What a plan must know of an image.
pub fn image_facts(image: &Image) -> ImageFacts {
    const BLOCK: u64 = 4096;
    let layer = |layer: &image::ImageLayer| Layer {
        path: layer.path.clone(),
        digest: layer.digest.to_string(),
        bytes: layer.total_bytes,
        verity_root: hex(&layer.verity_root),
        data_blocks: layer.verity_data_blocks,
        hash_start: layer.verity_hash_offset / BLOCK,
    };
    ImageFacts {
        reference: image.reference.to_string(),
        digest: image.digest.to_string(),
        config: image.config.clone(),
        layers: image.layers.iter().map(layer).collect(),
    }
}

/// What a plan must know, put together.
pub fn facts(image: &Image, kernel: &Kernel, machine: MachineFacts) -> Facts {
    Facts {
        image: image_facts(image),
        kernel: KernelFacts {
            release: kernel.release.clone(),
            digest: kernel.digest.clone(),
            path: kernel.image.clone(),
        },
        machine,
    }
}

/// What a plan must know of this machine. `kvm_missing` says why KVM doesn't work here, if it doesn't.
pub fn machine_facts(kvm_missing: Option<String>) -> MachineFacts {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let system = rustix::system::sysinfo();
    let memory = u64::from(system.mem_unit).saturating_mul(system.totalram);
    MachineFacts { kvm_missing, cpus: u32::try_from(cpus).unwrap_or(u32::MAX), memory }
}

/// The initramfs that a plan's guest boots from, made if it isn't in the cache yet.
///
/// # Errors
/// The kernel lacks a module, or the cache can't be written.
pub fn initramfs(home: &Home, kernel: &Kernel, plan: &Plan) -> Result<PathBuf, InitramfsError> {
    use hypercore::guest::{DIGEST, GUEST};
    initramfs::cached(&home.cache().join("initramfs"), kernel, &plan.modules, GUEST, DIGEST)
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
    let mut random = [0; 6];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{name}-{}", hex(&random)))
}

/// Makes a path of the host's absolute and free of links, with an error that names it.
///
/// # Errors
/// It doesn't exist.
pub fn existing(path: &Path) -> io::Result<PathBuf> {
    path.canonicalize().map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
