//! The first process of a microVM's workload's pid namespace, above the workload.
//!
//! ```text
//!  spacecore, PID 1 of the guest --+-- init       PID 1 of the workload's pid namespace
//!                                  +-- workload   PID 2 there
//! ```
//!
//! The kernel keeps signals from the first process of a pid namespace that it doesn't expect: a terminal's interrupt, or its
//! own `abort()`. So the workload isn't the first. In a container `spacecore` itself is; in a microVM, where it serves the
//! whole guest, this process is, a fork that shares its memory: orphans become its children, which the kernel reaps, and
//! whatever is left in the namespace dies with it. The workload can't signal it, and can't look into it: it isn't dumpable,
//! and holds capabilities that the workload never has.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{DumpableBehavior, Pid};
use spacecore::wire::message::Refusal;

use crate::process::{clone, signal};
use crate::signals;

/// The first process of a pid namespace, a child of PID 1 of the guest.
#[derive(Debug)]
pub(crate) struct Init {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Init {
    /// Starts it in a new pid namespace.
    ///
    /// # Errors
    /// It can't be forked.
    pub(crate) fn start() -> Result<Self, Refusal> {
        match clone(libc::CLONE_NEWPID)? {
            Some((pid, pidfd)) => Ok(Self { pid, pidfd }),
            None => be_init(),
        }
    }

    /// Its number at the kernel.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Kills it, and with it every process of its namespace.
    pub(crate) fn kill(&self) {
        signal(&self.pidfd, libc::SIGKILL);
    }
}

impl AsFd for Init {
    /// The descriptor that names it: readable once it, and everything in its namespace, has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

#[allow(unsafe_code)]
fn be_init() -> ! {
    crate::shutdown::forget_that_this_is_pid_1();
    let hidden = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    signals::be_default();
    // SAFETY: this process uses no descriptor from here on, and drops none; a child that ends is reaped by the kernel.
    unsafe {
        if hidden.is_err() {
            libc::_exit(127);
        }
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::setsid();
        loop {
            libc::pause();
        }
    }
}
