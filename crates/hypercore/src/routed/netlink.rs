//! Interfaces, addresses, routes, neighbours and queues, by rtnetlink; and whether an nftables table is there.
//!
//! A socket belongs to the network namespace that its maker was in, whatever namespace its user is in later.
//!
//! Source: the Linux kernel's `include/uapi/linux/{netlink,rtnetlink,if_link,neighbour,fib_rules,pkt_sched,veth}.h` and
//! `include/uapi/linux/netfilter/nf_tables.h`.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::NETFILTER;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use spacecore::rtnetlink::{family, octets};

use crate::driver::Mac;

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const NEW_NEIGHBOUR: u16 = 28;
const NEW_RULE: u16 = 32;
const NEW_QUEUE: u16 = 36;
/// `NFNL_SUBSYS_NFTABLES`, and in it the requests for a table, for chains and for a counter.
const GET_TABLE: u16 = (10 << 8) | 1;
const GET_CHAIN: u16 = (10 << 8) | 4;
const GET_OBJECT: u16 = (10 << 8) | 19;

/// The bytes of a message's header.
const HEADER: usize = 16;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const ALL: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;

const NESTED: u16 = 0x8000;
const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_INFO: u16 = 18;
const LINK_STATS: u16 = 23;
const LINK_NAMESPACE: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const UP: u32 = 1;
const NO_DUPLICATE_CHECK: u8 = 2;
const MAIN: u8 = 254;
const PERMANENT: u16 = 0x80;

/// One end of a pair of interfaces.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'a> {
    pub(super) name: &'a str,
    pub(super) mac: Mac,
    /// The namespace that it comes to be in; none for the socket's.
    pub(super) namespace: Option<BorrowedFd<'a>>,
}

/// How a packet to somewhere leaves this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) interface: u32,
    /// The address that it leaves from.
    pub(super) source: Option<IpAddr>,
    pub(super) gateway: Option<IpAddr>,
}

/// A socket to the kernel's network configuration.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    /// Opens one in the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        Self::with(None)
    }

    fn with(protocol: Option<Protocol>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        Ok(Self(rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?))
    }

    /// One that was opened before.
    pub(super) fn from_fd(socket: OwnedFd) -> Self {
        Self(socket)
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Makes a pair of interfaces that are joined to each other.
    pub(super) fn pair(&self, mtu: u32, near: End<'_>, far: End<'_>) -> io::Result<()> {
        let of = |end: End<'_>| {
            let mut link = Attributes::default();
            link.put(LINK_NAME, &[end.name.as_bytes(), &[0]].concat());
            link.put(LINK_ADDRESS, &end.mac.0);
            link.put(LINK_MTU, &mtu.to_ne_bytes());
            if let Some(namespace) = end.namespace {
                link.put(LINK_NAMESPACE, &namespace.as_raw_fd().to_ne_bytes());
            }
            link
        };
        let mut near = of(near);
        near.nest(LINK_INFO, |info| {
            info.put(INFO_KIND, b"veth");
            info.nest(INFO_DATA, |data| data.put(VETH_PEER, &[&[0; 16], &of(far).0[..]].concat()));
        });
        self.change(NEW_LINK, CREATE | EXCLUSIVE, &[0; 16], &near)
    }

    /// The number of the interface of this name.
    pub(super) fn index(&self, name: &str) -> io::Result<u32> {
        let mut link = Attributes::default();
        link.put(LINK_NAME, &[name.as_bytes(), &[0]].concat());
        let answer = self.ask(GET_LINK, &[0; 16], &link)?;
        number(answer.get(4..8)).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The name and the MTU of the interface with this number.
    pub(super) fn interface(&self, index: u32) -> io::Result<(String, u32)> {
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        let answer = self.ask(GET_LINK, &body, &Attributes::default())?;
        let attributes = attributes_of(answer.get(16..).unwrap_or_default());
        let find = |kind: u16| attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value);
        let name = find(LINK_NAME).and_then(|name| std::str::from_utf8(name).ok());
        let found = name.map(|name| name.trim_end_matches('\0').to_owned()).zip(number(find(LINK_MTU)));
        found.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The bytes that the interface with this number has received and sent.
    ///
    /// Source: `struct rtnl_link_stats64` in linux/if_link.h.
    pub(super) fn traffic(&self, index: u32) -> io::Result<(u64, u64)> {
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        let answer = self.ask(GET_LINK, &body, &Attributes::default())?;
        let attributes = attributes_of(answer.get(16..).unwrap_or_default());
        let stats = attributes.iter().find(|(found, _)| *found == LINK_STATS).map(|(_, value)| *value);
        let at = |place: std::ops::Range<usize>| stats?.get(place)?.try_into().ok().map(u64::from_ne_bytes);
        at(16..24).zip(at(24..32)).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    pub(super) fn up(&self, interface: u32) -> io::Result<()> {
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&interface.to_ne_bytes());
        body[8..12].copy_from_slice(&UP.to_ne_bytes());
        body[12..16].copy_from_slice(&UP.to_ne_bytes());
        self.change(NEW_LINK, 0, &body, &Attributes::default())
    }

    pub(super) fn address(&self, interface: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        const LOCAL: u16 = 2;
        const ADDRESS: u16 = 1;
        let flags = if address.is_ipv6() { NO_DUPLICATE_CHECK } else { 0 };
        let mut body = [family(address), prefix, flags, 0, 0, 0, 0, 0];
        body[4..8].copy_from_slice(&interface.to_ne_bytes());
        let mut attributes = Attributes::default();
        attributes.put(LOCAL, &octets(address));
        attributes.put(ADDRESS, &octets(address));
        self.change(NEW_ADDRESS, CREATE, &body, &attributes)
    }

    /// A route to a network, or to everywhere, through a gateway.
    pub(super) fn route(&self, interface: u32, to: Option<(IpAddr, u8)>, gateway: IpAddr) -> io::Result<()> {
        const UNICAST: u8 = 1;
        const STATIC: u8 = 4;
        let prefix = to.map_or(0, |(_, prefix)| prefix);
        let body = [family(gateway), prefix, 0, 0, MAIN, STATIC, 0, UNICAST, 0, 0, 0, 0];
        let mut attributes = Attributes::default();
        if let Some((network, _)) = to {
            attributes.put(1, &octets(network));
        }
        attributes.put(4, &interface.to_ne_bytes());
        attributes.put(5, &octets(gateway));
        self.change(NEW_ROUTE, CREATE, &body, &attributes)
    }

    /// Has packets with this mark taken for this namespace's own, whomever they are addressed to.
    pub(super) fn own_what_is_marked(&self, mark: u32, loopback: u32, has_ipv6: bool) -> io::Result<()> {
        const TABLE: u8 = 100;
        const LOCAL: u8 = 2;
        const ON_HOST: u8 = 254;
        const STATIC: u8 = 4;
        const TO_TABLE: u8 = 1;
        for family in [2, 10].into_iter().take(if has_ipv6 { 2 } else { 1 }) {
            let mut rule = Attributes::default();
            rule.put(10, &mark.to_ne_bytes());
            let body = [family, 0, 0, 0, TABLE, 0, 0, TO_TABLE, 0, 0, 0, 0];
            self.change(NEW_RULE, CREATE, &body, &rule)?;
            let mut route = Attributes::default();
            route.put(4, &loopback.to_ne_bytes());
            let body = [family, 0, 0, 0, TABLE, STATIC, ON_HOST, LOCAL, 0, 0, 0, 0];
            self.change(NEW_ROUTE, CREATE, &body, &route)?;
        }
        Ok(())
    }

    /// Says for good which hardware address somebody has, so that nobody is ever asked.
    pub(super) fn neighbour(&self, interface: u32, address: IpAddr, mac: Mac) -> io::Result<()> {
        let mut body = [family(address), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        body[4..8].copy_from_slice(&interface.to_ne_bytes());
        body[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
        let mut attributes = Attributes::default();
        attributes.put(1, &octets(address));
        attributes.put(2, &mac.0);
        self.change(NEW_NEIGHBOUR, CREATE, &body, &attributes)
    }

    /// Holds what an interface sends to a rate, in bits a second of packets as long as its MTU (tc-tbf(8)).
    pub(super) fn limit(&self, interface: u32, bits: u64, mtu: u32) -> io::Result<()> {
        /// The kernel counts Ethernet's header, a manifest doesn't.
        const HEADER: u64 = 14;
        const ETHERNET: u8 = 1;
        const KIND: u16 = 1;
        const OPTIONS: u16 = 2;
        const PARAMETERS: u16 = 1;
        const RATE64: u16 = 4;
        const BURST: u16 = 6;
        let packet = u64::from(mtu).saturating_add(HEADER);
        let scaled = u128::from(bits / 8).saturating_mul(packet.into()).checked_div(u128::from(mtu.max(1)));
        let rate = u64::try_from(scaled.unwrap_or(0)).unwrap_or(u64::MAX).max(1);
        let burst = (rate / 100).max(packet.saturating_mul(2));
        let waiting = burst.saturating_add((rate / 20).max(packet.saturating_mul(20)));
        let short = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        let rate_of = |rate: u32| [&[0, ETHERNET, 0, 0, 0, 0, 0, 0][..], &rate.to_ne_bytes()].concat();
        let parameters = [
            rate_of(short(rate)),
            rate_of(0),
            short(waiting).to_ne_bytes().to_vec(),
            short(burst).to_ne_bytes().to_vec(),
            0_u32.to_ne_bytes().to_vec(),
        ];
        let mut body = [0; 20];
        body[4..8].copy_from_slice(&interface.to_ne_bytes());
        body[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
        let mut queue = Attributes::default();
        queue.put(KIND, b"tbf\0");
        queue.nest(OPTIONS, |options| {
            options.put(PARAMETERS, &parameters.concat());
            options.put(BURST, &short(burst).to_ne_bytes());
            options.put(RATE64, &rate.to_ne_bytes());
        });
        self.change(NEW_QUEUE, CREATE | EXCLUSIVE, &body, &queue)
    }

    /// How a packet to this address would leave; nothing where it wouldn't.
    pub(super) fn way(&self, to: IpAddr) -> io::Result<Option<Way>> {
        let prefix = if to.is_ipv4() { 32 } else { 128 };
        let body = [family(to), prefix, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut attributes = Attributes::default();
        attributes.put(1, &octets(to));
        let answer = match self.ask(GET_ROUTE, &body, &attributes) {
            Ok(answer) => answer,
            // No route, one that refuses, or no such family.
            Err(error) if is_none(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        const UNICAST: u8 = 1;
        if answer.get(7) != Some(&UNICAST) {
            return Ok(None);
        }
        let attributes = attributes_of(answer.get(12..).unwrap_or_default());
        let find = |kind: u16| attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value);
        let way = Way {
            interface: number(find(4)).unwrap_or_default(),
            source: find(7).and_then(address_of),
            gateway: find(5).and_then(address_of),
        };
        Ok(Some(way).filter(|way| way.interface != 0))
    }

    /// Sends a request that is acknowledged.
    fn change(&self, kind: u16, flags: u16, body: &[u8], attributes: &Attributes) -> io::Result<()> {
        self.exchange(kind, REQUEST | ACKNOWLEDGE | flags, body, attributes).map(drop)
    }

    /// Sends a request that one message answers; returns what it has behind its header.
    fn ask(&self, kind: u16, body: &[u8], attributes: &Attributes) -> io::Result<Vec<u8>> {
        self.exchange(kind, REQUEST, body, attributes)
    }

    fn exchange(&self, kind: u16, flags: u16, body: &[u8], attributes: &Attributes) -> io::Result<Vec<u8>> {
        self.send(kind, flags, body, attributes)?;
        let answer = self.receive()?;
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        if kind.ok_or_else(broken)? == ERROR {
            return match number(answer.get(HEADER..20)).ok_or_else(broken)?.cast_signed() {
                0 => Ok(Vec::new()),
                number => Err(io::Error::from_raw_os_error(number.saturating_neg())),
            };
        }
        Ok(answer.get(HEADER..).unwrap_or_default().to_vec())
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8], attributes: &Attributes) -> io::Result<()> {
        let length = HEADER.saturating_add(body.len()).saturating_add(attributes.0.len());
        let mut message = u32::try_from(length).map_err(io::Error::other)?.to_ne_bytes().to_vec();
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        message.extend_from_slice(&attributes.0);
        rustix::io::retry_on_intr(|| rustix::net::send(&self.0, &message, SendFlags::empty()))?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut answer = vec![0; 32 * 1024];
        let received =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut answer[..], RecvFlags::empty()))?;
        answer.truncate(received.0);
        Ok(answer)
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A socket to nftables in the calling thread's network namespace.
pub(super) fn tables() -> io::Result<Netlink> {
    Netlink::with(Some(NETFILTER))
}

/// The packets that a counter of a table of nftables' family `inet` has counted.
///
/// Source: `enum nft_object_attributes` and `enum nft_counter_attributes` in linux/netfilter/nf_tables.h.
pub(super) fn counted(tables: &Netlink, table: &str, name: &str) -> io::Result<u64> {
    const INET: u8 = 1;
    const COUNTER: u32 = 1;
    const DATA: u16 = 4;
    const PACKETS: u16 = 2;
    let mut which = Attributes::default();
    which.put(1, &[table.as_bytes(), &[0]].concat());
    which.put(2, &[name.as_bytes(), &[0]].concat());
    which.put(3, &COUNTER.to_be_bytes());
    let answer = tables.ask(GET_OBJECT, &[INET, 0, 0, 0], &which)?;
    let attributes = attributes_of(answer.get(4..).unwrap_or_default());
    let data = attributes.iter().find(|(kind, _)| *kind == DATA).map(|(_, value)| attributes_of(value));
    let packets = data.unwrap_or_default().into_iter().find(|(kind, _)| *kind == PACKETS);
    let packets = packets.and_then(|(_, value)| value.try_into().ok()).map(u64::from_be_bytes);
    packets.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Whether the calling thread's network namespace has a table of this name in nftables' family `inet`.
pub(super) fn has_table(name: &str) -> io::Result<bool> {
    const INET: u8 = 1;
    const NAME: u16 = 1;
    let socket = Netlink::with(Some(NETFILTER))?;
    let mut table = Attributes::default();
    table.put(NAME, &[name.as_bytes(), &[0]].concat());
    match socket.ask(GET_TABLE, &[INET, 0, 0, 0], &table) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The tables, but for one, that drop what no rule of theirs lets through between interfaces, in the calling thread's network
/// namespace.
pub(super) fn tables_that_forward_nothing(but: &str) -> io::Result<Vec<String>> {
    const TABLE: u16 = 1;
    const HOOK: u16 = 4;
    const HOOK_NUMBER: u16 = 1;
    const POLICY: u16 = 5;
    const FORWARD: u32 = 2;
    const DROP: u32 = 0;
    let big_endian = |bytes: Option<&[u8]>| number(bytes).map(u32::to_be);
    let socket = Netlink::with(Some(NETFILTER))?;
    socket.send(GET_CHAIN, REQUEST | ALL, &[0; 4], &Attributes::default())?;
    let mut tables = Vec::new();
    loop {
        let answer = socket.receive()?;
        let mut rest = answer.as_slice();
        while let Some((head, _)) = rest.split_first_chunk::<HEADER>() {
            let length = usize::try_from(number(head.get(..4)).unwrap_or_default()).unwrap_or(usize::MAX);
            match u16::from_ne_bytes([head[4], head[5]]) {
                DONE => return Ok(tables),
                ERROR => return Err(io::ErrorKind::Unsupported.into()),
                _ => {}
            }
            let attributes = attributes_of(rest.get(HEADER + 4..length).unwrap_or_default());
            let find =
                |kind: u16| attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value);
            let hook = find(HOOK).map(attributes_of).unwrap_or_default();
            let hook = hook.iter().find(|(kind, _)| *kind == HOOK_NUMBER).map(|(_, value)| *value);
            let drops = big_endian(hook) == Some(FORWARD) && big_endian(find(POLICY)) == Some(DROP);
            let table = find(TABLE).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
            let table = table.trim_end_matches('\0');
            if drops && table != but && !tables.iter().any(|known| known == table) {
                tables.push(table.to_owned());
            }
            rest = rest.get(length.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn number(bytes: Option<&[u8]>) -> Option<u32> {
    bytes?.try_into().ok().map(u32::from_ne_bytes)
}

/// Whether the kernel says by this error that there is no way.
fn is_none(error: &io::Error) -> bool {
    const NONE: [i32; 6] = [
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::EACCES,
        libc::EINVAL,
        libc::EOPNOTSUPP,
        libc::EAFNOSUPPORT,
    ];
    error.raw_os_error().is_some_and(|number| NONE.contains(&number))
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    four.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// Attributes as the kernel reads them: length, kind, value, filled up to 4 bytes.
#[derive(Debug, Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.put(kind | NESTED, &inner.0);
    }
}

fn attributes_of(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some((head, _)) = bytes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some(value) = bytes.get(4..length) else { break };
        found.push((u16::from_ne_bytes([head[2], head[3]]) & !NESTED, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let mut written = Attributes::default();
        written.put(3, b"guest\0");
        written.nest(18, |inner| inner.put(1, b"veth"));
        let read = attributes_of(&written.0);
        assert_eq!(read[0], (3, &b"guest\0"[..]));
        assert_eq!((read[1].0, attributes_of(read[1].1)), (18, vec![(1, &b"veth"[..])]));
    }

    #[test]
    fn every_machine_has_loopback_and_nobody_s_table_is_there() {
        assert_eq!(Netlink::open().unwrap().index("lo").unwrap(), 1);
        assert!(Netlink::open().unwrap().index("no-such-one").is_err());
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = attributes_of(&bytes);
        }
    }
}
