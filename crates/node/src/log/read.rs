//! Reading a log, while it is written or later.
//!
//! A reader takes no lock that a writer would wait for. It keeps the file open that it reads, and finds out by the file's identity
//! what it is called by now. [`Files::look`] sees all files as they were at one moment, although they are renamed meanwhile.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::line::{FRAME, MAX_TEXT, Stream, parse_line, push, time};
use super::{name_of, number_of};
use crate::clock::unix_time_ns;

/// Bytes read at once. A line is always shorter.
const CHUNK: usize = 64 * 1024;
const _: () = assert!(CHUNK > FRAME + MAX_TEXT);

/// How often files are looked at again that are renamed meanwhile, before that is taken for a failure.
const ATTEMPTS: u32 = 1000;

/// By how much the time of a file may lie behind that of its last line: the kernel's clock for files is coarser.
const COARSE: Duration = Duration::from_secs(1);

/// What is said in the place of lines that can't be read any more.
const MISSED: &str = "vimana: lines are missing here: they were removed before they were read";

/// What a reader wants to see.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// So many lines of the end, parts and torn ones among them, and what comes after; all of them where nothing is said.
    pub tail: Option<usize>,
    /// Of these only what arrived at this time or later.
    pub since: Option<SystemTime>,
    /// Whether what is written from now on is wanted too.
    pub follow: bool,
}

/// Reads a log from its oldest line, or a later one, to its newest.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    since_ns: Option<u64>,
    follow: bool,
    current: Option<Place>,
    /// Whether files were let go of before they were read.
    missed: bool,
    /// The files after the current one that are known; all but the last of these and the current one are as long as they get.
    next: VecDeque<Place>,
    gaps: u64,
}

/// A place in a file, behind a line's end or inside of something that isn't a line.
#[derive(Debug)]
struct Place {
    file: File,
    at: u64,
}

impl Reader {
    /// Opens a log, which needn't exist yet.
    ///
    /// # Errors
    /// It can't be read.
    pub fn open(folder: &Path, wanted: Wanted) -> io::Result<Self> {
        let mut places: VecDeque<Place> =
            look(folder)?.into_iter().map(|file| Place { file, at: 0 }).collect();
        if let Some(lines) = wanted.tail {
            start_at_tail(&mut places, lines)?;
        }
        if let Some(since) = wanted.since {
            while places.len() > 1 && is_older(&places[0].file, since)? {
                places.pop_front();
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            since_ns: wanted.since.map(|since| {
                let passed = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX)
            }),
            follow: wanted.follow,
            current: places.pop_front(),
            missed: false,
            next: places,
            gaps: 0,
        })
    }

    /// Some more lines, whole and as they are stored, at most 64 KiB. Nothing where there is nothing more at the moment, which
    /// is the end unless the log is followed. Lines that were torn, as by a power cut, are left out.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn next_chunk(&mut self) -> io::Result<Vec<u8>> {
        if std::mem::take(&mut self.missed) {
            let mut note = Vec::new();
            push(&mut note, &time(unix_time_ns()), Stream::Stderr, true, [MISSED.as_bytes(), &[]]);
            return Ok(note);
        }
        loop {
            let Some(current) = &mut self.current else {
                if !self.follow || !self.look_for_more(None)? {
                    return Ok(Vec::new());
                }
                continue;
            };
            let read = current.read()?;
            if let Some(read) = read {
                let wanted = self.wanted(&read);
                if !wanted.is_empty() {
                    return Ok(wanted);
                }
                continue;
            }
            if let Some(next) = self.next.pop_front() {
                self.current = Some(next);
                continue;
            }
            let identity = identity(&current.file.metadata()?);
            if !self.follow || is_newest(&self.folder, identity)? || !self.look_for_more(Some(identity))? {
                return Ok(Vec::new());
            }
        }
    }

    /// Lets go of files that were removed meanwhile, so that whoever reads slowly or not at all takes no space of the disk. Where something
    /// in them wasn't read, a line says so.
    pub fn let_go(&mut self) {
        let is_there = |place: &Place| place.file.metadata().is_ok_and(|found| found.nlink() > 0);
        let known = self.next.len();
        self.next.retain(is_there);
        self.missed |= self.next.len() < known;
        if let Some(current) = self.current.take_if(|current| !is_there(current)) {
            self.missed |= current.file.metadata().is_ok_and(|found| found.len() > current.at);
            self.current = self.next.pop_front();
        }
    }

    /// How often a file was removed before a follower came to the next, so that there may have been others between.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Looks which files there are after the current one; `false` where there is none.
    fn look_for_more(&mut self, current: Option<(u64, u64)>) -> io::Result<bool> {
        let mut files = look(&self.folder)?;
        if let Some(current) = current {
            let mut known = None;
            for (index, file) in files.iter().enumerate() {
                if identity(&file.metadata()?) == current {
                    known = Some(index);
                }
            }
            // One that isn't there any more was the oldest, and all that are there come after it.
            self.gaps = self.gaps.saturating_add(u64::from(known.is_none() && !files.is_empty()));
            files.drain(..known.map_or(0, |index| index + 1));
        }
        self.next = files.into_iter().map(|file| Place { file, at: 0 }).collect();
        if self.current.is_none() {
            self.current = self.next.pop_front();
            return Ok(self.current.is_some());
        }
        // What was written to the current file before it was set aside comes first.
        Ok(!self.next.is_empty())
    }

    fn wanted(&self, bytes: &[u8]) -> Vec<u8> {
        let mut wanted = Vec::with_capacity(bytes.len());
        for stored in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = parse_line(stored);
            if line.is_some_and(|line| self.since_ns.is_none_or(|since| line.unix_ns >= since)) {
                wanted.extend_from_slice(stored);
            }
        }
        wanted
    }
}

impl Place {
    /// The next whole lines; `None` where there are none.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; CHUNK];
        let read = read_at(&self.file, &mut bytes, self.at)?;
        bytes.truncate(read);
        match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => bytes.truncate(end + 1),
            // Longer than any line: it is none, and its rest will be none either.
            None if read == CHUNK => {}
            None => return Ok(None),
        }
        self.at = self.at.saturating_add(bytes.len() as u64);
        Ok(Some(bytes))
    }
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], at.saturating_add(read as u64)) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Leaves so many lines of the end, reading no more of the files than these.
fn start_at_tail(places: &mut VecDeque<Place>, lines: usize) -> io::Result<()> {
    let mut missing = lines;
    for index in (0..places.len()).rev() {
        let (start, found) = tail(&places[index].file, missing)?;
        places[index].at = start;
        missing -= found;
        if missing == 0 {
            places.drain(..index);
            return Ok(());
        }
    }
    Ok(())
}

/// Where the last lines of a file begin, at most so many, and how many these are.
fn tail(file: &File, lines: usize) -> io::Result<(u64, usize)> {
    let mut end = file.metadata()?.len();
    // Ends of lines: one more than lines, as the end of the line before is where they begin.
    let mut ends = 0;
    let mut block = vec![0; CHUNK];
    while end > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let length = usize::try_from(end - start).unwrap_or(CHUNK);
        let read = read_at(file, &mut block[..length], start)?;
        for at in (0..read).rev().filter(|at| block[*at] == b'\n') {
            ends += 1;
            if ends > lines {
                return Ok((start.saturating_add(at as u64 + 1), lines));
            }
        }
        end = start;
    }
    Ok((0, ends))
}

/// Whether nothing in a file arrived at this time or later.
fn is_older(file: &File, since: SystemTime) -> io::Result<bool> {
    Ok(file.metadata()?.modified()?.checked_add(COARSE).is_some_and(|modified| modified < since))
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Whether a file is the one that is written.
fn is_newest(folder: &Path, file: (u64, u64)) -> io::Result<bool> {
    match fs::symlink_metadata(folder.join(name_of(0))) {
        Ok(found) => Ok(identity(&found) == file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens all files, the oldest first, as they are named at one moment: after all are open, the folder must hold the same names,
/// each of the same file. A file moves to higher numbers only, so that one which is at its place then was there all the time.
fn look(folder: &Path) -> io::Result<Vec<File>> {
    for _ in 0..ATTEMPTS {
        if let Some(files) = try_to_look(folder)? {
            return Ok(files);
        }
        std::thread::yield_now();
    }
    Err(io::Error::other("the log's files are renamed all the time"))
}

fn try_to_look(folder: &Path) -> io::Result<Option<Vec<File>>> {
    let before = numbers(folder)?;
    let mut files = Vec::new();
    for number in before.iter().rev() {
        match File::open(folder.join(name_of(*number))) {
            Ok(file) => files.push(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    if numbers(folder)? != before {
        return Ok(None);
    }
    for (number, file) in before.iter().rev().zip(&files) {
        match fs::symlink_metadata(folder.join(name_of(*number))) {
            Ok(found) if identity(&found) == identity(&file.metadata()?) => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(files))
}

/// The numbers of the files that there are, in order.
fn numbers(folder: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(numbers),
        entries => entries?,
    };
    for entry in entries {
        numbers.extend(entry?.file_name().to_str().and_then(number_of));
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

#[cfg(test)]
mod tests;
