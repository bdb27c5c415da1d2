//! What clients ask, and what they are told.

use spacecore::wire::link::Incoming;
use spacecore::wire::message::{Fetched, Process, ToGuest};

use super::{Host, PARENT};
use crate::clock::now_ns;
use crate::keeper::assignment::Lifetime;
use crate::keeper::checks::Asker;
use crate::keeper::report::{FromKeeper, Standing, ToKeeper};
use crate::keeper::state::Input;
use crate::keeper::wire_socket::WireSocket;

/// Signals that end a process which doesn't expect them.
const ENDING_SIGNALS: [i32; 5] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGKILL];

impl Host {
    pub(super) fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let Ok((stream, _)) = listener.accept() else {
            return;
        };
        if let Ok(mut client) = WireSocket::new(stream.into()) {
            client.link.send_control(&FromKeeper::Standing(self.state.standing()));
            if let Some(network) = &self.network {
                client.link.send_control(&FromKeeper::Published(network.published().to_vec()));
            }
            self.clients.insert(self.next_client, client);
            self.next_client = self.next_client.wrapping_add(1).max(PARENT + 1);
        }
    }

    pub(super) fn read_clients(&mut self) {
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

    pub(super) fn client_gone(&mut self, id: u32) {
        self.clients.remove(&id);
        for process in self.processes.disown(id) {
            self.tell_guest(&ToGuest::Signal { process, signal: libc::SIGKILL });
        }
        if id == PARENT && self.assignment.lifetime == Lifetime::Bound {
            self.input(Input::ParentGone);
        }
    }

    pub(super) fn client_sent(&mut self, id: u32, incoming: Incoming<ToKeeper>) {
        match incoming {
            Incoming::Control(message) => self.client_said(id, message),
            Incoming::Data(stream, bytes) => self.processes.client_sent(stream, &bytes),
            Incoming::Eof(stream) => self.processes.client_eof(stream),
            Incoming::Writable(_) | Incoming::Message(..) => {}
        }
    }

    pub(super) fn client_said(&mut self, id: u32, message: ToKeeper) {
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
                self.tell_guest(&ToGuest::Stats { request: self.next_stats });
            }
            ToKeeper::Check { request, probe, timeout_ms } => {
                let asker = Asker { client: id, request, page: false };
                if self.state.standing() == Standing::Running {
                    let request = self.checks.ask(asker, timeout_ms, now_ns());
                    self.tell_guest(&ToGuest::Check { request, probe, timeout_ms });
                } else {
                    self.tell_checked(asker, Some("the workload isn't running".to_owned()));
                }
            }
            ToKeeper::Fetch { request, port, path, timeout_ms } => {
                let asker = Asker { client: id, request, page: true };
                if self.state.standing() == Standing::Running {
                    let request = self.checks.ask(asker, timeout_ms, now_ns());
                    self.tell_guest(&ToGuest::Fetch { request, port, path, timeout_ms });
                } else {
                    self.tell_checked(asker, Some("the workload isn't running".to_owned()));
                }
            }
            ToKeeper::Pause => {
                if let Some(machine) = &mut self.machine {
                    // One that can't stand still goes on; whoever asked sees that by its figures.
                    self.paused = machine.pause().is_ok();
                }
            }
            ToKeeper::Stop { grace_ms } => {
                if let Some(machine) = self.machine.as_mut().filter(|_| std::mem::take(&mut self.paused)) {
                    // So that it can end in order; one that can't go on is killed after its grace.
                    let _ = machine.resume();
                }
                self.input(Input::StopAsked { grace_ms });
            }
            ToKeeper::Kill => self.input(Input::KillAsked),
        }
    }

    pub(super) fn exec(&mut self, id: u32, request: u32, spec: Process) {
        let (Some(client), Some(guest)) = (self.clients.get_mut(&id), &mut self.guest) else {
            return;
        };
        let Some(process) =
            self.processes.open(id, &mut guest.link, &mut client.link, spec.stdin, spec.terminal.is_some())
        else {
            return;
        };
        client.link.send_control(&FromKeeper::Opened { request, process });
        guest.link.send_control(&ToGuest::Exec { process, spec });
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.state.standing(), Standing::Booting | Standing::Configuring)
    }

    pub(super) fn relay(&mut self) {
        self.processes.pump(self.guest.as_mut().map(|guest| &mut guest.link), &mut self.clients);
    }

    pub(super) fn tell_guest(&mut self, message: &ToGuest) {
        // Before the guest has spoken it can't be told anything; what it must know comes with its configuration.
        let early = self.state.standing() == Standing::Booting;
        if let Some(guest) = self.guest.as_mut().filter(|_| !early) {
            guest.link.send_control(message);
        }
    }

    pub(super) fn tell_owner(&mut self, process: u16, message: FromKeeper) {
        if let Some(owner) = self.processes.owner(process) {
            self.tell(owner, &message);
        }
    }

    pub(super) fn tell(&mut self, client: u32, message: &FromKeeper) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.link.send_control(message);
        }
    }

    /// Answers what was asked of the workload; one who asked for a page and gets none learns of a failure.
    pub(super) fn tell_checked(&mut self, asker: Asker, failure: Option<String>) {
        let Asker { client, request, page } = asker;
        if page {
            let failure = failure.unwrap_or_else(|| "the guest answers something else".to_owned());
            self.tell(client, &FromKeeper::Fetched { request, fetched: Fetched::Failure(failure) });
        } else {
            self.tell(client, &FromKeeper::Checked { request, failure });
        }
    }

    pub(super) fn tell_published(&mut self) {
        let Some(network) = &self.network else { return };
        let message = FromKeeper::Published(network.published().to_vec());
        self.tell_all(&message);
    }

    pub(super) fn tell_all(&mut self, message: &FromKeeper) {
        self.clients.values_mut().for_each(|client| _ = client.link.send_control(message));
    }
}
