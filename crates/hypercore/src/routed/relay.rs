//! Published ports: what comes to them on the host is handed to the guest.
//!
//! ```text
//!  client --> [ host's namespace: listener ]  relay  [ gateway's namespace: connection ] --> guest
//! ```
//!
//! Listeners are ordinary sockets of the host: a port that is taken is an error before anything runs, the administrator's
//! firewall holds for them as for any program, and when the keeper dies, however it dies, they are gone. One thread serves
//! them all. It has entered the gateway's namespace, so that what it opens is opened there, and bears the client's own address
//! where that is possible (`IP_TRANSPARENT`, the kernel's `Documentation/networking/tproxy.rst`): the workload sees who calls.
//! Who calls from this machine's loopback is seen as the gateway.

mod tcp;
mod udp;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};

use self::tcp::Connections;
use self::udp::Peers;
use super::{RoutedError, failed};
use crate::network::limit::Limit;
use crate::network::{PortError, Protocol, Publish, is_in};

/// What fails.
const SERVE: &str = "serve published ports";
/// How often what has long been silent is looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// What is read at once: at least one whole datagram.
const BUFFER: usize = 64 * 1024;
/// Headers of IP and TCP in a packet, and the least that a packet carries else: a rate counts whole packets.
const HEADERS: usize = 52;
const CARRIED: usize = 1400;

/// A guest's addresses, as its gateway reaches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) ipv4: Option<Ipv4Addr>,
    pub(super) ipv6: Option<Ipv6Addr>,
}

impl Addresses {
    /// The one that somebody with this address can speak to as himself, or else any.
    fn nearest(self, from: IpAddr) -> Option<IpAddr> {
        let (four, six) = (self.ipv4.map(IpAddr::from), self.ipv6.map(IpAddr::from));
        if from.is_ipv4() { four.or(six) } else { six.or(four) }
    }
}

/// Who may call a guest, where that is, and how much it may answer.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) addresses: Addresses,
    /// Who may call, by networks; none for everybody.
    pub(super) from: Option<Vec<(IpAddr, u8)>>,
    /// The most bits in a second that it may send.
    pub(super) out_bits: Option<u64>,
}

impl Guest {
    fn lets_in(&self, caller: IpAddr) -> bool {
        let Some(networks) = &self.from else { return true };
        networks.iter().any(|(network, prefix)| is_in(caller, *network, *prefix))
    }

    /// Opens a socket towards a port of the guest's, on behalf of a caller. It may not be connected yet.
    fn open(&self, caller: SocketAddr, port: u16, kind: Type) -> io::Result<Socket> {
        let caller = SocketAddr::new(caller.ip().to_canonical(), caller.port());
        let to = self.addresses.nearest(caller.ip()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let to = SocketAddr::new(to, port);
        let as_caller = stands_for(caller.ip()) && caller.is_ipv4() == to.is_ipv4();
        as_caller
            .then(|| connect(to, Some(caller), kind))
            .and_then(Result::ok)
            .map_or_else(|| connect(to, None, kind), Ok)
    }
}

/// Whether an address means the same in the gateway's namespace as on the host.
fn stands_for(address: IpAddr) -> bool {
    let is_local = match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    };
    !is_local && !address.is_unspecified() && !address.is_multicast()
}

fn connect(to: SocketAddr, from: Option<SocketAddr>, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), kind, None)?;
    socket.set_nonblocking(true)?;
    if let Some(from) = from {
        socket.set_reuse_address(true)?;
        match from {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
        socket.bind(&from.into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// The rate of what a guest answers: nothing is read from it until the last was sent.
#[derive(Debug)]
struct Pace {
    limit: Option<Limit>,
    until: Option<Instant>,
}

impl Pace {
    fn take(&mut self, bytes: usize, now: Instant) {
        let Some(limit) = &mut self.limit else { return };
        let headers = bytes.div_ceil(CARRIED).saturating_mul(HEADERS);
        let wait = limit.take(bytes.saturating_add(headers), now);
        self.until = (!wait.is_zero()).then(|| now.checked_add(wait)).flatten();
    }

    /// How long to wait yet.
    fn left(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

/// A listener of the host's, before anybody is served.
enum Listener {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// Listens on a port; says which, where it is to be a free one.
fn listen(publish: &Publish) -> Result<(Listener, Publish), PortError> {
    let wanted = SocketAddr::new(publish.address, publish.host);
    let made = match publish.protocol {
        Protocol::Tcp => TcpListener::bind(wanted).and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok((socket.local_addr()?, Listener::Tcp(socket)))
        }),
        Protocol::Udp => UdpSocket::bind(wanted).and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok((socket.local_addr()?, Listener::Udp(socket)))
        }),
    };
    let (bound, listener) = made.map_err(|error| PortError::new(publish, error))?;
    Ok((listener, Publish { host: bound.port(), ..*publish }))
}

/// Serves published ports until it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    published: Vec<Publish>,
    /// The thread ends when this is closed.
    stop: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Listens in the calling thread's network namespace, and serves from another thread in the gateway's.
    ///
    /// # Errors
    /// A port is in use or may not be listened on; there is no room for a thread; the namespace may not be entered.
    pub(super) fn start(published: &[Publish], guest: Guest, gateway: OwnedFd) -> Result<Self, RoutedError> {
        let listening = published.iter().map(listen).collect::<Result<Vec<_>, _>>()?;
        let (listeners, published): (Vec<_>, Vec<_>) = listening.into_iter().unzip();
        let ports = published.iter().map(|publish| publish.guest).collect();
        let (stopped, stop) = io::pipe().map_err(failed(SERVE))?;
        let (says, hears) = mpsc::channel();
        let run = move || {
            let entered = move_into_link_name_space(gateway.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(io::Error::from)
                .and_then(|()| Engine::new(listeners, ports, guest, stopped));
            let (said, engine) = match entered {
                Ok(engine) => (Ok(()), Some(engine)),
                Err(error) => (Err(error), None),
            };
            // Whoever started it waits for this.
            let _ = says.send(said);
            if let Some(engine) = engine {
                engine.run();
            }
        };
        let thread = thread::Builder::new().name("published".to_owned()).spawn(run).map_err(failed(SERVE))?;
        let relay = Self { published, stop: Some(stop), thread: Some(thread) };
        match hears.recv() {
            Ok(Ok(())) => Ok(relay),
            Ok(Err(error)) => Err(failed(SERVE)(error)),
            Err(_) => Err(failed(SERVE)(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// The published ports, with the ones that were chosen for 0.
    pub(super) fn published(&self) -> &[Publish] {
        &self.published
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to say at its end.
            let _ = thread.join();
        }
    }
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Stop,
    /// A listener, by its place.
    Listener(u32),
    /// Either end of a connection.
    Connection(u32),
    /// The guest's end of an exchange of datagrams.
    Peer(u32),
}

impl Source {
    fn data(self) -> epoll::EventData {
        let (kind, number) = match self {
            Self::Stop => (0, 0),
            Self::Listener(number) => (1, number),
            Self::Connection(number) => (2, number),
            Self::Peer(number) => (3, number),
        };
        epoll::EventData::new_u64((kind << 32) | u64::from(number))
    }

    fn of(data: epoll::EventData) -> Self {
        let number = u32::try_from(data.u64() & 0xffff_ffff).unwrap_or_default();
        match data.u64() >> 32 {
            1 => Self::Listener(number),
            2 => Self::Connection(number),
            3 => Self::Peer(number),
            _ => Self::Stop,
        }
    }
}

/// What all that is served shares.
struct Shared {
    epoll: OwnedFd,
    guest: Guest,
    pace: Pace,
    buffer: Vec<u8>,
    /// Who has more to do though no event will say so.
    again: BTreeSet<Source>,
}

impl Shared {
    /// Watches both directions; an event comes once for each change.
    fn watch(&self, what: impl AsFd, source: Source) -> io::Result<()> {
        let flags =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, what, source.data(), flags)?)
    }

    /// Watches whether something has come; an event comes again until it is taken.
    fn expect(&self, what: impl AsFd, source: Source) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, what, source.data(), epoll::EventFlags::IN)?)
    }
}

/// The thread's work.
struct Engine {
    shared: Shared,
    listeners: Vec<Listener>,
    /// The guest's port of each listener.
    ports: Vec<u16>,
    connections: Connections,
    peers: Peers,
    _stop: io::PipeReader,
}

impl Engine {
    fn new(
        listeners: Vec<Listener>,
        ports: Vec<u16>,
        guest: Guest,
        stop: io::PipeReader,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let pace = Pace { limit: guest.out_bits.map(Limit::new), until: None };
        let shared = Shared { epoll, guest, pace, buffer: vec![0; BUFFER], again: BTreeSet::new() };
        shared.expect(&stop, Source::Stop)?;
        for (place, listener) in (0..).zip(&listeners) {
            match listener {
                Listener::Tcp(socket) => shared.expect(socket, Source::Listener(place))?,
                Listener::Udp(socket) => shared.expect(socket, Source::Listener(place))?,
            }
        }
        Ok(Self {
            shared,
            listeners,
            ports,
            connections: Connections::default(),
            peers: Peers::default(),
            _stop: stop,
        })
    }

    fn run(mut self) {
        let mut events = Vec::with_capacity(256);
        let mut swept = Instant::now();
        loop {
            let now = Instant::now();
            let wait = match (self.shared.again.is_empty(), self.shared.pace.left(now)) {
                (true, _) => SWEEP,
                (false, left) => left.unwrap_or_default(),
            };
            let timeout = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
            events.clear();
            match epoll::wait(&self.shared.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout))
            {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            for event in &events {
                match Source::of(event.data) {
                    Source::Stop => return,
                    source => self.serve(source),
                }
            }
            if self.shared.pace.left(Instant::now()).is_none() {
                for source in std::mem::take(&mut self.shared.again) {
                    self.serve(source);
                }
            }
            if self.connections.has_room_again() {
                self.listen_again();
            }
            if now.saturating_duration_since(swept) >= SWEEP {
                self.peers.sweep(now);
                swept = now;
            }
        }
    }

    fn listen_again(&self) {
        for (place, listener) in (0..).zip(&self.listeners) {
            if let Listener::Tcp(socket) = listener {
                // Most were never left alone.
                let _ = self.shared.expect(socket, Source::Listener(place));
            }
        }
    }

    fn serve(&mut self, source: Source) {
        match source {
            Source::Stop => {}
            Source::Connection(number) => self.connections.serve(number, &mut self.shared),
            Source::Peer(number) => self.peers.answer(number, &self.listeners, &mut self.shared),
            Source::Listener(place) => {
                let index = usize::try_from(place).unwrap_or(usize::MAX);
                match (self.listeners.get(index), self.ports.get(index)) {
                    (Some(Listener::Tcp(listener)), Some(port)) => {
                        self.connections.accept(listener, *port, &mut self.shared);
                    }
                    (Some(Listener::Udp(socket)), Some(port)) => {
                        self.peers.hear(place, socket, *port, &mut self.shared);
                    }
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
