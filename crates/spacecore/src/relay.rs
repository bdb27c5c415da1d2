//! Relays between PID 1 and the pipes of processes, where a spacecore has folders.
//!
//! The kernel locks a pipe while `sendfile` or `splice` moves a file's bytes through it. Where the file lies in a folder,
//! the lock is held until the keeper has answered, and PID 1, which carries the answer, would wait for the lock if it
//! touched the pipe. A relay waits in its place: one small process for each pipe, which copies to or from a pipe of PID 1's
//! own.

use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::PipeFlags;
use spacecore::wire::message::{Refusal, RefusalKind};

use spacecore::refusal::OrRefuse;

/// Puts a relay behind the reading end of a process' pipe; returns the end to read instead.
///
/// # Errors
/// There is no room for a pipe or a process more.
pub(crate) fn behind_output(from: OwnedFd) -> Result<OwnedFd, Refusal> {
    let (reading, writing) = pipe()?;
    start(&from, &writing)?;
    Ok(reading)
}

/// Puts a relay before the writing end of a process' pipe; returns the end to write instead.
///
/// # Errors
/// There is no room for a pipe or a process more.
pub(crate) fn before_input(to: OwnedFd) -> Result<OwnedFd, Refusal> {
    let (reading, writing) = pipe()?;
    start(&reading, &to)?;
    Ok(writing)
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Refusal> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).or_refuse(RefusalKind::Other, || "making a pipe".to_owned())
}

#[allow(unsafe_code)]
fn start(from: &OwnedFd, to: &OwnedFd) -> Result<(), Refusal> {
    // SAFETY: PID 1 has one thread, so that the child may go on with all of its memory.
    match unsafe { libc::fork() } {
        0 => {
            crate::shutdown::forget_that_this_is_pid_1();
            copy(from, to);
            // SAFETY: ends this process without running what its parent registered for its own exit.
            unsafe { libc::_exit(0) }
        }
        -1 => Err(std::io::Error::last_os_error())
            .or_refuse(RefusalKind::Other, || "forking a relay".to_owned()),
        _ => Ok(()),
    }
}

/// Copies until either end is closed. Nothing else stays open: other processes' pipes must end when PID 1 closes them.
#[allow(unsafe_code)]
fn copy(from: &OwnedFd, to: &OwnedFd) {
    let placed = rustix::stdio::dup2_stdin(from).and_then(|()| rustix::stdio::dup2_stdout(to));
    if placed.is_err() {
        return;
    }
    // SAFETY: this process uses no descriptor but 0 and 1 from here on, and drops none before it ends.
    unsafe {
        libc::syscall(libc::SYS_close_range, 2, libc::c_uint::MAX, 0);
    }
    let (input, output) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = rustix::io::retry_on_intr(|| rustix::io::read(input.as_fd(), &mut *buffer)) {
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::write(output.as_fd(), rest)) {
                Ok(length) => rest = &rest[length..],
                Err(_) => return,
            }
        }
    }
}
