//! Metadata blocks: 8 KiB each, compressed, one after another.

use std::io;

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use super::super::WriteError;
use super::super::format::{METADATA, METADATA_RAW};
use super::super::sink::Sink;

/// A stream of metadata blocks.
pub(super) struct Metadata {
    done: Vec<u8>,
    filling: Vec<u8>,
    table: CompressTable,
}

/// A place in a metadata stream: where its block begins on disk, and how far into the uncompressed block.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) block: u32,
    pub(super) offset: u16,
}

impl Place {
    pub(super) fn reference(self) -> u64 {
        u64::from(self.block) << 16 | u64::from(self.offset)
    }
}

impl Metadata {
    pub(super) fn new() -> Self {
        Self { done: Vec::new(), filling: Vec::with_capacity(METADATA), table: CompressTable::large() }
    }

    pub(super) fn place(&self) -> Result<Place, WriteError> {
        let block = u32::try_from(self.done.len()).map_err(|_| WriteError::Tables)?;
        // A full block is flushed at once, so this is below 8192.
        Ok(Place { block, offset: self.filling.len() as u16 })
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(METADATA - self.filling.len()));
            self.filling.extend_from_slice(now);
            bytes = later;
            if self.filling.len() == METADATA {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        let mut output = [0; get_maximum_output_size(METADATA)];
        match compress_into_with_table(&self.filling, &mut output, &mut self.table) {
            Ok(len) if len < self.filling.len() => {
                self.done.extend_from_slice(&(len as u16).to_le_bytes());
                self.done.extend_from_slice(&output[..len]);
            }
            _ => {
                self.done.extend_from_slice(&(self.filling.len() as u16 | METADATA_RAW).to_le_bytes());
                self.done.extend_from_slice(&self.filling);
            }
        }
        self.filling.clear();
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if !self.filling.is_empty() {
            self.flush();
        }
        self.done
    }
}

/// Writes a table whose metadata blocks are found through an index behind them; gives the index's offset.
pub(super) fn write_table(sink: &mut Sink<'_>, bytes: &[u8], before_index: &[u8]) -> io::Result<u64> {
    let mut index = before_index.to_vec();
    for block in bytes.chunks(METADATA) {
        index.extend_from_slice(&sink.position().to_le_bytes());
        let mut metadata = Metadata::new();
        metadata.write(block);
        sink.write(&metadata.finish())?;
    }
    let start = sink.position();
    sink.write(&index)?;
    Ok(start)
}
