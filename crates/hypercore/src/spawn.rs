//! Starts a child that holds exactly the file descriptors it was given, at numbers known beforehand.
//!
//! The numbers must be known before the start because they stand in the child's arguments, which `vimana plan` prints.
//! They begin at [`FIRST`], above anything that a small process has open. The child gets no other descriptor, an empty
//! environment, a session of its own, `/` as its folder, and a death signal, so that it ends however its parent ends.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{MemfdFlags, SealFlags};

/// The number of the first descriptor handed to a child; the others follow.
pub(crate) const FIRST: RawFd = 100;
/// Where descriptors are parked in the parent, so that no number is both a source and a target.
const PARKED: RawFd = 150;
/// What is kept of a child's standard error, in bytes; what follows is dropped.
const STDERR_KEPT: u64 = 64 * 1024;
/// What is shown of it.
const STDERR_SHOWN: usize = 4096;

/// A child and what it says on standard error.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) child: Child,
    stderr: OwnedFd,
}

impl Spawned {
    /// The last 4 KiB of the first 64 KiB that the child wrote to standard error.
    pub(crate) fn stderr(&self) -> String {
        stderr_of(&self.stderr)
    }
}

/// The last 4 KiB of what was written to [`bounded_memory`].
pub(crate) fn stderr_of(memory: &OwnedFd) -> String {
    let mut bytes = vec![0; STDERR_KEPT as usize];
    let length = rustix::io::pread(memory, &mut bytes[..], 0).unwrap_or(0);
    bytes.truncate(length);
    let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last.saturating_add(1));
    let begin = end.saturating_sub(STDERR_SHOWN);
    String::from_utf8_lossy(&bytes[begin..end]).trim().to_owned()
}

/// Starts `program`; `fds[i]` becomes the child's descriptor `FIRST + i`.
pub(crate) fn spawn(program: &Path, args: &[OsString], fds: Vec<OwnedFd>) -> io::Result<Spawned> {
    let parked = park(fds)?;
    let moves: Vec<(RawFd, RawFd)> = parked.iter().map(AsRawFd::as_raw_fd).zip(FIRST..).collect();
    let stderr = bounded_memory()?;
    let parent = rustix::process::getpid();

    let mut command = Command::new(program);
    command.args(args).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(stderr.try_clone()?));
    // SAFETY: between fork and exec the closure makes system calls on plain numbers and touches no memory but its own
    // captures; it neither allocates nor takes a lock.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // The parent may have died before the line above, which then never fires.
            if rustix::process::getppid() != Some(parent) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            rustix::process::setsid()?;
            close_all_on_exec()?;
            moves.iter().try_for_each(|(from, to)| place(*from, *to))
        });
    }
    let child = command.spawn()?;
    drop(parked);
    Ok(Spawned { child, stderr })
}

/// Moves descriptors up to where they can't be one of the targets.
fn park(fds: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
    // The standard library's own pipe for exec errors takes the lowest free numbers; if those reached the targets, the
    // child would overwrite it.
    let lowest = rustix::io::fcntl_dupfd_cloexec(io::stderr().as_fd(), 3)?;
    if lowest.as_raw_fd() > FIRST.saturating_sub(10) {
        return Err(io::Error::other("this process has too many files open to start a machine"));
    }
    fds.into_iter().map(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(&fd, PARKED)?)).collect()
}

fn close_all_on_exec() -> io::Result<()> {
    // SAFETY: `close_range` with this flag only marks descriptors; it takes no memory.
    #[allow(unsafe_code)]
    let answer =
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn place(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: both are plain numbers; in this process, which is about to execute another program, nothing owns `to`.
    #[allow(unsafe_code)]
    let answer = unsafe { libc::dup2(from, to) };
    if answer == to { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A file in memory that can't grow, so that a child that writes without end costs nothing and never blocks.
pub(crate) fn bounded_memory() -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("stderr", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&memory, STDERR_KEPT)?;
    rustix::fs::fcntl_add_seals(&memory, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(memory)
}

/// Opens a handle that becomes readable when the child has ended.
pub(crate) fn handle(child: &Child) -> io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// Looks a program up in `PATH`, then where system programs lie on machines whose `PATH` doesn't name it.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual =
        ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/usr/libexec"].map(std::path::PathBuf::from);
    let mut places = std::env::split_paths(&path).filter(|place| place.is_absolute()).chain(usual);
    places.find_map(|place| {
        let file = place.join(program);
        let status = std::fs::metadata(&file).ok()?;
        (status.is_file() && status.permissions().mode() & 0o111 != 0).then_some(file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn shell(script: &str, fds: Vec<OwnedFd>) -> Spawned {
        spawn(Path::new("/bin/sh"), &["-c".into(), script.into()], fds).expect("a shell starts")
    }

    #[test]
    fn a_child_finds_its_descriptors_at_the_promised_numbers_and_no_others() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let (_other, second) = UnixStream::pair().unwrap();
        let mut spawned = shell("ls /proc/self/fd 1>&2", vec![theirs.into(), second.into()]);
        spawned.child.wait().unwrap();
        let mut listed: Vec<i32> = spawned.stderr().split_whitespace().map(|n| n.parse().unwrap()).collect();
        listed.sort_unstable();
        // One more number is the folder that `ls` itself reads.
        listed.retain(|n| *n > 3);
        assert_eq!(listed, [FIRST, FIRST + 1]);
        ours.set_nonblocking(true).unwrap();
        assert_eq!(ours.read(&mut [0; 1]).unwrap(), 0, "the parent kept a copy of the child's end");
    }

    #[test]
    fn a_child_that_writes_without_end_is_cut_off_and_not_blocked() {
        let mut flood = shell("head -c 300000 /dev/zero | tr '\\0' x 1>&2; exit 7", Vec::new());
        assert_eq!(flood.child.wait().unwrap().code(), Some(7));
        assert_eq!(flood.stderr().len(), STDERR_SHOWN);
    }

    #[test]
    fn a_program_that_is_missing_is_an_error_and_not_a_child() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let error = spawn(Path::new("/nonexistent"), &[], vec![theirs.into()]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
