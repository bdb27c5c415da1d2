//! Requests about names: looking up, making, moving and removing what lies in a directory.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Uid, chownat, fstat, linkat, mkdirat, mknodat,
    openat, readlinkat, renameat_with, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::Folder;
use super::descriptors::Descriptor;
use super::nodes::Found;
use super::owners::Owners;
use super::protocol::{Header, Name};
use super::reply::{Attributes, Body};

const SET_IDS: u32 = 0o6000;
const SET_GROUP_ID: u32 = 0o2000;

/// The permission bits that a new file, or one whose mode is changed, gets: without set-user-ID and set-group-ID.
pub(super) fn allowed_mode(mode: u32, kind: FileType) -> Mode {
    let bits = match kind {
        FileType::Directory => mode & 0o3777,
        _ => mode & 0o1777,
    };
    Mode::from_raw_mode(bits)
}

/// Whether a file has bits that it must lose before the guest writes to it.
pub(super) fn has_set_ids(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & SET_IDS != 0
}

impl Folder {
    pub(super) fn shown(&self, stat: Stat) -> Attributes {
        let (uid, gid) = self.owners.shown(&stat);
        Attributes { number: self.nodes.shown_number(&stat), stat, uid, gid }
    }

    /// Answers with a node that was found or made.
    pub(super) fn entry(&self, found: Found, body: &mut Body<'_>) {
        body.entry(found.node, &self.shown(found.stat));
    }

    /// The descriptor of a node that must be a directory.
    pub(super) fn directory(&mut self, node: u64) -> Result<Arc<Descriptor>, Errno> {
        match self.nodes.kind(node)? {
            FileType::Directory => self.nodes.open(node),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub(super) fn look_up(&mut self, parent: u64, name: Name<'_>, body: &mut Body<'_>) -> Result<(), Errno> {
        match self.nodes.look_up(parent, name) {
            Ok(found) => self.entry(found, body),
            // Lets the guest's kernel believe for a moment that there is no such file: programs search paths.
            Err(Errno::NOENT) => body.no_entry(),
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    pub(super) fn read_link(&mut self, node: u64, body: &mut Body<'_>) -> Result<(), Errno> {
        if self.nodes.kind(node)? != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        let link = self.nodes.open(node)?;
        let target = readlinkat(link.as_fd(), c"", Vec::new())?;
        body.bytes(target.to_bytes());
        Ok(())
    }

    pub(super) fn make_symlink(
        &mut self,
        header: &Header,
        name: Name<'_>,
        target: &CStr,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        let parent = self.directory(header.node)?;
        symlinkat(target, parent.as_fd(), name.as_c_str())?;
        self.settle(header, &parent, name, FileType::Symlink, None, body)
    }

    pub(super) fn make_directory(
        &mut self,
        header: &Header,
        name: Name<'_>,
        mode: u32,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        let parent = self.directory(header.node)?;
        let mode = allowed_mode(mode, FileType::Directory);
        mkdirat(parent.as_fd(), name.as_c_str(), mode)?;
        self.settle(header, &parent, name, FileType::Directory, Some(mode), body)
    }

    /// `MKNOD`: regular files, FIFOs and sockets. `EPERM` for devices.
    pub(super) fn make_node(
        &mut self,
        header: &Header,
        name: Name<'_>,
        mode: u32,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        let kind = match FileType::from_raw_mode(mode) {
            FileType::RegularFile => FileType::RegularFile,
            FileType::Unknown if mode & 0o170_000 == 0 => FileType::RegularFile,
            kind @ (FileType::Fifo | FileType::Socket) => kind,
            FileType::CharacterDevice | FileType::BlockDevice => return Err(Errno::PERM),
            FileType::Directory | FileType::Symlink | FileType::Unknown => return Err(Errno::INVAL),
        };
        let parent = self.directory(header.node)?;
        let mode = allowed_mode(mode, kind);
        mknodat(parent.as_fd(), name.as_c_str(), kind, mode, 0)?;
        self.settle(header, &parent, name, kind, Some(mode), body)
    }

    /// Gives what was just made under `name` its mode (the keeper's umask must not show) and owner, and answers with it.
    ///
    /// The name is resolved once more for that. Somebody on the host may have put another file there in between, so
    /// only one that looks freshly made by this process is touched.
    fn settle(
        &mut self,
        header: &Header,
        parent: &Descriptor,
        name: Name<'_>,
        kind: FileType,
        mode: Option<Mode>,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        let permit = self.nodes.make_room()?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = permit.open(|| openat(parent.as_fd(), name.as_c_str(), flags, Mode::empty()))?;
        let stat = fstat(&made)?;
        let fresh = FileType::from_raw_mode(stat.st_mode) == kind
            && stat.st_uid == rustix::process::geteuid().as_raw()
            && (kind == FileType::Directory || stat.st_nlink == 1);
        if fresh {
            self.settle_owner(header, parent, made.as_fd(), &stat)?;
            if let Some(mode) = mode {
                self.settle_mode(made.as_fd(), kind, mode)?;
            }
        }
        let found = self.nodes.give(header.node, name, made)?;
        self.entry(found, body);
        Ok(())
    }

    /// Where the keeper is root, gives a file that it just made to the user in the guest who asked for it. In a
    /// directory with the set-group-ID bit the group is the directory's, which the host has seen to already.
    pub(super) fn settle_owner(
        &self,
        header: &Header,
        parent: &Descriptor,
        made: BorrowedFd<'_>,
        stat: &Stat,
    ) -> Result<(), Errno> {
        if self.owners != Owners::AsTheyAre {
            return Ok(());
        }
        if header.uid == u32::MAX || header.gid == u32::MAX {
            return Err(Errno::INVAL);
        }
        let inherits = fstat(parent)?.st_mode & SET_GROUP_ID != 0;
        let uid = (header.uid != stat.st_uid).then(|| Uid::from_raw(header.uid));
        let gid = (!inherits && header.gid != stat.st_gid).then(|| Gid::from_raw(header.gid));
        if uid.is_some() || gid.is_some() {
            chownat(made, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        Ok(())
    }

    /// Sets the mode that was asked for where the keeper's umask took something from it; a directory keeps the
    /// set-group-ID bit that it inherited.
    pub(super) fn settle_mode(&self, made: BorrowedFd<'_>, kind: FileType, mode: Mode) -> Result<(), Errno> {
        let have = fstat(made)?.st_mode & 0o7777;
        let inherited = if kind == FileType::Directory { have & SET_GROUP_ID } else { 0 };
        let wanted = mode.as_raw_mode() | inherited;
        if have != wanted {
            self.change_mode(made, Mode::from_raw_mode(wanted))?;
        }
        Ok(())
    }

    pub(super) fn unlink(&mut self, parent: u64, name: Name<'_>, directory: bool) -> Result<(), Errno> {
        let parent = self.directory(parent)?;
        let victim = stat_of(&parent, name);
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        unlinkat(parent.as_fd(), name.as_c_str(), flags)?;
        if let Some(victim) = victim {
            self.nodes.unlinked(&victim);
        }
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        parent: u64,
        name: Name<'_>,
        new_parent: u64,
        new_name: Name<'_>,
        flags: u32,
    ) -> Result<(), Errno> {
        let flags = RenameFlags::from_bits(flags)
            .filter(|flags| !flags.contains(RenameFlags::WHITEOUT))
            .ok_or(Errno::INVAL)?;
        let (from, to) = (self.directory(parent)?, self.directory(new_parent)?);
        let (moved, victim) = (stat_of(&from, name), stat_of(&to, new_name));
        renameat_with(from.as_fd(), name.as_c_str(), to.as_fd(), new_name.as_c_str(), flags)?;
        if let Some(victim) = victim {
            if flags.contains(RenameFlags::EXCHANGE) {
                self.nodes.moved(&victim, parent, name);
            } else if moved.is_none_or(|moved| moved.st_ino != victim.st_ino) {
                self.nodes.unlinked(&victim);
            }
        }
        if let Some(moved) = moved {
            self.nodes.moved(&moved, new_parent, new_name);
        }
        Ok(())
    }

    pub(super) fn link(
        &mut self,
        file: u64,
        parent: u64,
        name: Name<'_>,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        if self.nodes.kind(file)? == FileType::Directory {
            return Err(Errno::PERM);
        }
        let (file, directory) = (self.nodes.open(file)?, self.directory(parent)?);
        let number = descriptor_name(file.as_fd());
        let number = number.as_c_str()?;
        linkat(&self.process, number, directory.as_fd(), name.as_c_str(), AtFlags::SYMLINK_FOLLOW)?;
        let found = self.nodes.look_up(parent, name)?;
        self.entry(found, body);
        Ok(())
    }
}

fn stat_of(parent: &Descriptor, name: Name<'_>) -> Option<Stat> {
    statat(parent.as_fd(), name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).ok()
}

/// A descriptor's name in `/proc/self/fd`.
pub(super) struct DescriptorName([u8; 12]);

pub(super) fn descriptor_name(fd: BorrowedFd<'_>) -> DescriptorName {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let mut text = [0; 12];
    // Eleven bytes hold any `i32`, so the last one stays NUL and this can't fail.
    let _ = write!(&mut text[..11], "{}", fd.as_raw_fd());
    DescriptorName(text)
}

impl DescriptorName {
    pub(super) fn as_c_str(&self) -> Result<&CStr, Errno> {
        CStr::from_bytes_until_nul(&self.0).map_err(|_| Errno::INVAL)
    }
}
