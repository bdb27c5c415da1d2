//! Bytes into requests: every length is checked here, and nothing is believed.

use std::ffi::CStr;

use rustix::io::Errno;

use super::{
    Changes, Forgets, Header, MAX_IO, MAX_NAME, MAX_REQUEST, MAX_TARGET, MAX_XATTR, Name, Operation,
    REQUEST_HEADER, Time, op,
};
use crate::folder::FuseViolation;

/// Reads a request's header. An error means that the sender isn't a FUSE client.
pub(in crate::folder) fn header(request: &[u8]) -> Result<Header, FuseViolation> {
    let have = request.len();
    if have > MAX_REQUEST {
        return Err(FuseViolation::TooLong { bytes: have });
    }
    let mut fields = Fields(request);
    let parsed: Result<(u32, Header), Errno> = (|| {
        let length = fields.u32()?;
        let opcode = fields.u32()?;
        let unique = fields.u64()?;
        let node = fields.u64()?;
        let (uid, gid) = (fields.u32()?, fields.u32()?);
        fields.take(8)?;
        Ok((length, Header { opcode, unique, node, uid, gid }))
    })();
    let (length, header) = parsed.map_err(|_| FuseViolation::Truncated { bytes: have })?;
    if usize::try_from(length) != Ok(have) {
        return Err(FuseViolation::Length { stated: length, bytes: have });
    }
    Ok(header)
}

/// Reads the body that belongs to `opcode`. `ENOSYS` for an opcode that isn't served, `EINVAL` for a body that doesn't
/// fit it, `ENAMETOOLONG` for a name over 255 bytes.
pub(in crate::folder) fn operation<'a>(opcode: u32, request: &'a [u8]) -> Result<Operation<'a>, Errno> {
    let mut body = Fields(request.get(REQUEST_HEADER..).ok_or(Errno::INVAL)?);
    let operation = match opcode {
        op::LOOKUP => Operation::Lookup { name: body.name()? },
        op::FORGET => Operation::Forget { count: body.u64()? },
        op::GETATTR => {
            let with_handle = body.u32()? & 1 != 0;
            body.take(4)?;
            let handle = body.u64()?;
            Operation::GetAttr { handle: with_handle.then_some(handle) }
        }
        op::SETATTR => Operation::SetAttr(body.changes()?),
        op::READLINK => Operation::ReadLink,
        op::SYMLINK => {
            let name = body.name()?;
            let target = body.text()?;
            match target.count_bytes() {
                0 => return Err(Errno::NOENT),
                1..=MAX_TARGET => Operation::Symlink { name, target },
                _ => return Err(Errno::NAMETOOLONG),
            }
        }
        op::MKNOD => {
            let mode = body.u32()?;
            body.take(12)?;
            Operation::MkNod { mode, name: body.name()? }
        }
        op::MKDIR => {
            let mode = body.u32()?;
            body.take(4)?;
            Operation::MkDir { mode, name: body.name()? }
        }
        op::UNLINK => Operation::Unlink { name: body.name()? },
        op::RMDIR => Operation::RmDir { name: body.name()? },
        op::RENAME | op::RENAME2 => {
            let new_parent = body.u64()?;
            let flags = if opcode == op::RENAME2 { body.u32()? } else { 0 };
            body.take(if opcode == op::RENAME2 { 4 } else { 0 })?;
            Operation::Rename { new_parent, flags, name: body.name()?, new_name: body.name()? }
        }
        op::LINK => Operation::Link { node: body.u64()?, name: body.name()? },
        op::OPEN | op::OPENDIR => {
            let flags = body.u32()?;
            body.take(4)?;
            if opcode == op::OPEN { Operation::Open { flags } } else { Operation::OpenDir }
        }
        op::CREATE => {
            let (flags, mode) = (body.u32()?, body.u32()?);
            body.take(8)?;
            Operation::Create { flags, mode, name: body.name()? }
        }
        op::READ | op::READDIR | op::READDIRPLUS => {
            let (handle, offset, size) = (body.u64()?, body.offset()?, body.size(MAX_IO)?);
            body.take(20)?;
            match opcode {
                op::READ => Operation::Read { handle, offset, size },
                _ => Operation::ReadDir { handle, offset, size, plus: opcode == op::READDIRPLUS },
            }
        }
        op::WRITE => {
            let (handle, offset, size) = (body.u64()?, body.offset()?, body.size(MAX_IO)?);
            let from_cache = body.u32()? & 1 != 0;
            body.take(8)?;
            let flags = body.u32()?;
            body.take(4)?;
            Operation::Write { handle, offset, flags, from_cache, data: body.take(size)? }
        }
        op::STATFS => Operation::StatFs,
        op::RELEASE | op::RELEASEDIR => {
            let handle = body.u64()?;
            body.take(16)?;
            match opcode {
                op::RELEASE => Operation::Release { handle },
                _ => Operation::ReleaseDir { handle },
            }
        }
        op::FSYNC | op::FSYNCDIR => {
            let handle = body.u64()?;
            let data_only = body.u32()? & 1 != 0;
            body.take(4)?;
            match opcode {
                op::FSYNC => Operation::Fsync { handle, data_only },
                _ => Operation::FsyncDir { handle, data_only },
            }
        }
        op::SETXATTR => {
            let (size, flags) = (body.size(MAX_XATTR)?, body.u32()?);
            Operation::SetXattr { flags, name: body.attribute()?, value: body.take(size)? }
        }
        op::GETXATTR | op::LISTXATTR => {
            // A caller may offer more room than any attribute can fill.
            let size = usize::try_from(body.u32()?).map_err(|_| Errno::INVAL)?.min(MAX_XATTR);
            body.take(4)?;
            match opcode {
                op::GETXATTR => Operation::GetXattr { size, name: body.attribute()? },
                _ => Operation::ListXattr { size },
            }
        }
        op::REMOVEXATTR => Operation::RemoveXattr { name: body.attribute()? },
        op::INIT => {
            let (major, minor, readahead, flags) = (body.u32()?, body.u32()?, body.u32()?, body.u32()?);
            // Later versions have longer bodies.
            body.0 = &[];
            Operation::Init { major, minor, readahead, flags }
        }
        op::INTERRUPT => {
            body.take(8)?;
            Operation::Interrupt
        }
        op::DESTROY => Operation::Destroy,
        op::BATCH_FORGET => {
            let count = usize::try_from(body.u32()?).map_err(|_| Errno::INVAL)?;
            body.take(4)?;
            Operation::BatchForget(Forgets(body.take(count.checked_mul(16).ok_or(Errno::INVAL)?)?))
        }
        op::FALLOCATE => {
            let (handle, offset, length, mode) = (body.u64()?, body.offset()?, body.offset()?, body.u32()?);
            body.take(4)?;
            Operation::Fallocate { handle, offset, length, mode }
        }
        op::LSEEK => {
            let (handle, offset, whence) = (body.u64()?, body.offset()?, body.u32()?);
            body.take(4)?;
            Operation::Lseek { handle, offset, whence }
        }
        op::COPY_FILE_RANGE => Operation::CopyFileRange {
            handle: body.u64()?,
            offset: body.offset()?,
            to_node: body.u64()?,
            to_handle: body.u64()?,
            to_offset: body.offset()?,
            length: body.u64()?,
            flags: body.u64()?,
        },
        _ => return Err(Errno::NOSYS),
    };
    if body.0.is_empty() { Ok(operation) } else { Err(Errno::INVAL) }
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Errno> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, Errno> {
        let bytes = self.take(4)?.try_into().map_err(|_| Errno::INVAL)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn u64(&mut self) -> Result<u64, Errno> {
        let bytes = self.take(8)?.try_into().map_err(|_| Errno::INVAL)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// A position or length in a file: Linux counts these as `i64`.
    fn offset(&mut self) -> Result<u64, Errno> {
        let offset = self.u64()?;
        i64::try_from(offset).map_err(|_| Errno::INVAL)?;
        Ok(offset)
    }

    fn size(&mut self, most: usize) -> Result<usize, Errno> {
        let size = usize::try_from(self.u32()?).map_err(|_| Errno::INVAL)?;
        if size <= most { Ok(size) } else { Err(Errno::INVAL) }
    }

    fn text(&mut self) -> Result<&'a CStr, Errno> {
        let text = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::INVAL)?;
        self.take(text.count_bytes() + 1)?;
        Ok(text)
    }

    fn name(&mut self) -> Result<Name<'a>, Errno> {
        Name::new(self.text()?)
    }

    /// The name of an extended attribute.
    fn attribute(&mut self) -> Result<&'a CStr, Errno> {
        let name = self.text()?;
        if (1..=MAX_NAME).contains(&name.count_bytes()) { Ok(name) } else { Err(Errno::RANGE) }
    }

    fn changes(&mut self) -> Result<Changes, Errno> {
        const MODE: u32 = 1;
        const UID: u32 = 1 << 1;
        const GID: u32 = 1 << 2;
        const SIZE: u32 = 1 << 3;
        const ACCESSED: u32 = 1 << 4;
        const MODIFIED: u32 = 1 << 5;
        const HANDLE: u32 = 1 << 6;
        const ACCESSED_NOW: u32 = 1 << 7;
        const MODIFIED_NOW: u32 = 1 << 8;

        let valid = self.u32()?;
        self.take(4)?;
        let (handle, size) = (self.u64()?, self.u64()?);
        self.take(8)?;
        let (accessed, modified) = (self.u64()?, self.u64()?);
        self.take(8)?;
        let (accessed_nanoseconds, modified_nanoseconds) = (self.u32()?, self.u32()?);
        self.take(4)?;
        let mode = self.u32()?;
        self.take(4)?;
        let (uid, gid) = (self.u32()?, self.u32()?);
        self.take(4)?;

        let has = |flag: u32| valid & flag != 0;
        let time = |set: u32, now: u32, seconds: u64, nanoseconds: u32| {
            if has(now) {
                return Ok(Time::Now);
            }
            if !has(set) {
                return Ok(Time::Keep);
            }
            if nanoseconds >= 1_000_000_000 {
                return Err(Errno::INVAL);
            }
            // Times before 1970 travel as two's complement.
            Ok(Time::At { seconds: seconds.cast_signed(), nanoseconds })
        };
        if has(SIZE) {
            i64::try_from(size).map_err(|_| Errno::FBIG)?;
        }
        Ok(Changes {
            handle: has(HANDLE).then_some(handle),
            mode: has(MODE).then_some(mode),
            uid: has(UID).then_some(uid),
            gid: has(GID).then_some(gid),
            size: has(SIZE).then_some(size),
            accessed: time(ACCESSED, ACCESSED_NOW, accessed, accessed_nanoseconds)?,
            modified: time(MODIFIED, MODIFIED_NOW, modified, modified_nanoseconds)?,
        })
    }
}
