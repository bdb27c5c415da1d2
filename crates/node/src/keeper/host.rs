//! The keeper's poll loop: performs the effects of [`super::state`] and feeds back what happens.

mod clients;
mod guest;
mod machine;
mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use hypercore::driver::Instance;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use spacecore::wire::message::{MountSource, Step, ToGuest};

use self::network::Joined;
use super::assignment::{Assignment, Lifetime};
use super::checks::Checks;
use super::processes::Processes;
use super::report::{FromKeeper, Outcome};
use super::shares::Shares;
use super::state::{Effect, Input, State};
use super::wire_socket::WireSocket;
use crate::clock::{Mark, now_ns, unix_time_ns};
use crate::log::Writer;
use crate::run_folder::{self, RunFolder};
use crate::signals::Signals;
use crate::volume::Held;

/// The client that started the keeper.
pub(super) const PARENT: u32 = 0;

/// How long clients may take to read the last messages once the machine is gone, while they do nothing at all.
const FAREWELL: Duration = Duration::from_secs(3600);

/// Keeps a spacecore from its start to its end.
///
/// `parent` is the control socket to the process that started this one, `lock` the lock of the run folder, where that process
/// has made it. To be called by the main thread of the process, because the machine dies with the thread that started it.
///
/// # Errors
/// The process lacks what every keeper needs (descriptors, a run folder). How the spacecore itself fares is told to the
/// clients and is no error.
pub fn keep(assignment: Assignment, parent: OwnedFd, lock: Option<OwnedFd>) -> io::Result<()> {
    let signals = Signals::block(&SIGNALS)?;
    super::driver::jail_wasm(&assignment)?;
    let folder = match lock {
        Some(lock) => RunFolder::take_over(&assignment.run_folder, lock)?,
        None => RunFolder::create(&assignment.run_folder)?,
    };
    keep_until_end(assignment, parent, Some(signals), folder)
}

/// Keeps a spacecore in a process that keeps others too, which sees to the signals.
pub(super) fn keep_one_of_many(assignment: Assignment, parent: OwnedFd) -> io::Result<()> {
    let folder = RunFolder::create(&assignment.run_folder)?;
    keep_until_end(assignment, parent, None, folder)
}

/// The signals that a keeper takes as messages.
pub(super) const SIGNALS: [i32; 5] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE, libc::SIGXFSZ];

/// Whether a signal is an order to end. The others are blocked so that a write fails instead: to a socket that is gone, or
/// beyond a limit of the user's.
pub(super) fn is_order_to_end(signal: i32) -> bool {
    ![libc::SIGPIPE, libc::SIGXFSZ].contains(&signal)
}

fn keep_until_end(
    assignment: Assignment,
    parent: OwnedFd,
    signals: Option<Signals>,
    folder: RunFolder,
) -> io::Result<()> {
    let mut host = Host::new(assignment, parent, signals)?;
    host.start();
    host.run()?;
    host.farewell()?;
    match host.assignment.lifetime {
        Lifetime::Bound => folder.remove(),
        Lifetime::Independent => Ok(()),
    }
}

struct Host {
    assignment: Assignment,
    state: State,
    signals: Option<Signals>,
    listener: Option<UnixListener>,
    clients: BTreeMap<u32, WireSocket>,
    next_client: u32,
    guest: Option<WireSocket>,
    machine: Option<Box<dyn Instance>>,
    network: Option<Joined>,
    shares: Option<Shares>,
    volumes: Vec<Held>,
    processes: Processes,
    deadline_ns: Option<u64>,
    outcome: Option<Outcome>,
    marks: Vec<Mark>,
    guest_steps: Vec<Step>,
    stats: BTreeMap<u32, (u32, u32)>,
    next_stats: u32,
    checks: Checks,
    /// Whether its machine stands still because somebody asked for it.
    paused: bool,
}

impl Host {
    fn new(assignment: Assignment, parent: OwnedFd, signals: Option<Signals>) -> io::Result<Self> {
        let (state, effects) = State::new(assignment.patience, assignment.orderly_end);
        let (listener, log) = match assignment.lifetime {
            Lifetime::Bound => (None, None),
            Lifetime::Independent => {
                // Where that can't be written nothing new is said to this keeper, which does no harm.
                let _ = run_folder::say_protocol(&assignment.run_folder);
                let listener = UnixListener::bind(assignment.run_folder.join("keeper.sock"))?;
                listener.set_nonblocking(true)?;
                (Some(listener), assignment.log.as_ref().map(Writer::new))
            }
        };
        let workload = &assignment.configuration.process;
        let waits = assignment.lifetime == Lifetime::Bound;
        let processes = Processes::new(workload.terminal.is_some(), waits, log);
        let mut host = Self {
            state,
            signals,
            listener,
            clients: BTreeMap::from([(PARENT, WireSocket::new(parent)?)]),
            next_client: PARENT + 1,
            guest: None,
            machine: None,
            network: None,
            shares: None,
            volumes: Vec::new(),
            processes,
            deadline_ns: None,
            outcome: None,
            marks: vec![Mark::now("keeper started")],
            guest_steps: Vec::new(),
            stats: BTreeMap::new(),
            next_stats: 0,
            checks: Checks::default(),
            paused: false,
            assignment,
        };
        host.perform(effects);
        Ok(host)
    }

    /// Turns until the outcome is known, which is after the machine's end.
    fn run(&mut self) -> io::Result<()> {
        while self.outcome.is_none() {
            self.turn(self.timeout())?;
        }
        Ok(())
    }

    /// Lets the clients read what they haven't read yet.
    fn farewell(&mut self) -> io::Result<()> {
        self.guest = None;
        self.shares = None;
        self.network = None;
        self.processes.end_log();
        for asker in self.checks.take_all() {
            self.tell_checked(asker, Some("the spacecore has ended".to_owned()));
        }
        let Some(outcome) = self.outcome.clone() else {
            return Ok(());
        };
        if self.assignment.lifetime == Lifetime::Independent {
            // On a full disk the clients are told at least.
            let _ = run_folder::leave(&self.assignment.run_folder, &outcome);
        }
        self.marks.push(Mark::now("machine gone"));
        let last = FromKeeper::Finished {
            outcome,
            marks: self.marks.clone(),
            guest_steps: self.guest_steps.clone(),
        };
        let end = now_ns().saturating_add(u64::try_from(FAREWELL.as_nanos()).unwrap_or(u64::MAX));
        let mut told = BTreeSet::new();
        while !self.clients.is_empty() && now_ns() < end {
            self.relay();
            if self.processes.are_drained() {
                // Also to whoever has come only now.
                let new = self.clients.iter_mut().filter(|(id, _)| told.insert(**id));
                new.for_each(|(_, client)| _ = client.link.send_control(&last));
            }
            self.clients.values_mut().for_each(WireSocket::flush);
            self.clients.retain(|id, client| {
                client.is_open() && !(told.contains(id) && client.link.outgoing().is_empty())
            });
            if !self.clients.is_empty() {
                self.turn(Some(Duration::from_millis(500)))?;
            }
        }
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        let deadline = self.deadline_ns.into_iter().chain(self.checks.deadline_ns()).min();
        deadline.map(|deadline| Duration::from_nanos(deadline.saturating_sub(now_ns())))
    }

    /// Waits for something to happen and deals with it.
    fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.relay();
        self.guest.iter_mut().for_each(WireSocket::flush);
        // Replies that are out make room for what was held back.
        self.take_from_guest();
        self.clients.values_mut().for_each(WireSocket::flush);
        self.processes.flush_log();
        self.wait(timeout)?;

        while let Some(signal) = self.signals.as_mut().and_then(Signals::next_signal) {
            if is_order_to_end(signal) {
                self.input(Input::StopAsked { grace_ms: 0 });
            }
        }
        self.read_answers();
        self.read_guest(false);
        self.watch_machine();
        self.watch_network();
        self.accept();
        self.read_clients();
        if self.deadline_ns.is_some_and(|deadline| deadline <= now_ns()) {
            self.deadline_ns = None;
            self.input(Input::DeadlinePassed);
        }
        for asker in self.checks.overdue(now_ns()) {
            self.tell_checked(asker, Some("the guest doesn't answer".to_owned()));
        }
        Ok(())
    }

    fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        let mut fds: Vec<PollFd<'_>> = Vec::new();
        fds.extend(self.signals.iter().map(|signals| PollFd::new(signals, PollFlags::IN)));
        if let Some(guest) = &self.guest {
            let mut interest = guest.interest();
            if self.is_congested() {
                interest.remove(PollFlags::IN);
            }
            if guest.is_open() || !interest.is_empty() {
                fds.push(PollFd::new(guest, interest));
            }
        }
        fds.extend(
            self.machine.iter().map(|machine| PollFd::from_borrowed_fd(machine.handle(), PollFlags::IN)),
        );
        fds.extend(
            self.network
                .iter()
                .filter_map(Joined::handle)
                .map(|handle| PollFd::from_borrowed_fd(handle, PollFlags::IN)),
        );
        fds.extend(self.shares.iter().map(|shares| PollFd::new(shares, PollFlags::IN)));
        fds.extend(
            self.listener.iter().map(|listener| PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)),
        );
        fds.extend(self.clients.values().map(|client| PollFd::new(client, client.interest())));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn input(&mut self, input: Input) {
        let effects = self.state.step(input);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Configure => self.configure(),
                Effect::Shutdown { grace_ms } => self.tell_guest(&ToGuest::Shutdown { grace_ms }),
                Effect::SetDeadline(ms) => {
                    self.deadline_ns = Some(now_ns().saturating_add(ms.saturating_mul(1_000_000)));
                }
                Effect::ClearDeadline => self.deadline_ns = None,
                Effect::Announce(standing) => self.tell_all(&FromKeeper::Standing(standing)),
                Effect::KillMachine => self.kill_machine(),
                Effect::Finish(outcome) => self.outcome = Some(outcome),
            }
        }
    }

    fn configure(&mut self) {
        let mut entropy = [0u8; 64];
        if rustix::rand::getrandom(&mut entropy, rustix::rand::GetRandomFlags::empty()).is_err() {
            // Without entropy of the host's the guest would make guessable keys.
            self.input(Input::NotStarted("the host has no entropy to give".to_owned()));
            return;
        }
        let configuration = &mut self.assignment.configuration;
        configuration.entropy = entropy.iter().map(|byte| format!("{byte:02x}")).collect();
        configuration.unix_time_ns = unix_time_ns();
        configuration.network = self.network.as_ref().map(|network| network.told().clone());
        let mut configuration = configuration.clone();
        if let Some(network) = &self.network {
            let env = &mut configuration.process.env;
            for variable in network.variables() {
                let name = variable.split_inclusive('=').next().unwrap_or_default();
                if !env.iter().any(|known| known.starts_with(name)) {
                    env.push(variable);
                }
            }
        }
        let message = ToGuest::Configure(Box::new(configuration));
        self.tell_guest(&message);
        // The guest is told once; what is dropped is wiped.
        for mount in &mut self.assignment.configuration.mounts {
            if let MountSource::Disk { crypt, .. } = &mut mount.source {
                *crypt = None;
            }
        }
    }

    /// Notes a moment; each can come once, so that there are few.
    fn mark(&mut self, name: &str) {
        self.marks.push(Mark::now(name));
    }
}

/// The most characters that are shown of a text of the guest's.
const SHOWN: usize = 1024;

/// Text of a guest's, fit to be shown.
fn shown(text: &str) -> String {
    hac::text::printable(text, SHOWN)
}
