//! Starts a child that holds exactly the file descriptors it was given, at numbers known beforehand.
//!
//! The numbers must be known before the start because they stand in the child's arguments, which `vimana plan` prints.
//! They begin at [`FIRST`], above anything that a small process has open. The child gets no other descriptor, an empty
//! environment, a session of its own, `/` as its folder, and a death signal, so that it ends however its parent ends.

use std::ffi::{CString, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::jail::{Failed, Jail, Ready, Step, last_error};

/// The number of the first descriptor handed to a child; the others follow.
pub(crate) const FIRST: RawFd = 100;
/// Where descriptors are parked in the parent, so that no number is both a source and a target.
const PARKED: RawFd = 150;
/// What is kept of a child's standard error, in bytes; what follows is dropped.
pub(crate) const STDERR_KEPT: u64 = 64 * 1024;
/// What is shown of it.
const STDERR_SHOWN: usize = 4096;

/// A child and what it says on standard error. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Spawned {
    pid: Pid,
    handle: OwnedFd,
    stderr: OwnedFd,
    ended: Option<Status>,
}

/// How a child ended: its exit code, or the signal that killed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The exit code, if it exited by itself.
    pub code: Option<i32>,
    /// The signal, if one killed it.
    pub signal: Option<i32>,
}

impl Spawned {
    /// The last 4 KiB of the first 64 KiB that the child wrote to standard error.
    pub fn stderr(&self) -> String {
        stderr_of(&self.stderr)
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Becomes readable, for `poll`, when it has ended.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Kills it. It must still be waited for. Nothing happens if it has ended.
    ///
    /// # Errors
    /// It has become another user's.
    pub fn kill(&self) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.handle, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Somebody else has waited for it.
    pub fn wait(&mut self) -> io::Result<Status> {
        self.wait_with(WaitIdOptions::EXITED)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// How it ended; nothing while it runs.
    ///
    /// # Errors
    /// Somebody else has waited for it.
    pub fn try_wait(&mut self) -> io::Result<Option<Status>> {
        self.wait_with(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    fn wait_with(&mut self, options: WaitIdOptions) -> io::Result<Option<Status>> {
        if self.ended.is_none() {
            let wait = || rustix::process::waitid(WaitId::PidFd(self.handle.as_fd()), options);
            let ended = rustix::io::retry_on_intr(wait)?;
            self.ended =
                ended.map(|ended| Status { code: ended.exit_status(), signal: ended.terminating_signal() });
        }
        Ok(self.ended)
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // Both fail only for a child that is already reaped.
        let _ = self.kill();
        let _ = self.wait();
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

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Everything that the child needs, made before there is a child: it must not need memory.
struct Start {
    program: CString,
    /// Pointers to the arguments' bytes, and a null pointer.
    arguments: Vec<*const libc::c_char>,
    moves: Vec<(RawFd, RawFd)>,
    null: OwnedFd,
    stderr: OwnedFd,
    /// Where a failure is told; closed by the program's execution.
    report: OwnedFd,
    /// Written to by the parent when it has said who the child is, closed when the child may execute its program.
    go: OwnedFd,
    jail: Option<Ready>,
}

/// Starts `program`; `fds[i]` becomes the child's descriptor `FIRST + i`.
pub(crate) fn spawn(
    program: &Path,
    args: &[OsString],
    fds: Vec<OwnedFd>,
    jail: Option<&Jail>,
) -> io::Result<Spawned> {
    let parked = park(fds)?;
    let stderr = bounded_memory()?;
    let words: Vec<CString> = std::iter::once(program.as_os_str())
        .chain(args.iter().map(OsString::as_os_str))
        .map(|word| CString::new(word.as_bytes()))
        .collect::<Result<_, _>>()?;
    // A child that another thread makes meanwhile would hold these pipes open, and wait as this one's does.
    let one_at_a_time = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let high = |fd: &dyn AsFd| rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), PARKED);
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let ((heard, report), (waits, go)) = (pipe()?, pipe()?);
    let start = Start {
        program: CString::new(program.as_os_str().as_bytes())?,
        arguments: words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect(),
        moves: parked.iter().map(AsRawFd::as_raw_fd).zip(FIRST..).collect(),
        null: high(&null)?,
        stderr: high(&stderr)?,
        report: high(&report)?,
        go: high(&waits)?,
        jail: jail.map(Jail::ready).transpose()?,
    };
    drop((null, report, waits));
    let group = jail.and_then(Jail::control_group);
    let pid = start.fork([go.as_raw_fd(), heard.as_raw_fd()])?;
    let is_mapped = start.jail.as_ref().is_some_and(Ready::is_mapped);
    drop(start);
    let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).inspect_err(|_| {
        // It has not begun: nobody but this process knows of it.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    })?;
    let child = Spawned { pid, handle, stderr, ended: None };
    if is_mapped {
        map_user(pid)?;
    }
    rustix::io::write(&go, &[0])?;
    // Meanwhile the child builds its root: who first moves a process between groups waits for all processors.
    let grouped = group.map_or(Ok(()), |group| group.put(child.pid()));
    if grouped.is_err() {
        // It may not run outside.
        child.kill()?;
    }
    drop((go, parked, one_at_a_time));
    let mut failure = Vec::new();
    fs::File::from(heard).read_to_end(&mut failure)?;
    match failure.split_first() {
        // The child may have failed first, and not be there any more to be put anywhere.
        Some((step, number)) => Err(failed(*step, number)),
        None => grouped.map(|()| child),
    }
}

fn failed(step: u8, number: &[u8]) -> io::Error {
    let number = number.try_into().map_or(0, i32::from_ne_bytes);
    let reason = io::Error::from_raw_os_error(number);
    match Step::from_number(step) {
        Some(Step::Execute) | None => reason,
        Some(step) => io::Error::new(reason.kind(), format!("{}: {reason}", step.words())),
    }
}

/// Tells the kernel who the child is in its user namespace: the same user as outside, and nobody else.
fn map_user(pid: Pid) -> io::Result<()> {
    let pid = pid.as_raw_nonzero();
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    fs::write(format!("/proc/{pid}/gid_map"), format!("{group} {group} 1\n"))?;
    fs::write(format!("/proc/{pid}/uid_map"), format!("{user} {user} 1\n"))
}

impl Start {
    /// Makes the child, which must not hold the parent's ends of its pipes.
    #[allow(unsafe_code)]
    fn fork(&self, parents: [RawFd; 2]) -> io::Result<Pid> {
        let flags = self.jail.as_ref().map_or(0, Ready::flags) | libc::SIGCHLD;
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: without CLONE_VM this is a fork. The child makes system calls on what is in `self` and touches no other
        // memory, so that it doesn't matter which locks other threads of the parent hold.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), none, none, none, 0) };
        if pid == 0 {
            // SAFETY: nothing in this process uses the parent's ends.
            parents.iter().for_each(|end| unsafe {
                libc::close(*end);
            });
            let (step, number) = self.become_program();
            let [a, b, c, d] = number.to_ne_bytes();
            let words = [step as u8, a, b, c, d];
            // SAFETY: the buffer outlives the call; the process ends without running anybody's destructors.
            unsafe {
                libc::write(self.report.as_raw_fd(), words.as_ptr().cast(), words.len());
                libc::_exit(127)
            }
        }
        i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(io::Error::last_os_error)
    }

    /// What the child does; returns only if it can't.
    fn become_program(&self) -> Failed {
        match self.try_become() {
            Ok(()) => (Step::Execute, last_error()),
            Err(failed) => failed,
        }
    }

    #[allow(unsafe_code)]
    fn try_become(&self) -> Result<(), Failed> {
        let at = |step: Step| move |error: rustix::io::Errno| (step, error.raw_os_error());
        let broken = |_: io::Error| (Step::Descriptors, last_error());
        // Until the parent has said who this is.
        self.wait_for_parent().map_err(at(Step::Parent))?;
        rustix::process::setsid().map_err(at(Step::Session))?;
        close_all_on_exec().map_err(broken)?;
        for (from, to) in [(&self.null, 0), (&self.null, 1), (&self.stderr, 2)] {
            place(from.as_raw_fd(), to).map_err(broken)?;
        }
        for (from, to) in &self.moves {
            place(*from, *to).map_err(broken)?;
        }
        // SAFETY: the path is a constant; the set is this function's own.
        unsafe {
            libc::chdir(c"/".as_ptr());
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        }
        if let Some(jail) = &self.jail {
            jail.enter()?;
        }
        // After the change of user, which takes it back.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(at(Step::DeathSignal))?;
        // Until it has been put where it belongs.
        while self.wait_for_parent().map_err(at(Step::Parent))? > 0 {}
        if self.is_orphan() {
            return Err((Step::Parent, libc::ESRCH));
        }
        if let Some(jail) = &self.jail {
            jail.lock()?;
        }
        let environment = [std::ptr::null::<libc::c_char>()];
        // SAFETY: both arrays end with a null pointer; the words that the first points to outlive the call.
        unsafe { libc::execve(self.program.as_ptr(), self.arguments.as_ptr(), environment.as_ptr()) };
        Ok(())
    }

    /// Waits for the parent's byte, or for its end of the pipe to close: 0 then.
    fn wait_for_parent(&self) -> rustix::io::Result<usize> {
        let mut byte = [0; 1];
        rustix::io::retry_on_intr(|| rustix::io::read(&self.go, &mut byte))
    }

    /// Whether the parent died before its death could have an effect: the report then has no reader.
    fn is_orphan(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut reader = [PollFd::new(&self.report, PollFlags::empty())];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut reader, Some(&now)).is_ok_and(|ready| ready > 0)
            && reader[0].revents().contains(PollFlags::ERR)
    }
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

/// Looks a program up in `PATH`, then where system programs lie on machines whose `PATH` doesn't name it.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/libexec"]
        .map(std::path::PathBuf::from);
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
    use std::os::unix::net::UnixStream;

    fn shell(script: &str, fds: Vec<OwnedFd>) -> Spawned {
        spawn(Path::new("/bin/sh"), &["-c".into(), script.into()], fds, None).expect("a shell starts")
    }

    #[test]
    fn a_child_finds_its_descriptors_at_the_promised_numbers_and_no_others() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let (_other, second) = UnixStream::pair().unwrap();
        let mut spawned = shell("ls /proc/self/fd 1>&2", vec![theirs.into(), second.into()]);
        spawned.wait().unwrap();
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
        assert_eq!(flood.wait().unwrap().code, Some(7));
        assert_eq!(flood.stderr().len(), STDERR_SHOWN);
    }

    #[test]
    fn a_program_that_is_missing_is_an_error_and_not_a_child() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let error = spawn(&missing, &[], vec![theirs.into()], None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
