//! The filter between a guest and passt: every frame, in both directions, is judged by a [`Gate`] and held to a rate.
//!
//! Frames come as on the wire of [`crate::driver::Wiring::network`]: their length in 32 bits, big endian, then the frame. A length
//! that no frame has ends the connection. What comes back from `passt` passes in whole frames, because the filter itself
//! answers some of the guest's: the last step of a handshake ([`super::handshake`]), and questions for names that the policy
//! doesn't let it ask.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, shutdown};

use super::handshake;
use super::policy::{Gate, Verdict};
use super::window::Windows;
use crate::driver::Mac;
use crate::frames::{self, LENGTH, SHORTEST, receive, send_all};
use crate::network::Traffic;
use crate::network::limit::Limit;

/// The longest frame: a whole packet behind its hardware addresses.
const LONGEST: usize = super::MTU as usize + SHORTEST;
/// What is read at once, at least one whole frame.
const BUFFER: usize = 256 * 1024;

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
    wires: [Arc<OwnedFd>; 2],
    counted: Arc<Counted>,
}

/// What has passed: bytes of frames, and frames that were dropped.
#[derive(Debug, Default)]
struct Counted {
    received: AtomicU64,
    sent: AtomicU64,
    refused: AtomicU64,
}

impl Counted {
    fn add(to: &AtomicU64, count: usize) {
        to.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// The most bits in a second in each direction; none for no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub(super) out_bits: Option<u64>,
    pub(super) in_bits: Option<u64>,
}

impl Filter {
    /// Joins the guest's wire with `passt`'s until one of them closes; then both are closed.
    pub(super) fn start(guest: OwnedFd, passt: OwnedFd, gate: Gate, rates: Rates) -> io::Result<Self> {
        let (guest, passt) = (Arc::new(guest), Arc::new(passt));
        let counted = Arc::new(Counted::default());
        let wires = |bits: Option<u64>| Wires {
            counted: Arc::clone(&counted),
            guest: Arc::clone(&guest),
            passt: Arc::clone(&passt),
            limit: bits.map(Limit::new),
        };
        let (mut out, mut back) = (wires(rates.out_bits), wires(rates.in_bits));
        let windows = rates.in_bits.map(Windows::new);
        let gate = Arc::new(Mutex::new(gate));
        let gate_too = Arc::clone(&gate);
        // Both threads send whole frames to the guest, one at a time.
        let to_guest = Arc::new(Mutex::new(()));
        let to_guest_too = Arc::clone(&to_guest);
        let name = |name: &str| thread::Builder::new().name(name.to_owned());
        let out = name("network-out").spawn(move || {
            // However it ends, the other direction must end too.
            let _ = out.outwards(&to_guest, &gate, windows);
            out.close();
        })?;
        let back = name("network-back").spawn(move || {
            let _ = back.back(&to_guest_too, &gate_too);
            back.close();
        })?;
        Ok(Self { threads: vec![out, back], wires: [guest, passt], counted })
    }

    /// What has passed so far.
    pub(super) fn traffic(&self) -> Traffic {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counted { received, sent, refused } = &*self.counted;
        Traffic { received: of(received), sent: of(sent), refused: of(refused) }
    }

    /// Closes the wires and waits for the threads, which end by that, also where nobody reads what they send.
    pub(super) fn join(&mut self) {
        for wire in &self.wires {
            // A wire that is closed already is as good.
            let _ = shutdown(&**wire, Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Both wires, and how fast one thread moves frames from the one to the other.
struct Wires {
    guest: Arc<OwnedFd>,
    passt: Arc<OwnedFd>,
    limit: Option<Limit>,
    counted: Arc<Counted>,
}

impl Wires {
    fn close(&self) {
        // A wire that is closed already is as good.
        let _ = shutdown(&*self.guest, Shutdown::Both);
        let _ = shutdown(&*self.passt, Shutdown::Both);
    }

    fn outwards(
        &mut self,
        to_guest: &Mutex<()>,
        gate: &Mutex<Gate>,
        mut windows: Option<Windows>,
    ) -> io::Result<()> {
        let (guest, passt) = (Arc::clone(&self.guest), Arc::clone(&self.passt));
        let counted = Arc::clone(&self.counted);
        let answer = |frame: &[u8]| {
            Counted::add(&counted.received, frame.len());
            let _turn = locked(to_guest);
            send_all(guest.as_fd(), &framed_by_length(frame))
        };
        read_frames(guest.as_fd(), LONGEST, |framed, frame| {
            Counted::add(&counted.sent, frame.len());
            let verdict = locked(gate).outwards(frame, Instant::now());
            match verdict {
                Verdict::Drop => {
                    Counted::add(&counted.refused, 1);
                    Ok(())
                }
                Verdict::Answer(reply) => answer(&reply),
                Verdict::Pass => {
                    self.wait_for(frame.len())?;
                    match &mut windows {
                        Some(windows) => {
                            let mut framed = framed.to_vec();
                            windows.shrink(framed.get_mut(LENGTH..).unwrap_or_default());
                            send_all(passt.as_fd(), &framed)?;
                        }
                        None => send_all(passt.as_fd(), framed)?,
                    }
                    handshake::completion(frame).map_or(Ok(()), |reply| answer(&reply))
                }
            }
        })
    }

    fn back(&mut self, to_guest: &Mutex<()>, gate: &Mutex<Gate>) -> io::Result<()> {
        let (guest, passt) = (Arc::clone(&self.guest), Arc::clone(&self.passt));
        read_frames(passt.as_fd(), BUFFER - LENGTH, |framed, frame| {
            let passes = locked(gate).inwards(frame, Instant::now());
            if !passes {
                return Ok(());
            }
            self.wait_for(frame.len())?;
            Counted::add(&self.counted.received, frame.len());
            let _turn = locked(to_guest);
            send_all(guest.as_fd(), framed)
        })
    }

    /// Waits until a frame may pass; an error if a wire closes meanwhile.
    fn wait_for(&mut self, frame: usize) -> io::Result<()> {
        let Some(limit) = &mut self.limit else { return Ok(()) };
        // What counts is the packet, as for those who measure it.
        let mut left = limit.take(frame.saturating_sub(SHORTEST), Instant::now());
        while !left.is_zero() {
            let begin = Instant::now();
            let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
            let mut ends = [&*self.guest, &*self.passt].map(|wire| PollFd::new(wire, PollFlags::empty()));
            match poll(&mut ends, Some(&timeout)) {
                Ok(0) => return Ok(()),
                Ok(_) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(rustix::io::Errno::INTR) => left = left.saturating_sub(begin.elapsed()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads until the other side closes, and hands on each whole frame of at most so many bytes, with its length and without.
fn read_frames(
    from: BorrowedFd<'_>,
    most: usize,
    mut each: impl FnMut(&[u8], &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    loop {
        let count = receive(from, buffer.get_mut(filled..).unwrap_or_default())?;
        if count == 0 {
            return Ok(());
        }
        filled = filled.saturating_add(count);
        let taken = frames::each(buffer.get(..filled).unwrap_or_default(), SHORTEST..=most, &mut each)?;
        buffer.copy_within(taken..filled, 0);
        filled = filled.saturating_sub(taken);
    }
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

    use crate::network::Policy;
    use crate::network::{GuestNetwork, MAC};
    use crate::passt::packet::frames::{frame, udp};

    fn gate() -> Gate {
        let guest = GuestNetwork {
            ipv4: Some(("192.0.2.2".parse().unwrap(), 24, "192.0.2.1".parse().unwrap())),
            ..GuestNetwork::default()
        };
        Gate::new(Policy::default(), MAC, &guest, Vec::new(), || {
            let addresses = vec!["192.0.2.2".parse().unwrap()];
            crate::network::route::Host { addresses, ..Default::default() }
        })
    }

    fn framed(frame: &[u8]) -> Vec<u8> {
        framed_by_length(frame)
    }

    /// A datagram from the guest.
    fn to(address: &str) -> Vec<u8> {
        frame("192.0.2.2".parse().unwrap(), address.parse().unwrap(), 17, &udp(1000, 1000, b"something"))
    }

    #[test]
    fn frames_pass_both_ways_until_one_side_closes() {
        let ((mut guest, a), (b, mut passt)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let mut filter = Filter::start(a.into(), b.into(), gate(), Rates::default()).unwrap();
        let (good, bad) = (framed(&to("8.8.8.8")), framed(b"of no kind that is known"));
        guest.write_all(&[bad.clone(), good.clone(), bad].concat()).unwrap();
        // The guest gets whole frames, however they come.
        let anything = framed_by_length(b"anything that no policy is about");
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
    fn it_ends_though_nobody_reads_what_it_sends() {
        let ((guest, a), (b, mut passt)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let mut filter = Filter::start(a.into(), b.into(), gate(), Rates::default()).unwrap();
        passt.set_nonblocking(true).unwrap();
        let frame = framed(&[7; 1000]);
        // Until the guest's wire, the filter and passt's wire are full.
        let mut idle = 0;
        while idle < 20 {
            // A part of a frame fills it as well.
            let written = passt.write(&frame).unwrap_or(0);
            idle = if written > 0 { 0 } else { idle + 1 };
            if written == 0 {
                thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        drop(passt);
        filter.join();
        drop(guest);
    }

    #[test]
    fn a_length_that_no_frame_has_ends_the_connection() {
        for length in [0_u32, 13, 70_000, u32::MAX] {
            let ((mut guest, a), (b, mut passt)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
            let mut filter = Filter::start(a.into(), b.into(), gate(), Rates::default()).unwrap();
            guest.write_all(&length.to_be_bytes()).unwrap();
            assert_eq!(passt.read_to_end(&mut Vec::new()).unwrap(), 0);
            filter.join();
        }
    }

    proptest! {
        #[test]
        fn however_frames_are_cut_the_same_ones_arrive(
            sizes in proptest::collection::vec(SHORTEST..200, 0..20), cuts in proptest::collection::vec(1_usize..200, 1..50),
        ) {
            let whole: Vec<u8> = sizes.iter().flat_map(|size| framed(&vec![7; *size])).collect();
            let (mut pending, mut seen) = (Vec::new(), Vec::new());
            let mut rest = &whole[..];
            for cut in cuts.iter().cycle().take(whole.len() + 1) {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                pending.extend_from_slice(now);
                let taken = frames::each(&pending, SHORTEST..=LONGEST, |framed, _| {
                    seen.extend_from_slice(framed);
                    Ok(())
                });
                let taken = taken.unwrap();
                pending.drain(..taken);
            }
            prop_assert_eq!(seen, whole);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = frames::each(&bytes, SHORTEST..=LONGEST, |_, _| Ok(()));
        }
    }
}
