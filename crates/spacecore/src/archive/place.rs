//! From where, and to where: what a person's path means on one side of a copy.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::names::split;
use super::pack::Packer;
use super::read::Reader;
use super::unpack::Unpacker;
use super::{ArchiveError, Limits};

/// The side of a copy that this process is on.
#[derive(Debug)]
pub enum Side {
    /// The whole of what this process sees: paths mean what they mean to it.
    Here,
    /// A root that somebody else may change at any time: no link leads out of it, nor through `/proc` to what this process has
    /// open.
    Root(OwnedFd),
}

/// Where an archive lands.
#[derive(Debug)]
pub struct Landing {
    /// Below which folder.
    pub(super) folder: OwnedFd,
    /// Under which name in it; none where each thing has its own.
    pub(super) name: Option<Vec<u8>>,
    /// Whether the name stands in the place of the archive's one root, rather than before its paths.
    pub(super) renames: bool,
    /// Whether only a folder can land there: the path ends with a slash.
    pub(super) wants_folder: bool,
}

/// Whether a path asks for what is in a folder, rather than for the folder.
pub fn means_contents(path: &[u8]) -> bool {
    split(path).1.is_none()
}

impl Side {
    /// Writes what is at this path to an archive: under its name, or, where the path [`means_contents`], as `.`. `skipped` is told of
    /// what can't be copied.
    ///
    /// # Errors
    /// It isn't there or can't be read, or the stream can't be written.
    pub fn pack(
        &self,
        path: &[u8],
        output: impl Write,
        skipped: &mut dyn FnMut(&str, &str),
    ) -> Result<(), ArchiveError> {
        let failed = |error: Errno| ArchiveError::at(path, error);
        let mut packer = Packer::new(output, skipped);
        match split(path) {
            (folder, Some(name)) => {
                let folder = self.folder(folder, OFlags::PATH).map_err(failed)?;
                // As with every other program, a slash behind it asks for a folder.
                if path.ends_with(b"/") {
                    self.folder(path, OFlags::PATH).map_err(failed)?;
                }
                match packer.add(folder.as_fd(), name) {
                    Err(ArchiveError::File { source, .. }) if is_missing(&source) => {
                        return Err(ArchiveError::at(path, source));
                    }
                    result => result?,
                }
            }
            (folder, None) => {
                packer.add_contents(self.folder(folder, OFlags::RDONLY).map_err(failed)?)?;
            }
        }
        packer.finish()
    }

    /// Makes files of an archive. Into a folder that is there things go under their own names; else the path names what is made.
    /// `contents` says that the archive holds what is in a folder rather than one thing.
    ///
    /// # Errors
    /// The place isn't there, the archive isn't whole, or holds what can't be made.
    pub fn unpack(
        &self,
        path: &[u8],
        contents: bool,
        input: impl Read,
        limits: Limits,
    ) -> Result<(), ArchiveError> {
        let landing = self.land(path, contents).map_err(|error| ArchiveError::at(path, error))?;
        Unpacker::new(landing).unpack(&mut Reader::new(input, limits))
    }

    /// Decides where an archive lands.
    fn land(&self, path: &[u8], contents: bool) -> Result<Landing, Errno> {
        match self.folder(path, OFlags::PATH) {
            Ok(folder) => return Ok(Landing { folder, name: None, renames: false, wants_folder: false }),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(error),
        }
        let (folder, name) = split(path);
        let name = name.ok_or(Errno::NOENT)?;
        let folder = self.folder(folder, OFlags::PATH)?;
        let wants_folder = path.ends_with(b"/");
        Ok(Landing { folder, name: Some(name.to_vec()), renames: !contents, wants_folder })
    }

    fn folder(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open(path, flags | OFlags::DIRECTORY)
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        match self {
            Self::Here => rustix::fs::openat(CWD, path, flags, Mode::empty()),
            Self::Root(root) => {
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
            }
        }
    }
}

fn is_missing(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
}
