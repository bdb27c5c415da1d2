//! Writing a log.
//!
//! Nothing here can fail: a workload is neither stopped nor ended because its output can't be kept. What can't be written, as on
//! a full disk, is lost, and counted; as soon as something can be written again, a line of `stderr` says how much was lost before
//! it: `vimana: 12 lines of output are missing here: No space left on device (os error 28)`. A file always ends with a whole
//! line: what a failed write has left of one is cut off, and what a power cut has left of one stays, as the last that is known,
//! on a line of its own.
//!
//! Nothing is synced to the disk: what a keeper wrote outlives it, but of the last seconds before a power cut some may be missing.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use super::line::{self, FRAME, MAX_TEXT, Stream};
use super::{name_of, number_of};
use crate::keeper::assignment::LogPlan;

/// Bytes of stored lines that are collected before they are written, beyond what one batch brings.
const BATCH: usize = 256 * 1024;

/// The most older files that are kept, whatever is asked for: a reader may have all of them open.
const MAX_FILES: u32 = 100;

/// Appends to the log of a spacecore. One at a time; the next one goes on where it ended.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    file_bytes: u64,
    files: u32,
    file: Option<Current>,
    /// By stream: what was printed since the last line's end.
    partial: [Vec<u8>; 2],
    /// Stored lines that aren't written yet.
    out: Vec<u8>,
    lost: u64,
    reason: String,
}

#[derive(Debug)]
struct Current {
    file: File,
    size: u64,
    /// The size at which it is set aside.
    rotate_at: u64,
}

impl Writer {
    /// A writer for this plan. The folder is made when there is something to write.
    pub fn new(plan: &LogPlan) -> Self {
        Self {
            folder: plan.folder.clone(),
            file_bytes: plan.file_bytes,
            files: plan.files.min(MAX_FILES),
            file: None,
            partial: [Vec::new(), Vec::new()],
            out: Vec::new(),
            lost: 0,
            reason: String::new(),
        }
    }

    /// Takes output that arrived at this time, in nanoseconds since 1970. It is on disk after [`Writer::flush`], but for the
    /// beginning of a line whose end hasn't come.
    pub fn take(&mut self, stream: Stream, mut bytes: &[u8], unix_ns: u64) {
        let time = line::time(unix_ns);
        // Where that fails, writing fails too, and says why.
        let _ = self.open();
        while !bytes.is_empty() {
            let mut partial = std::mem::take(&mut self.partial[stream as usize]);
            let room = MAX_TEXT - partial.len();
            let end = bytes[..bytes.len().min(room + 1)].iter().position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    self.push(&time, stream, true, [&partial, &bytes[..end]]);
                    partial.clear();
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() > room => {
                    self.push(&time, stream, false, [&partial, &bytes[..room]]);
                    partial.clear();
                    bytes = &bytes[room..];
                }
                None => {
                    partial.extend_from_slice(bytes);
                    bytes = &[];
                }
            }
            self.partial[stream as usize] = partial;
        }
        if self.out.len() > BATCH {
            self.write(&time);
        }
    }

    /// Notes that a stream has ended: what it said since its last line's end is a part.
    pub fn end(&mut self, stream: Stream, unix_ns: u64) {
        let partial = std::mem::take(&mut self.partial[stream as usize]);
        if !partial.is_empty() {
            self.push(&line::time(unix_ns), stream, false, [&partial, &[]]);
        }
    }

    /// Writes what was taken, by one call for each file that it goes to.
    pub fn flush(&mut self, unix_ns: u64) {
        self.write(&line::time(unix_ns));
    }

    fn push(&mut self, time: &str, stream: Stream, full: bool, text: [&[u8]; 2]) {
        let length = FRAME + text[0].len() + text[1].len();
        if let Some(current) = &self.file {
            let sum = current.size.saturating_add((self.out.len() + length) as u64);
            if sum > current.rotate_at && sum > length as u64 {
                self.write(time);
                self.rotate();
                let _ = self.open();
            }
        }
        line::push(&mut self.out, time, stream, full, text);
    }

    /// The file that is written, opened where it isn't.
    fn open(&mut self) -> io::Result<&mut Current> {
        let current = match self.file.take() {
            Some(current) => current,
            None => self.open_file()?,
        };
        Ok(self.file.insert(current))
    }

    fn open_file(&self) -> io::Result<Current> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        self.forget_oldest();
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(self.folder.join(name_of(0)))?;
        let mut size = file.seek(SeekFrom::End(0))?;
        if size > 0 {
            let mut last = [0; 1];
            file.seek(SeekFrom::Start(size - 1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                size = size.saturating_add(1);
            }
        }
        Ok(Current { file, size, rotate_at: self.file_bytes })
    }

    /// Removes older files beyond the number that is kept, as when fewer are kept than before.
    fn forget_oldest(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let number = entry.file_name().to_str().and_then(number_of);
            if number.is_some_and(|number| number > self.files) {
                // Tried again with the next file.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Sets the file aside. Where that isn't possible it grows on, and is tried again after as many bytes.
    fn rotate(&mut self) {
        let path = |number: u32| self.folder.join(name_of(number));
        let moved = match self.files {
            0 => fs::remove_file(path(0)),
            files => {
                (0..files).rev().try_for_each(|number| match fs::rename(path(number), path(number + 1)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    renamed => renamed,
                })
            }
        };
        match (moved, &mut self.file) {
            (Ok(()), file) => *file = None,
            (Err(_), Some(current)) => current.rotate_at = current.size.saturating_add(self.file_bytes),
            (Err(_), None) => {}
        }
    }

    /// Writes what is collected, and what is said of what was lost before it.
    fn write(&mut self, time: &str) {
        if self.out.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        if self.lost > 0 {
            let note = format!("vimana: {} lines of output are missing here: {}", self.lost, self.reason);
            line::push(&mut bytes, time, Stream::Stderr, true, [note.as_bytes(), &[]]);
        }
        let note = bytes.len();
        if note > 0 {
            bytes.extend_from_slice(&self.out);
            self.out.clear();
        } else {
            std::mem::swap(&mut bytes, &mut self.out);
        }
        let (written, error) = match self.open() {
            Ok(current) => current.append(&bytes),
            Err(error) => (0, Some(error)),
        };
        if written >= note {
            self.lost = 0;
        }
        if let Some(error) = error {
            let missing = &bytes[written.max(note)..];
            let lines = missing.iter().filter(|byte| **byte == b'\n').count();
            self.lost = self.lost.saturating_add(lines as u64);
            self.reason = error.to_string();
            // What is opened anew is looked at, and found again where it was taken away.
            self.file = None;
        }
        bytes.clear();
        self.out = bytes;
    }
}

impl Current {
    /// Appends whole lines; says how many bytes of them are there, and why it isn't all.
    fn append(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(more @ 1..) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                failed => {
                    let error = failed.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into());
                    let whole =
                        bytes[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                    self.size = self.size.saturating_add(whole as u64);
                    // Where even that fails, the file is repaired when it is opened again.
                    let _ = self.file.set_len(self.size);
                    return (whole, Some(error));
                }
            }
        }
        self.size = self.size.saturating_add(written as u64);
        (written, None)
    }
}

#[cfg(test)]
mod tests;
