//! From a stored layer to a folder tree, as overlayfs wants its lower folders.
//!
//! Everything is made by one name at a time below an open folder, which was itself opened by `openat2(2)` beneath the
//! tree's root and without any symbolic link, so that no layer can write anywhere else. A folder gets its attributes when
//! all that it holds is there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
    chmodat, chownat, fchmod, fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat,
    openat2, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::reader::{Entry, Kind, Piece, ReadError, Reader};
use super::shown;

/// How deep folders may be nested. Removing a tree takes an open file for each level.
const DEEPEST: usize = 256;
const PAGE: u64 = 4096;

/// Who makes the tree, which decides what it can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Root: owners, modes, device nodes and file capabilities as they are. Opaque folders are marked
    /// `trusted.overlay.opaque`.
    Root,
    /// Root of a user namespace with so many ids: owners and modes as they are, no device nodes and no file capabilities. Opaque
    /// folders are marked as for a user.
    Mapped(u32),
    /// Anybody else: everything is their own, and readable by them; no device nodes. Opaque folders are marked
    /// `user.overlay.opaque`, for a mount with `userxattr`.
    User,
}

impl Form {
    fn opaque_mark(self) -> &'static str {
        match self {
            Form::Root => "trusted.overlay.opaque",
            Form::Mapped(_) | Form::User => "user.overlay.opaque",
        }
    }
}

/// A layer that can't become a tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// The stored layer can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file operation failed.
    #[error("can't {what} {path:?}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The entry in the layer.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Folders are nested too deep.
    #[error("{path:?} lies more than {DEEPEST} folders deep, and a tree for containers has at most so many")]
    Deep {
        /// The entry in the layer.
        path: String,
    },
}

/// Makes the tree in the empty folder `root`, and answers how many bytes it takes on disk, about.
pub(crate) fn extract(layer: &File, root: &OwnedFd, form: Form) -> Result<u64, ExtractError> {
    let reader = Reader::open(layer)?;
    let mut tree = Tree { root, form, parent: None, links: BTreeMap::new(), folders: Vec::new(), bytes: 0 };
    for entry in reader.entries() {
        tree.add(&reader, entry?)?;
    }
    tree.finish()
}

struct Tree<'t> {
    root: &'t OwnedFd,
    form: Form,
    /// The folder that the last entry lay in: entries of one folder mostly follow one another.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// For inodes that have several names, the first that was made.
    links: BTreeMap<u32, Vec<u8>>,
    /// The folders, which get their attributes at the end.
    folders: Vec<Entry>,
    bytes: u64,
}

impl Tree<'_> {
    fn add(&mut self, reader: &Reader<'_>, entry: Entry) -> Result<(), ExtractError> {
        if entry.path.is_empty() {
            self.folders.push(entry);
            return Ok(());
        }
        if entry.path.iter().filter(|byte| **byte == b'/').count() >= DEEPEST {
            return Err(ExtractError::Deep { path: shown(&entry.path) });
        }
        let (folder, name) = split(&entry.path);
        self.enter(folder, &entry.path)?;
        let Some((_, parent)) = &self.parent else { return Ok(()) };
        let failed = |what| {
            let path = shown(&entry.path);
            move |error: Errno| ExtractError::Io { what, path, source: error.into() }
        };
        if entry.kind != Kind::Directory && entry.links > 1 && self.link(&entry, parent, name)? {
            return Ok(());
        }
        match &entry.kind {
            Kind::Directory => {
                mkdirat(parent, name, Mode::RWXU).map_err(failed("make the folder"))?;
                self.bytes = self.bytes.saturating_add(PAGE);
                self.folders.push(entry);
                return Ok(());
            }
            Kind::File(_) => {
                let bytes = self.file(reader, &entry, parent, name)?;
                self.bytes = self.bytes.saturating_add(bytes);
            }
            Kind::Symlink(target) => {
                symlinkat(target.as_slice(), parent, name).map_err(failed("make the symbolic link"))?;
                self.own(&entry, parent, name, false).map_err(failed("set the attributes of"))?;
            }
            Kind::CharDevice { .. } if entry.is_whiteout() => {
                let mode = Mode::empty();
                mknodat(parent, name, FileType::CharacterDevice, mode, 0)
                    .map_err(failed("make the whiteout"))?;
            }
            // Sockets mean nothing without the process that listens.
            Kind::Socket => return Ok(()),
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } if self.form != Form::Root => return Ok(()),
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo => {
                let (kind, device) = match entry.kind {
                    Kind::CharDevice { major, minor } => (FileType::CharacterDevice, makedev(major, minor)),
                    Kind::BlockDevice { major, minor } => (FileType::BlockDevice, makedev(major, minor)),
                    _ => (FileType::Fifo, 0),
                };
                match mknodat(parent, name, kind, Mode::RUSR, device) {
                    Ok(()) => {}
                    // Root of a user namespace may not; nobody misses what could never be opened.
                    Err(Errno::PERM) if kind != FileType::Fifo => return Ok(()),
                    Err(error) => return Err(failed("make the node")(error)),
                }
                self.own(&entry, parent, name, true).map_err(failed("set the attributes of"))?;
            }
        }
        if entry.links > 1 {
            self.links.insert(entry.inode, entry.path);
        }
        Ok(())
    }

    /// Opens the folder that an entry lies in.
    fn enter(&mut self, folder: &[u8], path: &[u8]) -> Result<(), ExtractError> {
        if self.parent.as_ref().is_none_or(|(open, _)| open != folder) {
            let opened = self.open(folder).map_err(|error| ExtractError::Io {
                what: "open the folder of",
                path: shown(path),
                source: error.into(),
            })?;
            self.parent = Some((folder.to_vec(), opened));
        }
        Ok(())
    }

    /// Opens a folder of the tree, never anything else.
    fn open(&self, folder: &[u8]) -> Result<OwnedFd, Errno> {
        let path: &[u8] = if folder.is_empty() { b"." } else { folder };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(self.root, path, flags, Mode::empty(), resolve)
    }

    /// Gives an inode that is there already another name; `false` if it has to be made.
    fn link(&self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<bool, ExtractError> {
        let Some(first) = self.links.get(&entry.inode) else { return Ok(false) };
        let (folder, old) = split(first);
        match self.open(folder).and_then(|folder| linkat(folder, old, parent, name, AtFlags::empty())) {
            Ok(()) => Ok(true),
            // File systems have a limit; a copy reads the same.
            Err(Errno::MLINK) => Ok(false),
            Err(error) => {
                Err(ExtractError::Io { what: "link", path: shown(&entry.path), source: error.into() })
            }
        }
    }

    fn file(
        &self,
        reader: &Reader<'_>,
        entry: &Entry,
        parent: &OwnedFd,
        name: &[u8],
    ) -> Result<u64, ExtractError> {
        let failed = |what: &'static str, source: io::Error| {
            let path = shown(&entry.path);
            ExtractError::Io { what, path, source }
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.map_err(|error| failed("make the file", error.into()))?);
        let (mut at, mut stored) = (0u64, 0u64);
        if let Ok(mut content) = reader.content(entry) {
            while let Some(piece) = content.piece()? {
                match piece {
                    Piece::Bytes(bytes) => {
                        file.write_all_at(bytes, at).map_err(|error| failed("write", error))?;
                        at = at.saturating_add(bytes.len() as u64);
                        stored = stored.saturating_add(bytes.len() as u64);
                    }
                    Piece::Hole(length) => at = at.saturating_add(length),
                }
            }
        }
        if stored < at {
            file.set_len(at).map_err(|error| failed("write", error))?;
        }
        let fd = OwnedFd::from(file);
        self.describe(entry, &fd).map_err(|error| failed("set the attributes of", error.into()))?;
        Ok(stored.div_ceil(PAGE).saturating_mul(PAGE))
    }

    /// Gives a file or folder its owner, xattrs, mode and time, in the order in which none undoes another.
    fn describe(&self, entry: &Entry, fd: &OwnedFd) -> Result<(), Errno> {
        if let Some((uid, gid)) = self.owner(entry) {
            fchown(fd, uid, gid)?;
        }
        for (name, value) in &entry.xattrs {
            // Labels and signatures are the host's business; a file's capabilities are the image's.
            let kept =
                name.starts_with(b"user.") || (self.form == Form::Root && name == b"security.capability");
            if kept {
                match fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
                    Err(Errno::NOTSUP) if name.starts_with(b"user.") => {}
                    other => other?,
                }
            }
        }
        if entry.is_opaque() {
            fsetxattr(fd, self.form.opaque_mark(), b"y", XattrFlags::empty())?;
        }
        fchmod(fd, self.mode(entry))?;
        futimens(fd, &times(entry))
    }

    /// The same for what can't be opened.
    fn own(&self, entry: &Entry, parent: &OwnedFd, name: &[u8], has_mode: bool) -> Result<(), Errno> {
        if let Some((uid, gid)) = self.owner(entry) {
            chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if has_mode {
            // What it names was just made, and is no symbolic link.
            chmodat(parent, name, self.mode(entry), AtFlags::empty())?;
        }
        utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn mode(&self, entry: &Entry) -> Mode {
        let readable = match (self.form, &entry.kind) {
            (Form::Root | Form::Mapped(_), _) => 0,
            (Form::User, Kind::Directory) => 0o700,
            (Form::User, _) => 0o400,
        };
        Mode::from_raw_mode(u32::from(entry.mode) | readable)
    }

    /// Whose it becomes, where that can be chosen. The number that means "unchanged" to `chown(2)` is nobody's.
    fn owner(&self, entry: &Entry) -> Option<(Option<Uid>, Option<Gid>)> {
        let id = |id: u32| match self.form {
            Form::Mapped(count) if id >= count => Some(count.saturating_sub(2)),
            _ => (id != u32::MAX).then_some(id),
        };
        (self.form != Form::User)
            .then(|| (id(entry.uid).map(Uid::from_raw), id(entry.gid).map(Gid::from_raw)))
    }

    fn finish(self) -> Result<u64, ExtractError> {
        // From the last to the first, so that no folder is closed before those in it.
        for folder in self.folders.iter().rev() {
            self.open(&folder.path).and_then(|fd| self.describe(folder, &fd)).map_err(|error| {
                ExtractError::Io {
                    what: "set the attributes of the folder",
                    path: shown(&folder.path),
                    source: error.into(),
                }
            })?;
        }
        Ok(self.bytes)
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

fn times(entry: &Entry) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: i64::from(entry.mtime), tv_nsec: 0 },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;
    use crate::layer::{Limits, convert};

    /// Makes a layer's image of a file in a folder, with an opaque folder, a device and a whiteout beside it.
    fn layer() -> File {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(4242);
            header.set_gid(4243);
            header.set_mtime(1_000_000_000);
            header.set_size(content.len() as u64);
            if kind.is_character_special() {
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
            }
            tar.append_data(&mut header, path, content).unwrap();
        };
        add("etc", tar::EntryType::Directory, 0o555, b"");
        add("etc/passwd", tar::EntryType::Regular, 0o4001, b"root");
        add("etc/.wh.shadow", tar::EntryType::Regular, 0, b"");
        add("new", tar::EntryType::Directory, 0o755, b"");
        add("new/.wh..wh..opq", tar::EntryType::Regular, 0, b"");
        add("null", tar::EntryType::Char, 0o666, b"");
        let mut out = tempfile::tempfile().unwrap();
        convert(tar.into_inner().unwrap().as_slice(), &mut out, &Limits::default()).unwrap();
        out
    }

    fn opened(path: &Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    #[test]
    fn a_link_that_lies_in_the_way_is_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        for name in ["etc", "etc/passwd"] {
            let root = tempfile::tempdir().unwrap();
            if name == "etc/passwd" {
                fs::create_dir(root.path().join("etc")).unwrap();
            }
            symlink(outside.path().join("target"), root.path().join(name)).unwrap();
            extract(&layer(), &opened(root.path()), Form::User).unwrap_err();
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        }
        let root = tempfile::tempdir().unwrap();
        let fd = opened(root.path());
        symlink(outside.path(), root.path().join("etc")).unwrap();
        let tree = Tree {
            root: &fd,
            form: Form::User,
            parent: None,
            links: BTreeMap::new(),
            folders: Vec::new(),
            bytes: 0,
        };
        tree.open(b"etc").unwrap_err();
        assert_eq!(tree.open(b"etc/below").unwrap_err(), Errno::LOOP);
        assert_eq!(tree.open(b"..").unwrap_err(), Errno::XDEV);
    }

    #[test]
    fn for_a_user_everything_is_readable_and_no_device_is_made() {
        let root = tempfile::tempdir().unwrap();
        extract(&layer(), &opened(root.path()), Form::User).unwrap();
        let at = |name: &str| fs::symlink_metadata(root.path().join(name)).unwrap();
        assert_eq!(at("etc").permissions().mode() & 0o7777, 0o755);
        assert_eq!(at("etc/passwd").permissions().mode() & 0o7777, 0o4401);
        assert_eq!(at("etc/passwd").uid(), rustix::process::geteuid().as_raw());
        assert_eq!((at("etc/passwd").mtime(), at("etc").mtime()), (1_000_000_000, 1_000_000_000));
        assert_eq!((at("etc/shadow").mode() & 0o170_000, at("etc/shadow").rdev()), (0o020_000, 0));
        assert!(!root.path().join("null").exists());
        let mut mark = [0; 8];
        let length =
            rustix::fs::lgetxattr(root.path().join("new"), "user.overlay.opaque", &mut mark).unwrap();
        assert_eq!(&mark[..length], b"y");
    }
}
