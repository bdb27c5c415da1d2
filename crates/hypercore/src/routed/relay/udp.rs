//! Datagrams: each caller of each port has a socket of its own towards the guest, for as long as something is said.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::Type;

use super::{Listener, Shared, Source};

/// How long an exchange is kept after its last datagram (RFC 4787, REQ-5).
const SILENCE: Duration = Duration::from_secs(300);
/// The most exchanges at a time; for a new one the one that was silent longest is given up.
const MOST: usize = 1024;
/// How many datagrams are moved before others have their turn.
const TURNS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Peers {
    open: HashMap<u32, Peer>,
    /// By the listener's place and who calls it.
    numbers: HashMap<(u32, SocketAddr), u32>,
    next: u32,
}

#[derive(Debug)]
struct Peer {
    socket: UdpSocket,
    listener: u32,
    caller: SocketAddr,
    last: Instant,
}

impl Peers {
    /// Hands what has come to a listener to the guest.
    pub(super) fn hear(&mut self, place: u32, listener: &UdpSocket, port: u16, shared: &mut Shared) {
        for _ in 0..TURNS {
            let Ok((count, caller)) = listener.recv_from(&mut shared.buffer) else { return };
            if !shared.guest.lets_in(caller.ip().to_canonical()) {
                continue;
            }
            let now = Instant::now();
            let Some(number) = self.number(place, caller, port, shared, now) else { continue };
            let Some(peer) = self.open.get_mut(&number) else { continue };
            peer.last = now;
            // A datagram may be lost, as on any wire.
            let _ = peer.socket.send(shared.buffer.get(..count).unwrap_or_default());
        }
    }

    fn number(
        &mut self,
        place: u32,
        caller: SocketAddr,
        port: u16,
        shared: &mut Shared,
        now: Instant,
    ) -> Option<u32> {
        if let Some(number) = self.numbers.get(&(place, caller)) {
            return Some(*number);
        }
        if self.open.len() >= MOST {
            let silent = self.open.iter().min_by_key(|(_, peer)| peer.last).map(|(number, _)| *number);
            silent.into_iter().for_each(|number| self.close(number));
        }
        let socket: UdpSocket = shared.guest.open(caller, port, Type::DGRAM).ok()?.into();
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        shared.watch(&socket, Source::Peer(number)).ok()?;
        self.open.insert(number, Peer { socket, listener: place, caller, last: now });
        self.numbers.insert((place, caller), number);
        Some(number)
    }

    /// Hands what the guest has said to the caller.
    pub(super) fn answer(&mut self, number: u32, listeners: &[Listener], shared: &mut Shared) {
        let Some(peer) = self.open.get_mut(&number) else { return };
        let place = usize::try_from(peer.listener).unwrap_or(usize::MAX);
        let Some(Listener::Udp(listener)) = listeners.get(place) else { return };
        for _ in 0..TURNS {
            let now = Instant::now();
            if shared.pace.left(now).is_some() {
                shared.again.insert(Source::Peer(number));
                return;
            }
            match peer.socket.recv(&mut shared.buffer) {
                Ok(count) => {
                    peer.last = now;
                    shared.pace.take(count, now);
                    // As above.
                    let _ = listener.send_to(shared.buffer.get(..count).unwrap_or_default(), peer.caller);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // The guest has nobody on that port, or it was interrupted: the next may be another thing.
                Err(_) => {}
            }
        }
        shared.again.insert(Source::Peer(number));
    }

    /// Gives up what has long been silent.
    pub(super) fn sweep(&mut self, now: Instant) {
        let is_silent = |peer: &Peer| now.saturating_duration_since(peer.last) > SILENCE;
        let silent: Vec<u32> =
            self.open.iter().filter(|(_, peer)| is_silent(peer)).map(|(number, _)| *number).collect();
        silent.into_iter().for_each(|number| self.close(number));
    }

    fn close(&mut self, number: u32) {
        if let Some(peer) = self.open.remove(&number) {
            self.numbers.remove(&(peer.listener, peer.caller));
        }
    }
}
