//! A folder (or one file) of the host that a spacecore sees, served as FUSE messages over the channel.
//!
//! ```text
//!   process in the guest          guest's kernel          PID 1 of the guest          keeper
//!     open("/data/a")  --------->   FUSE  ---- /dev/fuse ---->  one message  ------>  Folder::answer
//!                      <---------         <-------------------  one message  <------    reply
//! ```
//!
//! There is no FUSE on the host, no shared memory and no further process: every request is one message, and
//! [`Folder::answer`] turns it into one reply by ordinary system calls of the keeper. The guest mounts with
//! `default_permissions,allow_other,nosuid,nodev` and, for a single file, `rootmode` of a regular file.
//!
//! **The guest is hostile.** What it can do is bounded by the following, whatever its kernel sends:
//!
//! - It never leaves the folder. Names are single components without `/`, `.` and `..`; nodes are descriptors found by
//!   such names one at a time, without following symbolic links (these are given to the guest as text, and mean what
//!   they mean there). A file is opened for I/O through its node's descriptor, never again by name, so that swapping
//!   names on the host while a request is under way leads nowhere.
//! - Only regular files and directories are ever opened. A device, FIFO or socket is shown, but `EPERM` answers an
//!   `OPEN`; in the guest its kernel serves these by itself. Device nodes can't be made; FIFOs and sockets can.
//! - A read-only folder is read-only here (`EROFS`), not only by the guest's mount flag.
//! - No file gets a set-user-ID or set-group-ID bit: the bits are left out of every mode that the guest sets, and one
//!   that a file has on the host goes before the guest writes to it. Directories keep the set-group-ID bit.
//! - Extended attributes are those of `user.` alone, so neither file capabilities nor security labels nor ACLs.
//! - procfs is refused as a folder and inside one, as it would show the keeper's own memory. Other file systems that are
//!   mounted inside a folder are part of it.
//! - Requests, replies, nodes, handles and descriptors are bounded; every body is checked before it is used.
//!
//! What isn't bounded here: the disk space that a guest fills, and how long the host's file system takes.
//!
//! Locks are the guest's own affair (`flock` and POSIX locks hold among its processes and not against the host's).
//! Owners: see [`owners`]. Caching: names and attributes for one second, data as long as the file doesn't change
//! ([`files`]). The guest's writes go through at once; there is no write-back cache, as the host may write as well.

mod attributes;
mod descriptors;
mod directories;
mod files;
mod handles;
mod names;
mod nodes;
mod owners;
mod protocol;
mod reply;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;

use descriptors::{Descriptor, Permit};
use handles::Handles;
use nodes::Nodes;
use owners::Owners;
use protocol::{Header, MAX_IO, Operation};
use reply::{Body, Terms};

/// A folder of the host, or one file, while a spacecore has it.
///
/// Must be made in the process that serves it: it holds that process' `/proc/self/fd`.
#[derive(Debug)]
pub struct Folder {
    readonly: bool,
    file: bool,
    owners: Owners,
    /// `/proc/self/fd`, opened once, so that later `/proc` need not be reachable.
    process: OwnedFd,
    nodes: Nodes,
    handles: Handles,
    /// Room for listings, kept from request to request.
    scratch: Vec<u8>,
}

/// What is to be done after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// The reply is to be sent as one message.
    Send,
    /// The protocol has no reply for this request.
    Nothing,
}

/// Why a folder can't be given to a spacecore.
#[derive(Debug, thiserror::Error)]
pub enum OpenFolderError {
    /// It isn't there, or may not be reached.
    #[error("the folder {} can't be opened", path.display())]
    Open {
        /// The path as it was given.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is a device, a FIFO or a socket.
    #[error("{} is neither a folder nor a regular file; only these can be mounted", path.display())]
    Kind {
        /// The path as it was given.
        path: PathBuf,
    },
    /// It is a part of procfs.
    #[error("{} shows the processes of this machine and can't be mounted; name a folder of files", path.display())]
    Processes {
        /// The path as it was given.
        path: PathBuf,
    },
    /// `/proc/self/fd` is needed to open files by identity.
    #[error("/proc/self/fd can't be opened; serving folders needs procfs at /proc")]
    Proc {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// So many folders are open that no file descriptor is left for another.
    #[error("no file descriptor is left to open the folder {}; raise the limit (ulimit -n)", path.display())]
    Descriptors {
        /// The path as it was given.
        path: PathBuf,
    },
}

/// How a message isn't a FUSE request. The guest's side is broken or hostile, and the folder is of no more use to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FuseViolation {
    /// Shorter than the header of a request.
    #[error("a folder request of {bytes} bytes, where its header alone takes 40")]
    Truncated {
        /// Bytes of the message.
        bytes: usize,
    },
    /// Longer than any request.
    #[error("a folder request of {bytes} bytes, where 1052672 are the most")]
    TooLong {
        /// Bytes of the message.
        bytes: usize,
    },
    /// The header names another length than the message has.
    #[error("a folder request of {bytes} bytes whose header says {stated}")]
    Length {
        /// Bytes by the header.
        stated: u32,
        /// Bytes of the message.
        bytes: usize,
    },
}

impl Folder {
    /// Opens a folder, or a single regular file, of the host. A symbolic link at `source` itself is followed, as the
    /// person who runs the spacecore named it.
    ///
    /// Raises the process' soft limit of open files to its hard one.
    pub fn open(source: &Path, readonly: bool) -> Result<Self, OpenFolderError> {
        let path = || source.to_path_buf();
        let permit = Permit::take().ok_or_else(|| OpenFolderError::Descriptors { path: path() })?;
        let root: Descriptor = permit
            .open(|| open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()))
            .map_err(|errno| OpenFolderError::Open { path: path(), source: errno.into() })?;
        let stat =
            fstat(&root).map_err(|errno| OpenFolderError::Open { path: path(), source: errno.into() })?;
        let file = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => false,
            FileType::RegularFile => true,
            _ => return Err(OpenFolderError::Kind { path: path() }),
        };
        if nodes::is_proc(root.as_fd()) {
            return Err(OpenFolderError::Processes { path: path() });
        }
        let process =
            open("/proc/self/fd", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| OpenFolderError::Proc { source: errno.into() })?;
        let descriptors = descriptors::limit();
        Ok(Self {
            readonly,
            file,
            owners: Owners::of_this_process(),
            process,
            nodes: Nodes::new(Arc::new(root), &stat, descriptors / 4 * 3),
            handles: Handles::new(descriptors / 4),
            scratch: Vec::new(),
        })
    }

    /// Whether this is a single file, which the guest mounts over a file.
    pub fn is_file(&self) -> bool {
        self.file
    }

    /// Answers one FUSE request: writes the reply over `reply`, or leaves it empty where the protocol wants none.
    ///
    /// Takes as long as the file operation does, and at most a few milliseconds of its own. Whatever is wrong with a
    /// request of a FUSE client is answered as an error inside the reply; an `Err` means that the message isn't one.
    pub fn answer(&mut self, request: &[u8], reply: &mut Vec<u8>) -> Result<Reply, FuseViolation> {
        reply.clear();
        let header = protocol::header(request)?;
        let operation = protocol::operation(header.opcode, request);
        if protocol::wants_no_reply(header.opcode) {
            match operation {
                Ok(Operation::Forget { count }) => self.nodes.forget(header.node, count),
                Ok(Operation::BatchForget(forgets)) => {
                    forgets.iter().for_each(|(node, count)| self.nodes.forget(node, count));
                }
                // By the time that an interrupt is read, the request it is about has been answered.
                _ => {}
            }
            return Ok(Reply::Nothing);
        }
        let mut body = Body::begin(reply);
        let outcome = operation.and_then(|operation| self.perform(&header, operation, &mut body));
        body.finish(header.unique, outcome);
        Ok(Reply::Send)
    }

    fn perform(
        &mut self,
        header: &Header,
        operation: Operation<'_>,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        if self.readonly && operation.changes() {
            return Err(Errno::ROFS);
        }
        let node = header.node;
        match operation {
            Operation::Init { major, minor, readahead, flags } => {
                self.begin(major, minor, readahead, flags, body)
            }
            Operation::Destroy => {
                self.forget_all();
                Ok(())
            }
            Operation::Forget { .. } | Operation::BatchForget(_) | Operation::Interrupt => Ok(()),

            Operation::Lookup { name } => self.look_up(node, name, body),
            Operation::ReadLink => self.read_link(node, body),
            Operation::Symlink { name, target } => self.make_symlink(header, name, target, body),
            Operation::MkNod { name, mode } => self.make_node(header, name, mode, body),
            Operation::MkDir { name, mode } => self.make_directory(header, name, mode, body),
            Operation::Unlink { name } => self.unlink(node, name, false),
            Operation::RmDir { name } => self.unlink(node, name, true),
            Operation::Rename { name, new_parent, new_name, flags } => {
                self.rename(node, name, new_parent, new_name, flags)
            }
            Operation::Link { node: file, name } => self.link(file, node, name, body),

            Operation::GetAttr { handle } => self.get_attributes(node, handle, body),
            Operation::SetAttr(changes) => self.set_attributes(node, &changes, body),
            Operation::StatFs => self.file_system(node, body),
            Operation::GetXattr { name, size } => self.get_xattr(node, name, size, body),
            Operation::SetXattr { name, value, flags } => self.set_xattr(node, name, value, flags),
            Operation::ListXattr { size } => self.list_xattr(node, size, body),
            Operation::RemoveXattr { name } => self.remove_xattr(node, name),

            Operation::Open { flags } => self.open_file(node, flags, body),
            Operation::Create { name, flags, mode } => self.create(header, name, flags, mode, body),
            Operation::Read { handle, offset, size } => self.read(node, handle, offset, size, body),
            Operation::Write { handle, offset, flags, from_cache, data } => {
                self.write(node, handle, offset, flags, from_cache, data, body)
            }
            Operation::Release { handle } | Operation::ReleaseDir { handle } => self.release(node, handle),
            Operation::Fsync { handle, data_only } | Operation::FsyncDir { handle, data_only } => {
                self.sync(node, handle, data_only)
            }
            Operation::Fallocate { handle, offset, length, mode } => {
                self.allocate(node, handle, offset, length, mode)
            }
            Operation::Lseek { handle, offset, whence } => self.seek(node, handle, offset, whence, body),
            Operation::CopyFileRange { handle, offset, to_node, to_handle, to_offset, length, flags } => {
                let (from, to) = ((node, handle, offset), (to_node, to_handle, to_offset));
                self.copy_range(from, to, length, flags, body)
            }

            Operation::OpenDir => self.open_directory(node, body),
            Operation::ReadDir { handle, offset, size, plus } => {
                self.list(node, handle, offset, size, plus, body)
            }
        }
    }

    /// `INIT`: a guest that mounts begins from nothing, also one that mounts again.
    fn begin(
        &mut self,
        major: u32,
        minor: u32,
        readahead: u32,
        offered: u32,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        const MAJOR: u32 = 7;
        const MINOR: u32 = 33;
        const OLDEST_MINOR: u32 = 31;
        const PAGE: usize = 4096;

        const ASYNC_READ: u32 = 1;
        const ATOMIC_O_TRUNC: u32 = 1 << 3;
        const BIG_WRITES: u32 = 1 << 5;
        const AUTO_INVAL_DATA: u32 = 1 << 12;
        const DO_READDIRPLUS: u32 = 1 << 13;
        const READDIRPLUS_AUTO: u32 = 1 << 14;
        const PARALLEL_DIROPS: u32 = 1 << 18;
        const MAX_PAGES: u32 = 1 << 22;
        // A link is never changed, only replaced, and then it is another node.
        const CACHE_SYMLINKS: u32 = 1 << 23;
        // Saves a GETXATTR for each write; the bits are taken away where files are written.
        const HANDLE_KILLPRIV_V2: u32 = 1 << 28;
        const WANTED: u32 = ASYNC_READ
            | ATOMIC_O_TRUNC
            | BIG_WRITES
            | AUTO_INVAL_DATA
            | DO_READDIRPLUS
            | READDIRPLUS_AUTO
            | PARALLEL_DIROPS
            | MAX_PAGES
            | CACHE_SYMLINKS
            | HANDLE_KILLPRIV_V2;

        if major < MAJOR || (major == MAJOR && minor < OLDEST_MINOR) {
            return Err(Errno::PROTO);
        }
        self.forget_all();
        let terms = Terms {
            major: MAJOR,
            minor: MINOR,
            readahead: readahead.min(u32::try_from(MAX_IO).unwrap_or(u32::MAX)),
            flags: offered & WANTED,
            max_write: u32::try_from(MAX_IO).unwrap_or(u32::MAX),
            max_pages: u16::try_from(MAX_IO / PAGE).unwrap_or(u16::MAX),
        };
        body.terms(&terms);
        Ok(())
    }

    fn forget_all(&mut self) {
        self.handles.clear();
        self.nodes.clear();
    }
}

#[cfg(test)]
mod tests;
