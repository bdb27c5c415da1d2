//! The filter between a guest and passt: drops what is addressed to the host itself.
//!
//! `passt` connects from the host's own network, and some versions of it pass on what a guest addresses to `127.0.0.1`.
//! So each frame is looked at before `passt` sees it. Frames come as on the wire of [`crate::driver::Wiring::network`]:
//! their length in 32 bits, big endian, then the frame. What is dropped:
//!
//! - everything that is neither ARP, IPv4 nor IPv6;
//! - what is sent to loopback, unspecified, broadcast, multicast and link-local addresses (but for the messages by which
//!   IPv6 neighbours are found), and to where clouds keep their metadata; to IPv4 addresses written as IPv6 ones; and to
//!   any address that the host has at the start.
//!
//! A length that no frame has ends the connection. What comes back from `passt` passes as it is, in whole frames, because
//! the filter itself answers one kind of the guest's ([`super::handshake`]).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::net::{Shutdown, shutdown};

use super::handshake;
use crate::driver::Mac;
use crate::frames::{self, LENGTH, SHORTEST, receive, send_all};

/// The longest frame: a whole packet behind its hardware addresses.
const LONGEST: usize = super::MTU as usize + SHORTEST;
/// What is read at once, at least one whole frame.
const BUFFER: usize = 256 * 1024;

/// Where a cloud keeps its metadata, beside the link-local 169.254.169.254.
const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254);

/// What a guest may not send to.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// The host's own addresses.
    pub(super) own: Vec<IpAddr>,
    /// The address by which the guest asks for names, which it may send to in any case.
    pub(super) dns: Vec<IpAddr>,
}

impl Refused {
    /// Whether a frame may pass.
    fn passes(&self, frame: &[u8]) -> bool {
        match frame.get(12..14) {
            Some([0x08, 0x06]) => true,
            Some([0x08, 0x00]) => frame
                .get(30..34)
                .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
                .is_some_and(|a| self.passes4(a.into())),
            Some([0x86, 0xdd]) => {
                let to = frame.get(38..54).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
                to.is_some_and(|to| self.passes6(to.into(), finds_neighbours(frame)))
            }
            _ => false,
        }
    }

    fn passes4(&self, to: Ipv4Addr) -> bool {
        if self.dns.contains(&to.into()) {
            return true;
        }
        let special = to.is_loopback()
            || to.is_broadcast()
            || to.is_multicast()
            || to.is_link_local()
            || to.octets()[0] == 0;
        !special && !self.own.contains(&to.into())
    }

    fn passes6(&self, to: Ipv6Addr, finds_neighbours: bool) -> bool {
        if self.dns.contains(&to.into())
            || (finds_neighbours && (to.is_multicast() || to.is_unicast_link_local()))
        {
            return true;
        }
        // ::/96 and ::ffff:0:0/96 hold IPv4 addresses, ::1 and :: too.
        let [high @ .., _, _] = to.segments();
        let old = high[..5] == [0; 5] && [0, 0xffff].contains(&high[5]);
        !old && to != METADATA
            && !to.is_multicast()
            && !to.is_unicast_link_local()
            && !self.own.contains(&to.into())
    }
}

/// Whether an IPv6 frame solicits or advertises routers or neighbours (RFC 4861).
fn finds_neighbours(frame: &[u8]) -> bool {
    const ICMPV6: u8 = 58;
    frame.get(20) == Some(&ICMPV6) && frame.get(54).is_some_and(|kind| (133..=136).contains(kind))
}

/// Tells `passt` the guest's hardware address, by a gratuitous ARP as if from the guest (RFC 826, RFC 5227 section 3).
///
/// Until it has seen one it sends to the broadcast address, and a guest drops what reaches it so: published ports would
/// answer only after the guest has sent something by itself.
pub(super) fn announce(passt: impl AsFd, mac: Mac, address: Option<Ipv4Addr>) -> io::Result<()> {
    let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
    let mut frame = [[0xff; 6], mac.0].concat();
    // ARP; Ethernet and IPv4 with their lengths; a request.
    frame.extend_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&address);
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&address);
    // The shortest that Ethernet carries.
    frame.resize(60, 0);
    send_all(passt.as_fd(), &framed_by_length(&frame))
}

/// The two threads of a filter.
#[derive(Debug)]
pub(super) struct Filter {
    threads: Vec<JoinHandle<()>>,
}

impl Filter {
    /// Joins the guest's wire with `passt`'s until one of them closes; then both are closed.
    pub(super) fn start(guest: OwnedFd, passt: OwnedFd, refused: Refused) -> io::Result<Self> {
        let (guest_too, passt_too) = (guest.try_clone()?, passt.try_clone()?);
        let to_guest = Arc::new(Mutex::new(guest.try_clone()?));
        let to_guest_too = Arc::clone(&to_guest);
        let name = |name: &str| thread::Builder::new().name(name.to_owned());
        let out = name("network-out").spawn(move || {
            // However it ends, the other direction must end too.
            let _ = outwards(&guest, &passt, &to_guest, &refused);
            close(&guest, &passt);
        })?;
        let back = name("network-back").spawn(move || {
            let _ = back(&passt_too, &to_guest_too);
            close(&guest_too, &passt_too);
        })?;
        Ok(Self { threads: vec![out, back] })
    }

    /// Waits for the threads; they end when a wire is closed.
    pub(super) fn join(&mut self) {
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn close(guest: &OwnedFd, passt: &OwnedFd) {
    // A wire that is closed already is as good.
    let _ = shutdown(guest, Shutdown::Both);
    let _ = shutdown(passt, Shutdown::Both);
}

fn outwards(
    guest: &OwnedFd,
    passt: &OwnedFd,
    to_guest: &Mutex<OwnedFd>,
    refused: &Refused,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    loop {
        let count = receive(guest.as_fd(), buffer.get_mut(filled..).unwrap_or_default())?;
        if count == 0 {
            return Ok(());
        }
        filled = filled.saturating_add(count);
        let send = |framed: &[u8]| {
            send_all(passt.as_fd(), framed)?;
            match framed.get(LENGTH..).and_then(handshake::completion) {
                Some(answer) => send_frames(to_guest, &framed_by_length(&answer)),
                None => Ok(()),
            }
        };
        let taken = sort(buffer.get(..filled).unwrap_or_default(), refused, send)?;
        buffer.copy_within(taken..filled, 0);
        filled = filled.saturating_sub(taken);
    }
}

/// Hands on the whole frames that may pass, each with its length and by itself; returns how many bytes were looked at.
fn sort(bytes: &[u8], refused: &Refused, mut pass: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<usize> {
    frames::each(bytes, SHORTEST..=LONGEST, |framed, frame| match refused.passes(frame) {
        true => pass(framed),
        false => Ok(()),
    })
}

fn back(passt: &OwnedFd, guest: &Mutex<OwnedFd>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    loop {
        let count = receive(passt.as_fd(), buffer.get_mut(filled..).unwrap_or_default())?;
        if count == 0 {
            return Ok(());
        }
        filled = filled.saturating_add(count);
        let whole = whole_frames(buffer.get(..filled).unwrap_or_default())?;
        send_frames(guest, buffer.get(..whole).unwrap_or_default())?;
        buffer.copy_within(whole..filled, 0);
        filled = filled.saturating_sub(whole);
    }
}

/// How many of the bytes are whole frames.
fn whole_frames(bytes: &[u8]) -> io::Result<usize> {
    frames::each(bytes, 0..=BUFFER - LENGTH, |_, _| Ok(()))
}

/// Sends whole frames to the guest, which both threads do.
fn send_frames(guest: &Mutex<OwnedFd>, frames: &[u8]) -> io::Result<()> {
    let guest = guest.lock().unwrap_or_else(PoisonError::into_inner);
    send_all(guest.as_fd(), frames)
}

fn framed_by_length(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).unwrap_or_default();
    [&length.to_be_bytes()[..], frame].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn refused() -> Refused {
        let own = vec!["192.0.2.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        Refused { own, dns: vec!["169.254.53.53".parse().unwrap()] }
    }

    fn framed(frame: &[u8]) -> Vec<u8> {
        [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
    }

    fn to(address: &str, protocol: u8) -> Vec<u8> {
        let mut frame = vec![0; 60];
        match address.parse().unwrap() {
            IpAddr::V4(address) => {
                frame[12..14].copy_from_slice(&[8, 0]);
                frame[30..34].copy_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                frame[12..14].copy_from_slice(&[0x86, 0xdd]);
                frame[20] = protocol;
                frame[54] = 135;
                frame[38..54].copy_from_slice(&address.octets());
            }
        }
        frame
    }

    #[test]
    fn the_world_and_the_name_server_pass_and_the_host_doesn_t() {
        let refused = refused();
        for address in ["8.8.8.8", "169.254.53.53", "192.0.2.1", "2001:db8::1", "10.1.2.3"] {
            assert!(refused.passes(&to(address, 6)), "{address}");
        }
        for address in [
            "127.0.0.1",
            "127.255.0.9",
            "0.0.0.0",
            "192.0.2.2",
            "255.255.255.255",
            "224.0.0.251",
            "169.254.169.254",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "fd00::2",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
        ] {
            assert!(!refused.passes(&to(address, 6)), "{address}");
        }
        assert!(refused.passes(&to("ff02::1:ff00:1", 58)) && refused.passes(&to("fe80::1", 58)));
        assert!(!refused.passes(&to("::1", 58)));
        let mut tagged = to("8.8.8.8", 6);
        tagged[12..14].copy_from_slice(&[0x81, 0]);
        assert!(!refused.passes(&tagged));
    }

    #[test]
    fn frames_pass_both_ways_until_one_side_closes() {
        let ((mut guest, a), (b, mut passt)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let mut filter = Filter::start(a.into(), b.into(), refused()).unwrap();
        let (good, bad) = (framed(&to("8.8.8.8", 6)), framed(&to("127.0.0.1", 6)));
        guest.write_all(&[bad.clone(), good.clone(), bad].concat()).unwrap();
        // The guest gets whole frames, however they come.
        let anything = framed_by_length(b"anything");
        let (first, second) = anything.split_at(7);
        passt.write_all(first).unwrap();
        passt.write_all(second).unwrap();
        let mut answer = vec![0; anything.len()];
        guest.read_exact(&mut answer).unwrap();
        assert_eq!(answer, anything);
        drop(guest);
        let mut seen = Vec::new();
        passt.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, good);
        filter.join();
    }

    #[test]
    fn a_length_that_no_frame_has_ends_the_connection() {
        for length in [0_u32, 13, 70_000, u32::MAX] {
            let ((mut guest, a), (b, mut passt)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
            let mut filter = Filter::start(a.into(), b.into(), refused()).unwrap();
            guest.write_all(&length.to_be_bytes()).unwrap();
            assert_eq!(passt.read_to_end(&mut Vec::new()).unwrap(), 0);
            filter.join();
        }
    }

    proptest! {
        #[test]
        fn however_frames_are_cut_the_same_ones_pass(
            kinds in proptest::collection::vec(any::<bool>(), 0..20), cuts in proptest::collection::vec(1_usize..200, 1..50),
        ) {
            let (good, bad) = (framed(&to("8.8.8.8", 6)), framed(&to("127.0.0.1", 6)));
            let whole: Vec<u8> = kinds.iter().flat_map(|kind| if *kind { good.clone() } else { bad.clone() }).collect();
            let (mut pending, mut seen) = (Vec::new(), Vec::new());
            let mut rest = &whole[..];
            for cut in cuts.iter().cycle().take(whole.len() + 1) {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                pending.extend_from_slice(now);
                let pass = |frame: &[u8]| {
                    seen.extend_from_slice(frame);
                    Ok(())
                };
                let taken = sort(&pending, &refused(), pass).unwrap();
                pending.drain(..taken);
            }
            let expected: Vec<u8> = kinds.iter().filter(|kind| **kind).flat_map(|_| good.clone()).collect();
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = refused().passes(&bytes);
            let _ = sort(&bytes, &refused(), |_| Ok(()));
        }
    }
}
