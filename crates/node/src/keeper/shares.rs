//! The folders of a spacecore, served by a thread of their own, so that a slow disk never keeps the keeper from hearing
//! a signal.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use rustix::event::{EventfdFlags, eventfd};

use crate::folder::{Folder, Reply};

/// Requests that may wait for the thread; beyond it the keeper takes nothing more from the guest's channel. Each may
/// hold a megabyte and promise another.
const MAX_WAITING: usize = 16;

/// What the thread says.
#[derive(Debug)]
pub enum Answer {
    /// A reply for the guest.
    Reply(u16, Vec<u8>),
    /// A request that wants no reply has been dealt with.
    Nothing,
    /// The guest broke the FUSE protocol.
    Violation(String),
}

/// The serving thread and the way to and from it. It ends when this is dropped and its last request is done.
#[derive(Debug)]
pub struct Shares {
    requests: Sender<(u16, Vec<u8>)>,
    answers: Receiver<Answer>,
    wake: OwnedFd,
    waiting: usize,
}

impl Shares {
    /// Starts serving these folders, by stream.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn serve(mut folders: Vec<(u16, Folder)>) -> io::Result<Self> {
        let (requests, inbox) = channel::<(u16, Vec<u8>)>();
        let (outbox, answers) = channel();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let waker = wake.try_clone()?;
        thread::Builder::new().name("folders".into()).spawn(move || {
            for (stream, request) in inbox {
                let answer = match folders.iter_mut().find(|(number, _)| *number == stream) {
                    Some((_, folder)) => answer(folder, stream, &request),
                    None => Answer::Violation(format!("a request for folder {stream}, which doesn't exist")),
                };
                if outbox.send(answer).is_err() || rustix::io::write(&waker, &1u64.to_ne_bytes()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { requests, answers, wake, waiting: 0 })
    }

    /// Hands a request over.
    pub fn request(&mut self, stream: u16, request: Vec<u8>) {
        if self.requests.send((stream, request)).is_ok() {
            self.waiting += 1;
        }
    }

    /// Whether so many requests wait that no more should be read.
    pub fn is_congested(&self) -> bool {
        self.waiting >= MAX_WAITING
    }

    /// The next answer, if there is one.
    pub fn next_answer(&mut self) -> Option<Answer> {
        let mut count = [0; 8];
        // Only the wake-up matters, not how many there were.
        let _ = rustix::io::read(&self.wake, &mut count);
        match self.answers.try_recv() {
            Ok(answer) => {
                self.waiting = self.waiting.saturating_sub(1);
                Some(answer)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }
}

impl AsFd for Shares {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

fn answer(folder: &mut Folder, stream: u16, request: &[u8]) -> Answer {
    let mut reply = Vec::new();
    match folder.answer(request, &mut reply) {
        Ok(Reply::Send) => Answer::Reply(stream, reply),
        Ok(Reply::Nothing) => Answer::Nothing,
        Err(violation) => Answer::Violation(violation.to_string()),
    }
}
