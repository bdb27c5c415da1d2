//! The rules of a gateway, as nftables reads them.
//!
//! ```text
//!  eth0 --> guest: is it a frame of the spacecore's own? (chain guest, before anything else)
//!             |--> for the gateway: questions for names; answers to what the relay has begun (chain input)
//!             '--> further: somebody special? a spacecore of the same network? allowed by name or address? (outwards)
//!  up   --> answers, and what other spacecores begin, which the machine lets through to members alone (chain forward)
//! ```

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use super::addresses::{Addresses, NETWORK_PREFIX, NETWORK6, NETWORK6_PREFIX, Place};
use super::learnt::News;
use super::ranges::{elements, not_public_of_4, not_public_of_6, special_of_4, special_of_6};
use crate::driver::Mac;
use crate::network::{Policy, Protocol, Rule, Who};

/// The interface towards the spacecore.
pub(super) const GUEST: &str = "guest";
/// The interface towards the machine.
pub(super) const UP: &str = "up";
/// The table in the gateway.
pub(super) const TABLE: &str = "vimana";
/// The counter of the spacecore's packets that are refused.
pub(super) const REFUSED: &str = "refused";
/// What packets are marked with that belong to connections of the relay's.
pub(super) const RELAYED: u32 = 1;
/// The most addresses that a set has room for: some more than are remembered, as the kernel takes a moment to forget.
const NAMED: usize = 2 * super::learnt::MOST;
/// The most datagrams with questions for names in a second.
pub(super) const QUESTIONS: u32 = 400;
/// The least that may leave at once where there is a rate, in bytes: what the kernel takes from a guest as one.
const LEAST_BURST: u64 = 256 * 1024;
/// The most exchanges that a spacecore may have at a time: what the machine remembers of them is shared by all.
const EXCHANGES: u32 = 16_384;

/// The name of the set in which the addresses of a rule's name are.
pub(super) fn named(rule: usize, address: IpAddr) -> String {
    let family = if address.is_ipv4() { 4 } else { 6 };
    format!("named{rule}_{family}")
}

/// Who is around a spacecore.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around<'a> {
    /// The machine's own addresses towards the world, which the machine's table keeps from it too.
    pub(super) machine: &'a [IpAddr],
    /// The networks that the machine is in: its neighbours aren't the public internet.
    pub(super) neighbours: &'a [(IpAddr, u8)],
    /// Whether it is in a private network.
    pub(super) is_member: bool,
}

/// All rules of a gateway in one transaction.
pub(super) fn gateway(mac: Mac, addresses: Addresses, policy: &Policy, around: Around<'_>) -> String {
    let mut text = String::new();
    // A text takes everything.
    let _ = frames(&mut text, mac, addresses, policy.out_bits);
    let _ = packets(&mut text, addresses, policy, around);
    text
}

/// Only frames with the spacecore's own addresses, and only what is understood to its ports.
fn frames(text: &mut String, mac: Mac, addresses: Addresses, out_bits: Option<u64>) -> std::fmt::Result {
    let guest4 = addresses.ipv4(Place::Guest);
    writeln!(text, "table netdev {TABLE} {{\nchain guest {{")?;
    writeln!(text, "type filter hook ingress device \"{GUEST}\" priority -500; policy drop;")?;
    writeln!(text, "ether saddr != {mac} drop")?;
    if let Some(bits) = out_bits {
        // Each way out has a queue at the rate; this is for all of them together.
        let rate = (bits / 8).saturating_mul(105) / 100;
        let burst = (rate / 4).max(LEAST_BURST);
        writeln!(text, "limit rate over {rate} bytes/second burst {burst} bytes drop")?;
    }
    writeln!(
        text,
        "ether type arp arp operation {{ request, reply }} arp saddr ether {mac} arp saddr ip {{ 0.0.0.0, {guest4} }} accept"
    )?;
    // Whole packets without options.
    writeln!(
        text,
        "ip saddr {guest4} ip hdrlength 5 ip frag-off & 0x3fff == 0 ip protocol {{ tcp, udp }} accept"
    )?;
    // No redirects: who is told to go another way believes it.
    writeln!(
        text,
        "ip saddr {guest4} ip hdrlength 5 ip frag-off & 0x3fff == 0 ip protocol icmp icmp type {{ echo-request, \
         echo-reply, destination-unreachable, time-exceeded, parameter-problem }} accept"
    )?;
    if let (Some(guest), Some(gateway)) = (addresses.ipv6(Place::Guest), addresses.ipv6(Place::Gateway)) {
        // From no other address: each would take a place in the table of neighbours, which all of the machine's namespaces share.
        writeln!(
            text,
            "ip6 nexthdr ipv6-icmp icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} ip6 hoplimit 255 \
             ip6 saddr {{ ::, {guest} }} ip6 daddr {{ {gateway}, ff02::/16 }} accept"
        )?;
        writeln!(
            text,
            "ip6 saddr {guest} ip6 nexthdr ipv6-icmp icmpv6 type {{ echo-request, echo-reply, destination-unreachable, \
             packet-too-big, time-exceeded, parameter-problem }} accept"
        )?;
        writeln!(text, "ip6 saddr {guest} ip6 nexthdr {{ tcp, udp }} accept")?;
    }
    writeln!(text, "}}\n}}")
}

fn packets(text: &mut String, addresses: Addresses, policy: &Policy, around: Around<'_>) -> std::fmt::Result {
    writeln!(text, "table inet {TABLE} {{")?;
    let with_neighbours = |closed: String, is_four: bool| {
        let of_family = around.neighbours.iter().filter(|(network, _)| network.is_ipv4() == is_four);
        elements(
            std::iter::once(closed).chain(of_family.map(|(network, prefix)| format!("{network}/{prefix}"))),
        )
    };
    for (name, kind, members) in [
        ("special4", "ipv4_addr", special_of_4()),
        ("special6", "ipv6_addr", special_of_6()),
        ("closed4", "ipv4_addr", with_neighbours(not_public_of_4(), true)),
        ("closed6", "ipv6_addr", with_neighbours(not_public_of_6(), false)),
    ] {
        writeln!(
            text,
            "set {name} {{ type {kind}; flags interval; auto-merge; elements = {{ {members} }}; }}"
        )?;
    }
    let is_named = |rule: &&(usize, &Rule)| matches!(rule.1.who, Who::Name(_));
    for (place, _) in policy.to.iter().enumerate().filter(|rule| is_named(&rule)) {
        writeln!(text, "set named{place}_4 {{ type ipv4_addr; flags timeout; size {NAMED}; }}")?;
        writeln!(text, "set named{place}_6 {{ type ipv6_addr; flags timeout; size {NAMED}; }}")?;
    }

    // Questions for names take no place in the table of connections, of which the kernel has one for all namespaces.
    writeln!(text, "chain questions {{\ntype filter hook prerouting priority raw; policy accept;")?;
    for (gateway, _) in addresses.all(Place::Gateway) {
        let family = if gateway.is_ipv4() { "ip" } else { "ip6" };
        writeln!(
            text,
            "iifname \"{GUEST}\" {family} daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 notrack"
        )?;
    }
    writeln!(text, "}}\nchain answers {{\ntype filter hook output priority raw; policy accept;")?;
    writeln!(text, "oifname \"{GUEST}\" meta l4proto {{ tcp, udp }} th sport 53 notrack\n}}")?;

    writeln!(text, "chain prerouting {{\ntype filter hook prerouting priority mangle; policy accept;")?;
    writeln!(text, "iifname \"{GUEST}\" socket transparent 1 meta mark set {RELAYED}\n}}")?;

    writeln!(text, "chain input {{\ntype filter hook input priority filter; policy drop;")?;
    writeln!(text, "iifname lo accept")?;
    writeln!(text, "ct state established,related accept")?;
    writeln!(text, "iifname != \"{GUEST}\" drop")?;
    writeln!(text, "meta mark {RELAYED} accept")?;
    writeln!(text, "udp dport 53 limit rate over {QUESTIONS}/second burst {QUESTIONS} packets drop")?;
    for (gateway, _) in addresses.all(Place::Gateway) {
        let family = if gateway.is_ipv4() { "ip" } else { "ip6" };
        writeln!(text, "{family} daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 accept")?;
    }
    writeln!(text, "icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept")?;
    writeln!(text, "goto refused\n}}")?;

    let (mask4, value4) = addresses.spacecores4();
    let (mask6, value6) = Addresses::spacecores6();
    writeln!(text, "chain forward {{\ntype filter hook forward priority filter; policy drop;")?;
    writeln!(text, "ct state established,related accept")?;
    writeln!(text, "ct state invalid drop")?;
    writeln!(text, "iifname \"{GUEST}\" oifname \"{UP}\" goto outwards")?;
    writeln!(text, "iifname \"{GUEST}\" goto refused")?;
    if around.is_member {
        writeln!(text, "ip saddr & {mask4} == {value4} goto whole")?;
        writeln!(text, "ip6 saddr & {mask6} == {value6} goto whole")?;
    }
    writeln!(text, "}}")?;

    // TCP and UDP to any port, and the question whether somebody is there.
    writeln!(text, "chain whole {{\nmeta l4proto {{ tcp, udp }} accept")?;
    writeln!(text, "icmp type echo-request accept\nicmpv6 type echo-request accept\n}}")?;

    writeln!(text, "counter {REFUSED} {{ }}")?;
    writeln!(text, "chain refused {{\ncounter name {REFUSED}\nreject with icmpx admin-prohibited\n}}")?;

    writeln!(text, "chain outwards {{")?;
    writeln!(text, "ct count over {EXCHANGES} drop")?;
    for address in around.machine {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        writeln!(text, "{family} daddr {address} goto refused")?;
    }
    // The machine knows which of them are of this one's network, and refuses the others.
    let verdict = if around.is_member { "whole" } else { "refused" };
    writeln!(text, "ip daddr & {mask4} == {value4} goto {verdict}")?;
    writeln!(text, "ip6 daddr & {mask6} == {value6} goto {verdict}")?;
    writeln!(text, "ip daddr @special4 goto refused\nip6 daddr @special6 goto refused")?;
    for (place, rule) in policy.to.iter().enumerate() {
        for family in ["4", "6"] {
            if let Some(line) = allowed(place, rule, family) {
                writeln!(text, "{line}")?;
            }
        }
    }
    writeln!(text, "goto refused\n}}\n}}")
}

/// What a rule lets through of one family; nothing where it is about the other one.
fn allowed(place: usize, rule: &Rule, family: &str) -> Option<String> {
    let (ip, nfproto, icmp) = match family {
        "4" => ("ip", "ipv4", "icmp"),
        _ => ("ip6", "ipv6", "icmpv6"),
    };
    let to = match &rule.who {
        Who::Any => format!("meta nfproto {nfproto}"),
        Who::Public => format!("{ip} daddr != @closed{family}"),
        Who::Network(network, prefix) if network.is_ipv4() == (family == "4") => {
            format!("{ip} daddr {network}/{prefix}")
        }
        Who::Network(..) => return None,
        Who::Name(_) => format!("{ip} daddr @named{place}_{family}"),
    };
    let protocols = match rule.protocol {
        Some(Protocol::Tcp) => "tcp",
        Some(Protocol::Udp) => "udp",
        None => "{ tcp, udp }",
    };
    let line = match (rule.protocol, rule.ports) {
        (None, None) => {
            format!("{to} meta l4proto {{ tcp, udp }} accept\n{to} {icmp} type echo-request accept")
        }
        (Some(_), None) => format!("{to} meta l4proto {protocols} accept"),
        (_, Some((first, last))) => format!("{to} meta l4proto {protocols} th dport {first}-{last} accept"),
    };
    Some(line)
}

/// What adds addresses of a name to its rule's set, or lets those that are there stay for longer, and takes others out.
pub(super) fn learnt(news: &News) -> String {
    let mut text = String::new();
    // A text takes everything. What is taken out may have ended a moment before: without the first line the second would fail.
    let mut take_out = |rule: usize, address: IpAddr| {
        let set = named(rule, address);
        let _ = writeln!(
            text,
            "add element inet {TABLE} {set} {{ {address} }}\ndelete element inet {TABLE} {set} {{ {address} }}"
        );
        set
    };
    for (rule, address) in &news.forgotten {
        take_out(*rule, *address);
    }
    let mut added = String::new();
    for (rule, address, holds) in &news.known {
        let (set, seconds) = (take_out(*rule, *address), holds.as_secs().max(1));
        let _ = writeln!(added, "add element inet {TABLE} {set} {{ {address} timeout {seconds}s }}");
    }
    text + &added
}

/// The machine's table: the same for all spacecores, but for who is in a network with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    /// The network that all spacecores' addresses are from.
    pub(super) network: Option<Ipv4Addr>,
    /// The interfaces whose forwarding of IPv4 was switched on for spacecores: nobody else's packets go on from them.
    pub(super) opened4: Vec<String>,
    /// Whether forwarding of IPv6 was switched on for spacecores: nobody else's packets are forwarded.
    pub(super) opened6: bool,
    /// The most exchanges that all spacecores together may have, of those that the kernel remembers.
    pub(super) exchanges: Option<u64>,
    /// Networks of more than one spacecore: a number, and the members' interfaces.
    pub(super) networks: Vec<(u32, Vec<String>)>,
}

impl Machine {
    /// The whole table, in place of what is there of it.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        // A text takes everything.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let quoted = |names: &[String]| elements(names.iter().map(|name| format!("\"{name}\"")));
        writeln!(text, "table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{")?;
        // Before anybody translates addresses: what a spacecore sends to this machine never becomes anything else.
        writeln!(text, "chain prerouting {{\ntype filter hook prerouting priority raw; policy accept;")?;
        writeln!(text, "iifname \"vm-*\" fib saddr . iif oif 0 drop")?;
        // Nobody else is a spacecore.
        let elsewhere = "iifname != \"vm-*\" iifname != \"lo\"";
        if let Some(network) = self.network {
            writeln!(text, "{elsewhere} ip saddr {network}/{NETWORK_PREFIX} drop")?;
        }
        writeln!(text, "{elsewhere} ip6 saddr {NETWORK6}/{NETWORK6_PREFIX} drop")?;
        writeln!(text, "iifname \"vm-*\" fib daddr type {{ local, broadcast, anycast }} goto refused\n}}")?;
        writeln!(text, "chain refused {{\nreject with icmpx admin-prohibited\n}}")?;
        writeln!(text, "chain input {{\ntype filter hook input priority filter; policy accept;")?;
        writeln!(text, "iifname \"vm-*\" drop\n}}")?;
        for (number, members) in &self.networks {
            let members = quoted(members);
            writeln!(text, "chain network{number} {{\noifname {{ {members} }} accept\n}}")?;
        }
        writeln!(text, "chain between {{\nct state established,related accept")?;
        if !self.networks.is_empty() {
            let verdicts = self.networks.iter().flat_map(|(number, members)| {
                members.iter().map(move |member| format!("\"{member}\" : jump network{number}"))
            });
            writeln!(text, "iifname vmap {{ {} }}", elements(verdicts))?;
        }
        writeln!(text, "goto refused\n}}")?;
        writeln!(text, "chain forward {{\ntype filter hook forward priority filter; policy accept;")?;
        writeln!(text, "iifname \"vm-*\" oifname \"vm-*\" goto between")?;
        writeln!(text, "iifname \"vm-*\" ct status dnat drop")?;
        writeln!(text, "oifname \"vm-*\" ct state != {{ established, related }} drop")?;
        // An interface that was opened for spacecores forwards nothing else, whoever is behind the other one.
        if !self.opened4.is_empty() {
            let names = quoted(&self.opened4);
            writeln!(text, "meta nfproto ipv4 iifname {{ {names} }} oifname != \"vm-*\" drop")?;
        }
        if self.opened6 {
            writeln!(text, "meta nfproto ipv6 iifname != \"vm-*\" oifname != \"vm-*\" drop")?;
        }
        if let Some(exchanges) = self.exchanges {
            writeln!(text, "iifname \"vm-*\" ct state new ct count over {exchanges} drop")?;
        }
        writeln!(
            text,
            "}}\nchain postrouting {{\ntype nat hook postrouting priority srcnat; policy accept;"
        )?;
        writeln!(text, "iifname \"vm-*\" oifname != \"vm-*\" masquerade\n}}\n}}")
    }
}
