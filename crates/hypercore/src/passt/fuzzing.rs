//! What the fuzz target for networks does with any bytes; a test does the same with real frames that were changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use super::handshake;
use super::packet::{self, Frame};
use super::policy::{Gate, Verdict};
use super::window::Windows;
use crate::network::route::Host;
use crate::network::{GuestNetwork, MAC, Policy, Rule, Who, is_public};

const ME: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const ME6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const NAMES: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);
const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// Frames of a guest's and of the network's, by turns; each has two bytes of its length before it.
pub fn frames(bytes: &[u8]) {
    let guest = GuestNetwork {
        ipv4: Some((ME, 24, Ipv4Addr::new(192, 0, 2, 1))),
        ipv6: Some((ME6, 64, Ipv6Addr::LOCALHOST)),
        dns: vec![NAMES.into()],
        mtu: 1500,
    };
    let rule = |who| Rule { who, ports: None, protocol: None };
    let named = vec![rule(Who::Name("a.example.org".to_owned())), rule(Who::Name("*.b.org".to_owned()))];
    let policies = [Policy::default(), Policy { to: named, ..Policy::default() }];
    let look: fn() -> Host = || Host { addresses: vec![HOST.into()], ..Host::default() };
    let mut gates = policies.map(|policy| Gate::new(policy, MAC, &guest, vec![80], look));
    let mut windows = Windows::new(1_000_000);
    let now = Instant::now();
    let (mut rest, mut outwards) = (bytes, true);
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        let (frame, behind) = behind.split_at(length);
        for gate in &mut gates {
            match outwards {
                true => judge(gate, frame, now),
                false => drop(gate.inwards(frame, now)),
            }
        }
        let _ = (packet::tcp(frame), handshake::completion(frame), packet::answer(frame, b"payload"));
        let mut shrunk = frame.to_vec();
        windows.shrink(&mut shrunk);
        assert_eq!(shrunk.len(), frame.len());
        (rest, outwards) = (behind, !outwards);
    }
}

fn judge(gate: &mut Gate, frame: &[u8], now: Instant) {
    let passes = match gate.outwards(frame, now) {
        Verdict::Pass => true,
        Verdict::Drop => false,
        Verdict::Answer(answer) => {
            assert!(answer.len() >= 14 && answer.len() <= 1514, "an answer is a frame");
            false
        }
    };
    if !passes {
        return;
    }
    match packet::read(frame) {
        Some(Frame::Packet(packet)) => {
            assert!(packet.to != IpAddr::from(HOST), "never the host");
            if let packet::Carries::Udp { .. }
            | packet::Carries::Ping
            | packet::Carries::Tcp { opens: true, .. } = packet.carries
            {
                assert!(is_public(packet.to) || packet.to == IpAddr::from(NAMES), "{packet:?}");
            }
        }
        read => assert!(read.is_some(), "what isn't understood passed"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::frames::{frame, tcp, udp};
    use super::*;

    use crate::fuzzing::{FOLDER, mutated};

    #[test]
    fn frames_stand_any_change() {
        use simple_dns::rdata::{A, RData};
        use simple_dns::{CLASS, Name, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE};
        let name = Name::new("a.example.org").unwrap();
        let mut question = simple_dns::Packet::new_query(1);
        question.questions.push(Question::new(
            name.clone(),
            QTYPE::TYPE(TYPE::A),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        let mut answer = question.clone();
        answer.set_flags(PacketFlag::RESPONSE);
        let address = RData::A(A { address: u32::from(Ipv4Addr::new(8, 8, 8, 8)) });
        answer.answers.push(ResourceRecord::new(name, CLASS::IN, 60, address));
        let (me, me6): (IpAddr, IpAddr) = (ME.into(), ME6.into());
        let (eight, six): (IpAddr, IpAddr) = ("8.8.8.8".parse().unwrap(), "2606:4700::1".parse().unwrap());
        let asked = frame(me, NAMES.into(), 17, &udp(4000, 53, &question.build_bytes_vec().unwrap()));
        let answered = frame(NAMES.into(), me, 17, &udp(53, 4000, &answer.build_bytes_vec().unwrap()));
        let joined = |frames: &[&[u8]]| -> Vec<u8> {
            frames.iter().flat_map(|frame| [&(frame.len() as u16).to_be_bytes(), *frame].concat()).collect()
        };
        let opening = frame(me, eight, 6, &tcp(4000, 443, 2));
        let opening6 = frame(me6, six, 6, &tcp(4000, 443, 2));
        let ping = frame(me, eight, 1, &[8, 0, 0, 0, 0, 0, 0, 0]);
        let neighbour = frame(me6, "ff02::1".parse().unwrap(), 58, &[135, 0, 0, 0, 0, 0, 0, 0]);
        let seeds = [
            joined(&[&asked, &answered, &opening]),
            joined(&[&opening6, &[], &ping, &[], &neighbour]),
            joined(&[
                &frame(me, eight, 17, &udp(5000, 443, b"x")),
                &frame(eight, me, 17, &udp(443, 5000, b"y")),
            ]),
        ];
        mutated::stands(FOLDER, "frames", &seeds, frames);
    }
}
