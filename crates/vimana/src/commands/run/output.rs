//! What the workload writes, on its way to a person or a pipe, without ever blocking on a reader that doesn't read.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::stdio::stdout;
use serde_json::{Value, json};

/// What a pipe surely takes without blocking once it can be written at all (`PIPE_BUF`).
const PIPE_PIECE: usize = 4096;

/// Bytes of events that may wait before no more output becomes one.
const EVENTS_WAITING: usize = 64 * 1024;

/// How much was written.
pub enum Written {
    /// So many bytes of the workload's.
    Bytes(usize),
    /// So many, and nobody reads any more.
    Closed(usize),
}

/// Where the workload's output goes.
pub enum Outputs<'a> {
    /// Standard output and standard error, as it is.
    Plain([Output<'a>; 2]),
    /// Standard output, as JSON lines.
    Events(Events),
}

impl<'a> Outputs<'a> {
    /// Takes bytes of the workload's standard output (0) or error (1).
    pub fn push(&mut self, index: usize, bytes: &[u8]) {
        match self {
            Self::Plain(outputs) => outputs[index].waiting.extend(bytes),
            Self::Events(events) => events.raw[index].extend(bytes),
        }
    }

    /// Whether all has been written.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Plain(outputs) => outputs.iter().all(|output| output.waiting.is_empty()),
            Self::Events(events) => {
                events.lines.waiting.is_empty() && events.raw.iter().all(VecDeque::is_empty)
            }
        }
    }

    /// What to wait for until it can be written.
    pub fn waiting(&self) -> impl Iterator<Item = BorrowedFd<'a>> + use<'a> {
        let outputs: &[Output<'a>] = match self {
            Self::Plain(outputs) => outputs,
            Self::Events(events) => std::slice::from_ref(&events.lines),
        };
        let fds: Vec<_> =
            outputs.iter().filter(|output| !output.waiting.is_empty()).map(|output| output.fd).collect();
        fds.into_iter()
    }

    /// Writes as much of one stream as is sure not to block.
    pub fn write(&mut self, index: usize) -> io::Result<Written> {
        match self {
            Self::Plain(outputs) => outputs[index].write(),
            Self::Events(events) => events.write(index),
        }
    }

    /// Drops what waits of one stream; returns how much it was.
    pub fn discard(&mut self, index: usize) -> usize {
        let waiting = match self {
            Self::Plain(outputs) => &mut outputs[index].waiting,
            Self::Events(events) => &mut events.raw[index],
        };
        let bytes = waiting.len();
        waiting.clear();
        bytes
    }
}

/// A descriptor to write to, and what waits for it.
pub struct Output<'a> {
    fd: BorrowedFd<'a>,
    waiting: VecDeque<u8>,
    piece: usize,
    closed: bool,
}

impl<'a> Output<'a> {
    /// Nothing waits yet.
    pub fn new(fd: BorrowedFd<'a>) -> Self {
        let is_file =
            fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        Self {
            fd,
            waiting: VecDeque::new(),
            piece: if is_file { 1024 * 1024 } else { PIPE_PIECE },
            closed: false,
        }
    }

    fn write(&mut self) -> io::Result<Written> {
        let mut written = 0;
        while !self.waiting.is_empty() {
            if self.closed {
                written += self.waiting.len();
                self.waiting.clear();
                return Ok(Written::Bytes(written));
            }
            let mut ready = [PollFd::from_borrowed_fd(self.fd.as_fd(), PollFlags::OUT)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            if !matches!(poll(&mut ready, Some(&now)), Ok(1)) {
                break;
            }
            let (front, _) = self.waiting.as_slices();
            match rustix::io::write(self.fd, &front[..front.len().min(self.piece)]) {
                Ok(bytes) => {
                    self.waiting.drain(..bytes);
                    written += bytes;
                }
                Err(Errno::INTR | Errno::AGAIN) => break,
                Err(Errno::PIPE | Errno::IO) => {
                    self.closed = true;
                    written += self.waiting.len();
                    self.waiting.clear();
                    return Ok(Written::Closed(written));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Written::Bytes(written))
    }
}

/// The workload's output among other events, one JSON object a line.
pub struct Events {
    lines: Output<'static>,
    raw: [VecDeque<u8>; 2],
}

impl Events {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self { lines: Output::new(stdout()), raw: [VecDeque::new(), VecDeque::new()] }
    }

    /// Queues an event.
    pub fn say(&mut self, event: &Value) {
        self.lines.waiting.extend(format!("{event}\n").bytes());
    }

    fn write(&mut self, index: usize) -> io::Result<Written> {
        let mut taken = 0;
        if !self.raw[index].is_empty() && self.lines.waiting.len() < EVENTS_WAITING {
            let bytes: Vec<u8> = self.raw[index].drain(..).collect();
            taken = bytes.len();
            let name = ["stdout", "stderr"][index];
            let event = match std::str::from_utf8(&bytes) {
                Ok(text) => json!({ "event": "output", "stream": name, "text": text }),
                Err(_) => {
                    json!({ "event": "output", "stream": name, "base64": BASE64_STANDARD.encode(&bytes) })
                }
            };
            self.say(&event);
        }
        match self.lines.write()? {
            Written::Bytes(_) => Ok(Written::Bytes(taken)),
            Written::Closed(_) => Ok(Written::Closed(taken)),
        }
    }
}
