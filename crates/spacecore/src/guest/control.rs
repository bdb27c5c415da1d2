//! What the keeper says, one handler for each kind of message.

use std::time::{Duration, Instant};

use spacecore::wire::MAX_PROCESS;
use spacecore::wire::link::Incoming;
use spacecore::wire::message::{Configuration, Process, Refusal, RefusalKind, ToGuest, ToHost};

use super::{Guest, Kind, Phase, WORKLOAD};
use crate::init::Init;
use crate::process::{Place, start};
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
            ToGuest::Shutdown { grace_ms } => self.shut_down(grace_ms),
        }
    }

    fn configure(&mut self, configuration: &Configuration, mut steps: Steps) -> Result<(), Refusal> {
        steps.end("await the configuration");
        self.phase = Phase::Running;
        configure::check(configuration)?;
        self.hostname.clone_from(&configuration.hostname);
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
        let workload = self
            .processes
            .get(&WORKLOAD)
            .filter(|workload| workload.is_running())
            .ok_or_else(|| refuse(RefusalKind::Other, "the workload isn't running"))?;
        let relayed = !self.folders.is_empty();
        let place = match self.kind {
            Kind::Machine(..) => Place::Beside(workload.pidfd()),
            Kind::Container(_) => Place::Here(None),
        };
        let child = start(place, spec, &self.hostname, relayed)?;
        self.processes.insert(number, Running::new(number, child));
        Ok(())
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
