//! A process from its start until all of its output has been sent.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::process::Pid;
use spacecore::wire::message::{ExitStatus, Process, TerminalSize, ToHost};
use spacecore::wire::{stderr_of, stdin_of, stdout_of};

use crate::channel::Channel;
use crate::process::{Child, Report, signal};
use crate::terminal::{END_OF_FILE, resize};

/// How long output may still come from what a process beside the workload left behind with its pipes. What the workload
/// leaves behind dies with it, so that its own pipes always end.
const LINGER: Duration = Duration::from_millis(500);

/// Signals that end what takes files; others mean nothing to it, such as that of a terminal whose command goes on.
const ENDING: [i32; 6] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE, libc::SIGKILL];

/// A descriptor of a process that something can happen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It exits.
    Exit,
    /// It reports.
    Report,
    /// Its standard input takes bytes.
    Input,
    /// Its standard output (0) or error (1) has bytes.
    Output(usize),
}

/// A process that runs, or whose output isn't all sent.
#[derive(Debug)]
pub(crate) struct Running {
    number: u16,
    pid: Pid,
    pidfd: OwnedFd,
    report: Option<File>,
    line: Vec<u8>,
    refused: bool,
    input: Option<File>,
    waiting: VecDeque<u8>,
    input_ended: bool,
    outputs: [Option<(u16, File)>; 2],
    slave: Option<OwnedFd>,
    is_terminal: bool,
    exit: Option<ExitStatus>,
    linger_until: Option<Instant>,
    killed: bool,
    /// Whether it takes files, half of which it would leave if it were killed.
    is_taking: bool,
}

/// Opens the streams of a process that is about to start, so that the keeper may use them at once.
pub(crate) fn open_streams(channel: &mut Channel, number: u16, spec: &Process) {
    channel.link.open_sender(stdout_of(number));
    if spec.terminal.is_none() {
        channel.link.open_sender(stderr_of(number));
    }
    if spec.stdin {
        channel.link.open_receiver(stdin_of(number));
    }
}

/// Closes the streams of a process that won't send anything.
pub(crate) fn close_streams(channel: &mut Channel, number: u16) {
    channel.link.close_sender(stdout_of(number));
    channel.link.close_sender(stderr_of(number));
}

impl Running {
    /// Takes over a process that was started.
    pub(crate) fn new(number: u16, child: Child) -> Self {
        Self {
            number,
            pid: child.pid,
            pidfd: child.pidfd,
            report: Some(child.report.into()),
            line: Vec::new(),
            refused: false,
            input: child.stdin.map(File::from),
            waiting: VecDeque::new(),
            input_ended: false,
            is_terminal: child.slave.is_some(),
            outputs: [
                Some((stdout_of(number), child.stdout.into())),
                child.stderr.map(|stderr| (stderr_of(number), stderr.into())),
            ],
            slave: child.slave,
            exit: None,
            linger_until: None,
            killed: false,
            is_taking: false,
        }
    }

    /// Takes over a process that takes files.
    pub(crate) fn taking(number: u16, child: Child) -> Self {
        Self { is_taking: true, ..Self::new(number, child) }
    }

    /// Its number at the kernel.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// The descriptor that names it.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether it hasn't exited yet.
    pub(crate) fn is_running(&self) -> bool {
        self.exit.is_none()
    }

    /// Whether it was refused before it became its program.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused
    }

    /// What to wait for now.
    pub(crate) fn interests<'a>(
        &'a self,
        channel: &Channel,
        mut wait: impl FnMut(End, BorrowedFd<'a>, PollFlags),
    ) {
        if self.exit.is_none() {
            wait(End::Exit, self.pidfd.as_fd(), PollFlags::IN);
        }
        if let Some(report) = &self.report {
            wait(End::Report, report.as_fd(), PollFlags::IN);
        }
        if let Some(input) = self.input.as_ref().filter(|_| !self.waiting.is_empty()) {
            wait(End::Input, input.as_fd(), PollFlags::OUT);
        }
        for (index, output) in self.outputs.iter().enumerate() {
            if let Some((stream, file)) = output
                && channel.has_room()
                && channel.link.credit(*stream) > 0
            {
                wait(End::Output(index), file.as_fd(), PollFlags::IN);
            }
        }
    }

    /// Reads what it reports; the end of the report means that it runs, unless it was refused.
    pub(crate) fn read_report(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        let mut buffer = [0; 4096];
        while let Some(report) = &mut self.report {
            match report.read(&mut buffer) {
                Ok(0) => {
                    self.report = None;
                    if !self.refused {
                        reports.push(Report::Message(ToHost::Started { process: self.number }));
                    }
                }
                Ok(length) => self.line.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.report = None,
            }
            while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let line = self.line.drain(..=end).collect::<Vec<_>>();
                reports.extend(Report::from_line(&line[..end]).map(|report| self.number_refusal(report)));
            }
        }
        reports
    }

    /// A refused process doesn't know its own number.
    fn number_refusal(&mut self, report: Report) -> Report {
        let Report::Message(ToHost::Refused { process, refusal }) = report else {
            return report;
        };
        self.refused = true;
        let process = process.map(|_| self.number);
        Report::Message(ToHost::Refused { process, refusal })
    }

    /// Sends output as far as credit and the channel's room go.
    pub(crate) fn send_output(&mut self, index: usize, channel: &mut Channel, buffer: &mut [u8]) {
        while let Some((stream, file)) = &mut self.outputs[index] {
            let stream = *stream;
            let most = channel.link.credit(stream).min(buffer.len());
            if most == 0 || !channel.has_room() {
                return;
            }
            match file.read(&mut buffer[..most]) {
                Ok(length) if length > 0 => {
                    channel.link.send_data(stream, &buffer[..length]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.has_lingered() => return,
                // The end of a pipe, a terminal that nobody has open (EIO), or nothing more within the time to linger.
                Ok(_) | Err(_) => {
                    channel.link.send_eof(stream);
                    self.outputs[index] = None;
                }
            }
        }
    }

    fn has_lingered(&self) -> bool {
        self.linger_until.is_some_and(|until| Instant::now() >= until)
    }

    /// When output is looked at next although nothing happens.
    pub(crate) fn deadline(&self, channel: &Channel) -> Option<Instant> {
        let mut open = self.outputs.iter().flatten();
        let can_send = open.any(|(stream, _)| channel.link.credit(*stream) > 0) && channel.has_room();
        self.linger_until.filter(|_| can_send)
    }

    /// Takes bytes for its standard input.
    pub(crate) fn take_input(&mut self, bytes: &[u8], channel: &mut Channel) {
        self.waiting.extend(bytes);
        self.write_input(channel);
    }

    /// Ends its standard input once all has been written.
    pub(crate) fn end_input(&mut self, channel: &mut Channel) {
        if self.is_terminal {
            self.waiting.push_back(END_OF_FILE);
        }
        self.input_ended = true;
        self.write_input(channel);
    }

    /// Writes to its standard input as far as it takes it; what nobody will read is dropped.
    pub(crate) fn write_input(&mut self, channel: &mut Channel) {
        while !self.waiting.is_empty() {
            let (front, _) = self.waiting.as_slices();
            let written = match &mut self.input {
                Some(input) => input.write(front),
                None => Ok(front.len()),
            };
            match written {
                Ok(length) => {
                    self.waiting.drain(..length);
                    channel.link.consumed(stdin_of(self.number), length);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.input = None,
            }
        }
        if self.input_ended {
            self.input = None;
        }
    }

    /// Sends it a signal, unless it has exited.
    pub(crate) fn signal(&mut self, number: i32) {
        if self.exit.is_some() {
            return;
        }
        if self.is_taking {
            if !ENDING.contains(&number) {
                return;
            }
            self.is_taking = false;
            // The early end of what it takes makes it remove what it has; a second signal doesn't wait for that.
            self.waiting.clear();
            self.input = None;
            return;
        }
        self.killed |= number == libc::SIGKILL;
        signal(&self.pidfd, number);
    }

    /// Sets the size of its terminal.
    pub(crate) fn resize(&self, size: TerminalSize) {
        if let (true, Some((_, terminal))) = (self.is_terminal, &self.outputs[0]) {
            let _ = terminal.try_clone().map(|terminal| resize(&terminal.into(), size));
        }
    }

    /// Notes how it exited; its terminal is then held open by nobody but what it left behind.
    pub(crate) fn exited(&mut self, code: Option<i32>, signal: Option<i32>) {
        let status = match signal {
            None => ExitStatus::Code(code.and_then(|code| u8::try_from(code & 0xff).ok()).unwrap_or(0)),
            Some(signal) => ExitStatus::Signal {
                signal,
                out_of_memory: signal == libc::SIGKILL
                    && !self.killed
                    && crate::stats::ran_out_of_memory(self.pid),
            },
        };
        self.exit = Some(status);
        self.linger_until = (self.number > 0 || self.is_terminal).then(|| Instant::now() + LINGER);
        self.slave = None;
        self.input = None;
        self.waiting.clear();
    }

    /// How it ended, once all of its output has been sent.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        let all_sent = self.report.is_none() && self.outputs.iter().all(Option::is_none);
        self.exit.filter(|_| all_sent)
    }
}
