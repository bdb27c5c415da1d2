//! The single decisions of a plan, each with its refusals.

use hac::Manifest;
use hac::model::{Accel, Isolation, Level, Provider};
use hypercore::driver::Accelerator;
use hypercore::passt::{Protocol, Publish};
use spacecore::wire;

use super::{Facts, PlanError, Request, Share};

/// Isolations that aren't there yet are refused; none is replaced by another.
pub(super) fn check_isolation(manifest: &Manifest) -> Result<(), PlanError> {
    let virtualization = &manifest.spec.virtualization;
    match virtualization.isolation {
        Isolation::MicroVM => {}
        other @ (Isolation::Unikernel | Isolation::Container | Isolation::Wasm | Isolation::TEE) => {
            return Err(PlanError::IsolationNotYet { isolation: other });
        }
    }
    match virtualization.provider {
        Some(provider @ (Provider::Firecracker | Provider::CloudHypervisor | Provider::Kata)) => {
            Err(PlanError::ProviderNotYet { provider })
        }
        _ => Ok(()),
    }
}

pub(super) fn choose_accelerator(manifest: &Manifest, facts: &Facts) -> Result<Accelerator, PlanError> {
    let virtualization = &manifest.spec.virtualization;
    let high = virtualization.criteria.security == Level::High;
    let kvm_provider = virtualization.provider.filter(|provider| provider.needs_kvm());
    let wanted = match (virtualization.accel, kvm_provider) {
        (Accel::Tcg, Some(provider)) => return Err(PlanError::ProviderAgainstTcg { provider }),
        (Accel::Tcg, None) => Accelerator::Tcg,
        (Accel::Kvm, _) | (Accel::Auto, Some(_)) => Accelerator::Kvm,
        (Accel::Auto, None) if facts.kvm_missing.is_none() => Accelerator::Kvm,
        (Accel::Auto, None) => Accelerator::Tcg,
    };
    if high && wanted == Accelerator::Tcg {
        return Err(PlanError::HighSecurityNeedsKvm { why: facts.kvm_missing.clone() });
    }
    match (&facts.kvm_missing, wanted) {
        (Some(why), Accelerator::Kvm) => {
            let provider = kvm_provider.map(|provider| provider.to_string());
            Err(PlanError::NoKvm { why: why.clone(), provider, high })
        }
        // What high security promises beyond KVM isn't there yet, and nobody shall believe that it is.
        (None, Accelerator::Kvm) if high => Err(PlanError::HighSecurityNotYet),
        _ => Ok(wanted),
    }
}

pub(super) struct Mounts {
    pub(super) shares: Vec<Share>,
    pub(super) memory: Vec<(String, u64)>,
}

pub(super) fn mounts(request: &Request) -> Result<Mounts, PlanError> {
    let mut memory = Vec::new();
    for mount in &request.manifest.spec.mounts {
        match &mount.source {
            // Those were resolved to paths of this host, and are among the request's shares.
            Some(_) if mount.is_host_folder() => {}
            Some(volume) => {
                return Err(PlanError::VolumeNotYet { volume: volume.clone() });
            }
            None => {
                let half = request.manifest.spec.resources.memory.as_u64() / 2;
                memory.push((mount.destination.clone(), mount.size.map_or(half, |size| size.as_u64())));
            }
        }
    }
    let shares = request.shares.clone();
    if shares.len() > usize::from(wire::MAX_FOLDERS) {
        return Err(PlanError::TooManyFolders { count: shares.len(), most: wire::MAX_FOLDERS });
    }
    let mut seen = std::collections::BTreeSet::new();
    for destination in
        shares.iter().map(|share| &share.destination).chain(memory.iter().map(|(path, _)| path))
    {
        let normal = destination.trim_end_matches('/');
        if !destination.starts_with('/')
            || normal.is_empty()
            || destination.split('/').any(|part| part == "..")
        {
            return Err(PlanError::Destination { destination: destination.clone() });
        }
        if !seen.insert(normal) {
            return Err(PlanError::DestinationTwice { destination: destination.clone() });
        }
    }
    Ok(Mounts { shares, memory })
}

pub(super) fn publish(request: &Request) -> Result<Vec<Publish>, PlanError> {
    let named = request.manifest.spec.networking.inbound_ports.values().copied();
    let overridden =
        |port: u16| request.publish.iter().any(|p| p.guest == port && p.protocol == Protocol::Tcp);
    let mut all: Vec<Publish> = named
        .filter(|port| !overridden(*port))
        .map(|port| Publish {
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            host: port,
            guest: port,
            protocol: Protocol::Tcp,
        })
        .collect();
    all.extend(request.publish.iter().cloned());
    for (index, one) in all.iter().enumerate() {
        let same = |other: &Publish| {
            other.host == one.host && other.protocol == one.protocol && other.address == one.address
        };
        if one.host != 0 && all[..index].iter().any(same) {
            return Err(PlanError::PortTwice { port: one.host });
        }
    }
    Ok(all)
}

/// What the manifest asks for and a foreground run doesn't do yet.
pub(super) fn not_yet(manifest: &Manifest) -> Vec<String> {
    let spec = &manifest.spec;
    let network = &spec.networking;
    let limited = network.bandwidth_limit.is_some() || network.ingress.is_some() || network.egress.is_some();
    let defaults = hac::model::Spec::default();
    let asked = [
        (spec.deployment.replicas > 1, "replicas: one runs in the foreground"),
        (!spec.checks.is_empty(), "checks"),
        (spec.scaling.is_some(), "scaling"),
        (spec.restart != defaults.restart, "restart"),
        (!spec.sidecars.is_empty(), "sidecars"),
        (limited, "network rate limits"),
        (spec.resources.iops.is_some() || spec.resources.disk_bandwidth.is_some(), "disk rate limits"),
        (spec.resources.gpu > 0 || !spec.resources.accelerators.is_empty(), "GPUs and accelerators"),
        (spec.resources.cpu_pinning, "CPU pinning"),
        (!spec.resources.cpu.0.is_multiple_of(1000), "fractions of a CPU: whole virtual CPUs are given"),
        (!spec.conditions.is_empty(), "conditions"),
    ];
    asked
        .into_iter()
        .filter(|(asked, _)| *asked)
        .map(|(_, what)| format!("the manifest asks for something that `vimana run` doesn't do yet: {what}"))
        .collect()
}
