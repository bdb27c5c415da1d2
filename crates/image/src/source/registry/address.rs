//! Which addresses may be spoken to on a registry's word.
//!
//! A registry's answers send the client elsewhere: by redirects, and by the realm that gives out tokens. On a
//! public registry's word nothing on this machine or in its network is spoken to, because such a request would
//! come from inside. The check is made on the addresses that a name resolves to, right where the connection is
//! made, so that a name can't be one thing when it is checked and another when it is used.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use thiserror::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How far an address reaches (IANA special-purpose address registries).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Anywhere on the internet.
    Public,
    /// This network only: private, shared, unique local and reserved addresses.
    Private,
    /// This link only, where clouds keep their metadata services.
    LinkLocal,
    /// This machine only.
    Loopback,
    /// No single machine: multicast and broadcast.
    Nowhere,
}

/// Tells how far an address reaches; an IPv4 address within an IPv6 one counts as what it is.
pub(crate) fn scope(address: IpAddr) -> Scope {
    match address {
        IpAddr::V4(address) => scope_v4(address),
        IpAddr::V6(address) => scope_v6(address),
    }
}

fn scope_v4(address: Ipv4Addr) -> Scope {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (127 | 0, ..) => Scope::Loopback,
        (169, 254, _) => Scope::LinkLocal,
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Scope::Private,
        (100, 64..=127, _) | (192, 0, 0 | 2) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => {
            Scope::Private
        }
        (224..=239, ..) => Scope::Nowhere,
        (240..=255, ..) => Scope::Nowhere,
        _ => Scope::Public,
    }
}

fn scope_v6(address: Ipv6Addr) -> Scope {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        scope_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Scope::Loopback,
        // IPv4-mapped, IPv4-compatible, NAT64 and 6to4.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => embedded(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        [first, ..] => match first {
            0xfe80..=0xfebf => Scope::LinkLocal,
            0xfec0..=0xfeff | 0xfc00..=0xfdff => Scope::Private,
            0xff00..=0xffff => Scope::Nowhere,
            0x2000..=0x3fff if segments[0] == 0x2001 && segments[1] == 0xdb8 => Scope::Private,
            0x2000..=0x3fff => Scope::Public,
            _ => Scope::Private,
        },
    }
}

/// Tells whether a registry of scope `registry` may send the client to `address`.
///
/// Public addresses always; others only from a registry that is as near itself. A registry on this machine may
/// use this network too, but no registry reaches a link's own services unless it is one.
pub(crate) fn may_contact(registry: Scope, address: IpAddr) -> bool {
    match (registry, scope(address)) {
        (_, Scope::Nowhere) => false,
        (_, Scope::Public) => true,
        (Scope::Loopback, Scope::Loopback | Scope::Private) => true,
        (Scope::Private, Scope::Private) => true,
        (Scope::LinkLocal, Scope::LinkLocal) => true,
        _ => false,
    }
}

/// Tells whether a host means this machine by its own name.
pub(crate) fn is_loopback_name(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost") || bare.to_ascii_lowercase().ends_with(".localhost"),
    }
}

/// Resolves names and leaves out what a registry may not send the client to.
pub(crate) struct Gate {
    registry: String,
    scope: Mutex<Option<Scope>>,
    resolver: DefaultResolver,
}

impl Gate {
    /// Makes a gate for the registry with this host, in brackets if it is an IPv6 address.
    pub(crate) fn new(registry: &str) -> Gate {
        Gate {
            registry: registry.to_ascii_lowercase(),
            scope: Mutex::new(None),
            resolver: DefaultResolver::default(),
        }
    }

    fn allowed(&self, host: &str, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut pinned = self.scope.lock().unwrap_or_else(PoisonError::into_inner);
        let host = host.to_ascii_lowercase();
        // A name of this machine means this machine, whatever a resolver says.
        let is_here = is_loopback_name(&host);
        let addresses: Vec<SocketAddr> =
            addresses.iter().copied().filter(|at| !is_here || scope(at.ip()) == Scope::Loopback).collect();
        if host == self.registry && pinned.is_none() {
            // The furthest of its addresses: a name that resolves both to the internet and to this machine is
            // no registry of this machine.
            let scopes: Vec<Scope> = addresses.iter().map(|address| scope(address.ip())).collect();
            let order = [Scope::Public, Scope::Private, Scope::LinkLocal, Scope::Loopback];
            *pinned = order.into_iter().find(|scope| scopes.contains(scope));
        }
        let registry = pinned.unwrap_or(Scope::Public);
        addresses.into_iter().filter(|address| may_contact(registry, address.ip())).collect()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Resolver for Gate {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let addresses = self.resolver.resolve(uri, config, timeout)?;
        let host = uri.host().unwrap_or_default();
        let allowed = self.allowed(host, &addresses);
        let Some(first) = addresses.iter().next().filter(|_| allowed.is_empty()) else {
            let mut answer = self.empty();
            for address in allowed {
                answer.push(address);
            }
            return Ok(answer);
        };
        let forbidden = Forbidden { host: host.to_owned(), address: first.ip() };
        Err(ureq::Error::Io(io::Error::new(io::ErrorKind::PermissionDenied, forbidden)))
    }
}

/// An address that the registry may not send the client to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{host} is at {address}, which a registry elsewhere may not send anybody to")]
pub struct Forbidden {
    pub(crate) host: String,
    pub(crate) address: IpAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_sends_nobody_nearer_than_it_is_itself() {
        use Scope::{LinkLocal, Loopback, Private, Public};
        let table: [(&str, [bool; 4]); 26] = [
            // address, from a registry that is [public, private, link-local, loopback]
            ("1.1.1.1", [true, true, true, true]),
            ("2606:4700::1111", [true, true, true, true]),
            ("127.0.0.1", [false, false, false, true]),
            ("127.255.0.9", [false, false, false, true]),
            ("0.0.0.0", [false, false, false, true]),
            ("::1", [false, false, false, true]),
            ("::", [false, false, false, true]),
            ("::ffff:127.0.0.1", [false, false, false, true]),
            ("64:ff9b::7f00:1", [false, false, false, true]),
            ("2002:7f00:1::", [false, false, false, true]),
            ("10.1.2.3", [false, true, false, true]),
            ("172.16.0.1", [false, true, false, true]),
            ("172.32.0.1", [true, true, true, true]),
            ("192.168.1.1", [false, true, false, true]),
            ("100.64.0.1", [false, true, false, true]),
            ("198.18.0.1", [false, true, false, true]),
            ("fd00::1", [false, true, false, true]),
            ("::ffff:10.0.0.1", [false, true, false, true]),
            ("2001:db8::1", [false, true, false, true]),
            ("169.254.169.254", [false, false, true, false]),
            ("::ffff:169.254.169.254", [false, false, true, false]),
            ("fe80::1", [false, false, true, false]),
            ("224.0.0.1", [false, false, false, false]),
            ("255.255.255.255", [false, false, false, false]),
            ("ff02::1", [false, false, false, false]),
            ("240.0.0.1", [false, false, false, false]),
        ];
        for (address, expected) in table {
            let address: IpAddr = address.parse().unwrap();
            let found = [Public, Private, LinkLocal, Loopback].map(|registry| may_contact(registry, address));
            assert_eq!(found, expected, "{address}");
        }
    }

    #[test]
    fn a_registrys_scope_is_that_of_its_furthest_address_and_stays() {
        let socket = |text: &str| SocketAddr::new(text.parse().unwrap(), 443);
        let gate = Gate::new("registry.example");
        let both = [socket("127.0.0.1"), socket("1.1.1.1")];
        assert_eq!(gate.allowed("registry.example", &both), [socket("1.1.1.1")]);
        // The name moves to this machine between two requests.
        assert_eq!(gate.allowed("registry.example", &[socket("127.0.0.1")]), []);
        assert_eq!(gate.allowed("cdn.example", &[socket("10.0.0.1")]), []);
        let near = Gate::new("localhost");
        assert_eq!(near.allowed("localhost", &both), [socket("127.0.0.1")]);
        assert_eq!(near.allowed("storage.lan", &[socket("10.0.0.1")]), [socket("10.0.0.1")]);
    }

    #[test]
    fn before_the_registry_is_known_to_be_near_nothing_near_is_spoken_to() {
        let gate = Gate::new("registry.example");
        assert_eq!(gate.allowed("auth.example", &[SocketAddr::new("127.0.0.1".parse().unwrap(), 80)]), []);
    }

    #[test]
    fn names_of_this_machine_are_known() {
        for name in ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.3.4.5", "[::1]"] {
            assert!(is_loopback_name(name), "{name}");
        }
        for name in ["localhost.example", "10.0.0.1", "example.org", "0.0.0.0", "127.0.0.1.example"] {
            assert!(!is_loopback_name(name), "{name}");
        }
    }
}
