//! Empty file systems, which every kernel's ext4 driver mounts.
//!
//! Written here rather than by `mkfs`, which isn't on every machine, is in no guest, and takes longer than the guest's boot allows.
//! A scratch disk has no journal: it dies with its spacecore, and a journal would double every write. A volume's disk has one, because it
//! outlives crashes; and it has no `lost+found`, because programs such as databases want the folder that they are given to be empty.
//!
//! Layout: Linux, `Documentation/filesystems/ext4/`, with blocks of 4096 bytes and the features `filetype`,
//! `sparse_super` and `large_file`; of a volume also `has_journal` and, for the journal alone, `extents`. Where the disk doesn't hold
//! zeros also `uninit_bg`, by which a kernel knows what of the tables was never written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

const BLOCK: u64 = 4096;
const BLOCKS_PER_GROUP: u64 = BLOCK * 8;
const INODE_SIZE: u64 = 256;
/// One inode for each 16 KiB.
const INODES_PER_GROUP: u64 = 8192;
const INODE_TABLE_BLOCKS: u64 = INODES_PER_GROUP * INODE_SIZE / BLOCK;
const DESCRIPTOR: u64 = 32;
const ROOT_INODE: u64 = 2;
const JOURNAL_INODE: u64 = 8;
const LOST_FOUND_INODE: u64 = 11;
/// What the journal's inode and the feature flags name its layout by.
const EXTENTS: u64 = 0x8_0000;
/// Where the first superblock lies, in bytes, and what it is known by.
const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;
/// What a descriptor says of inodes that were never written (`EXT4_BG_INODE_UNINIT`).
const INODES_UNWRITTEN: u64 = 1;

/// Who owns the root folder of a volume, and who may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permissions, 0 to 0o7777.
    pub mode: u32,
}

impl Default for Owner {
    fn default() -> Self {
        Self { uid: 0, gid: 0, mode: 0o755 }
    }
}

/// What a disk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The writes of one run.
    Scratch,
    /// What is kept, with this owner.
    Volume(Owner),
}

/// What a disk holds before there is a file system in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// Zeros: what is to be zero isn't written.
    Zeros,
    /// Anything.
    Anything,
}

impl Kind {
    /// Blocks of the journal: a 64th of the disk, 4 to 32 MiB, so that it lies in the first group in one piece.
    fn journal_blocks(self, blocks: u64) -> u64 {
        match self {
            Self::Scratch => 0,
            Self::Volume(_) => (blocks / 64).clamp(1024, 8192),
        }
    }

    /// Blocks of folders.
    fn folders(self) -> u64 {
        match self {
            Self::Scratch => 2,
            Self::Volume(_) => 1,
        }
    }

    /// Inodes in use, the ten reserved ones included.
    fn inodes(self) -> u64 {
        match self {
            Self::Scratch => LOST_FOUND_INODE,
            Self::Volume(_) => LOST_FOUND_INODE - 1,
        }
    }
}

struct Geometry {
    blocks: u64,
    groups: u64,
    descriptor_blocks: u64,
    kind: Kind,
    ground: Ground,
}

impl Geometry {
    fn new(bytes: u64, kind: Kind, ground: Ground) -> Self {
        let mut blocks = bytes / BLOCK;
        loop {
            let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
            let descriptor_blocks = (groups * DESCRIPTOR).div_ceil(BLOCK);
            let geometry = Self { blocks, groups, descriptor_blocks, kind, ground };
            let last = groups - 1;
            let room = blocks - last * BLOCKS_PER_GROUP;
            // A last group too small for its own tables is left off.
            if groups == 1 || room > geometry.overhead(last) + 50 {
                return geometry;
            }
            blocks = last * BLOCKS_PER_GROUP;
        }
    }

    fn has_superblock(group: u64) -> bool {
        let power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        group <= 1 || power_of(3) || power_of(5) || power_of(7)
    }

    /// Blocks of a group before its bitmaps.
    fn head(&self, group: u64) -> u64 {
        if Self::has_superblock(group) { 1 + self.descriptor_blocks } else { 0 }
    }

    /// Blocks of a group that hold no data.
    fn overhead(&self, group: u64) -> u64 {
        self.head(group) + 2 + INODE_TABLE_BLOCKS
    }

    fn start(group: u64) -> u64 {
        group * BLOCKS_PER_GROUP
    }

    fn block_bitmap(&self, group: u64) -> u64 {
        Self::start(group) + self.head(group)
    }

    fn blocks_in(&self, group: u64) -> u64 {
        (self.blocks - Self::start(group)).min(BLOCKS_PER_GROUP)
    }

    /// Data blocks in use from the beginning: the folders' and the journal's, in group 0.
    fn used_data(&self, group: u64) -> u64 {
        if group == 0 { self.kind.folders() + self.kind.journal_blocks(self.blocks) } else { 0 }
    }

    fn free_blocks(&self, group: u64) -> u64 {
        self.blocks_in(group) - self.overhead(group) - self.used_data(group)
    }

    fn free_inodes(&self, group: u64) -> u64 {
        INODES_PER_GROUP - if group == 0 { self.kind.inodes() } else { 0 }
    }
}

/// Makes an empty file system of so many bytes at a disk's beginning. The first block, by which it is known ([`is_there`]), comes last.
///
/// # Errors
/// The disk can't be written.
pub fn format(file: &File, bytes: u64, kind: Kind, ground: Ground) -> io::Result<()> {
    let geometry = Geometry::new(bytes, kind, ground);
    let descriptors = descriptors(&geometry);
    for group in 0..geometry.groups {
        if Geometry::has_superblock(group) {
            let start = Geometry::start(group) * BLOCK;
            if group > 0 {
                file.write_all_at(&superblock(&geometry, group), start)?;
            }
            file.write_all_at(&descriptors, start + BLOCK)?;
        }
        let bitmap = geometry.block_bitmap(group) * BLOCK;
        let used = geometry.overhead(group) + geometry.used_data(group);
        file.write_all_at(&bitmap_of(used, geometry.blocks_in(group)), bitmap)?;
        file.write_all_at(
            &bitmap_of(INODES_PER_GROUP - geometry.free_inodes(group), INODES_PER_GROUP),
            bitmap + BLOCK,
        )?;
    }
    let table = (geometry.block_bitmap(0) + 2) * BLOCK;
    let data = geometry.overhead(0);
    let inode_at = |number: u64| table + (number - 1) * INODE_SIZE;
    if ground == Ground::Anything {
        file.write_all_at(&[0; BLOCK as usize], table)?;
    }
    match kind {
        Kind::Scratch => {
            // Root: `.`, `..` and the link from lost+found.
            file.write_all_at(&folder_inode(Owner::default(), 3, data), inode_at(ROOT_INODE))?;
            let private = Owner { mode: 0o700, ..Owner::default() };
            file.write_all_at(&folder_inode(private, 2, data + 1), inode_at(LOST_FOUND_INODE))?;
            let root = [(ROOT_INODE, "."), (ROOT_INODE, ".."), (LOST_FOUND_INODE, "lost+found")];
            file.write_all_at(&folder_block(&root), data * BLOCK)?;
            let inner = [(LOST_FOUND_INODE, "."), (ROOT_INODE, "..")];
            file.write_all_at(&folder_block(&inner), (data + 1) * BLOCK)?;
        }
        Kind::Volume(owner) => {
            file.write_all_at(&folder_inode(owner, 2, data), inode_at(ROOT_INODE))?;
            file.write_all_at(&folder_block(&[(ROOT_INODE, "."), (ROOT_INODE, "..")]), data * BLOCK)?;
            let blocks = kind.journal_blocks(geometry.blocks);
            file.write_all_at(&journal_inode(data + 1, blocks), inode_at(JOURNAL_INODE))?;
            file.write_all_at(&journal_superblock(blocks), (data + 1) * BLOCK)?;
        }
    }
    if ground == Ground::Anything {
        // So that what is known by its first block is whole.
        file.sync_data()?;
    }
    file.write_all_at(&superblock(&geometry, 0), SUPERBLOCK)
}

/// Whether a disk holds a file system of this module's.
///
/// # Errors
/// The disk can't be read.
pub fn is_there(file: &File) -> io::Result<bool> {
    let mut bytes = [0; 1024];
    file.read_exact_at(&mut bytes, SUPERBLOCK)?;
    let inodes = u64::from(u32::from_le_bytes([bytes[0x28], bytes[0x29], bytes[0x2a], bytes[0x2b]]));
    Ok(bytes[0x38..0x3a] == MAGIC.to_le_bytes() && inodes == INODES_PER_GROUP)
}

/// Little-endian fields at fixed offsets of a structure.
struct Fields<'a>(&'a mut [u8]);

impl Fields<'_> {
    fn u16(&mut self, offset: usize, value: u64) {
        self.0[offset..offset + 2].copy_from_slice(&value.to_le_bytes()[..2]);
    }

    fn u32(&mut self, offset: usize, value: u64) {
        self.0[offset..offset + 4].copy_from_slice(&value.to_le_bytes()[..4]);
    }
}

fn superblock(geometry: &Geometry, group: u64) -> Vec<u8> {
    let sum = |of: &dyn Fn(u64) -> u64| (0..geometry.groups).map(of).sum::<u64>();
    let mut bytes = vec![0; 1024];
    let mut fields = Fields(&mut bytes);
    fields.u32(0x00, INODES_PER_GROUP * geometry.groups);
    fields.u32(0x04, geometry.blocks);
    fields.u32(0x0c, sum(&|group| geometry.free_blocks(group)));
    fields.u32(0x10, sum(&|group| geometry.free_inodes(group)));
    fields.u32(0x18, 2); // block size: 1024 << 2
    fields.u32(0x1c, 2); // cluster size, the same
    fields.u32(0x20, BLOCKS_PER_GROUP);
    fields.u32(0x24, BLOCKS_PER_GROUP);
    fields.u32(0x28, INODES_PER_GROUP);
    fields.u16(0x36, 0xffff); // no check after so many mounts
    fields.u16(0x38, MAGIC.into());
    fields.u16(0x3a, 1); // clean
    fields.u16(0x3c, 1); // errors: go on
    fields.u32(0x4c, 1); // revision with feature flags
    fields.u32(0x54, LOST_FOUND_INODE);
    fields.u16(0x58, INODE_SIZE);
    fields.u16(0x5a, group);
    let mut incompatible = 0x2; // filetype
    if let Kind::Volume(_) = geometry.kind {
        fields.u32(0x5c, 0x4); // compatible: has_journal
        fields.u32(0xe0, JOURNAL_INODE);
        incompatible |= 0x40; // extents
    }
    fields.u32(0x60, incompatible);
    // Read-only compatible: sparse_super, large_file, and uninit_bg.
    fields.u32(0x64, if geometry.ground == Ground::Anything { 0x13 } else { 0x3 });
    fields.u16(0x15c, 32); // extra inode bytes that new inodes have
    fields.u16(0x15e, 32);
    bytes
}

fn descriptors(geometry: &Geometry) -> Vec<u8> {
    let mut table = Vec::new();
    for group in 0..geometry.groups {
        let bitmap = geometry.block_bitmap(group);
        let mut bytes = vec![0; DESCRIPTOR as usize];
        let mut fields = Fields(&mut bytes);
        fields.u32(0, bitmap);
        fields.u32(4, bitmap + 1);
        fields.u32(8, bitmap + 2);
        fields.u16(12, geometry.free_blocks(group));
        fields.u16(14, geometry.free_inodes(group));
        fields.u16(16, if group == 0 { geometry.kind.folders() } else { 0 });
        if geometry.ground == Ground::Anything {
            // The first block of group 0's inodes is written; of other groups nothing is.
            fields.u16(18, if group == 0 { 0 } else { INODES_UNWRITTEN });
            let written = if group == 0 { BLOCK / INODE_SIZE } else { 0 };
            fields.u16(28, INODES_PER_GROUP - written);
            let sum = descriptor_sum(group, &fields.0[..30]);
            fields.u16(30, sum.into());
        }
        table.append(&mut bytes);
    }
    table
}

/// The sum of a group's descriptor, of a file system whose identifier is all zeros.
fn descriptor_sum(group: u64, descriptor: &[u8]) -> u16 {
    let number = &group.to_le_bytes()[..4];
    let bytes = [0; 16].iter().chain(number).chain(descriptor);
    bytes.fold(0xffff, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0xa001 } else { 0 })
    })
}

/// A bitmap of one block: the first `used` bits, and those beyond `valid`, are set.
fn bitmap_of(used: u64, valid: u64) -> Vec<u8> {
    let bit = |index: u64| index < used || index >= valid;
    (0..BLOCK).map(|byte| (0..8).fold(0u8, |bits, i| bits | u8::from(bit(byte * 8 + i)) << i)).collect()
}

fn folder_inode(owner: Owner, links: u64, block: u64) -> Vec<u8> {
    let mut bytes = vec![0; INODE_SIZE as usize];
    let mut fields = Fields(&mut bytes);
    let (uid, gid) = (u64::from(owner.uid), u64::from(owner.gid));
    fields.u16(0, 0o040_000 | u64::from(owner.mode & 0o7777));
    fields.u16(2, uid);
    fields.u16(24, gid);
    fields.u16(120, uid >> 16);
    fields.u16(122, gid >> 16);
    fields.u32(4, BLOCK);
    fields.u16(26, links);
    fields.u32(28, BLOCK / 512);
    fields.u32(40, block);
    fields.u16(128, 32);
    bytes
}

/// The journal's inode: a file in one extent.
fn journal_inode(block: u64, blocks: u64) -> Vec<u8> {
    let mut bytes = vec![0; INODE_SIZE as usize];
    let mut fields = Fields(&mut bytes);
    fields.u16(0, 0o100_600);
    fields.u32(4, blocks * BLOCK);
    fields.u16(26, 1); // links
    fields.u32(28, blocks * BLOCK / 512);
    fields.u32(32, EXTENTS);
    fields.u16(40, 0xf30a); // a node of the extent tree
    fields.u16(42, 1); // with one extent
    fields.u16(44, 4); // of at most four
    fields.u16(56, blocks); // which begins at block 0 of the file
    fields.u32(60, block);
    fields.u16(128, 32);
    bytes
}

/// An empty journal's superblock (jbd2, version 2), whose numbers are big-endian.
fn journal_superblock(blocks: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK as usize];
    let words = [(0, 0xc03b_3998), (4, 4), (12, BLOCK), (16, blocks), (20, 1), (24, 1), (64, 1)];
    for (offset, value) in words {
        bytes[offset..offset + 4].copy_from_slice(&value.to_be_bytes()[4..]);
    }
    bytes
}

fn folder_block(entries: &[(u64, &str)]) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK as usize);
    for (index, (inode, name)) in entries.iter().enumerate() {
        let last = index + 1 == entries.len();
        let length = if last { BLOCK as usize - block.len() } else { (8 + name.len()).next_multiple_of(4) };
        let mut entry = vec![0; length];
        let mut fields = Fields(&mut entry);
        fields.u32(0, *inode);
        fields.u16(4, length as u64);
        entry[6] = name.len() as u8;
        entry[7] = 2; // a folder
        entry[8..8 + name.len()].copy_from_slice(name.as_bytes());
        block.append(&mut entry);
    }
    block
}
