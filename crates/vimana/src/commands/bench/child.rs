//! One start of the measuring program: its lines with the moments at which they came, and an end that leaves nothing.
//!
//! A child gets a process group of its own, so that Ctrl-C reaches only the bench, which then ends the child in order; and a
//! death signal, so that it goes with the bench however that ends.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use node::signals::Signals;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The longest that one start may take, with all that it measures.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long a child may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(10);
/// The longest line that is read, in bytes; what a child says beyond that is no answer.
const LINE_MAX: usize = 64 * 1024;
/// What is shown of what a child says when it fails, in bytes.
const SHOWN: usize = 300;

/// Why there is no number.
#[derive(Debug)]
pub enum Failure {
    /// A person wants it to end.
    Interrupted,
    /// It didn't work, and why.
    Failed(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What is started, and what clears away behind it where ending it isn't enough.
pub struct Start {
    pub command: Command,
    pub clear: Option<Command>,
}

/// A running child.
pub struct Child<'a> {
    process: std::process::Child,
    handle: OwnedFd,
    stderr: File,
    pending: Vec<u8>,
    clear: Option<Command>,
    signals: &'a mut Signals,
    deadline: Instant,
    /// When the command was executed.
    pub began: Instant,
    ended: bool,
}

impl<'a> Child<'a> {
    /// Executes the command.
    ///
    /// # Errors
    /// It can't be executed.
    pub fn start(start: Start, signals: &'a mut Signals) -> Result<Self, Failure> {
        let Start { mut command, clear } = start;
        let stderr = tempfile::tempfile()?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr.try_clone()?).process_group(0);
        prepare(&mut command);
        let began = Instant::now();
        let mut process = command.spawn().map_err(|error| {
            Failure::Failed(format!("{} can't be executed: {error}", command.get_program().display()))
        })?;
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        let Some(Ok(handle)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            let _ = process.kill();
            let _ = process.wait();
            return Err(Failure::Failed("the kernel gives no handle on the child".to_owned()));
        };
        let deadline = began.checked_add(PATIENCE).unwrap_or(began);
        Ok(Self {
            process,
            handle,
            stderr,
            pending: Vec::new(),
            clear,
            signals,
            deadline,
            began,
            ended: false,
        })
    }

    /// The process that was started.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The next line of its standard output, and when it came; none at the end.
    ///
    /// # Errors
    /// It takes too long, or a person wants it to end.
    pub fn line(&mut self) -> Result<Option<(Instant, String)>, Failure> {
        let mut came = Instant::now();
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return Ok(Some((came, String::from_utf8_lossy(&line).trim().to_owned())));
            }
            if self.pending.len() > LINE_MAX {
                return Err(Failure::Failed("it says a line without end".to_owned()));
            }
            let Some(output) = self.process.stdout.as_ref() else { return Ok(None) };
            wait_for(output, self.signals, self.deadline)?;
            came = Instant::now();
            let mut chunk = [0; 4096];
            let Some(output) = self.process.stdout.as_mut() else { return Ok(None) };
            match output.read(&mut chunk) {
                Ok(0) => self.process.stdout = None,
                Ok(count) => self.pending.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until it says a line with this word in it; the moment at which it came.
    ///
    /// # Errors
    /// It ends or fails without having said it; and those of [`Child::line`].
    pub fn expect(&mut self, word: &str) -> Result<Instant, Failure> {
        while let Some((came, line)) = self.line()? {
            if line.contains(word) {
                return Ok(came);
            }
            self.told_failure(&line)?;
        }
        Err(self.failed())
    }

    /// A line that says why it failed is a failure.
    ///
    /// # Errors
    /// The line is one.
    pub fn told_failure(&self, line: &str) -> Result<(), Failure> {
        match line.split_once("failed ") {
            Some(("", why)) => Err(Failure::Failed(why.to_owned())),
            Some(_) | None => Ok(()),
        }
    }

    /// Waits for the command's end; the moment at which it came.
    ///
    /// # Errors
    /// Those of [`Child::line`].
    pub fn end(&mut self) -> Result<Instant, Failure> {
        while self.line()?.is_some() {}
        wait_for(&self.handle, self.signals, self.deadline)?;
        let came = Instant::now();
        let status = self.process.wait()?;
        self.ended = true;
        if status.success() { Ok(came) } else { Err(self.failed()) }
    }

    /// Leaves it alone for a while.
    ///
    /// # Errors
    /// It ends meanwhile, or a person wants it to end.
    pub fn rest(&mut self, time: Duration) -> Result<(), Failure> {
        let until = Instant::now().checked_add(time).unwrap_or(self.deadline);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let left =
                Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
            let mut wanted =
                [PollFd::new(&self.handle, PollFlags::IN), PollFd::new(&*self.signals, PollFlags::IN)];
            match poll(&mut wanted, Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            let ended = !wanted[0].revents().is_empty();
            if !wanted[1].revents().is_empty() && self.signals.next_signal().is_some() {
                return Err(Failure::Interrupted);
            }
            if ended {
                return Err(self.failed());
            }
        }
    }

    /// Why it failed, as far as it says.
    pub fn failed(&mut self) -> Failure {
        let mut said = String::new();
        let read = self.stderr.rewind().and_then(|()| (&self.stderr).take(1 << 20).read_to_string(&mut said));
        let last = said.lines().rev().find(|line| !line.trim().is_empty() && !line.contains(" note: "));
        let why = match (read, last) {
            (Ok(_), Some(line)) => line.trim().trim_start_matches("vimana: ").chars().take(SHOWN).collect(),
            _ => "it ended without a word".to_owned(),
        };
        Failure::Failed(why)
    }
}

impl Drop for Child<'_> {
    fn drop(&mut self) {
        // What can't be cleared away now has ended already.
        if let Some(clear) = &mut self.clear {
            let _ = clear.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        if self.ended {
            return;
        }
        self.process.stdout = None;
        let _ = pidfd_send_signal(&self.handle, Signal::TERM);
        let grace = Timespec { tv_sec: GRACE.as_secs().cast_signed(), tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(&grace));
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until there is something to read.
fn wait_for(what: &impl AsFd, signals: &mut Signals, deadline: Instant) -> Result<(), Failure> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Failed(format!("it takes longer than {} s", PATIENCE.as_secs())));
        }
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        let mut wanted = [PollFd::new(what, PollFlags::IN), PollFd::new(&*signals, PollFlags::IN)];
        match poll(&mut wanted, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let ready = !wanted[0].revents().is_empty();
        if !wanted[1].revents().is_empty() && signals.next_signal().is_some() {
            return Err(Failure::Interrupted);
        }
        if ready {
            return Ok(());
        }
    }
}

/// Lets the kernel kill the command when the bench dies, and gives it the signals back that the bench reads.
fn prepare(command: &mut Command) {
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec the closure makes system calls on plain numbers and on a set of signals that it holds
    // itself; it neither allocates nor takes a lock.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || {
            let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The bench may have died before the line above, which then never fires.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, clear: Option<&str>) -> Start {
        let command = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        };
        Start { command: command(script), clear: clear.map(command) }
    }

    fn failure<T>(result: Result<T, Failure>) -> String {
        match result.map(drop) {
            Err(Failure::Failed(why)) => why,
            Err(Failure::Interrupted) | Ok(()) => panic!("it is a failure"),
        }
    }

    #[test]
    fn lines_come_with_their_moments_and_the_end_with_its_own() {
        let mut signals = Signals::block(&[libc::SIGUSR1]).unwrap();
        let mut child =
            Child::start(shell("echo one; sleep 0.05; echo two; sleep 0.05", None), &mut signals).unwrap();
        let one = child.expect("one").unwrap();
        let (two, line) = child.line().unwrap().unwrap();
        let end = child.end().unwrap();
        assert_eq!(line, "two");
        assert!(child.began <= one && one < two && two < end);
    }

    #[test]
    fn a_failure_is_told_in_the_child_s_own_words() {
        let mut signals = Signals::block(&[libc::SIGUSR1]).unwrap();
        let mut child =
            Child::start(shell("echo 'vimana: it broke' >&2; exit 3", None), &mut signals).unwrap();
        assert_eq!(failure(child.expect("hello")), "it broke");
        drop(child);
        let mut child = Child::start(shell("echo failed the disk is full", None), &mut signals).unwrap();
        assert_eq!(failure(child.expect("end")), "the disk is full");
    }

    #[test]
    fn a_child_that_is_dropped_ends_and_is_cleared_away_behind() {
        let mut signals = Signals::block(&[libc::SIGUSR1]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let clear = format!("echo cleared > {}", file.path().display());
        let mut child = Child::start(shell("echo up; exec sleep 1000", Some(&clear)), &mut signals).unwrap();
        child.expect("up").unwrap();
        let began = Instant::now();
        drop(child);
        assert!(began.elapsed() < GRACE);
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "cleared\n");
    }
}
