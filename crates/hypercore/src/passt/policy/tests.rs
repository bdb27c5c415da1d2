use std::net::Ipv4Addr;

use proptest::prelude::*;
use simple_dns::rdata::{A, CNAME, RData};
use simple_dns::{CLASS, Name, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

use super::*;
use crate::network::{MAC, Rule};
use crate::passt::packet::frames::{frame, tcp, udp};

const ME: &str = "192.0.2.2";
const ME6: &str = "2001:db8::2";
const DNS_SERVER: &str = "169.254.53.53";
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn rule(who: Who, port: Option<u16>, protocol: Option<Protocol>) -> Rule {
    Rule { who, ports: port.map(|port| (port, port)), protocol }
}

fn gate_with(policy: Policy) -> Gate {
    let guest = GuestNetwork {
        ipv4: Some((ME.parse().unwrap(), 24, "192.0.2.1".parse().unwrap())),
        ipv6: Some((ME6.parse().unwrap(), 64, "fe80::1".parse().unwrap())),
        dns: vec![ip(DNS_SERVER)],
        mtu: 1500,
    };
    Gate::new(policy, MAC, &guest, vec![80], || Host {
        addresses: vec![ip(ME), ip("203.0.113.9"), ip("2001:db8::2")],
        neighbours: vec![(ip("203.0.113.0"), 28), (ip("2001:db8:7::"), 64)],
        ..Host::default()
    })
}

#[test]
fn the_host_s_neighbours_aren_t_the_public_internet_whatever_their_addresses() {
    for (neighbour, stranger) in [("203.0.113.8", "203.0.113.99"), ("2001:db8:7::8", "2001:db8:8::8")] {
        let mut public = gate(vec![Rule { who: Who::Public, ports: None, protocol: None }]);
        let mut named =
            gate(vec![Rule { who: Who::Network(ip(neighbour), 64), ports: None, protocol: None }]);
        let to = |to: &str| {
            let from = if ip(to).is_ipv4() { ip(ME) } else { ip(ME6) };
            frame(from, ip(to), 17, &udp(1000, 1000, b"x"))
        };
        let now = Instant::now();
        assert_eq!(public.outwards(&to(stranger), now), Verdict::Pass, "{stranger}");
        assert!(matches!(public.outwards(&to(neighbour), now), Verdict::Answer(_)), "{neighbour}");
        assert_eq!(named.outwards(&to(neighbour), now), Verdict::Pass, "{neighbour}");
    }
}

fn gate(to: Vec<Rule>) -> Gate {
    gate_with(Policy { to, ..Policy::default() })
}

fn me(to: IpAddr) -> IpAddr {
    ip(if to.is_ipv4() { ME } else { ME6 })
}

/// Whether the guest gets to a port.
fn reaches(gate: &mut Gate, to: &str, protocol: Protocol, port: u16) -> bool {
    let to = ip(to);
    let (number, payload) = match protocol {
        Protocol::Tcp => (6, tcp(40_000, port, SYN)),
        Protocol::Udp => (17, udp(40_000, port, b"something")),
    };
    gate.outwards(&frame(me(to), to, number, &payload), Instant::now()) == Verdict::Pass
}

fn pings(gate: &mut Gate, to: &str) -> bool {
    let to = ip(to);
    let (number, kind) = if to.is_ipv4() { (1, 8) } else { (58, 128) };
    gate.outwards(&frame(me(to), to, number, &[kind, 0, 0, 0]), Instant::now()) == Verdict::Pass
}

#[test]
fn by_default_the_public_internet_is_reached_and_no_private_network() {
    let mut gate = gate_with(Policy::default());
    for to in [
        "8.8.8.8",
        "172.15.0.1",
        "172.32.0.1",
        "100.63.0.1",
        "2a00:1450::1",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ] {
        assert!(reaches(&mut gate, to, Protocol::Tcp, 443), "{to}");
        assert!(reaches(&mut gate, to, Protocol::Udp, 443) && pings(&mut gate, to), "{to}");
    }
    for to in [
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.1",
        "192.168.1.1",
        "100.64.0.1",
        "198.18.0.1",
        "192.0.0.8",
        "240.0.0.1",
        "fd12::1",
        "fec0::1",
        "64:ff9b::a00:1",
        "64:ff9b:1::808:808",
        "2002:a00:1::1",
        "2001:0:1::1",
        "100::1",
        "4000::1",
    ] {
        assert!(!reaches(&mut gate, to, Protocol::Tcp, 443), "{to}");
        assert!(!reaches(&mut gate, to, Protocol::Udp, 443) && !pings(&mut gate, to), "{to}");
    }
}

#[test]
fn the_host_and_what_is_special_are_never_reached_whatever_is_allowed() {
    let every = [Who::Any, Who::Public, Who::Network(ip("0.0.0.0"), 0), Who::Network(ip("::"), 0)];
    let mut gate = gate(every.map(|who| rule(who, None, None)).to_vec());
    assert!(
        reaches(&mut gate, "10.1.2.3", Protocol::Tcp, 80) && reaches(&mut gate, "fd12::1", Protocol::Tcp, 80)
    );
    for to in [
        "127.0.0.1",
        "127.255.0.9",
        "0.0.0.0",
        "203.0.113.9",
        "255.255.255.255",
        "224.0.0.251",
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::cb00:7109",
        "fd20:ce::254",
        "169.254.1.1",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "2001:db8::2",
        "fe80::1",
        "fd00:ec2::254",
        "ff02::1",
        ME,
    ] {
        assert!(!reaches(&mut gate, to, Protocol::Tcp, 80), "{to}");
        assert!(!reaches(&mut gate, to, Protocol::Udp, 80) && !pings(&mut gate, to), "{to}");
    }
    // The name server answers names and nothing else.
    assert!(
        reaches(&mut gate, DNS_SERVER, Protocol::Udp, 53)
            && reaches(&mut gate, DNS_SERVER, Protocol::Tcp, 53)
    );
    assert!(!reaches(&mut gate, DNS_SERVER, Protocol::Tcp, 80) && !pings(&mut gate, DNS_SERVER));
}

#[test]
fn a_list_lets_through_what_is_on_it_and_nothing_else() {
    let mut gate = gate(vec![
        rule(Who::Network(ip("10.0.0.0"), 8), Some(5432), Some(Protocol::Tcp)),
        rule(Who::Network(ip("2001:4860::"), 32), None, None),
    ]);
    assert!(reaches(&mut gate, "10.9.8.7", Protocol::Tcp, 5432));
    assert!(!reaches(&mut gate, "10.9.8.7", Protocol::Tcp, 5433));
    assert!(!reaches(&mut gate, "10.9.8.7", Protocol::Udp, 5432) && !pings(&mut gate, "10.9.8.7"));
    assert!(!reaches(&mut gate, "11.0.0.1", Protocol::Tcp, 5432));
    assert!(reaches(&mut gate, "2001:4860::8", Protocol::Udp, 53) && pings(&mut gate, "2001:4860::8"));
    assert!(!reaches(&mut gate, "8.8.8.8", Protocol::Tcp, 443));
}

#[test]
fn a_guest_can_t_pretend_to_be_another() {
    let mut gate = gate_with(Policy::default());
    let now = Instant::now();
    let good = frame(ip(ME), ip("8.8.8.8"), 6, &tcp(1, 443, SYN));
    assert_eq!(gate.outwards(&good, now), Verdict::Pass);
    let mut mac = good.clone();
    mac[11] ^= 1;
    assert_eq!(gate.outwards(&mac, now), Verdict::Drop);
    for from in ["192.0.2.3", "127.0.0.1", "203.0.113.9", "8.8.4.4"] {
        assert_eq!(
            gate.outwards(&frame(ip(from), ip("8.8.8.8"), 6, &tcp(1, 443, SYN)), now),
            Verdict::Drop,
            "{from}"
        );
    }
    assert_eq!(
        gate.outwards(&frame(ip("2001:db8::3"), ip("2a00::1"), 6, &tcp(1, 443, SYN)), now),
        Verdict::Drop
    );
    let arp = |sender: &str| {
        let address: Ipv4Addr = sender.parse().unwrap();
        let head = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2];
        [&[0xff; 6], &MAC.0[..], &head, &MAC.0, &address.octets(), &[0; 10]].concat()
    };
    assert_eq!(gate.outwards(&arp(ME), now), Verdict::Pass);
    assert_eq!(gate.outwards(&arp("192.0.2.1"), now), Verdict::Drop, "the gateway's address");
}

#[test]
fn neighbours_are_found_but_no_router_is_advertised_and_no_dhcp_is_served() {
    let mut gate = gate_with(Policy::default());
    let now = Instant::now();
    let mut neighbour =
        |from: &str, to: &str, kind: u8| gate.outwards(&frame(ip(from), ip(to), 58, &[kind, 0, 0, 0]), now);
    assert_eq!(neighbour("fe80::2", "ff02::1:ff00:1", 135), Verdict::Pass);
    assert_eq!(neighbour("::", "ff02::1:ff00:2", 135), Verdict::Pass);
    assert_eq!(neighbour(ME6, "fe80::1", 136), Verdict::Pass);
    assert_eq!(neighbour("fe80::2", "ff02::1", 134), Verdict::Drop, "a router's advertisement");
    assert_eq!(neighbour("fe80::2", "ff02::1", 137), Verdict::Drop, "a redirect");
    assert_eq!(neighbour("fe80::2", "2a00::1", 135), Verdict::Drop);
    for (to, port) in [("255.255.255.255", 67), ("255.255.255.255", 68), ("ff02::1:2", 547)] {
        assert!(!reaches(&mut gate, to, Protocol::Udp, port), "{to}");
    }
}

#[test]
fn who_may_call_does_and_is_answered_whoever_may_be_reached() {
    let policy = Policy { to: Vec::new(), from: Some(vec![(ip("10.0.0.0"), 8)]), ..Policy::default() };
    let mut gate = gate_with(policy);
    let now = Instant::now();
    let caller = ip("10.1.1.1");
    assert!(gate.inwards(&frame(caller, ip(ME), 6, &tcp(5000, 80, SYN)), now));
    assert_eq!(gate.outwards(&frame(ip(ME), caller, 6, &tcp(80, 5000, SYN | ACK)), now), Verdict::Pass);
    let answer = frame(ip(ME), caller, 17, &udp(80, 5000, b"answer"));
    let told = |verdict| matches!(verdict, Verdict::Answer(_));
    assert!(told(gate.outwards(&answer, now)), "before anything was asked");
    assert!(gate.inwards(&frame(caller, ip(ME), 17, &udp(5000, 80, b"question")), now));
    assert_eq!(gate.outwards(&answer, now), Verdict::Pass);
    let elsewhere = frame(ip(ME), caller, 17, &udp(80, 5001, b"answer"));
    assert!(told(gate.outwards(&elsewhere, now)), "to another port of the same caller");
    assert!(told(gate.outwards(&answer, now + EXCHANGE + EXCHANGE)), "long after");
    let stranger = ip("11.1.1.1");
    assert!(!gate.inwards(&frame(stranger, ip(ME), 6, &tcp(5000, 80, SYN)), now));
    assert!(!gate.inwards(&frame(stranger, ip(ME), 17, &udp(5000, 80, b"question")), now));
}

#[test]
fn a_port_that_isn_t_published_can_t_be_called_and_opens_nothing() {
    let mut gate = named();
    let now = Instant::now();
    assert_eq!(ask(&mut gate, "api.example.org"), Verdict::Pass);
    // passt listens on the port that the question came from.
    let stranger = ip("9.9.9.9");
    assert!(!gate.inwards(&frame(stranger, ip(ME), 17, &udp(9, 40_000, b"come")), now));
    let there = gate.outwards(&frame(ip(ME), stranger, 17, &udp(40_000, 9, b"going")), now);
    assert!(matches!(there, Verdict::Answer(_)));
}

#[test]
fn an_address_that_the_host_gets_later_is_refused_from_then_on() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static HAS_IT: AtomicBool = AtomicBool::new(false);
    let guest = GuestNetwork {
        ipv4: Some((ME.parse().unwrap(), 24, "192.0.2.1".parse().unwrap())),
        ..GuestNetwork::default()
    };
    let look = || {
        let addresses = if HAS_IT.load(Ordering::Relaxed) { vec![ip("8.8.8.8")] } else { Vec::new() };
        Host { addresses, ..Host::default() }
    };
    let mut gate = Gate::new(Policy::default(), MAC, &guest, Vec::new(), look);
    let (now, datagram) = (Instant::now(), frame(ip(ME), ip("8.8.8.8"), 17, &udp(1, 2, b"x")));
    assert_eq!(gate.outwards(&datagram, now), Verdict::Pass);
    HAS_IT.store(true, Ordering::Relaxed);
    assert!(matches!(gate.outwards(&datagram, now + Duration::from_secs(2)), Verdict::Answer(_)));
}

#[test]
fn answers_come_in_though_nobody_may_call() {
    let mut gate = gate_with(Policy { from: Some(Vec::new()), ..Policy::default() });
    assert!(reaches(&mut gate, "8.8.8.8", Protocol::Udp, 123));
    assert!(gate.inwards(&frame(ip("8.8.8.8"), ip(ME), 17, &udp(123, 40_000, b"time")), Instant::now()));
    assert!(!gate.inwards(&frame(ip("8.8.8.8"), ip(ME), 17, &udp(124, 40_000, b"time")), Instant::now()));
}

fn question(name: &str) -> Vec<u8> {
    let mut packet = simple_dns::Packet::new_query(7);
    let name = Name::new(name).unwrap().into_owned();
    packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().unwrap()
}

fn ask(gate: &mut Gate, name: &str) -> Verdict {
    gate.outwards(&frame(ip(ME), ip(DNS_SERVER), 17, &udp(40_000, 53, &question(name))), Instant::now())
}

/// The name server's answer: the name is another's name, which has these addresses.
fn answer(gate: &mut Gate, name: &str, addresses: &[&str], now: Instant) {
    let asked = question(name);
    let mut packet = simple_dns::Packet::parse(&asked).unwrap().into_reply();
    packet.set_flags(PacketFlag::RECURSION_AVAILABLE);
    let name = |text: &'static str| Name::new(text).unwrap();
    let asked = packet.questions[0].qname.clone();
    let alias = RData::CNAME(CNAME(name("edge.cdn.test")));
    packet.answers.push(ResourceRecord::new(asked, CLASS::IN, 300, alias));
    for address in addresses {
        let IpAddr::V4(address) = ip(address) else { panic!("{address}") };
        let record = RData::A(A { address: address.into() });
        packet.answers.push(ResourceRecord::new(name("edge.cdn.test"), CLASS::IN, 300, record));
    }
    // What nobody asked for, as a poisoned answer has it.
    let record = RData::A(A { address: Ipv4Addr::new(9, 9, 9, 9).into() });
    packet.answers.push(ResourceRecord::new(name("other.test"), CLASS::IN, 300, record));
    let payload = packet.build_bytes_vec().unwrap();
    assert!(gate.inwards(&frame(ip(DNS_SERVER), ip(ME), 17, &udp(53, 40_000, &payload)), now));
}

fn named() -> Gate {
    gate(vec![
        rule(Who::Name("api.example.org".into()), Some(443), None),
        rule(Who::Name("*.example.net".into()), None, None),
    ])
}

#[test]
fn a_name_opens_the_addresses_that_it_has_as_long_as_it_has_them() {
    let mut gate = named();
    let now = Instant::now();
    assert!(!reaches(&mut gate, "8.8.8.8", Protocol::Tcp, 443), "before it was asked for");
    assert_eq!(ask(&mut gate, "API.Example.org"), Verdict::Pass);
    answer(&mut gate, "API.Example.org", &["8.8.8.8", "8.8.4.4"], now);
    assert!(
        reaches(&mut gate, "8.8.8.8", Protocol::Tcp, 443)
            && reaches(&mut gate, "8.8.4.4", Protocol::Udp, 443)
    );
    assert!(!reaches(&mut gate, "8.8.8.8", Protocol::Tcp, 80), "another port");
    assert!(!reaches(&mut gate, "9.9.9.9", Protocol::Tcp, 443), "an address that came along");
    let opening = frame(ip(ME), ip("8.8.8.8"), 6, &tcp(40_000, 443, SYN));
    let later = gate.outwards(&opening, now + Duration::from_secs(301));
    assert!(matches!(later, Verdict::Answer(_)), "after its time");
    assert_eq!(ask(&mut gate, "a.b.example.net"), Verdict::Pass);
    answer(&mut gate, "a.b.example.net", &["8.8.8.8"], now);
    assert!(reaches(&mut gate, "8.8.8.8", Protocol::Tcp, 80));
}

#[test]
fn a_name_never_leads_to_a_private_address() {
    let mut gate = named();
    assert_eq!(ask(&mut gate, "api.example.org"), Verdict::Pass);
    let private = ["10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.1.1", "203.0.113.9"];
    answer(&mut gate, "api.example.org", &private, Instant::now());
    for to in private {
        assert!(!reaches(&mut gate, to, Protocol::Tcp, 443), "{to}");
    }
}

#[test]
fn other_names_aren_t_asked_for_and_who_asks_is_told() {
    let mut gate = named();
    for name in ["example.net", "secret.attacker.test", "xexample.net", "api.example.org.attacker.test"] {
        let Verdict::Answer(reply) = ask(&mut gate, name) else { panic!("{name}") };
        let Some(Frame::Packet(Packet { from, carries: Carries::Udp { payload, .. }, .. })) =
            packet::read(&reply)
        else {
            panic!("{name}")
        };
        assert_eq!(from, ip(DNS_SERVER));
        let reply = simple_dns::Packet::parse(payload).unwrap();
        assert_eq!((reply.id(), reply.rcode()), (7, simple_dns::RCODE::Refused), "{name}");
    }
    assert!(!reaches(&mut gate, DNS_SERVER, Protocol::Tcp, 53), "where questions aren't seen");
    let mut nobody = gate_with(Policy { to: Vec::new(), ..Policy::default() });
    assert!(matches!(ask(&mut nobody, "api.example.org"), Verdict::Answer(_)));
    // Not a question at all.
    let odd = frame(ip(ME), ip(DNS_SERVER), 17, &udp(40_000, 53, b"tunnel"));
    assert_eq!(nobody.outwards(&odd, Instant::now()), Verdict::Drop);
}

#[test]
fn what_is_remembered_has_a_bound() {
    let mut gate = gate_with(Policy::default());
    for port in 1..=u16::MAX {
        let _ = gate.outwards(&frame(ip(ME), ip("8.8.8.8"), 17, &udp(port, 9, b"x")), Instant::now());
    }
    assert!(gate.exchanges.len() <= REMEMBERED);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_in_either_direction(bytes in proptest::collection::vec(any::<u8>(), 0..160), dns: bool) {
        let mut gate = named();
        let frame = match dns {
            true => frame(ip(DNS_SERVER), ip(ME), 17, &udp(53, 40_000, &bytes)),
            false => bytes,
        };
        let _ = ask(&mut gate, "api.example.org");
        let _ = gate.inwards(&frame, Instant::now());
        let _ = gate.outwards(&frame, Instant::now());
    }

    /// Whatever the bytes of a packet are, if it passes it goes to somebody who may be reached.
    #[test]
    fn nothing_passes_to_who_may_not_be_reached(to: Ipv4Addr, protocol: u8, payload in proptest::collection::vec(any::<u8>(), 0..60)) {
        let mut gate = gate_with(Policy::default());
        let opens = protocol != 6 || payload.get(13).is_some_and(|flags| flags & (SYN | ACK) == SYN);
        if gate.outwards(&frame(ip(ME), to.into(), protocol, &payload), Instant::now()) == Verdict::Pass && opens {
            prop_assert!(is_public(to.into()) && !gate.is_never_reached(to.into()) || to == ip(DNS_SERVER));
        }
    }
}
