//! Metadata blocks: found by where they begin, decompressed when needed, kept for a while.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use lz4_flex::block::decompress_into;

use super::super::format::{METADATA, METADATA_RAW};
use super::{ReadError, damaged, long, read_at};

/// How many decompressed blocks are kept: 4 MiB of them.
const KEPT: usize = 512;

/// A part of the image that holds metadata blocks only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    pub(super) start: u64,
    pub(super) end: u64,
}

#[derive(Clone, Debug)]
struct Block {
    bytes: Arc<[u8]>,
    /// Where the next one begins.
    next: u64,
}

#[derive(Debug, Default)]
pub(super) struct Blocks {
    kept: RefCell<BTreeMap<u64, Block>>,
}

impl Blocks {
    fn get(&self, file: &File, at: u64, end: u64) -> Result<Block, ReadError> {
        const OUTSIDE: ReadError = damaged("a metadata block lies outside its table");
        if let Some(block) = self.kept.borrow().get(&at) {
            return Ok(block.clone());
        }
        let body = at.checked_add(2).filter(|body| *body <= end).ok_or(OUTSIDE)?;
        let mut header = [0; 2];
        read_at(file, &mut header, at)?;
        let header = u16::from_le_bytes(header);
        let length = usize::from(header & !METADATA_RAW);
        let next = body.checked_add(length as u64).filter(|next| *next <= end).ok_or(OUTSIDE)?;
        if length == 0 || length > METADATA {
            return Err(damaged("a metadata block is empty or too long"));
        }
        let mut bytes = vec![0; length];
        read_at(file, &mut bytes, body)?;
        if header & METADATA_RAW == 0 {
            let mut plain = vec![0; METADATA];
            let length = decompress_into(&bytes, &mut plain);
            plain.truncate(length.map_err(|_| damaged("a metadata block doesn't decompress"))?);
            bytes = plain;
        }
        let block = Block { bytes: bytes.into(), next };
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(at, block.clone());
        Ok(block)
    }

    /// Begins to read at a reference: the block's place in the region, and the offset within the block.
    pub(super) fn cursor<'b>(
        &'b self,
        file: &'b File,
        region: Region,
        reference: u64,
    ) -> Result<Cursor<'b>, ReadError> {
        let at = region.start.checked_add(reference >> 16).filter(|at| *at < region.end);
        let at = at.ok_or(damaged("a reference leads outside its table"))?;
        let block = self.get(file, at, region.end)?;
        // Masked to 16 bits.
        let offset = (reference & 0xffff) as usize;
        if offset > block.bytes.len() {
            return Err(damaged("a reference leads outside its block"));
        }
        Ok(Cursor { blocks: self, file, end: region.end, block, offset })
    }
}

/// Reads one field after another, across blocks.
pub(super) struct Cursor<'b> {
    blocks: &'b Blocks,
    file: &'b File,
    end: u64,
    block: Block,
    offset: usize,
}

impl Cursor<'_> {
    fn read(&mut self, mut into: &mut [u8]) -> Result<(), ReadError> {
        while !into.is_empty() {
            if self.offset == self.block.bytes.len() {
                self.block = self.blocks.get(self.file, self.block.next, self.end)?;
                self.offset = 0;
            }
            let count = into.len().min(self.block.bytes.len() - self.offset);
            let (now, later) = into.split_at_mut(count);
            now.copy_from_slice(&self.block.bytes[self.offset..self.offset + count]);
            self.offset += count;
            into = later;
        }
        Ok(())
    }

    /// The caller has bounded the count.
    pub(super) fn bytes(&mut self, count: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; count];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ReadError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ReadError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ReadError> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Reads a whole table of `count` records of `size` bytes, through the index at `start`.
pub(super) fn table(
    file: &File,
    blocks: &Blocks,
    end: u64,
    start: u64,
    count: u32,
    size: u64,
) -> Result<Vec<u8>, ReadError> {
    let bytes = u64::from(count) * size;
    let index = bytes.div_ceil(METADATA as u64) * 8;
    // So the index can't be longer than the image, nor the table than a fixed multiple of it.
    if start.checked_add(index).is_none_or(|stop| stop > end) {
        return Err(damaged("a table lies outside"));
    }
    let mut places = vec![0; index as usize];
    read_at(file, &mut places, start)?;
    let mut table = Vec::new();
    for place in places.as_chunks::<8>().0 {
        let block = blocks.get(file, long(place), start)?;
        table.extend_from_slice(&block.bytes);
    }
    if table.len() as u64 != bytes {
        return Err(damaged("a table isn't as long as it should be"));
    }
    Ok(table)
}
