//! The keeper's poll loop: performs the effects of [`super::state`] and feeds back what happens.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use hypercore::driver::qemu::Qemu;
use hypercore::driver::{Driver, Instance, Wiring};
use hypercore::passt::{GuestNetwork, Passt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use spacecore::wire;
use spacecore::wire::link::{Incoming, Violation};
use spacecore::wire::message::{Network, Step, ToGuest, ToHost};

use super::assignment::{Assignment, Lifetime};
use super::processes::Processes;
use super::report::{FromKeeper, Outcome, Standing, ToKeeper};
use super::shares::{Answer, Shares};
use super::spool::Spool;
use super::state::{Effect, Input, State};
use super::wire_socket::WireSocket;
use crate::clock::{Mark, now_ns, unix_time_ns};
use crate::folder::Folder;
use crate::run_folder::RunFolder;
use crate::signals::Signals;

/// The client that started the keeper.
pub(super) const PARENT: u32 = 0;

/// Signals that end a process which doesn't expect them.
const ENDING_SIGNALS: [i32; 5] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGKILL,
];

/// How long clients may take to read the last messages once the machine is gone, while they do nothing at all.
const FAREWELL: Duration = Duration::from_secs(3600);

/// Keeps a spacecore from its start to its end.
///
/// `parent` is the control socket to the process that started this one. To be called by the main thread of
/// the process, because the machine dies with the thread that started it.
///
/// # Errors
/// The process lacks what every keeper needs (descriptors, a run folder). How the spacecore itself fares is told to the
/// clients and is no error.
pub fn keep(assignment: Assignment, parent: OwnedFd) -> io::Result<()> {
    let signals = Signals::block(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE])?;
    let folder = RunFolder::create(&assignment.run_folder)?;
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
    signals: Signals,
    listener: Option<UnixListener>,
    clients: BTreeMap<u32, WireSocket>,
    next_client: u32,
    guest: Option<WireSocket>,
    machine: Option<Box<dyn Instance>>,
    network: Option<(Passt, Network)>,
    shares: Option<Shares>,
    processes: Processes,
    deadline_ns: Option<u64>,
    outcome: Option<Outcome>,
    marks: Vec<Mark>,
    guest_steps: Vec<Step>,
    stats: BTreeMap<u32, (u32, u32)>,
    next_stats: u32,
}

impl Host {
    fn new(assignment: Assignment, parent: OwnedFd, signals: Signals) -> io::Result<Self> {
        let (state, effects) = State::new(assignment.patience, assignment.orderly_end);
        let (listener, spools) = match assignment.lifetime {
            Lifetime::Bound => (None, None),
            Lifetime::Independent => {
                let listener = UnixListener::bind(assignment.run_folder.join("keeper.sock"))?;
                listener.set_nonblocking(true)?;
                let spools = [
                    Spool::open(&assignment.run_folder, "stdout")?,
                    Spool::open(&assignment.run_folder, "stderr")?,
                ];
                (Some(listener), Some(spools))
            }
        };
        let workload = &assignment.configuration.process;
        let processes = Processes::new(workload.terminal.is_some(), spools);
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
            processes,
            deadline_ns: None,
            outcome: None,
            marks: vec![Mark::now("keeper started")],
            guest_steps: Vec::new(),
            stats: BTreeMap::new(),
            next_stats: 0,
            assignment,
        };
        host.perform(effects);
        Ok(host)
    }

    /// Starts the machine; a failure is an outcome like any other.
    fn start(&mut self) {
        if let Err(reason) = self.start_machine() {
            self.input(Input::NotStarted(reason));
        }
    }

    fn start_machine(&mut self) -> Result<(), String> {
        let told = |error: &dyn std::error::Error| chain(error);
        let folders = self.open_folders()?;
        for disk in &self.assignment.scratch {
            hypercore::scratch::create(&disk.path, disk.bytes).map_err(|error| chain(&error))?;
        }
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|e| told(&e))?;
        let network_wire = match &self.assignment.network {
            Some(plan) => {
                let (passt, wire, guest) = Passt::start(plan).map_err(|error| chain(&error))?;
                self.network = Some((passt, guest_network(&guest)));
                self.mark("network helper started");
                Some(wire)
            }
            None => None,
        };
        let driver: Box<dyn Driver> = match self.assignment.driver.as_str() {
            "qemu" => Box::new(Qemu::find()),
            other => return Err(format!("this keeper has no driver {other}")),
        };
        let prepared = driver
            .prepare(&self.assignment.machine)
            .map_err(|error| chain(&error))?;
        let wiring = Wiring {
            channel: theirs,
            network: network_wire,
            console: None,
        };
        self.machine = Some(driver.start(&prepared, wiring).map_err(|error| chain(&error))?);
        self.mark("machine started");
        let mut guest = WireSocket::new(ours).map_err(|e| told(&e))?;
        self.processes
            .open_workload(&mut guest.link, self.assignment.configuration.process.stdin);
        for share in &self.assignment.folders {
            guest.link.open_folder(share.stream);
        }
        self.guest = Some(guest);
        if !folders.is_empty() {
            // Last: nothing else may fail once a thread holds the folders.
            self.shares = Some(Shares::serve(folders).map_err(|e| told(&e))?);
        }
        Ok(())
    }

    fn open_folders(&self) -> Result<Vec<(u16, Folder)>, String> {
        let open = |share: &super::assignment::FolderShare| match Folder::open(&share.source, share.readonly)
        {
            Ok(folder) => Ok((share.stream, folder)),
            Err(error) => Err(chain(&error)),
        };
        self.assignment.folders.iter().map(open).collect()
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
        let Some(outcome) = self.outcome.clone() else {
            return Ok(());
        };
        if self.assignment.lifetime == Lifetime::Independent {
            let status = serde_json::to_vec(&outcome)?;
            fs::write(self.assignment.run_folder.join("outcome.json"), status)?;
        }
        self.marks.push(Mark::now("machine gone"));
        let last = FromKeeper::Finished {
            outcome,
            marks: self.marks.clone(),
            guest_steps: self.guest_steps.clone(),
        };
        let end = now_ns().saturating_add(u64::try_from(FAREWELL.as_nanos()).unwrap_or(u64::MAX));
        let mut told = false;
        while !self.clients.is_empty() && now_ns() < end {
            self.relay();
            if !told && self.processes.are_drained() {
                self.clients
                    .values_mut()
                    .for_each(|client| _ = client.link.send_control(&last));
                told = true;
            }
            self.clients.values_mut().for_each(WireSocket::flush);
            self.clients
                .retain(|_, client| client.is_open() && !(told && client.link.outgoing().is_empty()));
            if !self.clients.is_empty() {
                self.turn(Some(Duration::from_millis(500)))?;
            }
        }
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        self.deadline_ns
            .map(|deadline| Duration::from_nanos(deadline.saturating_sub(now_ns())))
    }

    /// Waits for something to happen and deals with it.
    fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.relay();
        self.guest.iter_mut().for_each(WireSocket::flush);
        self.clients.values_mut().for_each(WireSocket::flush);
        self.wait(timeout)?;

        while let Some(signal) = self.signals.next_signal() {
            if signal != libc::SIGPIPE {
                self.input(Input::StopAsked { grace_ms: 0 });
            }
        }
        self.read_guest(false);
        self.read_answers();
        self.watch_machine();
        self.accept();
        self.read_clients();
        if self.deadline_ns.is_some_and(|deadline| deadline <= now_ns()) {
            self.deadline_ns = None;
            self.input(Input::DeadlinePassed);
        }
        Ok(())
    }

    fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if let Some(guest) = &self.guest {
            let mut interest = guest.interest();
            if self.shares.as_ref().is_some_and(Shares::is_congested) {
                interest.remove(PollFlags::IN);
            }
            if guest.is_open() || !interest.is_empty() {
                fds.push(PollFd::new(guest, interest));
            }
        }
        fds.extend(
            self.machine
                .iter()
                .map(|machine| PollFd::from_borrowed_fd(machine.handle(), PollFlags::IN)),
        );
        fds.extend(
            self.shares
                .iter()
                .map(|shares| PollFd::new(shares, PollFlags::IN)),
        );
        fds.extend(
            self.listener
                .iter()
                .map(|listener| PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)),
        );
        fds.extend(
            self.clients
                .values()
                .map(|client| PollFd::new(client, client.interest())),
        );
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
        configuration.network = self.network.as_ref().map(|(_, network)| network.clone());
        let message = ToGuest::Configure(Box::new(configuration.clone()));
        self.tell_guest(&message);
    }

    fn kill_machine(&mut self) {
        let reason = match self.machine.take().map(|mut machine| machine.stop()) {
            Some(Ok(ended)) => describe(&ended),
            Some(Err(error)) => chain(&error),
            None => return,
        };
        // What the guest has said before its end still counts; there can't come more.
        self.read_guest(true);
        self.input(Input::MachineEnded(reason));
    }

    fn watch_machine(&mut self) {
        let Some(machine) = &mut self.machine else { return };
        let reason = match machine.ended() {
            Ok(Some(ended)) => describe(&ended),
            Ok(None) => return,
            Err(error) => chain(&error),
        };
        self.machine = None;
        self.read_guest(true);
        self.input(Input::MachineEnded(reason));
    }

    /// Reads the guest's channel: one chunk, or all that is there.
    fn read_guest(&mut self, all: bool) {
        let congested = self.shares.as_ref().is_some_and(Shares::is_congested);
        loop {
            let Some(guest) = &mut self.guest else { return };
            let wanted = all || (!congested && guest.interest().contains(PollFlags::IN));
            if !guest.is_open() || !wanted {
                return;
            }
            let more = guest.fill();
            let closed = !guest.is_open();
            self.take_from_guest();
            if closed {
                self.input(Input::ChannelClosed);
                return;
            }
            if !more || !all {
                return;
            }
            // A flood can't hold the keeper here: what isn't read stays in the socket.
            self.relay();
        }
    }

    fn take_from_guest(&mut self) {
        while let Some(guest) = &mut self.guest {
            match guest.link.next_incoming::<ToHost>() {
                Ok(None) => return,
                Ok(Some(incoming)) => self.guest_sent(incoming),
                Err(violation) => {
                    self.violation(&violation);
                    return;
                }
            }
        }
    }

    fn violation(&mut self, violation: &Violation) {
        // Nothing that follows can be understood.
        self.guest = None;
        self.input(Input::Violation(violation.to_string()));
    }

    fn guest_sent(&mut self, incoming: Incoming<ToHost>) {
        match incoming {
            Incoming::Control(message) => self.guest_said(message),
            Incoming::Data(stream, bytes) => self.processes.guest_sent(stream, &bytes),
            Incoming::Eof(stream) => self.processes.guest_eof(stream),
            Incoming::Writable(_) => {}
            Incoming::Message(stream, request) => {
                if let Some(shares) = &mut self.shares {
                    shares.request(stream, request);
                }
            }
        }
    }

    fn guest_said(&mut self, message: ToHost) {
        match message {
            ToHost::Hello {
                version,
                release,
                uptime_us,
            } => {
                self.mark(&format!(
                    "guest up (Linux {}, {} ms by its own clock)",
                    shown(&release),
                    uptime_us / 1000
                ));
                self.input(Input::Hello { version });
            }
            ToHost::Configured { steps } => {
                self.mark("guest configured");
                self.guest_steps = steps.into_iter().take(64).collect();
                self.input(Input::Configured);
            }
            ToHost::Started { process: 0 } => {
                self.mark("workload started");
                self.processes.workload_started();
                self.input(Input::WorkloadStarted);
                self.tell_all(&FromKeeper::Started { process: 0 });
            }
            ToHost::Ended { process: 0, status } => {
                self.mark("workload ended");
                self.processes.ended(0, FromKeeper::Ended { process: 0, status });
                self.input(Input::WorkloadEnded(status));
            }
            ToHost::Started { process } => self.tell_owner(process, FromKeeper::Started { process }),
            ToHost::Ended { process, status } => {
                if !self
                    .processes
                    .ended(process, FromKeeper::Ended { process, status })
                {
                    self.input(Input::Violation(format!(
                        "process {process} ended, which doesn't exist"
                    )));
                }
            }
            ToHost::Refused {
                process: None | Some(0),
                mut refusal,
            } => {
                refusal.message = shown(&refusal.message);
                self.input(Input::Refused(refusal));
            }
            ToHost::Refused {
                process: Some(process),
                mut refusal,
            } => {
                refusal.message = shown(&refusal.message);
                self.processes
                    .ended(process, FromKeeper::Refused { process, refusal });
            }
            ToHost::Stats { request, stats } => self.answer_stats(request, stats),
        }
    }

    fn answer_stats(&mut self, request: u32, guest: wire::message::Stats) {
        let Some((client, request)) = self.stats.remove(&request) else {
            return;
        };
        let seen = self
            .machine
            .as_mut()
            .and_then(|machine| machine.observe().ok())
            .unwrap_or_default();
        let vmm_cpu_us = u64::try_from(seen.cpu.as_micros()).unwrap_or(u64::MAX);
        self.tell(
            client,
            &FromKeeper::Stats {
                request,
                guest,
                vmm_resident: seen.resident_bytes,
                vmm_cpu_us,
            },
        );
    }

    fn read_answers(&mut self) {
        while let Some(answer) = self.shares.as_mut().and_then(Shares::next_answer) {
            match (answer, &mut self.guest) {
                (Answer::Reply(stream, reply), Some(guest)) => _ = guest.link.send_message(stream, &reply),
                (Answer::Violation(reason), _) => self.input(Input::Violation(reason)),
                (Answer::Reply(..) | Answer::Nothing, _) => {}
            }
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let Ok((stream, _)) = listener.accept() else {
            return;
        };
        if let Ok(mut client) = WireSocket::new(stream.into()) {
            client
                .link
                .send_control(&FromKeeper::Standing(self.state.standing()));
            self.clients.insert(self.next_client, client);
            self.next_client = self.next_client.wrapping_add(1).max(PARENT + 1);
        }
    }

    fn read_clients(&mut self) {
        let ids: Vec<u32> = self.clients.keys().copied().collect();
        for id in ids {
            let Some(client) = self.clients.get_mut(&id) else {
                continue;
            };
            client.fill();
            while let Some(client) = self.clients.get_mut(&id) {
                match client.link.next_incoming::<ToKeeper>() {
                    Ok(None) => break,
                    Ok(Some(incoming)) => self.client_sent(id, incoming),
                    Err(_) => _ = self.clients.remove(&id),
                }
            }
            if self.clients.get(&id).is_none_or(|client| !client.is_open()) {
                self.client_gone(id);
            }
        }
    }

    fn client_gone(&mut self, id: u32) {
        self.clients.remove(&id);
        for process in self.processes.disown(id) {
            self.tell_guest(&ToGuest::Signal {
                process,
                signal: libc::SIGKILL,
            });
        }
        if id == PARENT && self.assignment.lifetime == Lifetime::Bound {
            self.input(Input::ParentGone);
        }
    }

    fn client_sent(&mut self, id: u32, incoming: Incoming<ToKeeper>) {
        match incoming {
            Incoming::Control(message) => self.client_said(id, message),
            Incoming::Data(stream, bytes) => self.processes.client_sent(stream, &bytes),
            Incoming::Eof(stream) => self.processes.client_eof(stream),
            Incoming::Writable(_) | Incoming::Message(..) => {}
        }
    }

    fn client_said(&mut self, id: u32, message: ToKeeper) {
        match message {
            ToKeeper::Attach => {
                if let Some(client) = self.clients.get_mut(&id) {
                    self.processes.attach(id, &mut client.link);
                }
            }
            // A workload that hasn't started yet can't be told; what would end it ends the spacecore.
            ToKeeper::Signal { process: 0, signal } if self.is_starting() => {
                if ENDING_SIGNALS.contains(&signal) {
                    self.input(Input::StopAsked { grace_ms: 0 });
                }
            }
            ToKeeper::Signal { process, signal } => self.tell_guest(&ToGuest::Signal { process, signal }),
            ToKeeper::Resize { process, size } => {
                if process == 0 {
                    // Also where the guest hasn't been told anything yet.
                    self.assignment.configuration.process.terminal.replace(size);
                }
                self.tell_guest(&ToGuest::Resize { process, size });
            }
            ToKeeper::Exec { request, spec } => self.exec(id, request, spec),
            ToKeeper::Stats { request } => {
                self.next_stats = self.next_stats.wrapping_add(1);
                self.stats.insert(self.next_stats, (id, request));
                self.tell_guest(&ToGuest::Stats {
                    request: self.next_stats,
                });
            }
            ToKeeper::Stop { grace_ms } => self.input(Input::StopAsked { grace_ms }),
            ToKeeper::Kill => self.input(Input::KillAsked),
        }
    }

    fn exec(&mut self, id: u32, request: u32, spec: wire::message::Process) {
        let (Some(client), Some(guest)) = (self.clients.get_mut(&id), &mut self.guest) else {
            return;
        };
        let Some(process) = self.processes.open(
            id,
            &mut guest.link,
            &mut client.link,
            spec.stdin,
            spec.terminal.is_some(),
        ) else {
            return;
        };
        client.link.send_control(&FromKeeper::Opened { request, process });
        guest.link.send_control(&ToGuest::Exec { process, spec });
    }

    fn is_starting(&self) -> bool {
        matches!(self.state.standing(), Standing::Booting | Standing::Configuring)
    }

    fn relay(&mut self) {
        self.processes.pump(
            self.guest.as_mut().map(|guest| &mut guest.link),
            &mut self.clients,
        );
    }

    fn tell_guest(&mut self, message: &ToGuest) {
        // Before the guest has spoken it can't be told anything; what it must know comes with its configuration.
        let early = self.state.standing() == Standing::Booting;
        if let Some(guest) = self.guest.as_mut().filter(|_| !early) {
            guest.link.send_control(message);
        }
    }

    fn tell_owner(&mut self, process: u16, message: FromKeeper) {
        if let Some(owner) = self.processes.owner(process) {
            self.tell(owner, &message);
        }
    }

    fn tell(&mut self, client: u32, message: &FromKeeper) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.link.send_control(message);
        }
    }

    fn tell_all(&mut self, message: &FromKeeper) {
        self.clients
            .values_mut()
            .for_each(|client| _ = client.link.send_control(message));
    }

    fn mark(&mut self, name: &str) {
        self.marks.push(Mark::now(name));
    }
}

/// The network as the guest is told of it.
fn guest_network(network: &GuestNetwork) -> Network {
    let v4 = network
        .ipv4
        .map(|(address, prefix, gateway)| (format!("{address}/{prefix}"), gateway.to_string()));
    let v6 = network
        .ipv6
        .map(|(address, prefix, gateway)| (format!("{address}/{prefix}"), gateway.to_string()));
    let (addresses, gateways) = v4.into_iter().chain(v6).unzip();
    Network {
        addresses,
        gateways,
        dns: network.dns.iter().map(ToString::to_string).collect(),
        search: Vec::new(),
        mtu: u32::from(network.mtu),
    }
}

/// Text of a guest's, fit to be shown: bounded, without control characters that could move a terminal's cursor.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(1024).collect()
}

fn describe(ended: &hypercore::driver::Ended) -> String {
    let how = match (ended.code, ended.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "no status".to_owned(),
    };
    match ended.stderr.trim() {
        "" => how,
        words => format!("{how}: {}", shown(words)),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
