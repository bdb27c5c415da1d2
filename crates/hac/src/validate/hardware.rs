//! Resources, isolation and network.

use std::collections::BTreeMap;

use super::{like_a_dns_label, not_a_dns_label};
use crate::decode::{Context, join};
use crate::model::{
    Accel, AcceleratorKind, Isolation, Level, NetworkType, Networking, Resources, Spec, Virtualization,
};
use crate::peer::Who;
use crate::words::Word;

const ISOLATION: &str = "spec.virtualization.type";
const PROVIDER: &str = "spec.virtualization.provider";
const ACCEL: &str = "spec.virtualization.accel";
const SECURITY: &str = "spec.virtualization.criteria.security";

pub(super) fn check(spec: &Spec, context: &mut Context<'_>) {
    resources(&spec.resources, spec.virtualization.isolation, context);
    virtualization(&spec.virtualization, context);
    networking(&spec.networking, context);
}

fn resources(resources: &Resources, isolation: Isolation, context: &mut Context<'_>) {
    if resources.cpu.0 == 0 {
        let help = "write at least \"1m\", a thousandth of a core".to_owned();
        context.conflict(&["spec.resources.cpu"], "nothing runs without CPU", help);
    }
    let least = isolation.least_memory();
    if resources.memory < least {
        context.conflict(
            &["spec.resources.memory", ISOLATION],
            format!(
                "{} of memory is too little for {isolation}, which needs {least} to start",
                resources.memory
            ),
            format!("write memory = \"{least}\" or more, without counting what the workload needs"),
        );
    }
    if resources.storage.is_some_and(|size| size.0 == 0) {
        context.conflict(&["spec.resources.storage"], "a size of 0 holds nothing", None);
    }
    if resources.pids == 0 {
        context.conflict(&["spec.resources.pids"], "the workload itself is a process", None);
    }
    if resources.iops == Some(0) {
        context.conflict(&["spec.resources.iops"], "with 0 operations a second no disk is ever read", None);
    }
    if resources.disk_bandwidth.is_some_and(|rate| rate.0 == 0) {
        context.conflict(&["spec.resources.disk_bandwidth"], "with a rate of 0 no disk is ever read", None);
    }
    let mut gpus = 0u32;
    for (index, accelerator) in resources.accelerators.iter().enumerate() {
        if accelerator.count == 0 {
            let path = format!("spec.resources.accelerators[{index}].count");
            context.conflict(&[&path], "an accelerator is listed with a count of 0", "remove it".to_owned());
        }
        if accelerator.kind == AcceleratorKind::Gpu {
            gpus = gpus.saturating_add(accelerator.count);
        }
    }
    if resources.gpu > 0 && gpus > 0 && resources.gpu != gpus {
        context.conflict(
            &["spec.resources.gpu", "spec.resources.accelerators"],
            format!("`gpu` asks for {} GPUs, and the accelerators are {gpus}", resources.gpu),
            "remove `gpu`: the accelerators say it more exactly".to_owned(),
        );
    }
    if !isolation.is_hardware_virtualisation()
        && isolation == Isolation::Wasm
        && (resources.gpu > 0 || gpus > 0)
    {
        let path = if resources.gpu > 0 { "spec.resources.gpu" } else { "spec.resources.accelerators" };
        let help = "choose MicroVM or Container".to_owned();
        context.conflict(&[path, ISOLATION], "a Wasm spacecore has no way to reach a GPU", help);
    }
}

fn virtualization(virtualization: &Virtualization, context: &mut Context<'_>) {
    let Virtualization { isolation, provider, accel, criteria } = virtualization;
    if let Some(provider) = provider
        && !isolation.providers().contains(provider)
    {
        let able: Vec<_> = isolation.providers().iter().map(|provider| provider.as_str()).collect();
        let others: Vec<_> = Isolation::ALL
            .iter()
            .filter(|other| other.providers().contains(provider))
            .map(|other| other.as_str())
            .collect();
        context.conflict(
            &[PROVIDER, ISOLATION],
            format!("{provider} can't give the isolation {isolation}"),
            format!("{isolation} is given by {}; {provider} gives {}", able.join(", "), others.join(", ")),
        );
    }
    if criteria.security == Level::High && !isolation.is_hardware_virtualisation() {
        context.conflict(
            &[SECURITY, ISOLATION],
            format!("security = \"high\" demands hardware virtualisation, which {isolation} isn't"),
            "choose MicroVM, Unikernel or TEE, or security = \"standard\"".to_owned(),
        );
    }
    if *accel == Accel::Tcg && criteria.security == Level::High {
        context.conflict(
            &[SECURITY, ACCEL],
            "security = \"high\" refuses emulation, whose authors don't promise isolation",
            "remove accel = \"tcg\", or write security = \"standard\"".to_owned(),
        );
    }
    if *accel == Accel::Tcg
        && let Some(provider) = provider.filter(|provider| provider.needs_kvm())
    {
        context.conflict(
            &[PROVIDER, ACCEL],
            format!("{provider} works with KVM only, and accel = \"tcg\" is emulation"),
            "write provider = \"QEMU\", or remove accel".to_owned(),
        );
    }
    if *accel == Accel::Tcg && *isolation == Isolation::TEE {
        let help = "remove accel = \"tcg\"".to_owned();
        context.conflict(
            &[ACCEL, ISOLATION],
            "an emulated machine can't hide its memory from the host",
            help,
        );
    }
    if *accel != Accel::Auto && !isolation.is_hardware_virtualisation() {
        context.conflict(
            &[ACCEL, ISOLATION],
            format!("{isolation} has no virtual machine that could be accelerated"),
            "remove accel, or choose MicroVM".to_owned(),
        );
    }
}

/// What must hold of a network, in a manifest and in an image's settings.
pub(crate) fn networking(networking: &Networking, context: &mut Context<'_>) {
    const LIMIT: &str = "spec.networking.bandwidth_limit";
    let directions =
        [("spec.networking.ingress", networking.ingress), ("spec.networking.egress", networking.egress)];
    for (path, rate) in directions.into_iter().chain([(LIMIT, networking.bandwidth_limit)]) {
        if rate.is_some_and(|rate| rate.0 == 0) {
            let help = "for no network at all, write network_type = \"none\"".to_owned();
            context.conflict(&[path], "a rate of 0 lets nothing through", help);
        }
    }
    for (path, rate) in directions {
        if let (Some(rate), Some(limit)) = (rate, networking.bandwidth_limit)
            && rate > limit
        {
            context.conflict(
                &[path, LIMIT],
                format!("{rate} is more than the bandwidth limit of {limit}"),
                "raise `bandwidth_limit` (a bare number there is in Gbps)".to_owned(),
            );
        }
    }
    if let Some(name) = &networking.private_network
        && let Some(reason) = not_a_dns_label(name)
    {
        let message = format!("the private network's name {name:?} can't be one: {reason}");
        context.conflict(&["spec.networking.private_network"], message, like_a_dns_label(name));
    }
    for (index, peer) in networking.allow_from.iter().enumerate() {
        let path = format!("spec.networking.allow_from[{index}]");
        let plain = peer.ports.is_none() && peer.protocol.is_none();
        if !plain || !matches!(peer.who, Who::Any | Who::Network(..)) {
            context.conflict(
                &[&path],
                format!("{peer} can't be who reaches a port: only \"any\", addresses and networks can"),
                "the ports are those of inbound_ports".to_owned(),
            );
        }
    }
    let ports = "spec.networking.inbound_ports";
    let mut users: BTreeMap<u16, &str> = BTreeMap::new();
    for (name, port) in &networking.inbound_ports {
        let path = join(ports, name);
        if name.is_empty() {
            context.conflict(&[&path], "a port has an empty name", "for example: http = 80".to_owned());
        }
        if *port == 0 {
            context.conflict(&[&path], "0 isn't a port", "write a number from 1 to 65535".to_owned());
        } else if let Some(first) = users.insert(*port, name) {
            context.conflict(
                &[&path, &join(ports, first)],
                format!("the port {port} is used twice, by {first:?} and {name:?}"),
                "each port is listed once".to_owned(),
            );
        }
    }
    if networking.network_type == NetworkType::None && !networking.inbound_ports.is_empty() {
        context.conflict(
            &[ports, "spec.networking.network_type"],
            "nobody can reach these ports: the network type is none",
            "choose public or private, or remove the ports".to_owned(),
        );
    }
}
