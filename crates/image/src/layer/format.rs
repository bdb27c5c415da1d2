//! The squashfs 4.0 numbers that writer and reader share.
//!
//! Source: the Linux kernel's `fs/squashfs/squashfs_fs.h` and `Documentation/filesystems/squashfs.rst`. All numbers are
//! little-endian.

/// Bytes of file data in one compressed unit.
pub(super) const BLOCK: usize = 128 * 1024;
/// Uncompressed bytes in one metadata block.
pub(super) const METADATA: usize = 8192;
/// The bit in a metadata block's header that says "stored as it is".
pub(super) const METADATA_RAW: u16 = 0x8000;
/// The bit in a data block's size that says "stored as it is".
pub(super) const DATA_RAW: u32 = 1 << 24;
/// "There is none" for fragments and xattr sets.
pub(super) const NONE: u32 = u32::MAX;
/// "There is none" for a table.
pub(super) const NO_TABLE: u64 = u64::MAX;
/// Bytes of the superblock.
pub(super) const SUPERBLOCK: usize = 96;
/// What follows the superblock: a stored metadata block with the LZ4 options (version 1, no flags).
pub(super) const LZ4_OPTIONS: [u8; 10] = [8, 0x80, 1, 0, 0, 0, 0, 0, 0, 0];
/// What the image is padded to, so that a hash tree can follow it.
pub(super) const PAGE: u64 = 4096;

/// The most entries that may share one header in a directory listing.
pub(super) const RUN: usize = 256;

/// The mark of a folder that hides what lower layers hold below it.
pub(super) const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// The mark of a folder that the layer implied (it held something below) without describing it.
pub(super) const IMPLIED: &[u8] = b"trusted.vimana.implied";

pub(super) const DIRECTORY: u16 = 1;
pub(super) const FILE: u16 = 2;
pub(super) const SYMLINK: u16 = 3;
pub(super) const BLOCK_DEVICE: u16 = 4;
pub(super) const CHAR_DEVICE: u16 = 5;
pub(super) const FIFO: u16 = 6;
pub(super) const SOCKET: u16 = 7;
/// Added to a basic type, it gives the extended one.
pub(super) const EXTENDED: u16 = 7;

const MAGIC: u32 = 0x7371_7368;
const LZ4: u16 = 5;
const BLOCK_LOG: u16 = 17;
const FLAG_EXPORTABLE: u16 = 0x80;
const FLAG_NO_XATTRS: u16 = 0x200;
const FLAG_OPTIONS: u16 = 0x400;

/// Where everything lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) inodes: u32,
    pub(super) fragments: u32,
    pub(super) ids: u16,
    pub(super) root: u64,
    pub(super) bytes_used: u64,
    pub(super) id_table: u64,
    pub(super) xattr_table: u64,
    pub(super) inode_table: u64,
    pub(super) directory_table: u64,
    pub(super) fragment_table: u64,
    pub(super) export_table: u64,
}

impl Superblock {
    pub(super) fn encode(&self) -> [u8; SUPERBLOCK] {
        let no_xattrs = if self.xattr_table == NO_TABLE { FLAG_NO_XATTRS } else { 0 };
        let mut bytes = Vec::with_capacity(SUPERBLOCK);
        // The second zero is the time of making, which would differ between two conversions of one layer.
        for word in [MAGIC, self.inodes, 0, BLOCK as u32, self.fragments] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for half in [LZ4, BLOCK_LOG, FLAG_EXPORTABLE | FLAG_OPTIONS | no_xattrs, self.ids, 4, 0] {
            bytes.extend_from_slice(&half.to_le_bytes());
        }
        for long in [
            self.root,
            self.bytes_used,
            self.id_table,
            self.xattr_table,
            self.inode_table,
            self.directory_table,
            self.fragment_table,
            self.export_table,
        ] {
            bytes.extend_from_slice(&long.to_le_bytes());
        }
        let mut block = [0; SUPERBLOCK];
        for (to, from) in block.iter_mut().zip(bytes) {
            *to = from;
        }
        block
    }

    /// Reads a superblock, or says what about it isn't as this crate writes it.
    pub(super) fn decode(bytes: &[u8; SUPERBLOCK]) -> Result<Self, &'static str> {
        let mut fields = Fields::new(bytes);
        let short = "it ends too early";
        let mut word = || fields.u32().ok_or(short);
        let (magic, inodes, _made, block, fragments) = (word()?, word()?, word()?, word()?, word()?);
        let mut half = || fields.u16().ok_or(short);
        let (compressor, log, _flags, ids) = (half()?, half()?, half()?, half()?);
        let version = (half()?, half()?);
        let mut long = || fields.u64().ok_or(short);
        let superblock = Self {
            inodes,
            fragments,
            ids,
            root: long()?,
            bytes_used: long()?,
            id_table: long()?,
            xattr_table: long()?,
            inode_table: long()?,
            directory_table: long()?,
            fragment_table: long()?,
            export_table: long()?,
        };
        if magic != MAGIC {
            return Err("it doesn't begin with squashfs's magic number");
        }
        if version != (4, 0) {
            return Err("it isn't of version 4.0");
        }
        if compressor != LZ4 {
            return Err("it isn't compressed with LZ4");
        }
        if block as usize != BLOCK || log != BLOCK_LOG {
            return Err("its blocks aren't of 128 KiB");
        }
        Ok(superblock)
    }
}

/// Reads little-endian fields one after another.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Puts a device's numbers together as the kernel's `new_encode_dev` does. `None` when one is beyond what fits (12 bits
/// for the major number, 20 for the minor).
pub(super) fn device(major: u64, minor: u64) -> Option<u32> {
    let (major, minor) = (u32::try_from(major).ok()?, u32::try_from(minor).ok()?);
    (major < 1 << 12 && minor < 1 << 20).then_some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

/// Takes a device's numbers apart: major and minor.
pub(super) fn device_numbers(device: u32) -> (u32, u32) {
    ((device & 0xf_ff00) >> 8, (device & 0xff) | ((device >> 12) & 0xf_ff00))
}
