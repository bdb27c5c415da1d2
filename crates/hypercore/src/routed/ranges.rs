//! The addresses that a rule of the kernel's is about, as ranges: the same that [`crate::network`] judges one by one.

use std::fmt::{Display, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::network::{METADATA4, METADATA6};

type Network4 = (Ipv4Addr, u8);

/// Nobody is sent there: this network, loopback, link-local, multicast, broadcast, metadata.
const SPECIAL4: [Network4; 5] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(255, 255, 255, 255), 32),
];
/// Not of the public internet, beside the special ones (IANA's registry of special-purpose addresses).
const PRIVATE4: [Network4; 7] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];
/// Of NAT64 (RFC 6052) and 6to4 (RFC 3056): an IPv4 address follows.
const NAT64: u128 = 0x0064_ff9b << 96;
const SIX_TO_FOUR: u128 = 0x2002 << 112;

fn special4() -> impl Iterator<Item = Network4> {
    SPECIAL4.into_iter().chain(METADATA4.map(|address| (address, 32)))
}

fn not_public4() -> impl Iterator<Item = Network4> {
    SPECIAL4.into_iter().chain(PRIVATE4)
}

/// IPv6 addresses that stand for these of IPv4.
fn standing_for(networks: impl Iterator<Item = Network4>) -> impl Iterator<Item = (u128, u128)> {
    networks.flat_map(|(network, prefix)| {
        let bits = u128::from(u32::from(network));
        let free = 32_u32.saturating_sub(prefix.into());
        let last4 = bits | 1_u128.checked_shl(free).map_or(0, |size| size.wrapping_sub(1));
        let low = |bits: u128| bits.wrapping_shl(80);
        [
            (NAT64 | bits, NAT64 | last4),
            (SIX_TO_FOUR | low(bits), SIX_TO_FOUR | low(last4) | low(1).wrapping_sub(1)),
        ]
    })
}

/// The elements of a set of the special addresses of IPv4.
pub(super) fn special_of_4() -> String {
    elements(special4().map(|(network, prefix)| format!("{network}/{prefix}")))
}

/// The elements of a set of the addresses of IPv4 that aren't public.
pub(super) fn not_public_of_4() -> String {
    elements(not_public4().map(|(network, prefix)| format!("{network}/{prefix}")))
}

/// Ranges of the special addresses of IPv6.
fn special6() -> Vec<(u128, u128)> {
    let own = [
        // ::/96 and ::ffff:0:0/96, loopback and IPv4's.
        (0, 0xffff_ffff),
        (0xffff << 32, (0xffff << 32) | 0xffff_ffff),
        // Link-local and multicast.
        (0xfe80 << 112, (0xfebf << 112) | low(112)),
        (0xff00 << 112, u128::MAX),
    ];
    let metadata = METADATA6.map(|address| (u128::from(address), u128::from(address)));
    own.into_iter().chain(metadata).chain(standing_for(special4())).collect()
}

/// Ranges of the addresses of IPv6 that aren't public: all but 2000::/3 and NAT64, without what is special in them.
fn not_public6() -> Vec<(u128, u128)> {
    let global = 0x2000_u128 << 112;
    let own = [
        (0, NAT64.wrapping_sub(1)),
        (NAT64 | 0x1_0000_0000, global.wrapping_sub(1)),
        (0x4000 << 112, u128::MAX),
        // Teredo (RFC 4380) and other protocols' own networks: 2001::/23.
        (0x2001 << 112, (0x2001 << 112) | (0x01ff << 96) | low(96)),
    ];
    own.into_iter().chain(standing_for(not_public4())).collect()
}

fn low(bits: u32) -> u128 {
    1_u128.wrapping_shl(bits).wrapping_sub(1)
}

/// The elements of a set of the special addresses of IPv6.
pub(super) fn special_of_6() -> String {
    elements(special6().into_iter().map(shown))
}

/// The elements of a set of the addresses of IPv6 that aren't public.
pub(super) fn not_public_of_6() -> String {
    elements(not_public6().into_iter().map(shown))
}

fn shown((first, last): (u128, u128)) -> String {
    let (first, last) = (Ipv6Addr::from(first), Ipv6Addr::from(last));
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// A list with commas.
pub(super) fn elements(all: impl Iterator<Item = impl Display>) -> String {
    all.fold(String::new(), |mut text, one| {
        let comma = if text.is_empty() { "" } else { ", " };
        // A text takes everything.
        let _ = write!(text, "{comma}{one}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::net::IpAddr;

    use super::*;
    use crate::network::{is_in, is_public, is_special};

    fn has4(networks: impl Iterator<Item = Network4>, address: Ipv4Addr) -> bool {
        networks.into_iter().any(|(network, prefix)| is_in(address.into(), network.into(), prefix))
    }

    fn has6(ranges: &[(u128, u128)], address: Ipv6Addr) -> bool {
        ranges.iter().any(|(first, last)| (*first..=*last).contains(&u128::from(address)))
    }

    /// Addresses at and beside the ends of every range.
    fn edges() -> Vec<IpAddr> {
        let four = special4().chain(not_public4()).flat_map(|(network, prefix)| {
            let first = u32::from(network);
            let last = first | 1_u32.checked_shl(32 - u32::from(prefix)).map_or(u32::MAX, |size| size - 1);
            [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                .map(|a| IpAddr::from(Ipv4Addr::from(a)))
        });
        let six = special6().into_iter().chain(not_public6()).flat_map(|(first, last)| {
            [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                .map(|a| IpAddr::from(Ipv6Addr::from(a)))
        });
        four.chain(six).collect()
    }

    fn assert_same(address: IpAddr) {
        let (special, not_public) = match address {
            IpAddr::V4(address) => (has4(special4(), address), has4(not_public4(), address)),
            IpAddr::V6(address) => (has6(&special6(), address), has6(&not_public6(), address)),
        };
        assert_eq!(special, is_special(address), "special: {address}");
        // What is special is refused before.
        assert!(special || not_public != is_public(address), "public: {address}");
    }

    #[test]
    fn ranges_end_where_the_judgement_of_single_addresses_changes() {
        edges().into_iter().for_each(assert_same);
    }

    proptest! {
        #[test]
        fn ranges_say_of_any_address_what_is_judged_of_it(
            four in any::<u32>(), six in any::<u128>(), within in 0_usize..4,
        ) {
            assert_same(Ipv4Addr::from(four).into());
            let start = [0, NAT64, SIX_TO_FOUR, 0x2001 << 112][within];
            assert_same(Ipv6Addr::from(six).into());
            assert_same(Ipv6Addr::from(start | (six & low([128, 32, 112, 112][within]))).into());
        }
    }
}
