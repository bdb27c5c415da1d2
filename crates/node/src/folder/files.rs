//! Requests about the content of files.
//!
//! What the guest's kernel has cached of a file stays valid from one opening to the next if the file is the same as
//! when the guest opened it before: same size, modification and change time, and at that time unchanged for longer than
//! the coarsest clock of a file system. Then a program that is run a hundred times crosses the channel once, and an edit
//! on the host still shows at the next opening.

use std::io::IoSlice;
use std::os::fd::AsFd;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{
    FallocateFlags, FileType, Mode, OFlags, SeekFrom, Stat, copy_file_range, fallocate, fdatasync, fstat,
    fsync, ftruncate, openat, seek,
};
use rustix::io::{Errno, ReadWriteFlags, pread, pwrite, pwritev2};

use super::Folder;
use super::handles::Use;
use super::names::allowed_mode;
use super::nodes::Version;
use super::protocol::{Header, Name};
use super::reply::Body;

/// The most that one `COPY_FILE_RANGE` copies, so that it doesn't hold up other requests; the guest asks for the rest.
const MOST_COPIED: u64 = 8 * 1024 * 1024;
/// Seconds for which a file must have been left alone for its times to prove that it is unchanged.
const QUIET_SECONDS: i64 = 2;

/// What the guest opens a file for: the access, and flags for the host's `open`.
fn access(flags: u32) -> Result<(Use, OFlags), Errno> {
    let given = OFlags::from_bits_retain(flags);
    let (purpose, access) = match given & OFlags::ACCMODE {
        OFlags::RDONLY => (Use::File { read: true, write: false }, OFlags::RDONLY),
        OFlags::WRONLY => (Use::File { read: false, write: true }, OFlags::WRONLY),
        OFlags::RDWR => (Use::File { read: true, write: true }, OFlags::RDWR),
        _ => return Err(Errno::INVAL),
    };
    // O_APPEND goes with each write: memory that is mapped and written back must land where it belongs.
    Ok((purpose, access | (given & (OFlags::SYNC | OFlags::DSYNC))))
}

fn truncates(flags: u32) -> bool {
    OFlags::from_bits_retain(flags).contains(OFlags::TRUNC)
}

fn writes(purpose: Use) -> bool {
    matches!(purpose, Use::File { write: true, .. })
}

impl Folder {
    pub(super) fn open_file(&mut self, node: u64, flags: u32, body: &mut Body<'_>) -> Result<(), Errno> {
        let (purpose, host_flags) = access(flags)?;
        let truncate = truncates(flags);
        if self.readonly && (truncate || writes(purpose)) {
            return Err(Errno::ROFS);
        }
        match self.nodes.kind(node)? {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            FileType::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::PERM),
        }
        self.handles.check_room()?;
        let file = self.nodes.open(node)?;
        let permit = self.nodes.make_room()?;
        let opened = permit.open(|| self.reopen(file.as_fd(), host_flags))?;
        if writes(purpose) {
            self.drop_set_ids(opened.as_fd())?;
        }
        if truncate && writes(purpose) {
            ftruncate(&opened, 0)?;
        } else if truncate {
            self.truncate(node, &file, None, 0)?;
        }
        let version = quiet_version(&fstat(&opened)?);
        let keep_cache = self.nodes.same_version(node, version);
        self.nodes.add_handle(node);
        body.opened(self.handles.add(node, purpose, opened), keep_cache);
        Ok(())
    }

    /// `CREATE`: makes a regular file and opens it. One that is there already, because the host was faster than the
    /// guest's own look, is opened like any node, so that nothing but a regular file can be.
    pub(super) fn create(
        &mut self,
        header: &Header,
        name: Name<'_>,
        flags: u32,
        mode: u32,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        let (purpose, host_flags) = access(flags)?;
        self.handles.check_room()?;
        let parent = self.directory(header.node)?;
        let mode = allowed_mode(mode, FileType::RegularFile);
        let create = host_flags
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let permit = self.nodes.make_room()?;
        let made = permit.open(|| openat(parent.as_fd(), name.as_c_str(), create, mode));
        let opened = match made {
            Ok(opened) => opened,
            Err(Errno::EXIST) if !OFlags::from_bits_retain(flags).contains(OFlags::EXCL) => {
                let found = self.nodes.look_up(header.node, name)?;
                let node = found.node;
                self.entry(found, body);
                return self.open_file(node, flags, body).inspect_err(|_| self.nodes.forget(node, 1));
            }
            Err(errno) => return Err(errno),
        };
        self.settle_owner(header, &parent, opened.as_fd(), &fstat(&opened)?)?;
        self.settle_mode(opened.as_fd(), FileType::RegularFile, mode)?;
        let permit = self.nodes.make_room()?;
        let identity = permit.open(|| self.reopen(opened.as_fd(), OFlags::PATH))?;
        let found = self.nodes.give(header.node, name, identity)?;
        let node = found.node;
        self.entry(found, body);
        self.nodes.add_handle(node);
        body.opened(self.handles.add(node, purpose, opened), false);
        Ok(())
    }

    pub(super) fn read(
        &mut self,
        node: u64,
        handle: u64,
        offset: u64,
        size: usize,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        let file = self.handles.get(node, handle)?.readable()?;
        body.filled(size, |room| {
            // A short answer means the end of the file to the guest's kernel, so an early return must be made up for.
            let mut read = 0;
            while read < room.len() {
                let at = offset.checked_add(read as u64).ok_or(Errno::INVAL)?;
                match pread(&file, &mut room[read..], at) {
                    Ok(0) => break,
                    Ok(bytes) => read += bytes,
                    Err(Errno::INTR) => {}
                    Err(_) if read > 0 => break,
                    Err(errno) => return Err(errno),
                }
            }
            Ok(read)
        })
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn write(
        &mut self,
        node: u64,
        handle: u64,
        offset: u64,
        flags: u32,
        from_cache: bool,
        data: &[u8],
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        let file = self.handles.get(node, handle)?.writable()?;
        self.drop_set_ids(file.as_fd())?;
        let appends = !from_cache && OFlags::from_bits_retain(flags).contains(OFlags::APPEND);
        let mut written = 0;
        while written < data.len() {
            let rest = &data[written..];
            let at = offset.checked_add(written as u64).ok_or(Errno::INVAL)?;
            let outcome = if appends {
                pwritev2(&file, &[IoSlice::new(rest)], at, ReadWriteFlags::APPEND)
            } else {
                pwrite(&file, rest, at)
            };
            match outcome {
                Ok(0) => break,
                Ok(bytes) => written += bytes,
                Err(Errno::INTR) => {}
                Err(_) if written > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        body.written(written);
        Ok(())
    }

    pub(super) fn release(&mut self, node: u64, handle: u64) -> Result<(), Errno> {
        self.handles.remove(node, handle)?;
        self.nodes.drop_handle(node);
        Ok(())
    }

    pub(super) fn sync(&mut self, node: u64, handle: u64, data_only: bool) -> Result<(), Errno> {
        let file = self.handles.get(node, handle)?;
        if data_only { fdatasync(file) } else { fsync(file) }
    }

    pub(super) fn allocate(
        &mut self,
        node: u64,
        handle: u64,
        offset: u64,
        length: u64,
        mode: u32,
    ) -> Result<(), Errno> {
        let served = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        let mode =
            FallocateFlags::from_bits(mode).filter(|mode| served.contains(*mode)).ok_or(Errno::OPNOTSUPP)?;
        let file = self.handles.get(node, handle)?.writable()?;
        self.drop_set_ids(file.as_fd())?;
        fallocate(file, mode, offset, length)
    }

    pub(super) fn seek(
        &mut self,
        node: u64,
        handle: u64,
        offset: u64,
        whence: u32,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        const DATA: u32 = 3;
        const HOLE: u32 = 4;
        let position = match whence {
            DATA => SeekFrom::Data(offset),
            HOLE => SeekFrom::Hole(offset),
            // The guest's kernel knows the others by itself.
            _ => return Err(Errno::INVAL),
        };
        let file = self.handles.get(node, handle)?;
        body.u64(seek(file, position)?);
        Ok(())
    }

    pub(super) fn copy_range(
        &mut self,
        (node, handle, mut offset): (u64, u64, u64),
        (to_node, to_handle, mut to_offset): (u64, u64, u64),
        length: u64,
        flags: u64,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        if flags != 0 {
            return Err(Errno::INVAL);
        }
        let from = self.handles.get(node, handle)?.readable()?;
        let to = self.handles.get(to_node, to_handle)?.writable()?;
        self.drop_set_ids(to.as_fd())?;
        let length = usize::try_from(length.min(MOST_COPIED)).map_err(|_| Errno::INVAL)?;
        let copied = copy_file_range(from, Some(&mut offset), to, Some(&mut to_offset), length)?;
        body.written(copied);
        Ok(())
    }
}

/// The version of a file that has been left alone for a while, by which another can be told from it.
fn quiet_version(stat: &Stat) -> Option<Version> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs().cast_signed();
    let quiet = stat.st_ctime.max(stat.st_mtime) < now.checked_sub(QUIET_SECONDS)?;
    quiet.then_some(Version {
        modified: (stat.st_mtime, stat.st_mtime_nsec),
        changed: (stat.st_ctime, stat.st_ctime_nsec),
        size: stat.st_size,
    })
}

/// Flags without meaning for a directory that is opened to be listed.
pub(super) const LISTING: (OFlags, Mode) =
    (OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC), Mode::empty());
