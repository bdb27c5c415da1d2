//! What two peers have in common.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Peer, Who, bits, masked};

/// Networks of IPv4 that aren't of the public internet (IANA's registry of special-purpose addresses).
const SPECIAL4: [(Ipv4Addr, u8); 11] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];
/// The public internet's network of IPv6, less these. 6to4 is among them, since what is public there hangs on the address of
/// IPv4 in it.
const PUBLIC6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
const SPECIAL6: [(Ipv6Addr, u8); 2] =
    [(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16)];

impl Peer {
    /// Gives what both allow, and nothing that one of them doesn't. A name and a network have nothing in common that could be
    /// known beforehand; a network and the public internet have the network's public parts.
    #[must_use]
    pub fn both(&self, other: &Self) -> Vec<Self> {
        let Some(ports) = (match (self.ports, other.ports) {
            (Some((a, b)), Some((c, d))) => {
                Some((a.max(c), b.min(d))).filter(|(first, last)| first <= last).map(Some)
            }
            (ports, None) | (None, ports) => Some(ports),
        }) else {
            return Vec::new();
        };
        let protocol = match (self.protocol, other.protocol) {
            (Some(one), Some(two)) if one != two => return Vec::new(),
            (one, two) => one.or(two),
        };
        // Behind a network of IPv6 no ports can be written, but its addresses' can be judged.
        let peer = |who: Who| Self { who, ports, protocol };
        self.who.both(&other.who).into_iter().map(peer).collect()
    }
}

impl Who {
    fn both(&self, other: &Self) -> Vec<Self> {
        match (self, other) {
            (Self::Any, who) | (who, Self::Any) => vec![who.clone()],
            (Self::Public, Self::Public) => vec![Self::Public],
            // A name stands for public addresses anyway.
            (Self::Public, name @ Self::Name(_)) | (name @ Self::Name(_), Self::Public) => vec![name.clone()],
            (Self::Public, Self::Network(address, prefix))
            | (Self::Network(address, prefix), Self::Public) => {
                let mut parts = Vec::new();
                public_parts(*address, *prefix, &mut parts);
                parts
            }
            (Self::Network(one, short), Self::Network(two, long)) => {
                let (outer, inner) = if short <= long {
                    ((*one, *short), (*two, *long))
                } else {
                    ((*two, *long), (*one, *short))
                };
                match contains(outer, inner) {
                    true => vec![Self::Network(inner.0, inner.1)],
                    false => Vec::new(),
                }
            }
            (Self::Network(..), Self::Name(_)) | (Self::Name(_), Self::Network(..)) => Vec::new(),
            (Self::Name(one), Self::Name(two)) => {
                if one == two || stands_for(one, two) {
                    vec![Self::Name(two.clone())]
                } else if stands_for(two, one) {
                    vec![Self::Name(one.clone())]
                } else {
                    Vec::new()
                }
            }
        }
    }
}

/// Whether `*.` and a name stands for all that another name does.
fn stands_for(pattern: &str, name: &str) -> bool {
    let Some(rest) = pattern.strip_prefix("*.") else { return false };
    let plain = name.strip_prefix("*.").unwrap_or(name);
    let below = plain.strip_suffix(rest).is_some_and(|first| first.len() > 1 && first.ends_with('.'));
    // `*.example.org` doesn't stand for example.org itself, and another one with a star never does either.
    below || (name.starts_with("*.") && plain == rest)
}

/// Whether a network's addresses are all in another one.
fn contains((outer, short): (IpAddr, u8), (inner, long): (IpAddr, u8)) -> bool {
    outer.is_ipv4() == inner.is_ipv4() && short <= long && masked(inner, short) == outer
}

/// Splits a network until each part is public or isn't.
fn public_parts(address: IpAddr, prefix: u8, parts: &mut Vec<Who>) {
    let network = (address, prefix);
    let special: Vec<(IpAddr, u8)> = match address {
        IpAddr::V4(_) => SPECIAL4.iter().map(|(address, prefix)| (IpAddr::from(*address), *prefix)).collect(),
        IpAddr::V6(_) => {
            let public = (IpAddr::from(PUBLIC6.0), PUBLIC6.1);
            if !contains(public, network) {
                if contains(network, public) {
                    public_parts(public.0, public.1, parts);
                }
                return;
            }
            SPECIAL6.iter().map(|(address, prefix)| (IpAddr::from(*address), *prefix)).collect()
        }
    };
    if special.iter().any(|special| contains(*special, network)) {
        return;
    }
    if !special.iter().any(|special| contains(network, *special)) {
        parts.push(Who::Network(address, prefix));
        return;
    }
    // A network that holds a longer one has a bit left to split by.
    let Some(longer) = prefix.checked_add(1).filter(|longer| *longer <= bits(address)) else { return };
    let upper = match address {
        IpAddr::V4(low) => {
            let bit = 1_u32.checked_shl(32_u32.saturating_sub(longer.into())).unwrap_or(0);
            IpAddr::from(Ipv4Addr::from(u32::from(low) | bit))
        }
        IpAddr::V6(low) => {
            let bit = 1_u128.checked_shl(128_u32.saturating_sub(longer.into())).unwrap_or(0);
            IpAddr::from(Ipv6Addr::from(u128::from(low) | bit))
        }
    };
    public_parts(address, longer, parts);
    public_parts(upper, longer, parts);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Transport;
    use super::*;

    fn both(one: &str, two: &str) -> Vec<String> {
        let (one, two): (Peer, Peer) = (one.parse().unwrap(), two.parse().unwrap());
        let mut found: Vec<String> = one.both(&two).iter().map(ToString::to_string).collect();
        let mut other: Vec<String> = two.both(&one).iter().map(ToString::to_string).collect();
        found.sort();
        other.sort();
        assert_eq!(found, other, "the order doesn't matter");
        found
    }

    #[test]
    fn what_two_peers_have_in_common_is_what_both_allow() {
        for (one, two, expected) in [
            ("any", "public:443", &["public:443"][..]),
            ("public", "api.example.org:443/tcp", &["api.example.org:443/tcp"]),
            ("10.0.0.0/8", "10.1.2.3:80", &["10.1.2.3:80"]),
            ("10.0.0.0/8", "11.0.0.0/8", &[]),
            ("10.0.0.0/8", "public", &[]),
            ("203.0.113.0/24", "public:80-90", &["203.0.113.0/24:80-90"]),
            ("192.0.0.0/23", "public", &["192.0.1.0/24"]),
            ("public:1-100", "public:50-200", &["public:50-100"]),
            ("public:1-100", "public:101", &[]),
            ("public/tcp", "public/udp", &[]),
            ("*.example.org", "a.b.example.org", &["a.b.example.org"]),
            ("*.example.org", "*.b.example.org", &["*.b.example.org"]),
            ("*.example.org", "example.org", &[]),
            ("*.example.org", "badexample.org", &[]),
            ("api.example.org", "198.51.100.7", &[]),
            ("::/0", "10.0.0.0/8", &[]),
            ("fd00::/8", "public", &[]),
        ] {
            assert_eq!(both(one, two), expected, "{one} and {two}");
        }
        assert!(both("0.0.0.0/0", "public").contains(&"8.0.0.0/7".to_owned()));
    }

    fn covers(peer: &Peer, to: IpAddr, port: u16, protocol: Transport) -> bool {
        let in_any =
            |networks: &[(IpAddr, u8)]| networks.iter().any(|network| contains(*network, (to, bits(to))));
        let who = match &peer.who {
            Who::Any => true,
            Who::Network(address, prefix) => in_any(&[(*address, *prefix)]),
            Who::Public => match to {
                IpAddr::V4(_) => !in_any(&SPECIAL4.map(|(address, prefix)| (address.into(), prefix))),
                IpAddr::V6(_) => {
                    in_any(&[(PUBLIC6.0.into(), PUBLIC6.1)])
                        && !in_any(&SPECIAL6.map(|(address, prefix)| (address.into(), prefix)))
                }
            },
            Who::Name(_) => false,
        };
        who && peer.ports.is_none_or(|(first, last)| (first..=last).contains(&port))
            && peer.protocol.is_none_or(|wanted| wanted == protocol)
    }

    fn peers() -> impl Strategy<Value = Peer> {
        let network = (any::<IpAddr>(), 0_u8..=32)
            .prop_map(|(address, prefix)| Who::Network(masked(address, prefix), prefix));
        let who = prop_oneof![Just(Who::Any), Just(Who::Public), network];
        let protocol = prop_oneof![Just(None), Just(Some(Transport::Tcp)), Just(Some(Transport::Udp))];
        (who, proptest::option::of((1_u16..100, 0_u16..100)), protocol).prop_map(|(who, ports, protocol)| {
            Peer { who, ports: ports.map(|(first, more)| (first, first + more)), protocol }
        })
    }

    proptest! {
        #[test]
        fn exactly_what_both_allow_is_allowed(
            one in peers(), two in peers(), address: IpAddr, port in 1_u16..220, tcp: bool, near: bool,
        ) {
            let protocol = if tcp { Transport::Tcp } else { Transport::Udp };
            // Half of the addresses lie in one of the two.
            let address = match (&one.who, near) {
                (Who::Network(network, prefix), true) if network.is_ipv4() == address.is_ipv4() => match (address, network) {
                    (IpAddr::V4(address), IpAddr::V4(network)) => {
                        let rest = u32::MAX.checked_shr((*prefix).into()).unwrap_or(0);
                        IpAddr::from(Ipv4Addr::from(u32::from(*network) | (u32::from(address) & rest)))
                    }
                    _ => address,
                },
                _ => address,
            };
            let allowed = one.both(&two).iter().any(|peer| covers(peer, address, port, protocol));
            let expected = covers(&one, address, port, protocol) && covers(&two, address, port, protocol);
            prop_assert_eq!(allowed, expected);
        }
    }
}
