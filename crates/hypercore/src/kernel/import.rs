//! Takes a kernel from files: its image, and the folder of its modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::store::Parts;
use super::{
    FileError, Kernel, KernelStore, Module, StoreError, WANTED, at, hex, image, module, release_order,
};

/// How deep modules may lie in their folder.
const DEPTH_MAX: usize = 16;

/// Why a kernel can't be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file can't be read.
    #[error("can't read the kernel's files")]
    File(#[source] FileError),
    /// It isn't a kernel.
    #[error("{} isn't a Linux kernel image (a bzImage or an uncompressed ELF image)", .0.display())]
    NotAKernel(PathBuf),
    /// A module isn't one.
    #[error("{} isn't a 64-bit kernel module", .0.display())]
    NotAModule(PathBuf),
    /// A module needs one that isn't there.
    #[error("the module {module} needs {needs}, which is neither in {} nor built in", folder.display())]
    Incomplete {
        /// The module.
        module: String,
        /// What it needs.
        needs: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The store can't keep it.
    #[error("can't keep the kernel")]
    Store(#[source] StoreError),
}

impl From<FileError> for ImportError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// The readable kernels of an installed system for which there are modules, the newest first.
pub(super) fn in_boot(boot: &Path, modules: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(boot).into_iter().flatten().flatten();
    let mut found: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| {
            let release = entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned();
            let usable = modules.join(&release).is_dir() && fs::File::open(entry.path()).is_ok();
            usable.then(|| (release, entry.path()))
        })
        .collect();
    found.sort_by_cached_key(|(release, _)| release_order(release));
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// Like [`import`], but doesn't read the files again if they haven't changed since they were taken.
pub(super) fn known(
    store: &KernelStore,
    image: &Path,
    modules: Option<&Path>,
) -> Result<Kernel, ImportError> {
    let key = key(image, modules).map_err(at(image))?;
    if let Some(kernel) = store.noted(&key) {
        return Ok(kernel);
    }
    let kernel = import(store, image, modules)?;
    store.note(&key, &kernel.digest);
    Ok(kernel)
}

/// Names files by where they are, their size and when they changed.
fn key(image: &Path, modules: Option<&Path>) -> io::Result<String> {
    let mut text = String::from("1\n");
    for path in [Some(image), modules].into_iter().flatten() {
        let status = fs::metadata(path)?;
        let (path, size, inode) = (std::path::absolute(path)?, status.size(), status.ino());
        let changed = (status.mtime(), status.mtime_nsec(), status.ctime(), status.ctime_nsec());
        text.push_str(&format!("{path:?} {size} {inode} {changed:?}\n"));
    }
    Ok(hex(&Sha256::digest(text.as_bytes())))
}

/// Takes a kernel into the store: the image, and of its modules those that guests may need.
pub(super) fn import(
    store: &KernelStore,
    path: &Path,
    modules: Option<&Path>,
) -> Result<Kernel, ImportError> {
    let packed = read(path, image::IMAGE_MAX)?;
    let elf = packed.starts_with(b"\x7fELF");
    let (image, image_name) = match image::uncompressed(&packed) {
        Some(unpacked) => (unpacked, "vmlinux"),
        None if elf => (packed, "vmlinux"),
        None => (packed, "vmlinuz"),
    };
    let release = image::release(&image).ok_or_else(|| ImportError::NotAKernel(path.to_owned()))?;
    let usual = Path::new("/lib/modules").join(&release);
    let folder = modules.or_else(|| usual.is_dir().then_some(usual.as_path()));
    let (modules, builtin) = match folder {
        Some(folder) => select(folder)?,
        None => (Vec::new(), None),
    };
    store.insert(Parts { release, image_name, image, modules, builtin }).map_err(ImportError::Store)
}

type Selection = (Vec<(Module, Vec<u8>)>, Option<Vec<String>>);

/// Takes the wanted modules and all that they need out of a folder like `/lib/modules/RELEASE`.
fn select(folder: &Path) -> Result<Selection, ImportError> {
    let mut files = BTreeMap::new();
    walk(folder, 0, &mut files)?;
    let builtin = builtin(folder)?;
    let is_builtin = |name: &String| builtin.as_ref().is_none_or(|list| list.contains(name));

    let mut needs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut contents = BTreeMap::new();
    let mut open: Vec<String> =
        WANTED.iter().map(|name| module::normal(name)).filter(|name| files.contains_key(name)).collect();
    let wanted = open.clone();
    while let Some(name) = open.pop() {
        let Some(path) = files.get(&name).filter(|_| !needs.contains_key(&name)) else {
            continue;
        };
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let bytes = module::plain(&file, read(path, module::MODULE_MAX)?).map_err(at(path))?;
        let found = module::needs(&bytes).ok_or_else(|| ImportError::NotAModule(path.clone()))?;
        if let Some(missing) = found.hard.iter().find(|need| !files.contains_key(*need) && !is_builtin(need))
        {
            let (module, needs, folder) = (name, missing.clone(), folder.to_owned());
            return Err(ImportError::Incomplete { module, needs, folder });
        }
        let before: Vec<String> =
            found.soft.into_iter().chain(found.hard).filter(|need| files.contains_key(need)).collect();
        open.extend(before.iter().cloned());
        needs.insert(name.clone(), before);
        contents.insert(name, bytes);
    }
    let order = module::load_order(&wanted, &needs);
    let take = |name: String| {
        let bytes = contents.remove(&name)?;
        Some((Module { needs: needs.get(&name)?.clone(), name }, bytes))
    };
    Ok((order.into_iter().filter_map(take).collect(), builtin))
}

/// The list of what is built in, kept to what guests may ask for and to what a module may need.
fn builtin(folder: &Path) -> Result<Option<Vec<String>>, ImportError> {
    let path = folder.join("modules.builtin");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(&path)(error).into()),
    };
    let names = text.lines().filter_map(|line| module::name(line.rsplit('/').next()?));
    Ok(Some(names.collect::<BTreeSet<_>>().into_iter().collect()))
}

fn walk(folder: &Path, depth: usize, files: &mut BTreeMap<String, PathBuf>) -> Result<(), ImportError> {
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let entry = entry.map_err(at(folder))?;
        // `build` and `source` are links out of the folder; links aren't followed.
        let kind = entry.file_type().map_err(at(folder))?;
        if kind.is_dir() && depth < DEPTH_MAX {
            walk(&entry.path(), depth.saturating_add(1), files)?;
        }
        if let Some(name) = entry.file_name().to_str().and_then(module::name).filter(|_| kind.is_file()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, ImportError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(at(path))?;
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(at(path))?;
    if bytes.len() as u64 > most {
        return Err(at(path)(io::ErrorKind::FileTooLarge.into()).into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{image::tests::*, module::tests::a_module};

    fn files(root: &Path, modules: &[(&str, &str)]) -> (PathBuf, PathBuf) {
        let folder = root.join("modules");
        fs::create_dir_all(folder.join("kernel")).unwrap();
        let stream = zstd::encode_all(&an_elf(18)[..], 1).unwrap();
        fs::write(root.join("vmlinuz"), a_bzimage(&stream, an_elf(18).len())).unwrap();
        for (name, needs) in modules {
            fs::write(folder.join("kernel").join(name), a_module(&format!("depends={needs}\0"))).unwrap();
        }
        fs::write(folder.join("modules.builtin"), "kernel/net/packet/af_packet.ko\nkernel/lib/core.ko\n")
            .unwrap();
        (root.join("vmlinuz"), folder)
    }

    #[test]
    fn wanted_modules_are_taken_with_what_they_need_and_others_are_left() {
        let root = tempfile::tempdir().unwrap();
        let modules = [("virtio_blk.ko", "ring,core"), ("ring.ko", ""), ("floppy.ko", "")];
        let (image, folder) = files(root.path(), &modules);
        let store = KernelStore::open(&root.path().join("store")).unwrap();
        let kernel = import(&store, &image, Some(&folder)).unwrap();
        assert_eq!(kernel.release, "6.1.0-1-test");
        assert!(kernel.image.ends_with("vmlinux"), "the image was left compressed");
        let names: Vec<&str> = kernel.modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["ring", "virtio_blk"]);
        assert!(kernel.modules_for(&["af_packet"]).unwrap().is_empty());
        store.verify(&kernel).unwrap();
    }

    #[test]
    fn a_module_that_lacks_what_it_needs_is_named() {
        let root = tempfile::tempdir().unwrap();
        let (image, folder) = files(root.path(), &[("virtio_blk.ko", "nowhere")]);
        let store = KernelStore::open(&root.path().join("store")).unwrap();
        let error = import(&store, &image, Some(&folder)).unwrap_err();
        assert!(matches!(error, ImportError::Incomplete { needs, .. } if needs == "nowhere"));
    }

    #[test]
    fn files_that_haven_t_changed_aren_t_read_again() {
        let root = tempfile::tempdir().unwrap();
        let (image, folder) = files(root.path(), &[]);
        let store = KernelStore::open(&root.path().join("store")).unwrap();
        let first = known(&store, &image, Some(&folder)).unwrap();
        assert_eq!(store.noted(&key(&image, Some(&folder)).unwrap()), Some(first.clone()));
        fs::write(&image, an_elf(18)).unwrap();
        let second = known(&store, &image, Some(&folder)).unwrap();
        assert_eq!(second.digest, first.digest, "the same image, unpacked, is the same kernel");
        fs::write(&image, b"no kernel").unwrap();
        assert!(matches!(known(&store, &image, Some(&folder)), Err(ImportError::NotAKernel(_))));
    }

    #[test]
    fn the_newest_bootable_kernel_with_modules_comes_first() {
        let root = tempfile::tempdir().unwrap();
        let (boot, modules) = (root.path().join("boot"), root.path().join("lib"));
        fs::create_dir_all(&boot).unwrap();
        for release in ["6.1.0-9", "6.1.0-56", "6.9.0"] {
            fs::write(boot.join(format!("vmlinuz-{release}")), b"").unwrap();
        }
        for release in ["6.1.0-9", "6.1.0-56"] {
            fs::create_dir_all(modules.join(release)).unwrap();
        }
        let found = in_boot(&boot, &modules);
        assert_eq!(found, [boot.join("vmlinuz-6.1.0-56"), boot.join("vmlinuz-6.1.0-9")]);
    }
}
