//! Network namespaces for tests.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// A namespace with loopback and these addresses on it; nothing, with a word on why, where none can be made.
#[allow(unsafe_code)]
pub(crate) fn made(test: &str, addresses: &[&str]) -> Option<OwnedFd> {
    let make = || {
        // SAFETY: a network namespace says which interfaces sockets find; it concerns neither memory nor descriptors.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        std::io::Result::Ok(OwnedFd::from(File::open("/proc/thread-self/ns/net")?))
    };
    match thread::spawn(make).join().unwrap() {
        Ok(space) => {
            let words = |address: &&str| format!("addr add {address} dev lo");
            let all: Vec<String> =
                ["link set lo up".to_owned()].into_iter().chain(addresses.iter().map(words)).collect();
            all.iter().for_each(|words| ip(&space, words));
            Some(space)
        }
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: can't make a network namespace: {error}");
            None
        }
    }
}

/// Does something in a thread that is in a namespace.
pub(crate) fn within<T: Send>(space: &OwnedFd, does: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let enter = || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            does()
        };
        scope.spawn(enter).join().unwrap()
    })
}

pub(crate) fn ip(space: &OwnedFd, words: &str) {
    let done = within(space, || Command::new("ip").args(words.split_whitespace()).status().unwrap());
    assert!(done.success(), "ip {words}");
}
