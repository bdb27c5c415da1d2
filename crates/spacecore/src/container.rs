//! PID 1 of a container, as far as it differs from PID 1 of a microVM.
//!
//! The runtime on the host has made the namespaces, the root, the mounts, the limits, the seccomp filter and the tap
//! before it executed this binary; what is left is the channel, the network's addresses, the `/etc` files and the
//! processes. PID 1 shares its pid and mount namespaces with the workload, so:
//!
//! - it can't be traced or looked into: it is not dumpable, and it holds `CAP_NET_ADMIN`, which the workload never has;
//! - orphans become its children, and it reaps them;
//! - when the workload ends it kills whatever is left, which a pid namespace of the workload's own would have done;
//! - the paths that it walks while the workload runs (`/proc`, `/sys/fs/cgroup`, `/dev/pts`, `/dev/null`) are mounts, which
//!   the workload has no capability to move.
//!
//! It dies with its keeper: by the parent-death signal, and by the channel's hanging up.

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::process::{DumpableBehavior, Signal};
use spacecore::wire::CONTAINER_CHANNEL;
use spacecore::wire::message::{Configuration, Refusal, RefusalKind};

use crate::channel::Channel;
use crate::network;
use crate::steps::Steps;
use spacecore::refusal::{OrRefuse, refuse};

/// How much sooner than PID 1 the kernel ends a process for want of memory, in thousandths of the limit.
const OOM_SCORE: i32 = 100;

/// Takes the channel that the runtime has left open.
///
/// # Errors
/// The kernel refuses to protect this process, or there is no channel.
#[allow(unsafe_code)]
pub(crate) fn open_channel() -> Result<Channel, Refusal> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .or_refuse(RefusalKind::Other, || "hiding PID 1 from the workload".to_owned())?;
    // A keeper that is dead already has hung up the channel.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .or_refuse(RefusalKind::Other, || "tying PID 1 to its keeper".to_owned())?;
    // SAFETY: the runtime leaves exactly this descriptor open for this process, and nothing else here owns it.
    let channel = unsafe { OwnedFd::from_raw_fd(CONTAINER_CHANNEL) };
    Channel::from_socket(channel).or_refuse(RefusalKind::Other, || "opening the channel".to_owned())
}

/// Does what the runtime has left to do.
///
/// # Errors
/// The configuration asks for what only a microVM makes, or the network can't be set up.
pub(crate) fn apply(configuration: &Configuration, steps: &mut Steps) -> Result<(), Refusal> {
    if configuration.root.is_some() || !configuration.mounts.is_empty() {
        let message = "a container's root and mounts are made before it starts, not by its configuration";
        return Err(refuse(RefusalKind::Protocol, message));
    }
    if let Some(network) = &configuration.network {
        network::set_up(network)?;
        steps.end("network");
    }
    Ok(())
}

/// Lets the kernel end the calling process, and what it starts, before PID 1, whose score it has until then.
pub(crate) fn be_ended_first() {
    const FILE: &str = "/proc/self/oom_score_adj";
    let own = std::fs::read_to_string(FILE).ok().and_then(|score| score.trim().parse::<i32>().ok());
    let _ = std::fs::write(FILE, own.unwrap_or(0).saturating_add(OOM_SCORE).min(1000).to_string());
}

/// Kills every process of the container but PID 1, at once: the kernel lets none of them fork in between.
#[allow(unsafe_code)]
pub(crate) fn kill_the_rest() {
    // SAFETY: kill takes plain numbers.
    unsafe {
        libc::kill(-1, libc::SIGKILL);
    }
}

/// Tells when children have ended, orphans among them.
#[derive(Debug)]
pub(crate) struct Children {
    signals: OwnedFd,
}

impl Children {
    /// Starts to listen for the ends of children; what is forked has their signal blocked until it is a program.
    ///
    /// # Errors
    /// The kernel has no more descriptors.
    #[allow(unsafe_code)]
    pub(crate) fn listen() -> Result<Self, Refusal> {
        let set = child_signal();
        // SAFETY: `set` is an initialised signal set, and the descriptor is new.
        let signals = unsafe {
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if signals < 0 {
            let error = std::io::Error::last_os_error();
            return Err(error).or_refuse(RefusalKind::Other, || "listening for children".to_owned());
        }
        // SAFETY: the kernel has just opened this descriptor for nobody else.
        Ok(Self { signals: unsafe { OwnedFd::from_raw_fd(signals) } })
    }

    /// Becomes readable when children have ended.
    pub(crate) fn signals(&self) -> &OwnedFd {
        &self.signals
    }

    /// Forgets what it has told.
    pub(crate) fn take(&self) {
        let mut buffer = [0; 128 * 4];
        while rustix::io::read(&self.signals, &mut buffer).is_ok_and(|length| length > 0) {}
    }
}

#[allow(unsafe_code)]
fn child_signal() -> libc::sigset_t {
    // SAFETY: a signal set is plain memory, which the next call initialises.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    }
}
