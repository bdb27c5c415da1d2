//! The initramfs: the guest's PID 1 and the modules that it loads, in the kernel's own archive format.
//!
//! ```text
//!   /init                 the guest binary
//!   /modules/00-virtio.ko ...
//!   /modules/load         their file names, one a line, in the order to load them
//!   /dev/console          character device 5:1
//! ```
//!
//! The archive is "newc" cpio (`Documentation/driver-api/early-userspace/buffer-format.rst` in the kernel's sources), not
//! compressed: the guest would pay for unpacking, and the host reads it from its page cache. The same input gives the same
//! bytes.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::kernel::{Kernel, MissingModule};

/// Changes whenever the same input would give other bytes.
const LAYOUT: &str = "initramfs 2";

/// Why there is no initramfs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitramfsError {
    /// The kernel lacks a module.
    #[error("the guest kernel can't do what this machine needs")]
    Module(#[source] MissingModule),
    /// A module can't be read.
    #[error("can't read the kernel module {}", path.display())]
    Read {
        /// The module.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive can't be kept.
    #[error("can't keep the initramfs in {}", folder.display())]
    Keep {
        /// The cache folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is too large for the format.
    #[error("{0} is larger than the 4 GiB that the archive format can hold")]
    TooLarge(String),
}

/// Returns the path of the initramfs with this `init` and the modules `wanted` (with all that they need), making it if it
/// isn't in `folder` yet. `init_digest` stands for `init` in the cache's key: 64 hexadecimal digits of SHA-256.
///
/// The file appears whole or not at all, also when this is killed, and any number of processes can do this at once.
pub fn cached(
    folder: &Path,
    kernel: &Kernel,
    wanted: &[&str],
    init: &[u8],
    init_digest: &str,
) -> Result<PathBuf, InitramfsError> {
    let modules = kernel.modules_for(wanted).map_err(InitramfsError::Module)?;
    let names: Vec<String> = modules.iter().enumerate().map(|(place, path)| numbered(place, path)).collect();
    let key = key(&kernel.digest, init_digest, &names);
    let target = folder.join(format!("{key}.cpio"));
    if target.is_file() {
        return Ok(target);
    }
    let mut contents = Vec::with_capacity(modules.len());
    for (name, path) in names.into_iter().zip(modules) {
        let bytes = fs::read(&path).map_err(|source| InitramfsError::Read { path, source })?;
        contents.push((name, bytes));
    }
    let archive = build(init, &contents)?;
    keep(folder, &target, &archive)
        .map_err(|source| InitramfsError::Keep { folder: folder.to_owned(), source })?;
    Ok(target)
}

fn numbered(place: usize, path: &Path) -> String {
    format!("{place:02}-{}", path.file_name().unwrap_or_default().to_string_lossy())
}

fn key(kernel: &str, init: &str, names: &[String]) -> String {
    let mut hash = Sha256::new();
    for part in [LAYOUT, kernel, init].into_iter().chain(names.iter().map(String::as_str)) {
        hash.update(part.as_bytes());
        hash.update(b"\n");
    }
    crate::kernel::hex(&hash.finalize())
}

fn keep(folder: &Path, target: &Path, archive: &[u8]) -> io::Result<()> {
    crate::private_folder(folder)?;
    let mut file = tempfile::Builder::new().prefix(".initramfs-").tempfile_in(folder)?;
    file.write_all(archive)?;
    file.as_file().set_permissions(crate::readable_by_all())?;
    file.as_file().sync_all()?;
    file.persist(target).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}

/// Makes the archive. `modules` are file names and contents in the order in which they are loaded.
pub fn build(init: &[u8], modules: &[(String, Vec<u8>)]) -> Result<Vec<u8>, InitramfsError> {
    let mut list = String::new();
    for (name, _) in modules {
        list.push_str(name);
        list.push('\n');
    }
    let size = modules.iter().map(|(_, bytes)| bytes.len()).fold(init.len(), usize::saturating_add);
    let mut archive = Archive { bytes: Vec::with_capacity(size.saturating_add(64 * 1024)), inode: 0 };
    archive.folder("dev")?;
    archive.entry("dev/console", Kind::Device(5, 1), 0o600, &[])?;
    archive.folder("modules")?;
    archive.entry("init", Kind::File, 0o755, init)?;
    for (name, bytes) in modules {
        archive.entry(&format!("modules/{name}"), Kind::File, 0o644, bytes)?;
    }
    archive.entry("modules/load", Kind::File, 0o644, list.as_bytes())?;
    archive.entry("TRAILER!!!", Kind::End, 0, &[])?;
    Ok(archive.bytes)
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    File,
    Folder,
    Device(u32, u32),
    End,
}

struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn folder(&mut self, name: &str) -> Result<(), InitramfsError> {
        self.entry(name, Kind::Folder, 0o755, &[])
    }

    fn entry(&mut self, name: &str, kind: Kind, mode: u32, content: &[u8]) -> Result<(), InitramfsError> {
        let too_large = |_| InitramfsError::TooLarge(name.to_owned());
        let length = u32::try_from(content.len()).map_err(too_large)?;
        let name_length = u32::try_from(name.len().saturating_add(1)).map_err(too_large)?;
        let (file_type, links, (major, minor)) = match kind {
            Kind::File => (0o100_000, 1, (0, 0)),
            Kind::Folder => (0o040_000, 2, (0, 0)),
            Kind::Device(major, minor) => (0o020_000, 1, (major, minor)),
            Kind::End => (0, 1, (0, 0)),
        };
        self.inode = if kind == Kind::End { 0 } else { self.inode.saturating_add(1) };
        // inode, mode, uid, gid, links, mtime, size, device, the device that it is, name's length, checksum
        let fields =
            [self.inode, file_type | mode, 0, 0, links, 0, length, 0, 0, major, minor, name_length, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
        Ok(())
    }

    fn align(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a newc archive as the kernel does: name, mode, content.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let whole = bytes.len();
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |n: usize| {
                u32::from_str_radix(std::str::from_utf8(&bytes[6 + 8 * n..14 + 8 * n]).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            let begin = (110 + name_size).next_multiple_of(4);
            let content = bytes[begin..begin + size].to_vec();
            bytes = &bytes[(begin + size).next_multiple_of(4)..];
            assert_eq!((whole - bytes.len()) % 4, 0);
            if name == "TRAILER!!!" {
                assert!(bytes.is_empty());
                return entries;
            }
            entries.push((name, mode, content));
        }
    }

    proptest! {
        #[test]
        fn what_is_put_in_comes_out_in_load_order(
            init in proptest::collection::vec(any::<u8>(), 0..300),
            modules in proptest::collection::vec(("[a-z0-9_-]{1,30}\\.ko", proptest::collection::vec(any::<u8>(), 0..99)), 0..9),
        ) {
            let archive = build(&init, &modules).unwrap();
            prop_assert_eq!(&archive, &build(&init, &modules).unwrap());
            let entries = read(&archive);
            prop_assert!(entries.contains(&("init".into(), 0o100_755, init)));
            let list: String = modules.iter().map(|(name, _)| format!("{name}\n")).collect();
            prop_assert!(entries.contains(&("modules/load".into(), 0o100_644, list.into_bytes())));
            for (name, bytes) in modules {
                let path = format!("modules/{}", name);
                prop_assert!(entries.contains(&(path, 0o100_644, bytes)));
            }
        }
    }

    #[test]
    fn a_cached_archive_is_made_once_per_content() {
        let folder = tempfile::tempdir().unwrap();
        let store = tempfile::tempdir().unwrap();
        let kernel = crate::kernel::tests::a_kernel(store.path());
        let first = cached(folder.path(), &kernel, &["b"], b"init", "d1").unwrap();
        let made = fs::metadata(&first).unwrap().modified().unwrap();
        let again = cached(folder.path(), &kernel, &["b"], b"init", "d1").unwrap();
        assert_eq!((&first, made), (&again, fs::metadata(&again).unwrap().modified().unwrap()));
        assert_ne!(first, cached(folder.path(), &kernel, &["b"], b"other", "d2").unwrap());
        assert_ne!(first, cached(folder.path(), &kernel, &["a"], b"init", "d1").unwrap());
        let names: Vec<String> = read(&fs::read(&first).unwrap()).into_iter().map(|entry| entry.0).collect();
        assert!(
            names.contains(&"modules/00-a.ko".to_owned()) && names.contains(&"modules/01-b.ko".to_owned()),
            "{names:?}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "something else was left behind");
    }
}
