//! The network of a spacecore that root starts: by the kernel's own means, without a process in its way.
//!
//! ```text
//!  machine                     gateway S                                 spacecore
//!  vm-K 10.213.x.1 --veth-- up .2  [rules, rates]  guest .5 --tap/veth-- eth0 .6
//! ```
//!
//! - **S** is a network namespace for each spacecore, which only the keeper's descriptor holds. However the keeper ends, S goes,
//!   and with it both pairs of interfaces, the rules and the queues.
//! - **In S** stands the whole [`Policy`](crate::network::Policy) ([`rules`]): its own addresses alone, whom it may reach, rates. Nothing that isn't understood
//!   to its ports gets through.
//! - **The machine** has one table of its own, `inet vimana`, which is the same for all and is gone with the last ([`machine`]): no
//!   spacecore reaches the machine itself, or another one that isn't of the same private network; outwards all have the machine's address.
//!   What others have in other tables stays as it is.
//! - Each spacecore has a number on its machine ([`registry`]), from which its addresses follow ([`addresses`]).

mod addresses;
mod gateway;
mod learnt;
mod machine;
mod names;
mod namespace;
mod netlink;
mod nft;
mod ranges;
mod registry;
mod relay;
mod rules;
mod settings;
#[cfg(test)]
mod space;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use self::addresses::{Addresses, PREFIX4, PREFIX6, Place};
use self::gateway::Gateway;
pub use self::gateway::Pair;
use self::learnt::Learnt;
use self::machine::Uplink;
use self::names::{Directory, Names};
use self::netlink::Netlink;
use self::registry::{Lease, Registry};
use self::relay::Relay;
use self::rules::Around;
use crate::driver::Wire;
use crate::network::route::Host;
use crate::network::{GuestNetwork, NetworkPlan, PortError, Publish, Traffic};

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoutedError {
    /// A port can't be published.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The kernel refuses a part of it.
    #[error("can't {what}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> RoutedError {
    move |source| RoutedError::Kernel { what, source }
}

/// Why this machine can't have it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// It is for root.
    #[error("only root can have it")]
    NotRoot,
    /// The program isn't installed.
    #[error("nft isn't on this machine; on Debian and Ubuntu: sudo apt-get install {}", nft::PACKAGE)]
    NoProgram,
    /// It was tried, and something failed.
    #[error("{0}")]
    Tried(String),
}

/// Says whether spacecores can have this network here, and if not, why. It is tried once for each start of the machine.
///
/// # Errors
/// The first reason against it.
pub fn usable() -> Result<(), Unusable> {
    if !rustix::process::geteuid().is_root() {
        return Err(Unusable::NotRoot);
    }
    if nft::find().is_none() {
        return Err(Unusable::NoProgram);
    }
    let tried = |error: io::Error| Unusable::Tried(error.to_string());
    let registry = Registry::here().map_err(tried)?;
    if registry.was_tried() {
        return Ok(());
    }
    machine::rehearse().map_err(tried)?;
    registry.note_tried().map_err(tried)
}

/// Says what of somebody else's would keep this network's packets from leaving the machine, if anything: a table with a rule
/// that drops what it doesn't know.
pub fn hindered() -> Option<String> {
    // Where nobody can say, it is tried.
    let tables = netlink::tables_that_forward_nothing(rules::TABLE).unwrap_or_default();
    let table = tables.first()?;
    Some(format!("the firewall's table {table} forwards nothing that it isn't told of"))
}

/// Takes back what spacecores have left on this machine whose keepers were killed.
pub fn sweep() {
    machine::sweep();
}

/// A spacecore's network. It is gone when this is dropped.
#[derive(Debug)]
pub struct Routed {
    /// Both begin when the network is opened. They hold the gateway, and end before it; the machine's table may go with the last
    /// spacecore's seat, and is there until nothing of its network is left.
    relay: Option<Relay>,
    names: Option<Names>,
    gateway: Gateway,
    seat: Seat,
    mtu: u32,
    own: Vec<IpAddr>,
}

/// A spacecore's place on the machine's network, until this is dropped.
#[derive(Debug)]
struct Seat {
    registry: Registry,
    lease: Lease,
}

impl Drop for Seat {
    fn drop(&mut self) {
        machine::leave(&self.registry, &self.lease);
    }
}

impl Routed {
    /// Makes the network up to the wire that the machine is started with. `has_tap` where that is to be a tap, for a virtual
    /// machine. Starts no thread; the calling thread must be in the machine's network namespace.
    ///
    /// # Errors
    /// The kernel refuses something.
    pub fn prepare(plan: &NetworkPlan, has_tap: bool) -> Result<(Self, Wire), RoutedError> {
        let registry = Registry::here().map_err(failed("keep a list of spacecores in /run/vimana/net"))?;
        let netlink = Netlink::open().map_err(failed("speak with the kernel about networks"))?;
        let uplink = Uplink::look(&netlink).map_err(failed("find this machine's way to the world"))?;
        let who = (plan.name.as_str(), plan.private_network.as_deref());
        let lease = machine::enter(&registry, &netlink, &uplink, who, &plan.policy)
            .map_err(failed("set this machine up for spacecores' networks"))?;
        let seat = Seat { registry, lease };
        let addresses = seat.lease.record.addresses;
        let (gateway, wire) = Gateway::make(addresses, uplink.mtu, plan.policy.out_bits, has_tap)
            .map_err(failed("make the spacecore's gateway"))?;
        let own = uplink.addresses();
        Ok((Self { relay: None, names: None, gateway, seat, mtu: uplink.mtu, own }, wire))
    }

    /// Lets the network carry something, once the machine is started.
    ///
    /// # Errors
    /// The kernel refuses a rule, or a port is in use.
    pub fn open(&mut self, plan: &NetworkPlan) -> Result<(), RoutedError> {
        let neighbours = Host::look_for_neighbours();
        let is_member = self.seat.lease.record.network.is_some();
        let around = Around { machine: &self.own, neighbours: &neighbours, is_member };
        self.gateway
            .open(&plan.policy, around)
            .map_err(failed("set the rules of the spacecore's gateway"))?;
        let addresses = self.addresses();
        let namespace = || {
            let namespace = self.gateway.namespace().try_clone_to_owned();
            namespace.map_err(failed("hold the spacecore's gateway"))
        };
        if !plan.published.is_empty() {
            let guest = relay::Guest {
                addresses: relay::Addresses {
                    ipv4: Some(addresses.ipv4(Place::Guest)),
                    ipv6: addresses.ipv6(Place::Guest),
                },
                from: plan.policy.from.clone(),
                out_bits: plan.policy.out_bits,
            };
            self.relay = Some(Relay::start(&plan.published, guest, namespace()?)?);
        }
        let (registry, network, rules) =
            (self.seat.registry.clone(), self.seat.lease.record.network.clone(), Arc::new(namespace()?));
        let directory = Directory {
            policy: plan.policy.clone(),
            siblings: Box::new(move |name| siblings(&registry, network.as_deref(), name)),
            learn: Box::new({
                let (rules, learnt) = (Arc::clone(&rules), Mutex::new(Learnt::default()));
                move |answer| {
                    // One after the other: who waits finds that what he has learnt is known already.
                    let mut learnt = learnt.lock().unwrap_or_else(PoisonError::into_inner);
                    // A name whose addresses can't be learnt can't be reached: nothing more happens.
                    let _ = gateway::learn(rules.as_fd(), &learnt.take(answer, Instant::now()));
                }
            }),
            resolvers: names::resolvers,
            begun: Mutex::default(),
        };
        let at: Vec<IpAddr> = addresses.all(Place::Gateway).into_iter().map(|(address, _)| address).collect();
        let names = Names::start(&at, directory, &rules);
        self.names = Some(names.map_err(failed("answer the spacecore's questions for names"))?);
        Ok(())
    }

    /// The published ports, with the ones that were chosen for 0.
    pub fn published(&self) -> &[Publish] {
        self.relay.as_ref().map_or(&[], Relay::published)
    }

    /// What the guest must be told.
    pub fn guest(&self) -> GuestNetwork {
        let addresses = self.addresses();
        let six = addresses.ipv6(Place::Guest).zip(addresses.ipv6(Place::Gateway));
        let gateway = addresses.ipv4(Place::Gateway);
        GuestNetwork {
            ipv4: Some((addresses.ipv4(Place::Guest), PREFIX4, gateway)),
            ipv6: six.map(|(guest, gateway)| (guest, PREFIX6, gateway)),
            dns: vec![gateway.into()],
            mtu: u16::try_from(self.mtu).unwrap_or(u16::MAX),
        }
    }

    /// This machine's own addresses towards the world.
    pub fn machine_addresses(&self) -> &[IpAddr] {
        &self.own
    }

    /// What has passed between the spacecore and its gateway.
    ///
    /// # Errors
    /// The kernel doesn't say.
    pub fn traffic(&self) -> io::Result<Traffic> {
        self.gateway.traffic()
    }

    /// The gateway's namespace.
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.gateway.namespace()
    }

    fn addresses(&self) -> Addresses {
        self.seat.lease.record.addresses
    }
}

/// The addresses of a spacecore of this private network.
fn siblings(registry: &Registry, network: Option<&str>, name: &str) -> Vec<IpAddr> {
    let members = network.map(|network| registry.members(network)).unwrap_or_default();
    let named = members.iter().filter(|record| record.name == name);
    let addresses = named.flat_map(|record| record.addresses.all(Place::Guest));
    addresses.map(|(address, _)| address).collect()
}
