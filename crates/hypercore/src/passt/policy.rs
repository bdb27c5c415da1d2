//! Whom a guest may reach, and who may reach it: decided for each frame, from the frame, the policy and what passed before.
//!
//! Whatever the policy says, a guest is held to its own addresses, and never reaches the host itself, loopback, link-local,
//! multicast and broadcast addresses, or where clouds keep their metadata.
//!
//! Of TCP only the segments that open a connection are judged: `passt` knows its connections and drops what belongs to none.
//! UDP has no connections, so what was asked is remembered for a while, and its answers pass.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use simple_dns::rdata::RData;

use super::packet::{self, Carries, Frame, Packet};
use super::{GuestNetwork, Protocol};
use crate::driver::Mac;

/// Where clouds keep their metadata, beside the link-local 169.254.169.254: Azure, Alibaba and Oracle; Amazon and Google.
const METADATA4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];
/// How long the host's addresses are believed to be the same.
const LOOKED: Duration = Duration::from_secs(1);
/// The port of name servers.
const DNS: u16 = 53;
/// How long an exchange of UDP is remembered after its last datagram (RFC 4787, REQ-5).
const EXCHANGE: Duration = Duration::from_secs(300);
/// How long a name's address holds, whatever its answer says: programs keep addresses a little longer than they should.
const NAME: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// The most exchanges, and the most addresses of names, that are remembered.
const REMEMBERED: usize = 4096;

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
    fn is_open(&self) -> bool {
        self.to.iter().any(|rule| matches!(rule.who, Who::Any | Who::Public))
    }
}

/// Whether an address is one of the public internet, by IANA's registries of special-purpose addresses. Networks for
/// documentation count as public: nobody has them.
pub(super) fn is_public(address: IpAddr) -> bool {
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
fn inside(address: IpAddr) -> Option<Ipv4Addr> {
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
fn is_special(to: IpAddr) -> bool {
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
fn is_in(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
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

fn names(rule: &str, name: &str) -> bool {
    match rule.strip_prefix("*.") {
        Some(rest) => name.strip_suffix(rest).is_some_and(|first| first.len() > 1 && first.ends_with('.')),
        None => rule == name,
    }
}

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
    /// The host's, when they were looked up.
    refused: Vec<IpAddr>,
    looked: Option<Instant>,
    look: fn() -> Vec<IpAddr>,
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
    /// `look` finds the host's addresses, which may change; `published` are the guest's UDP ports that may be called.
    pub(super) fn new(
        policy: Policy,
        mac: Mac,
        guest: &GuestNetwork,
        published: Vec<u16>,
        look: fn() -> Vec<IpAddr>,
    ) -> Self {
        let four = guest.ipv4.map(|(address, _, _)| address.into());
        let six = guest.ipv6.map(|(address, _, _)| address.into());
        Self {
            policy,
            mac,
            addresses: four.into_iter().chain(six).collect(),
            refused: Vec::new(),
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
            self.refused = (self.look)();
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
            || self.refused.contains(&to)
            || inside(to).is_some_and(|to| self.refused.contains(&to.into()))
    }

    /// Whether a rule lets it through: to a port, or what has no ports.
    fn allows(&self, to: IpAddr, port: Option<(Protocol, u16)>, now: Instant) -> bool {
        self.policy.to.iter().enumerate().any(|(place, rule)| {
            let is_meant = match &rule.who {
                Who::Any => true,
                Who::Public => is_public(to),
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
        let open = self.policy.is_open();
        match packet.carries {
            Carries::Udp { from, to: DNS, payload } => match open || self.may_ask(payload) {
                true => {
                    remember(&mut self.exchanges, (packet.to, DNS, from), EXCHANGE, now);
                    Verdict::Pass
                }
                false => refusal(frame, payload).map_or(Verdict::Drop, Verdict::Answer),
            },
            // What is asked over TCP isn't seen, so that is for those who may ask for everything.
            Carries::Tcp { to: DNS, .. } if open => Verdict::Pass,
            _ => Verdict::Drop,
        }
    }

    fn may_ask(&self, payload: &[u8]) -> bool {
        let Ok(question) = simple_dns::Packet::parse(payload) else { return false };
        let plain = question.answers.is_empty() && question.name_servers.is_empty();
        plain
            && question.questions.len() == 1
            && question.questions.iter().all(|question| {
                let name = lower(&question.qname);
                self.policy
                    .to
                    .iter()
                    .any(|rule| matches!(&rule.who, Who::Name(wanted) if names(wanted, &name)))
            })
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
        let Ok(answer) = simple_dns::Packet::parse(payload) else { return };
        let Some(asked) = answer.questions.first().map(|question| lower(&question.qname)) else { return };
        let rules: Vec<usize> = (0..)
            .zip(&self.policy.to)
            .filter(|(_, rule)| matches!(&rule.who, Who::Name(wanted) if names(wanted, &asked)))
            .map(|(place, _)| place)
            .collect();
        // The name, and what it is another name of.
        let mut same = vec![asked];
        for record in &answer.answers {
            if !same.contains(&lower(&record.name)) {
                continue;
            }
            let address: IpAddr = match &record.rdata {
                RData::A(a) => Ipv4Addr::from(a.address).into(),
                RData::AAAA(a) => Ipv6Addr::from(a.address).into(),
                RData::CNAME(other) => {
                    same.push(lower(&other.0));
                    continue;
                }
                _ => continue,
            };
            if is_public(address) {
                let holds = Duration::from_secs(record.ttl.into()).clamp(NAME.0, NAME.1);
                rules.iter().for_each(|rule| remember(&mut self.named, (*rule, address), holds, now));
            }
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

fn lower(name: &simple_dns::Name<'_>) -> String {
    name.to_string().to_ascii_lowercase()
}

/// A name server's refusal (RFC 1035, section 4.1.1) of a question, back to who asked.
fn refusal(frame: &[u8], question: &[u8]) -> Option<Vec<u8>> {
    const REFUSED: u8 = 5;
    let mut answer = question.get(..12)?.to_vec();
    // An answer, of the same kind and with the same wish for recursion; then that recursion is to be had, and the code.
    answer[2] = 0x80 | (answer[2] & 0x79);
    answer[3] = 0x80 | REFUSED;
    // The question is left out, as all else is.
    answer[4..12].fill(0);
    packet::answer(frame, &answer)
}

#[cfg(test)]
mod tests;
