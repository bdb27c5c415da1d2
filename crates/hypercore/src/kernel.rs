//! The guest kernel: where it comes from, and the store that keeps it by content.
//!
//! [`choose`] takes, in this order: what a command names, what `VIMANA_KERNEL` names, the newest in the store, the newest
//! readable in `/boot`. If there is none, [`fetch`] downloads the distribution's own cloud kernel.
//!
//! The store is a folder; each kernel is a folder in it, named by its digest:
//!
//! ```text
//!   ROOT/DIGEST/kernel.json          release, image, modules and what they need; has a version
//!   ROOT/DIGEST/vmlinux | vmlinuz    the image, unpacked where it can be entered so
//!   ROOT/DIGEST/modules/NAME.ko      unpacked, without signatures
//!   ROOT/.known/KEY                  digests of kernels that were taken from files of this machine
//!   ROOT/.new-*                      a kernel in the making; whoever comes next removes one whose maker is gone
//! ```
//!
//! The digest is SHA-256 over the lines `SHA-256 LENGTH NAME`, sorted by name, one for each file. A folder is made aside,
//! written through to the disk and renamed, so that it is there whole or not at all, whoever is killed.

mod fetch;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod image;
mod import;
mod module;
mod package;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::fetch::{FetchError, Step, fetch, fetch_from};
pub use self::import::ImportError;
pub use self::store::{KernelStore, StoreError};

/// The modules that guests may need; those that a kernel has neither as a module nor built in are left out.
pub const WANTED: [&str; 16] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "squashfs",
    "overlay",
    "dm-verity",
    "dm-crypt",
    "xts",
    "ecb",
    "aesni-intel",
    "fuse",
    "ext4",
    "virtiofs",
    "vmw_vsock_virtio_transport",
    "af_packet",
];

/// A guest kernel in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// What it is kept by: 64 hexadecimal digits.
    pub digest: String,
    /// Its release, as `uname -r` prints it.
    pub release: String,
    /// Its image.
    pub image: PathBuf,
    /// Its modules.
    pub modules: Vec<Module>,
    /// The names of what is built in; nothing if no list of it came with the kernel, which is then taken to have
    /// everything built in that it has no module for.
    pub builtin: Option<Vec<String>>,
    /// The bytes of all its files.
    pub bytes: u64,
}

/// One kernel module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Its name, with `_` for `-`.
    pub name: String,
    /// The names of what is loaded before it.
    pub needs: Vec<String>,
}

/// A module that a kernel has not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the kernel {release} has no module {name}, and it isn't built in; take another kernel: vimana kernel fetch"
)]
pub struct MissingModule {
    /// The module.
    pub name: String,
    /// The kernel's release.
    pub release: String,
}

impl Kernel {
    /// Returns the files of the modules `names` and of all that they need, in the order to load them. What is built in
    /// has no file.
    pub fn modules_for(&self, names: &[&str]) -> Result<Vec<PathBuf>, MissingModule> {
        let needs: BTreeMap<String, Vec<String>> =
            self.modules.iter().map(|module| (module.name.clone(), module.needs.clone())).collect();
        let wanted: Vec<String> = names.iter().map(|name| module::normal(name)).collect();
        for name in &wanted {
            let builtin = self.builtin.as_ref().is_none_or(|list| list.contains(name));
            if !builtin && !needs.contains_key(name) {
                return Err(MissingModule { name: name.clone(), release: self.release.clone() });
            }
        }
        let folder = self.image.parent().unwrap_or(Path::new("/")).join("modules");
        let order = module::load_order(&wanted, &needs);
        Ok(order.into_iter().map(|name| folder.join(format!("{name}.ko"))).collect())
    }
}

/// Where a kernel came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A command named it.
    Named,
    /// `VIMANA_KERNEL` named it.
    Configured,
    /// The store had it.
    Store,
    /// It is the newest in `/boot`.
    Boot,
}

/// Why no kernel could be chosen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChooseError {
    /// There is none.
    #[error("there is no guest kernel on this machine yet; get one with: vimana kernel fetch")]
    None,
    /// What was named is neither a file nor in the store.
    #[error("{0:?} is neither a file nor the digest of a kernel in the store (see: vimana kernel ls)")]
    Unknown(PathBuf),
    /// The kernel can't be taken into the store.
    #[error("can't take the kernel {}", path.display())]
    Import {
        /// The image.
        path: PathBuf,
        /// Why.
        source: ImportError,
    },
    /// The store can't be read.
    #[error("can't read the kernel store")]
    Store(#[source] StoreError),
}

/// Chooses the guest kernel. `named` is an image's path or at least 8 digits of a digest in the store, `modules` the folder
/// of its modules (otherwise `/lib/modules/RELEASE`, if there is one).
pub fn choose(
    store: &KernelStore,
    named: Option<&Path>,
    modules: Option<&Path>,
) -> Result<(Kernel, Origin), ChooseError> {
    if let Some(path) = named {
        return Ok((take(store, path, modules)?, Origin::Named));
    }
    if let Some(path) = std::env::var_os("VIMANA_KERNEL").filter(|path| !path.is_empty()) {
        return Ok((take(store, Path::new(&path), modules)?, Origin::Configured));
    }
    if let Some(kernel) = store.newest().map_err(ChooseError::Store)? {
        return Ok((kernel, Origin::Store));
    }
    for path in import::in_boot(Path::new("/boot"), Path::new("/lib/modules")) {
        if let Ok(kernel) = import::known(store, &path, None) {
            return Ok((kernel, Origin::Boot));
        }
    }
    Err(ChooseError::None)
}

fn take(store: &KernelStore, path: &Path, modules: Option<&Path>) -> Result<Kernel, ChooseError> {
    if path.is_file() {
        let failed = |source| ChooseError::Import { path: path.to_owned(), source };
        return import::known(store, path, modules).map_err(failed);
    }
    let digest = path.to_str().filter(|text| text.len() >= 8).unwrap_or_default();
    let found = store.by_prefix(digest).map_err(ChooseError::Store)?;
    found.ok_or_else(|| ChooseError::Unknown(path.to_owned()))
}

/// What sorts releases: digits by value, the rest by letter.
pub(crate) fn release_order(release: &str) -> Vec<(u64, String)> {
    let mut order = Vec::new();
    let mut rest = release;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(text);
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (number, after) = after.split_at(digits);
        order.push((number.parse().unwrap_or(u64::MAX), word.to_owned()));
        rest = after;
    }
    // The word stands before its number, but a longer word must not outweigh a greater number.
    order.iter_mut().for_each(|(_, word)| word.truncate(16));
    order
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An error with the file that it is about.
#[derive(Debug, thiserror::Error)]
#[error("{}", path.display())]
pub struct FileError {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Gives an I/O error its file.
pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { path: path.clone(), source }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;

    /// A stored kernel with the modules `a` and `b`, where `b` needs `a`.
    pub(crate) fn a_kernel(root: &Path) -> Kernel {
        let files = root.join("files");
        let modules = files.join("modules/kernel/x");
        fs::create_dir_all(&modules).unwrap();
        fs::write(files.join("vmlinuz"), image::tests::a_bzimage(b"", 0)).unwrap();
        fs::write(modules.join("a.ko"), module::tests::a_module("depends=\0")).unwrap();
        fs::write(modules.join("virtio_blk.ko"), module::tests::a_module("depends=a\0")).unwrap();
        fs::write(files.join("modules/modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
        let store = KernelStore::open(&root.join("kernels")).unwrap();
        let mut kernel =
            import::import(&store, &files.join("vmlinuz"), Some(&files.join("modules"))).unwrap();
        kernel.modules[1].name = "b".into();
        let folder = kernel.image.parent().unwrap().join("modules");
        fs::copy(folder.join("virtio_blk.ko"), folder.join("b.ko")).unwrap();
        kernel
    }

    #[test]
    fn a_module_s_files_come_in_load_order_and_builtin_ones_have_none() {
        let root = tempfile::tempdir().unwrap();
        let kernel = a_kernel(root.path());
        let files = kernel.modules_for(&["b", "ext4"]).unwrap();
        let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.ko", "b.ko"]);
        assert_eq!(kernel.modules_for(&["dm-verity"]).unwrap_err().name, "dm_verity");
    }

    #[test]
    fn releases_sort_by_their_numbers() {
        let mut releases = ["6.1.0-9-cloud-amd64", "6.10.1", "6.1.0-56-cloud-amd64", "5.15.0-100-generic"];
        releases.sort_by_key(|release| release_order(release));
        assert_eq!(releases, ["5.15.0-100-generic", "6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64", "6.10.1"]);
    }

    #[test]
    fn what_is_neither_a_file_nor_a_digest_is_named_in_the_error() {
        let root = tempfile::tempdir().unwrap();
        let store = KernelStore::open(root.path()).unwrap();
        let error = choose(&store, Some(Path::new("/no/such")), None).unwrap_err();
        assert!(matches!(error, ChooseError::Unknown(path) if path == Path::new("/no/such")));
    }
}
