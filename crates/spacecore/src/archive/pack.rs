//! Walks a folder into an archive.
//!
//! Every step goes from a descriptor to a name in it, never through a link: whoever swaps a folder for a link while it is copied
//! gets the link copied, or an error, and never what it leads to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::shown;
use super::write::Writer;
use super::{ArchiveError, Entry, Kind, MAX_DEPTH, MAX_PATH, PERMISSIONS, Time};

/// Files with several names that are remembered; what is beyond travels once for each name.
const MAX_LINKED: usize = 64 * 1024;

/// File systems of the kernel's own, which hold no files to copy: proc, sysfs, devpts, cgroup, cgroup2, mqueue, debugfs, tracefs,
/// securityfs, bpf (`linux/magic.h`).
const KERNEL_S: [u64; 10] = [
    0x9fa0,
    0x6265_6572,
    0x1cd1,
    0x0027_e0eb,
    0x6367_7270,
    0x1980_0202,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
];

/// A walk on its way into an archive.
pub struct Packer<'a, W: Write> {
    writer: Writer<W>,
    /// Told of what isn't copied: its path, and what it is.
    skipped: &'a mut dyn FnMut(&str, &str),
    linked: BTreeMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl<'a, W: Write> Packer<'a, W> {
    /// Begins an archive. `skipped` is told of sockets, devices and the like, with what they are.
    pub fn new(output: W, skipped: &'a mut dyn FnMut(&str, &str)) -> Self {
        Self { writer: Writer::new(output), skipped, linked: BTreeMap::new(), buffer: vec![0; 64 * 1024] }
    }

    /// Adds what this name is in this folder, a link as a link.
    ///
    /// # Errors
    /// It can't be read, or the stream can't be written.
    pub fn add(&mut self, folder: BorrowedFd<'_>, name: &[u8]) -> Result<(), ArchiveError> {
        self.step(folder, name, name.to_vec(), 0)
    }

    /// Adds what a folder holds, with the folder itself as `.`.
    ///
    /// # Errors
    /// As [`Packer::add`].
    pub fn add_contents(&mut self, folder: OwnedFd) -> Result<(), ArchiveError> {
        let stat = rustix::fs::fstat(&folder).map_err(|error| ArchiveError::at(b".", error))?;
        self.folder(folder, &stat, b".".to_vec(), 0)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// The stream can't be written.
    pub fn finish(self) -> Result<(), ArchiveError> {
        self.writer.finish().map(drop)
    }

    fn step(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: Vec<u8>,
        depth: usize,
    ) -> Result<(), ArchiveError> {
        let failed = |error: Errno| ArchiveError::at(&path, error);
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let file = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed)?;
                self.file(file, path)
            }
            FileType::Directory => {
                let flags = flags | OFlags::DIRECTORY;
                let folder = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed)?;
                let stat = rustix::fs::fstat(&folder).map_err(failed)?;
                self.folder(folder, &stat, path, depth)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(failed)?;
                let kind = Kind::Symlink { target: target.into_bytes() };
                self.writer.begin(&entry(path, kind, &stat))
            }
            FileType::Fifo => self.skip(&path, "a named pipe"),
            FileType::Socket => self.skip(&path, "a socket"),
            FileType::CharacterDevice | FileType::BlockDevice => self.skip(&path, "a device"),
            FileType::Unknown => self.skip(&path, "of an unknown kind"),
        }
    }

    fn skip(&mut self, path: &[u8], what: &str) -> Result<(), ArchiveError> {
        (self.skipped)(&shown(path), what);
        Ok(())
    }

    fn folder(
        &mut self,
        folder: OwnedFd,
        stat: &Stat,
        path: Vec<u8>,
        depth: usize,
    ) -> Result<(), ArchiveError> {
        if depth > MAX_DEPTH {
            return Err(ArchiveError::path(&path, "it lies in more than 200 folders"));
        }
        let failed = |error: Errno| ArchiveError::at(&path, error);
        let system = rustix::fs::fstatfs(&folder).map_err(failed)?;
        if u64::try_from(system.f_type).is_ok_and(|magic| KERNEL_S.contains(&magic)) {
            return self.skip(&path, "a file system of the kernel's own");
        }
        self.writer.begin(&entry(path.clone(), Kind::Folder, stat))?;
        for item in Dir::read_from(&folder).map_err(failed)? {
            let item = item.map_err(failed)?;
            let name = item.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let below = [&path, &b"/"[..], name].concat();
            if below.len() > MAX_PATH {
                return Err(ArchiveError::path(&below, "a path has at most 4095 bytes"));
            }
            match self.step(folder.as_fd(), name, below, depth + 1) {
                // It went away since the folder was read: as if it had gone before.
                Err(ArchiveError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn file(&mut self, file: OwnedFd, path: Vec<u8>) -> Result<(), ArchiveError> {
        let failed = |path: &[u8], error: std::io::Error| ArchiveError::at(path, error);
        let stat = rustix::fs::fstat(&file).map_err(|error| failed(&path, error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return self.skip(&path, "no plain file any more");
        }
        if stat.st_nlink > 1 {
            let identity = (stat.st_dev, stat.st_ino);
            if let Some(target) = self.linked.get(&identity) {
                let kind = Kind::HardLink { target: target.clone() };
                return self.writer.begin(&entry(path, kind, &stat));
            }
            if self.linked.len() < MAX_LINKED {
                self.linked.insert(identity, path.clone());
            }
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.writer.begin(&entry(path.clone(), Kind::File { size }, &stat))?;
        let mut file = File::from(file);
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            match file.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(ArchiveError::Changed { path: shown(&path) }),
                Ok(read) => {
                    self.writer.data(&self.buffer[..read])?;
                    left -= read as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(&path, error)),
            }
        }
        Ok(())
    }
}

fn entry(path: Vec<u8>, kind: Kind, stat: &Stat) -> Entry {
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let modified = Time { seconds: stat.st_mtime, nanoseconds };
    Entry { path, kind, mode: stat.st_mode & PERMISSIONS, modified }
}
