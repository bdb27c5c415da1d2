//! An archive on its way from one stream to another, each entry checked.

use std::io::{Read, Write};

use super::names::names;
use super::read::Reader;
use super::write::Writer;
use super::{ArchiveError, Kind, Limits};

/// Passes an archive on: what comes out is one whose every path stays below its root, and which has nothing in it but files,
/// folders and links, whoever wrote what goes in.
///
/// # Errors
/// What comes in is no such archive, or a stream fails.
pub fn pass(input: impl Read, output: impl Write, limits: Limits) -> Result<(), ArchiveError> {
    let (mut reader, mut writer) = (Reader::new(input, limits), Writer::new(output));
    let mut buffer = vec![0; 64 * 1024];
    while let Some(entry) = reader.next_entry()? {
        names(&entry.path)?;
        if let Kind::HardLink { target } = &entry.kind {
            names(target)?;
        }
        writer.begin(&entry)?;
        loop {
            match reader.read_data(&mut buffer)? {
                0 => break,
                read => writer.data(&buffer[..read])?,
            }
        }
    }
    writer.finish().map(drop)
}
