//! Which addresses a spacecore has: a block of 8 of IPv4, and a /64 of IPv6, by its number.
//!
//! ```text
//!            .1 vm-K   up .2                .5 guest   eth0 .6
//!  machine  ---------------  gateway S  ---------------------  spacecore
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// How many spacecores can have an address at a time.
pub(super) const NUMBERS: u16 = 8192;
/// The networks that one is chosen from: parts of 10.0.0.0/8 and 172.16.0.0/12 that few people use.
pub(super) const NETWORKS: [Ipv4Addr; 5] = [
    Ipv4Addr::new(10, 213, 0, 0),
    Ipv4Addr::new(10, 177, 0, 0),
    Ipv4Addr::new(10, 241, 0, 0),
    Ipv4Addr::new(172, 29, 0, 0),
    Ipv4Addr::new(172, 22, 0, 0),
];
/// The IPv6 network of all (RFC 4193). It never leaves the machine.
pub(super) const NETWORK6: Ipv6Addr = Ipv6Addr::new(0xfd76, 0x696d, 0x616e, 0, 0, 0, 0, 0);
/// The lengths of their prefixes.
pub(super) const NETWORK_PREFIX: u8 = 16;
/// The same of IPv6.
pub(super) const NETWORK6_PREFIX: u8 = 48;
/// The length of the prefix between two neighbours.
pub(super) const PREFIX4: u8 = 30;
/// The same of IPv6.
pub(super) const PREFIX6: u8 = 126;

/// Whose address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The machine's end, `vm-K`.
    Machine = 1,
    /// The gateway's, towards the machine.
    Up = 2,
    /// The gateway's, towards the spacecore.
    Gateway = 5,
    /// The spacecore's.
    Guest = 6,
}

/// A spacecore's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Addresses {
    /// Below [`NUMBERS`].
    pub(super) number: u16,
    /// One of [`NETWORKS`].
    pub(super) network: Ipv4Addr,
    /// Whether it has IPv6.
    pub(super) has_ipv6: bool,
}

impl Addresses {
    pub(super) fn ipv4(self, place: Place) -> Ipv4Addr {
        let offset = u32::from(self.number % NUMBERS).saturating_mul(8).saturating_add(place as u32);
        Ipv4Addr::from(u32::from(self.network).saturating_add(offset))
    }

    pub(super) fn ipv6(self, place: Place) -> Option<Ipv6Addr> {
        let [a, b, c, ..] = NETWORK6.segments();
        self.has_ipv6.then(|| Ipv6Addr::new(a, b, c, self.number, 0, 0, 0, place as u16))
    }

    /// Both, with the lengths of their prefixes.
    pub(super) fn all(self, place: Place) -> Vec<(IpAddr, u8)> {
        let six = self.ipv6(place).map(|address| (address.into(), PREFIX6));
        std::iter::once((self.ipv4(place).into(), PREFIX4)).chain(six).collect()
    }

    /// What matches the addresses of all spacecores and nobody else's, in nftables' words: mask and value.
    pub(super) fn spacecores4(self) -> (Ipv4Addr, Ipv4Addr) {
        let network = u32::from(self.network);
        (Ipv4Addr::new(255, 255, 0, 7), Ipv4Addr::from(network.saturating_add(Place::Guest as u32)))
    }

    /// The same of IPv6.
    pub(super) fn spacecores6() -> (Ipv6Addr, Ipv6Addr) {
        const ALL: u16 = 0xffff;
        let [a, b, c, ..] = NETWORK6.segments();
        let value = Ipv6Addr::new(a, b, c, 0, 0, 0, 0, Place::Guest as u16);
        (Ipv6Addr::new(ALL, ALL, ALL, 0, ALL, ALL, ALL, ALL), value)
    }

    /// The machine's interface.
    pub(super) fn interface(self) -> String {
        format!("vm-{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_spacecores_share_an_address_and_the_mask_matches_spacecores_alone() {
        let of = |number| Addresses { number, network: NETWORKS[0], has_ipv6: true };
        assert_eq!(of(0).ipv4(Place::Guest), Ipv4Addr::new(10, 213, 0, 6));
        assert_eq!(of(NUMBERS - 1).ipv4(Place::Machine), Ipv4Addr::new(10, 213, 255, 249));
        assert_eq!(of(7).ipv6(Place::Guest).unwrap().to_string(), "fd76:696d:616e:7::6");
        let (mask, value) = of(0).spacecores4();
        let matches = |address: Ipv4Addr| u32::from(address) & u32::from(mask) == u32::from(value);
        for number in [0, 1, 4711, NUMBERS - 1] {
            assert!(matches(of(number).ipv4(Place::Guest)));
            for place in [Place::Machine, Place::Up, Place::Gateway] {
                assert!(!matches(of(number).ipv4(place)));
            }
        }
    }
}
