//! What a guest that makes its own frames gets through its gateway, and what others get to it: each attack is shown to succeed
//! once the rules are gone.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::netlink::{End, Netlink};
use super::space::{ip, made, within};
use super::*;
use crate::driver::Mac;
use crate::network::{MAC, Policy};
use crate::passt::packet::checksum;
use crate::passt::packet::frames::{frame, udp};

/// What virtio says before each frame of a tap (VIRTIO 1.2, section 5.1.6): nothing.
const HEADER: [u8; 10] = [0; 10];
const MARK: &[u8] = b"a datagram of the test's";
/// How long something may take to arrive.
const PATIENCE: Duration = Duration::from_millis(300);
const PORT: u16 = 9000;

/// A guest at its tap, its machine, and the world behind that.
struct Rig {
    machine: OwnedFd,
    world: OwnedFd,
    routed: Routed,
    tap: File,
    sink: UdpSocket,
}

impl Rig {
    fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || nft::find().is_none() {
            let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: needs root and nft");
            return None;
        }
        let machine = made(test, &[])?;
        let addresses =
            ["198.51.100.10/32", "10.20.0.1/32", "169.254.169.254/32", "2a00:1::10/128", "fd12::1/128"];
        let world = made(test, &addresses)?;
        within(&machine, || {
            let near = End { name: "v0", mac: Mac([2, 0, 0, 0, 0, 1]), namespace: None };
            let far = End { name: "v1", mac: Mac([2, 0, 0, 0, 0, 2]), namespace: Some(world.as_fd()) };
            Netlink::open().unwrap().pair(1500, near, far).unwrap();
        });
        for (space, words) in [
            (&machine, "addr add 203.0.113.2/24 dev v0"),
            (&machine, "addr add 2001:db8:1::2/64 dev v0 nodad"),
            (&world, "addr add 203.0.113.1/24 dev v1"),
            (&world, "addr add 2001:db8:1::1/64 dev v1 nodad"),
            (&machine, "link set v0 up"),
            (&world, "link set v1 up"),
            (&machine, "route add default via 203.0.113.1"),
            (&machine, "-6 route add default via 2001:db8:1::1"),
            // As somebody on the same wire could.
            (&world, "route add 10.0.0.0/8 via 203.0.113.2"),
            (&world, "-6 route add fd76::/16 via 2001:db8:1::2"),
        ] {
            ip(space, words);
        }
        let plan = NetworkPlan { name: "guest".into(), policy: Policy::default(), ..NetworkPlan::default() };
        let (routed, wire) = within(&machine, || {
            let (mut routed, wire) = Routed::prepare(&plan, true).unwrap();
            routed.open(&plan).unwrap();
            (routed, wire)
        });
        let Wire::Tap(tap) = wire else { panic!("a tap was asked for") };
        let sink = within(&world, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap());
        sink.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self { machine, world, routed, tap: tap.into(), sink })
    }

    fn own(&self, family: u8) -> IpAddr {
        let guest = self.routed.guest();
        match family {
            4 => guest.ipv4.unwrap().0.into(),
            _ => guest.ipv6.unwrap().0.into(),
        }
    }

    /// Whether the world gets a datagram, when the guest sends these frames.
    fn arrives(&mut self, frames: &[Vec<u8>]) -> bool {
        for frame in frames {
            self.tap.write_all(&[&HEADER[..], frame].concat()).unwrap();
        }
        let mut buffer = [0; 2000];
        self.sink.recv(&mut buffer).is_ok_and(|length| buffer[..length] == *MARK)
    }

    /// Whether the guest gets a datagram that somebody sends from a namespace.
    fn reaches_guest(&mut self, from: &OwnedFd, to: IpAddr) -> bool {
        let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = within(from, || UdpSocket::bind((any, 0)).unwrap());
        // One that is refused at once doesn't arrive.
        let _ = socket.send_to(MARK, (to, PORT));
        let (begin, mut buffer) = (Instant::now(), [0; 2000]);
        while begin.elapsed() < PATIENCE {
            match self.tap.read(&mut buffer) {
                Ok(length) if buffer[..length].ends_with(MARK) => return true,
                Ok(_) => {}
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
        false
    }

    /// Takes every rule away, and what the kernel itself has against wrong addresses.
    fn disarm(&self) {
        let gateway = self.routed.namespace().try_clone_to_owned().unwrap();
        for (space, interface) in
            [(&gateway, rules::GUEST), (&self.machine, &*self.routed.addresses().interface())]
        {
            within(space, || {
                assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
                for name in ["all", interface] {
                    settings::set("ipv4", name, "rp_filter", "0").unwrap();
                }
            });
        }
    }
}

fn datagram(from: IpAddr, to: &str) -> Vec<u8> {
    let to: IpAddr = to.parse().unwrap();
    let mut datagram = udp(PORT, PORT, MARK);
    if let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) {
        let length = u32::try_from(datagram.len()).unwrap().to_be_bytes();
        let sum = checksum(&[&from.octets(), &to.octets(), &length, &[0, 0, 0, 17], &datagram]);
        datagram.splice(6..8, sum.to_be_bytes());
    }
    let mut frame = frame(from, to, 17, &datagram);
    frame[..6].copy_from_slice(&[0x52, 0x54, 0x00, 0x76, 0x69, 0x6e]);
    summed(frame)
}

/// The frame with its header's sum as it must be.
fn summed(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12..14] == [8, 0] {
        let end = 14 + usize::from(frame[14] & 0xf) * 4;
        frame[24..26].fill(0);
        let sum = checksum(&[&frame[14..end]]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// The datagram in two parts.
fn fragments(whole: &[u8]) -> Vec<Vec<u8>> {
    let (head, payload) = whole.split_at(34);
    let part = |payload: &[u8], field: u16| {
        let mut part = [head, payload].concat();
        part[16..18].copy_from_slice(&u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
        part[18..20].copy_from_slice(&[7, 7]);
        part[20..22].copy_from_slice(&field.to_be_bytes());
        summed(part)
    };
    vec![part(&payload[..16], 0x2000), part(&payload[16..], 2)]
}

/// The datagram behind an option that does nothing.
fn with_option(whole: &[u8]) -> Vec<u8> {
    let mut frame = [&whole[..34], &[1, 1, 1, 1], &whole[34..]].concat();
    frame[14] = 0x46;
    let length = u16::from_be_bytes([frame[16], frame[17]]) + 4;
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    summed(frame)
}

/// The datagram behind a header between (RFC 8200, section 4.6): options for its destination, of which there are none.
fn behind_a_header(whole: &[u8]) -> Vec<u8> {
    let mut frame = [&whole[..54], &[17, 0, 1, 4, 0, 0, 0, 0], &whole[54..]].concat();
    let length = u16::from_be_bytes([frame[18], frame[19]]) + 8;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame[20] = 60;
    frame
}

#[test]
fn what_passes_is_counted_and_what_is_refused_too() {
    let Some(mut rig) = Rig::new("what_passes_is_counted_and_what_is_refused_too") else { return };
    let begun = rig.routed.traffic().unwrap();
    let (allowed, refused) = (datagram(rig.own(4), "198.51.100.10"), datagram(rig.own(4), "10.20.0.1"));
    let arrives = (0..20).any(|_| rig.arrives(std::slice::from_ref(&allowed)));
    assert!(arrives, "what is allowed arrives");
    let after = rig.routed.traffic().unwrap();
    assert!(after.sent - begun.sent >= allowed.len() as u64, "{begun:?} {after:?}");
    assert_eq!(after.refused, begun.refused);
    assert!(!rig.arrives(&[refused.clone(), refused.clone()]));
    let last = rig.routed.traffic().unwrap();
    assert_eq!(last.refused, begun.refused + 2, "{last:?}");
    assert!(last.sent >= after.sent + 2 * refused.len() as u64, "{last:?}");
    // The first was answered that it was refused. A tap's bytes count when they are read.
    let (begin, mut buffer) = (Instant::now(), [0; 2000]);
    let read = loop {
        match rig.tap.read(&mut buffer) {
            Ok(length) if buffer[10..length].get(12..14) == Some(&[8, 0]) => break length - HEADER.len(),
            Ok(_) => {}
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "nothing answers");
    };
    assert!(rig.routed.traffic().unwrap().received >= after.received + read as u64);
}

#[test]
fn what_isn_t_a_guest_s_own_or_isn_t_understood_never_leaves_its_gateway() {
    let test = "what_isn_t_a_guest_s_own_or_isn_t_understood_never_leaves_its_gateway";
    let Some(mut rig) = Rig::new(test) else { return };
    let (four, six) = (rig.own(4), rig.own(6));
    let (plain4, plain6) = (datagram(four, "198.51.100.10"), datagram(six, "2a00:1::10"));
    for allowed in [&plain4, &plain6] {
        // Machine and world take a moment to find each other.
        let arrives = (0..20).any(|_| rig.arrives(std::slice::from_ref(allowed)));
        assert!(arrives, "what is allowed arrives: {allowed:02x?}");
    }
    // Of what was kept meanwhile, nothing is left.
    while rig.arrives(&[]) {}
    let mut other_card = plain4.clone();
    other_card[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    let address = |text: &str| -> IpAddr { text.parse().unwrap() };
    let attacks: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("another card's address", vec![other_card]),
        ("a neighbour's address", vec![datagram(address("10.213.31.6"), "198.51.100.10")]),
        ("an address of the machine's network", vec![datagram(address("203.0.113.9"), "198.51.100.10")]),
        ("another address of IPv6", vec![datagram(address("2001:db8:1::9"), "2a00:1::10")]),
        ("a neighbour's address of IPv6", vec![datagram(address("fd76:696d:616e:1f::6"), "2a00:1::10")]),
        ("fragments", fragments(&plain4)),
        ("an option of IPv4", vec![with_option(&plain4)]),
        ("a header of IPv6 between", vec![behind_a_header(&plain6)]),
        ("a private address", vec![datagram(four, "10.20.0.1")]),
        ("a private address of IPv6", vec![datagram(six, "fd12::1")]),
        ("metadata", vec![datagram(four, "169.254.169.254")]),
    ];
    for (what, frames) in &attacks {
        assert!(!rig.arrives(frames), "{what}");
    }
    rig.disarm();
    for (what, frames) in &attacks {
        assert!(rig.arrives(frames), "without rules it should arrive: {what}");
    }
}

#[test]
fn nobody_begins_to_speak_with_a_guest_but_through_its_published_ports() {
    let test = "nobody_begins_to_speak_with_a_guest_but_through_its_published_ports";
    let Some(mut rig) = Rig::new(test) else { return };
    let (world, machine) = (rig.world.try_clone().unwrap(), rig.machine.try_clone().unwrap());
    let tries = [
        ("the world", &world, 4),
        ("the world", &world, 6),
        ("the machine", &machine, 4),
        ("the machine", &machine, 6),
    ];
    for (who, from, family) in tries {
        let to = rig.own(family);
        assert!(!rig.reaches_guest(from, to), "{who} at {to}");
    }
    rig.disarm();
    for (who, from, family) in tries {
        let to = rig.own(family);
        assert!(rig.reaches_guest(from, to), "without rules it should arrive: {who} at {to}");
    }
}

#[test]
fn a_machine_forwards_nothing_else_because_it_has_spacecores_and_nobody_else_is_one() {
    let test = "a_machine_forwards_nothing_else_because_it_has_spacecores_and_nobody_else_is_one";
    let Some(rig) = Rig::new(test) else { return };
    // A network of the machine's that is joined to it only now.
    let Some(inner) = made(test, &[]) else { return };
    within(&rig.machine, || {
        let near = End { name: "v2", mac: Mac([2, 0, 0, 0, 0, 3]), namespace: None };
        let far = End { name: "v3", mac: Mac([2, 0, 0, 0, 0, 4]), namespace: Some(inner.as_fd()) };
        Netlink::open().unwrap().pair(1500, near, far).unwrap();
    });
    for (space, words) in [
        (&rig.machine, "addr add 10.44.0.1/24 dev v2"),
        (&rig.machine, "addr add fd44::1/64 dev v2 nodad"),
        (&inner, "addr add 10.44.0.2/24 dev v3"),
        (&inner, "addr add fd44::2/64 dev v3 nodad"),
        (&rig.machine, "link set v2 up"),
        (&inner, "link set v3 up"),
        (&inner, "route add default via 10.44.0.1"),
        (&inner, "-6 route add default via fd44::1"),
        (&rig.world, "-6 route add fd44::/64 via 2001:db8:1::2"),
        (&rig.world, "addr add 10.213.0.30/32 dev lo"),
    ] {
        ip(space, words);
    }
    let bound = |space: &OwnedFd, at: &str, port: u16| {
        let at: IpAddr = at.parse().unwrap();
        let socket = within(space, || UdpSocket::bind((at, port)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (inside, here) = (bound(&inner, "::", PORT), bound(&rig.machine, "::", PORT));
    let (four, six, liar) = (
        bound(&rig.world, "203.0.113.1", 0),
        bound(&rig.world, "2001:db8:1::1", 0),
        bound(&rig.world, "10.213.0.30", 0),
    );
    let arrives = |from: &UdpSocket, to: &str, at: &UdpSocket| {
        let to: IpAddr = to.parse().unwrap();
        // Neighbours take a moment to find each other.
        (0..4).any(|_| {
            let _ = from.send_to(MARK, (to, PORT));
            at.recv(&mut [0; 2000]).is_ok()
        })
    };
    let tries = [
        ("through the machine", &four, "10.44.0.2", &inside),
        ("through the machine, by IPv6", &six, "fd44::2", &inside),
        ("to the machine, as a spacecore", &liar, "203.0.113.2", &here),
    ];
    for (what, from, to, at) in tries {
        assert!(!arrives(from, to, at), "{what}");
    }
    rig.disarm();
    // Forwarding is the interface's, and it came later.
    within(&rig.machine, || settings::set("ipv6", "v2", "forwarding", "1").unwrap());
    for (what, from, to, at) in tries {
        assert!(arrives(from, to, at), "without rules it should arrive: {what}");
    }
}

#[test]
fn nothing_that_a_guest_claims_changes_what_its_gateway_knows() {
    let test = "nothing_that_a_guest_claims_changes_what_its_gateway_knows";
    let Some(mut rig) = Rig::new(test) else { return };
    let gateway = rig.routed.namespace().try_clone_to_owned().unwrap();
    let known = || {
        within(&gateway, || {
            ["neigh", "route", "-6 neigh", "-6 route"].map(|words| {
                let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
                String::from_utf8(output.stdout).unwrap()
            })
        })
    };
    let before = known();
    assert!(before[0].contains("PERMANENT"), "{before:?}");
    // "10.213.x.5 is at 02:00:00:00:00:09", and a router's advertisement (RFC 4861, section 4.2).
    let IpAddr::V4(own) = rig.own(4) else { panic!("no IPv4") };
    let up = rig.routed.addresses().ipv4(Place::Gateway).octets();
    let liar = [2, 0, 0, 0, 0, 9];
    let claim =
        [&[0xff; 6], &MAC.0[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &liar, &up, &MAC.0, &own.octets()].concat();
    let (from, to): (Ipv6Addr, Ipv6Addr) = ("fe80::9".parse().unwrap(), "ff02::1".parse().unwrap());
    let mut advertisement = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let length = u32::try_from(advertisement.len()).unwrap().to_be_bytes();
    let sum = checksum(&[&from.octets(), &to.octets(), &length, &[0, 0, 0, 58], &advertisement]);
    advertisement.splice(2..4, sum.to_be_bytes());
    let mut router = frame(from.into(), to.into(), 58, &advertisement);
    router[21] = 255;
    // Questions of thousands who aren't there: "who has the gateway's address? tell fe80::n" (RFC 4861, section 4.3).
    let asked = rig.routed.addresses().ipv6(Place::Gateway).unwrap();
    let solicitation = |number: u16| {
        let from = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, number);
        let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &asked.octets(), &[1, 1], &liar].concat();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let sum = checksum(&[&from.octets(), &asked.octets(), &length, &[0, 0, 0, 58], &message]);
        message.splice(2..4, sum.to_be_bytes());
        let mut frame = frame(from.into(), asked.into(), 58, &message);
        frame[..6].copy_from_slice(&[0x52, 0x54, 0x00, 0x76, 0x69, 0x6e]);
        frame[21] = 255;
        frame
    };
    for claim in [claim, router].into_iter().chain((0..2000).map(solicitation)) {
        rig.tap.write_all(&[&HEADER[..], &claim].concat()).unwrap();
    }
    thread::sleep(Duration::from_millis(100));
    assert_eq!(known(), before);
}
