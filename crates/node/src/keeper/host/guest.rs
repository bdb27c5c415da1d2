//! What the guest says. All of it is a claim of a hostile machine: each thing can be said once, where it makes sense, and
//! nothing that it says makes this process hold more than a bounded amount.

use hypercore::driver::Body;
use rustix::event::PollFlags;
use spacecore::wire::MAX_PAGE;
use spacecore::wire::link::{Incoming, Violation};
use spacecore::wire::message::{Fetched, Refusal, Stats, Step, ToHost};

use super::network::Joined;
use super::{Host, shown};
use crate::keeper::report::{FromKeeper, Standing};
use crate::keeper::shares::{Answer, Shares};
use crate::keeper::state::Input;

/// Steps of a guest's configuration that are kept.
const MAX_STEPS: usize = 64;

impl Host {
    /// Reads the guest's channel: one chunk, or, where the machine has ended, all that is left.
    pub(super) fn read_guest(&mut self, all: bool) {
        loop {
            // What was held back while the folders were busy comes first.
            self.take_from_guest();
            let is_congested = self.is_congested();
            let Some(guest) = &mut self.guest else { return };
            let wanted = all || (!is_congested && guest.interest().contains(PollFlags::IN));
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
            self.relay();
        }
    }

    /// Whether so much waits for the folders, or of their replies for the guest, that nothing more is taken from it.
    pub(super) fn is_congested(&self) -> bool {
        let machine_runs = self.machine.is_some();
        let replies_wait = self.guest.as_ref().is_some_and(|guest| !guest.interest().contains(PollFlags::IN));
        machine_runs && (replies_wait || self.shares.as_ref().is_some_and(Shares::is_congested))
    }

    pub(super) fn take_from_guest(&mut self) {
        while !self.is_congested()
            && let Some(guest) = &mut self.guest
        {
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
        self.input(Input::Violation(shown(&violation.to_string())));
    }

    fn guest_sent(&mut self, incoming: Incoming<ToHost>) {
        match incoming {
            Incoming::Control(message) => self.guest_said(message),
            Incoming::Data(stream, bytes) => self.processes.guest_sent(stream, &bytes),
            Incoming::Eof(stream) => self.processes.guest_eof(stream),
            Incoming::Writable(_) => {}
            Incoming::Message(stream, request) => {
                // A machine that has ended needs no answers.
                if let Some(shares) = self.shares.as_mut().filter(|_| self.machine.is_some()) {
                    shares.request(stream, request);
                }
            }
        }
    }

    fn guest_said(&mut self, message: ToHost) {
        let before = self.state.standing();
        match message {
            ToHost::Hello { version, release, uptime_us } => {
                if before == Standing::Booting {
                    let clock = uptime_us / 1000;
                    let what = match &self.assignment.machine.body {
                        Body::Virtual(_) => format!("Linux {}, {clock} ms by its own clock", shown(&release)),
                        Body::Container(_) => format!("on Linux {}", shown(&release)),
                        Body::Wasm(_) => shown(&release),
                    };
                    self.mark(&format!("guest up ({what})"));
                }
                self.input(Input::Hello { version });
            }
            ToHost::Configured { steps } => {
                self.input(Input::Configured);
                if self.state.standing() == Standing::Configuring {
                    self.mark("guest configured");
                    let step = |step: Step| Step { name: shown(&step.name), us: step.us };
                    self.guest_steps = steps.into_iter().take(MAX_STEPS).map(step).collect();
                }
            }
            ToHost::Started { process: 0 } => {
                self.input(Input::WorkloadStarted);
                if before != Standing::Running && self.state.standing() == Standing::Running {
                    self.mark("workload started");
                    self.processes.started(0);
                    self.tell_all(&FromKeeper::Started { process: 0 });
                }
            }
            ToHost::Ended { process: 0, status } => {
                if self.processes.ended(0, FromKeeper::Ended { process: 0, status }) {
                    self.mark("workload ended");
                }
                self.input(Input::WorkloadEnded(status));
            }
            ToHost::Started { process } => {
                if self.processes.started(process) {
                    self.tell_owner(process, FromKeeper::Started { process });
                } else {
                    self.unknown(process, "started");
                }
            }
            ToHost::Ended { process, status } => {
                if !self.processes.ended(process, FromKeeper::Ended { process, status }) {
                    self.unknown(process, "ended");
                }
            }
            ToHost::Refused { process: None | Some(0), refusal } => self.input(Input::Refused(fit(refusal))),
            ToHost::Refused { process: Some(process), refusal } => {
                let refusal = fit(refusal);
                if !self.processes.ended(process, FromKeeper::Refused { process, refusal }) {
                    self.unknown(process, "was refused");
                }
            }
            ToHost::Stats { request, stats } => self.answer_stats(request, stats),
            ToHost::Checked { request, failure } => {
                if let Some(asker) = self.checks.answered(request) {
                    self.tell_checked(asker, failure.map(|failure| shown(&failure)));
                }
            }
            ToHost::Fetched { request, fetched } => self.fetched(request, fetched),
        }
    }

    fn fetched(&mut self, request: u32, fetched: Fetched) {
        let Some(asker) = self.checks.answered(request) else { return };
        match fetched {
            Fetched::Page(page) if asker.page && page.len() <= MAX_PAGE => {
                let (client, request) = (asker.client, asker.request);
                self.tell(client, &FromKeeper::Fetched { request, fetched: Fetched::Page(page) });
            }
            Fetched::Page(_) => self.tell_checked(asker, Some("the guest answers something else".to_owned())),
            Fetched::Failure(failure) => self.tell_checked(asker, Some(shown(&failure))),
        }
    }

    fn unknown(&mut self, process: u16, what: &str) {
        self.input(Input::Violation(format!(
            "process {process} {what}, which doesn't exist or did so before"
        )));
    }

    fn answer_stats(&mut self, request: u32, guest: Stats) {
        let Some((client, request)) = self.stats.remove(&request) else { return };
        let seen = self.machine.as_mut().and_then(|machine| machine.observe().ok()).unwrap_or_default();
        let vmm_cpu_us = u64::try_from(seen.cpu.as_micros()).unwrap_or(u64::MAX);
        let traffic = self.network.as_ref().and_then(Joined::traffic);
        let vmm_resident = seen.resident_bytes;
        let message = FromKeeper::Stats { request, guest, vmm_resident, vmm_cpu_us, traffic, fetches: true };
        self.tell(client, &message);
    }

    pub(super) fn read_answers(&mut self) {
        while let Some(answer) = self.shares.as_mut().and_then(Shares::next_answer) {
            match (answer, &mut self.guest) {
                (Answer::Reply(stream, reply), Some(guest)) => _ = guest.link.send_message(stream, &reply),
                (Answer::Violation(reason), _) => self.input(Input::Violation(reason)),
                (Answer::Reply(..) | Answer::Nothing, _) => {}
            }
        }
    }
}

/// A refusal whose words are fit to be shown.
fn fit(refusal: Refusal) -> Refusal {
    Refusal { message: shown(&refusal.message), ..refusal }
}
