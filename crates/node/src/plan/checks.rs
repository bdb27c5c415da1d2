//! The single decisions of a plan, each with its refusals.

use hac::Manifest;
use hac::model::{Accel, Isolation, Level, NetworkType, Provider, Resources, Spec};
use hypercore::driver::container::Ids;
use hypercore::driver::{Accelerator, DiskRates};
use hypercore::network::{Carrier, Protocol, Publish};
use hypercore::scratch::{MAX_BYTES, MIN_BYTES, MIN_VOLUME_BYTES};
use spacecore::wire;

use super::confinement::{Confined, high_security};
use super::{MachineFacts, PlanError, Request, Share, Volume};
use crate::volume::{self, Content, Form};

/// What every isolation has, and neither image nor kernel matter for.
pub(super) struct Common {
    pub(super) mounts: Mounts,
    pub(super) publish: Vec<Publish>,
    pub(super) network: bool,
    pub(super) confined: Confined,
    pub(super) carrier: Carrier,
    pub(super) not_routed: Option<String>,
    pub(super) notices: Vec<String>,
}

impl Common {
    pub(super) fn decide(request: &Request, machine: &MachineFacts) -> Result<Self, PlanError> {
        let spec = &request.manifest.spec;
        check_isolation(&request.manifest)?;
        let confined = Confined::decide(spec, machine)?;
        let notices = not_yet(&request.manifest);
        let wanted = spec.resources.memory.as_u64();
        if wanted > machine.memory {
            return Err(PlanError::Memory { wanted, there: machine.memory });
        }
        let rates = disk_rates(&spec.resources)?;
        if rates != DiskRates::default() && spec.virtualization.isolation != Isolation::MicroVM {
            return Err(PlanError::DiskRates { isolation: spec.virtualization.isolation });
        }
        high_security(spec, machine)?;
        check_secrets(spec, machine)?;
        check_storage(spec.resources.storage.map(|bytes| bytes.as_u64()))?;
        let publish = publish(request)?;
        let network = match spec.networking.network_type {
            NetworkType::Public => true,
            NetworkType::None => false,
            NetworkType::Private => true,
        };
        if !network && !publish.is_empty() {
            return Err(PlanError::PortsWithoutNetwork);
        }
        let (carrier, not_routed) = carrier(request, machine)?;
        if let (NetworkType::Private, Some(missing)) = (spec.networking.network_type, &not_routed) {
            return Err(PlanError::PrivateNotRouted { missing: missing.clone() });
        }
        Ok(Self {
            mounts: mounts(request, machine)?,
            publish,
            network,
            carrier,
            not_routed,
            confined,
            notices,
        })
    }
}

/// Who carries the network, whom somebody asked for, or the kernel where it can; and why not the kernel.
fn carrier(request: &Request, machine: &MachineFacts) -> Result<(Carrier, Option<String>), PlanError> {
    let hindered = || machine.routed_missing.clone().or_else(|| machine.routed_hindered.clone());
    match (request.carrier, &machine.routed_missing) {
        (Some(Carrier::Routed), Some(missing)) => Err(PlanError::NotRouted { missing: missing.clone() }),
        (Some(Carrier::Routed), None) => Ok((Carrier::Routed, None)),
        (Some(Carrier::Passt), _) => Ok((Carrier::Passt, Some("passt was asked for".to_owned()))),
        (None, _) => Ok(match hindered() {
            None => (Carrier::Routed, None),
            why => (Carrier::Passt, why),
        }),
    }
}

/// What a virtual machine runs on.
pub(super) struct Hardware {
    pub(super) accelerator: Accelerator,
    pub(super) vcpus: u32,
    pub(super) notices: Vec<String>,
}

impl Hardware {
    pub(super) fn decide(request: &Request, machine: &MachineFacts) -> Result<Self, PlanError> {
        let spec = &request.manifest.spec;
        let accelerator = choose_accelerator(&request.manifest, machine)?;
        let mut notices = Vec::new();
        if accelerator == Accelerator::Tcg {
            let why = match spec.virtualization.accel {
                Accel::Tcg => "that was asked for",
                Accel::Auto | Accel::Kvm => "KVM doesn't work on this machine (vimana doctor says why)",
            };
            notices.push(format!("emulated by QEMU (TCG), a weaker isolation than KVM: {why}"));
        }
        let vcpus = spec.resources.cpu.0.div_ceil(1000).max(1);
        if vcpus > 255 {
            return Err(PlanError::Cpus { vcpus });
        }
        if vcpus > machine.cpus {
            notices.push(format!("{vcpus} virtual CPUs share the {} of this machine", machine.cpus));
        }
        if let Some(why) = &machine.group_missing {
            let is_whole = spec.resources.cpu.0.is_multiple_of(1000);
            let gets = if is_whole { String::new() } else { format!(" (whole CPUs, therefore: {vcpus})") };
            notices.push(format!("nothing but its jail limits the monitor itself{gets}: {why}"));
        }
        Ok(Self { accelerator, vcpus, notices })
    }
}

/// Decides what of an isolation's body neither image nor kernel matter for.
pub(super) fn check_body(request: &Request, machine: &MachineFacts) -> Result<(), PlanError> {
    match request.manifest.spec.virtualization.isolation {
        Isolation::MicroVM => Hardware::decide(request, machine).map(drop),
        Isolation::Container => container(machine),
        Isolation::Wasm => wasm(request),
        other @ (Isolation::Unikernel | Isolation::TEE) => {
            Err(PlanError::IsolationNotYet { isolation: other })
        }
    }
}

pub(super) fn container(machine: &MachineFacts) -> Result<(), PlanError> {
    match &machine.container_missing {
        Some(why) => Err(PlanError::NoContainers { why: why.clone() }),
        None => Ok(()),
    }
}

/// A container with one id has nobody but root in it.
pub(super) fn one_id(user: &str, ids: Ids) -> Result<(), PlanError> {
    let is_root = user.split(':').all(|part| ["", "0", "root"].contains(&part));
    match ids {
        Ids::One if !is_root => Err(PlanError::OneId { user: user.to_owned() }),
        _ => Ok(()),
    }
}

/// What differs where a user that isn't root runs a container, as far as it concerns this one.
pub(super) fn rootless_notices(request: &Request, ids: Ids) -> Vec<String> {
    if !ids.is_rootless() {
        return Vec::new();
    }
    let spec = &request.manifest.spec;
    let mut notices =
        vec!["without root: every file of the image belongs to root inside the container".to_owned()];
    let named = spec.mounts.iter().filter(|mount| !mount.is_host_folder());
    for volume in named.filter_map(|mount| mount.source.as_ref()) {
        notices.push(format!(
            "without root the volume {volume} is plain files, and nothing but this machine's disk limits it"
        ));
    }
    if spec.resources.storage.is_some() {
        notices.push(
            "without root spec.resources.storage is memory, which counts as the container's own; before Linux 6.6 \
             folders of the image can't be removed there"
                .to_owned(),
        );
    }
    notices
}

pub(super) fn wasm(request: &Request) -> Result<(), PlanError> {
    let spec = &request.manifest.spec;
    if request.terminal.is_some() {
        return Err(PlanError::NoTerminal);
    }
    if spec.resources.storage.is_some() {
        return Err(PlanError::NoRoot { key: "spec.resources.storage" });
    }
    if spec.deployment.readonly_root {
        return Err(PlanError::NoRoot { key: "spec.deployment.readonly_root" });
    }
    if spec.observability.metrics.is_some() {
        return Err(PlanError::MetricsInWasm);
    }
    if let Some(share) = request.shares.iter().find(|share| share.file) {
        return Err(PlanError::NoFolder {
            destination: share.destination.clone(),
            what: format!("the file {}", share.source.display()),
            instead: "mount the folder that it lies in",
        });
    }
    if let Some(mount) = spec.mounts.iter().find(|mount| mount.source.is_none()) {
        return Err(PlanError::NoFolder {
            destination: mount.destination.clone(),
            what: "an empty folder in memory".to_owned(),
            instead: "give it a source: a folder of this machine, or a volume's name",
        });
    }
    Ok(())
}

pub(super) fn more_cpu_than_there_is(request: &Request, machine: &MachineFacts) -> Vec<String> {
    let wanted = request.manifest.spec.resources.cpu;
    let more = wanted.0 > machine.cpus.saturating_mul(1000);
    more.then(|| format!("{wanted} CPUs are asked for, and this machine has {}", machine.cpus))
        .into_iter()
        .collect()
}

/// Below these a guest would seem to stand still.
const LEAST_OPERATIONS: u32 = 10;
const LEAST_RATE: u64 = 64 * 1024;

/// How fast the disks may be read and written.
pub(super) fn disk_rates(resources: &Resources) -> Result<DiskRates, PlanError> {
    let bytes = resources.disk_bandwidth.map(|rate| rate.0);
    let least = |key, least: &str| Err(PlanError::DiskRate { key, least: least.to_owned() });
    match (resources.iops, bytes) {
        (Some(..LEAST_OPERATIONS), _) => least("spec.resources.iops", "10"),
        (_, Some(..LEAST_RATE)) => least("spec.resources.disk_bandwidth", "64KiB/s"),
        (operations, bytes) => Ok(DiskRates { operations, bytes }),
    }
}

fn check_secrets(spec: &Spec, machine: &MachineFacts) -> Result<(), PlanError> {
    let secrets = &spec.deployment.secrets;
    if let Some(name) = secrets.iter().find(|name| !machine.secrets.contains(*name)) {
        return Err(PlanError::Secret { name: name.clone() });
    }
    match spec.virtualization.isolation {
        Isolation::Wasm if !secrets.is_empty() && !machine.is_root => Err(PlanError::SecretsInWasm),
        _ => Ok(()),
    }
}

/// The folder in memory that secrets lie in, in bytes: room for a few of the longest.
const SECRETS_BYTES: u64 = 1 << 20;

fn check_storage(bytes: Option<u64>) -> Result<(), PlanError> {
    match bytes {
        Some(bytes) if !(MIN_BYTES..=MAX_BYTES).contains(&bytes) => {
            Err(PlanError::Storage { bytes, least: MIN_BYTES, most: MAX_BYTES })
        }
        Some(_) | None => Ok(()),
    }
}

/// Isolations that aren't there yet are refused; none is replaced by another.
fn check_isolation(manifest: &Manifest) -> Result<(), PlanError> {
    let virtualization = &manifest.spec.virtualization;
    match virtualization.isolation {
        Isolation::MicroVM | Isolation::Container | Isolation::Wasm => {}
        other @ (Isolation::Unikernel | Isolation::TEE) => {
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

fn choose_accelerator(manifest: &Manifest, facts: &MachineFacts) -> Result<Accelerator, PlanError> {
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
        _ => Ok(wanted),
    }
}

pub(super) struct Mounts {
    pub(super) shares: Vec<Share>,
    pub(super) memory: Vec<(String, u64)>,
    pub(super) volumes: Vec<Volume>,
}

fn mounts(request: &Request, machine: &MachineFacts) -> Result<Mounts, PlanError> {
    let (mut memory, mut volumes) = (Vec::new(), Vec::new());
    for mount in &request.manifest.spec.mounts {
        match &mount.source {
            // Those were resolved to paths of this host, and are among the request's shares.
            Some(_) if mount.is_host_folder() => {}
            Some(name) => volumes.push(Volume {
                name: name.clone(),
                destination: mount.destination.clone(),
                readonly: mount.readonly,
                bytes: volume_size(name, mount, request, machine)?,
                encrypted: mount.encrypted,
            }),
            None => {
                let half = request.manifest.spec.resources.memory.as_u64() / 2;
                memory.push((mount.destination.clone(), mount.size.map_or(half, |size| size.as_u64())));
            }
        }
    }
    if !request.manifest.spec.deployment.secrets.is_empty() {
        memory.push((wire::SECRETS.to_owned(), SECRETS_BYTES));
    }
    let shares = request.shares.clone();
    if shares.len() > usize::from(wire::MAX_FOLDERS) {
        return Err(PlanError::TooManyFolders { count: shares.len(), most: wire::MAX_FOLDERS });
    }
    let mut seen = std::collections::BTreeSet::new();
    let named = volumes.iter().map(|volume: &Volume| &volume.destination);
    for destination in
        shares.iter().map(|share| &share.destination).chain(memory.iter().map(|(path, _)| path)).chain(named)
    {
        let normal = destination.trim_end_matches('/');
        if !destination.starts_with('/')
            || normal.is_empty()
            || destination.split('/').any(|part| part == "..")
        {
            return Err(PlanError::Destination { destination: destination.clone() });
        }
        if ["/proc", "/sys", "/dev"].contains(&normal) {
            return Err(PlanError::KernelFolder { destination: destination.clone() });
        }
        if !seen.insert(normal) {
            return Err(PlanError::DestinationTwice { destination: destination.clone() });
        }
    }
    Ok(Mounts { shares, memory, volumes })
}

/// The size that a volume has, or gets; nothing for plain files.
fn volume_size(
    name: &str,
    mount: &hac::model::Mount,
    request: &Request,
    machine: &MachineFacts,
) -> Result<Option<u64>, PlanError> {
    let asked = mount.size.map(|size| size.as_u64());
    if let Some(bytes) = asked.filter(|bytes| !(MIN_VOLUME_BYTES..=MAX_BYTES).contains(bytes)) {
        let volume = name.to_owned();
        return Err(PlanError::VolumeSize { volume, bytes, least: MIN_VOLUME_BYTES, most: MAX_BYTES });
    }
    let isolation = request.manifest.spec.virtualization.isolation;
    if mount.encrypted && isolation != Isolation::MicroVM {
        return Err(PlanError::EncryptedHere { volume: name.to_owned(), isolation });
    }
    let form = Form::of(isolation, machine.container_ids.is_rootless());
    let there = machine.volumes.get(name).copied();
    if let Some(content) = there {
        volume::check(name, form, asked, mount.encrypted, content)?;
    }
    Ok(match (form, there) {
        (Form::Folder | Form::OwnedFolder, _) | (_, Some(Content::Folder)) => None,
        (Form::GuestDisk | Form::HostDisk, Some(Content::Disk { bytes, .. })) => Some(bytes),
        (Form::GuestDisk | Form::HostDisk, None) => Some(asked.unwrap_or(volume::DEFAULT_BYTES)),
    })
}

fn publish(request: &Request) -> Result<Vec<Publish>, PlanError> {
    let networking = &request.manifest.spec.networking;
    // The spacecores of a private network need no port of this machine's.
    let is_private = networking.network_type == NetworkType::Private;
    let named = networking.inbound_ports.values().copied().filter(|_| !is_private);
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

/// What the manifest asks for and a foreground run, or this version, doesn't do. Every key of the manifest is either done, refused, or
/// named here: a new one doesn't compile before it is decided on.
fn not_yet(manifest: &Manifest) -> Vec<String> {
    let defaults = Spec::default();
    let Spec {
        deployment,
        resources,
        virtualization,
        networking: _,
        mounts: _,
        checks,
        sidecars,
        security,
        observability,
        scaling,
        update,
        restart,
        task,
        failover,
        placement,
        pricing,
        verification,
        conditions,
    } = &manifest.spec;
    let by_the_node = [
        (deployment.replicas > 1, "replicas"),
        (resources.class != defaults.resources.class, "class"),
        (!checks.is_empty(), "checks"),
        (scaling.is_some(), "scaling"),
        (*update != defaults.update, "update"),
        (*restart != defaults.restart, "restart"),
        (*task != defaults.task, "deadline"),
        (*failover != defaults.failover, "failover"),
        (observability.metrics.is_some(), "metrics"),
        (!observability.logging.0.is_empty() && !observability.sidecar, "logging"),
    ];
    let by_nobody = [
        (resources.gpu > 0 || !resources.accelerators.is_empty(), "GPUs and accelerators"),
        (resources.cpu_pinning, "CPU pinning"),
        (virtualization.criteria.performance == Level::High, "criteria.performance"),
        (!sidecars.is_empty() || observability.sidecar, "sidecars"),
        (security.attestation != defaults.security.attestation, "security.attestation"),
        (!observability.monitoring.0.is_empty() && !observability.sidecar, "monitoring tools"),
        (*placement != defaults.placement, "placement"),
        (*pricing != defaults.pricing, "pricing"),
        (*verification != defaults.verification, "verification"),
        (!conditions.is_empty(), "conditions"),
    ];
    let notice = |asked: &[(bool, &str)], before: &str, after: &str| {
        let named: Vec<&str> = asked.iter().filter(|(asked, _)| *asked).map(|(_, what)| *what).collect();
        (!named.is_empty()).then(|| format!("{before}{}{after}", named.join(", ")))
    };
    let for_node = notice(
        &by_the_node,
        "a run in the foreground has none of the manifest's ",
        "; vimana apply keeps to them",
    );
    let for_nobody = notice(&by_nobody, "the manifest asks for what this version doesn't do yet: ", "");
    for_node.into_iter().chain(for_nobody).collect()
}
