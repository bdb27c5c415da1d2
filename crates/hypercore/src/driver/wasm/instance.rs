//! A Wasm program that runs, as its keeper holds it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::channel::Channel;
use super::control::Control;
use crate::driver::{ControlError, Ended, Instance, Observation, ObserveError, StopError};

/// Threads of one program: its own, and the one that speaks the channel.
pub(super) const THREADS: u64 = 2;

/// A running program. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) channel: Arc<Channel>,
    pub(super) control: Arc<Control>,
    pub(super) done: Arc<OwnedFd>,
    pub(super) guest: Option<JoinHandle<()>>,
}

impl Running {
    fn is_done(&self) -> bool {
        let mut fds = [PollFd::new(&*self.done, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    fn end(&mut self) {
        self.control.stop(libc::SIGKILL);
        self.channel.ends().hang_up();
        self.channel.ring();
        if let Some(guest) = self.guest.take() {
            let _ = guest.join();
        }
    }
}

/// A thread has no exit code of its own; what became of the program was said over the channel.
fn ended() -> Ended {
    Ended { code: Some(0), signal: None, stderr: String::new() }
}

impl AsFd for Running {
    /// Becomes readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }
}

impl Instance for Running {
    fn pid(&self) -> i32 {
        rustix::process::getpid().as_raw_nonzero().get()
    }

    fn handle(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }

    fn pause(&mut self) -> Result<(), ControlError> {
        if self.is_done() {
            return Err(ControlError::Ended);
        }
        self.control.pause(true);
        Ok(())
    }

    fn resume(&mut self) -> Result<(), ControlError> {
        if self.is_done() {
            return Err(ControlError::Ended);
        }
        self.control.pause(false);
        Ok(())
    }

    fn observe(&mut self) -> Result<Observation, ObserveError> {
        if self.is_done() {
            return Err(ObserveError::Ended);
        }
        Ok(Observation {
            resident_bytes: self.control.memory.load(Ordering::Relaxed),
            cpu: self.control.cpu(),
            threads: THREADS,
        })
    }

    fn stop(&mut self) -> Result<Ended, StopError> {
        self.end();
        Ok(ended())
    }

    fn ended(&mut self) -> Result<Option<Ended>, StopError> {
        Ok(self.is_done().then(ended))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
