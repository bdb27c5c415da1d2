//! What is observed, and what is done about what is found.

use std::collections::BTreeMap;

use hac::model::{AnomalyAction, Isolation};

use super::{Core, Spacecore};
use crate::anomaly::{Finding, Limits};
use crate::daemon::observer::{MetricsPage, Observable};
use crate::keeper::report::ToKeeper;
use crate::supervisor::{End, Phase};

impl Core {
    /// The spacecores that are to be observed.
    pub(super) fn to_observe(&self) -> Vec<Observable> {
        self.spacecores.values().filter_map(|found| self.observable(found)).collect()
    }

    fn observable(&self, found: &Spacecore) -> Option<Observable> {
        let record = &found.record;
        let manifest = self.deployments.get(&record.deployment)?.newest().1?;
        let spec = &manifest.spec;
        let isolation = spec.virtualization.isolation;
        let page = spec.observability.metrics.as_ref().and_then(|page| {
            Some(MetricsPage { port: page.port?, path: page.path.clone(), interval: page.interval.as_std() })
        });
        let state = &record.state;
        // While an attempt lives, the last end is that of the one before.
        let ended = state.attempt().saturating_sub(u64::from(state.phase().is_alive()));
        let breach = match state.last_end() {
            Some(End::Lost(reason)) => reason.strip_prefix(BREACH).map(|breach| (ended, breach.to_owned())),
            _ => None,
        };
        Some(Observable {
            deployment: record.deployment.clone(),
            spacecore: record.name.clone(),
            sends_log: !spec.observability.logging.0.is_empty(),
            attempt: state.attempt(),
            runs: matches!(state.phase(), Phase::Running | Phase::Ready),
            watches: spec.observability.anomalies != AnomalyAction::Ignore,
            breach,
            page,
            limits: Limits {
                cpu_milli: spec.resources.cpu.0,
                memory: spec.resources.memory.as_u64(),
                own_kernel: isolation == Isolation::MicroVM,
                counts_traffic: isolation != Isolation::Wasm,
            },
        })
    }

    /// Tells what was found, and does what the manifest says about it.
    pub(super) fn found(&mut self, name: &str, finding: Finding) {
        let Some(spacecore) = self.spacecores.get(name) else { return };
        let deployment = spacecore.record.deployment.clone();
        let manifest = self.deployments.get(&deployment).and_then(|found| found.newest().1);
        let action = manifest.map_or(AnomalyAction::Alert, |manifest| manifest.spec.observability.anomalies);
        let kind = if finding.begins { "anomaly" } else { "anomaly-over" };
        let text = match finding.begins {
            true => format!("{}: {}", finding.rule, finding.text),
            false => finding.text,
        };
        let evidence: BTreeMap<String, u64> =
            finding.evidence.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.events.note_with(kind, Some(&deployment), Some(name), text, evidence);
        if !finding.begins {
            return;
        }
        match action {
            AnomalyAction::Alert | AnomalyAction::Ignore => {}
            AnomalyAction::Pause => self.pause(&deployment, name),
            AnomalyAction::Stop => {
                // What can't be kept is told by the events already.
                if self.set_running(&deployment, false).is_ok() {
                    let text = format!("after an anomaly of {name}, as spec.observability.anomalies says");
                    self.events.note("stopped", Some(&deployment), None, text);
                }
            }
        }
    }

    fn pause(&mut self, deployment: &str, name: &str) {
        let Some(spacecore) = self.spacecores.get(name).filter(|found| found.fetches) else { return };
        spacecore.order(ToKeeper::Pause);
        let text = format!("stands still as it is; go on with: vimana restart {name}");
        self.events.note("paused", Some(deployment), Some(name), text);
    }
}

/// How the end of a spacecore begins whose guest broke the protocol.
const BREACH: &str = "the guest broke the protocol: ";
