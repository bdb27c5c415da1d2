//! What all spacecores of a machine share: the table and the settings of its own network namespace. The first one makes
//! them, the last one takes them back.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use super::addresses::{Addresses, NETWORK_PREFIX, NETWORKS};
use super::gateway::Gateway;
use super::namespace::Inside;
use super::netlink::{self, Netlink, Way};
use super::nft;
use super::registry::{Gate, Lease, Registry};
use super::rules::{Around, Machine, TABLE};
use super::settings;
use crate::driver::Wire;
use crate::network::{MAC, Policy, Rule, Who};

/// Addresses of the world, to ask the way to; nothing is sent there. They are well-known ones, so that no network of a machine's
/// own has them.
const SOMEWHERE4: Ipv4Addr = Ipv4Addr::new(1, 1, 1, 1);
const SOMEWHERE6: Ipv6Addr = Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111);
/// The MTU where there is no way out.
const MTU: u32 = 1500;

/// How this machine reaches the world.
#[derive(Debug)]
pub(super) struct Uplink {
    pub(super) ipv4: Option<Way>,
    pub(super) ipv6: Option<Way>,
    pub(super) mtu: u32,
}

impl Uplink {
    /// Looks, in the calling thread's network namespace.
    pub(super) fn look(netlink: &Netlink) -> io::Result<Self> {
        let (ipv4, ipv6) = (netlink.way(SOMEWHERE4.into())?, netlink.way(SOMEWHERE6.into())?);
        let interfaces = ipv4.iter().chain(&ipv6).map(|way| netlink.interface(way.interface));
        let mtus: Vec<u32> =
            interfaces.collect::<io::Result<Vec<_>>>()?.iter().map(|(_, mtu)| *mtu).collect();
        // IPv6 needs 1280 (RFC 8200); loopback's and others' don't fit an interface.
        let mtu = mtus.into_iter().min().unwrap_or(MTU).clamp(1280, 32_000);
        Ok(Self { ipv4, ipv6, mtu })
    }

    /// This machine's own addresses on the way.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.ipv4.iter().chain(&self.ipv6).filter_map(|way| way.source).collect()
    }
}

/// Lets a spacecore in: takes a number for it, and sees to it that the machine's table and settings are there.
pub(super) fn enter(
    registry: &Registry,
    netlink: &Netlink,
    uplink: &Uplink,
    (name, network): (&str, Option<&str>),
    policy: &Policy,
) -> io::Result<Lease> {
    let mut gate = registry.gate()?;
    let block = match gate.shared.network {
        Some(block) => block,
        None => *gate.shared.network.insert(free_network(netlink, uplink)?),
    };
    let is_free = |number: u16| netlink.index(&format!("vm-{number}")).is_err();
    let lease = gate.take(name, network, block, uplink.ipv6.is_some(), is_free)?;
    match prepare(&mut gate, netlink, uplink, &lease, policy) {
        Ok(()) => Ok(lease),
        Err(error) => {
            leave_through(&mut gate, &lease);
            Err(error)
        }
    }
}

/// A network that this machine has no way to but the one to everywhere.
fn free_network(netlink: &Netlink, uplink: &Uplink) -> io::Result<Ipv4Addr> {
    for network in NETWORKS {
        let [a, b, ..] = network.octets();
        let ways = [
            netlink.way(Ipv4Addr::new(a, b, 0, 1).into())?,
            netlink.way(Ipv4Addr::new(a, b, 254, 1).into())?,
        ];
        if ways.iter().all(|way| *way == uplink.ipv4) {
            return Ok(network);
        }
    }
    Err(io::Error::other(format!(
        "this machine has routes into every network that spacecores could have ({})",
        super::ranges::elements(NETWORKS.iter().map(|network| format!("{network}/{NETWORK_PREFIX}")))
    )))
}

fn prepare(
    gate: &mut Gate<'_>,
    netlink: &Netlink,
    uplink: &Uplink,
    lease: &Lease,
    policy: &Policy,
) -> io::Result<()> {
    let mut ways: Vec<Way> = uplink.ipv4.iter().cloned().collect();
    for rule in &policy.to {
        if let Who::Network(network @ IpAddr::V4(_), _) = rule.who {
            ways.extend(netlink.way(network)?);
        }
    }
    let mut is_new = false;
    for way in ways {
        let (name, _) = netlink.interface(way.interface)?;
        is_new |= gate.shared.changed.open4(&name);
    }
    if uplink.ipv6.is_some() {
        is_new |= gate.shared.changed.open6()?;
    }
    let own = lease.record.addresses.number;
    let is_stale = gate.shared.joined.iter().any(|(_, members)| members.contains(&own));
    let joins = match &lease.record.network {
        Some(network) => gate.registry().members(network).len() > 1,
        None => false,
    };
    if joins
        && let Some(network) = &lease.record.network
        && !gate.shared.joined.iter().any(|(known, _)| known == network)
    {
        gate.shared.joined.push((network.clone(), Vec::new()));
    }
    if is_new || is_stale || joins || !netlink::has_table(TABLE)? {
        write(gate)?;
    } else {
        gate.keep()?;
    }
    gate.shared.changed.make()
}

/// Writes the table anew, with those who run now. What it is to be is kept before: whoever comes after one who was killed
/// meanwhile knows of everything that may have been changed.
fn write(gate: &mut Gate<'_>) -> io::Result<()> {
    let registry = gate.registry();
    for (network, members) in &mut gate.shared.joined {
        *members = registry.members(network).into_iter().map(|record| record.addresses.number).collect();
    }
    gate.shared.joined.retain(|(_, members)| members.len() > 1);
    let interfaces = |members: &Vec<u16>| members.iter().map(|number| format!("vm-{number}")).collect();
    let machine = Machine {
        network: gate.shared.network,
        opened4: gate.shared.changed.forwarding4.clone(),
        opened6: gate.shared.changed.all6,
        // The machine keeps some for itself.
        exchanges: settings::connections().map(|most| most / 4 * 3),
        networks: (0..).zip(&gate.shared.joined).map(|(n, (_, members))| (n, interfaces(members))).collect(),
    };
    gate.keep()?;
    nft::apply(&machine.table())
}

/// Lets a spacecore out.
pub(super) fn leave(registry: &Registry, lease: &Lease) {
    // Where this fails, the next who passes the gate sweeps.
    if let Ok(mut gate) = registry.gate() {
        leave_through(&mut gate, lease);
    }
}

fn leave_through(gate: &mut Gate<'_>, lease: &Lease) {
    let own = lease.record.addresses.number;
    gate.take_back(lease);
    if !gate.sweep() {
        return close(gate);
    }
    if gate.shared.joined.iter().any(|(_, members)| members.contains(&own)) {
        // The next one who comes or goes does it else.
        let _ = write(gate);
    }
}

/// Takes back what was done to the machine, since nobody is left.
fn close(gate: &mut Gate<'_>) {
    if netlink::has_table(TABLE).unwrap_or(true) {
        let _ = nft::apply(&format!("table inet {TABLE}\ndelete table inet {TABLE}\n"));
    }
    gate.shared.changed.restore();
    gate.forget();
}

/// Takes back what those have left who were killed.
pub(super) fn sweep() {
    let Some(registry) = Registry::existing() else { return };
    let Ok(mut gate) = registry.gate() else { return };
    if !gate.sweep() && gate.shared != super::registry::Shared::default() {
        close(&mut gate);
    }
    registry.sweep_others();
}

/// Tries what a spacecore's network needs: namespaces, interfaces, and every kind of rule and setting, in two namespaces
/// that are gone afterwards.
pub(super) fn rehearse() -> io::Result<()> {
    let (_machine, _namespace) = Inside::new()?;
    let addresses = Addresses { number: 0, network: NETWORKS[0], has_ipv6: has_ipv6() };
    let limits = Some(1_000_000);
    let named = Rule { who: Who::Name(String::new()), ports: None, protocol: None };
    let policy = Policy { to: vec![named], in_bits: limits, ..Policy::default() };
    let table = Machine {
        network: Some(NETWORKS[0]),
        opened6: true,
        exchanges: Some(1),
        networks: vec![(0, vec![addresses.interface()])],
        ..Machine::default()
    };
    nft::apply(&table.table())?;
    let (gateway, wire) = Gateway::make(addresses, MTU, limits, false)?;
    let (inside, other) = Inside::new()?;
    drop(inside);
    if let Wire::Pair(pair) = wire {
        pair.join(other.as_fd(), crate::tap::NAME, MAC)?;
    }
    gateway.open(&policy, Around { machine: &[], neighbours: &[], is_member: true })
}

/// Whether the kernel has IPv6.
fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").is_dir()
}
