//! The foreground's loop: streams, signals and terminal size between a person and a keeper.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use node::clock::Mark;
use node::keeper::report::{FromKeeper, Outcome, Standing, ToKeeper};
use node::session::Session;
use node::signals::Signals;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin, stdout};
use serde_json::json;
use spacecore::wire::link::Incoming;
use spacecore::wire::message::{ExitStatus, Process, Step};
use spacecore::wire::{stderr_of, stdin_of, stdout_of};

use super::output::{Events, Output, Outputs, Written};
use super::progress::Boot;
use super::terminal::Terminal;

/// Signals that are passed on to the workload.
const FORWARDED: [i32; 7] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGCONT];

/// To which process.
pub enum What {
    /// To the workload.
    Workload,
    /// To one that is started beside it.
    Beside(Process),
}

/// The person's side of a process' streams.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    /// What is passed on to it.
    pub input: BorrowedFd<'a>,
    /// Where its standard output and error go.
    pub outputs: [BorrowedFd<'a>; 2],
}

impl Ends<'_> {
    /// Those of this command itself.
    pub fn own() -> Self {
        Self { input: stdin(), outputs: [stdout(), stderr()] }
    }
}

/// How to attach.
pub struct Options<'a> {
    /// Whether standard input is passed on.
    pub stdin: bool,
    /// What is read as standard input, and written as standard output and error.
    pub ends: Ends<'a>,
    /// Whether output becomes events.
    pub json: bool,
    /// The terminal, if the workload has it.
    pub terminal: Option<&'a Terminal>,
    /// What shows a person that the guest boots.
    pub boot: Boot,
}

impl<'a> Options<'a> {
    /// To a process beside the workload.
    pub fn beside(stdin: bool, terminal: Option<&'a Terminal>) -> Self {
        Self { stdin, ends: Ends::own(), json: false, terminal, boot: Boot::hidden() }
    }

    fn show_standing(&self, standing: Standing) {
        match standing {
            Standing::Booting => self.boot.show("booting"),
            Standing::Configuring => self.boot.show("configuring"),
            Standing::Running | Standing::Stopping | Standing::Ending => self.boot.end(),
        }
    }
}

/// How it ended.
pub struct Ended {
    /// The spacecore's outcome.
    pub outcome: Outcome,
    /// Moments of the keeper's and of this side's.
    pub marks: Vec<Mark>,
    /// The guest's own steps.
    pub guest_steps: Vec<Step>,
    /// The signal by which a person asked for the end.
    pub asked: Option<i32>,
}

/// Stays attached until the spacecore has ended and the keeper is gone, or until the process beside the workload has ended.
pub fn attach(session: Session, what: What, options: Options<'_>) -> io::Result<Ended> {
    let mut foreground = Foreground {
        signals: block_signals()?,
        session,
        outputs: match options.json {
            true => Outputs::Events(Events::new()),
            false => Outputs::Plain(options.ends.outputs.map(Output::new)),
        },
        abandoned: false,
        process: None,
        input: options.stdin.then(VecDeque::new),
        input_open: options.stdin,
        asked: None,
        first_byte: None,
        finished: None,
        options,
    };
    foreground.begin(what);
    let ended = foreground.run();
    foreground.session.close()?;
    ended
}

/// Takes the signals that [`attach`] deals with; by itself only where threads are started before it, which must not get them.
pub fn block_signals() -> io::Result<Signals> {
    let mut watched = FORWARDED.to_vec();
    // SIGPIPE only so that a closed output is an error to deal with and not the end.
    watched.extend([libc::SIGWINCH, libc::SIGPIPE]);
    Signals::block(&watched)
}

struct Foreground<'a> {
    session: Session,
    signals: Signals,
    options: Options<'a>,
    outputs: Outputs<'a>,
    /// Whether the person doesn't want to wait for the reader of the output either.
    abandoned: bool,
    /// The process' number, once it has one: 0 is the workload.
    process: Option<u16>,
    /// Bytes of standard input that wait for credit; none where it isn't passed on.
    input: Option<VecDeque<u8>>,
    input_open: bool,
    /// The last signal that asked for the end; a second one doesn't wait for the workload.
    asked: Option<i32>,
    first_byte: Option<Mark>,
    finished: Option<Ended>,
}

impl Foreground<'_> {
    fn begin(&mut self, what: What) {
        match what {
            What::Workload => {
                self.open(0);
                self.session.tell(&ToKeeper::Attach);
            }
            What::Beside(spec) => self.session.tell(&ToKeeper::Exec { request: 0, spec }),
        }
    }

    fn open(&mut self, process: u16) {
        let link = self.session.link();
        link.open_receiver(stdout_of(process));
        if self.options.terminal.is_none() {
            link.open_receiver(stderr_of(process));
        }
        if self.options.stdin {
            link.open_sender(stdin_of(process));
        }
        self.process = Some(process);
    }

    /// Ends with a process beside the workload.
    fn finish(&mut self, outcome: Outcome) {
        let (marks, guest_steps) = (Vec::new(), Vec::new());
        self.finished.get_or_insert(Ended { outcome, marks, guest_steps, asked: self.asked });
    }

    fn run(&mut self) -> io::Result<Ended> {
        loop {
            self.send_input();
            self.session.flush();
            let done = self.abandoned || self.outputs.is_empty();
            if let Some(ended) = self.finished.take_if(|_| done) {
                return Ok(self.with_first_byte(ended));
            }
            if !self.session.is_open() && done {
                let reason = "its keeper was killed".to_owned();
                let outcome = Outcome::MachineEnded { reason };
                return Ok(self.with_first_byte(Ended {
                    outcome,
                    marks: Vec::new(),
                    guest_steps: Vec::new(),
                    asked: None,
                }));
            }
            self.wait()?;
            self.take_signals();
            self.read_input();
            self.session.fill();
            self.take_from_keeper()?;
            self.write_output()?;
        }
    }

    fn with_first_byte(&mut self, mut ended: Ended) -> Ended {
        ended.marks.extend(self.first_byte.take());
        ended
    }

    fn wait(&self) -> io::Result<()> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if self.session.is_open() {
            fds.push(PollFd::new(&self.session, self.session.interest()));
        }
        if self.input_open && self.input.as_ref().is_some_and(VecDeque::is_empty) {
            fds.push(PollFd::from_borrowed_fd(self.options.ends.input, PollFlags::IN));
        }
        self.outputs.waiting().for_each(|fd| fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.next_signal() {
            if signal == libc::SIGWINCH {
                if let (Some(terminal), Some(process)) = (self.options.terminal, self.process) {
                    self.session.tell(&ToKeeper::Resize { process, size: terminal.size() });
                }
                continue;
            }
            if signal == libc::SIGPIPE {
                continue;
            }
            let ends = matches!(signal, libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT);
            match (self.asked.filter(|_| ends), self.process) {
                (Some(_), Some(0)) => {
                    self.abandoned = true;
                    self.session.tell(&ToKeeper::Kill);
                }
                (None, Some(process)) => self.session.tell(&ToKeeper::Signal { process, signal }),
                // The spacecore isn't this command's to end; its keeper kills the process with the connection.
                _ if ends => {
                    self.abandoned = true;
                    self.finish(Outcome::Exited(ExitStatus::Signal { signal, out_of_memory: false }));
                }
                _ => {}
            }
            if ends {
                self.asked = Some(signal);
            }
        }
    }

    fn read_input(&mut self) {
        let Some(waiting) = self.input.as_mut().filter(|waiting| waiting.is_empty() && self.input_open)
        else {
            return;
        };
        let mut ready = [PollFd::from_borrowed_fd(self.options.ends.input, PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if !matches!(poll(&mut ready, Some(&now)), Ok(1)) {
            return;
        }
        let mut chunk = [0; 16 * 1024];
        match rustix::io::read(self.options.ends.input, &mut chunk) {
            Ok(0) => self.input_open = false,
            Ok(read) => waiting.extend(&chunk[..read]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.input_open = false,
        }
    }

    fn send_input(&mut self) {
        let (Some(waiting), Some(process)) = (&mut self.input, self.process) else { return };
        let link = self.session.link();
        while !waiting.is_empty() {
            let taken = link.send_data(stdin_of(process), waiting.as_slices().0);
            if taken == 0 {
                break;
            }
            waiting.drain(..taken);
        }
        if waiting.is_empty() && !self.input_open {
            link.send_eof(stdin_of(process));
        }
    }

    fn take_from_keeper(&mut self) -> io::Result<()> {
        loop {
            match self.session.next_incoming() {
                Ok(None) => return Ok(()),
                Ok(Some(Incoming::Control(message))) => self.keeper_said(message),
                Ok(Some(Incoming::Data(stream, bytes))) => {
                    self.first_byte.get_or_insert_with(|| Mark::now("first byte of output"));
                    let index = usize::from(self.process.is_some_and(|process| stream == stderr_of(process)));
                    self.outputs.push(index, &bytes);
                }
                Ok(Some(Incoming::Eof(_) | Incoming::Writable(_) | Incoming::Message(..))) => {}
                Err(violation) => {
                    return Err(io::Error::other(format!("the keeper isn't of this version: {violation}")));
                }
            }
        }
    }

    fn keeper_said(&mut self, message: FromKeeper) {
        match message {
            FromKeeper::Standing(standing) => {
                if let Outputs::Events(events) = &mut self.outputs {
                    events.say(&json!({ "event": "standing", "standing": standing }));
                }
                self.options.show_standing(standing);
            }
            FromKeeper::Finished { outcome, marks, guest_steps } => {
                self.finished = Some(Ended { outcome, marks, guest_steps, asked: self.asked });
            }
            FromKeeper::Opened { process, .. } => self.open(process),
            FromKeeper::Ended { process, status } if process != 0 => self.finish(Outcome::Exited(status)),
            FromKeeper::Refused { process, refusal } if process != 0 => {
                self.finish(Outcome::Refused(refusal))
            }
            FromKeeper::Started { .. }
            | FromKeeper::Published(_)
            | FromKeeper::Ended { .. }
            | FromKeeper::Refused { .. }
            | FromKeeper::Checked { .. }
            | FromKeeper::Fetched { .. }
            | FromKeeper::Stats { .. } => {}
        }
    }

    fn write_output(&mut self) -> io::Result<()> {
        let Some(process) = self.process else { return Ok(()) };
        for (index, stream) in [stdout_of(process), stderr_of(process)].into_iter().enumerate() {
            let written = match self.abandoned {
                true => Written::Bytes(self.outputs.discard(index)),
                false => self.outputs.write(index)?,
            };
            match written {
                Written::Bytes(0) => {}
                Written::Bytes(bytes) => self.session.link().consumed(stream, bytes),
                // Nobody reads any more: as if SIGPIPE had ended a process of this machine.
                Written::Closed(bytes) => {
                    self.session.link().consumed(stream, bytes);
                    self.session.tell(&ToKeeper::Signal { process, signal: libc::SIGPIPE });
                }
            }
        }
        Ok(())
    }
}
