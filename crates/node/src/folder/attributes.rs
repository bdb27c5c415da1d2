//! Requests about attributes: mode, owner, size, times, extended attributes, and the file system's figures.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags, chmodat,
    chownat, fgetxattr, flistxattr, fremovexattr, fsetxattr, fstat, fstatvfs, ftruncate, openat, utimensat,
};
use rustix::io::Errno;

use super::Folder;
use super::descriptors::Descriptor;
use super::names::{allowed_mode, descriptor_name, has_set_ids};
use super::protocol::{Changes, MAX_XATTR, Time};
use super::reply::Body;

/// The only extended attributes that a guest sees or sets.
const USER: &[u8] = b"user.";

impl Folder {
    pub(super) fn get_attributes(
        &mut self,
        node: u64,
        handle: Option<u64>,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        let stat = match handle {
            Some(handle) => fstat(self.handles.get(node, handle)?)?,
            None => fstat(self.nodes.open(node)?)?,
        };
        body.attributes_reply(&self.shown(stat));
        Ok(())
    }

    pub(super) fn set_attributes(
        &mut self,
        node: u64,
        changes: &Changes,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        let kind = self.nodes.kind(node)?;
        let file = self.nodes.open(node)?;
        if let Some(size) = changes.size {
            if kind != FileType::RegularFile {
                return Err(if kind == FileType::Directory { Errno::ISDIR } else { Errno::INVAL });
            }
            self.truncate(node, &file, changes.handle, size)?;
        }
        if changes.uid.is_some() || changes.gid.is_some() {
            let change = self.owners.change(&fstat(&file)?, changes.uid, changes.gid)?;
            if change.uid.is_some() || change.gid.is_some() {
                chownat(file.as_fd(), c"", change.uid, change.gid, AtFlags::EMPTY_PATH)?;
            }
        }
        // After the owner, as changing that takes bits away.
        if let Some(mode) = changes.mode {
            if kind == FileType::Symlink {
                return Err(Errno::OPNOTSUPP);
            }
            self.change_mode(file.as_fd(), allowed_mode(mode, kind))?;
        }
        if changes.accessed != Time::Keep || changes.modified != Time::Keep {
            let times = Timestamps {
                last_access: timespec(changes.accessed),
                last_modification: timespec(changes.modified),
            };
            if kind == FileType::Symlink {
                utimensat(file.as_fd(), c"", &times, AtFlags::EMPTY_PATH)?;
            } else {
                let name = descriptor_name(file.as_fd());
                utimensat(&self.process, name.as_c_str()?, &times, AtFlags::empty())?;
            }
        }
        body.attributes_reply(&self.shown(fstat(&file)?));
        Ok(())
    }

    /// Cuts or lengthens a regular file.
    pub(super) fn truncate(
        &mut self,
        node: u64,
        file: &Descriptor,
        handle: Option<u64>,
        size: u64,
    ) -> Result<(), Errno> {
        match handle {
            Some(handle) => {
                let opened = self.handles.get(node, handle)?.writable()?;
                self.drop_set_ids(opened.as_fd())?;
                ftruncate(opened, size)
            }
            None => {
                let opened = self.reopen(file.as_fd(), OFlags::WRONLY)?;
                self.drop_set_ids(opened.as_fd())?;
                ftruncate(opened, size)
            }
        }
    }

    /// Changes the mode of what a descriptor, also an `O_PATH` one, holds; not for symbolic links.
    pub(super) fn change_mode(&self, file: BorrowedFd<'_>, mode: Mode) -> Result<(), Errno> {
        let name = descriptor_name(file);
        chmodat(&self.process, name.as_c_str()?, mode, AtFlags::empty())
    }

    /// Takes the set-user-ID and set-group-ID bits from a regular file that the guest is about to write to. The host's
    /// kernel does so by itself for any writer but root.
    pub(super) fn drop_set_ids(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let stat: Stat = fstat(file)?;
        if has_set_ids(&stat) {
            self.change_mode(file, allowed_mode(stat.st_mode, FileType::RegularFile))?;
        }
        Ok(())
    }

    /// Opens, for I/O, exactly the file that an `O_PATH` descriptor holds. The caller has made sure that it is a regular
    /// file or a directory; a lease that somebody holds on it answers `EAGAIN` instead of blocking.
    pub(super) fn reopen(&self, file: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
        let name = descriptor_name(file);
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        openat(&self.process, name.as_c_str()?, flags, Mode::empty())
    }

    pub(super) fn file_system(&mut self, node: u64, body: &mut Body<'_>) -> Result<(), Errno> {
        body.file_system(&fstatvfs(self.nodes.open(node)?)?);
        Ok(())
    }

    pub(super) fn get_xattr(
        &mut self,
        node: u64,
        name: &CStr,
        size: usize,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        let file = self.open_for_xattr(node, name)?;
        let mut value = vec![0; MAX_XATTR];
        let length = fgetxattr(file, name, &mut value[..])?;
        value.truncate(length);
        answer_sized(&value, size, body)
    }

    pub(super) fn set_xattr(
        &mut self,
        node: u64,
        name: &CStr,
        value: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        let flags = XattrFlags::from_bits(flags)
            .filter(|flags| (XattrFlags::CREATE | XattrFlags::REPLACE).contains(*flags))
            .ok_or(Errno::INVAL)?;
        fsetxattr(self.open_for_xattr(node, name)?, name, value, flags)
    }

    pub(super) fn remove_xattr(&mut self, node: u64, name: &CStr) -> Result<(), Errno> {
        fremovexattr(self.open_for_xattr(node, name)?, name)
    }

    pub(super) fn list_xattr(&mut self, node: u64, size: usize, body: &mut Body<'_>) -> Result<(), Errno> {
        let file = match self.open_for_xattr(node, c"user.") {
            Ok(file) => file,
            // What can't have any has none.
            Err(Errno::OPNOTSUPP) => return answer_sized(&[], size, body),
            Err(errno) => return Err(errno),
        };
        let mut names = vec![0; MAX_XATTR];
        let length = match flistxattr(file, &mut names[..]) {
            Err(Errno::OPNOTSUPP) => 0,
            other => other?,
        };
        names.truncate(length);
        let shown: Vec<u8> = names
            .split_inclusive(|byte| *byte == 0)
            .filter(|name| name.starts_with(USER))
            .flatten()
            .copied()
            .collect();
        answer_sized(&shown, size, body)
    }

    /// Opens what can have attributes of users: regular files and directories. Linux wants an opened file here, and
    /// decides by the file's mode, not by how it was opened, whether attributes may be changed.
    fn open_for_xattr(&mut self, node: u64, name: &CStr) -> Result<OwnedFd, Errno> {
        let kind = self.nodes.kind(node)?;
        if !name.to_bytes().starts_with(USER) || !matches!(kind, FileType::RegularFile | FileType::Directory)
        {
            return Err(Errno::OPNOTSUPP);
        }
        let file: Arc<Descriptor> = self.nodes.open(node)?;
        self.reopen(file.as_fd(), OFlags::RDONLY)
    }
}

/// Answers with bytes, or with their number where the caller asks for that by a size of 0.
fn answer_sized(bytes: &[u8], size: usize, body: &mut Body<'_>) -> Result<(), Errno> {
    if size == 0 {
        body.written(bytes.len());
        return Ok(());
    }
    if bytes.len() > size {
        return Err(Errno::RANGE);
    }
    body.bytes(bytes);
    Ok(())
}

fn timespec(time: Time) -> Timespec {
    match time {
        Time::Keep => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Time::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Time::At { seconds, nanoseconds } => Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    }
}
