//! Whom a guest may reach, and who may reach it: decided for each frame, from the frame, the policy and what passed before.
//!
//! Whatever the policy says, a guest is held to its own addresses, and never reaches the host itself, loopback, link-local,
//! multicast and broadcast addresses, or where clouds keep their metadata.
//!
//! Of TCP only the segments that open a connection are judged: `passt` knows its connections and drops what belongs to none.
//! UDP has no connections, so what was asked is remembered for a while, and its answers pass.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::packet::{self, Carries, Frame, Packet};
use crate::driver::Mac;
use crate::network::questions::{REFUSED, without_answer};
use crate::network::route::Host;
use crate::network::{GuestNetwork, Policy, Protocol, Who, inside, is_in, is_public, is_special};

/// How long the host's addresses are believed to be the same.
const LOOKED: Duration = Duration::from_secs(1);
/// The port of name servers.
const DNS: u16 = 53;
/// How long an exchange of UDP is remembered after its last datagram (RFC 4787, REQ-5).
const EXCHANGE: Duration = Duration::from_secs(300);
/// The most exchanges, and the most addresses of names, that are remembered.
const REMEMBERED: usize = 4096;

/// What becomes of a frame of the guest's.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Drop,
    /// It is dropped, and the guest gets this frame, which says so.
    Answer(Vec<u8>),
}

/// Two ends of an exchange: the other's address and port, and the guest's port.
type Exchange = (IpAddr, u16, u16);

/// A policy, who it is for, and what it remembers.
#[derive(Debug)]
pub(super) struct Gate {
    policy: Policy,
    mac: Mac,
    /// The guest's addresses.
    addresses: Vec<IpAddr>,
    /// The host's addresses and networks, when they were looked up.
    host: Host,
    looked: Option<Instant>,
    look: fn() -> Host,
    /// The guest's UDP ports that the host answers on. passt hands the guest what comes to any other that it has sent from, too.
    published: Vec<u16>,
    /// Where the guest asks for names.
    dns: Vec<IpAddr>,
    /// Until when each exchange of UDP is remembered.
    exchanges: HashMap<Exchange, Instant>,
    /// Until when an address holds for a rule, by the rule's place.
    named: HashMap<(usize, IpAddr), Instant>,
}

impl Gate {
    /// `look` finds the host's addresses and networks, which may change; `published` are the guest's UDP ports that may be called.
    pub(super) fn new(
        policy: Policy,
        mac: Mac,
        guest: &GuestNetwork,
        published: Vec<u16>,
        look: fn() -> Host,
    ) -> Self {
        let four = guest.ipv4.map(|(address, _, _)| address.into());
        let six = guest.ipv6.map(|(address, _, _)| address.into());
        Self {
            policy,
            mac,
            addresses: four.into_iter().chain(six).collect(),
            host: Host::default(),
            looked: None,
            look,
            published,
            dns: guest.dns.clone(),
            exchanges: HashMap::new(),
            named: HashMap::new(),
        }
    }

    /// Judges a frame of the guest's.
    pub(super) fn outwards(&mut self, frame: &[u8], now: Instant) -> Verdict {
        let passes = |passes| if passes { Verdict::Pass } else { Verdict::Drop };
        if packet::sender(frame) != Some(self.mac) {
            return Verdict::Drop;
        }
        match packet::read(frame) {
            Some(Frame::Arp(sender)) => {
                passes(sender.is_unspecified() || self.addresses.contains(&sender.into()))
            }
            Some(Frame::Packet(Packet { from, to, carries: Carries::Neighbour(kind) })) => {
                passes(self.finds_neighbour(from, to, kind))
            }
            Some(Frame::Packet(packet)) if self.addresses.contains(&packet.from) => {
                match self.dns.contains(&packet.to) {
                    true => self.asks(frame, &packet, now),
                    false if self.reaches(&packet, now) => Verdict::Pass,
                    false => packet::prohibited(frame).map_or(Verdict::Drop, Verdict::Answer),
                }
            }
            Some(Frame::Packet(_)) | None => Verdict::Drop,
        }
    }

    /// Only questions and answers of neighbours, on the link: no advertisement of a router, no redirect.
    fn finds_neighbour(&self, from: IpAddr, to: IpAddr, kind: u8) -> bool {
        let on_link = |address: IpAddr| match address {
            IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
            IpAddr::V4(_) => false,
        };
        let is_own = from.is_unspecified() || on_link(from) || self.addresses.contains(&from);
        matches!(kind, 133 | 135 | 136) && is_own && on_link(to)
    }

    /// Looks the host's addresses up again, if that is long ago.
    fn look(&mut self, now: Instant) {
        let is_old = |looked: Instant| now.saturating_duration_since(looked) > LOOKED;
        if self.looked.is_none_or(is_old) {
            self.host = (self.look)();
            self.looked = Some(now);
        }
    }

    fn reaches(&mut self, packet: &Packet<'_>, now: Instant) -> bool {
        if matches!(packet.carries, Carries::Tcp { opens: false, .. }) {
            // A part of a connection that was judged when it was opened.
            return !is_special(packet.to);
        }
        self.look(now);
        if self.is_never_reached(packet.to) {
            return false;
        }
        match packet.carries {
            Carries::Tcp { to, .. } => self.allows(packet.to, Some((Protocol::Tcp, to)), now),
            Carries::Udp { from, to, .. } => {
                let exchange = (packet.to, to, from);
                let goes_on = self.exchanges.get(&exchange).is_some_and(|until| *until > now);
                let passes = goes_on || self.allows(packet.to, Some((Protocol::Udp, to)), now);
                if passes {
                    remember(&mut self.exchanges, exchange, EXCHANGE, now);
                }
                passes
            }
            Carries::Ping => self.allows(packet.to, None, now),
            Carries::Neighbour(_) | Carries::Icmp => false,
        }
    }

    fn is_never_reached(&self, to: IpAddr) -> bool {
        is_special(to)
            || self.host.addresses.contains(&to)
            || inside(to).is_some_and(|to| self.host.addresses.contains(&to.into()))
    }

    /// Whether somebody is in a network of the host's.
    fn is_neighbour(&self, to: IpAddr) -> bool {
        self.host.neighbours.iter().any(|(network, prefix)| is_in(to, *network, *prefix))
    }

    /// Whether a rule lets it through: to a port, or what has no ports.
    fn allows(&self, to: IpAddr, port: Option<(Protocol, u16)>, now: Instant) -> bool {
        self.policy.to.iter().enumerate().any(|(place, rule)| {
            let is_meant = match &rule.who {
                Who::Any => true,
                Who::Public => is_public(to) && !self.is_neighbour(to),
                Who::Network(network, prefix) => is_in(to, *network, *prefix),
                Who::Name(_) => self.named.get(&(place, to)).is_some_and(|until| *until > now),
            };
            let fits = match port {
                Some((protocol, port)) => {
                    rule.protocol.is_none_or(|wanted| wanted == protocol)
                        && rule.ports.is_none_or(|(first, last)| (first..=last).contains(&port))
                }
                None => rule.protocol.is_none() && rule.ports.is_none(),
            };
            is_meant && fits
        })
    }

    /// Judges what the guest sends to its name server.
    fn asks(&mut self, frame: &[u8], packet: &Packet<'_>, now: Instant) -> Verdict {
        match packet.carries {
            Carries::Udp { from, to: DNS, payload } => match self.policy.may_ask(payload) {
                true => {
                    remember(&mut self.exchanges, (packet.to, DNS, from), EXCHANGE, now);
                    Verdict::Pass
                }
                false => refusal(frame, payload).map_or(Verdict::Drop, Verdict::Answer),
            },
            // What is asked over TCP isn't seen, so that is for those who may ask for everything.
            Carries::Tcp { to: DNS, .. } if self.policy.is_open() => Verdict::Pass,
            _ => Verdict::Drop,
        }
    }

    /// Judges a frame for the guest, and learns from it.
    pub(super) fn inwards(&mut self, frame: &[u8], now: Instant) -> bool {
        let Some(Frame::Packet(packet)) = packet::read(frame) else {
            // passt's own ARP; and what this doesn't understand opens nothing.
            return true;
        };
        match packet.carries {
            Carries::Tcp { opens: true, .. } => self.may_call(packet.from),
            Carries::Udp { from, to, payload } => {
                let exchange = (packet.from, from, to);
                let is_answer = self.exchanges.get(&exchange).is_some_and(|until| *until > now);
                if is_answer && from == DNS && self.dns.contains(&packet.from) {
                    self.learn(payload, now);
                }
                let passes = is_answer || (self.published.contains(&to) && self.may_call(packet.from));
                if passes {
                    remember(&mut self.exchanges, exchange, EXCHANGE, now);
                }
                passes
            }
            _ => true,
        }
    }

    fn may_call(&self, from: IpAddr) -> bool {
        let Some(networks) = &self.policy.from else { return true };
        networks.iter().any(|(network, prefix)| is_in(from, *network, *prefix))
    }

    /// Takes the addresses of a name that a rule names out of a name server's answer.
    fn learn(&mut self, payload: &[u8], now: Instant) {
        for (rule, address, holds) in self.policy.learned(payload) {
            remember(&mut self.named, (rule, address), holds, now);
        }
    }
}

/// Remembers something for so long; of too much, first what is over is forgotten, then all.
fn remember<K: std::hash::Hash + Eq>(known: &mut HashMap<K, Instant>, key: K, holds: Duration, now: Instant) {
    if known.len() >= REMEMBERED && !known.contains_key(&key) {
        known.retain(|_, until| *until > now);
        if known.len() >= REMEMBERED {
            known.clear();
        }
    }
    known.insert(key, now.checked_add(holds).unwrap_or(now));
}

/// A name server's refusal of a question, back to who asked.
fn refusal(frame: &[u8], question: &[u8]) -> Option<Vec<u8>> {
    packet::answer(frame, &without_answer(question, REFUSED)?)
}

#[cfg(test)]
mod tests;
