//! A [`Link`] over a non-blocking socket: reads what is there, writes what fits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;
use spacecore::wire::link::Link;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// Bytes that may wait to be written before nothing more is read from that side, so that a peer that sends and never
/// reads is stopped by its own full socket.
const CONGESTED: usize = 8 * 1024 * 1024;

/// One connection.
#[derive(Debug)]
pub struct WireSocket {
    fd: OwnedFd,
    /// The protocol's state.
    pub link: Link,
    open: bool,
}

impl WireSocket {
    /// Takes a connected stream socket and makes it non-blocking.
    ///
    /// # Errors
    /// It isn't one.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd, link: Link::new(), open: true })
    }

    /// Whether the other side can still say something.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// What to poll for.
    pub fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        let waiting = self.link.outgoing().len();
        if self.open && waiting < CONGESTED {
            flags |= PollFlags::IN;
        }
        if waiting > 0 {
            flags |= PollFlags::OUT;
        }
        flags
    }

    /// Reads once into the link; `false` where nothing was there or the connection has ended ([`WireSocket::is_open`] tells).
    pub fn fill(&mut self) -> bool {
        let mut chunk = [0; CHUNK];
        loop {
            match rustix::io::read(&self.fd, &mut chunk) {
                Ok(0) => self.open = false,
                Ok(read) => {
                    self.link.receive(&chunk[..read]);
                    return true;
                }
                // What was sent before the other side closed is still there to be read.
                Err(Errno::INTR | Errno::CONNRESET) => continue,
                Err(Errno::AGAIN) => {}
                Err(_) => self.open = false,
            }
            return false;
        }
    }

    /// Writes as much as fits. A connection that can't be written any more drops what waits.
    pub fn flush(&mut self) {
        while !self.link.outgoing().is_empty() {
            match rustix::net::send(&self.fd, self.link.outgoing(), SendFlags::NOSIGNAL) {
                Ok(sent) => self.link.written(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Whether there is more to read, reading tells.
                Err(_) => {
                    let all = self.link.outgoing().len();
                    self.link.written(all);
                }
            }
        }
    }
}

impl AsFd for WireSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
