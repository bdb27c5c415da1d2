//! Kernel modules: which to load, and when.
//!
//! The initramfs lists its modules in dependency order in `/modules/load`, one file name in a line (`07-virtio_blk.ko`). A
//! module that only some spacecores need is loaded once the configuration shows that this one does; `virtio_blk` and
//! `virtio_net` always wait for the configuration, so that a template taken before it holds no device of its own.

use std::collections::VecDeque;
use std::fs::File;

use rustix::io::Errno;
use spacecore::wire::message::{Configuration, MountSource, Refusal, RefusalKind, Upper};

use spacecore::refusal::{OrRefuse, refuse};

const FOLDER: &str = "/modules";

/// What must be known before a module may be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nothing: every guest needs it.
    Nothing,
    /// That this guest is configured.
    Configuration,
    /// That it has a network.
    Network,
    /// That it has folders.
    Folders,
    /// That a layer is held to a Merkle tree.
    Verity,
    /// That a disk is encrypted.
    Crypt,
    /// Either of these.
    Mapper,
    /// That it has a writable disk.
    WritableDisk,
}

/// What is known about this guest; nothing before the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    configured: bool,
    network: bool,
    folders: bool,
    verity: bool,
    crypt: bool,
    writable_disk: bool,
}

impl Known {
    /// What a configuration tells.
    pub(crate) fn from_configuration(configuration: &Configuration) -> Self {
        let has =
            |wanted: fn(&MountSource) -> bool| configuration.mounts.iter().any(|mount| wanted(&mount.source));
        let root = configuration.root.as_ref();
        Self {
            configured: true,
            network: configuration.network.is_some(),
            folders: has(|source| matches!(source, MountSource::Folder { .. })),
            verity: root.is_some_and(|root| root.layers.iter().any(|layer| layer.verity.is_some())),
            crypt: has(|source| matches!(source, MountSource::Disk { crypt: Some(_), .. })),
            writable_disk: root.is_some_and(|root| matches!(root.upper, Upper::Disk { .. }))
                || has(|source| matches!(source, MountSource::Disk { .. })),
        }
    }

    fn meets(self, need: Need) -> bool {
        match need {
            Need::Nothing => true,
            Need::Configuration => self.configured,
            Need::Network => self.network,
            Need::Folders => self.folders,
            Need::Verity => self.verity,
            Need::Crypt => self.crypt,
            Need::Mapper => self.verity || self.crypt,
            Need::WritableDisk => self.writable_disk,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Module {
    file: String,
    need: Need,
}

impl Module {
    fn new(file: &str) -> Self {
        Self { file: file.to_owned(), need: need_of(&name_of(file)) }
    }
}

/// The module's name as the kernel writes it, without order prefix and suffixes.
fn name_of(file: &str) -> String {
    let name = match file.split_once('-') {
        Some((order, name)) if !order.is_empty() && order.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => file,
    };
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

fn need_of(name: &str) -> Need {
    match name {
        "virtio_blk" => Need::Configuration,
        "virtio_net" | "net_failover" | "failover" => Need::Network,
        "fuse" => Need::Folders,
        "dm_mod" => Need::Mapper,
        "dm_bufio" | "dm_verity" | "reed_solomon" | "sha256_generic" | "sha256_ssse3" => Need::Verity,
        "dm_crypt" | "xts" | "ecb" | "aesni_intel" | "crypto_simd" | "cryptd" => Need::Crypt,
        "ext4" | "jbd2" | "mbcache" | "crc16" | "crc32c_generic" | "crc32c_intel" => Need::WritableDisk,
        _ => Need::Nothing,
    }
}

/// Modules that aren't loaded yet, in order.
#[derive(Debug)]
pub(crate) struct Modules {
    waiting: VecDeque<Module>,
}

impl Modules {
    /// Reads the list of the initramfs; a kernel that has everything built in comes without one.
    pub(crate) fn read() -> Self {
        Self::parse(&std::fs::read_to_string(format!("{FOLDER}/load")).unwrap_or_default())
    }

    fn parse(list: &str) -> Self {
        let waiting = list.lines().map(str::trim).filter(|line| !line.is_empty()).map(Module::new).collect();
        Self { waiting }
    }

    fn take_next(&mut self, known: Known) -> Option<Module> {
        let at = self.waiting.iter().position(|module| known.meets(module.need))?;
        self.waiting.remove(at)
    }

    /// Loads the next module that may be loaded; `false` where there is none.
    ///
    /// # Errors
    /// The kernel doesn't take the module.
    pub(crate) fn load_next(&mut self, known: Known) -> Result<bool, Refusal> {
        let Some(module) = self.take_next(known) else {
            return Ok(false);
        };
        let what = || format!("the kernel module {}", module.file);
        let file = File::open(format!("{FOLDER}/{}", module.file)).or_refuse(RefusalKind::Root, what)?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => Ok(true),
            // What only makes something faster, for processors that this one isn't.
            Err(Errno::NODEV) if name_of(&module.file) == "aesni_intel" => Ok(true),
            Err(error) => Err(refuse(RefusalKind::Root, format!("{}: {error}", what()))),
        }
    }

    /// Loads all that may be loaded.
    ///
    /// # Errors
    /// The kernel doesn't take a module.
    pub(crate) fn load_all(&mut self, known: Known) -> Result<(), Refusal> {
        while self.load_next(known)? {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(modules: &mut Modules, known: Known) -> Vec<String> {
        std::iter::from_fn(|| modules.take_next(known)).map(|module| name_of(&module.file)).collect()
    }

    const LIST: &str = "00-virtio.ko\n01-virtio_console.ko\n02-failover.ko\n03-virtio_net.ko\n04-virtio_blk.ko\n\
                        05-squashfs.ko\n06-dm-mod.ko\n07-fuse.ko\n";

    #[test]
    fn nothing_that_belongs_to_one_guest_alone_is_loaded_before_its_configuration() {
        let mut modules = Modules::parse(LIST);
        assert_eq!(order(&mut modules, Known::default()), ["virtio", "virtio_console", "squashfs"]);
        let configured = Known { configured: true, network: true, ..Known::default() };
        assert_eq!(order(&mut modules, configured), ["failover", "virtio_net", "virtio_blk"]);
        assert_eq!(modules.waiting.len(), 2, "no verity and no folders are wanted");
    }

    #[test]
    fn names_lose_their_order_and_their_suffix() {
        assert_eq!(name_of("12-dm-verity.ko"), "dm_verity");
        assert_eq!(name_of("virtio_blk.ko"), "virtio_blk");
        assert_eq!(name_of("dm-mod.ko.xz"), "dm_mod");
    }
}
