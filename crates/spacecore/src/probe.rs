//! A question over the network: connects to a port of this guest, and may ask there for a page. It never blocks.
//!
//! A check is answered by the status alone. A page that is wanted whole is asked for by HTTP/1.0, to which no server may answer in
//! chunks (RFC 9112, section 6.1), and has to come as its head says.
//!
//! ```text
//!  Connecting --connected--> Sending --sent--> Reading --head, end, 4 KiB--> passed or not, or the page
//!      |  ^         \
//!      v  |          passed, where no page is asked for
//!   next address
//! ```

mod whole;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

/// The most bytes of an answer that are read where its status is enough, and at a time.
const MAX_ANSWER: usize = 4096;
/// The forms of a page that the node reads.
const ACCEPT: &str = "text/plain;version=0.0.4,*/*;q=0.1";

/// A question that is under way.
#[derive(Debug)]
pub(crate) struct Probe {
    addresses: VecDeque<SocketAddr>,
    /// The page's path; none where a connection is enough.
    path: Option<String>,
    /// Whether the page itself is wanted.
    whole: bool,
    state: State,
    /// Why the last address wasn't it.
    failure: String,
}

#[derive(Debug)]
enum State {
    Unconnected,
    Connecting(OwnedFd, SocketAddr),
    Sending(OwnedFd, Vec<u8>),
    Reading(OwnedFd, Vec<u8>),
}

/// What becomes of a step.
enum Next {
    Wait,
    Go,
    Done(Result<Vec<u8>, String>),
}

impl Probe {
    /// A check of the first of these addresses that takes a connection.
    pub(crate) fn new(addresses: impl IntoIterator<Item = SocketAddr>, path: Option<String>) -> Self {
        Self {
            addresses: addresses.into_iter().collect(),
            path,
            whole: false,
            state: State::Unconnected,
            failure: "there is no address to connect to".to_owned(),
        }
    }

    /// Asks the first of these addresses that takes a connection for a page.
    pub(crate) fn page(addresses: impl IntoIterator<Item = SocketAddr>, path: String) -> Self {
        Self { whole: true, ..Self::new(addresses, Some(path)) }
    }

    /// What to wait for.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.state {
            State::Unconnected => None,
            State::Connecting(socket, _) | State::Sending(socket, _) => {
                Some((socket.as_fd(), PollFlags::OUT))
            }
            State::Reading(socket, _) => Some((socket.as_fd(), PollFlags::IN)),
        }
    }

    /// Goes on as far as it can without waiting; the result once there is one: the page, where it is wanted.
    pub(crate) fn turn(&mut self) -> Option<Result<Vec<u8>, String>> {
        if let Some(path) = self.path.as_ref().filter(|path| !is_path(path)) {
            return Some(Err(format!("{path:?} is no path of a page")));
        }
        loop {
            match self.step() {
                Next::Go => {}
                Next::Wait => return None,
                Next::Done(result) => return Some(result),
            }
        }
    }

    fn step(&mut self) -> Next {
        match &mut self.state {
            State::Unconnected => match self.addresses.pop_front() {
                Some(address) => self.connect(address),
                None => Next::Done(Err(std::mem::take(&mut self.failure))),
            },
            State::Connecting(socket, address) => match outcome_of_connecting(socket, *address) {
                None => Next::Wait,
                Some(Ok(())) => self.connected(),
                Some(Err(error)) => {
                    self.failure = format!("connecting to {address}: {error}");
                    self.state = State::Unconnected;
                    Next::Go
                }
            },
            State::Sending(socket, request) => {
                match rustix::net::send(&*socket, request, SendFlags::NOSIGNAL) {
                    Ok(sent) => {
                        request.drain(..sent);
                        if request.is_empty() {
                            self.read();
                        }
                        Next::Go
                    }
                    Err(Errno::INTR) => Next::Go,
                    Err(Errno::AGAIN) => Next::Wait,
                    Err(error) => Next::Done(Err(format!("asking for the page: {error}"))),
                }
            }
            State::Reading(socket, answer) => {
                let mut buffer = [0; MAX_ANSWER];
                let room = if self.whole { MAX_ANSWER } else { MAX_ANSWER - answer.len() };
                match rustix::net::recv(&*socket, &mut buffer[..room], RecvFlags::empty()) {
                    Ok((_, more)) if self.whole => {
                        answer.extend_from_slice(&buffer[..more]);
                        whole::page(answer, more == 0).map_or(Next::Go, Next::Done)
                    }
                    Ok((_, more)) => {
                        answer.extend_from_slice(&buffer[..more]);
                        let has_head = answer.windows(4).any(|window| window == b"\r\n\r\n");
                        match has_head || more == 0 || answer.len() == MAX_ANSWER {
                            true => Next::Done(judge(answer).map(|()| Vec::new())),
                            false => Next::Go,
                        }
                    }
                    Err(Errno::INTR) => Next::Go,
                    Err(Errno::AGAIN) => Next::Wait,
                    // What came before a connection was broken off may be enough.
                    Err(error) => Next::Done(match answer.is_empty() || self.whole {
                        true => Err(format!("reading the page: {error}")),
                        false => judge(answer).map(|()| Vec::new()),
                    }),
                }
            }
        }
    }

    fn connect(&mut self, address: SocketAddr) -> Next {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let begun = rustix::net::socket_with(family, SocketType::STREAM, flags, None).and_then(|socket| {
            match rustix::net::connect(&socket, &address) {
                Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
                Err(error) => Err(error),
            }
        });
        match begun {
            Ok(socket) => self.state = State::Connecting(socket, address),
            Err(error) => self.failure = format!("connecting to {address}: {error}"),
        }
        Next::Go
    }

    fn connected(&mut self) -> Next {
        let Some(path) = &self.path else { return Next::Done(Ok(Vec::new())) };
        let (version, accept) = if self.whole { ("1.0", ACCEPT) } else { ("1.1", "*/*") };
        if let State::Connecting(socket, address) = std::mem::replace(&mut self.state, State::Unconnected) {
            let request = format!(
                "GET {path} HTTP/{version}\r\nHost: {address}\r\nUser-Agent: vimana\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
            );
            self.state = State::Sending(socket, request.into_bytes());
        }
        Next::Go
    }

    fn read(&mut self) {
        if let State::Sending(socket, _) = std::mem::replace(&mut self.state, State::Unconnected) {
            self.state = State::Reading(socket, Vec::new());
        }
    }
}

/// Whether this can stand in a request as it is.
fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= 2048 && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether a connection came about; `None` while it may.
fn outcome_of_connecting(socket: &OwnedFd, to: SocketAddr) -> Option<Result<(), Errno>> {
    match sockopt::socket_error(socket) {
        Ok(Ok(())) => {}
        Ok(Err(error)) | Err(error) => return Some(Err(error)),
    }
    match rustix::net::getpeername(socket) {
        // TCP connects a socket with itself where nobody listens and the kernel has chosen that very port for this end.
        Ok(_) => {
            let own = rustix::net::getsockname(socket).ok().and_then(|own| SocketAddr::try_from(own).ok());
            Some(if own == Some(to) { Err(Errno::CONNREFUSED) } else { Ok(()) })
        }
        Err(_) => None,
    }
}

/// Passes an answer whose status says that the page is there, or elsewhere.
fn judge(answer: &[u8]) -> Result<(), String> {
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line.get(..200).unwrap_or(line));
    let line = line.trim_end();
    let mut words = line.split(' ');
    let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    let status = words
        .next()
        .filter(|word| word.len() == 3 && !word.starts_with('+'))
        .and_then(|word| word.parse::<u16>().ok());
    match status.filter(|_| is_http) {
        Some(200..=399) => Ok(()),
        Some(_) => Err(format!("it answered: {line}")),
        None if answer.is_empty() => Err("it closed the connection without an answer".to_owned()),
        None => Err(format!("what it answered isn't HTTP/1: {line}")),
    }
}

#[cfg(test)]
mod tests;
