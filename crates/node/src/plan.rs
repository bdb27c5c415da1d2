//! A manifest and what this machine can do become an exact plan.
//!
//! [`Plan::decide`] is pure: what it is told is all that it knows, so that every refusal can be tested without a machine.
//! A plan can be printed as it is; [`Plan::assignment`] turns it into what a keeper is told. What every isolation has stands in
//! [`Plan`], what only one has in [`Body`].

mod body;
mod checks;
mod confinement;
mod error;
mod process;
mod reach;
mod request;
mod show;

use std::path::{Path, PathBuf};

use hac::model::Isolation;
use hac::settings::Tightened;
use hypercore::driver::{self, Machine, Network};
use hypercore::network::{Carrier, MAC, NetworkPlan, Publish};
use hypercore::passt;
use serde::Serialize;
use spacecore::wire;
use spacecore::wire::message::Process;

use checks::Common;

use crate::home::Home;
use crate::keeper::assignment::{self, Assignment, Lifetime};
pub use body::{Body, Container, Virtual, Wasm};
pub use error::PlanError;
pub use process::signal_number;
pub use reach::Reach;
pub use request::{Facts, ImageFacts, KernelFacts, Layer, MachineFacts, Request, Share, WasmFacts};

/// Exactly what will run.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The spacecore's name.
    pub name: String,
    /// The isolation that was asked for.
    pub isolation: Isolation,
    /// The driver that provides it.
    pub driver: &'static str,
    /// Processor time in thousandths of a CPU.
    pub cpu_milli: u32,
    /// How firmly it has processors and memory.
    pub class: hac::model::Class,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The image's name.
    pub image: String,
    /// The image's digest.
    pub image_digest: String,
    /// Published ports.
    pub publish: Vec<Publish>,
    /// Whether there is a network at all.
    pub network: bool,
    /// Who carries it.
    pub carrier: Carrier,
    /// Why it isn't the kernel, where it isn't.
    pub not_routed: Option<String>,
    /// The spacecores with which it shares a private network, by that network's name.
    pub private_network: Option<String>,
    /// Whom it reaches there, and who reaches it.
    pub reach: Reach,
    /// Folders and files of the host.
    pub shares: Vec<Share>,
    /// Empty folders in memory: destination and size in bytes.
    pub memory_mounts: Vec<(String, u64)>,
    /// The names of the secrets that the workload reads.
    pub secrets: Vec<String>,
    /// Named volumes.
    pub volumes: Vec<Volume>,
    /// What confines the processes that run it.
    pub confined: String,
    /// What differs by isolation.
    #[serde(flatten)]
    pub body: Body,
    /// The workload.
    #[serde(serialize_with = "show::process")]
    pub process: Process,
    /// What the settings that the image carries changed in what was asked for.
    pub by_image: Vec<String>,
    /// What a person should know before trusting this.
    pub notices: Vec<String>,
}

/// A named volume, which outlives the spacecore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// Its name within the spacecore's.
    pub name: String,
    /// Where the workload finds it: an absolute path.
    pub destination: String,
    /// Whether the workload can't write to it.
    pub readonly: bool,
    /// The size of its disk in bytes; none for the plain files of a Wasm program, which this machine's disk limits.
    pub bytes: Option<u64>,
    /// Whether the guest encrypts its disk.
    pub encrypted: bool,
}

impl Plan {
    /// Decides all that neither image nor kernel matter for, so that a refusal needs neither of them to be fetched.
    ///
    /// # Errors
    /// The manifest can't be fulfilled on this machine; the error says what would run instead, or what is missing.
    pub fn check(request: &Request, machine: &MachineFacts) -> Result<(), PlanError> {
        Common::decide(request, machine)?;
        checks::check_body(request, machine)
    }

    /// Decides what will run.
    ///
    /// # Errors
    /// As [`Plan::check`]; or the image can't be run, or demands what is contradicted.
    pub fn decide(request: &Request, facts: &Facts) -> Result<Self, PlanError> {
        let Some(settings) = &facts.image.settings else { return Self::decide_as(request, facts) };
        let Tightened { manifest, changes } = settings.tighten(&request.manifest)?;
        let request = Request { manifest, ..request.clone() };
        match Self::decide_as(&request, facts) {
            Ok(plan) => Ok(Self { by_image: changes, ..plan }),
            Err(source) if changes.is_empty() => Err(source),
            Err(source) => {
                Err(PlanError::Tightened { changes: changes.join(", "), source: Box::new(source) })
            }
        }
    }

    fn decide_as(request: &Request, facts: &Facts) -> Result<Self, PlanError> {
        let spec = &request.manifest.spec;
        let Common { mounts, publish, network, carrier, not_routed, confined, mut notices } =
            Common::decide(request, &facts.machine)?;
        let decided = Body::decide(request, facts, network, !mounts.shares.is_empty())?;
        let network = network && decided.body.wants_network();
        if !network && !publish.is_empty() {
            return Err(PlanError::PortsWithoutSockets);
        }
        notices.splice(0..0, decided.notices);
        let plan = Self {
            name: request.manifest.metadata.name.clone(),
            isolation: spec.virtualization.isolation,
            driver: decided.body.driver(),
            cpu_milli: spec.resources.cpu.0,
            class: spec.resources.class,
            memory_mib: spec.resources.memory.as_mib_ceil(),
            image: facts.image.reference.clone(),
            image_digest: facts.image.digest.clone(),
            publish,
            network,
            carrier,
            not_routed,
            private_network: spec.networking.private_network.clone().filter(|_| carrier == Carrier::Routed),
            reach: Reach::decide(&spec.networking),
            shares: mounts.shares,
            memory_mounts: mounts.memory,
            secrets: spec.deployment.secrets.clone(),
            volumes: mounts.volumes,
            confined: confined.words,
            body: decided.body,
            process: process::workload(request, &facts.image)?,
            by_image: Vec::new(),
            notices,
        };
        let bytes = serde_json::to_vec(&plan.configuration()).map_or(usize::MAX, |json| json.len());
        if bytes > MAX_CONFIGURATION {
            return Err(PlanError::TooLong { bytes, most: MAX_CONFIGURATION });
        }
        Ok(plan)
    }

    /// The guest kernel and its modules, where the isolation has them.
    pub fn virtual_machine(&self) -> Option<&Virtual> {
        match &self.body {
            Body::Virtual(machine) => Some(machine),
            Body::Container(_) | Body::Wasm(_) => None,
        }
    }

    /// What a keeper is told. `initramfs` is what a virtual machine boots from.
    pub fn assignment(
        &self,
        id: &str,
        home: &Home,
        initramfs: Option<&Path>,
        lifetime: Lifetime,
    ) -> Assignment {
        let run_folder = home.run().join(id);
        let machine = Machine {
            name: id.to_owned(),
            cpu_milli: self.cpu_milli,
            memory_mib: self.memory_mib,
            class: match self.class {
                hac::model::Class::Guaranteed => driver::Class::Guaranteed,
                hac::model::Class::Burstable => driver::Class::Burstable,
            },
            network: self.network.then_some(Network { mac: MAC, mtu: passt::MTU, carrier: self.carrier }),
            body: self.machine_body(home, &run_folder, initramfs, lifetime),
        };
        let volumes: Vec<_> = self.volumes.iter().map(|volume| self.volume_use(home, volume)).collect();
        Assignment {
            version: assignment::VERSION,
            id: id.to_owned(),
            machine,
            network: self.network.then(|| NetworkPlan {
                published: self.publish.clone(),
                policy: self.reach.policy(),
                carrier: self.carrier,
                name: self.name.clone(),
                // Two homes on one machine are two nodes.
                private_network: self.private_network.as_ref().map(|name| format!("{}.{name}", home.tag())),
            }),
            configuration: self.configuration(),
            folders: self.folder_shares(),
            scratch: self.scratch(&run_folder),
            orderly_end: volumes.iter().any(|volume| !volume.readonly),
            volumes,
            patience: self.body.patience(),
            driver: self.driver.to_owned(),
            lifetime,
            run_folder,
            log: None,
        }
    }
}

/// The largest configuration that fits into one message to the guest, with room for what the keeper adds.
pub(crate) const MAX_CONFIGURATION: usize = 1024 * 1024 - 16 * 1024;

const SCRATCH_SERIAL: &str = "scratch";

fn layer_serial(index: usize) -> String {
    format!("layer{index}")
}

pub(crate) fn volume_serial(index: usize) -> String {
    format!("volume{index}")
}

fn scratch_path(run_folder: &Path) -> PathBuf {
    run_folder.join("scratch.img")
}

/// The stream that carries the share of this index.
fn folder_stream(index: usize) -> u16 {
    wire::FIRST_FOLDER.saturating_add(u16::try_from(index).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests;
