//! Paths inside the root file system, which is somebody else's: no symbolic link leads out of it, and none leads through
//! `/proc` to a file that only this process has open.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use spacecore::wire::TO_BE_WRITTEN;

/// The root of the calling process.
#[derive(Debug)]
pub(crate) struct Inside {
    root: OwnedFd,
}

const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);

impl Inside {
    /// Takes the calling process' root.
    ///
    /// # Errors
    /// The root can't be opened.
    pub(crate) fn root() -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, "/", flags, Mode::empty())?;
        Ok(Self { root })
    }

    /// Opens a path.
    ///
    /// # Errors
    /// As `open(2)`, and for a link that it mustn't follow.
    pub(crate) fn open(&self, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        self.resolve(path, flags, mode, ResolveFlags::empty())
    }

    fn resolve(&self, path: &str, flags: OFlags, mode: Mode, more: ResolveFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, mode, resolve)
    }

    /// Opens a folder, which is made, with its parents, if it doesn't exist.
    ///
    /// # Errors
    /// Part of the path is no folder, or can't be made.
    pub(crate) fn make_folder(&self, path: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        let mut folder = self.open("/", flags, Mode::empty())?;
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let (so_far, name) = (&path[..end], last_name(&path[..end]));
            if name.is_empty() {
                continue;
            }
            folder = match self.open(so_far, flags, Mode::empty()) {
                Err(Errno::NOENT) if name != ".." => {
                    rustix::fs::mkdirat(&folder, name, FOLDER_MODE)?;
                    self.open(so_far, flags, Mode::empty())?
                }
                result => result?,
            };
        }
        Ok(folder)
    }

    /// Opens a folder that is there.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn open_folder(&self, path: &str) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
    }

    /// Opens a path that is to be mounted over as a file; an empty file is made if it doesn't exist.
    ///
    /// # Errors
    /// Part of the path is no folder, or the file can't be made.
    pub(crate) fn make_file(&self, path: &str) -> Result<OwnedFd, Errno> {
        match self.open(path, OFlags::PATH, Mode::empty()) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        let folder = self.make_folder(parent(path))?;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&folder, last_name(path), flags, Mode::from_raw_mode(0o644))?;
        self.open(path, OFlags::PATH, Mode::empty())
    }

    /// Replaces a file's content. A link that leads nowhere or to another mount, or anything else that can't be written,
    /// makes place for a plain file. What lies on another mount itself is somebody else's and stays as it is, but for a file with
    /// [`TO_BE_WRITTEN`] in it.
    ///
    /// # Errors
    /// The file can't be made or written.
    pub(crate) fn write_file(&self, path: &str, content: &str) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NONBLOCK;
        let mode = Mode::from_raw_mode(0o644);
        let file = match self.resolve(path, flags, mode, ResolveFlags::NO_XDEV) {
            Ok(file) => file,
            Err(Errno::XDEV) if self.read_file(path) == TO_BE_WRITTEN => self.open(path, flags, mode)?,
            Err(Errno::XDEV) if !self.is_own_link(path) => return Ok(()),
            Err(_) => {
                let folder = self.make_folder(parent(path))?;
                match rustix::fs::unlinkat(&folder, last_name(path), rustix::fs::AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(error),
                }
                let flags = flags | OFlags::EXCL | OFlags::CLOEXEC;
                rustix::fs::openat(&folder, last_name(path), flags, mode)?
            }
        };
        let mut rest = content.as_bytes();
        while !rest.is_empty() {
            let length = rustix::io::write(&file, rest)?;
            rest = &rest[length..];
        }
        Ok(())
    }

    /// Whether this is a link, and one that lies on the root's own mount.
    fn is_own_link(&self, path: &str) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let found =
            self.resolve(path, flags, Mode::empty(), ResolveFlags::NO_XDEV).and_then(rustix::fs::fstat);
        found.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    }

    /// Reads a text file of at most 16 MiB; anything else than a plain file that can be read counts as empty.
    pub(crate) fn read_file(&self, path: &str) -> String {
        use std::io::Read;
        const LIMIT: u64 = 16 * 1024 * 1024;
        let mut bytes = Vec::new();
        if let Ok(file) = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
            let file = std::fs::File::from(file);
            if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                let _ = file.take(LIMIT).read_to_end(&mut bytes);
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A path that means what this descriptor is open on, for system calls that take only paths; needs `/proc`.
pub(crate) fn of_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn last_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or("")
}

fn parent(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rfind('/').map_or("/", |at| &path[..at.max(1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cut_into_parent_and_name() {
        assert_eq!((parent("/a/b/"), last_name("/a/b/")), ("/a", "b"));
        assert_eq!((parent("/a"), last_name("/a")), ("/", "a"));
        assert_eq!((parent("/"), last_name("/")), ("/", ""));
    }

    fn inside() -> (tempfile_free::Folder, Inside) {
        let folder = tempfile_free::Folder::new();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&folder.0, flags, Mode::empty()).unwrap();
        (folder, Inside { root })
    }

    /// A folder for one test, without a crate for it.
    mod tempfile_free {
        use std::path::PathBuf;
        use std::sync::atomic::{AtomicU32, Ordering};

        pub(super) struct Folder(pub(super) PathBuf);

        impl Folder {
            pub(super) fn new() -> Self {
                static NUMBER: AtomicU32 = AtomicU32::new(0);
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let path = std::env::temp_dir().join(format!("spacecore-{}-{number}", std::process::id()));
                std::fs::create_dir_all(&path).unwrap();
                Self(path)
            }
        }

        impl Drop for Folder {
            fn drop(&mut self) {
                let _ = std::fs::remove_dir_all(&self.0);
            }
        }
    }

    #[test]
    fn links_never_lead_out_of_the_root() {
        let (folder, inside) = inside();
        let outside = tempfile_free::Folder::new();
        std::os::unix::fs::symlink(&outside.0, folder.0.join("out")).unwrap();
        std::os::unix::fs::symlink("../../../../../../etc", folder.0.join("up")).unwrap();
        assert!(inside.make_folder("/out/new").is_err(), "the target doesn't exist inside");
        assert!(inside.make_folder("/up/new").is_err());
        inside.make_folder("/../../a/../b/c").unwrap();
        assert!(std::fs::read_dir(&outside.0).unwrap().next().is_none());
        assert!(folder.0.join("b/c").is_dir() || folder.0.join("a").is_dir());
    }

    #[test]
    fn a_file_replaces_a_link_that_leads_nowhere_and_follows_one_that_leads_inside() {
        let (folder, inside) = inside();
        std::fs::create_dir_all(folder.0.join("run")).unwrap();
        std::os::unix::fs::symlink("/run/resolv", folder.0.join("a")).unwrap();
        std::os::unix::fs::symlink("/nowhere/resolv", folder.0.join("b")).unwrap();
        inside.write_file("/a", "one").unwrap();
        inside.write_file("/b", "two").unwrap();
        inside.write_file("/c/d", "three").unwrap();
        assert_eq!(inside.read_file("/run/resolv"), "one");
        assert!(folder.0.join("b").symlink_metadata().unwrap().is_file());
        assert_eq!(inside.read_file("/c/d"), "three");
    }

    #[test]
    fn what_is_no_plain_file_reads_as_empty() {
        let (_folder, inside) = inside();
        inside.make_folder("/passwd").unwrap();
        assert_eq!(inside.read_file("/passwd"), "");
        assert_eq!(inside.read_file("/missing"), "");
    }

    #[test]
    fn a_missing_file_is_made_with_its_folders() {
        let (folder, inside) = inside();
        inside.make_file("/x/y/file").unwrap();
        assert!(folder.0.join("x/y/file").is_file());
    }
}
