//! A running container, seen from its keeper.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use super::root;
use crate::cgroup::Group;
use crate::driver::{ControlError, Ended, Instance, Observation, ObserveError, StopError};
use crate::jail::Ids;
use crate::spawn;
use crate::tap::Pump;

/// A container whose PID 1 is a child of this process.
#[derive(Debug)]
pub(super) struct Running {
    pid: Pid,
    init: OwnedFd,
    group: Group,
    folder: PathBuf,
    stderr: OwnedFd,
    pump: Option<Pump>,
    ended: Option<Ended>,
    removed: bool,
    /// Its ids are nobody else's until all of it is gone.
    _ids: Option<Ids>,
}

impl Running {
    pub(super) fn new(
        pid: Pid,
        init: OwnedFd,
        group: Group,
        folder: PathBuf,
        stderr: OwnedFd,
        ids: Option<Ids>,
    ) -> Self {
        Self { pid, init, group, folder, stderr, pump: None, ended: None, removed: false, _ids: ids }
    }

    /// Takes over the pump of its network.
    pub(super) fn pumps(&mut self, pump: Pump) {
        self.pump = Some(pump);
    }

    fn wait(&mut self, options: WaitIdOptions) -> io::Result<Option<&Ended>> {
        if self.ended.is_none() {
            let options = options | WaitIdOptions::EXITED;
            let wait = || rustix::process::waitid(WaitId::PidFd(self.init.as_fd()), options);
            let status = rustix::io::retry_on_intr(wait)?;
            self.ended = status.map(|status| self.status(&status));
        }
        Ok(self.ended.as_ref())
    }

    fn status(&self, status: &WaitIdStatus) -> Ended {
        Ended {
            code: status.exit_status(),
            signal: status.terminating_signal(),
            stderr: spawn::stderr_of(&self.stderr),
        }
    }

    fn failure(&self, source: io::Error) -> StopError {
        StopError::Wait { pid: self.pid.as_raw_nonzero().get(), source }
    }

    fn remove(&mut self) -> io::Result<()> {
        if !self.removed {
            self.pump = None;
            self.group.remove()?;
            root::remove(&self.folder)?;
            self.removed = true;
        }
        Ok(())
    }

    /// Whether PID 1 still runs.
    fn check(&mut self) -> io::Result<bool> {
        Ok(self.wait(WaitIdOptions::NOHANG)?.is_none())
    }
}

impl Instance for Running {
    fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    fn handle(&self) -> BorrowedFd<'_> {
        self.init.as_fd()
    }

    fn pause(&mut self) -> Result<(), ControlError> {
        if !self.check().map_err(ControlError::Connection)? {
            return Err(ControlError::Ended);
        }
        self.group.freeze(true).map_err(ControlError::Connection)
    }

    fn resume(&mut self) -> Result<(), ControlError> {
        if !self.check().map_err(ControlError::Connection)? {
            return Err(ControlError::Ended);
        }
        self.group.freeze(false).map_err(ControlError::Connection)
    }

    fn observe(&mut self) -> Result<Observation, ObserveError> {
        if !self.check().map_err(ObserveError::Proc)? {
            return Err(ObserveError::Ended);
        }
        self.group.observe().map_err(ObserveError::Proc)
    }

    fn stop(&mut self) -> Result<Ended, StopError> {
        if self.ended.is_none() {
            // It may have ended just now. What stands still can't die.
            let _ = rustix::process::pidfd_send_signal(&self.init, Signal::KILL);
            let _ = self.group.freeze_file(false);
        }
        let ended = self.wait(WaitIdOptions::empty()).map(|ended| ended.cloned());
        let ended = ended.map_err(|source| self.failure(source))?;
        // What can't be removed now, the next command clears away: how it ended counts more.
        let _ = self.remove();
        ended.ok_or_else(|| self.failure(io::ErrorKind::NotFound.into()))
    }

    fn ended(&mut self) -> Result<Option<Ended>, StopError> {
        let ended = self.wait(WaitIdOptions::NOHANG).map(|ended| ended.cloned());
        let ended = ended.map_err(|source| self.failure(source))?;
        if ended.is_some() {
            // As above.
            let _ = self.remove();
        }
        Ok(ended)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Whoever drops it without asking wants it gone, and has nobody to tell.
        let _ = self.stop();
    }
}
