//! Requests of the FUSE protocol, cut out of the bytes that a guest sends. No I/O happens here.
//!
//! Source: `include/uapi/linux/fuse.h` of Linux, version 7.33 of the protocol. A request is a header of 40 bytes
//! (its own length, opcode, a number that the reply repeats, node, requester) and a body that the opcode decides.
//! Numbers are in the machine's byte order; guest and host are the same architecture here, and little-endian.

use std::ffi::CStr;

use rustix::io::Errno;

mod decode;

pub(super) use decode::{header, operation};

/// Bytes of a request before its body.
pub(super) const REQUEST_HEADER: usize = 40;
/// The largest data of one read or write, in bytes.
pub(super) const MAX_IO: usize = 1024 * 1024;
/// The largest request: a write of [`MAX_IO`] with its header and body, rounded up.
pub(super) const MAX_REQUEST: usize = MAX_IO + 4096;
/// The largest value or list of extended attributes, in bytes; Linux has the same limit.
pub(super) const MAX_XATTR: usize = 64 * 1024;
/// The longest name in a folder, in bytes.
pub(super) const MAX_NAME: usize = 255;
/// The longest target of a symbolic link, in bytes.
pub(super) const MAX_TARGET: usize = 4095;

/// What every request begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// What is asked for.
    pub(super) opcode: u32,
    /// The number that the reply repeats.
    pub(super) unique: u64,
    /// The node that it is about.
    pub(super) node: u64,
    /// The user in the guest that asks.
    pub(super) uid: u32,
    /// That user's group.
    pub(super) gid: u32,
}

/// A name in a folder: 1 to 255 bytes without `/`, neither `.` nor `..`.
///
/// There is no other way to make one than [`Fields::name`], so that code which holds one needn't check again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'a>(&'a CStr);

impl<'a> Name<'a> {
    pub(super) fn as_c_str(self) -> &'a CStr {
        self.0
    }

    /// Checks a name; `ENAMETOOLONG` or `EINVAL` where it is none.
    pub(super) fn new(name: &'a CStr) -> Result<Self, Errno> {
        let bytes = name.to_bytes();
        if bytes.len() > MAX_NAME {
            return Err(Errno::NAMETOOLONG);
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
            return Err(Errno::INVAL);
        }
        Ok(Self(name))
    }
}

/// A time that a request sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    Keep,
    Now,
    At { seconds: i64, nanoseconds: u32 },
}

/// What a `SETATTR` changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) handle: Option<u64>,
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) accessed: Time,
    pub(super) modified: Time,
}

/// The nodes of a `BATCH_FORGET`, each with its count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forgets<'a>(&'a [u8]);

impl Forgets<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0
            .as_chunks::<8>()
            .0
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[node, count]| (u64::from_ne_bytes(*node), u64::from_ne_bytes(*count)))
    }
}

/// One request, its body checked. Offsets fit into an `i64`, sizes are at most [`MAX_IO`] or [`MAX_XATTR`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[rustfmt::skip]
pub(super) enum Operation<'a> {
    Init { major: u32, minor: u32, readahead: u32, flags: u32 },
    Destroy,
    Interrupt,
    Forget { count: u64 },
    BatchForget(Forgets<'a>),
    Lookup { name: Name<'a> },
    GetAttr { handle: Option<u64> },
    SetAttr(Changes),
    ReadLink,
    Symlink { name: Name<'a>, target: &'a CStr },
    MkNod { name: Name<'a>, mode: u32 },
    MkDir { name: Name<'a>, mode: u32 },
    Unlink { name: Name<'a> },
    RmDir { name: Name<'a> },
    Rename { name: Name<'a>, new_parent: u64, new_name: Name<'a>, flags: u32 },
    Link { node: u64, name: Name<'a> },
    Open { flags: u32 },
    Create { name: Name<'a>, flags: u32, mode: u32 },
    Read { handle: u64, offset: u64, size: usize },
    Write { handle: u64, offset: u64, flags: u32, from_cache: bool, data: &'a [u8] },
    StatFs,
    Release { handle: u64 },
    Fsync { handle: u64, data_only: bool },
    OpenDir,
    ReadDir { handle: u64, offset: u64, size: usize, plus: bool },
    ReleaseDir { handle: u64 },
    FsyncDir { handle: u64, data_only: bool },
    GetXattr { name: &'a CStr, size: usize },
    SetXattr { name: &'a CStr, value: &'a [u8], flags: u32 },
    ListXattr { size: usize },
    RemoveXattr { name: &'a CStr },
    Fallocate { handle: u64, offset: u64, length: u64, mode: u32 },
    Lseek { handle: u64, offset: u64, whence: u32 },
    CopyFileRange { handle: u64, offset: u64, to_node: u64, to_handle: u64, to_offset: u64, length: u64, flags: u64 },
}

impl Operation<'_> {
    /// Whether the request would change the folder; `OPEN` is judged by its flags where it is served.
    pub(super) fn changes(&self) -> bool {
        match self {
            Self::SetAttr(_)
            | Self::Symlink { .. }
            | Self::MkNod { .. }
            | Self::MkDir { .. }
            | Self::Unlink { .. }
            | Self::RmDir { .. }
            | Self::Rename { .. }
            | Self::Link { .. }
            | Self::Create { .. }
            | Self::Write { .. }
            | Self::SetXattr { .. }
            | Self::RemoveXattr { .. }
            | Self::Fallocate { .. }
            | Self::CopyFileRange { .. } => true,
            Self::Init { .. }
            | Self::Destroy
            | Self::Interrupt
            | Self::Forget { .. }
            | Self::BatchForget(_)
            | Self::Lookup { .. }
            | Self::GetAttr { .. }
            | Self::ReadLink
            | Self::Open { .. }
            | Self::Read { .. }
            | Self::StatFs
            | Self::Release { .. }
            | Self::Fsync { .. }
            | Self::OpenDir
            | Self::ReadDir { .. }
            | Self::ReleaseDir { .. }
            | Self::FsyncDir { .. }
            | Self::GetXattr { .. }
            | Self::ListXattr { .. }
            | Self::Lseek { .. } => false,
        }
    }
}

/// Opcodes that get no reply, whatever happens.
pub(super) fn wants_no_reply(opcode: u32) -> bool {
    matches!(opcode, op::FORGET | op::BATCH_FORGET | op::INTERRUPT)
}

/// The opcodes that are served. `FLUSH` and `ACCESS` are left out on purpose: told `ENOSYS` once, the guest's kernel
/// stops sending them and decides by itself, which it can.
pub(super) mod op {
    pub(in super::super) const LOOKUP: u32 = 1;
    pub(in super::super) const FORGET: u32 = 2;
    pub(in super::super) const GETATTR: u32 = 3;
    pub(in super::super) const SETATTR: u32 = 4;
    pub(in super::super) const READLINK: u32 = 5;
    pub(in super::super) const SYMLINK: u32 = 6;
    pub(in super::super) const MKNOD: u32 = 8;
    pub(in super::super) const MKDIR: u32 = 9;
    pub(in super::super) const UNLINK: u32 = 10;
    pub(in super::super) const RMDIR: u32 = 11;
    pub(in super::super) const RENAME: u32 = 12;
    pub(in super::super) const LINK: u32 = 13;
    pub(in super::super) const OPEN: u32 = 14;
    pub(in super::super) const READ: u32 = 15;
    pub(in super::super) const WRITE: u32 = 16;
    pub(in super::super) const STATFS: u32 = 17;
    pub(in super::super) const RELEASE: u32 = 18;
    pub(in super::super) const FSYNC: u32 = 20;
    pub(in super::super) const SETXATTR: u32 = 21;
    pub(in super::super) const GETXATTR: u32 = 22;
    pub(in super::super) const LISTXATTR: u32 = 23;
    pub(in super::super) const REMOVEXATTR: u32 = 24;
    pub(in super::super) const INIT: u32 = 26;
    pub(in super::super) const OPENDIR: u32 = 27;
    pub(in super::super) const READDIR: u32 = 28;
    pub(in super::super) const RELEASEDIR: u32 = 29;
    pub(in super::super) const FSYNCDIR: u32 = 30;
    pub(in super::super) const CREATE: u32 = 35;
    pub(in super::super) const INTERRUPT: u32 = 36;
    pub(in super::super) const DESTROY: u32 = 38;
    pub(in super::super) const BATCH_FORGET: u32 = 42;
    pub(in super::super) const FALLOCATE: u32 = 43;
    pub(in super::super) const READDIRPLUS: u32 = 44;
    pub(in super::super) const RENAME2: u32 = 45;
    pub(in super::super) const LSEEK: u32 = 46;
    pub(in super::super) const COPY_FILE_RANGE: u32 = 47;
}
