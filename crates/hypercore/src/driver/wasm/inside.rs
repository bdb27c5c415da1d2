//! The process in the jail: runs each program that its keeper hands it, see [`super::runner`].

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::{PollFd, PollFlags, poll};

use super::engine::Shared;
use super::instance::{Running, THREADS};
use super::network::Way;
use super::questions::{receive, send};
use super::run::Load;
use super::runner::{self, OBSERVE, OVER, Order, PAUSE, RESUME, STOP};
use super::{Start, begin};
use crate::driver::{Instance, MountSource};
use crate::spawn::FIRST;

/// The life of the process, which its keeper has started in a jail.
///
/// # Errors
/// It was started otherwise, or the keeper's socket fails.
#[allow(unsafe_code)]
pub fn run_inside() -> io::Result<()> {
    // SAFETY: fcntl only asks; a number that isn't open is refused before it is owned.
    if unsafe { libc::fcntl(FIRST, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::other("`vimana run-wasm` is started by keepers only"));
    }
    // SAFETY: the keeper put an open descriptor here for this process, and nothing else in it uses the number.
    let keeper = unsafe { OwnedFd::from_raw_fd(FIRST) };
    let shared = Arc::new(Shared::default());
    // While the keeper makes ready what it is going to send.
    let _ = shared.runtime();
    loop {
        let (bytes, fds) = receive(&keeper)?;
        if bytes.is_empty() {
            return Ok(());
        }
        // What the keeper sent is answered by the end of its line where it can't be begun.
        let _ = take(&shared, &bytes, fds);
    }
}

fn take(shared: &Arc<Shared>, bytes: &[u8], fds: Vec<OwnedFd>) -> io::Result<()> {
    let Order { mut wasm, memory_bytes, cpu_milli, has_network } = serde_json::from_slice(bytes)?;
    let mut fds = fds.into_iter();
    let (Some(channel), Some(line), Some(asks)) = (fds.next(), fds.next(), fds.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut folders = Vec::new();
    for (mount, folder) in wasm.mounts.iter_mut().zip(fds) {
        mount.source = MountSource::Folder(runner::path_of(&folder));
        folders.push(folder);
    }
    let network = has_network.then(|| asks.try_clone().map(Way::Asked)).transpose()?;
    let start =
        Start { wasm, memory_bytes, cpu_milli, channel, network, load: Load::Asked(asks), held: folders };
    let running = begin(shared, start)?;
    let thread = std::thread::Builder::new().name("wasm-line".to_owned()).stack_size(128 * 1024);
    let keep = move || {
        obey(running, &line);
        // A keeper that is gone needs no word of it.
        let _ = send(&line, &[OVER], &[]);
    };
    thread.spawn(keep).map(drop)
}

/// Does what the keeper says of one program, until that has ended or the keeper has.
fn obey(mut running: Running, line: &OwnedFd) {
    loop {
        let ready = {
            let mut fds = [PollFd::new(line, PollFlags::IN), PollFd::new(&running, PollFlags::IN)];
            if poll(&mut fds, None).is_err_and(|error| error != rustix::io::Errno::INTR) {
                return;
            }
            fds.each_ref().map(|fd| !fd.revents().is_empty())
        };
        if ready[1] {
            return;
        }
        if !ready[0] {
            continue;
        }
        let Ok((word, _)) = receive(line) else { return };
        let _ = match word.first() {
            Some(&PAUSE) => running.pause().is_ok(),
            Some(&RESUME) => running.resume().is_ok(),
            Some(&OBSERVE) => {
                let memory = running.control.memory.load(Ordering::Relaxed);
                let cpu = u64::try_from(running.control.cpu().as_nanos()).unwrap_or(u64::MAX);
                let answer = [memory, cpu, THREADS].map(u64::to_ne_bytes).concat();
                send(line, &answer, &[]).is_ok()
            }
            Some(&STOP) | None => return,
            Some(_) => false,
        };
    }
}
