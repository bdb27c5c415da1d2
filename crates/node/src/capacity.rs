//! What of a machine is offered, what is allocated, and whether more fits: pure arithmetic.
//!
//! Each replica **asks** for CPU, memory and disk in one class. What is sure to it at any moment of an update, in which it runs one
//! of several revisions, is its **claim**: the larger of what these ask for. What replicas claim together must satisfy, where `f` is
//! how far memory may be oversold, in percent:
//!
//! ```text
//! cpu      sum of guaranteed                         <= offered
//! memory   f * sum of guaranteed + 100 * sum of burstable <= f * offered
//! disk     sum of writable layers and volumes        <= offered
//! ```
//!
//! So guaranteed memory is never oversold, and burstable replicas may be promised `f` percent of what guaranteed ones leave. Burstable
//! CPU is a share and has no sum. What doesn't grow is never refused, even where less is offered by now.

mod offer;
mod refusal;
#[cfg(test)]
mod tests;

use hac::Manifest;
use hac::model::{Class, Isolation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use offer::{Machine, TooMuch};
pub use refusal::{Lack, NoRoom, Resource, amount};

/// What of a machine spacecores may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Offer {
    /// CPU in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// Bytes of the file system in which the node's home lies.
    pub disk: u64,
    /// How much burstable memory may be promised, in percent of what isn't guaranteed.
    pub oversell: u32,
    /// Bytes of the machine's memory that should be available always: with fewer, burstable replicas have to go.
    pub evict_below: u64,
}

/// What one replica of a manifest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// How firmly.
    pub class: Class,
    /// CPU in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// Disk in bytes that is given back when it ends: its writable layer.
    pub scratch: u64,
    /// Disk in bytes that it keeps: its volumes.
    pub volumes: u64,
}

/// What is sure to one or several replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// CPU in thousandths of a core that is reserved.
    pub cpu_guaranteed: u64,
    /// CPU in thousandths of a core of which it has a share.
    pub cpu_burstable: u64,
    /// Memory in bytes that is reserved.
    pub memory_guaranteed: u64,
    /// Memory in bytes that is promised, and may be promised more than once.
    pub memory_burstable: u64,
    /// Disk in bytes.
    pub disk: u64,
}

/// A deployment with what it claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// Its name.
    pub deployment: String,
    /// What all of its replicas claim together.
    #[serde(flatten)]
    pub claim: Claim,
}

/// A question for room.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The deployment that asks.
    pub name: &'a str,
    /// The class that it asks in from now on.
    pub class: Class,
    /// What it claims already.
    pub before: Claim,
    /// How many replicas it is to have.
    pub replicas: u32,
    /// What so many replicas would claim; never less for more.
    pub with: &'a dyn Fn(u32) -> Claim,
    /// Everybody else.
    pub others: &'a [Holder],
}

impl Ask {
    /// What one replica of a manifest asks for. Volumes that are plain files have no size, and count with the one that is named.
    /// `rootless` tells whether containers are a user's, whose volumes are plain files.
    pub fn of(manifest: &Manifest, rootless: bool) -> Self {
        let (spec, resources) = (&manifest.spec, &manifest.spec.resources);
        let unnamed = match spec.virtualization.isolation {
            Isolation::Wasm => 0,
            Isolation::Container if rootless => 0,
            Isolation::MicroVM | Isolation::Unikernel | Isolation::TEE | Isolation::Container => {
                crate::volume::DEFAULT_BYTES
            }
        };
        let named = spec.mounts.iter().filter(|mount| mount.source.is_some() && !mount.is_host_folder());
        Self {
            class: resources.class,
            cpu_millis: resources.cpu.as_millis().into(),
            memory: resources.memory.as_u64(),
            scratch: resources.storage.map_or(0, |size| size.as_u64()),
            volumes: named
                .map(|mount| mount.size.map_or(unnamed, |size| size.as_u64()))
                .fold(0, u64::saturating_add),
        }
    }

    /// The memory in units of the rule: percent of bytes.
    fn weight(&self, oversell: u32) -> u128 {
        match self.class {
            Class::Guaranteed => u128::from(self.memory).saturating_mul(oversell.into()),
            Class::Burstable => u128::from(self.memory).saturating_mul(100),
        }
    }
}

impl Claim {
    /// The claim of one replica that runs, or is about to run, one of these.
    pub fn of(alternatives: &[Ask], oversell: u32) -> Self {
        let is_guaranteed = |ask: &&Ask| ask.class == Class::Guaranteed;
        let cpu = |ask: &Ask| ask.cpu_millis;
        let cpu_guaranteed = alternatives.iter().filter(is_guaranteed).map(cpu).max().unwrap_or(0);
        let cpu_burstable = alternatives.iter().map(cpu).max().unwrap_or(0).saturating_sub(cpu_guaranteed);
        let largest = alternatives.iter().max_by_key(|ask| ask.weight(oversell));
        let memory = |class| largest.filter(|ask| ask.class == class).map_or(0, |ask| ask.memory);
        let disk = alternatives.iter().map(|ask| ask.scratch.saturating_add(ask.volumes)).max();
        Self {
            cpu_guaranteed,
            cpu_burstable,
            memory_guaranteed: memory(Class::Guaranteed),
            memory_burstable: memory(Class::Burstable),
            disk: disk.unwrap_or(0),
        }
    }

    /// The claim of one replica that stands still: its volumes stay.
    pub fn at_rest(alternatives: &[Ask]) -> Self {
        let disk = alternatives.iter().map(|ask| ask.volumes).max().unwrap_or(0);
        Self { disk, ..Self::default() }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            cpu_guaranteed: self.cpu_guaranteed.saturating_add(other.cpu_guaranteed),
            cpu_burstable: self.cpu_burstable.saturating_add(other.cpu_burstable),
            memory_guaranteed: self.memory_guaranteed.saturating_add(other.memory_guaranteed),
            memory_burstable: self.memory_burstable.saturating_add(other.memory_burstable),
            disk: self.disk.saturating_add(other.disk),
        }
    }

    /// How much of a resource counts towards its limit, in the rule's units.
    fn load(&self, resource: Resource, oversell: u32) -> u128 {
        let guaranteed = u128::from(self.memory_guaranteed).saturating_mul(oversell.into());
        match resource {
            Resource::Cpu => self.cpu_guaranteed.into(),
            Resource::Memory => {
                guaranteed.saturating_add(u128::from(self.memory_burstable).saturating_mul(100))
            }
            Resource::Disk => self.disk.into(),
        }
    }
}

impl Offer {
    /// How much of a resource may be claimed, in the rule's units.
    fn limit(&self, resource: Resource) -> u128 {
        match resource {
            Resource::Cpu => self.cpu_millis.into(),
            Resource::Memory => u128::from(self.memory).saturating_mul(self.oversell.into()),
            Resource::Disk => self.disk.into(),
        }
    }

    /// Decides whether a deployment may have what it asks for.
    ///
    /// # Errors
    /// It doesn't fit; with the numbers that show why.
    pub fn admit(&self, request: &Request<'_>) -> Result<(), NoRoom> {
        let others = request.others.iter().fold(Claim::default(), |sum, holder| sum.and(holder.claim));
        let exceeds = |after: &Claim, resource| {
            let load = |claim: &Claim| claim.load(resource, self.oversell);
            let grows = load(after) > load(&request.before);
            grows && load(after).saturating_add(load(&others)) > self.limit(resource)
        };
        let after = (request.with)(request.replicas);
        let lacking = Resource::ALL.into_iter().filter(|resource| exceeds(&after, *resource));
        let lacks: Vec<Lack> =
            lacking.map(|resource| self.lack(request, &after, &others, resource)).collect();
        if lacks.is_empty() {
            return Ok(());
        }
        let fits = |replicas| {
            let after = (request.with)(replicas);
            !Resource::ALL.into_iter().any(|resource| exceeds(&after, resource))
        };
        // More never claims less: there is one border, between what fits and what doesn't.
        let (mut fit, mut too_many) = (0, request.replicas);
        while too_many.saturating_sub(fit) > 1 {
            let middle = fit.midpoint(too_many);
            if fits(middle) {
                fit = middle;
            } else {
                too_many = middle;
            }
        }
        Err(NoRoom { name: request.name.to_owned(), replicas: request.replicas, fit, lacks })
    }

    fn lack(&self, request: &Request<'_>, after: &Claim, others: &Claim, resource: Resource) -> Lack {
        // What the rule counts, in the class that is asked for.
        let each: u128 = match (resource, request.class) {
            (Resource::Memory, Class::Guaranteed) => self.oversell.max(1).into(),
            (Resource::Memory, Class::Burstable) => 100,
            (Resource::Cpu | Resource::Disk, _) => 1,
        };
        let bounded = |amount: u128| u64::try_from(amount).unwrap_or(u64::MAX);
        let left = self.limit(resource).saturating_sub(others.load(resource, self.oversell));
        let of = |claim: &Claim| match resource {
            Resource::Cpu => claim.cpu_guaranteed,
            Resource::Memory => claim.memory_guaranteed.saturating_add(claim.memory_burstable),
            Resource::Disk => claim.disk,
        };
        let mut by: Vec<(String, u64)> =
            request.others.iter().map(|holder| (holder.deployment.clone(), of(&holder.claim))).collect();
        by.retain(|(_, amount)| *amount > 0);
        by.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        by.truncate(3);
        let offered = match resource {
            Resource::Cpu => self.cpu_millis,
            Resource::Memory => self.memory,
            Resource::Disk => self.disk,
        };
        Lack {
            resource,
            class: request.class,
            asked: bounded(after.load(resource, self.oversell) / each),
            offered,
            oversell: self.oversell,
            allocated: of(others),
            by,
            left: bounded(left / each),
        }
    }
}
