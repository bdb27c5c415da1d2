//! Walks an image's folders and reads its inodes.

use std::collections::BTreeSet;

use super::super::format::{
    BLOCK, BLOCK_DEVICE, CHAR_DEVICE, DATA_RAW, DIRECTORY, EXTENDED, FIFO, FILE, NONE, RUN, SOCKET, SYMLINK,
    device_numbers,
};
use super::{Entry, Extents, Kind, ReadError, Reader, check_extent, damaged};

/// The longest path that Linux takes.
const LONGEST_PATH: usize = 4095;

/// Goes through all entries of an image; see [`Reader::entries`]. Ends after the first error.
#[derive(Debug)]
pub struct Entries<'r> {
    reader: &'r Reader<'r>,
    /// What is still to be visited, the next one last: path and reference to the inode.
    pending: Vec<(Vec<u8>, u64)>,
    /// The folders seen, by inode number: a folder that holds itself must not be walked for ever.
    seen: BTreeSet<u32>,
}

/// What an inode says about itself.
struct Inode {
    entry: Entry,
    /// For a folder: its listing's reference and bytes.
    listing: Option<(u64, u32)>,
}

impl<'r> Entries<'r> {
    pub(super) fn new(reader: &'r Reader<'r>) -> Self {
        Self { reader, pending: vec![(Vec::new(), reader.superblock.root)], seen: BTreeSet::new() }
    }

    fn visit(&mut self, path: Vec<u8>, reference: u64) -> Result<Entry, ReadError> {
        let root = path.is_empty();
        let Inode { entry, listing } = self.reader.inode(path, reference)?;
        match listing {
            Some((place, bytes)) => {
                if !self.seen.insert(entry.inode) {
                    return Err(damaged("a folder is in two places"));
                }
                let from = self.pending.len();
                self.reader.listing(&entry.path, place, bytes, &mut self.pending)?;
                self.pending[from..].reverse();
            }
            None if root => return Err(damaged("its root isn't a folder")),
            None => {}
        }
        Ok(entry)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (path, reference) = self.pending.pop()?;
        let result = self.visit(path, reference);
        if result.is_err() {
            self.pending.clear();
        }
        Some(result)
    }
}

impl Reader<'_> {
    fn inode(&self, path: Vec<u8>, reference: u64) -> Result<Inode, ReadError> {
        let mut cursor = self.blocks.cursor(self.file, self.inodes, reference)?;
        let kind = cursor.u16()?;
        let mode = cursor.u16()? & 0o7777;
        let id = |index: u16| {
            self.ids.get(usize::from(index)).copied().ok_or(damaged("an inode's owner isn't in the table"))
        };
        let (uid, gid) = (id(cursor.u16()?)?, id(cursor.u16()?)?);
        let (mtime, inode) = (cursor.u32()?, cursor.u32()?);
        if inode == 0 || inode > self.superblock.inodes {
            return Err(damaged("an inode's number is beyond their count"));
        }
        let extended = (DIRECTORY + EXTENDED..=SOCKET + EXTENDED).contains(&kind);
        let basic = if extended { kind - EXTENDED } else { kind };
        let (mut links, mut xattrs, mut listing) = (1, NONE, None);
        let kind = match basic {
            DIRECTORY => {
                let (block, offset, size);
                if extended {
                    links = cursor.u32()?;
                    size = cursor.u32()?;
                    block = cursor.u32()?;
                    let _parent = cursor.u32()?;
                    let _indices = cursor.u16()?;
                    offset = cursor.u16()?;
                    xattrs = cursor.u32()?;
                } else {
                    block = cursor.u32()?;
                    links = cursor.u32()?;
                    size = u32::from(cursor.u16()?);
                    offset = cursor.u16()?;
                }
                let size = size.checked_sub(3).ok_or(damaged("a folder is shorter than an empty one"))?;
                listing = Some((u64::from(block) << 16 | u64::from(offset), size));
                Kind::Directory
            }
            FILE => {
                let (start, size, fragment, offset);
                if extended {
                    start = cursor.u64()?;
                    size = cursor.u64()?;
                    let _holes = cursor.u64()?;
                    links = cursor.u32()?;
                    fragment = cursor.u32()?;
                    offset = cursor.u32()?;
                    xattrs = cursor.u32()?;
                } else {
                    start = u64::from(cursor.u32()?);
                    fragment = cursor.u32()?;
                    offset = cursor.u32()?;
                    size = u64::from(cursor.u32()?);
                }
                let fragment = (fragment != NONE).then_some((fragment, offset));
                let whole = size / BLOCK as u64;
                let tail = size % BLOCK as u64;
                let count = if fragment.is_some() { whole } else { size.div_ceil(BLOCK as u64) };
                if let Some((index, offset)) = fragment {
                    self.fragment(index)?;
                    if tail == 0 || u64::from(offset) + tail > BLOCK as u64 {
                        return Err(damaged("a file's tail doesn't lie within a fragment"));
                    }
                }
                // Pushed one by one: a size that isn't true runs into the table's end, instead of taking memory.
                let mut blocks = Vec::new();
                let mut at = start;
                for _ in 0..count {
                    let size = cursor.u32()?;
                    if size != 0 {
                        if size & !DATA_RAW == 0 {
                            return Err(damaged("a stored block is empty"));
                        }
                        at = check_extent(at, size, BLOCK, self.inodes.start)?;
                    }
                    blocks.push(size);
                }
                Kind::File(Extents { size, start, blocks, fragment })
            }
            SYMLINK => {
                links = cursor.u32()?;
                let length = cursor.u32()? as usize;
                if length > LONGEST_PATH {
                    return Err(damaged("a symbolic link is too long"));
                }
                let target = cursor.bytes(length)?;
                if extended {
                    xattrs = cursor.u32()?;
                }
                Kind::Symlink(target)
            }
            CHAR_DEVICE | BLOCK_DEVICE => {
                links = cursor.u32()?;
                let (major, minor) = device_numbers(cursor.u32()?);
                if extended {
                    xattrs = cursor.u32()?;
                }
                if basic == CHAR_DEVICE {
                    Kind::CharDevice { major, minor }
                } else {
                    Kind::BlockDevice { major, minor }
                }
            }
            FIFO | SOCKET => {
                links = cursor.u32()?;
                if extended {
                    xattrs = cursor.u32()?;
                }
                if basic == FIFO { Kind::Fifo } else { Kind::Socket }
            }
            _ => return Err(damaged("an inode is of an unknown kind")),
        };
        let xattrs = if xattrs == NONE { Vec::new() } else { self.xattrs(xattrs)? };
        Ok(Inode { entry: Entry { path, inode, links, mode, uid, gid, mtime, xattrs, kind }, listing })
    }

    /// Appends a folder's entries: path and reference to the inode.
    fn listing(
        &self,
        parent: &[u8],
        place: u64,
        bytes: u32,
        to: &mut Vec<(Vec<u8>, u64)>,
    ) -> Result<(), ReadError> {
        const LONGER: ReadError = damaged("a folder's listing is longer than the folder says");
        if bytes == 0 {
            return Ok(());
        }
        let mut cursor = self.blocks.cursor(self.file, self.listings, place)?;
        let mut left = bytes as usize;
        let mut previous = Vec::new();
        while left > 0 {
            left = left.checked_sub(12).ok_or(LONGER)?;
            let count = cursor.u32()?;
            let block = cursor.u32()?;
            let _number = cursor.u32()?;
            if count as usize >= RUN {
                return Err(damaged("a folder's listing has too long a run"));
            }
            for _ in 0..=count {
                let offset = cursor.u16()?;
                let _difference = cursor.u16()?;
                let _kind = cursor.u16()?;
                let length = usize::from(cursor.u16()?) + 1;
                if length > 255 {
                    return Err(damaged("a name is longer than 255 bytes"));
                }
                let name = cursor.bytes(length)?;
                left = left.checked_sub(8 + length).ok_or(LONGER)?;
                let odd = name == b"." || name == b".." || name.iter().any(|byte| matches!(byte, 0 | b'/'));
                if odd || name <= previous {
                    return Err(damaged("a folder's names aren't proper or not in order"));
                }
                let path = if parent.is_empty() { name.clone() } else { [parent, b"/", &name].concat() };
                if path.len() > LONGEST_PATH {
                    return Err(damaged("its folders are nested too deep"));
                }
                to.push((path, u64::from(block) << 16 | u64::from(offset)));
                previous = name;
            }
        }
        Ok(())
    }
}
