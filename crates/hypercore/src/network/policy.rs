//! Whom a guest may reach, and who may reach it, whatever holds it to that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::Protocol;

/// Where clouds keep their metadata, beside the link-local 169.254.169.254: Azure, Alibaba and Oracle; Amazon and Google.
pub(crate) const METADATA4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
pub(crate) const METADATA6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];
/// Whom a guest may reach, and who may reach its published ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Whom it may reach; nobody if empty.
    pub to: Vec<Rule>,
    /// Who may reach it: networks, by their first bits; none for everybody.
    pub from: Option<Vec<(IpAddr, u8)>>,
    /// The most bits in a second that it may send.
    pub out_bits: Option<u64>,
    /// The most bits in a second that it may receive.
    pub in_bits: Option<u64>,
}

/// Somebody who may be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Who.
    pub who: Who,
    /// The first and the last port; none for all, and for what has no ports.
    pub ports: Option<(u16, u16)>,
    /// The protocol; none for both.
    pub protocol: Option<Protocol>,
}

/// Who a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// Everybody.
    Any,
    /// The public internet.
    Public,
    /// A network, by its first bits.
    Network(IpAddr, u8),
    /// The public addresses of a name in lower case, without its last dot; `*.` before it stands for further labels.
    Name(String),
}

impl Default for Policy {
    /// The public internet, and everybody from outside.
    fn default() -> Self {
        let public = Rule { who: Who::Public, ports: None, protocol: None };
        Self { to: vec![public], from: None, out_bits: None, in_bits: None }
    }
}

impl Policy {
    /// Whether names other than those in it may be looked up.
    pub(crate) fn is_open(&self) -> bool {
        self.to.iter().any(|rule| matches!(rule.who, Who::Any | Who::Public))
    }
}

/// Whether an address is one of the public internet, by IANA's registries of special-purpose addresses. Networks for
/// documentation count as public: nobody has them.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public4(address),
        IpAddr::V6(address) => {
            let [a, b, ..] = address.segments();
            match (a, b) {
                // As good as the address inside.
                (0x64, 0xff9b) | (0x2002, _) => inside(address.into()).is_some_and(is_public4),
                // Teredo (RFC 4380) and other protocols' own networks.
                (0x2001, 0..=0x1ff) => false,
                _ => a & 0xe000 == 0x2000,
            }
        }
    }
}

/// The IPv4 address in one of IPv6 that is translated to it on the way (RFC 6052), or is of 6to4 (RFC 3056).
pub(crate) fn inside(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b) {
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => Some(embedded(g, h)),
        (0x2002, _) => Some(embedded(b, c)),
        _ => None,
    }
}

/// Whether an address is of those that nobody is sent to: loopback, unspecified, broadcast, multicast, link-local, metadata.
pub(crate) fn is_special(to: IpAddr) -> bool {
    match to {
        IpAddr::V4(to) => {
            to.is_loopback()
                || to.is_broadcast()
                || to.is_multicast()
                || to.is_link_local()
                || to.octets()[0] == 0
                || METADATA4.contains(&to)
        }
        IpAddr::V6(to) => {
            // ::/96 and ::ffff:0:0/96 hold IPv4 addresses, ::1 and :: too.
            let [high @ .., _, _] = to.segments();
            let old = high[..5] == [0; 5] && [0, 0xffff].contains(&high[5]);
            let special = old || METADATA6.contains(&to) || to.is_multicast() || to.is_unicast_link_local();
            special || inside(to.into()).is_some_and(|to| is_special(to.into()))
        }
    }
}

fn is_public4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(matches!(
        (a, b),
        (0 | 10 | 127 | 224.., _) | (100, 64..=127) | (169, 254) | (172, 16..=31) | (192, 168)
    ) || matches!((a, b, c), (192, 0, 0) | (198, 18 | 19, _)))
}

/// Whether the first bits of an address are those of a network.
pub(crate) fn is_in(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let same = |a: u128, b: u128, bits: u32| {
        let cut = bits.saturating_sub(prefix.into());
        a.checked_shr(cut).unwrap_or(0) == b.checked_shr(cut).unwrap_or(0)
    };
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
        _ => false,
    }
}

/// Whether a rule's name, perhaps with `*.` before it, stands for this one.
pub(crate) fn names(rule: &str, name: &str) -> bool {
    match rule.strip_prefix("*.") {
        Some(rest) => name.strip_suffix(rest).is_some_and(|first| first.len() > 1 && first.ends_with('.')),
        None => rule == name,
    }
}
