//! What the keeper says, one handler for each kind of message.

use std::time::{Duration, Instant};

use spacecore::wire::link::Incoming;
use spacecore::wire::message::{
    self as wire, Configuration, Fetched, Process, Refusal, RefusalKind, ToGuest, ToHost, Transfer,
};
use spacecore::wire::{MAX_CHECKS, MAX_PROCESS};

use super::{Guest, Kind, Phase, WORKLOAD};
use crate::checks::own_addresses;
use crate::init::Init;
use crate::probe::Probe;
use crate::process::{Child, Place, start};
use crate::running::{Running, close_streams, open_streams};
use crate::stats;
use crate::steps::Steps;
use crate::{configure, container};
use spacecore::refusal::refuse;

impl Guest {
    pub(super) fn incoming(&mut self, incoming: Incoming<ToGuest>) {
        match incoming {
            Incoming::Control(message) => self.control(message),
            Incoming::Data(stream, bytes) => {
                if let Some(process) = self.processes.get_mut(&(stream / 3)) {
                    process.take_input(&bytes, &mut self.channel);
                }
            }
            Incoming::Eof(stream) => {
                if let Some(process) = self.processes.get_mut(&(stream / 3)) {
                    process.end_input(&mut self.channel);
                }
            }
            Incoming::Writable(_) => {}
            Incoming::Message(stream, bytes) => {
                if let Some(folder) = self.folders.iter_mut().find(|folder| folder.stream == stream) {
                    folder.answer(&bytes);
                }
            }
        }
    }

    fn control(&mut self, message: ToGuest) {
        match message {
            ToGuest::Configure(configuration) => match self.steps.take() {
                Some(steps) => {
                    if let Err(refusal) = self.configure(&configuration, steps) {
                        self.give_up(refusal);
                    }
                }
                None => self.give_up(refuse(RefusalKind::Protocol, "a second configuration")),
            },
            ToGuest::Exec { process, spec } => {
                open_streams(&mut self.channel, process.min(MAX_PROCESS), &spec);
                if let Err(refusal) = self.exec(process, &spec) {
                    self.refuse_process(process, refusal);
                }
            }
            ToGuest::Signal { process, signal } => self.signal(process, signal),
            ToGuest::Resize { process, size } => {
                if let Some(process) = self.processes.get(&process) {
                    process.resize(size);
                }
            }
            ToGuest::Stats { request } => {
                let workload = self.processes.get(&WORKLOAD).map(Running::pid);
                let stats = stats::measure(workload);
                self.channel.link.send_control(&ToHost::Stats { request, stats });
            }
            ToGuest::Check { request, probe, timeout_ms } => {
                if let Err(refusal) = self.check(request, probe, timeout_ms) {
                    let failure = Some(refusal.message);
                    self.channel.link.send_control(&ToHost::Checked { request, failure });
                }
            }
            ToGuest::Fetch { request, port, path, timeout_ms } => {
                if let Err(refusal) = self.fetch(request, port, path, timeout_ms) {
                    let fetched = Fetched::Failure(refusal.message);
                    self.channel.link.send_control(&ToHost::Fetched { request, fetched });
                }
            }
            ToGuest::Shutdown { grace_ms } => self.shut_down(grace_ms),
        }
    }

    fn configure(&mut self, configuration: &Configuration, mut steps: Steps) -> Result<(), Refusal> {
        steps.end("await the configuration");
        self.phase = Phase::Running;
        configure::check(configuration)?;
        self.hostname.clone_from(&configuration.hostname);
        self.workload = Some((configuration.process.clone(), configuration.network.clone()));
        self.stop_signal = configuration.process.stop_signal;
        let (modules, init) = match &mut self.kind {
            Kind::Machine(modules, init) => (modules, init),
            Kind::Container(_) => {
                container::apply(configuration, &mut steps)?;
                let spec = &configuration.process;
                open_streams(&mut self.channel, WORKLOAD, spec);
                let place = Place::Here(Some((configuration, steps)));
                let child = start(place, spec, &configuration.hostname, false)?;
                self.processes.insert(WORKLOAD, Running::new(WORKLOAD, child));
                return Ok(());
            }
        };
        let mut outside = configure::apply(configuration, modules, &mut steps)?;
        self.has_disk = outside.has_disk;
        for folder in &outside.folders {
            self.channel.link.open_folder(folder.stream);
        }
        let spec = &configuration.process;
        open_streams(&mut self.channel, WORKLOAD, spec);
        let relayed = !outside.folders.is_empty();
        let init = init.insert(Init::start()?);
        let place = Place::New(init, configuration, &outside, steps);
        let child = start(place, spec, &configuration.hostname, relayed)?;
        self.folders.append(&mut outside.folders);
        self.processes.insert(WORKLOAD, Running::new(WORKLOAD, child));
        Ok(())
    }

    fn exec(&mut self, number: u16, spec: &Process) -> Result<(), Refusal> {
        if number == WORKLOAD || number > MAX_PROCESS || self.processes.contains_key(&number) {
            return Err(refuse(
                RefusalKind::Protocol,
                format!("{number} isn't a free number of 1 to {MAX_PROCESS} for a process"),
            ));
        }
        let child = self.start_beside(spec)?;
        let running = match spec.transfer {
            Some(Transfer::Into { .. }) => Running::taking(number, child),
            Some(Transfer::Out { .. }) | None => Running::new(number, child),
        };
        self.processes.insert(number, running);
        Ok(())
    }

    /// Starts a process where the workload runs.
    fn start_beside(&self, spec: &Process) -> Result<Child, Refusal> {
        let workload = self.running_workload()?;
        let relayed = !self.folders.is_empty();
        let place = match self.kind {
            Kind::Machine(..) => Place::Beside(workload.pidfd()),
            Kind::Container(_) => Place::Here(None),
        };
        start(place, spec, &self.hostname, relayed)
    }

    fn running_workload(&self) -> Result<&Running, Refusal> {
        let workload = self.processes.get(&WORKLOAD).filter(|workload| workload.is_running());
        workload.ok_or_else(|| refuse(RefusalKind::Other, "the workload isn't running"))
    }

    /// Begins a check; an error is its answer.
    fn check(&mut self, request: u32, probe: wire::Probe, timeout_ms: u64) -> Result<(), Refusal> {
        self.can_check()?;
        let network = self.workload.as_ref().and_then(|(_, network)| network.as_ref());
        let (port, path) = match probe {
            wire::Probe::Tcp { port } => (port, None),
            wire::Probe::Http { port, path } => (port, Some(path)),
            wire::Probe::Exec { command } => {
                let beside = Process { args: command, stdin: false, terminal: None, ..self.workload_spec()? };
                let child = self.start_beside(&beside)?;
                self.checks.watch(request, child, timeout_ms);
                return Ok(());
            }
        };
        let probe = Probe::new(own_addresses(network, port), path);
        self.checks.connect(request, probe, timeout_ms);
        Ok(())
    }

    fn can_check(&self) -> Result<(), Refusal> {
        self.running_workload()?;
        if self.checks.is_full() {
            let message = format!("{MAX_CHECKS} checks are under way already");
            return Err(refuse(RefusalKind::Other, message));
        }
        Ok(())
    }

    /// Begins to fetch a page of the workload's; an error is its answer.
    fn fetch(&mut self, request: u32, port: u16, path: String, timeout_ms: u64) -> Result<(), Refusal> {
        self.can_check()?;
        let network = self.workload.as_ref().and_then(|(_, network)| network.as_ref());
        self.checks.fetch(request, Probe::page(own_addresses(network, port), path), timeout_ms);
        Ok(())
    }

    fn workload_spec(&self) -> Result<Process, Refusal> {
        let spec = self.workload.as_ref().map(|(spec, _)| spec.clone());
        spec.ok_or_else(|| refuse(RefusalKind::Other, "there is no workload"))
    }

    pub(super) fn signal(&mut self, number: u16, signal: i32) {
        if let Some(process) = self.processes.get_mut(&number)
            && (1..=64).contains(&signal)
        {
            process.signal(signal);
        }
    }

    fn shut_down(&mut self, grace_ms: u64) {
        let now = Instant::now();
        match self.phase {
            Phase::Waiting => self.end(),
            Phase::Over { .. } => self.phase = Phase::Over { off_at: now },
            Phase::Running | Phase::Stopping { .. } => {
                self.signal(WORKLOAD, self.stop_signal);
                let longest = Duration::from_secs(24 * 3600);
                self.phase = Phase::Stopping { kill_at: now + Duration::from_millis(grace_ms).min(longest) };
            }
            Phase::Killed { .. } => {}
        }
    }

    fn refuse_process(&mut self, number: u16, refusal: Refusal) {
        if !self.processes.contains_key(&number) {
            close_streams(&mut self.channel, number.min(MAX_PROCESS));
        }
        self.channel.link.send_control(&ToHost::Refused { process: Some(number), refusal });
    }
}
