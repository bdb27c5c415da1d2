//! Names: the gateway is the guest's name server.
//!
//! ```text
//!  guest --> [ gateway's namespace: port 53 ]  judge  [ host's namespace: a socket for each question ] --> the host's resolvers
//!                                                |                                                            |
//!                                                `- a sibling's name, or a refusal          learn, then hand on <-'
//! ```
//!
//! What is asked for is judged by the [`Policy`]; a sibling's name is answered here; everything else goes to the resolvers of
//! `/etc/resolv.conf`, over UDP or TCP as it came. Before an answer is handed on, the gateway's rules have learnt the addresses
//! in it that the policy names, so that the guest can use them at once.
//!
//! A resolver's answer counts if it comes from the resolver's address to a socket and with a number that were drawn for
//! this question alone, and repeats the question (RFC 5452).

mod question;
mod tcp;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use self::question::{Judged, SERVER_FAILED};
use crate::network::Policy;
use crate::network::questions::without_answer;

/// The domain of siblings' names (ICANN keeps it for private use).
const DOMAIN: &str = "internal";
/// The port of name servers.
const PORT: u16 = 53;
/// The longest message over UDP.
const LONGEST: usize = 65_535;
/// The most questions for resolvers in a second; more are lost.
const PER_SECOND: u32 = 200;
/// The most who wait for the answer to the same question.
const WAITING: usize = 32;
/// The most questions that are with a resolver at a time; a question too many is lost, and asked again.
const ASKED: usize = 256;
/// The most resolvers that are asked (resolv.conf(5), `MAXNS`), how often each, and how long one has for its answer.
const RESOLVERS: usize = 3;
const ROUNDS: usize = 2;
const PATIENCE: Duration = Duration::from_millis(2500);

/// Knows the addresses of a sibling by its name.
type Siblings = Box<dyn Fn(&str) -> Vec<IpAddr> + Send + Sync>;
/// Takes note of addresses.
type Learn = Box<dyn Fn(&[(usize, IpAddr, Duration)]) + Send + Sync>;

/// Whom names are for, and who knows them.
pub(super) struct Directory {
    /// Which names the guest may ask for.
    pub(super) policy: Policy,
    /// The addresses of a sibling, by its name; none if there is none.
    pub(super) siblings: Siblings,
    /// Is told the addresses of names that rules are about, each with the rule's place and how long it holds, before the guest is.
    pub(super) learn: Learn,
    /// Finds the resolvers, which may change.
    pub(super) resolvers: fn() -> Vec<SocketAddr>,
    /// Since when questions are counted, and how many there were.
    pub(super) begun: Mutex<(Option<Instant>, u32)>,
}

impl Directory {
    /// Lets the rules know what an answer tells.
    fn learn_from(&self, answer: &[u8]) {
        let learned = self.policy.learned(answer);
        if !learned.is_empty() {
            (self.learn)(&learned);
        }
    }

    fn judge(&self, question: &[u8]) -> Judged {
        question::judge(question, &self.policy, &self.siblings)
    }

    /// The question for a resolver, of which nothing is the guest's but what it is for; nothing if there have been too many.
    fn asked_of_resolver(&self, question: &[u8]) -> Option<(Vec<u8>, [u8; 2])> {
        let now = Instant::now();
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *begun {
            (Some(since), count) if now.saturating_duration_since(*since) < Duration::from_secs(1) => {
                *count = count.saturating_add(1);
                if *count > PER_SECOND {
                    return None;
                }
            }
            other => *other = (Some(now), 1),
        }
        Some((question::for_resolver(question, drawn())?, *question.first_chunk()?))
    }
}

/// The resolvers of `/etc/resolv.conf`; this machine itself, where it names none (resolv.conf(5)). One with a zone is left out.
pub(super) fn resolvers() -> Vec<SocketAddr> {
    parse(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    };
    let found: Vec<SocketAddr> =
        text.lines().filter_map(address).take(RESOLVERS).map(|address| (address, PORT).into()).collect();
    if found.is_empty() { vec![(Ipv4Addr::LOCALHOST, PORT).into()] } else { found }
}

/// Answers questions until it is dropped.
#[derive(Debug)]
pub(super) struct Names {
    /// The thread ends when this is closed.
    stop: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Names {
    /// Listens at these addresses in the gateway's namespace; asks resolvers from the calling thread's.
    ///
    /// # Errors
    /// The namespace may not be entered, an address isn't there, or there is no room for a thread.
    pub(super) fn start(at: &[IpAddr], directory: Directory, gateway: &OwnedFd) -> io::Result<Self> {
        let (sockets, listeners) = listen(at, gateway)?;
        let (stopped, stop) = io::pipe()?;
        let server = Server { directory: Arc::new(directory), sockets, listeners, asked: Vec::new() };
        let thread = thread::Builder::new().name("names".to_owned()).spawn(move || {
            // It ends when it is stopped; nobody is there to be told of anything else.
            let _ = server.run(&stopped);
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to say at its end.
            let _ = thread.join();
        }
    }
}

type Listening = (Vec<UdpSocket>, Vec<TcpListener>);

/// Opens the sockets from a thread that enters the namespace and ends there.
fn listen(at: &[IpAddr], gateway: &OwnedFd) -> io::Result<Listening> {
    let open = || -> io::Result<Listening> {
        move_into_link_name_space(gateway.as_fd(), Some(LinkNameSpaceType::Network))?;
        let (mut sockets, mut listeners) = (Vec::new(), Vec::new());
        for address in at {
            let socket = UdpSocket::bind((*address, PORT))?;
            socket.set_nonblocking(true)?;
            sockets.push(socket);
            let listener = TcpListener::bind((*address, PORT))?;
            listener.set_nonblocking(true)?;
            listeners.push(listener);
        }
        Ok((sockets, listeners))
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, open)?;
        thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    })
}

/// Somebody who has put a question.
struct Waiting {
    asker: SocketAddr,
    /// On which socket.
    place: usize,
    /// The number that he gave it.
    number: [u8; 2],
}

/// A question that is with a resolver.
struct Asked {
    /// Drawn for this question alone, connected to the resolver.
    socket: UdpSocket,
    /// As it was put to the resolver.
    question: Vec<u8>,
    /// Who wants to know.
    waiting: Vec<Waiting>,
    /// How many resolvers were asked, and until when the last has time.
    tries: usize,
    until: Instant,
}

struct Server {
    directory: Arc<Directory>,
    sockets: Vec<UdpSocket>,
    listeners: Vec<TcpListener>,
    asked: Vec<Asked>,
}

impl Server {
    fn run(mut self, stopped: &io::PipeReader) -> io::Result<()> {
        let mut buffer = vec![0; LONGEST];
        let clients = tcp::Clients::default();
        loop {
            let now = Instant::now();
            let wait = self.asked.iter().map(|asked| asked.until.saturating_duration_since(now)).min();
            let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
            let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
            let (mut heard, mut called, mut answered) = (Vec::new(), Vec::new(), Vec::new());
            {
                let mut fds = vec![PollFd::new(stopped, PollFlags::IN)];
                fds.extend(self.sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
                fds.extend(self.listeners.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
                fds.extend(self.asked.iter().map(|asked| PollFd::new(&asked.socket, PollFlags::IN)));
                match poll(&mut fds, wait.as_ref()) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                let mut fds = fds.iter();
                if fds.next().is_some_and(ready) {
                    return Ok(());
                }
                let mut places = |count: usize, into: &mut Vec<usize>| {
                    into.extend((0..count).filter(|_| fds.next().is_some_and(ready)));
                };
                places(self.sockets.len(), &mut heard);
                places(self.listeners.len(), &mut called);
                places(self.asked.len(), &mut answered);
            }
            // From the last, so that the places of those before stay.
            for place in answered.into_iter().rev() {
                self.answer(place, &mut buffer);
            }
            self.ask_again(Instant::now());
            for place in heard {
                self.hear(place, &mut buffer);
            }
            for listener in called.into_iter().filter_map(|place| self.listeners.get(place)) {
                clients.accept(listener, &self.directory);
            }
        }
    }

    /// Takes a question that has come.
    fn hear(&mut self, place: usize, buffer: &mut [u8]) {
        let Some(socket) = self.sockets.get(place) else { return };
        let Ok((count, asker)) = socket.recv_from(buffer) else { return };
        let question = buffer.get(..count).unwrap_or_default();
        let reply = match self.directory.judge(question) {
            Judged::Silence => return,
            Judged::Reply(reply) => reply,
            Judged::Ask => {
                let Some((sent, number)) = self.directory.asked_of_resolver(question) else { return };
                let waits = Waiting { asker, place, number };
                // One question with a resolver at a time, so that who forges answers has one number to guess.
                let same = self.asked.iter_mut().find(|asked| question::is_same(&asked.question, &sent));
                if let Some(asked) = same {
                    if asked.waiting.len() < WAITING {
                        asked.waiting.push(waits);
                    }
                    return;
                }
                if self.asked.len() >= ASKED {
                    return;
                }
                match ask(&sent, &(self.directory.resolvers)(), 0) {
                    Some(socket) => {
                        let until = Instant::now().checked_add(PATIENCE).unwrap_or_else(Instant::now);
                        let waiting = vec![waits];
                        self.asked.push(Asked { socket, question: sent, waiting, tries: 1, until });
                        return;
                    }
                    None => without_answer(question, SERVER_FAILED).unwrap_or_default(),
                }
            }
        };
        // Whoever has gone needs no reply.
        let _ = socket.send_to(&reply, asker);
    }

    /// Takes a resolver's answer.
    fn answer(&mut self, place: usize, buffer: &mut [u8]) {
        let Some(asked) = self.asked.get_mut(place) else { return };
        match asked.socket.recv(buffer) {
            Ok(count) => {
                let answer = buffer.get_mut(..count).unwrap_or_default();
                if !question::is_answer(answer, &asked.question) {
                    return;
                }
                self.directory.learn_from(answer);
                let asked = self.asked.swap_remove(place);
                self.reply(&asked, answer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Nobody is there: the next one's turn.
            Err(_) => asked.until = Instant::now(),
        }
    }

    /// Asks the next resolver where one has let its time pass, until all had their turns.
    fn ask_again(&mut self, now: Instant) {
        let resolvers = (self.directory.resolvers)();
        let mut place = 0;
        while let Some(asked) = self.asked.get_mut(place) {
            if asked.until > now {
                place = place.saturating_add(1);
                continue;
            }
            let more = asked.tries < resolvers.len().saturating_mul(ROUNDS);
            match more.then(|| ask(&asked.question, &resolvers, asked.tries)).flatten() {
                Some(socket) => {
                    asked.socket = socket;
                    asked.tries = asked.tries.saturating_add(1);
                    asked.until = now.checked_add(PATIENCE).unwrap_or(now);
                }
                None => {
                    let asked = self.asked.swap_remove(place);
                    let mut reply = without_answer(&asked.question, SERVER_FAILED).unwrap_or_default();
                    self.reply(&asked, &mut reply);
                }
            }
        }
    }

    /// Hands an answer on to all who asked, each under his number.
    fn reply(&self, asked: &Asked, answer: &mut [u8]) {
        for waiting in &asked.waiting {
            if let (Some(socket), Some(number)) = (self.sockets.get(waiting.place), answer.first_chunk_mut())
            {
                *number = waiting.number;
                // As above.
                let _ = socket.send_to(answer, waiting.asker);
            }
        }
    }
}

/// Puts a question to a resolver, from a port that the kernel draws.
fn ask(question: &[u8], resolvers: &[SocketAddr], tries: usize) -> Option<UdpSocket> {
    let resolver = resolvers.get(tries.checked_rem(resolvers.len())?)?;
    let any: IpAddr = match resolver {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect(resolver).ok()?;
    socket.send(question).ok()?;
    Some(socket)
}

/// A number that nobody can guess.
fn drawn() -> [u8; 2] {
    let mut drawn = [0; 2];
    // The kernel always has so few.
    let _ = getrandom(&mut drawn, GetRandomFlags::empty());
    drawn
}

#[cfg(test)]
mod tests;
