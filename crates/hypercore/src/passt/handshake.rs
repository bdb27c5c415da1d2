//! The last step of a TCP handshake (RFC 9293, section 3.5), which some versions of `passt` leave out.
//!
//! When somebody connects to a published port, `passt` sends the guest a SYN and gets its SYN-ACK; the ACK that makes the
//! connection complete it sends only with the client's first bytes. A server that speaks first, as those of SSH, SMTP and
//! MySQL do, would wait for ever. So the ACK is made here from the SYN-ACK. A guest that gets a second one ignores it.

use super::packet::{ETHERNET, checksum};

/// What the guest may send before `passt` itself says how much: this many bytes, times the scale that `passt` announced.
const WINDOW: u16 = 64;
const TCP: u8 = 6;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const TCP_HEADER: usize = 20;

/// The ACK with which a connection is complete, if this frame of the guest's is a SYN-ACK.
pub(super) fn completion(frame: &[u8]) -> Option<Vec<u8>> {
    match frame.get(12..ETHERNET)? {
        [0x08, 0x00] => over_ipv4(frame),
        [0x86, 0xdd] => over_ipv6(frame),
        _ => None,
    }
}

fn over_ipv4(frame: &[u8]) -> Option<Vec<u8>> {
    let ip = frame.get(ETHERNET..)?;
    let header = usize::from(ip.first()? & 0x0f) * 4;
    let is_whole = ip.get(6..8)?.iter().zip([0xbf, 0xff]).all(|(byte, mask)| byte & mask == 0);
    if header < 20 || *ip.get(9)? != TCP || !is_whole {
        return None;
    }
    let (from, to) = (ip.get(12..16)?, ip.get(16..20)?);
    let segment = reply(ip.get(header..)?, to, from)?;
    let length = u16::try_from(20 + segment.len()).ok()?;
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0x40, 0, 64, TCP, 0, 0]);
    packet.extend_from_slice(to);
    packet.extend_from_slice(from);
    let sum = checksum(&[&packet]);
    packet.splice(10..12, sum.to_be_bytes());
    Some([frame.get(6..12)?, frame.get(..6)?, &[0x08, 0x00], &packet, &segment].concat())
}

fn over_ipv6(frame: &[u8]) -> Option<Vec<u8>> {
    let ip = frame.get(ETHERNET..)?;
    if *ip.get(6)? != TCP {
        return None;
    }
    let (from, to) = (ip.get(8..24)?, ip.get(24..40)?);
    let segment = reply(ip.get(40..)?, to, from)?;
    let length = u16::try_from(segment.len()).ok()?.to_be_bytes();
    let head = [&[0x60, 0, 0, 0], &length[..], &[TCP, 64], to, from].concat();
    Some([frame.get(6..12)?, frame.get(..6)?, &[0x86, 0xdd], &head, &segment].concat())
}

/// The segment that answers a SYN-ACK, from one address to the other.
fn reply(segment: &[u8], from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    let header = segment.get(..TCP_HEADER)?;
    if header[13] & 0x3f != SYN | ACK {
        return None;
    }
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let mut answer = Vec::with_capacity(TCP_HEADER);
    answer.extend_from_slice(&header[2..4]);
    answer.extend_from_slice(&header[..2]);
    answer.extend_from_slice(&header[8..12]);
    answer.extend_from_slice(&sequence.wrapping_add(1).to_be_bytes());
    answer.extend_from_slice(&[0x50, ACK]);
    answer.extend_from_slice(&WINDOW.to_be_bytes());
    answer.extend_from_slice(&[0; 4]);
    let length = u32::try_from(answer.len()).ok()?.to_be_bytes();
    let sum = checksum(&[from, to, &length, &[0, 0, 0, TCP], &answer]);
    answer.splice(16..18, sum.to_be_bytes());
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A SYN-ACK from 192.0.2.2:80 to 192.0.2.1:40000, with four bytes of options.
    fn syn_ack() -> Vec<u8> {
        let mut frame = vec![0xaa; 6];
        frame.extend_from_slice(&[0xbb; 6]);
        frame.extend_from_slice(&[0x08, 0x00, 0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend_from_slice(&[192, 0, 2, 2, 192, 0, 2, 1]);
        frame.extend_from_slice(&[
            0, 80, 0x9c, 0x40, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 7, 0x60, 0x12, 1, 2, 0, 0,
        ]);
        frame.extend_from_slice(&[0, 0, 2, 4, 5, 0xb4]);
        frame
    }

    #[test]
    fn a_syn_ack_is_answered_by_the_ack_that_completes_the_connection() {
        let answer = completion(&syn_ack()).unwrap();
        assert_eq!((&answer[..6], &answer[6..12]), (&[0xbb; 6][..], &[0xaa; 6][..]));
        assert_eq!((&answer[26..30], &answer[30..34]), (&[192, 0, 2, 1][..], &[192, 0, 2, 2][..]));
        let segment = &answer[34..];
        assert_eq!(segment[..4], [0x9c, 0x40, 0, 80]);
        // Sequence numbers go round.
        assert_eq!((&segment[4..8], &segment[8..12]), (&[0, 0, 0, 7][..], &[0, 0, 0, 0][..]));
        assert_eq!((segment[13], answer.len()), (ACK, 54));
        // Over a header with its checksum, the sum is 0.
        assert_eq!(checksum(&[&answer[14..34]]), 0);
        assert_eq!(checksum(&[&answer[26..34], &[0, 6, 0, 20], segment]), 0);
    }

    #[test]
    fn nothing_else_is_answered() {
        for flags in [0x02, 0x10, 0x11, 0x14, 0x18] {
            let mut frame = syn_ack();
            frame[47] = flags;
            assert_eq!(completion(&frame), None, "{flags:#x}");
        }
        let spoilt: [(usize, u8); 4] = [(12, 0x86), (14, 0x41), (20, 0x20), (23, 17)];
        for (place, value) in spoilt {
            let mut frame = syn_ack();
            frame[place] = value;
            assert_eq!(completion(&frame), None, "byte {place}");
        }
    }

    #[test]
    fn it_is_the_same_over_ipv6() {
        let mut frame = syn_ack()[..12].to_vec();
        frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 6, 64]);
        frame.extend_from_slice(&[0xfd; 16]);
        frame.extend_from_slice(&[0xfc; 16]);
        frame.extend_from_slice(&syn_ack()[34..]);
        let answer = completion(&frame).unwrap();
        assert_eq!((&answer[22..38], &answer[38..54]), (&[0xfc; 16][..], &[0xfd; 16][..]));
        assert_eq!(checksum(&[&answer[22..54], &[0, 0, 0, 20, 0, 0, 0, 6], &answer[54..]]), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_a_panic(frame in prop::collection::vec(any::<u8>(), 0..120), v6 in any::<bool>()) {
            let mut frame = frame;
            if frame.len() > 23 {
                frame[12..14].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
            }
            let _ = completion(&frame);
        }
    }
}
