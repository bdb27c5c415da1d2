//! What a frame of a guest's is, as far as a policy must know. Whatever isn't understood to its last byte that matters is
//! nothing: `passt` looks at the same bytes, and must not see another meaning in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::driver::Mac;

/// Two hardware addresses and a type.
pub(super) const ETHERNET: usize = 14;
const IPV6_HEADER: usize = 40;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A frame that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'f> {
    /// An ARP message, with the protocol address of who sends it.
    Arp(Ipv4Addr),
    /// A packet.
    Packet(Packet<'f>),
}

/// An IP packet that is whole, without fragments and without headers between IP and what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet<'f> {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) carries: Carries<'f>,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries<'f> {
    /// A TCP segment; whether it opens a connection.
    Tcp { from: u16, to: u16, opens: bool },
    /// A UDP datagram.
    Udp { from: u16, to: u16, payload: &'f [u8] },
    /// An echo request.
    Ping,
    /// A message by which IPv6 neighbours are found (RFC 4861), of this type.
    Neighbour(u8),
    /// Any other message of ICMP.
    Icmp,
}

/// The hardware address that a frame says it is from.
pub(super) fn sender(frame: &[u8]) -> Option<Mac> {
    frame.get(6..12)?.try_into().ok().map(Mac)
}

pub(super) fn read(frame: &[u8]) -> Option<Frame<'_>> {
    let rest = frame.get(ETHERNET..)?;
    match frame.get(12..ETHERNET)? {
        [0x08, 0x06] => arp(rest).map(Frame::Arp),
        [0x08, 0x00] => ipv4(rest).map(Frame::Packet),
        [0x86, 0xdd] => ipv6(rest).map(Frame::Packet),
        _ => None,
    }
}

/// RFC 826, for Ethernet and IPv4.
fn arp(message: &[u8]) -> Option<Ipv4Addr> {
    let head = message.get(..8)?;
    (head[..6] == [0, 1, 8, 0, 6, 4]).then_some(())?;
    let sender: [u8; 4] = message.get(14..18)?.try_into().ok()?;
    message.get(..28).map(|_| sender.into())
}

/// RFC 791.
fn ipv4(packet: &[u8]) -> Option<Packet<'_>> {
    let head = packet.get(..20)?;
    let header = usize::from(head[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let is_fragment = head[6] & 0x3f != 0 || head[7] != 0;
    if head[0] >> 4 != 4 || header < 20 || is_fragment {
        return None;
    }
    let address = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 4] = head.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes).into())
    };
    let carries = carries(head[9], packet.get(header..total)?, ICMP)?;
    Some(Packet { from: address(12)?, to: address(16)?, carries })
}

/// RFC 8200.
fn ipv6(packet: &[u8]) -> Option<Packet<'_>> {
    let head = packet.get(..IPV6_HEADER)?;
    let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
    if head[0] >> 4 != 6 {
        return None;
    }
    let address = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = head.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(bytes).into())
    };
    let payload = packet.get(IPV6_HEADER..IPV6_HEADER.checked_add(length)?)?;
    Some(Packet { from: address(8)?, to: address(24)?, carries: carries(head[6], payload, ICMPV6)? })
}

fn carries(protocol: u8, payload: &[u8], icmp: u8) -> Option<Carries<'_>> {
    let port = |at: usize| Some(u16::from_be_bytes(*payload.get(at..)?.first_chunk::<2>()?));
    match protocol {
        TCP => {
            let flags = *payload.get(..20)?.get(13)?;
            Some(Carries::Tcp { from: port(0)?, to: port(2)?, opens: flags & (SYN | ACK) == SYN })
        }
        UDP => {
            // passt sends what the packet has, whatever the datagram says.
            (usize::from(port(4)?) == payload.len()).then_some(())?;
            Some(Carries::Udp { from: port(0)?, to: port(2)?, payload: payload.get(8..)? })
        }
        _ if protocol == icmp => {
            let kind = *payload.get(..4)?.first()?;
            Some(match (icmp, kind) {
                (ICMP, 8) | (ICMPV6, 128) => Carries::Ping,
                (ICMPV6, 133..=136) => Carries::Neighbour(kind),
                _ => Carries::Icmp,
            })
        }
        _ => None,
    }
}

/// A connection of the guest's, by the other's address and port, and the guest's port; and where its segment begins in the
/// packet.
pub(super) fn tcp(frame: &[u8]) -> Option<((IpAddr, u16, u16), usize)> {
    let Frame::Packet(Packet { to, carries: Carries::Tcp { from, to: port, .. }, .. }) = read(frame)? else {
        return None;
    };
    let header = match to {
        IpAddr::V4(_) => usize::from(frame.get(ETHERNET)? & 0x0f) * 4,
        IpAddr::V6(_) => IPV6_HEADER,
    };
    Some(((to, port, from), header))
}

/// A UDP datagram back to where one came from, in a whole frame.
pub(super) fn answer(frame: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
    let Frame::Packet(Packet { carries: Carries::Udp { from, to, .. }, .. }) = read(frame)? else {
        return None;
    };
    let length = u16::try_from(payload.len().checked_add(8)?).ok()?.to_be_bytes();
    let head = [to.to_be_bytes(), from.to_be_bytes(), length, [0, 0]].concat();
    let mut datagram = [&head[..], payload].concat();
    let packet = frame.get(ETHERNET..)?;
    let (ip, source, target) = match frame.get(12..ETHERNET)? {
        [0x08, 0x00] => {
            let (source, target) = (packet.get(16..20)?, packet.get(12..16)?);
            let total = u16::try_from(datagram.len().checked_add(20)?).ok()?.to_be_bytes();
            let mut ip = [&[0x45, 0], &total[..], &[0, 0, 0x40, 0, 64, UDP, 0, 0], source, target].concat();
            let sum = checksum(&[&ip]);
            ip.splice(10..12, sum.to_be_bytes());
            (ip, source, target)
        }
        _ => {
            let (source, target) = (packet.get(24..40)?, packet.get(8..24)?);
            let ip = [&[0x60, 0, 0, 0], &length[..], &[UDP, 64], source, target].concat();
            (ip, source, target)
        }
    };
    let sum = checksum(&[source, target, &[0, UDP], &length, &datagram]);
    // 0 would mean that there is none (RFC 768).
    let sum = if sum == 0 { u16::MAX } else { sum };
    datagram.splice(6..8, sum.to_be_bytes());
    Some([frame.get(6..12)?, frame.get(..6)?, frame.get(12..ETHERNET)?, &ip, &datagram].concat())
}

/// What a router tells who sent a packet that isn't let through, in a whole frame: communication administratively prohibited
/// (RFC 1812, section 5.2.7.1; RFC 4443, section 3.1). Programs learn at once what they would else wait for.
pub(super) fn prohibited(frame: &[u8]) -> Option<Vec<u8>> {
    // As much of the packet as every host needs to know whose it was: its header and the ports.
    const QUOTED: usize = 8;
    let Frame::Packet(_) = read(frame)? else { return None };
    let packet = frame.get(ETHERNET..)?;
    let (ip, message) = match frame.get(12..ETHERNET)? {
        [0x08, 0x00] => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let (from, to) = (packet.get(16..20)?, packet.get(12..16)?);
            let mut message = [&[3, 13, 0, 0, 0, 0, 0, 0], packet.get(..header + QUOTED)?].concat();
            let sum = checksum(&[&message]);
            message.splice(2..4, sum.to_be_bytes());
            let total = u16::try_from(message.len().checked_add(20)?).ok()?.to_be_bytes();
            let mut ip = [&[0x45, 0], &total[..], &[0, 0, 0x40, 0, 64, ICMP, 0, 0], from, to].concat();
            let sum = checksum(&[&ip]);
            ip.splice(10..12, sum.to_be_bytes());
            (ip, message)
        }
        _ => {
            let (from, to) = (packet.get(24..40)?, packet.get(8..24)?);
            let mut message = [&[1, 1, 0, 0, 0, 0, 0, 0], packet.get(..IPV6_HEADER + QUOTED)?].concat();
            let length = u16::try_from(message.len()).ok()?.to_be_bytes();
            let sum = checksum(&[from, to, &[0, 0], &length, &[0, 0, 0, ICMPV6], &message]);
            message.splice(2..4, sum.to_be_bytes());
            ([&[0x60, 0, 0, 0], &length[..], &[ICMPV6, 64], from, to].concat(), message)
        }
    };
    Some([frame.get(6..12)?, frame.get(..6)?, frame.get(12..ETHERNET)?, &ip, &message].concat())
}

/// The internet checksum (RFC 1071). Only the last part may have an odd length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let sum = parts.iter().fold(0_u32, |sum, part| {
        let (words, odd) = part.as_chunks::<2>();
        let words = words.iter().map(|word| u32::from(u16::from_be_bytes(*word)));
        let last = odd.first().map_or(0, |byte| u32::from(*byte) << 8);
        words.chain([last]).fold(sum, u32::wrapping_add)
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod frames {
    use super::*;

    /// A frame from one address to another.
    pub(crate) fn frame(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = [[0xff; 6], crate::network::MAC.0].concat();
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let total = u16::try_from(payload.len() + 20).unwrap().to_be_bytes();
                frame.extend_from_slice(&[
                    0x08, 0x00, 0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol, 0, 0,
                ]);
                frame.extend_from_slice(&from.octets());
                frame.extend_from_slice(&to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
                frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, length[0], length[1], protocol, 64]);
                frame.extend_from_slice(&from.octets());
                frame.extend_from_slice(&to.octets());
            }
            mixed => panic!("{mixed:?}"),
        }
        frame.extend_from_slice(payload);
        frame
    }

    pub(crate) fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
        let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
        segment.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        segment
    }

    pub(crate) fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len() + 8).unwrap();
        let head = [from.to_be_bytes(), to.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
        [&head[..], payload].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::frames::{frame, tcp, udp};
    use super::*;
    use proptest::prelude::*;

    fn packet(frame: &[u8]) -> Option<Packet<'_>> {
        match read(frame)? {
            Frame::Packet(packet) => Some(packet),
            Frame::Arp(_) => None,
        }
    }

    #[test]
    fn packets_of_both_families_are_read() {
        let pairs = [("192.0.2.2", "8.8.8.8", ICMP, 8), ("2001:db8::2", "2001:4860::8", ICMPV6, 128)];
        for (from, to, icmp, echo) in pairs {
            let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let opening = frame(from, to, TCP, &tcp(1000, 443, SYN));
            let carries = Carries::Tcp { from: 1000, to: 443, opens: true };
            assert_eq!(packet(&opening).unwrap(), Packet { from, to, carries });
            let going = frame(from, to, TCP, &tcp(1000, 443, SYN | ACK));
            assert!(matches!(packet(&going).unwrap().carries, Carries::Tcp { opens: false, .. }));
            let datagram = frame(from, to, UDP, &udp(1000, 53, b"abc"));
            assert_eq!(
                packet(&datagram).unwrap().carries,
                Carries::Udp { from: 1000, to: 53, payload: b"abc" }
            );
            assert_eq!(packet(&frame(from, to, icmp, &[echo, 0, 0, 0])).unwrap().carries, Carries::Ping);
            assert_eq!(packet(&frame(from, to, icmp, &[5, 0, 0, 0])).unwrap().carries, Carries::Icmp);
            assert_eq!(packet(&frame(from, to, 132, &[0; 40])), None);
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_isn_t_read() {
        let (from, to) = ("192.0.2.2".parse().unwrap(), "8.8.8.8".parse().unwrap());
        let good = frame(from, to, TCP, &tcp(1000, 443, SYN));
        // A fragment, another version, a header too short, a length beyond the frame.
        for (place, value) in [(20, 0x20), (21, 1), (14, 0x65), (14, 0x44), (16, 0xff)] {
            let mut spoilt = good.clone();
            spoilt[place] = value;
            assert_eq!(read(&spoilt), None, "byte {place}");
        }
        let (from, to) = ("2001:db8::2".parse().unwrap(), "2001:4860::8".parse().unwrap());
        // Headers between, as hop by hop (0), routing (43) and fragment (44).
        for between in [0, 43, 44, 60] {
            assert_eq!(read(&frame(from, to, between, &[6; 48])), None);
        }
        let mut lying = frame(from, to, UDP, &udp(1, 2, b"abcd"));
        lying[58] = 1;
        assert_eq!(read(&lying), None, "a datagram longer than its packet");
    }

    #[test]
    fn an_answer_goes_back_with_its_sums_right() {
        for (from, to) in [("192.0.2.2", "169.254.53.53"), ("2001:db8::2", "2001:db8::53")] {
            let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let asked = frame(from, to, UDP, &udp(1000, 53, b"question"));
            let answered = answer(&asked, b"no").unwrap();
            let read = packet(&answered).unwrap();
            assert_eq!((read.from, read.to), (to, from));
            assert_eq!(read.carries, Carries::Udp { from: 53, to: 1000, payload: b"no" });
            let (header, addresses) = if from.is_ipv4() { (20, 12..20) } else { (40, 8..40) };
            let packet = &answered[ETHERNET..];
            let datagram = &packet[header..];
            let length = (datagram.len() as u16).to_be_bytes();
            assert_eq!(checksum(&[&packet[addresses], &[0, UDP], &length, datagram]), 0);
            assert!(from.is_ipv6() || checksum(&[&packet[..20]]) == 0);
        }
    }

    #[test]
    fn who_isn_t_let_through_is_told_in_words_that_its_kernel_believes() {
        for (from, to) in [("192.0.2.2", "10.0.0.1"), ("2001:db8::2", "fd00::1")] {
            let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let told = prohibited(&frame(from, to, TCP, &tcp(1000, 443, SYN))).unwrap();
            let read = packet(&told).unwrap();
            assert_eq!((read.from, read.to, read.carries), (to, from, Carries::Icmp));
            let packet = &told[ETHERNET..];
            let sum = match from.is_ipv4() {
                true => checksum(&[&packet[..20]]) | checksum(&[&packet[20..]]),
                false => checksum(&[&packet[8..40], &[0, 0, 0, 56, 0, 0, 0, ICMPV6], &packet[40..]]),
            };
            assert_eq!((sum, &told[..6]), (0, &crate::network::MAC.0[..]));
            // It quotes the ports.
            assert_eq!(told[told.len() - 8..][..4], [3, 0xe8, 1, 0xbb]);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in 0_usize..4) {
            let mut bytes = bytes;
            if let Some(place) = bytes.get_mut(12..15) {
                place.copy_from_slice(&[[8, 6, 0], [8, 0, 0x45], [0x86, 0xdd, 0x60], [0, 0, 0]][kind]);
            }
            let _ = (read(&bytes), answer(&bytes, b"x"), prohibited(&bytes), sender(&bytes));
        }
    }
}
