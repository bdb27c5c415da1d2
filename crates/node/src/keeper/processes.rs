//! The processes of a spacecore as its keeper sees them: whose they are, and their streams on the way.

use std::collections::BTreeMap;

use spacecore::wire::link::Link;
use spacecore::wire::{MAX_PROCESS, stderr_of, stdin_of, stdout_of};

use super::relay::Relay;
use super::report::FromKeeper;
use super::wire_socket::WireSocket;
use crate::clock::unix_time_ns;
use crate::log::{Stream, Writer};

/// All processes that have begun and whose end hasn't been told yet.
#[derive(Debug)]
pub struct Processes {
    live: BTreeMap<u16, Process>,
    next: u16,
    /// Whether the workload's output waits for somebody who reads it.
    waits: bool,
    /// Where the workload's output and errors are kept.
    log: Option<Writer>,
}

#[derive(Debug, Default)]
struct Process {
    owner: Option<u32>,
    input: Relay,
    output: Relay,
    errors: Relay,
    terminal: bool,
    stdin: bool,
    /// Whether the guest has said that it runs.
    started: bool,
    /// Whether the guest knows the streams already: the workload's only once it has been configured.
    known: bool,
    /// The message that tells its end; held back until its output is through.
    end: Option<FromKeeper>,
}

impl Processes {
    /// The workload alone, not owned by anybody yet. Its output `waits` for somebody who reads it, or is let go.
    pub fn new(terminal: bool, waits: bool, log: Option<Writer>) -> Self {
        let live = BTreeMap::from([(0, Process { terminal, ..Process::default() })]);
        Self { live, next: 1, waits, log }
    }

    /// Opens the workload's streams on the guest's link.
    pub fn open_workload(&mut self, guest: &mut Link, stdin: bool) {
        if let Some(workload) = self.live.get_mut(&0) {
            workload.stdin = stdin;
            open_on_guest(0, workload, guest);
        }
    }

    /// Gives the workload's streams to a client, unless it has them already.
    pub fn attach(&mut self, client: u32, link: &mut Link) {
        if let Some(workload) = self.live.get_mut(&0).filter(|workload| workload.owner != Some(client)) {
            workload.owner = Some(client);
            open_on_client(0, workload, link);
        }
    }

    /// Opens the streams of one more process; `None` where no number is free.
    pub fn open(
        &mut self,
        client: u32,
        guest: &mut Link,
        link: &mut Link,
        stdin: bool,
        terminal: bool,
    ) -> Option<u16> {
        let number =
            (self.next..=MAX_PROCESS).chain(1..self.next).find(|number| !self.live.contains_key(number))?;
        self.next = if number == MAX_PROCESS { 1 } else { number + 1 };
        let process = Process { owner: Some(client), terminal, stdin, known: true, ..Process::default() };
        open_on_guest(number, &process, guest);
        open_on_client(number, &process, link);
        self.live.insert(number, process);
        Some(number)
    }

    /// Who owns a process.
    pub fn owner(&self, process: u16) -> Option<u32> {
        self.live.get(&process).and_then(|process| process.owner)
    }

    /// Notes that a process runs, so that it can take input; `false` for one that doesn't exist, or that ran already.
    pub fn started(&mut self, process: u16) -> bool {
        match self.live.get_mut(&process) {
            Some(process) if !process.started => {
                process.known = true;
                process.started = true;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Takes a client's processes from it; returns those that nobody needs any more.
    pub fn disown(&mut self, client: u32) -> Vec<u16> {
        let mut orphans = Vec::new();
        for (number, process) in &mut self.live {
            if process.owner == Some(client) {
                process.owner = None;
                process.input.end();
                orphans.push(*number);
            }
        }
        orphans.retain(|number| *number != 0);
        orphans
    }

    /// Takes bytes that the guest sent.
    pub fn guest_sent(&mut self, stream: u16, bytes: &[u8]) {
        if let (Some(log), Some(kept)) = (&mut self.log, kept_as(stream)) {
            log.take(kept, bytes, unix_time_ns());
        }
        if let Some(relay) = self.output_relay(stream) {
            relay.push(bytes);
        }
    }

    /// Notes that the guest is done with a stream.
    pub fn guest_eof(&mut self, stream: u16) {
        if let (Some(log), Some(kept)) = (&mut self.log, kept_as(stream)) {
            log.end(kept, unix_time_ns());
        }
        if let Some(relay) = self.output_relay(stream) {
            relay.end();
        }
    }

    /// Writes what was taken to the log.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush(unix_time_ns());
        }
    }

    /// Writes all to the log: the guest is gone, whether or not it has ended its streams.
    pub fn end_log(&mut self) {
        if let Some(log) = &mut self.log {
            [Stream::Stdout, Stream::Stderr].into_iter().for_each(|stream| log.end(stream, unix_time_ns()));
        }
        self.flush_log();
    }

    /// Takes bytes that a client sent.
    pub fn client_sent(&mut self, stream: u16, bytes: &[u8]) {
        if let Some(process) = self.live.get_mut(&(stream / 3)) {
            process.input.push(bytes);
        }
    }

    /// Notes that a client is done with a stream.
    pub fn client_eof(&mut self, stream: u16) {
        if let Some(process) = self.live.get_mut(&(stream / 3)) {
            process.input.end();
        }
    }

    /// Notes a process' end, which is told once its output is through; `false` for one that doesn't exist.
    pub fn ended(&mut self, process: u16, message: FromKeeper) -> bool {
        match self.live.get_mut(&process) {
            Some(process) if process.end.is_none() => {
                process.end = Some(message);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Moves what can be moved, and tells the ends that can be told.
    pub fn pump(&mut self, mut guest: Option<&mut Link>, clients: &mut BTreeMap<u32, WireSocket>) {
        let mut nowhere = Link::new();
        let waits = self.waits;
        self.live.retain(|number, process| {
            let guest: &mut Link = guest.as_deref_mut().unwrap_or(&mut nowhere);
            let Some(client) = process.owner.and_then(|owner| clients.get_mut(&owner)) else {
                // Nobody reads. The workload of a keeper that may outlive its clients doesn't wait for one.
                if *number != 0 || !waits {
                    process.output.discard(stdout_of(*number), guest);
                    process.errors.discard(stderr_of(*number), guest);
                }
                return process.end.is_none() || *number == 0;
            };
            process.output.pump(stdout_of(*number), guest, &mut client.link);
            process.errors.pump(stderr_of(*number), guest, &mut client.link);
            if process.known {
                process.input.pump(stdin_of(*number), &mut client.link, guest);
            }
            let through = process.output.is_empty() && process.errors.is_empty();
            if through && let Some(end) = &process.end {
                client.link.send_control(end);
                return false;
            }
            true
        });
    }

    /// Whether nothing waits for a client any more.
    pub fn are_drained(&self) -> bool {
        self.live.values().all(|process| {
            process.owner.is_none() || (process.output.is_empty() && process.errors.is_empty())
        })
    }

    fn output_relay(&mut self, stream: u16) -> Option<&mut Relay> {
        let process = self.live.get_mut(&(stream / 3))?;
        match stream % 3 {
            1 => Some(&mut process.output),
            2 => Some(&mut process.errors),
            _ => None,
        }
    }
}

/// As what the output of this stream is kept: the workload's alone is.
fn kept_as(stream: u16) -> Option<Stream> {
    if stream == stdout_of(0) {
        Some(Stream::Stdout)
    } else {
        (stream == stderr_of(0)).then_some(Stream::Stderr)
    }
}

fn open_on_guest(number: u16, process: &Process, guest: &mut Link) {
    guest.open_receiver(stdout_of(number));
    if !process.terminal {
        guest.open_receiver(stderr_of(number));
    }
    if process.stdin {
        guest.open_sender(stdin_of(number));
    }
}

fn open_on_client(number: u16, process: &Process, client: &mut Link) {
    client.open_sender(stdout_of(number));
    if !process.terminal {
        client.open_sender(stderr_of(number));
    }
    if process.stdin {
        client.open_receiver(stdin_of(number));
    }
}
