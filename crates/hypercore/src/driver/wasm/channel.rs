//! The program's end of the channel, shared by the thread that speaks it and the thread that the program runs in.
//!
//! Output goes from the program's thread straight to the socket, as far as there is credit and room; a program that writes
//! more waits. So what is held here is bounded whatever the program and its keeper do.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::SendFlags;
use spacecore::wire::link::Link;
use spacecore::wire::message::{ExitStatus, Process, Refusal, ToHost};
use spacecore::wire::{stderr_of, stdin_of, stdout_of};

use super::line_discipline::LineDiscipline;

/// The only process.
pub(super) const WORKLOAD: u16 = 0;

/// Bytes waiting for the keeper beyond which the program waits.
const BACKLOG: usize = 1 << 20;

/// The most bytes that one write is given leave for.
const PERMIT: usize = 64 * 1024;

/// Bytes that may wait for credit. A component can hold several handles of one stream, each with a leave of its own.
const PENDING_MAX: usize = 1 << 20;

/// Bytes that can be typed before the program reads them.
const TYPED_AHEAD_MAX: usize = 64 * 1024;

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

/// One end of the channel.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
    bell: OwnedFd,
    ends: Mutex<Ends>,
}

/// The state of the channel.
#[derive(Debug)]
pub(super) struct Ends {
    /// The protocol's state.
    pub(super) link: Link,
    input: VecDeque<u8>,
    input_ended: bool,
    pending: [VecDeque<u8>; 2],
    terminal: Option<LineDiscipline>,
    wakers: Vec<Waker>,
    status: Option<ExitStatus>,
    is_concluded: bool,
    hung_up: bool,
}

impl Channel {
    /// Takes a stream socket.
    pub(super) fn new(socket: OwnedFd) -> std::io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let ends = Ends {
            link: Link::new(),
            input: VecDeque::new(),
            input_ended: true,
            pending: Default::default(),
            terminal: None,
            wakers: Vec::new(),
            status: None,
            is_concluded: false,
            hung_up: false,
        };
        Ok(Self { socket, bell, ends: Mutex::new(ends) })
    }

    /// The state, for one change.
    pub(super) fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the channel's thread look again.
    pub(super) fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Says one thing at once.
    pub(super) fn say(&self, message: &ToHost) {
        let mut ends = self.ends();
        ends.link.send_control(message);
        self.flush(&mut ends);
    }

    /// Writes what waits, as far as the socket takes it, and rings where something is left.
    pub(super) fn flush(&self, ends: &mut Ends) {
        while !ends.hung_up && !ends.link.outgoing().is_empty() {
            match rustix::net::send(&self.socket, ends.link.outgoing(), SendFlags::NOSIGNAL) {
                Ok(sent) => ends.link.written(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.ring();
                    return;
                }
                Err(_) => ends.hang_up(),
            }
        }
    }

    /// Waits for the socket or the bell, for at most so long.
    pub(super) fn wait(&self, is_writing: bool, timeout: Option<std::time::Duration>) {
        let mut events = PollFlags::IN;
        if is_writing {
            events |= PollFlags::OUT;
        }
        let mut fds = [PollFd::new(&self.socket, events), PollFd::new(&self.bell, PollFlags::IN)];
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let _ = rustix::event::poll(&mut fds, timeout.as_ref());
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    /// Reads what has arrived.
    pub(super) fn receive(&self, ends: &mut Ends, buffer: &mut [u8]) {
        while !ends.hung_up {
            match rustix::io::read(&self.socket, &mut *buffer) {
                Ok(0) => ends.hang_up(),
                Ok(length) => ends.link.receive(buffer.get(..length).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => ends.hang_up(),
            }
        }
    }

    /// Opens the program's streams.
    pub(super) fn open(&self, process: &Process) {
        let mut ends = self.ends();
        ends.link.open_sender(stdout_of(WORKLOAD));
        match process.terminal {
            Some(_) => ends.terminal = Some(LineDiscipline::default()),
            None => ends.link.open_sender(stderr_of(WORKLOAD)),
        }
        if process.stdin {
            ends.link.open_receiver(stdin_of(WORKLOAD));
            ends.input_ended = false;
        }
    }

    /// Whether the program has a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.ends().terminal.is_some()
    }

    /// Bytes that can be written now.
    pub(super) fn room(&self, output: Output) -> usize {
        self.ends().room(output)
    }

    /// Writes; what was given leave for is never refused, however often leave was asked for.
    pub(super) fn write(&self, output: Output, bytes: &[u8]) -> Result<(), PendingFull> {
        let mut ends = self.ends();
        let result = ends.write(output, bytes);
        self.flush(&mut ends);
        result
    }

    /// Waits until something can be written.
    pub(super) fn poll_room(&self, output: Output, context: &Context<'_>) -> Poll<()> {
        let mut ends = self.ends();
        if ends.hung_up || ends.room(output) > 0 {
            return Poll::Ready(());
        }
        ends.wake_later(context);
        Poll::Pending
    }

    /// Waits until there is input, or its end.
    pub(super) fn poll_input(&self, context: &Context<'_>) -> Poll<()> {
        let mut ends = self.ends();
        if ends.hung_up || ends.input_ended || !ends.input.is_empty() {
            return Poll::Ready(());
        }
        ends.wake_later(context);
        Poll::Pending
    }

    /// Takes input: nothing where none has arrived, `None` at its end.
    pub(super) fn read(&self, most: usize) -> Option<Vec<u8>> {
        let mut ends = self.ends();
        if ends.input.is_empty() && (ends.input_ended || ends.hung_up) {
            return None;
        }
        let length = most.min(ends.input.len());
        let bytes = ends.input.drain(..length).collect();
        if ends.terminal.is_none() {
            ends.link.consumed(stdin_of(WORKLOAD), length);
            self.flush(&mut ends);
        }
        Some(bytes)
    }

    /// Notes how the program ended; told once all of its output has been sent.
    pub(super) fn end(&self, status: ExitStatus) {
        let mut ends = self.ends();
        ends.status = Some(status);
        ends.conclude();
        self.flush(&mut ends);
        drop(ends);
        self.ring();
    }

    /// Says that nothing can be run, and why.
    pub(super) fn refuse(&self, refusal: Refusal) {
        let mut ends = self.ends();
        if !ends.is_concluded {
            ends.is_concluded = true;
            ends.link.send_control(&ToHost::Refused { process: None, refusal });
        }
        self.flush(&mut ends);
        drop(ends);
        self.ring();
    }
}

/// More is written than was given leave for.
#[derive(Debug)]
pub(super) struct PendingFull;

impl Ends {
    fn stream(&self, output: Output) -> u16 {
        match output {
            Output::Stderr if self.terminal.is_none() => stderr_of(WORKLOAD),
            Output::Stdout | Output::Stderr => stdout_of(WORKLOAD),
        }
    }

    fn pending(&mut self, output: Output) -> &mut VecDeque<u8> {
        let [stdout, stderr] = &mut self.pending;
        match output {
            Output::Stderr if self.terminal.is_none() => stderr,
            Output::Stdout | Output::Stderr => stdout,
        }
    }

    fn room(&self, output: Output) -> usize {
        let waits = self.pending.iter().any(|pending| !pending.is_empty());
        match waits || self.link.outgoing().len() >= BACKLOG {
            true => 0,
            false => self.link.credit(self.stream(output)).min(PERMIT),
        }
    }

    fn write(&mut self, output: Output, bytes: &[u8]) -> Result<(), PendingFull> {
        let converted = self.terminal.as_ref().map(|_| LineDiscipline::show(bytes));
        self.put(output, converted.as_deref().unwrap_or(bytes))
    }

    fn put(&mut self, output: Output, bytes: &[u8]) -> Result<(), PendingFull> {
        let stream = self.stream(output);
        let sent = match self.pending(output).is_empty() {
            true => self.link.send_data(stream, bytes),
            false => 0,
        };
        let rest = bytes.get(sent..).unwrap_or_default();
        let pending = self.pending(output);
        if pending.len().saturating_add(rest.len()) > PENDING_MAX {
            return Err(PendingFull);
        }
        pending.extend(rest);
        Ok(())
    }

    fn wake_later(&mut self, context: &Context<'_>) {
        if !self.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            self.wakers.push(context.waker().clone());
        }
    }

    /// Wakes everything that waits for input or room.
    pub(super) fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    /// Notes that nobody is at the other end any more.
    pub(super) fn hang_up(&mut self) {
        self.hung_up = true;
        self.wake();
    }

    /// Whether nobody is at the other end any more.
    pub(super) fn is_hung_up(&self) -> bool {
        self.hung_up
    }

    /// Sends what waited for credit, and wakes the program where there is room again.
    pub(super) fn credit_came(&mut self) {
        for output in [Output::Stdout, Output::Stderr] {
            let stream = self.stream(output);
            let waiting = std::mem::take(self.pending(output));
            let mut waiting = Vec::from(waiting);
            let sent = self.link.send_data(stream, &waiting);
            waiting.drain(..sent);
            *self.pending(output) = waiting.into();
        }
        self.conclude();
        self.wake();
    }

    /// Takes input. With a terminal, returns the signals that were typed.
    pub(super) fn take_input(&mut self, bytes: &[u8]) -> Vec<i32> {
        let Some(terminal) = &mut self.terminal else {
            self.input.extend(bytes);
            self.wake();
            return Vec::new();
        };
        let typed = terminal.type_in(bytes);
        // Keys can't wait for the program to read: it may take several of them to make a line. As at a terminal, what is
        // typed far ahead is lost.
        if self.input.len() < TYPED_AHEAD_MAX {
            self.input.extend(&typed.input);
        }
        self.input_ended |= typed.ended;
        self.link.consumed(stdin_of(WORKLOAD), bytes.len());
        let _ = self.put(Output::Stdout, &typed.echo);
        self.wake();
        typed.signals
    }

    /// Notes the end of input.
    pub(super) fn end_input(&mut self) {
        self.input_ended = true;
        self.wake();
    }

    /// Tells the program's end where all of its output has been sent.
    fn conclude(&mut self) {
        let all_sent = self.pending.iter().all(VecDeque::is_empty);
        if let Some(status) = self.status.filter(|_| all_sent && !self.is_concluded) {
            self.is_concluded = true;
            self.link.send_eof(stdout_of(WORKLOAD));
            self.link.send_eof(stderr_of(WORKLOAD));
            self.link.send_control(&ToHost::Ended { process: WORKLOAD, status });
        }
    }

    /// Whether the program's end has been told.
    pub(super) fn is_concluded(&self) -> bool {
        self.is_concluded
    }

    /// Whether the program has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.status.is_some()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
