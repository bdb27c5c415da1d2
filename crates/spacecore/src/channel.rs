//! The channel's transport: a virtio-serial port, or a container's socket, read and written without ever blocking.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::event::{PollFd, PollFlags, Timespec};
use spacecore::wire::PORT_NAME;
use spacecore::wire::link::Link;

/// Bytes waiting for the keeper beyond which nothing more is read from processes and folders.
pub(crate) const BACKLOG: usize = 1024 * 1024;

const PORTS: &str = "/sys/class/virtio-ports";

/// The keeper has closed its end.
#[derive(Debug)]
pub(crate) struct HungUp;

/// The port and the link that runs over it.
#[derive(Debug)]
pub(crate) struct Channel {
    port: File,
    /// The protocol's state.
    pub(crate) link: Link,
    buffer: Vec<u8>,
}

impl Channel {
    /// Opens the port, `None` as long as the kernel doesn't know it.
    pub(crate) fn open() -> Option<Self> {
        let name = std::fs::read_dir(PORTS).ok()?.find_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let label = std::fs::read_to_string(format!("{PORTS}/{name}/name")).ok()?;
            (label.trim_end() == PORT_NAME).then_some(name)
        })?;
        let port = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(format!("/dev/{name}"))
            .ok()?;
        crate::shutdown::remember_channel(port.as_raw_fd());
        Some(Self { port, link: Link::new(), buffer: vec![0; 32 * 1024] })
    }

    /// Takes a connected socket.
    ///
    /// # Errors
    /// It isn't open.
    pub(crate) fn from_socket(socket: OwnedFd) -> std::io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        crate::shutdown::remember_channel(socket.as_raw_fd());
        Ok(Self { port: File::from(socket), link: Link::new(), buffer: vec![0; 32 * 1024] })
    }

    /// Whether a keeper is at the other end.
    pub(crate) fn is_connected(&self) -> bool {
        let mut fds = [PollFd::new(&self.port, PollFlags::OUT)];
        let now = Timespec::default();
        rustix::event::poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().contains(PollFlags::HUP)
    }

    /// Whether it has room for more output of processes and folders.
    pub(crate) fn has_room(&self) -> bool {
        self.link.outgoing().len() < BACKLOG
    }

    /// Reads all that has arrived.
    pub(crate) fn receive(&mut self) -> Result<(), HungUp> {
        loop {
            match self.port.read(&mut self.buffer) {
                Ok(0) => return Err(HungUp),
                Ok(length) => self.link.receive(&self.buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(HungUp),
            }
        }
    }

    /// Writes what waits, as far as the port takes it.
    pub(crate) fn flush(&mut self) -> Result<(), HungUp> {
        while !self.link.outgoing().is_empty() {
            match self.port.write(self.link.outgoing()) {
                Ok(0) => return Ok(()),
                Ok(length) => self.link.written(length),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(HungUp),
            }
        }
        Ok(())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}
