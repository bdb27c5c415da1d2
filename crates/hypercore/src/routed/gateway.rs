//! A spacecore's gateway: a network namespace between it and the machine, which only a descriptor holds.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::addresses::{Addresses, Place};
use super::learnt::News;
use super::namespace::Inside;
use super::netlink::{self, End, Netlink};
use super::rules::{self, Around, GUEST, REFUSED, RELAYED, TABLE, UP};
use super::{nft, settings};
use crate::driver::{Mac, Wire};
use crate::network::{MAC, Policy, Traffic};
use crate::tap;

/// The gateway's hardware address, towards the spacecore and towards the machine, and the machine's.
const GATEWAY: Mac = Mac([0x52, 0x54, 0x00, 0x76, 0x69, 0x6e]);
const TOWARDS_MACHINE: Mac = Mac([0x52, 0x54, 0x00, 0x76, 0x69, 0x02]);
const MACHINE: Mac = Mac([0x52, 0x54, 0x00, 0x76, 0x69, 0x01]);

/// The namespace, and a socket in it.
#[derive(Debug)]
pub(super) struct Gateway {
    namespace: OwnedFd,
    netlink: Netlink,
    tables: Netlink,
    addresses: Addresses,
    mtu: u32,
}

impl Gateway {
    /// Makes it, joins it to the machine, which is the calling thread's network namespace, and prepares the wire for the
    /// spacecore's interface.
    pub(super) fn make(
        addresses: Addresses,
        mtu: u32,
        out_bits: Option<u64>,
        has_tap: bool,
    ) -> io::Result<(Self, Wire)> {
        let name = addresses.interface();
        let (inside, namespace) = Inside::new()?;
        settings::gateway(addresses.has_ipv6)?;
        let netlink = Netlink::open()?;
        let loopback = netlink.index("lo")?;
        netlink.up(loopback)?;
        netlink.own_what_is_marked(RELAYED, loopback, addresses.has_ipv6)?;
        let near = End { name: UP, mac: TOWARDS_MACHINE, namespace: None };
        netlink.pair(mtu, near, End { name: &name, mac: MACHINE, namespace: Some(inside.home()) })?;
        let up = netlink.index(UP)?;
        for (address, prefix) in addresses.all(Place::Up) {
            netlink.address(up, address, prefix)?;
        }
        netlink.up(up)?;
        for (machine, _) in addresses.all(Place::Machine) {
            netlink.neighbour(up, machine, MACHINE)?;
            netlink.route(up, None, machine)?;
        }
        if let Some(bits) = out_bits {
            netlink.limit(up, bits, mtu)?;
        }
        let wire = match has_tap {
            true => Wire::Tap(tap::open_for_offload(GUEST, GATEWAY, mtu)?),
            false => Wire::Pair(Pair { netlink: Netlink::open()?.into_fd(), mtu }),
        };
        let tables = netlink::tables()?;
        drop(inside);
        join_machine(addresses, &name)?;
        Ok((Self { namespace, netlink, tables, addresses, mtu }, wire))
    }

    /// Opens it, once the spacecore's interface is there.
    pub(super) fn open(&self, policy: &Policy, around: Around<'_>) -> io::Result<()> {
        let guest = self.netlink.index(GUEST)?;
        self.inside(|| nft::apply(&rules::gateway(MAC, self.addresses, policy, around)))?;
        for (address, prefix) in self.addresses.all(Place::Gateway) {
            self.netlink.address(guest, address, prefix)?;
        }
        if let Some(bits) = policy.in_bits {
            self.netlink.limit(guest, bits, self.mtu)?;
        }
        self.netlink.up(guest)?;
        for (address, _) in self.addresses.all(Place::Guest) {
            self.netlink.neighbour(guest, address, MAC)?;
        }
        Ok(())
    }

    /// What has passed between it and the spacecore.
    pub(super) fn traffic(&self) -> io::Result<Traffic> {
        // What the gateway's end receives the spacecore has sent.
        let (sent, received) = self.netlink.traffic(self.netlink.index(GUEST)?)?;
        Ok(Traffic { received, sent, refused: netlink::counted(&self.tables, TABLE, REFUSED)? })
    }

    pub(super) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    fn inside<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let _inside = Inside::enter(self.namespace.as_fd())?;
        work()
    }
}

/// Lets the spacecore reach these addresses, by the rules that they belong to, for so long, and those no more.
pub(super) fn learn(namespace: BorrowedFd<'_>, news: &News) -> io::Result<()> {
    if *news == News::default() {
        return Ok(());
    }
    let _inside = Inside::enter(namespace)?;
    nft::apply(&rules::learnt(news))
}

/// Sets up the machine's end.
fn join_machine(addresses: Addresses, name: &str) -> io::Result<()> {
    settings::machine_end(name, addresses.has_ipv6)?;
    let netlink = Netlink::open()?;
    let interface = netlink.index(name)?;
    for (address, prefix) in addresses.all(Place::Machine) {
        netlink.address(interface, address, prefix)?;
    }
    netlink.up(interface)?;
    for ((up, prefix), (guest, _)) in addresses.all(Place::Up).into_iter().zip(addresses.all(Place::Guest)) {
        netlink.neighbour(interface, up, TOWARDS_MACHINE)?;
        netlink.route(interface, Some((first_of(guest), prefix)), up)?;
    }
    Ok(())
}

/// The first address of the network of four that the spacecore and its gateway share.
fn first_of(guest: IpAddr) -> IpAddr {
    match guest {
        IpAddr::V4(guest) => std::net::Ipv4Addr::from(u32::from(guest) & !3).into(),
        IpAddr::V6(guest) => std::net::Ipv6Addr::from(u128::from(guest) & !3).into(),
    }
}

/// What an interface for the spacecore is made with: a socket in the gateway.
#[derive(Debug)]
pub struct Pair {
    netlink: OwnedFd,
    mtu: u32,
}

impl Pair {
    /// Makes the pair of interfaces between the gateway and a network namespace, in which it has this name. It carries
    /// nothing before the gateway is open.
    ///
    /// # Errors
    /// The caller lacks `CAP_NET_ADMIN` over one of both, or the name is taken.
    pub(crate) fn join(self, namespace: BorrowedFd<'_>, name: &str, mac: Mac) -> io::Result<()> {
        let near = End { name: GUEST, mac: GATEWAY, namespace: None };
        let far = End { name, mac, namespace: Some(namespace) };
        Netlink::from_fd(self.netlink).pair(self.mtu, near, far)
    }
}
