//! Makes files of an archive, below one folder and nowhere else.
//!
//! ```text
//!  a folder that isn't there yet    made under a temporary name, renamed once it is whole
//!  a folder that is there           its files are replaced one by one
//!  a file or link                   made under a temporary name beside its place, then renamed over it
//! ```
//!
//! Every path is opened by `openat2` below the folder, without links: not even one that the archive itself has brought along is
//! followed. What was made under a temporary name goes when the [`Unpacker`] is dropped before its end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::error::shown;
use super::names::{joined, names};
use super::place::Landing;
use super::read::Reader;
use super::{ArchiveError, Entry, Kind, Time};

/// What temporary names begin with.
pub const TEMPORARY: &str = ".vimana-cp-";

/// A folder that was made here, whose permissions and time are set once all in it is there.
#[derive(Debug)]
struct Made {
    path: Vec<Vec<u8>>,
    mode: u32,
    modified: Time,
}

/// A folder that is being made: its name, and the temporary one that it has until it is whole.
#[derive(Debug)]
struct Staged {
    name: Vec<u8>,
    temporary: Vec<u8>,
}

/// Files on their way out of an archive.
#[derive(Debug)]
pub struct Unpacker {
    landing: Landing,
    /// The archive's one root, where it gets another name.
    root: Option<Vec<u8>>,
    staged: Option<Staged>,
    made: Vec<Made>,
    /// The temporary file that isn't renamed yet: its folder and name.
    loose: Option<(OwnedFd, Vec<u8>)>,
}

impl Unpacker {
    /// Begins to make files there.
    pub fn new(landing: Landing) -> Self {
        Self { landing, root: None, staged: None, made: Vec::new(), loose: None }
    }

    /// Makes all that an archive holds.
    ///
    /// # Errors
    /// It holds what can't be made, or isn't whole.
    pub fn unpack<R: Read>(mut self, reader: &mut Reader<R>) -> Result<(), ArchiveError> {
        let mut buffer = vec![0; 64 * 1024];
        let mut is_empty = true;
        while let Some(entry) = reader.next_entry()? {
            is_empty = false;
            self.entry(&entry, reader, &mut buffer)?;
        }
        if is_empty {
            return Err(ArchiveError::Header("it is empty"));
        }
        self.commit()
    }

    fn entry<R: Read>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R>,
        buffer: &mut [u8],
    ) -> Result<(), ArchiveError> {
        let wanted = self.target(&entry.path)?;
        let is_folder = entry.kind == Kind::Folder;
        let Some(top) = wanted.first() else {
            return match is_folder {
                // The folder itself, which is there.
                true => Ok(()),
                false => Err(ArchiveError::path(&entry.path, "it has no name")),
            };
        };
        if self.landing.wants_folder && !is_folder && wanted.len() == 1 {
            return Err(ArchiveError::path(top, "a slash behind it asks for a folder, and there is none"));
        }
        self.stage(top, is_folder || wanted.len() > 1)?;
        let path = self.present(&wanted);
        self.leave_folders(&path)?;
        let (name, folders) = path.split_last().ok_or(ArchiveError::Header("an entry has no name"))?;
        let folder = self.make_folders(folders)?;
        let failed = |error: Errno| ArchiveError::at(&entry.path, error);
        match &entry.kind {
            Kind::Folder => {
                let permissions = Mode::from_raw_mode(0o700);
                match rustix::fs::mkdirat(&folder, &name[..], permissions) {
                    Ok(()) => {}
                    Err(Errno::EXIST) if is_a_folder(&folder, name) => return Ok(()),
                    Err(Errno::EXIST) => return Err(in_the_way(&entry.path, false)),
                    Err(error) => return Err(failed(error)),
                }
                self.made.push(Made { path, mode: entry.mode, modified: entry.modified });
                Ok(())
            }
            Kind::File { .. } => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let temporary = temporary().map_err(failed)?;
                let mode = Mode::from_raw_mode(0o600);
                let file = rustix::fs::openat(&folder, &temporary[..], flags, mode).map_err(failed)?;
                let name = name.clone();
                self.loose = Some((folder, temporary));
                let mut file = File::from(file);
                loop {
                    let read = reader.read_data(buffer)?;
                    if read == 0 {
                        break;
                    }
                    file.write_all(&buffer[..read]).map_err(|error| ArchiveError::at(&entry.path, error))?;
                }
                rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(failed)?;
                rustix::fs::futimens(&file, &times(entry.modified)).map_err(failed)?;
                self.put_in_place(&name, &entry.path)
            }
            Kind::Symlink { target } => {
                let temporary = temporary().map_err(failed)?;
                rustix::fs::symlinkat(&target[..], &folder, &temporary[..]).map_err(failed)?;
                let (name, flags) = (name.clone(), AtFlags::SYMLINK_NOFOLLOW);
                let timed = rustix::fs::utimensat(&folder, &temporary[..], &times(entry.modified), flags);
                self.loose = Some((folder, temporary));
                timed.map_err(failed)?;
                self.put_in_place(&name, &entry.path)
            }
            Kind::HardLink { target } => {
                let (name, temporary) = (name.clone(), temporary().map_err(failed)?);
                self.link(target, &folder, &temporary)?;
                self.loose = Some((folder, temporary));
                self.put_in_place(&name, &entry.path)
            }
        }
    }

    /// Gives a file that this archive has brought along, or that was there, another name.
    fn link(&self, target: &[u8], folder: &OwnedFd, temporary: &[u8]) -> Result<(), ArchiveError> {
        let failed = |error: Errno| ArchiveError::at(target, error);
        let other = self.present(&self.target_of_link(target)?);
        let (other_name, folders) =
            other.split_last().ok_or(ArchiveError::path(target, "a hard link leads to a file"))?;
        let other_folder = self.open_folder(folders).map_err(failed)?;
        let stat = rustix::fs::statat(&other_folder, &other_name[..], AtFlags::SYMLINK_NOFOLLOW);
        if FileType::from_raw_mode(stat.map_err(failed)?.st_mode) != FileType::RegularFile {
            return Err(ArchiveError::path(target, "a hard link leads to a plain file"));
        }
        let flags = AtFlags::empty();
        rustix::fs::linkat(&other_folder, &other_name[..], folder, temporary, flags).map_err(failed)
    }

    /// Where an entry is meant to be, below the folder.
    fn target(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, ArchiveError> {
        let names = names(path)?;
        if self.landing.renames
            && let Some(first) = names.first()
        {
            let root = self.root.get_or_insert_with(|| first.to_vec());
            if root != first {
                return Err(ArchiveError::path(path, "there is more than the one thing that was asked for"));
            }
        }
        Ok(self.landed(&names))
    }

    fn target_of_link(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, ArchiveError> {
        let names = names(path)?;
        match names.first() {
            Some(first) if self.landing.renames && self.root.as_deref() != Some(*first) => {
                Err(ArchiveError::path(path, "a hard link leads to a file of the same archive"))
            }
            _ => Ok(self.landed(&names)),
        }
    }

    fn landed(&self, names: &[&[u8]]) -> Vec<Vec<u8>> {
        let rest = names.get(usize::from(self.landing.renames)..).unwrap_or_default();
        let first = self.landing.name.iter().cloned();
        first.chain(rest.iter().map(|name| name.to_vec())).collect()
    }

    /// Where an entry is at present: below the temporary name, as long as its folder isn't whole.
    fn present(&self, target: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut path = target.to_vec();
        if let (Some(staged), Some(top)) = (&self.staged, path.first_mut())
            && *top == staged.name
        {
            top.clone_from(&staged.temporary);
        }
        path
    }

    /// Sees to it that what has this name at the top is staged, if it is a folder that isn't there.
    fn stage(&mut self, top: &[u8], is_folder: bool) -> Result<(), ArchiveError> {
        if self.staged.as_ref().is_some_and(|staged| staged.name == top) {
            return Ok(());
        }
        self.commit()?;
        if !is_folder {
            return Ok(());
        }
        match rustix::fs::statat(&self.landing.folder, top, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                let temporary = temporary().map_err(|error| ArchiveError::at(top, error))?;
                self.staged = Some(Staged { name: top.to_vec(), temporary });
                Ok(())
            }
            Err(error) => Err(ArchiveError::at(top, error)),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(()),
            Ok(_) => Err(in_the_way(top, false)),
        }
    }

    /// Gives the staged folder its name.
    fn commit(&mut self) -> Result<(), ArchiveError> {
        self.leave_folders(&[])?;
        let Some(staged) = &self.staged else { return Ok(()) };
        let folder = &self.landing.folder;
        let (from, to) = (&staged.temporary[..], &staged.name[..]);
        match rustix::fs::renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
            // Not every file system can promise not to replace; a folder replaces nothing but an empty one.
            Err(Errno::INVAL) => rustix::fs::renameat(folder, from, folder, to),
            result => result,
        }
        .map_err(|error| ArchiveError::at(to, error))?;
        self.staged = None;
        Ok(())
    }

    /// Finishes the folders that this path doesn't lie in, innermost first.
    fn leave_folders(&mut self, path: &[Vec<u8>]) -> Result<(), ArchiveError> {
        while let Some(made) = self.made.pop_if(|made| !path.starts_with(&made.path)) {
            let shown = || made.path.join(&b'/');
            let failed = |error: Errno| ArchiveError::at(&shown(), error);
            let folder = self.open(&made.path, OFlags::RDONLY).map_err(failed)?;
            rustix::fs::fchmod(&folder, Mode::from_raw_mode(made.mode)).map_err(failed)?;
            rustix::fs::futimens(&folder, &times(made.modified)).map_err(failed)?;
        }
        Ok(())
    }

    fn open(&self, path: &[Vec<u8>], flags: OFlags) -> Result<OwnedFd, Errno> {
        let names: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.landing.folder, joined(&names), flags, Mode::empty(), resolve)
    }

    fn open_folder(&self, path: &[Vec<u8>]) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::PATH)
    }

    /// Opens a folder; those on the way that the archive says nothing about are made.
    fn make_folders(&self, path: &[Vec<u8>]) -> Result<OwnedFd, ArchiveError> {
        let failed = |error: Errno| match error {
            Errno::LOOP | Errno::NOTDIR => in_the_way(&path.join(&b'/'), false),
            _ => ArchiveError::at(&path.join(&b'/'), error),
        };
        match self.open_folder(path) {
            Err(Errno::NOENT) => {}
            result => return result.map_err(failed),
        }
        let mut folder = self.open_folder(&[]).map_err(failed)?;
        for end in 1..=path.len() {
            folder = match self.open_folder(&path[..end]) {
                Err(Errno::NOENT) => {
                    let permissions = Mode::from_raw_mode(0o755);
                    rustix::fs::mkdirat(&folder, &path[end - 1][..], permissions).map_err(failed)?;
                    self.open_folder(&path[..end]).map_err(failed)?
                }
                result => result.map_err(failed)?,
            };
        }
        Ok(folder)
    }

    /// Renames the temporary file over its place.
    fn put_in_place(&mut self, name: &[u8], path: &[u8]) -> Result<(), ArchiveError> {
        let Some((folder, temporary)) = &self.loose else { return Ok(()) };
        match rustix::fs::renameat(folder, &temporary[..], folder, name) {
            Ok(()) => {}
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => return Err(in_the_way(path, true)),
            Err(error) => return Err(ArchiveError::at(path, error)),
        }
        // Two names of the same file stay two where one is renamed to the other.
        let _ = rustix::fs::unlinkat(folder, &temporary[..], AtFlags::empty());
        self.loose = None;
        Ok(())
    }
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        if let Some((folder, name)) = &self.loose {
            let _ = rustix::fs::unlinkat(folder, &name[..], AtFlags::empty());
        }
        if let Some(staged) = &self.staged {
            remove(&self.landing.folder, &staged.temporary);
        }
    }
}

/// Removes a folder with all that is in it, as far as that is possible; follows no link.
fn remove(folder: &OwnedFd, name: &[u8]) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(inner) = rustix::fs::openat(folder, name, flags, Mode::empty()) {
        let _ = rustix::fs::fchmod(&inner, Mode::from_raw_mode(0o700));
        for item in rustix::fs::Dir::read_from(&inner).into_iter().flatten().flatten() {
            let name = item.file_name().to_bytes();
            if !matches!(name, b"." | b"..") && rustix::fs::unlinkat(&inner, name, AtFlags::empty()).is_err()
            {
                remove(&inner, name);
            }
        }
    }
    let _ = rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR);
}

fn is_a_folder(folder: &OwnedFd, name: &[u8]) -> bool {
    let stat = rustix::fs::statat(folder.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn in_the_way(path: &[u8], is_folder: bool) -> ArchiveError {
    let what = match is_folder {
        true => "it is a folder there, and no folder is to be put in its place",
        false => "it is no folder there, or a link, and a folder is to be put in its place",
    };
    ArchiveError::InTheWay { path: shown(path), what }
}

fn temporary() -> Result<Vec<u8>, Errno> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{TEMPORARY}{:016x}", u64::from_ne_bytes(random)).into_bytes())
}

fn times(modified: Time) -> Timestamps {
    let time = Timespec { tv_sec: modified.seconds, tv_nsec: i64::from(modified.nanoseconds) };
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    Timestamps { last_access: now, last_modification: time }
}
