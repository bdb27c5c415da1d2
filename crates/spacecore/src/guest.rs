//! The poll loop of PID 1.
//!
//! ```text
//!  Waiting --Configure--> Running --workload ended-----------> Over --Shutdown, or nothing for 5 s--> power off
//!                            |                                   ^
//!                            +--Shutdown--> Stopping --grace--> Killed (gives up after 3 s)
//! ```
//!
//! The keeper's hanging up ends everything at once, except in a microVM while nothing is configured: a clone of a template finds itself
//! with another keeper, which may still be connecting.

mod control;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::WaitOptions;
use spacecore::wire::FIRST_FOLDER;
use spacecore::wire::link::Link;
use spacecore::wire::message::{Fetched, Network, Process, Refusal, RefusalKind, ToGuest, ToHost};

use crate::boot::{make_dev, open_channel, say_hello};
use crate::channel::{Channel, HungUp};
use crate::checks::Checks;
use crate::container::{self, Children};
use crate::folder::Folder;
use crate::init::Init;
use crate::modules::{Known, Modules};
use crate::process::Report;
use crate::running::{End, Running, close_streams};
use crate::shutdown::{power_off, sync_and_power_off};
use crate::steps::Steps;
use spacecore::refusal::refuse;
use spacecore::rtnetlink::set_up_loopback;

const WORKLOAD: u16 = 0;
const WAIT_FOR_SHUTDOWN: Duration = Duration::from_secs(5);
const WAIT_FOR_KILLED: Duration = Duration::from_secs(3);
const WAIT_FOR_KEEPER: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running,
    Stopping { kill_at: Instant },
    Killed { give_up_at: Instant },
    Over { off_at: Instant },
}

/// What something happened to.
#[derive(Debug, Clone, Copy)]
enum Source {
    Channel,
    Folder(u16),
    Process(u16, End),
    Check(usize),
    Children,
    Init,
}

/// What PID 1 is PID 1 of.
#[derive(Debug)]
enum Kind {
    /// With the first process of the workload's pid namespace, from its start until everything in it has ended.
    Machine(Modules, Option<Init>),
    Container(Children),
}

struct Guest {
    kind: Kind,
    channel: Channel,
    steps: Option<Steps>,
    hostname: String,
    /// The workload as it was told, and its network: what checks are made with.
    workload: Option<(Process, Option<Network>)>,
    checks: Checks,
    stop_signal: i32,
    folders: Vec<Folder>,
    mounted: Vec<u16>,
    processes: BTreeMap<u16, Running>,
    phase: Phase,
    has_disk: bool,
    /// Whether the keeper broke the protocol, so that nothing more that it says has a meaning.
    is_deaf: bool,
    buffer: Vec<u8>,
    fuse_buffer: Vec<u8>,
}

/// Runs the guest until the machine is powered off; returns only what can't be said over the channel any more.
pub(crate) fn run() -> Refusal {
    let booted = match crate::mode::is_container() {
        true => enter(),
        false => boot(),
    };
    match booted {
        Err(refusal) => refusal,
        Ok(mut guest) => loop {
            if let Err(refusal) = guest.turn() {
                return refusal;
            }
        },
    }
}

fn boot() -> Result<Guest, Refusal> {
    let mut steps = Steps::new();
    let mut modules = Modules::read();
    let mut channel = open_channel(&mut modules, &mut steps)?;
    say_hello(&mut channel);
    // What the keeper's answer needs is loaded while the keeper answers.
    let _ = channel.flush();
    modules.load_all(Known::default())?;
    steps.end("load modules of the root");
    make_dev()?;
    set_up_loopback()?;
    steps.end("make /dev and loopback");
    Ok(Guest::new(Kind::Machine(modules, None), channel, steps))
}

/// Takes over a container that its runtime has made.
fn enter() -> Result<Guest, Refusal> {
    let mut steps = Steps::new();
    let mut channel = container::open_channel()?;
    say_hello(&mut channel);
    let _ = channel.flush();
    let children = Children::listen()?;
    set_up_loopback()?;
    steps.end("channel and loopback");
    Ok(Guest::new(Kind::Container(children), channel, steps))
}

impl Guest {
    fn new(kind: Kind, channel: Channel, steps: Steps) -> Self {
        Self {
            kind,
            channel,
            steps: Some(steps),
            hostname: String::new(),
            workload: None,
            checks: Checks::default(),
            stop_signal: libc::SIGTERM,
            folders: Vec::new(),
            mounted: Vec::new(),
            processes: BTreeMap::new(),
            phase: Phase::Waiting,
            has_disk: false,
            is_deaf: false,
            buffer: vec![0; 64 * 1024],
            fuse_buffer: Vec::new(),
        }
    }

    /// Waits for something to happen, and deals with it.
    fn turn(&mut self) -> Result<(), Refusal> {
        let flushed = self.channel.flush();
        self.survive(flushed);
        for source in self.wait()? {
            match source {
                Source::Channel => self.receive(),
                Source::Folder(stream) => self.pump_folder(stream),
                Source::Process(number, end) => self.process_event(number, end),
                Source::Check(number) => {
                    self.checks.turn(number);
                    self.reap();
                }
                Source::Children | Source::Init => self.reap(),
            }
        }
        self.check_deadlines();
        self.report_ended();
        for finished in self.checks.take_finished() {
            let is_page = finished.page_request();
            let is_sent = self.channel.link.send_control(&finished.answer());
            if let Some(request) = is_page.filter(|_| !is_sent) {
                let fetched = Fetched::Failure("the page doesn't fit into a message".to_owned());
                self.channel.link.send_control(&ToHost::Fetched { request, fetched });
            }
        }
        Ok(())
    }

    /// Deals with a channel that may have hung up.
    fn survive(&mut self, result: Result<(), HungUp>) {
        if result.is_ok() {
            return;
        }
        if self.phase != Phase::Waiting || matches!(self.kind, Kind::Container(_)) {
            self.end();
        }
        let deadline = Instant::now() + WAIT_FOR_KEEPER;
        while !self.channel.is_connected() {
            if Instant::now() > deadline {
                power_off();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.channel.link = Link::new();
        say_hello(&mut self.channel);
    }

    /// Ends the machine, with what is on disks written there.
    fn end(&mut self) -> ! {
        // Those of a container end with this process.
        if let Kind::Machine(_, Some(init)) = &self.kind {
            init.kill();
        }
        match self.has_disk {
            true => {
                // Files served by the keeper can't be written any more: what waits for them must not hold up the disks.
                self.folders.clear();
                sync_and_power_off()
            }
            false => power_off(),
        }
    }

    fn wait(&mut self) -> Result<Vec<Source>, Refusal> {
        let mut sources = vec![Source::Channel];
        let mut events = PollFlags::IN;
        if !self.channel.link.outgoing().is_empty() {
            events |= PollFlags::OUT;
        }
        let mut fds = vec![PollFd::from_borrowed_fd(self.channel.as_fd(), events)];
        match &self.kind {
            Kind::Container(children) => {
                sources.push(Source::Children);
                fds.push(PollFd::new(children.signals(), PollFlags::IN));
            }
            Kind::Machine(_, Some(init)) => {
                sources.push(Source::Init);
                fds.push(PollFd::new(init, PollFlags::IN));
            }
            Kind::Machine(_, None) => {}
        }
        for (number, process) in &self.processes {
            process.interests(&self.channel, |end, fd, events| {
                sources.push(Source::Process(*number, end));
                fds.push(PollFd::from_borrowed_fd(fd, events));
            });
        }
        self.checks.interests(|number, fd, events| {
            sources.push(Source::Check(number));
            fds.push(PollFd::from_borrowed_fd(fd, events));
        });
        if self.channel.has_room() {
            for folder in self.folders.iter().filter(|folder| self.mounted.contains(&folder.stream)) {
                sources.push(Source::Folder(folder.stream));
                fds.push(PollFd::from_borrowed_fd(folder.as_fd(), PollFlags::IN));
            }
        }
        let timeout = self.deadline().map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(refuse(RefusalKind::Other, format!("waiting for events: {error}"))),
        }
        let happened = fds.iter().zip(sources).filter(|(fd, _)| !fd.revents().is_empty());
        Ok(happened.map(|(_, source)| source).collect())
    }

    fn deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Waiting | Phase::Running => None,
            // As long as something waits to be sent, only the keeper's taking it or hanging up counts.
            Phase::Over { off_at } => self.channel.link.outgoing().is_empty().then_some(off_at),
            Phase::Stopping { kill_at: at } | Phase::Killed { give_up_at: at } => Some(at),
        };
        let lingering = self.processes.values().filter_map(|process| process.deadline(&self.channel));
        lingering.chain(phase).chain(self.checks.deadline()).min()
    }

    fn check_deadlines(&mut self) {
        let now = Instant::now();
        for process in self.processes.values_mut() {
            if process.deadline(&self.channel).is_some_and(|deadline| now >= deadline) {
                process.send_output(0, &mut self.channel, &mut self.buffer);
                process.send_output(1, &mut self.channel, &mut self.buffer);
            }
        }
        match self.phase {
            Phase::Stopping { kill_at } if now >= kill_at => {
                self.signal(WORKLOAD, libc::SIGKILL);
                self.phase = Phase::Killed { give_up_at: now + WAIT_FOR_KILLED };
            }
            Phase::Killed { give_up_at } if now >= give_up_at => self.end(),
            Phase::Over { off_at } if now >= off_at && self.channel.link.outgoing().is_empty() => self.end(),
            _ => {}
        }
    }

    fn receive(&mut self) {
        let received = self.channel.receive();
        while !self.is_deaf {
            match self.channel.link.next_incoming::<ToGuest>() {
                Ok(Some(incoming)) => self.incoming(incoming),
                Ok(None) => break,
                Err(violation) => {
                    self.is_deaf = true;
                    self.give_up(refuse(RefusalKind::Protocol, violation.to_string()));
                }
            }
        }
        if self.is_deaf {
            self.channel.link.drop_received();
        }
        self.survive(received);
    }

    /// Refuses the whole: says so, and waits to be switched off.
    fn give_up(&mut self, refusal: Refusal) {
        self.channel.link.send_control(&ToHost::Refused { process: None, refusal });
        self.signal(WORKLOAD, libc::SIGKILL);
        self.over(WAIT_FOR_SHUTDOWN);
    }

    fn over(&mut self, wait: Duration) {
        self.phase = Phase::Over { off_at: Instant::now() + wait };
    }

    fn pump_folder(&mut self, stream: u16) {
        if let Some(at) = self.folders.iter().position(|folder| folder.stream == stream)
            && !self.folders[at].pump(&mut self.channel, &mut self.fuse_buffer)
        {
            self.folders.remove(at);
        }
    }

    fn process_event(&mut self, number: u16, end: End) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        match end {
            End::Exit => self.reap(),
            End::Report => {
                let reports = process.read_report();
                if process.is_refused() && number != WORKLOAD {
                    process.signal(libc::SIGKILL);
                    let _ = rustix::process::waitpid(Some(process.pid()), WaitOptions::empty());
                    self.processes.remove(&number);
                }
                for report in reports {
                    self.report(number, report);
                }
            }
            End::Input => process.write_input(&mut self.channel),
            End::Output(index) => process.send_output(index, &mut self.channel, &mut self.buffer),
        }
    }

    fn report(&mut self, number: u16, report: Report) {
        match report {
            Report::Mounted(stream) if stream >= FIRST_FOLDER => self.mounted.push(stream),
            Report::Mounted(_) => {}
            Report::Message(message) => {
                if matches!(message, ToHost::Refused { .. }) {
                    close_streams(&mut self.channel, number);
                }
                self.channel.link.send_control(&message);
            }
        }
    }

    /// Reaps every child that has exited.
    fn reap(&mut self) {
        if let Kind::Container(children) = &self.kind {
            children.take();
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Kind::Machine(_, init) = &mut self.kind {
                init.take_if(|init| init.pid() == pid);
            }
            if let Some((number, process)) =
                self.processes.iter_mut().find(|(_, process)| process.pid() == pid)
            {
                process.exited(status.exit_status(), status.terminating_signal());
                if *number == WORKLOAD {
                    self.kill_the_rest();
                }
            }
            self.checks.exited(pid, status.exit_status(), status.terminating_signal());
        }
    }

    /// Kills what the workload has left behind.
    fn kill_the_rest(&self) {
        match &self.kind {
            Kind::Container(_) => container::kill_the_rest(),
            Kind::Machine(_, init) => init.iter().for_each(Init::kill),
        }
    }

    /// Whether something of the workload's can still run, and write to its disks.
    fn has_the_rest(&self) -> bool {
        matches!(self.kind, Kind::Machine(_, Some(_)))
    }

    /// Reports the processes that have ended and whose output is all sent. The workload's end is reported last.
    fn report_ended(&mut self) {
        let ended = self
            .processes
            .iter()
            .rev()
            .filter_map(|(number, process)| Some((*number, process.ended()?)))
            .collect::<Vec<_>>();
        for (number, status) in ended {
            if number == WORKLOAD && (self.processes.len() > 1 || self.has_the_rest()) {
                continue;
            }
            let refused = self.processes.remove(&number).is_some_and(|process| process.is_refused());
            if !refused {
                self.channel.link.send_control(&ToHost::Ended { process: number, status });
            }
            if number == WORKLOAD {
                match self.phase {
                    Phase::Stopping { .. } | Phase::Killed { .. } => self.over(Duration::ZERO),
                    Phase::Waiting | Phase::Running => self.over(WAIT_FOR_SHUTDOWN),
                    Phase::Over { .. } => {}
                }
            }
        }
    }
}
