//! Reads the images back that [`convert`](super::convert) and [`merge`](super::merge) write.
//!
//! An image may come from anywhere: every place, count and length in it is checked before it is believed, no more
//! memory is taken than a fixed multiple of the image's own size, and what doesn't hold together is a [`ReadError`].

mod metadata;
mod walk;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use lz4_flex::block::decompress_into;

use super::format::{BLOCK, DATA_RAW, IMPLIED, NO_TABLE, OPAQUE, SUPERBLOCK, Superblock};
use super::tree::Xattrs;
use metadata::{Blocks, Region};
pub use walk::Entries;

/// An image opened for reading.
#[derive(Debug)]
pub struct Reader<'f> {
    file: &'f File,
    superblock: Superblock,
    inodes: Region,
    listings: Region,
    pairs: Region,
    fragments: Vec<(u64, u32)>,
    ids: Vec<u32>,
    /// Place, number of pairs.
    xattr_sets: Vec<(u64, u32)>,
    blocks: Blocks,
    /// Fragments that were read lately, the last one first: small files lie in them side by side.
    tails: RefCell<Vec<(u32, Arc<[u8]>)>>,
    /// Room for compressed bytes.
    packed: RefCell<Vec<u8>>,
}

/// How many fragments are kept, of 128 KiB each.
const KEPT_TAILS: usize = 16;

/// One name in an image, with what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path below the root, without a leading slash; empty for the root. Any bytes but zero.
    pub path: Vec<u8>,
    /// The inode's number: entries with the same number are hard links to one another.
    pub inode: u32,
    /// How many names the inode has; for a folder, 2 and one for each folder in it.
    pub links: u32,
    /// Permissions, set-id bits and sticky bit: the lower 12 bits.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// The time of the last change, in seconds since 1970.
    pub mtime: u32,
    /// Names and values, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// What it is.
    pub kind: Kind,
}

impl Entry {
    /// Bytes of a file's content or of a symbolic link's target; 0 for everything else.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.kind {
            Kind::File(extents) => extents.size,
            Kind::Symlink(target) => target.len() as u64,
            _ => 0,
        }
    }

    /// Whether it says that lower layers' entry of this name is gone.
    #[must_use]
    pub fn is_whiteout(&self) -> bool {
        self.kind == Kind::CharDevice { major: 0, minor: 0 }
    }

    /// Whether it is a folder that hides what lower layers hold below it.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.kind == Kind::Directory
            && self.xattrs.iter().any(|(name, value)| name == OPAQUE && value == b"y")
    }

    /// Whether it is a folder that the layer implied without describing it: what lower layers say of it counts.
    #[must_use]
    pub fn is_implied(&self) -> bool {
        self.kind == Kind::Directory && self.xattrs.iter().any(|(name, _)| name == IMPLIED)
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Directory,
    /// A regular file; [`Reader::content`] reads it.
    File(Extents),
    /// A symbolic link, with its target as it is.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Where a file's content lies in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents {
    pub(super) size: u64,
    pub(super) start: u64,
    /// Each block's size on disk, checked.
    pub(super) blocks: Vec<u32>,
    /// Which fragment, and where in it.
    pub(super) fragment: Option<(u32, u32)>,
}

/// Why an image can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file couldn't be read.
    #[error("reading the image failed at byte {at}")]
    Io {
        /// Where in the file.
        at: u64,
        /// What the system said.
        source: io::Error,
    },
    /// It isn't an image that this crate has written.
    #[error("this isn't a layer's image: {what}")]
    Foreign {
        /// What is different.
        what: &'static str,
    },
    /// The image doesn't hold together.
    #[error("the image is damaged: {what}")]
    Damaged {
        /// What is wrong with it.
        what: &'static str,
    },
}

const fn damaged(what: &'static str) -> ReadError {
    ReadError::Damaged { what }
}

impl<'f> Reader<'f> {
    /// Opens an image that begins at the file's start. Reads the superblock and the tables, not the names.
    ///
    /// # Errors
    /// [`ReadError::Foreign`] for another kind of file, [`ReadError::Damaged`] where tables don't hold together,
    /// [`ReadError::Io`] when the file can't be read.
    pub fn open(file: &'f File) -> Result<Self, ReadError> {
        let length = file.metadata().map_err(|source| ReadError::Io { at: 0, source })?.len();
        if length < SUPERBLOCK as u64 {
            return Err(ReadError::Foreign { what: "it is too short" });
        }
        let mut bytes = [0; SUPERBLOCK];
        read_at(file, &mut bytes, 0)?;
        let superblock = Superblock::decode(&bytes).map_err(|what| ReadError::Foreign { what })?;
        let sb = &superblock;
        if sb.bytes_used > length {
            return Err(damaged("it is shorter than it says"));
        }
        let after_listings = if sb.fragments == 0 { sb.export_table } else { sb.fragment_table };
        let order = [SUPERBLOCK as u64, sb.inode_table, sb.directory_table, after_listings, sb.id_table];
        if !order.is_sorted() || sb.id_table > sb.bytes_used {
            return Err(damaged("its tables aren't in order"));
        }
        let blocks = Blocks::default();
        let table = |start, count, size| metadata::table(file, &blocks, sb.bytes_used, start, count, size);
        let mut fragments = Vec::new();
        if sb.fragments > 0 {
            for entry in table(sb.fragment_table, sb.fragments, 16)?.as_chunks::<16>().0 {
                let (start, size) = (long(&entry[..8]), word(&entry[8..12]));
                check_extent(start, size, BLOCK, sb.inode_table)?;
                fragments.push((start, size));
            }
        }
        let ids = table(sb.id_table, u32::from(sb.ids), 4)?;
        let ids = ids.as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id)).collect();
        let mut xattr_sets = Vec::new();
        let mut pairs = Region { start: 0, end: 0 };
        if sb.xattr_table != NO_TABLE {
            let mut header = [0; 16];
            let inside = sb.xattr_table.checked_add(16).is_some_and(|end| end <= sb.bytes_used);
            if !inside {
                return Err(damaged("its xattr table lies outside"));
            }
            read_at(file, &mut header, sb.xattr_table)?;
            pairs = Region { start: long(&header[..8]), end: sb.xattr_table };
            if pairs.start > pairs.end {
                return Err(damaged("its xattrs lie behind their table"));
            }
            let sets = table(sb.xattr_table + 16, word(&header[8..12]), 16)?;
            xattr_sets =
                sets.as_chunks::<16>().0.iter().map(|set| (long(&set[..8]), word(&set[8..12]))).collect();
        }
        Ok(Self {
            inodes: Region { start: sb.inode_table, end: sb.directory_table },
            listings: Region { start: sb.directory_table, end: after_listings },
            pairs,
            file,
            fragments,
            ids,
            xattr_sets,
            blocks,
            superblock,
            tails: RefCell::default(),
            packed: RefCell::default(),
        })
    }

    /// All entries, folders before what they hold, in the order of their names' bytes; the root comes first.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        Entries::new(self)
    }

    /// Reads a file's content.
    ///
    /// # Errors
    /// [`NotAFile`] for an entry of another kind.
    pub fn content<'r>(&'r self, entry: &'r Entry) -> Result<Content<'r>, NotAFile> {
        match &entry.kind {
            Kind::File(extents) => Ok(Content {
                reader: self,
                extents,
                next: 0,
                disk: extents.start,
                left: extents.size,
                block: Vec::new(),
                taken: 0,
            }),
            _ => Err(NotAFile),
        }
    }

    pub(super) fn file(&self) -> &'f File {
        self.file
    }

    /// A fragment's place and size on disk, checked.
    pub(super) fn fragment(&self, index: u32) -> Result<(u64, u32), ReadError> {
        self.fragments
            .get(index as usize)
            .copied()
            .ok_or(damaged("a file's tail is in a fragment that isn't there"))
    }

    fn unpack(&self, start: u64, size: u32, wanted: usize, block: &mut Vec<u8>) -> Result<(), ReadError> {
        let length = (size & !DATA_RAW) as usize;
        if size & DATA_RAW != 0 {
            block.resize(length, 0);
            return read_at(self.file, block, start);
        }
        let mut packed = self.packed.borrow_mut();
        packed.resize(length, 0);
        read_at(self.file, &mut packed, start)?;
        block.resize(wanted, 0);
        let length = decompress_into(&packed, block).map_err(|_| damaged("a block doesn't decompress"))?;
        block.truncate(length);
        Ok(())
    }

    /// A fragment's bytes, unpacked.
    fn tail(&self, index: u32) -> Result<Arc<[u8]>, ReadError> {
        let mut tails = self.tails.borrow_mut();
        if let Some(place) = tails.iter().position(|(kept, _)| *kept == index) {
            tails[..=place].rotate_right(1);
        } else {
            let (start, size) = self.fragment(index)?;
            let mut block = Vec::new();
            self.unpack(start, size, BLOCK, &mut block)?;
            tails.truncate(KEPT_TAILS - 1);
            tails.insert(0, (index, block.into()));
        }
        Ok(Arc::clone(&tails[0].1))
    }

    fn xattrs(&self, set: u32) -> Result<Xattrs, ReadError> {
        const SHORT: ReadError = damaged("an xattr ends too early");
        let (place, count) =
            *self.xattr_sets.get(set as usize).ok_or(damaged("an inode's xattrs aren't there"))?;
        let mut cursor = self.blocks.cursor(self.file, self.pairs, place)?;
        let mut xattrs = Vec::new();
        for _ in 0..count {
            let space = cursor.u16()?;
            let name = usize::from(cursor.u16()?);
            let name = cursor.bytes(name)?;
            let length = cursor.u32()? as usize;
            if length > 64 << 10 {
                return Err(SHORT);
            }
            let value = cursor.bytes(length)?;
            let prefix = super::write::NAMESPACES.iter().find(|(_, number)| *number == space);
            let (prefix, _) = prefix.ok_or(damaged("an xattr is of an unknown kind"))?;
            xattrs.push(([prefix, name.as_slice()].concat(), value));
        }
        xattrs.sort();
        Ok(xattrs)
    }
}

/// The entry isn't a regular file, and has no content.
#[derive(Debug, thiserror::Error)]
#[error("only a regular file has content")]
pub struct NotAFile;

/// A file's content as a stream. A damaged image gives an error of kind [`io::ErrorKind::InvalidData`].
#[derive(Debug)]
pub struct Content<'r> {
    reader: &'r Reader<'r>,
    extents: &'r Extents,
    next: usize,
    disk: u64,
    left: u64,
    block: Vec<u8>,
    taken: usize,
}

/// A part of a file's content.
#[derive(Debug)]
pub(crate) enum Piece<'c> {
    Bytes(&'c [u8]),
    /// So many zeros.
    Hole(u64),
}

impl Content<'_> {
    /// Gives what comes next, at most a block, or `None` at the end. Not to be mixed with reading.
    pub(crate) fn piece(&mut self) -> Result<Option<Piece<'_>>, ReadError> {
        if self.left == 0 {
            return Ok(None);
        }
        if self.extents.blocks.get(self.next) == Some(&0) {
            let length = self.left.min(BLOCK as u64);
            self.next += 1;
            self.left -= length;
            return Ok(Some(Piece::Hole(length)));
        }
        self.advance()?;
        Ok(Some(Piece::Bytes(&self.block)))
    }

    fn advance(&mut self) -> Result<(), ReadError> {
        self.taken = 0;
        let wanted = usize::try_from(self.left).unwrap_or(BLOCK).min(BLOCK);
        if let Some(size) = self.extents.blocks.get(self.next) {
            self.next += 1;
            match size {
                0 => {
                    self.block.clear();
                    self.block.resize(wanted, 0);
                }
                size => self.reader.unpack(self.disk, *size, wanted, &mut self.block)?,
            }
            self.disk += u64::from(size & !DATA_RAW);
        } else if let Some((fragment, offset)) = self.extents.fragment {
            let block = self.reader.tail(fragment)?;
            let tail = block.get(offset as usize..).and_then(|tail| tail.get(..wanted));
            self.block.clear();
            self.block.extend_from_slice(tail.ok_or(damaged("a file's tail ends beyond its fragment"))?);
        } else {
            self.block.clear();
        }
        if self.block.len() != wanted {
            return Err(damaged("a block isn't as long as it should be"));
        }
        self.left -= wanted as u64;
        Ok(())
    }
}

impl Read for Content<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.block.len() {
            if self.left == 0 || into.is_empty() {
                return Ok(0);
            }
            self.advance().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        let count = into.len().min(self.block.len() - self.taken);
        into[..count].copy_from_slice(&self.block[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

/// Checks that a block on disk is no longer than it may be, and lies before the tables; gives its end.
fn check_extent(start: u64, size: u32, longest: usize, end: u64) -> Result<u64, ReadError> {
    let length = size & !DATA_RAW;
    let stop = start.checked_add(u64::from(length)).filter(|stop| *stop <= end);
    match stop {
        Some(stop) if length as usize <= longest && start >= SUPERBLOCK as u64 => Ok(stop),
        _ => Err(damaged("a block of data lies outside, or is too long")),
    }
}

fn read_at(file: &File, into: &mut [u8], at: u64) -> Result<(), ReadError> {
    use std::os::unix::fs::FileExt as _;
    file.read_exact_at(into, at).map_err(|source| ReadError::Io { at, source })
}

fn word(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

fn long(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}
