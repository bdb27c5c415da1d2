//! passt: `passt`, which gives a guest the host's network without root, over one socket.
//!
//! What a guest reaches of its host is kept small by four choices:
//!
//! - the guest has the host's own address, so that what it sends there never leaves the guest;
//! - the gateway isn't mapped to the host's loopback (`--no-map-gw`);
//! - a filter of our own drops every frame that is addressed to the host: see [`filter`];
//! - every outgoing connection is bound to the interface of the default route (`--outbound-if4`, `--outbound-if6`), though some
//!   versions bind datagrams to none; so the filter looks up what addresses the host has whenever something new begins.
//!
//! What remains is what the host reaches *through* that interface. How much of it a guest may is decided by its [`crate::network::Policy`]: by
//! default the public internet. The same filter holds it to its own addresses and its rates.
//!
//! Name queries go to an address of their own ([`DNS`]), from where `passt` forwards them to the host's resolver.

mod filter;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handshake;
pub(crate) mod packet;
mod policy;
mod window;

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use self::filter::{Filter, Rates};
use self::policy::Gate;
use crate::cgroup::{self, Group, Limits};
use crate::driver::Class;
use crate::jail::Ids;
use crate::network::route;
use crate::network::{GuestNetwork, MAC, NetworkPlan, PortError, Protocol, Publish, Traffic};
use crate::spawn::{self, FIRST, Spawned};

/// Where the guest asks for names: a link-local address that nothing else has.
pub const DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);
/// The same, where the host has IPv6 only.
pub const DNS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x5649, 0x4d41, 0, 0, 0, 0, 0x53);
/// The largest packet, in bytes. A frame of it is one buffer of the host's kernel, so that `passt` never gets a part of one:
/// versions that do can be made to take what is inside a packet for a frame.
pub const MTU: u16 = 32_000;

/// How much passt may have sent that the filter hasn't read, in bytes.
const SENT_AHEAD: usize = 4 << 20;

/// What it may take: it has one thread, tables of a fixed size, and what the kernel keeps for its connections.
const fn limits(class: Class) -> Limits {
    Limits { cpu_milli: 1000, memory_bytes: 512 << 20, threads: 8, class }
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasstError {
    /// The program isn't installed.
    #[error(
        "passt, which gives a guest its network, isn't on this machine; on Debian and Ubuntu: sudo apt-get install passt"
    )]
    NoProgram,
    /// The host has no default route.
    #[error(
        "this machine has no default route, so a guest can have no network; run without one, or connect the machine"
    )]
    NoRoute,
    /// A port can't be published.
    #[error(transparent)]
    Port(#[from] PortError),
    /// It can't be executed.
    #[error("can't start passt")]
    Execute(#[source] io::Error),
    /// It can't be held to what it may take.
    #[error("can't put passt into a control group")]
    Group(#[source] io::Error),
}

/// A running passt. It ends when the machine closes its end of the wire, and when this is dropped.
#[derive(Debug)]
pub struct Passt {
    spawned: Spawned,
    /// Its user is nobody else's until it has ended.
    _ids: Option<Ids>,
    published: Vec<Publish>,
    guest: GuestNetwork,
    filter: Filter,
    /// It is removed once passt has ended.
    group: Option<Group>,
}

impl Passt {
    /// Starts `passt` and two threads that filter what the guest sends. The descriptor is for the machine ([`crate::driver::Wiring::network`]).
    ///
    /// It confines itself: no capabilities, namespaces of its own, an empty root, its own list of system calls. For root it
    /// becomes a user of its own.
    ///
    /// Like a machine it dies with the thread that called this; where it changes its user the kernel forgets that, and it ends
    /// with the machine instead.
    pub fn start(plan: &NetworkPlan) -> Result<(Self, OwnedFd, GuestNetwork), PasstError> {
        let (ours, machine) = UnixStream::pair().map_err(PasstError::Execute)?;
        let (passt, guest) = Self::start_on(plan, ours.into(), None)?;
        Ok((passt, machine.into(), guest))
    }

    /// Starts on one end of a stream socket pair whose other end the machine has already, as a container's driver needs
    /// it, which can't start in a process with threads. What the machine sends before is kept by the socket.
    ///
    /// The folder of `group`, which exists, names a control group that passt is put into where there can be one: at most one processor, 512 MiB, 8
    /// threads. Who sweeps up after this process clears the folder's group ([`cgroup::clear`]).
    pub fn start_on(
        plan: &NetworkPlan,
        socket: OwnedFd,
        group: Option<(&Path, Class)>,
    ) -> Result<(Self, GuestNetwork), PasstError> {
        let program = spawn::find("passt").ok_or(PasstError::NoProgram)?;
        let host = route::Host::look();
        let published = plan.published.iter().map(free).collect::<Result<Vec<_>, _>>()?;
        let (mut args, guest) = arguments(&host, &published).ok_or(PasstError::NoRoute)?;
        let root = rustix::process::geteuid().is_root();
        let ids = root.then(Ids::take).transpose().map_err(PasstError::Execute)?;
        if let Some(ids) = &ids {
            args.extend(["--runas".into(), format!("{0}:{0}", ids.first()).into()]);
        }
        let (helper, theirs) = UnixStream::pair().map_err(PasstError::Execute)?;
        // passt loses what it can't send at once, and is slow to send it again. Where this isn't allowed it is as it was.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&theirs, SENT_AHEAD)
            .or_else(|_| rustix::net::sockopt::set_socket_send_buffer_size(&theirs, SENT_AHEAD));
        let spawned =
            spawn::spawn(&program, &args, vec![theirs.into()], None).map_err(PasstError::Execute)?;
        let group = group.filter(|_| cgroup::usable().is_ok());
        let group = group.map(|(folder, class)| limit(spawned.pid(), folder, class));
        let group = group.transpose().map_err(PasstError::Group)?;
        let is_udp = |publish: &&Publish| publish.protocol == Protocol::Udp;
        let ports = published.iter().filter(is_udp).map(|publish| publish.guest).collect();
        let gate = Gate::new(plan.policy.clone(), MAC, &guest, ports, route::Host::look);
        let rates = Rates { out_bits: plan.policy.out_bits, in_bits: plan.policy.in_bits };
        let announced = filter::announce(&helper, MAC, guest.ipv4.map(|(address, _, _)| address));
        let filter = announced.and_then(|()| Filter::start(socket, helper.into(), gate, rates));
        let filter = filter.map_err(PasstError::Execute)?;
        Ok((Self { filter, spawned, _ids: ids, published, guest: guest.clone(), group }, guest))
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.spawned.pid()
    }

    /// Becomes readable, for `poll`, when it has ended.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.spawned.handle()
    }

    /// The published ports, with the ones that were chosen for 0.
    pub fn published(&self) -> &[Publish] {
        &self.published
    }

    /// What the guest must be told.
    pub fn guest(&self) -> GuestNetwork {
        self.guest.clone()
    }

    /// What has passed between the guest and the filter.
    pub fn traffic(&self) -> Traffic {
        self.filter.traffic()
    }

    /// Says what it said last, if it has ended.
    pub fn ended(&mut self) -> Option<String> {
        let ended = !matches!(self.spawned.try_wait(), Ok(None));
        ended.then(|| self.spawned.stderr())
    }

    /// Ends it and waits until it is gone.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        // Both fail only for one that is already reaped.
        let _ = self.spawned.kill();
        let _ = self.spawned.wait();
        self.filter.join();
        if let Some(group) = &self.group {
            // What can't be removed now, the next command clears away.
            let _ = group.remove();
        }
    }
}

/// Holds a process to what passt may take, in the group of this folder.
fn limit(pid: i32, folder: &Path, class: Class) -> io::Result<Group> {
    let group = Group::prepare(folder)?;
    group.make(&limits(class))?;
    group.put(pid).inspect_err(|_| {
        // Why it couldn't be limited matters more than what can't be cleared away.
        let _ = group.remove();
    })?;
    Ok(group)
}

/// Finds out whether a port is free, before a machine is started for it.
fn free(publish: &Publish) -> Result<Publish, PortError> {
    let wanted = SocketAddr::new(publish.address, publish.host);
    let bound = match publish.protocol {
        Protocol::Tcp => TcpListener::bind(wanted).and_then(|socket| socket.local_addr()),
        Protocol::Udp => UdpSocket::bind(wanted).and_then(|socket| socket.local_addr()),
    };
    let bound = bound.map_err(|error| PortError::new(publish, error))?;
    Ok(Publish { host: bound.port(), ..*publish })
}

/// The exact arguments and what the guest is told; nothing if the host has no way out.
fn arguments(host: &route::Host, published: &[Publish]) -> Option<(Vec<OsString>, GuestNetwork)> {
    let mut words: Vec<String> =
        ["--foreground", "--quiet", "--one-off", "--no-map-gw", "--no-dhcp", "--no-dhcpv6", "--no-ra"]
            .map(str::to_owned)
            .to_vec();
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    option("--fd", FIRST.to_string());
    option("--mtu", MTU.to_string());
    let mut guest = GuestNetwork { mtu: MTU, ..GuestNetwork::default() };
    if let Some(way) = &host.ipv4 {
        option("--address", way.address.to_string());
        option("--netmask", way.prefix.to_string());
        option("--gateway", way.gateway.to_string());
        option("--outbound-if4", way.interface.clone());
        option("--dns-forward", DNS.to_string());
        guest.ipv4 = Some((way.address, way.prefix, way.gateway));
        guest.dns.push(DNS.into());
    }
    if let Some(way) = &host.ipv6 {
        option("--address", way.address.to_string());
        option("--gateway", way.gateway.to_string());
        option("--outbound-if6", way.interface.clone());
        guest.ipv6 = Some((way.address, way.prefix, way.gateway));
        if host.ipv4.is_none() {
            option("--dns-forward", DNS6.to_string());
            guest.dns.push(DNS6.into());
        }
    }
    let first = host.ipv4.as_ref().map(|way| &way.interface);
    option("--interface", first.or(host.ipv6.as_ref().map(|way| &way.interface))?.clone());
    for publish in published {
        let flag = match publish.protocol {
            Protocol::Tcp => "--tcp-ports",
            Protocol::Udp => "--udp-ports",
        };
        option(flag, format!("{}/{}:{}", publish.address, publish.host, publish.guest));
    }
    match (host.ipv4.is_some(), host.ipv6.is_some()) {
        (true, false) => words.push("--ipv4-only".into()),
        (false, true) => words.push("--ipv6-only".into()),
        _ => {}
    }
    Some((words.into_iter().map(OsString::from).collect(), guest))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::network::route::{Host, Way};

    fn a_host() -> Host {
        let address = Ipv4Addr::new(192, 0, 2, 2);
        let gateway = Ipv4Addr::new(192, 0, 2, 1);
        Host {
            ipv4: Some(Way { interface: "eth0".into(), address, prefix: 24, gateway }),
            ipv6: None,
            addresses: Vec::new(),
            neighbours: Vec::new(),
        }
    }

    #[test]
    fn the_guest_has_the_host_s_address_and_no_way_to_its_loopback() {
        let (words, guest) = arguments(&a_host(), &[]).unwrap();
        let line = words.join(" ".as_ref()).into_string().unwrap();
        assert!(line.contains("--no-map-gw") && line.contains("--outbound-if4 eth0"), "{line}");
        assert!(line.contains("--address 192.0.2.2") && line.contains("--ipv4-only"), "{line}");
        assert_eq!(guest.dns, [IpAddr::from(DNS)]);
    }

    #[test]
    fn a_machine_without_a_way_out_has_no_network() {
        assert!(arguments(&Host::default(), &[]).is_none());
    }

    #[test]
    fn a_port_in_use_is_named_and_a_free_one_is_found_for_0() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        let publish = Publish { address, host: port, guest: 80, protocol: Protocol::Tcp };
        assert!(matches!(free(&publish), Err(PortError::InUse { port: p, .. }) if p == port));
        assert_ne!(free(&Publish { host: 0, ..publish }).unwrap().host, 0);
    }
}
