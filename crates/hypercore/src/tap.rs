//! A tap: the end of a network interface that a process of this machine reads and writes, and the pump between it and a
//! stream of frames.
//!
//! The stream carries each frame after its length in 32 bits, big endian, as QEMU's does; `passt` and its filter are at its
//! other end, see [`crate::passt`].
//!
//! Source: the Linux kernel's `Documentation/networking/tuntap.rst` and `linux/if_tun.h`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags};
use rustix::net::Shutdown;

use crate::driver::Mac;
use crate::frames;

/// The name of the interface in every guest.
pub const NAME: &str = "eth0";

const DEVICE: &str = "/dev/net/tun";
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const SIOCSIFHWADDR: libc::Ioctl = 0x8924;
const SIOCSIFMTU: libc::Ioctl = 0x8922;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const ETHERNET: u16 = 1;
/// `struct ifreq`: a name of 16 bytes, then what the request is about.
const REQUEST_BYTES: usize = 40;
const NAME_BYTES: usize = 16;

/// The longest frame.
const LONGEST: usize = 65_535;

/// Makes a tap in the calling thread's network namespace. It is down and has no address; it is gone when the descriptor is
/// closed.
///
/// # Errors
/// The kernel has no `tun`, the caller lacks `CAP_NET_ADMIN`, or the name is taken.
pub fn open_here(name: &str, mac: Mac, mtu: u16) -> io::Result<OwnedFd> {
    let tap = make(name, 0)?;
    set_up(name, mac, mtu.into())?;
    Ok(tap)
}

/// The same for a virtual machine, which says of each frame what is still to be done to it: sums, and cutting.
///
/// # Errors
/// As [`open_here`].
pub fn open_for_offload(name: &str, mac: Mac, mtu: u32) -> io::Result<OwnedFd> {
    let tap = make(name, IFF_VNET_HDR)?;
    set_up(name, mac, mtu)?;
    Ok(tap)
}

fn request(name: &str) -> io::Result<[u8; REQUEST_BYTES]> {
    let mut request = [0; REQUEST_BYTES];
    if name.is_empty() || name.len() >= NAME_BYTES || name.bytes().any(|byte| byte == 0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request[..name.len()].copy_from_slice(name.as_bytes());
    Ok(request)
}

#[allow(unsafe_code)]
fn ask(of: &impl AsRawFd, what: libc::Ioctl, request: &[u8; REQUEST_BYTES]) -> io::Result<()> {
    // SAFETY: each of the requests used here takes a `struct ifreq`, which is as large as the array.
    let result = unsafe { libc::ioctl(of.as_raw_fd(), what, request.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn make(name: &str, also: u16) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    let tap = fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE)?;
    let mut request = request(name)?;
    request[NAME_BYTES..NAME_BYTES + 2].copy_from_slice(&(IFF_TAP | IFF_NO_PI | also).to_ne_bytes());
    ask(&tap, TUNSETIFF, &request)?;
    Ok(tap.into())
}

fn set_up(name: &str, mac: Mac, mtu: u32) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let mut address = request(name)?;
    address[NAME_BYTES..NAME_BYTES + 2].copy_from_slice(&ETHERNET.to_ne_bytes());
    address[NAME_BYTES + 2..NAME_BYTES + 8].copy_from_slice(&mac.0);
    ask(&socket, SIOCSIFHWADDR, &address)?;
    let mut largest = request(name)?;
    largest[NAME_BYTES..NAME_BYTES + 4].copy_from_slice(&mtu.to_ne_bytes());
    ask(&socket, SIOCSIFMTU, &largest)
}

/// Makes a tap in a network namespace, which the calling thread stays in.
pub(crate) fn open_in(namespace: &OwnedFd, name: &str, mac: Mac, mtu: u16) -> io::Result<OwnedFd> {
    let kind = rustix::thread::LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))?;
    open_here(name, mac, mtu)
}

/// Moves frames between a tap and a stream until either ends; then both are closed.
#[derive(Debug)]
pub struct Pump {
    stream: Arc<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Pump {
    /// Starts two threads. The tap must not block.
    ///
    /// # Errors
    /// There is no room for a thread.
    pub fn start(tap: OwnedFd, stream: OwnedFd) -> io::Result<Self> {
        let (tap, stream) = (Arc::new(tap), Arc::new(stream));
        rustix::io::ioctl_fionbio(&*tap, true)?;
        let mut pump = Self { stream: Arc::clone(&stream), threads: Vec::new() };
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let (from, to) = (Arc::clone(&tap), Arc::clone(&stream));
        pump.threads.push(named("tap-out").spawn(move || {
            // However it ends, the other direction must end too.
            let _ = outwards(from.as_fd(), to.as_fd());
            hang_up(&to);
        })?);
        pump.threads.push(named("tap-in").spawn(move || {
            let _ = inwards(stream.as_fd(), tap.as_fd());
            hang_up(&stream);
        })?);
        Ok(pump)
    }

    /// Ends both threads and waits for them.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        hang_up(&self.stream);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn hang_up(stream: &OwnedFd) {
    // A stream that is closed already is as good.
    let _ = rustix::net::shutdown(stream, Shutdown::Both);
}

/// Waits until something can be read from the tap; an error if the stream has ended.
fn wait(tap: BorrowedFd<'_>, stream: BorrowedFd<'_>, events: PollFlags) -> io::Result<()> {
    let mut fds =
        [PollFd::from_borrowed_fd(tap, events), PollFd::from_borrowed_fd(stream, PollFlags::empty())];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
    let ended = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    if fds.iter().any(|fd| fd.revents().intersects(ended)) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}

fn outwards(tap: BorrowedFd<'_>, stream: BorrowedFd<'_>) -> io::Result<()> {
    let mut buffer = vec![0; frames::LENGTH + LONGEST];
    loop {
        let length = match rustix::io::read(tap, buffer.get_mut(4..).unwrap_or_default()) {
            Ok(length) => length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                wait(tap, stream, PollFlags::IN)?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if length < frames::SHORTEST {
            continue;
        }
        let header = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        buffer[..4].copy_from_slice(&header);
        frames::send_all(stream, buffer.get(..length.saturating_add(4)).unwrap_or_default())?;
    }
}

fn inwards(stream: BorrowedFd<'_>, tap: BorrowedFd<'_>) -> io::Result<()> {
    let mut buffer = vec![0; 4 * (frames::LENGTH + LONGEST)];
    let mut filled = 0_usize;
    loop {
        let room = buffer.get_mut(filled..).unwrap_or_default();
        let count = frames::receive(stream, room)?;
        if count == 0 {
            return Ok(());
        }
        filled = filled.saturating_add(count);
        let whole = buffer.get(..filled).unwrap_or_default();
        let taken = frames::each(whole, frames::SHORTEST..=LONGEST, |_, frame| write(tap, frame))?;
        buffer.copy_within(taken..filled, 0);
        filled = filled.saturating_sub(taken);
    }
}

/// Writes a frame. One that the interface doesn't take (it is down, or the frame too long for it) is lost, as on any wire.
fn write(tap: BorrowedFd<'_>, frame: &[u8]) -> io::Result<()> {
    match rustix::io::retry_on_intr(|| rustix::io::write(tap, frame)) {
        Err(rustix::io::Errno::BADFD | rustix::io::Errno::BADF) => Err(io::ErrorKind::BrokenPipe.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_interface_can_have_is_refused() {
        for name in ["", "an-interface-too-long", "a\0b"] {
            assert!(request(name).is_err(), "{name:?}");
        }
    }
}
