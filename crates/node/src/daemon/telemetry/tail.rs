//! A log as it grows, in batches, from where it was sent to.

use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::log::{Line, Reader, Stream, Wanted, parse_line};

/// The longest line in bytes that is put together from its parts.
const WHOLE_MAX: usize = 256 * 1024;

/// How far a log was sent: up to so many lines of this time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    unix_ns: u64,
    lines: u64,
}

/// A line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// When its first part came, in nanoseconds since 1970.
    pub(super) unix_ns: u64,
    pub(super) stream: Stream,
    pub(super) text: String,
}

/// A log that is followed.
#[derive(Debug)]
pub(super) struct Tail {
    reader: Reader,
    /// What was sent already of the time that reading begins with.
    skip: Cursor,
    /// Up to what is read, and is delivered.
    read: Cursor,
    delivered: Cursor,
    /// Parts of lines whose end hasn't come: of standard output, and of standard error.
    parts: [Option<(u64, Vec<u8>)>; 2],
    gaps: u64,
}

impl Tail {
    /// Opens a log behind what was sent of it.
    ///
    /// # Errors
    /// It can't be read.
    pub(super) fn open(folder: &Path, cursor: Option<Cursor>) -> io::Result<Self> {
        let since = cursor.and_then(|cursor| UNIX_EPOCH.checked_add(Duration::from_nanos(cursor.unix_ns)));
        let reader = Reader::open(folder, Wanted { tail: None, since, follow: true })?;
        let cursor = cursor.unwrap_or_default();
        Ok(Self { reader, skip: cursor, read: cursor, delivered: cursor, parts: [None, None], gaps: 0 })
    }

    /// Some more lines; nothing where there are none yet. There may be none in what was read: then there may be more.
    ///
    /// # Errors
    /// The log can't be read.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<Record>>> {
        let chunk = self.reader.next_chunk()?;
        if chunk.is_empty() {
            return Ok(None);
        }
        let lines = chunk.split_inclusive(|byte| *byte == b'\n').filter_map(parse_line);
        Ok(Some(lines.filter_map(|line| self.take(line)).collect()))
    }

    fn take(&mut self, line: Line<'_>) -> Option<Record> {
        if line.unix_ns == self.skip.unix_ns && self.skip.lines > 0 {
            self.skip.lines -= 1;
            return None;
        }
        match &mut self.read {
            Cursor { unix_ns, lines } if *unix_ns == line.unix_ns => *lines = lines.saturating_add(1),
            read => *read = Cursor { unix_ns: line.unix_ns, lines: 1 },
        }
        let place = match line.stream {
            Stream::Stdout => &mut self.parts[0],
            Stream::Stderr => &mut self.parts[1],
        };
        let (unix_ns, mut bytes) = place.take().unwrap_or((line.unix_ns, Vec::new()));
        bytes.extend_from_slice(line.text);
        if !line.full && bytes.len() < WHOLE_MAX {
            *place = Some((unix_ns, bytes));
            return None;
        }
        Some(Record { unix_ns, stream: line.stream, text: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// Notes that what was read is delivered, or given up.
    pub(super) fn delivered(&mut self) {
        self.delivered = self.read;
    }

    /// How far it was delivered.
    pub(super) fn cursor(&self) -> Cursor {
        self.delivered
    }

    /// How often a file was gone before it was read, since this was asked last.
    pub(super) fn take_gaps(&mut self) -> u64 {
        let gaps = self.reader.gaps();
        gaps.saturating_sub(std::mem::replace(&mut self.gaps, gaps))
    }
}
