//! Network namespaces that no path leads to, and being in one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// The calling thread is in another network namespace until this is dropped. Programs that it starts are there too, and
/// `/proc/sys/net` is that namespace's.
#[derive(Debug)]
pub(super) struct Inside {
    home: OwnedFd,
    /// It is about the thread that made it.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Inside {
    /// Makes a namespace and enters it.
    #[allow(unsafe_code)]
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let home = own()?;
        // SAFETY: a network namespace says which interfaces sockets find; it concerns neither memory nor descriptors.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        let inside = Self { home, _thread: std::marker::PhantomData };
        Ok((inside, own()?))
    }

    /// Enters one.
    pub(super) fn enter(namespace: BorrowedFd<'_>) -> io::Result<Self> {
        let home = own()?;
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
        Ok(Self { home, _thread: std::marker::PhantomData })
    }

    /// Where the thread was before.
    pub(super) fn home(&self) -> BorrowedFd<'_> {
        self.home.as_fd()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let back = move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network));
        if back.is_err() {
            // A thread that goes on in the wrong network would do what it does there to others.
            std::process::abort();
        }
    }
}

/// The calling thread's network namespace.
pub(super) fn own() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// A number that the calling thread's network namespace has, and no other had or will have until the machine starts again.
#[allow(unsafe_code)]
pub(super) fn cookie() -> io::Result<u64> {
    use std::os::fd::AsRawFd;
    /// socket(7), since Linux 5.14.
    const COOKIE: libc::c_int = 71;
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)?;
    let mut value = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    let place = (&raw mut value).cast();
    // SAFETY: both pointers lead to variables that live as long as the call, and `length` says how large the first is.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, COOKIE, place, &raw mut length) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
