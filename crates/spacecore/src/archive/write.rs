//! Writes a tar stream.

use std::io::{self, Write};

use super::header::{RECORD, encode};
use super::{ArchiveError, Entry};

/// An archive on its way to a stream.
#[derive(Debug)]
pub struct Writer<W: Write> {
    output: W,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// An empty archive.
    pub fn new(output: W) -> Self {
        Self { output, padding: 0 }
    }

    /// Begins an entry. Behind a file's head [`Writer::data`] is owed as many bytes as it says.
    ///
    /// # Errors
    /// [`ArchiveError::Stream`].
    pub fn begin(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        self.end_entry()?;
        if let super::Kind::File { size } = entry.kind {
            let over = usize::try_from(size % RECORD as u64).unwrap_or(0);
            self.padding = (RECORD - over) % RECORD;
        }
        self.put(&encode(entry))
    }

    /// Writes data of the entry.
    ///
    /// # Errors
    /// [`ArchiveError::Stream`].
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.put(bytes)
    }

    /// Ends the archive: only what has an end counts as whole.
    ///
    /// # Errors
    /// [`ArchiveError::Stream`].
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        self.end_entry()?;
        self.put(&[0; 2 * RECORD])?;
        self.output.flush().map_err(ArchiveError::Stream)?;
        Ok(self.output)
    }

    fn end_entry(&mut self) -> Result<(), ArchiveError> {
        let padding = std::mem::take(&mut self.padding);
        self.put(&[0; RECORD][..padding])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.output.write_all(bytes).map_err(|error: io::Error| ArchiveError::Stream(error))
    }
}
