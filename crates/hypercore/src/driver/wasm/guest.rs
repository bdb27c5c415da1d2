//! The thread that speaks the channel: what PID 1 is to a microVM, this is to a Wasm program.
//!
//! ```text
//!  Waiting --Configure--> Running --program ended--> Over --Shutdown, or nothing for 5 s--> ends
//!                            |                         ^
//!                            +--Shutdown--> Stopping --+   (grace, then killed)
//! ```
//!
//! The keeper's hanging up ends everything at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use spacecore::wire::link::Incoming;
use spacecore::wire::message::{Configuration, Fetched, Refusal, RefusalKind, Stats, ToGuest, ToHost};
use spacecore::wire::{self, MAX_PROCESS, stderr_of, stdin_of, stdout_of};

use super::channel::{Channel, WORKLOAD};
use super::control::Control;

const WAIT_FOR_SHUTDOWN: Duration = Duration::from_secs(5);

/// How long a program that was stopped may take to end: it may be inside a call to the host's files.
const WAIT_FOR_PROGRAM: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running,
    Stopping { kill_at: Instant },
    Over { off_at: Instant },
    Off,
}

/// The channel's thread.
pub(super) struct Guest {
    pub(super) channel: Arc<Channel>,
    pub(super) control: Arc<Control>,
    /// Where the program's thread awaits what it is told.
    pub(super) configure: Option<Sender<Box<Configuration>>>,
    pub(super) program: Option<JoinHandle<()>>,
    /// Closed by the end of the program's thread.
    pub(super) finished: Receiver<()>,
    pub(super) memory_bytes: u64,
    /// Becomes readable at the end.
    pub(super) done: Arc<OwnedFd>,
    stop_signal: i32,
    phase: Phase,
}

impl Guest {
    pub(super) fn new(
        channel: Arc<Channel>,
        control: Arc<Control>,
        configure: Sender<Box<Configuration>>,
        (program, finished): (JoinHandle<()>, Receiver<()>),
        memory_bytes: u64,
        done: Arc<OwnedFd>,
    ) -> Self {
        Self {
            channel,
            control,
            configure: Some(configure),
            program: Some(program),
            finished,
            memory_bytes,
            done,
            stop_signal: libc::SIGTERM,
            phase: Phase::Waiting,
        }
    }

    /// Runs until the end.
    pub(super) fn run(mut self) {
        let mut buffer = vec![0; 64 * 1024];
        while self.phase != Phase::Off {
            let is_writing = self.turn(&mut buffer);
            if self.phase != Phase::Off {
                self.channel.wait(is_writing, self.timeout());
            }
        }
        self.control.stop(libc::SIGKILL);
        self.configure = None;
        self.await_program();
        let _ = rustix::io::write(&*self.done, &1u64.to_ne_bytes());
    }

    /// A program that doesn't end in time keeps its thread, and nothing else waits for it.
    fn await_program(&mut self) {
        let Some(program) = self.program.take() else { return };
        // Nothing is ever sent: the end of the program's thread closes it.
        if self.finished.recv_timeout(WAIT_FOR_PROGRAM) == Err(RecvTimeoutError::Disconnected) {
            let _ = program.join();
        }
    }

    fn timeout(&self) -> Option<Duration> {
        match self.phase {
            Phase::Waiting | Phase::Running | Phase::Off => None,
            Phase::Stopping { kill_at: at } | Phase::Over { off_at: at } => {
                Some(at.saturating_duration_since(Instant::now()))
            }
        }
    }

    /// Deals with all that has happened; says whether something waits to be written.
    fn turn(&mut self, buffer: &mut [u8]) -> bool {
        let channel = Arc::clone(&self.channel);
        let received = {
            let mut ends = channel.ends();
            channel.receive(&mut ends, buffer);
            ends.is_hung_up()
        };
        loop {
            let incoming = channel.ends().link.next_incoming::<ToGuest>();
            match incoming {
                Ok(Some(incoming)) => self.incoming(incoming),
                Ok(None) => break,
                Err(violation) => {
                    channel.ends().link.drop_received();
                    self.give_up(RefusalKind::Protocol, violation.to_string());
                    break;
                }
            }
        }
        self.check_deadlines();
        let mut ends = channel.ends();
        channel.flush(&mut ends);
        if received || ends.is_hung_up() {
            self.phase = Phase::Off;
        }
        let is_writing = !ends.link.outgoing().is_empty();
        let is_running = matches!(self.phase, Phase::Running | Phase::Stopping { .. });
        if is_running && ends.is_concluded() && !is_writing {
            let wait = if self.phase == Phase::Running { WAIT_FOR_SHUTDOWN } else { Duration::ZERO };
            self.phase = Phase::Over { off_at: Instant::now() + wait };
        }
        if matches!(self.phase, Phase::Over { off_at } if off_at <= Instant::now()) && !is_writing {
            self.phase = Phase::Off;
        }
        is_writing
    }

    fn check_deadlines(&mut self) {
        if let Phase::Stopping { kill_at } = self.phase
            && kill_at <= Instant::now()
        {
            self.control.stop(libc::SIGKILL);
            self.phase = Phase::Stopping { kill_at: Instant::now() + WAIT_FOR_PROGRAM };
        }
    }

    fn incoming(&mut self, incoming: Incoming<ToGuest>) {
        match incoming {
            Incoming::Control(message) => self.told(message),
            Incoming::Data(stream, bytes) if stream == stdin_of(WORKLOAD) => {
                let signals = self.channel.ends().take_input(&bytes);
                signals.into_iter().for_each(|signal| self.signal(signal));
            }
            Incoming::Eof(stream) if stream == stdin_of(WORKLOAD) => self.channel.ends().end_input(),
            Incoming::Writable(_) => self.channel.ends().credit_came(),
            Incoming::Data(..) | Incoming::Eof(_) | Incoming::Message(..) => {}
        }
    }

    fn told(&mut self, message: ToGuest) {
        match message {
            ToGuest::Configure(configuration) => self.configured(configuration),
            ToGuest::Exec { process, spec } => self.refuse_exec(process, spec.transfer.is_some()),
            ToGuest::Signal { process: WORKLOAD, signal } => self.signal(signal),
            ToGuest::Stats { request } => {
                let stats = self.measure();
                self.channel.ends().link.send_control(&ToHost::Stats { request, stats });
            }
            ToGuest::Check { request, .. } => {
                let failure = Some("a Wasm program has no checks of this kind yet".to_owned());
                self.channel.ends().link.send_control(&ToHost::Checked { request, failure });
            }
            ToGuest::Fetch { request, .. } => {
                let fetched = Fetched::Failure("a Wasm program has no metrics of its own yet".to_owned());
                self.channel.ends().link.send_control(&ToHost::Fetched { request, fetched });
            }
            ToGuest::Shutdown { grace_ms } => self.shut_down(grace_ms),
            // A Wasm program can't ask for its terminal's size, nor does it have other processes.
            ToGuest::Resize { .. } | ToGuest::Signal { .. } => {}
        }
    }

    fn configured(&mut self, configuration: Box<Configuration>) {
        let Some(configure) = self.configure.take().filter(|_| self.phase == Phase::Waiting) else {
            return self.give_up(RefusalKind::Protocol, "a second configuration".to_owned());
        };
        if configuration.version != wire::VERSION {
            let message = format!(
                "the keeper speaks version {} of the protocol, the Wasm driver {}",
                configuration.version,
                wire::VERSION
            );
            return self.give_up(RefusalKind::Protocol, message);
        }
        if let Some(mount) = configuration.mounts.first() {
            let message = format!("{}: a Wasm program's folders come with its machine", mount.destination);
            return self.give_up(RefusalKind::Mount, message);
        }
        self.phase = Phase::Running;
        self.stop_signal = configuration.process.stop_signal;
        self.channel.open(&configuration.process);
        // Fails only where the program's thread is gone, which it has said why then.
        let _ = configure.send(configuration);
    }

    /// Ends the program as the signal does to a process that says nothing about it (signal(7)); it can't say anything.
    fn signal(&mut self, signal: i32) {
        match signal {
            libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH => {}
            libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => self.control.pause(true),
            libc::SIGCONT => self.control.pause(false),
            1..=64 => self.control.stop(signal),
            _ => {}
        }
    }

    fn refuse_exec(&mut self, process: u16, is_transfer: bool) {
        let process = process.min(MAX_PROCESS);
        let mut ends = self.channel.ends();
        ends.link.close_sender(stdout_of(process));
        ends.link.close_sender(stderr_of(process));
        // What the keeper may have sent before it learns of the refusal is nobody's fault.
        ends.link.open_receiver(stdin_of(process));
        let message = match is_transfer {
            true => {
                "a Wasm spacecore has no root of its own to copy from or into; its folders are this machine's, and its volumes lie \
                 in them too: see `files/` of a volume's folder (vimana volume ls)"
            }
            false => "a Wasm spacecore has only its one program: nothing else can be executed in it",
        };
        let refusal = Refusal { kind: RefusalKind::NotExecutable, message: message.to_owned() };
        ends.link.send_control(&ToHost::Refused { process: Some(process), refusal });
    }

    fn give_up(&mut self, kind: RefusalKind, message: String) {
        self.channel.refuse(Refusal { kind, message });
        self.control.stop(libc::SIGKILL);
        self.phase = Phase::Over { off_at: Instant::now() + WAIT_FOR_SHUTDOWN };
    }

    fn shut_down(&mut self, grace_ms: u64) {
        let longest = Duration::from_secs(24 * 3600);
        match self.phase {
            Phase::Waiting | Phase::Off => self.phase = Phase::Off,
            Phase::Over { .. } => self.phase = Phase::Over { off_at: Instant::now() },
            Phase::Running | Phase::Stopping { .. } => {
                self.signal(self.stop_signal);
                let kill_at = Instant::now() + Duration::from_millis(grace_ms).min(longest);
                self.phase = Phase::Stopping { kill_at };
            }
        }
    }

    fn measure(&self) -> Stats {
        let used = self.control.memory.load(Ordering::Relaxed);
        Stats {
            memory_total: self.memory_bytes,
            memory_available: self.memory_bytes.saturating_sub(used),
            cpu_user_us: u64::try_from(self.control.cpu().as_micros()).unwrap_or(u64::MAX),
            processes: u32::from(!self.channel.ends().has_ended()),
            ..Stats::default()
        }
    }
}
