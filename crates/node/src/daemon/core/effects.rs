//! What happens to a spacecore, and what is done about it.

use std::net::Ipv4Addr;
use std::time::Duration;

use hypercore::network::{Protocol, Publish};
use spacecore::wire::message::Probe;

use super::{Core, Happening, Leaving, Spacecore, now_ms, unix_ms};
use crate::balance::shared_ports;
use crate::daemon::view::StatsView;
use crate::keeper::report::{FromKeeper, Standing, ToKeeper};
use crate::prepare::Wanted;
use crate::run_folder;
use crate::supervisor::{Effect, End, Event, Input, Timer};

impl Core {
    /// Has a spacecore's supervisor decide, and does what it says.
    pub(super) fn step(&mut self, name: &str, input: Input) {
        let Some(spacecore) = self.spacecores.get_mut(name) else { return };
        let before = spacecore.record.state.phase();
        let effects = spacecore.record.state.step(now_ms(), input);
        let after = spacecore.record.state.phase();
        if before != after {
            spacecore.record.stands_since(now_ms(), unix_ms());
        }
        let deployment = spacecore.record.deployment.clone();
        self.perform(name, effects);
        self.settle(name);
        if before != after {
            self.mark(&deployment);
        }
    }

    pub(super) fn perform(&mut self, name: &str, effects: Vec<Effect>) {
        for effect in effects {
            let Some(spacecore) = self.spacecores.get_mut(name) else { return };
            match effect {
                Effect::Start { attempt } => self.start(name, attempt),
                Effect::Find { attempt } => self.find(name, attempt),
                Effect::Stop { drain_ms, grace_ms, .. } => self.drain(name, drain_ms, grace_ms),
                Effect::Kill { .. } => {
                    spacecore.draining = None;
                    spacecore.order(ToKeeper::Kill);
                }
                Effect::Destroy { .. } => self.destroy(name),
                Effect::SetTimer { timer, after_ms } => self.set_timer(name, timer, after_ms),
                Effect::ClearTimer(timer) => _ = spacecore.timers.remove(&timer),
                Effect::RunCheck { attempt, check, timeout_ms } => {
                    self.run_check(name, attempt, check, timeout_ms);
                }
                Effect::Tell(event) => {
                    let deployment = spacecore.record.deployment.clone();
                    self.events.note(kind(&event), Some(&deployment), Some(name), event.to_string());
                }
            }
        }
        self.keep(name);
    }

    /// Starts an attempt. Its run folder's name is kept before anything is made there.
    fn start(&mut self, name: &str, number: u64) {
        let Some(spacecore) = self.spacecores.get_mut(name) else { return };
        spacecore.complaints.clear();
        let (deployment, revision) = (spacecore.record.deployment.clone(), spacecore.record.revision);
        let begun = crate::gather::new_id(name).map_err(|error| error.to_string()).and_then(|keeper| {
            let wanted = self.wanted(&deployment, revision, name)?;
            Ok((keeper, wanted))
        });
        let (keeper, wanted) = match begun {
            Ok(begun) => begun,
            Err(reason) => {
                let (spacecore, end) = (name.to_owned(), End::NotStarted(reason));
                let _ = self.tell.send(Happening::Gone { spacecore, attempt: number, end });
                return;
            }
        };
        if let Some(spacecore) = self.spacecores.get_mut(name) {
            spacecore.record.keeper = Some(keeper.clone());
        }
        if !self.keep(name) {
            // What isn't kept would be nobody's after the node's death.
            if let Some(spacecore) = self.spacecores.get_mut(name) {
                spacecore.record.keeper = None;
            }
            let end = End::NotStarted(
                "the node can't keep what it is about to do; its disk may be full".to_owned(),
            );
            let _ = self.tell.send(Happening::Gone { spacecore: name.to_owned(), attempt: number, end });
            return;
        }
        let attempt = self.attempt(name, number, keeper);
        tokio::spawn(attempt.begin(wanted, self.permits.clone()));
    }

    /// Looks for the keeper of an attempt that a node before this one has begun.
    fn find(&mut self, name: &str, number: u64) {
        let Some(spacecore) = self.spacecores.get(name) else { return };
        match spacecore.record.keeper.clone() {
            Some(keeper) => {
                let attempt = self.attempt(name, number, keeper);
                tokio::spawn(attempt.resume());
            }
            None => {
                let (spacecore, end) = (name.to_owned(), End::NeverBegun);
                // It comes back here in the next turn.
                let _ = self.tell.send(Happening::Gone { spacecore, attempt: number, end });
            }
        }
    }

    /// Kills a keeper that does no longer as it is told. What it leaves is found, and cleared away, as of every keeper that was killed.
    fn destroy(&mut self, name: &str) {
        let Some(spacecore) = self.spacecores.get(name) else { return };
        // Without a keeper there is something to be prepared, which ends by itself.
        let Some(keeper) = &spacecore.record.keeper else { return };
        let deployment = spacecore.record.deployment.clone();
        if let Err(error) = run_folder::kill_holder(&self.home.run().join(keeper)) {
            self.events.note("not-killed", Some(&deployment), Some(name), error.to_string());
        }
    }

    /// What a spacecore of this revision is to run.
    fn wanted(&self, deployment: &str, revision: u64, name: &str) -> Result<Wanted, String> {
        let deployment = self.deployments.get(deployment).ok_or("its deployment is gone")?;
        let manifest = deployment.manifests.get(&revision).ok_or("its revision isn't kept any more")?;
        let mut manifest = manifest.clone();
        // No manifest can name this one: a name has no dot.
        let own = || format!("{}.replicas", deployment.record.name);
        manifest.spec.networking.private_network.get_or_insert_with(own);
        name.clone_into(&mut manifest.metadata.name);
        let named = deployment.record.revisions.iter().find(|kept| kept.number == revision);
        let names_isolation = named.is_some_and(|kept| kept.names_isolation);
        let ports = shared_ports(&manifest);
        let mut wanted = Wanted::of(manifest, names_isolation).map_err(|error| image::whole(&error))?;
        // The numbers of the manifest are the balancer's, which passes on to whatever the machine chooses for this one.
        let (address, protocol) = (Ipv4Addr::LOCALHOST.into(), Protocol::Tcp);
        wanted.request.publish =
            ports.into_iter().map(|guest| Publish { address, host: 0, guest, protocol }).collect();
        Ok(wanted)
    }

    fn set_timer(&mut self, name: &str, timer: Timer, after_ms: u64) {
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn;
        let Some(spacecore) = self.spacecores.get_mut(name) else { return };
        spacecore.timers.insert(timer, turn);
        let (tell, spacecore) = (self.tell.clone(), name.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            // Where nobody hears it the node is ending.
            let _ = tell.send(Happening::Timer { spacecore, timer, turn });
        });
    }

    pub(super) fn timer(&mut self, name: &str, timer: Timer, turn: u64) {
        let Some(spacecore) = self.spacecores.get_mut(name) else { return };
        // One that was cleared or set anew has another turn, or none.
        if spacecore.timers.get(&timer) == Some(&turn) {
            spacecore.timers.remove(&timer);
            self.step(name, Input::Timer(timer));
        }
    }

    fn run_check(&mut self, name: &str, attempt: u64, check: usize, timeout_ms: u64) {
        let Some(spacecore) = self.spacecores.get_mut(name) else { return };
        let (deployment, revision) = (&spacecore.record.deployment, spacecore.record.revision);
        let manifest = self.deployments.get(deployment).and_then(|found| found.manifests.get(&revision));
        let Some(probe) = manifest.and_then(|manifest| manifest.spec.checks.get(check)).map(probe) else {
            return;
        };
        if spacecore.foreign.is_some() {
            // It can't be asked, and goes on as it was.
            self.take_for_well(name, attempt, check);
            return;
        }
        let request = spacecore.request();
        spacecore.checks.insert(request, (attempt, check));
        spacecore.order(ToKeeper::Check { request, probe, timeout_ms });
    }

    pub(super) fn heard(&mut self, name: &str, attempt: u64, message: FromKeeper) {
        let Some(spacecore) = self.current(name, attempt) else { return };
        match message {
            FromKeeper::Standing(Standing::Running) => self.step(name, Input::Started { attempt }),
            FromKeeper::Published(published) => self.published(name, &published),
            FromKeeper::Checked { request, failure } => {
                let Some((attempt, check)) = spacecore.checks.remove(&request) else { return };
                match &failure {
                    Some(complaint) => _ = spacecore.complaints.insert(check, complaint.clone()),
                    None => _ = spacecore.complaints.remove(&check),
                }
                let result = failure.map_or(Ok(()), Err);
                self.step(name, Input::Checked { attempt, check, result });
            }
            FromKeeper::Fetched { request, fetched } => {
                if let Some(reply) = spacecore.pages.remove(&request) {
                    // Who asked may be gone.
                    let _ = reply.send(Ok(fetched));
                }
            }
            FromKeeper::Stats { request, guest, vmm_resident, vmm_cpu_us, traffic, fetches } => {
                spacecore.fetches = fetches;
                let Some(reply) = spacecore.stats.remove(&request) else { return };
                let view = StatsView {
                    name: name.to_owned(),
                    guest_memory_total: guest.memory_total,
                    guest_memory_available: guest.memory_available,
                    guest_cpu_us: guest.cpu_user_us.saturating_add(guest.cpu_system_us),
                    guest_processes: guest.processes,
                    network_received: guest.network_received,
                    network_sent: guest.network_sent,
                    resident: vmm_resident,
                    cpu_us: vmm_cpu_us,
                    seen_received: traffic.map(|traffic| traffic.received),
                    seen_sent: traffic.map(|traffic| traffic.sent),
                    refused: traffic.map(|traffic| traffic.refused),
                };
                // Who asked may be gone.
                let _ = reply.send(Ok(view));
            }
            FromKeeper::Standing(_)
            | FromKeeper::Opened { .. }
            | FromKeeper::Started { .. }
            | FromKeeper::Ended { .. }
            | FromKeeper::Refused { .. }
            | FromKeeper::Finished { .. } => {}
        }
    }

    /// Notes how an attempt ended, then clears away what is left of it: in this order, so that no end is forgotten.
    pub(super) fn gone(&mut self, name: &str, attempt: u64, end: End) {
        let Some(spacecore) = self.current(name, attempt) else { return };
        spacecore.orders = None;
        spacecore.draining = None;
        spacecore.record.published.clear();
        spacecore.foreign = None;
        spacecore.checks.clear();
        // Those who wait for an answer learn by the end of their question that there is none.
        spacecore.stats.clear();
        spacecore.pages.clear();
        spacecore.fetches = false;
        if let Some(keeper) = spacecore.record.keeper.take() {
            spacecore.clearing = spacecore.clearing.saturating_add(1);
            let (run_folder, tell) = (self.home.run().join(keeper), self.tell.clone());
            let spacecore = name.to_owned();
            // What a network of the kernel's consists of lies outside of the run folder.
            let leaves_network = matches!(end, End::Lost(_));
            self.step(name, Input::Ended { attempt, end });
            tokio::task::spawn_blocking(move || {
                if leaves_network {
                    hypercore::routed::sweep();
                }
                let failure = run_folder::clear(&run_folder).err().map(|error| error.to_string());
                // Where nobody hears it the node is ending.
                let _ = tell.send(Happening::Cleared { spacecore, failure });
            });
        } else {
            self.step(name, Input::Ended { attempt, end });
        }
    }

    pub(super) fn cleared(&mut self, name: &str, failure: Option<String>) {
        let Some(spacecore) = self.spacecores.get_mut(name) else { return };
        spacecore.clearing = spacecore.clearing.saturating_sub(1);
        let deployment = spacecore.record.deployment.clone();
        if let Some(failure) = failure {
            let text = format!("something of an attempt couldn't be cleared away: {failure}");
            self.events.note("left-over", Some(&deployment), Some(name), text);
        }
        self.settle(name);
        self.mark(&deployment);
    }

    /// Does what was to be done with a spacecore once it stands still.
    pub(super) fn settle(&mut self, name: &str) {
        let Some(spacecore) = self.spacecores.get_mut(name) else { return };
        let Some(leaving) = spacecore.leaving.filter(|_| spacecore.is_at_rest()) else { return };
        let deployment = spacecore.record.deployment.clone();
        match leaving {
            Leaving::Replace(revision) => self.begin_as(name, revision),
            Leaving::Remove => self.forget(name),
        }
        self.finish_removal(&deployment);
        self.mark(&deployment);
    }
}

impl Spacecore {
    /// Whether nothing of it is there, and nothing is about to be.
    pub(super) fn is_at_rest(&self) -> bool {
        self.record.state.phase().is_restful() && self.clearing == 0
    }
}

/// What kind of event it is, in a word.
fn kind(event: &Event) -> &'static str {
    match event {
        Event::Starting { .. } => "starting",
        Event::Running { .. } => "running",
        Event::Ready { .. } => "ready",
        Event::CheckFailed { .. } => "check-failed",
        Event::Overdue { .. } => "overdue",
        Event::Stopping { .. } => "stopping",
        Event::Killing { .. } | Event::Destroying { .. } => "killing",
        Event::Ended { .. } => "ended",
        Event::Waiting { .. } => "waiting",
        Event::GaveUp { .. } => "gave-up",
        Event::Rests { .. } => "rests",
    }
}

/// A check of the manifest's as the guest is asked for it.
fn probe(check: &hac::model::Check) -> Probe {
    use hac::model::CheckKind;
    let port = check.port.unwrap_or_default();
    match check.kind {
        CheckKind::Tcp => Probe::Tcp { port },
        CheckKind::Http => Probe::Http { port, path: check.path.clone() },
        CheckKind::Exec => Probe::Exec { command: check.command.clone().unwrap_or_default() },
    }
}
