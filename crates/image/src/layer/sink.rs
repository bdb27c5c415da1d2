//! Where an image goes: bytes in order into a file, hashed on their way.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;

use evidence::verity::{BLOCK, Tree};

use super::format::{LZ4_OPTIONS, PAGE, SUPERBLOCK, Superblock};
use super::{Layer, Verity};

/// Written at once, so that small metadata blocks cost no system call each.
const FLUSH: usize = 1 << 20;

pub(super) struct Sink<'f> {
    file: &'f mut File,
    buffer: Vec<u8>,
    /// Bytes taken so far: the offset of the next one.
    position: u64,
    /// The image's first block, whose superblock is known only at the end.
    first: Vec<u8>,
    tree: Tree,
}

impl<'f> Sink<'f> {
    /// Starts at the beginning of the file, with room for the superblock.
    pub(super) fn new(file: &'f mut File) -> io::Result<Self> {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        let mut sink = Self {
            file,
            buffer: Vec::with_capacity(FLUSH + FLUSH / 4),
            position: 0,
            first: Vec::with_capacity(BLOCK),
            tree: Tree::new(&[]),
        };
        sink.write(&[0; SUPERBLOCK])?;
        sink.write(&LZ4_OPTIONS)?;
        Ok(sink)
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.first.len() < BLOCK {
            let wanted = bytes.len().min(BLOCK - self.first.len());
            self.first.extend_from_slice(&bytes[..wanted]);
        }
        self.buffer.extend_from_slice(bytes);
        self.position += bytes.len() as u64;
        if self.buffer.len() >= FLUSH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tree.update(&self.buffer);
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Pads the image, appends the hash tree and puts the superblock in its place.
    pub(super) fn finish(
        mut self,
        superblock: &Superblock,
        entries: u64,
        unpacked: u64,
    ) -> io::Result<Layer> {
        let padding = self.position.next_multiple_of(PAGE) - self.position;
        self.write(&vec![0; padding as usize])?;
        self.flush()?;
        let file_system_bytes = self.position;

        let superblock = superblock.encode();
        let mut first = [0; BLOCK];
        for (to, from) in first.iter_mut().zip(superblock.iter().chain(self.first.iter().skip(SUPERBLOCK))) {
            *to = *from;
        }
        self.file.write_all_at(&superblock, 0)?;
        self.tree.replace_block(0, &first).map_err(io::Error::other)?;

        let verity = self.tree.finish().map_err(io::Error::other)?;
        for level in verity.tree() {
            self.file.write_all(level)?;
        }
        Ok(Layer {
            file_system_bytes,
            total_bytes: file_system_bytes + verity.tree_bytes(),
            verity: Verity {
                root: verity.root,
                data_blocks: verity.data_blocks,
                hash_offset: file_system_bytes,
            },
            entries,
            unpacked_bytes: unpacked,
            needs_lower: false,
        })
    }
}
