//! This program executed again, as a process of its own that may outlive the one that starts it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::io::fcntl_dupfd_cloexec;

/// The number of the first descriptor that such a process gets.
const FIRST: i32 = 3;
/// Descriptors out of the way of the numbers they get in the child are at least this.
const AWAY: i32 = 10;

/// Executes a command in a session of its own, without anything of this process but what is passed on: the descriptors, which it finds
/// as 3, 4 and so on ([`take`]). At most seven.
///
/// # Errors
/// The program can't be executed, or no descriptor is left.
#[allow(unsafe_code)]
pub(crate) fn execute(command: &mut Command, passed_on: &[BorrowedFd<'_>]) -> io::Result<Child> {
    let away: Vec<OwnedFd> =
        passed_on.iter().map(|fd| Ok(fcntl_dupfd_cloexec(fd, AWAY)?)).collect::<io::Result<_>>()?;
    let pairs: Vec<(i32, i32)> = away.iter().map(AsRawFd::as_raw_fd).zip(FIRST..AWAY).collect();
    let _occupied = away.first().map(|fd| occupy(fd, pairs.len())).transpose()?;
    command.arg0("vimana").stdin(Stdio::null()).stdout(Stdio::null());
    // SAFETY: dup2 and setsid are async-signal-safe, the descriptors stay open until the child has been made, and
    // nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            for (from, to) in &pairs {
                if libc::dup2(*from, *to) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            // What the terminal sends to the foreground is for the command, which passes it on.
            rustix::process::setsid()?;
            Ok(())
        });
    }
    command.spawn()
}

/// Occupies the numbers that the descriptors get in the child, as far as they are free: the pipe on which
/// [`Command::spawn`] learns that a program can't be executed must not be there.
fn occupy(fd: &OwnedFd, count: usize) -> io::Result<Vec<OwnedFd>> {
    let last = FIRST.saturating_add(i32::try_from(count).unwrap_or(i32::MAX)).saturating_sub(1);
    let mut occupied = Vec::new();
    loop {
        let next = fcntl_dupfd_cloexec(fd.as_fd(), FIRST)?;
        if next.as_raw_fd() > last {
            return Ok(occupied);
        }
        occupied.push(next);
    }
}

/// Takes a descriptor that [`execute`] has passed on: the first is 0. To be called once for each, before anything else is opened.
///
/// # Errors
/// The process wasn't started that way.
#[allow(unsafe_code)]
pub(crate) fn take(place: u8) -> io::Result<OwnedFd> {
    let number = FIRST.saturating_add(i32::from(place));
    // SAFETY: fcntl only asks; a number that isn't open is refused before it is owned.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::other("this is started by other commands only"));
    }
    // SAFETY: the parent put an open descriptor here for this process, and nothing else in it uses the number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
