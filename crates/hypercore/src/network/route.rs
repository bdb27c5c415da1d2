//! How this machine reaches the world: its default routes, and its own address on them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// The gateway that an IPv6 guest is told; `passt` answers for every neighbour.
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A way out, of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way<A> {
    pub(crate) interface: String,
    pub(crate) address: A,
    pub(crate) prefix: u8,
    pub(crate) gateway: A,
}

/// The ways out of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) ipv4: Option<Way<Ipv4Addr>>,
    pub(crate) ipv6: Option<Way<Ipv6Addr>>,
    /// Every address of this machine.
    pub(crate) addresses: Vec<IpAddr>,
    /// The networks that it is in, by their first bits: whoever has an address of them is on one of its wires.
    pub(crate) neighbours: Vec<(IpAddr, u8)>,
}

impl Host {
    /// Its networks alone, which are found sooner than the rest.
    pub(crate) fn look_for_neighbours() -> Vec<(IpAddr, u8)> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        neighbours(&read("/proc/net/route"), &read("/proc/net/ipv6_route"))
    }

    pub(crate) fn look() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (route, ipv6_route) = (read("/proc/net/route"), read("/proc/net/ipv6_route"));
        let ipv4 = ipv4(&route, source);
        let if_inet6 = read("/proc/net/if_inet6");
        let ipv6 = ipv6(&ipv6_route, &if_inet6);
        let addresses = addresses(&read("/proc/net/fib_trie"), &if_inet6);
        Self { ipv4, ipv6, addresses, neighbours: neighbours(&route, &ipv6_route) }
    }
}

/// Reads the networks that no gateway lies before from `/proc/net/route` and `/proc/net/ipv6_route`; link-local and multicast ones,
/// which nobody is sent to, are left out, and spacecores' own.
fn neighbours(route: &str, ipv6_route: &str) -> Vec<(IpAddr, u8)> {
    // Those are private, and there may be hundreds of them.
    let is_spacecore = |interface: &str| interface.starts_with("vm-");
    let others4 = route.lines().skip(1).filter(|line| !is_spacecore(line));
    let four = others4.filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let address = |place: usize| Some(u32::from_str_radix(fields.get(place)?, 16).ok()?.to_ne_bytes());
        let (network, gateway, mask) = (address(1)?, address(2)?, address(7)?);
        let prefix = u8::try_from(u32::from_be_bytes(mask).leading_ones()).ok()?;
        let network = Ipv4Addr::from(network);
        (prefix > 0 && gateway == [0; 4] && !network.is_link_local()).then_some((network.into(), prefix))
    });
    let interface = |line: &&str| line.rsplit(' ').next().is_some_and(is_spacecore);
    let six = ipv6_route.lines().filter(|line| !interface(&line.trim_end())).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |place: usize| u128::from_str_radix(fields.get(place)?, 16).ok();
        let (network, gateway) = (Ipv6Addr::from(number(0)?), number(4)?);
        let prefix = u8::from_str_radix(fields.get(1)?, 16).ok()?;
        let interface = *fields.get(9)?;
        let is_meant = !network.is_unicast_link_local() && !network.is_multicast();
        let is_meant = is_meant && interface != "lo";
        (prefix > 0 && gateway == 0 && is_meant).then_some((network.into(), prefix))
    });
    let mut all: Vec<(IpAddr, u8)> = four.chain(six).collect();
    all.sort();
    all.dedup();
    all
}

/// Reads every address of this machine from `/proc/net/fib_trie` and `/proc/net/if_inet6`.
fn addresses(trie: &str, if_inet6: &str) -> Vec<IpAddr> {
    let lines: Vec<&str> = trie.lines().collect();
    let local = lines.windows(2).filter_map(|pair| {
        let [address, kind] = pair else { return None };
        kind.contains("/32 host LOCAL")
            .then(|| address.trim_start_matches([' ', '|', '-', '+']).parse().ok())?
    });
    let six = if_inet6.lines().filter_map(|line| {
        let address = u128::from_str_radix(line.split_whitespace().next()?, 16).ok()?;
        Some(IpAddr::from(Ipv6Addr::from(address)))
    });
    let mut all: Vec<IpAddr> = local.map(|address: Ipv4Addr| address.into()).chain(six).collect();
    all.sort();
    all.dedup();
    all
}

/// This machine's own address on the way to another one. Sends nothing.
fn source(towards: Ipv4Addr) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((towards, 9)).ok()?;
    match socket.local_addr().ok()? {
        std::net::SocketAddr::V4(address) => Some(*address.ip()),
        std::net::SocketAddr::V6(_) => None,
    }
}

/// Reads `/proc/net/route` (addresses are hexadecimal, in the byte order of the machine).
fn ipv4(routes: &str, source: impl Fn(Ipv4Addr) -> Option<Ipv4Addr>) -> Option<Way<Ipv4Addr>> {
    let address = |text: &str| Some(Ipv4Addr::from(u32::from_str_radix(text, 16).ok()?.to_ne_bytes()));
    let routes: Vec<Vec<&str>> =
        routes.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let fields = |route: &Vec<&str>| {
        let metric: u32 = route.get(6)?.parse().ok()?;
        Some((
            route.first()?.to_string(),
            address(route.get(1)?)?,
            address(route.get(2)?)?,
            metric,
            address(route.get(7)?)?,
        ))
    };
    let all: Vec<_> = routes.iter().filter_map(fields).collect();
    let default = |route: &&(String, Ipv4Addr, Ipv4Addr, u32, Ipv4Addr)| {
        route.1.is_unspecified() && route.4.is_unspecified() && route.0 != "lo"
    };
    let (interface, _, gateway, _, _) = all.iter().filter(default).min_by_key(|route| route.3)?.clone();
    let towards = if gateway.is_unspecified() { Ipv4Addr::new(192, 0, 2, 1) } else { gateway };
    let own = source(towards)?;
    let inside = |net: Ipv4Addr, mask: Ipv4Addr| u32::from(own) & u32::from(mask) == u32::from(net);
    let connected = |route: &&(String, Ipv4Addr, Ipv4Addr, u32, Ipv4Addr)| {
        route.0 == interface
            && route.2.is_unspecified()
            && !route.4.is_unspecified()
            && inside(route.1, route.4)
    };
    let mask = all.iter().filter(connected).map(|route| u32::from(route.4)).max();
    let prefix = mask.map_or(0, u32::leading_ones);
    let covers = |prefix: u32, other: Ipv4Addr| {
        let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix)).unwrap_or(0);
        other != own && u32::from(own) & mask == u32::from(other) & mask
    };
    if (1..=30).contains(&prefix) && covers(prefix, gateway) {
        return Some(Way { interface, address: own, prefix: u8::try_from(prefix).ok()?, gateway });
    }
    // A point-to-point address: the guest sees a small network around it, with the neighbour as gateway.
    let neighbour = Ipv4Addr::from(u32::from(own) ^ 1);
    Some(Way { interface, address: own, prefix: 30, gateway: neighbour })
}

/// Reads `/proc/net/ipv6_route` and `/proc/net/if_inet6`.
fn ipv6(routes: &str, addresses: &str) -> Option<Way<Ipv6Addr>> {
    let address = |text: &str| Some(Ipv6Addr::from(u128::from_str_radix(text, 16).ok()?));
    let defaults = routes.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let interface = *fields.get(9)?;
        let metric = u32::from_str_radix(fields.get(5)?, 16).ok()?;
        let whole = fields.first()?.bytes().all(|b| b == b'0') && *fields.get(1)? == "00";
        // A route that refuses is on the loopback interface.
        (whole && interface != "lo").then_some((metric, interface))
    });
    let (_, interface) = defaults.min()?;
    let own = addresses.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let prefix = u8::from_str_radix(fields.get(2)?, 16).ok()?;
        // Scope 0 is global; the flags 0x01, 0x08, 0x20 and 0x40 are temporary, duplicate, deprecated and tentative.
        let flags = u8::from_str_radix(fields.get(4)?, 16).ok()?;
        let usable = *fields.get(3)? == "00" && *fields.get(5)? == interface && flags & 0x69 == 0;
        usable.then(|| Some((address(fields.first()?)?, prefix)))?
    });
    let (own, prefix) = own.min()?;
    Some(Way { interface: interface.to_owned(), address: own, prefix, gateway: GATEWAY6 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";

    fn hex(address: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(address))
    }

    fn route(interface: &str, net: [u8; 4], gateway: [u8; 4], metric: u32, mask: [u8; 4]) -> String {
        format!("{interface}\t{}\t{}\t0001\t0\t0\t{metric}\t{}\t0\t0\t0\n", hex(net), hex(gateway), hex(mask))
    }

    #[test]
    fn the_best_default_route_is_taken_with_the_address_on_it() {
        let routes = [
            HEADER.to_owned(),
            route("wlan0", [0; 4], [10, 0, 0, 1], 600, [0; 4]),
            route("eth0", [0; 4], [192, 0, 2, 1], 100, [0; 4]),
            route("eth0", [192, 0, 2, 0], [0; 4], 100, [255, 255, 255, 0]),
        ];
        let way = ipv4(&routes.concat(), |_| Some(Ipv4Addr::new(192, 0, 2, 7))).unwrap();
        assert_eq!((way.interface.as_str(), way.prefix), ("eth0", 24));
        assert_eq!(way.gateway, Ipv4Addr::new(192, 0, 2, 1));
    }

    #[test]
    fn a_point_to_point_address_still_has_a_gateway_beside_it() {
        let routes = [HEADER.to_owned(), route("ens3", [0; 4], [172, 31, 1, 1], 0, [0; 4])];
        let way = ipv4(&routes.concat(), |_| Some(Ipv4Addr::new(203, 0, 113, 5))).unwrap();
        assert_eq!((way.prefix, way.gateway), (30, Ipv4Addr::new(203, 0, 113, 4)));
    }

    #[test]
    fn the_networks_that_the_machine_is_in_are_found() {
        let routes = [
            HEADER.to_owned(),
            route("eth0", [0; 4], [192, 0, 2, 1], 100, [0; 4]),
            route("eth0", [192, 0, 2, 0], [0; 4], 100, [255, 255, 255, 0]),
            route("eth0", [198, 51, 100, 0], [192, 0, 2, 1], 100, [255, 255, 255, 0]),
            route("eth0", [169, 254, 0, 0], [0; 4], 1000, [255, 255, 0, 0]),
            route("vm-7", [10, 213, 0, 56], [0; 4], 0, [255, 255, 255, 252]),
        ];
        let (zero, network) = ("0".repeat(32), format!("20010db8{}", "0".repeat(24)));
        let six = [
            format!("{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 1 0 00000003 eth0\n"),
            format!("{network} 40 {zero} 00 {zero} 00000100 1 0 00000001 eth0\n"),
            format!("fe80{} 40 {zero} 00 {zero} 00000100 1 0 00000001 eth0\n", "0".repeat(28)),
            format!("{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo\n"),
        ];
        let found = neighbours(&routes.concat(), &six.concat());
        let wanted: [(IpAddr, u8); 2] = [([192, 0, 2, 0].into(), 24), ("2001:db8::".parse().unwrap(), 64)];
        assert_eq!(found, wanted);
        assert_eq!(neighbours("garbage\ngarbage", "garbage"), []);
    }

    #[test]
    fn every_address_of_the_machine_is_found() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 127.0.0.1\n        \
                    /32 host LOCAL\n        |-- 192.0.2.2\n           /32 host LOCAL\n        |-- 192.0.2.255\n           \
                    /32 link BROADCAST\n";
        let global = format!("fd00{}2 04 40 00 80 eth0\n", "0".repeat(27));
        let found: Vec<String> = addresses(trie, &global).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.1", "192.0.2.2", "fd00::2"]);
    }

    #[test]
    fn without_a_default_route_there_is_no_way() {
        assert_eq!(ipv4(HEADER, |_| Some(Ipv4Addr::LOCALHOST)), None);
        assert_eq!(ipv4("garbage\ngarbage x y\n", |_| None), None);
        assert_eq!(ipv6("", ""), None);
    }

    #[test]
    fn an_ipv6_way_needs_a_global_address_on_the_default_route_s_interface() {
        let zero = "0".repeat(32);
        let routes =
            format!("{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 1 0 00000003 eth0\n");
        let local = format!("fe80{}2 04 40 20 80 eth0\n", "0".repeat(27));
        assert_eq!(ipv6(&routes, &local), None);
        let global = format!("{local}fd00{}2 04 40 00 80 eth0\n", "0".repeat(27));
        let way = ipv6(&routes, &global).unwrap();
        assert_eq!((way.address, way.prefix), ("fd00::2".parse().unwrap(), 64));
    }
}
