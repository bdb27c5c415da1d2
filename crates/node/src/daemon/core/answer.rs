//! What the node answers to what is asked.

use hac::Manifest;
use spacecore::wire::message::Fetched;

use super::scale::check_metric;
use super::{Core, Deployment, Spacecore, unix_ms};
use crate::autoscale::Autoscaler;
use crate::daemon::call::{Applied, Call, Refusal};
use crate::daemon::difference::differences;
use crate::daemon::record::{self, REVISIONS};
use crate::daemon::view::{DeploymentView, SpacecoreView};
use crate::keeper::report::ToKeeper;
use crate::rollout::Rollout;
use crate::supervisor::{Input, Phase};

impl Core {
    /// Answers. Who asked may be gone, which changes nothing.
    pub(super) fn answer(&mut self, call: Call) {
        match call {
            Call::Apply { manifest, names_isolation, dry_run, reply } => {
                let _ = reply.send(self.apply(*manifest, names_isolation, dry_run));
            }
            Call::Deployments { reply } => {
                let damaged = self.damaged.keys().filter_map(|name| self.show_damaged(name));
                let all = self.deployments.values().map(|found| self.show(found));
                let mut all: Vec<DeploymentView> = all.chain(damaged).collect();
                all.sort_by(|one, other| one.name.cmp(&other.name));
                let _ = reply.send(Ok(all));
            }
            Call::Deployment { name, reply } => _ = reply.send(self.shown(&name)),
            Call::Scale { name, replicas, reply } => _ = reply.send(self.scale(&name, replicas)),
            Call::SetRunning { name, running, reply } => _ = reply.send(self.set_running(&name, running)),
            Call::Restart { name, reply } => _ = reply.send(self.restart(&name)),
            Call::Remove { name, logs, reply } => _ = reply.send(self.remove(&name, logs)),
            Call::Spacecore { name, reply } => {
                let _ = reply.send(self.spacecore(&name).map(Spacecore::show));
            }
            Call::Stats { name, reply } => match self.spoken_with(&name) {
                Ok(spacecore) => {
                    let request = spacecore.request();
                    // Who has waited long enough for a guest that says nothing is gone.
                    spacecore.stats.retain(|_, reply| !reply.is_closed());
                    spacecore.stats.insert(request, reply);
                    spacecore.order(ToKeeper::Stats { request });
                }
                Err(refusal) => _ = reply.send(Err(refusal)),
            },
            Call::Fetch { name, port, path, timeout_ms, reply } => match self.running(&name) {
                // One that doesn't know the question would break off.
                Ok(spacecore) if !spacecore.fetches => {
                    let failure = "its keeper is of an earlier version; restart it".to_owned();
                    let _ = reply.send(Ok(Fetched::Failure(failure)));
                }
                Ok(spacecore) => {
                    let request = spacecore.request();
                    spacecore.pages.retain(|_, reply| !reply.is_closed());
                    spacecore.pages.insert(request, reply);
                    spacecore.order(ToKeeper::Fetch { request, port, path, timeout_ms });
                }
                Err(refusal) => _ = reply.send(Err(refusal)),
            },
            Call::Capacity { reply } => _ = reply.send(Ok((self.offer, self.allocation()))),
            Call::EventCounts { reply } => _ = reply.send(Ok(self.events.counts())),
            Call::Keeper { name, reply } => {
                let run = self.home.run();
                let found =
                    self.spoken_with(&name).map(|found| found.record.keeper.clone().unwrap_or_default());
                let _ = reply.send(found.map(|keeper| run.join(keeper)));
            }
        }
    }

    fn apply(
        &mut self,
        manifest: Manifest,
        names_isolation: bool,
        dry_run: bool,
    ) -> Result<Applied, Refusal> {
        let name = manifest.metadata.name.clone();
        if let Some(damaged) = self.is_damaged(&name) {
            return Err(damaged);
        }
        let replicas = self.replicas_of(&manifest);
        check_metric(&manifest)?;
        // Where the load decides, their number may become this later.
        let most = manifest.spec.scaling.as_ref().map_or(replicas, |scaling| scaling.max.max(replicas));
        self.check_replicas(&name, most)?;
        self.check_room(&name, &manifest, replicas)?;
        let Some(deployment) = self.deployments.get(&name) else {
            let applied = Applied {
                name: name.clone(),
                revision: 1,
                created: true,
                changes: Vec::new(),
                another_try: false,
                begun_anew: Vec::new(),
            };
            let bound = self.bind(&manifest)?;
            if !dry_run {
                self.create(manifest, names_isolation)?;
                self.serve(&name, bound);
            }
            return Ok(applied);
        };
        if deployment.record.removing {
            return Err(Refusal::Removing { name });
        }
        let (newest, Some(old)) = deployment.newest() else {
            return Err(Refusal::NotKept(format!("the deployment {name} has no revision")));
        };
        let changes = differences(old, &manifest);
        let is_another_try = deployment.record.rollout.has_failed();
        let replaces = is_another_try || changes.iter().any(|change| change.replaces);
        let revision = if replaces { newest.saturating_add(1) } else { newest };
        let begun_anew = if replaces { Vec::new() } else { self.failed(&name) };
        let applied = Applied {
            name: name.clone(),
            revision,
            created: false,
            changes,
            another_try: is_another_try,
            begun_anew,
        };
        let is_so_already = applied.changes.is_empty() && !replaces && deployment.record.replicas == replicas;
        if is_so_already {
            if !dry_run {
                self.begin_anew(&applied.begun_anew);
            }
            return Ok(applied);
        }
        let bound = self.bind(&manifest)?;
        if dry_run {
            return Ok(applied);
        }
        let mut record = deployment.record.clone();
        let kept = record::Revision {
            number: revision,
            manifest: hac::to_toml(&manifest),
            names_isolation,
            applied_unix_ms: unix_ms(),
        };
        if revision == newest {
            record.revisions.pop();
        }
        record.revisions.push(kept);
        let mut in_use: Vec<u64> = self.of(&name).map(|found| found.record.revision).collect();
        in_use.extend(record.rollout.good());
        let surplus = record.revisions.len().saturating_sub(REVISIONS);
        let oldest = record.revisions.get(surplus).map_or(0, |kept| kept.number);
        record.revisions.retain(|kept| kept.number >= oldest || in_use.contains(&kept.number));
        record.replicas = replicas;
        self.replace(record)?;
        self.serve(&name, bound);
        let text = if replaces { format!("revision {revision}") } else { "in place".to_owned() };
        self.events.note("applied", Some(&name), None, text);
        if !replaces {
            self.refresh_policies(&name);
            self.begin_anew(&applied.begun_anew);
        }
        self.mark(&name);
        Ok(applied)
    }

    fn create(&mut self, manifest: Manifest, names_isolation: bool) -> Result<(), Refusal> {
        let name = manifest.metadata.name.clone();
        self.set_logs_aside(&name);
        self.replace(record::Deployment {
            version: record::VERSION,
            name: name.clone(),
            revisions: vec![record::Revision {
                number: 1,
                manifest: hac::to_toml(&manifest),
                names_isolation,
                applied_unix_ms: unix_ms(),
            }],
            replicas: self.replicas_of(&manifest),
            running: true,
            removing: false,
            removes_logs: false,
            rollout: Rollout::default(),
            autoscaler: Autoscaler::default(),
        })?;
        self.events.note("applied", Some(&name), None, "revision 1".to_owned());
        self.mark(&name);
        Ok(())
    }

    /// Keeps a deployment's record, then takes it for what is wanted.
    pub(super) fn replace(&mut self, record: record::Deployment) -> Result<(), Refusal> {
        self.keep_deployment(&record)?;
        self.take_up(record)
    }

    /// The same also on a full disk: what ends makes space, and mustn't need any.
    fn replace_surely(&mut self, record: record::Deployment) -> Result<(), Refusal> {
        let kept = self.records.keep_deployment_surely(&record);
        kept.map_err(|error| Refusal::NotKept(image::whole(&error)))?;
        self.take_up(record)
    }

    fn take_up(&mut self, record: record::Deployment) -> Result<(), Refusal> {
        match self.deployments.get_mut(&record.name) {
            // Its manifests needn't be read again.
            Some(found) if found.record.revisions == record.revisions => found.record = record,
            _ => {
                let read =
                    Deployment::read(record).map_err(|error| Refusal::NotKept(image::whole(&error)))?;
                self.deployments.insert(read.record.name.clone(), read);
            }
        }
        Ok(())
    }

    /// What a manifest says of supervision holds for what runs already.
    fn refresh_policies(&mut self, deployment: &str) {
        let names: Vec<String> = self.of(deployment).map(|found| found.record.name.clone()).collect();
        for name in names {
            let Some(spacecore) = self.spacecores.get_mut(&name) else { continue };
            if let Some(found) = self.deployments.get(deployment) {
                spacecore.record.state.set_policy(found.rules(spacecore.record.revision));
            }
            self.keep(&name);
        }
    }

    fn scale(&mut self, name: &str, replicas: u32) -> Result<DeploymentView, Refusal> {
        let deployment = self.deployment(name)?;
        let mut record = deployment.record.clone();
        self.check_replicas(name, replicas)?;
        self.check_scale(name, replicas)?;
        if record.replicas != replicas {
            record.replicas = replicas;
            self.replace(record)?;
            self.events.note("scaled", Some(name), None, format!("to {replicas}"));
            self.mark(name);
        }
        self.shown(name)
    }

    pub(super) fn set_running(&mut self, name: &str, running: bool) -> Result<DeploymentView, Refusal> {
        let mut record = self.deployment(name)?.record.clone();
        if running {
            self.check_revival(name)?;
        }
        let was_running = record.running;
        record.running = running;
        let failed = self.failed(name);
        if was_running != running {
            let bound = if running { self.bind_again(name)? } else { Vec::new() };
            match running {
                true => self.replace(record)?,
                false => self.replace_surely(record)?,
            }
            self.serve(name, bound);
            let (kind, text) =
                if running { ("started", "runs again") } else { ("stopped", "is to stand still") };
            self.events.note(kind, Some(name), None, text.to_owned());
        }
        // One that is being replaced or removed runs as the one after it, or not at all.
        let staying = self.of(name).filter(|found| !running || found.leaving.is_none());
        let spacecores: Vec<String> = staying.map(|found| found.record.name.clone()).collect();
        for spacecore in spacecores {
            self.step(&spacecore, if running { Input::Run } else { Input::Halt });
        }
        if running {
            self.begin_anew(&failed);
        }
        self.mark(name);
        self.shown(name)
    }

    /// A deployment's spacecores that have failed for good and would run, if they hadn't.
    pub(super) fn failed(&self, name: &str) -> Vec<String> {
        let has_failed =
            |found: &&Spacecore| found.leaving.is_none() && found.record.state.phase() == Phase::Failed;
        self.of(name).filter(has_failed).map(|found| found.record.name.clone()).collect()
    }

    /// Has spacecores that failed for good begin anew: whoever asks for them wants that tried.
    fn begin_anew(&mut self, spacecores: &[String]) {
        for name in spacecores {
            let Some(deployment) = self.spacecores.get(name).map(|found| found.record.deployment.clone())
            else {
                continue;
            };
            let Some(found) = self.deployments.get_mut(&deployment).filter(|found| found.record.running)
            else {
                continue;
            };
            found.record.rollout.try_again();
            self.step(name, Input::Restart);
        }
    }

    fn restart(&mut self, name: &str) -> Result<Vec<SpacecoreView>, Refusal> {
        let mut names: Vec<String> = self.of(name).map(|found| found.record.name.clone()).collect();
        if names.is_empty() {
            names.push(self.spacecore(name)?.record.name.clone());
        }
        for name in &names {
            let found = self.spacecore(name)?;
            let record = &self.deployment(&found.record.deployment)?.record;
            if !record.running {
                return Err(Refusal::Stopped { name: record.name.clone() });
            }
            if found.has_ended() {
                self.check_revival(&found.record.deployment)?;
            }
        }
        for name in &names {
            // One that is being replaced starts anew as it is.
            if self.spacecore(name)?.leaving.is_none() {
                self.step(name, Input::Restart);
            }
        }
        names.iter().map(|name| self.spacecore(name).map(Spacecore::show)).collect()
    }

    fn remove(&mut self, name: &str, logs: bool) -> Result<DeploymentView, Refusal> {
        if let Some(view) = self.remove_damaged(name) {
            return Ok(view);
        }
        let Some(found) = self.deployments.get(name) else {
            let why_not = self.no_deployment(name);
            return if logs { self.remove_logs_of_gone(name, why_not) } else { Err(why_not) };
        };
        let mut record = found.record.clone();
        if !record.removing || (logs && !record.removes_logs) {
            record.removing = true;
            record.removes_logs |= logs;
            self.replace_surely(record)?;
            self.events.note("removing", Some(name), None, "is to be gone".to_owned());
        }
        let view = self.shown(name)?;
        self.mark(name);
        Ok(view)
    }

    /// A deployment's spacecores.
    pub(super) fn of<'a>(&'a self, deployment: &'a str) -> impl Iterator<Item = &'a Spacecore> {
        self.spacecores.values().filter(move |found| found.record.deployment == deployment)
    }

    /// A deployment that isn't about to be gone.
    fn deployment(&self, name: &str) -> Result<&Deployment, Refusal> {
        match self.deployments.get(name) {
            Some(found) if found.record.removing => Err(Refusal::Removing { name: name.to_owned() }),
            Some(found) => Ok(found),
            None => Err(self.no_deployment(name)),
        }
    }

    fn no_deployment(&self, name: &str) -> Refusal {
        if let Some(damaged) = self.is_damaged(name) {
            return damaged;
        }
        match self.spacecores.get(name) {
            Some(found) => {
                Refusal::PartOf { name: name.to_owned(), deployment: found.record.deployment.clone() }
            }
            None => self.unknown("deployment", name),
        }
    }

    fn spacecore(&self, name: &str) -> Result<&Spacecore, Refusal> {
        let damaged = || self.damaged_of(name).and_then(|deployment| self.is_damaged(deployment));
        let why_not = || damaged().unwrap_or_else(|| self.unknown("spacecore", name));
        self.spacecores.get(name).ok_or_else(why_not)
    }

    /// A spacecore whose workload runs.
    pub(super) fn running(&mut self, name: &str) -> Result<&mut Spacecore, Refusal> {
        let unknown = self.spacecore(name).err();
        match (self.spacecores.get_mut(name), unknown) {
            (Some(found), _) if matches!(found.record.state.phase(), Phase::Running | Phase::Ready) => {
                Ok(found)
            }
            (Some(found), _) => Err(Refusal::NotRunning {
                name: name.to_owned(),
                phase: super::show::phase(found.record.state.phase()).to_owned(),
            }),
            (None, Some(unknown)) => Err(unknown),
            (None, None) => Err(Refusal::Ending),
        }
    }

    fn unknown(&self, what: &'static str, name: &str) -> Refusal {
        let known: Vec<&str> = match what {
            "deployment" => self.deployments.keys().map(String::as_str).collect(),
            _ => self.spacecores.keys().map(String::as_str).collect(),
        };
        let near = hac::text::nearest(name, known).map(str::to_owned);
        Refusal::Unknown { what, name: name.to_owned(), near }
    }
}
