//! Connections: two sockets, and what was read from one and not yet written to the other.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive, Type};

use super::{Pace, Shared, Source};

/// The most connections at a time; who comes then waits in the listener's queue. Of one address of the world's (of one /64, where that is
/// IPv6) no more than a quarter.
const MOST: usize = 4096;
const OF_ONE: usize = MOST / 4;
/// The most that are taken from a listener before others have their turn.
const TAKEN: usize = 64;
/// The most bytes that are read at once, and so kept for one direction of a connection.
const CHUNK: usize = 16 * 1024;
/// How often one direction of one connection is read from before others have their turn.
const TURNS: usize = 16;
/// After so long without a word it is asked whether the other side is still there, and given up after some minutes.
const SILENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(super) struct Connections {
    open: HashMap<u32, Connection>,
    next: u32,
    /// How many each has.
    of_one: HashMap<IpAddr, usize>,
    /// Listeners that have somebody waiting, because there was no room.
    turned_away: bool,
}

#[derive(Debug)]
struct Connection {
    /// Whom it counts for.
    caller: IpAddr,
    client: TcpStream,
    guest: TcpStream,
    connected: bool,
    inwards: Way,
    outwards: Way,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// What was read, and from where on it isn't written.
    kept: Vec<u8>,
    from: usize,
    /// Whether there is nothing more to read.
    ended: bool,
    /// Whether the reader was told so.
    told: bool,
}

/// Why a direction stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// For a socket, which will say so.
    Waits,
    /// For others' turns, or for the rate.
    Yields,
    /// For ever.
    Done,
}

impl Connections {
    pub(super) fn accept(&mut self, listener: &TcpListener, port: u16, shared: &mut Shared) {
        for _ in 0..TAKEN {
            if self.open.len() >= MOST {
                self.turn_away(listener, shared);
                return;
            }
            match listener.accept() {
                Ok((client, caller)) => {
                    let who = caller.ip().to_canonical();
                    if !shared.guest.lets_in(who) || self.has_enough(who) {
                        reset(&client);
                        continue;
                    }
                    // A guest that can't be reached is one that answers nobody.
                    let _ = self.open(client, caller, port, shared);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_exhausted(&error) => {
                    self.turn_away(listener, shared);
                    return;
                }
                // None is left, or the one that was there has gone.
                Err(_) => return,
            }
        }
    }

    /// Whether somebody has as many connections as one may. The machine's own processes stand for others.
    fn has_enough(&self, who: IpAddr) -> bool {
        !who.is_loopback() && self.of_one.get(&share(who)).is_some_and(|count| *count >= OF_ONE)
    }

    fn close(&mut self, number: u32) {
        let Some(connection) = self.open.remove(&number) else { return };
        if let Some(count) = self.of_one.get_mut(&connection.caller) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_one.remove(&connection.caller);
            }
        }
    }

    /// Lets a listener's callers wait until a connection has ended.
    fn turn_away(&mut self, listener: &TcpListener, shared: &Shared) {
        // If it can't be, the listener is looked at again in vain, which costs time alone.
        let _ = rustix::event::epoll::delete(&shared.epoll, listener);
        self.turned_away = true;
    }

    /// Whether listeners that were left alone should be looked at again.
    pub(super) fn has_room_again(&mut self) -> bool {
        let again = self.turned_away && self.open.len() < MOST / 4 * 3;
        self.turned_away &= !again;
        again
    }

    fn open(
        &mut self,
        client: TcpStream,
        caller: std::net::SocketAddr,
        port: u16,
        shared: &mut Shared,
    ) -> io::Result<()> {
        client.set_nonblocking(true)?;
        let guest = shared.guest.open(caller, port, Type::STREAM);
        let guest: TcpStream = guest.inspect_err(|_| reset(&client))?.into();
        for end in [&client, &guest] {
            end.set_nodelay(true)?;
            SockRef::from(end).set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENCE))?;
        }
        let number = self.free_number();
        shared.watch(&client, Source::Connection(number))?;
        shared.watch(&guest, Source::Connection(number))?;
        let (inwards, outwards) = (Way::default(), Way::default());
        let caller = share(caller.ip().to_canonical());
        *self.of_one.entry(caller).or_default() += 1;
        self.open.insert(number, Connection { caller, client, guest, connected: false, inwards, outwards });
        Ok(())
    }

    fn free_number(&mut self) -> u32 {
        loop {
            self.next = self.next.wrapping_add(1);
            if !self.open.contains_key(&self.next) {
                return self.next;
            }
        }
    }

    pub(super) fn serve(&mut self, number: u32, shared: &mut Shared) {
        let Some(connection) = self.open.get_mut(&number) else { return };
        match connection.serve(&mut shared.buffer, &mut shared.pace) {
            Ok(Stand::Waits) => {}
            Ok(Stand::Yields) => {
                shared.again.insert(Source::Connection(number));
            }
            Ok(Stand::Done) => self.close(number),
            Err(_) => {
                // What broke on one side is broken on the other, too.
                connection.reset();
                self.close(number);
            }
        }
    }
}

/// Whom an address counts for.
fn share(who: IpAddr) -> IpAddr {
    match who {
        IpAddr::V4(_) => who,
        IpAddr::V6(who) => std::net::Ipv6Addr::from(u128::from(who) & !u128::from(u64::MAX)).into(),
    }
}

/// Whether there are no descriptors or buffers left.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Lets the other side know, when it is closed, that this was no regular end.
fn reset(stream: &TcpStream) {
    // Then it is told of a regular one.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

impl Connection {
    fn reset(&self) {
        reset(&self.client);
        reset(&self.guest);
    }

    fn serve(&mut self, buffer: &mut [u8], pace: &mut Pace) -> io::Result<Stand> {
        if !self.connected {
            if let Some(error) = self.guest.take_error()? {
                return Err(error);
            }
            match self.guest.peer_addr() {
                Ok(_) => self.connected = true,
                Err(_) => return Ok(Stand::Waits),
            }
        }
        let inwards = self.inwards.go(&self.client, &self.guest, buffer, None)?;
        let outwards = self.outwards.go(&self.guest, &self.client, buffer, Some(pace))?;
        Ok(match (inwards, outwards) {
            (Stand::Done, Stand::Done) => Stand::Done,
            (Stand::Yields, _) | (_, Stand::Yields) => Stand::Yields,
            _ => Stand::Waits,
        })
    }
}

impl Way {
    /// Moves what can be moved.
    fn go(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        buffer: &mut [u8],
        mut pace: Option<&mut Pace>,
    ) -> io::Result<Stand> {
        for _ in 0..TURNS {
            while let Some(rest) = self.kept.get(self.from..).filter(|rest| !rest.is_empty()) {
                match write(to, rest)? {
                    Some(count) => self.from = self.from.saturating_add(count),
                    None => return Ok(Stand::Waits),
                }
            }
            self.kept = Vec::new();
            self.from = 0;
            if self.ended {
                if !self.told {
                    // Who has gone already needs no word of it.
                    let _ = to.shutdown(Shutdown::Write);
                    self.told = true;
                }
                return Ok(Stand::Done);
            }
            let now = Instant::now();
            if pace.as_ref().is_some_and(|pace| pace.left(now).is_some()) {
                return Ok(Stand::Yields);
            }
            let count = match (&mut { from }).read(buffer.get_mut(..CHUNK).unwrap_or_default()) {
                Ok(0) => {
                    self.ended = true;
                    continue;
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Stand::Waits),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if let Some(pace) = &mut pace {
                pace.take(count, now);
            }
            let read = buffer.get(..count).unwrap_or_default();
            let written = write(to, read)?.unwrap_or(0);
            self.kept.extend_from_slice(read.get(written..).unwrap_or_default());
        }
        Ok(Stand::Yields)
    }
}

/// Writes a part; nothing where there is no room now.
fn write(mut to: &TcpStream, bytes: &[u8]) -> io::Result<Option<usize>> {
    match to.write(bytes) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
        Err(error) => Err(error),
    }
}
