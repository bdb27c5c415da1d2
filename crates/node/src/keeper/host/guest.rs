//! What the guest says. All of it is a claim of a hostile machine.

use rustix::event::PollFlags;
use spacecore::wire::link::{Incoming, Violation};
use spacecore::wire::message::{Stats, ToHost};

use super::{Host, shown};
use crate::keeper::report::FromKeeper;
use crate::keeper::shares::{Answer, Shares};
use crate::keeper::state::Input;

impl Host {
    /// Reads the guest's channel: one chunk, or all that is there.
    pub(super) fn read_guest(&mut self, all: bool) {
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

    pub(super) fn take_from_guest(&mut self) {
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

    pub(super) fn violation(&mut self, violation: &Violation) {
        // Nothing that follows can be understood.
        self.guest = None;
        self.input(Input::Violation(violation.to_string()));
    }

    pub(super) fn guest_sent(&mut self, incoming: Incoming<ToHost>) {
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

    pub(super) fn guest_said(&mut self, message: ToHost) {
        match message {
            ToHost::Hello { version, release, uptime_us } => {
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
                if !self.processes.ended(process, FromKeeper::Ended { process, status }) {
                    self.input(Input::Violation(format!("process {process} ended, which doesn't exist")));
                }
            }
            ToHost::Refused { process: None | Some(0), mut refusal } => {
                refusal.message = shown(&refusal.message);
                self.input(Input::Refused(refusal));
            }
            ToHost::Refused { process: Some(process), mut refusal } => {
                refusal.message = shown(&refusal.message);
                self.processes.ended(process, FromKeeper::Refused { process, refusal });
            }
            ToHost::Stats { request, stats } => self.answer_stats(request, stats),
        }
    }

    pub(super) fn answer_stats(&mut self, request: u32, guest: Stats) {
        let Some((client, request)) = self.stats.remove(&request) else {
            return;
        };
        let seen = self.machine.as_mut().and_then(|machine| machine.observe().ok()).unwrap_or_default();
        let vmm_cpu_us = u64::try_from(seen.cpu.as_micros()).unwrap_or(u64::MAX);
        self.tell(
            client,
            &FromKeeper::Stats { request, guest, vmm_resident: seen.resident_bytes, vmm_cpu_us },
        );
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
