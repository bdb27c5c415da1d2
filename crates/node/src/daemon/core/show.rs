//! How deployments and spacecores are shown.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use hypercore::network::{Protocol, Publish};

use super::{Core, Deployment, Spacecore, foreign};
use crate::daemon::call::Refusal;
use crate::daemon::view::{DeploymentView, SpacecoreView};
use crate::rollout::Stage;
use crate::supervisor::{End, Phase};

impl Core {
    /// A deployment by its name, as it is now.
    pub(super) fn shown(&self, name: &str) -> Result<DeploymentView, Refusal> {
        let unknown = || Refusal::Unknown { what: "deployment", name: name.to_owned(), near: None };
        match self.deployments.get(name) {
            Some(found) => Ok(self.show(found)),
            None => self.show_damaged(name).ok_or_else(unknown),
        }
    }

    pub(super) fn show(&self, deployment: &Deployment) -> DeploymentView {
        let record = &deployment.record;
        let mut spacecores: Vec<SpacecoreView> = self.of(&record.name).map(Spacecore::show).collect();
        spacecores.sort_by_key(|spacecore| spacecore.index);
        let is = |phase: Phase| spacecores.iter().filter(|one| one.phase == self::phase(phase)).count();
        let all = |phase| !spacecores.is_empty() && is(phase) == spacecores.len();
        let (revision, manifest) = deployment.newest();
        let wanted_revision = record.rollout.target().unwrap_or(revision);
        let is_settled = spacecores.iter().all(|one| one.revision == wanted_revision)
            && usize::try_from(record.replicas).is_ok_and(|wanted| wanted == spacecores.len());
        // While an update is under way it is the update that deals with what fails.
        let is_failed = match record.rollout.stage() {
            Some(Stage::Updating | Stage::Reverting { .. }) => false,
            Some(Stage::Stopped { .. }) => true,
            Some(Stage::Done | Stage::Reverted { .. }) | None => is(Phase::Failed) > 0,
        };
        let trouble = match record.rollout.stage() {
            Some(Stage::Reverting { reason } | Stage::Reverted { reason } | Stage::Stopped { reason }) => {
                Some(reason.clone())
            }
            Some(Stage::Updating | Stage::Done) | None => None,
        };
        let state = match record {
            record if record.removing => "removing",
            record if !record.running => "stopped",
            _ if all(Phase::Completed) => "completed",
            _ if is_failed => "failed",
            _ if !is_settled => "updating",
            _ if all(Phase::Ready) || spacecores.is_empty() => "running",
            _ => "starting",
        };
        let spec = manifest.map(|manifest| &manifest.spec);
        DeploymentView {
            name: record.name.clone(),
            image: spec.map(|spec| spec.deployment.image.clone()).unwrap_or_default(),
            isolation: spec.map(|spec| spec.virtualization.isolation.to_string()).unwrap_or_default(),
            revision,
            wanted_revision,
            replicas: record.replicas,
            ready: u32::try_from(is(Phase::Ready)).unwrap_or(u32::MAX),
            state: state.to_owned(),
            trouble,
            ports: self.ports(&record.name).into_iter().map(published).collect(),
            spacecores,
        }
    }
}

/// A port that replicas share, as it is published.
fn published(port: u16) -> String {
    let address = Ipv4Addr::LOCALHOST.into();
    Publish { address, host: port, guest: port, protocol: Protocol::Tcp }.to_string()
}

impl Spacecore {
    pub(super) fn show(&self) -> SpacecoreView {
        let (record, state) = (&self.record, &self.record.state);
        SpacecoreView {
            name: record.name.clone(),
            deployment: record.deployment.clone(),
            index: record.index,
            revision: record.revision,
            phase: phase(state.phase()).to_owned(),
            since_unix_ms: record.since_unix_ms,
            attempts: state.attempt(),
            restarts: state.restarts(),
            last_end: state.last_end().map(ToString::to_string),
            exit_code: state.last_end().and_then(End::shell_code),
            ran_ms: state.ran_ms(),
            unhealthy: complaint(&self.complaints),
            image_digest: record.image_digest.clone(),
            ports: record.ports.clone(),
            notice: self.foreign.map(foreign::notice),
        }
    }
}

/// What the checks say that don't pass, the one with its number where there is another.
fn complaint(complaints: &BTreeMap<usize, String>) -> Option<String> {
    let each = complaints.iter().map(|(check, complaint)| format!("check {check}: {complaint}"));
    match complaints.len() {
        0 => None,
        1 => complaints.values().next().cloned(),
        _ => Some(each.collect::<Vec<_>>().join("; ")),
    }
}

/// A phase in a word.
pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Idle => "idle",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Ready => "ready",
        Phase::Waiting => "waiting",
        Phase::Stopping => "stopping",
        Phase::Completed => "completed",
        Phase::Failed => "failed",
        Phase::Halted => "halted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_s_complaint_is_shown_until_that_check_passes() {
        let mut complaints = BTreeMap::from([(0, "no answer".to_owned()), (2, "status 500".to_owned())]);
        assert_eq!(complaint(&complaints).as_deref(), Some("check 0: no answer; check 2: status 500"));
        complaints.remove(&0);
        assert_eq!(complaint(&complaints).as_deref(), Some("status 500"));
        assert_eq!(complaint(&BTreeMap::new()), None);
    }
}
