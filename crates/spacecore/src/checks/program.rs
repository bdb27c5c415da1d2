//! A program that is run as a check.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use spacecore::wire::message::ToHost;

use crate::process::{Child, Report, signal};

/// The most bytes of its output, of their end, that are told.
const TOLD: usize = 1024;

/// How often its output is read before others get their turn: 64 KiB.
const MOST_READS: usize = 16;

/// How long its last words may take to arrive once it has exited: relays may carry them.
const LINGER: Duration = Duration::from_millis(200);

/// A program from its start until it has exited.
#[derive(Debug)]
pub(super) struct Program {
    pid: Pid,
    pidfd: OwnedFd,
    report: Option<File>,
    reported: Vec<u8>,
    outputs: [Option<File>; 2],
    said: Vec<u8>,
    exit: Option<Exit>,
}

#[derive(Debug)]
struct Exit {
    code: Option<i32>,
    signal: Option<i32>,
    linger_until: Instant,
}

impl Program {
    pub(super) fn new(child: Child) -> Self {
        Self {
            pid: child.pid,
            pidfd: child.pidfd,
            report: Some(child.report.into()),
            reported: Vec::new(),
            outputs: [Some(child.stdout.into()), child.stderr.map(File::from)],
            said: Vec::new(),
            exit: None,
        }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn kill(&self) {
        signal(&self.pidfd, libc::SIGKILL);
    }

    pub(super) fn exited(&mut self, code: Option<i32>, signal: Option<i32>) {
        self.exit = Some(Exit { code, signal, linger_until: Instant::now() + LINGER });
    }

    pub(super) fn interests<'a>(&'a self, wait: impl FnMut(BorrowedFd<'a>)) {
        let exit = self.exit.is_none().then_some(self.pidfd.as_fd());
        let files = self.report.iter().chain(self.outputs.iter().flatten()).map(AsFd::as_fd);
        exit.into_iter().chain(files).for_each(wait);
    }

    /// When it is over although its output hasn't ended.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.exit.as_ref().map(|exit| exit.linger_until)
    }

    /// Reads what there is; the result once it has exited.
    pub(super) fn turn(&mut self) -> Option<Result<(), String>> {
        read(&mut self.report, &mut self.reported, usize::MAX);
        self.outputs.iter_mut().for_each(|output| read(output, &mut self.said, TOLD));
        let exit = self.exit.as_ref()?;
        let has_ended = self.outputs.iter().all(Option::is_none);
        if !has_ended && Instant::now() < exit.linger_until {
            return None;
        }
        let refusal =
            self.reported.split(|byte| *byte == b'\n').find_map(|line| match Report::from_line(line) {
                Some(Report::Message(ToHost::Refused { refusal, .. })) => Some(refusal.message),
                _ => None,
            });
        let how = match (refusal, exit.code, exit.signal) {
            (Some(message), ..) => return Some(Err(message)),
            (None, Some(0), _) => return Some(Ok(())),
            (None, Some(code), _) => format!("exit code {code}"),
            (None, None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None, None) => "no exit code".to_owned(),
        };
        let said = String::from_utf8_lossy(&self.said);
        Some(Err(match said.trim() {
            "" => how,
            words => format!("{how}: {words}"),
        }))
    }
}

/// Reads what is there, as far as that doesn't keep PID 1 from the others, and keeps the end of it.
fn read(from: &mut Option<File>, into: &mut Vec<u8>, most: usize) {
    let mut buffer = [0; 4096];
    for _ in 0..MOST_READS {
        let Some(file) = from else { return };
        match file.read(&mut buffer) {
            Ok(length @ 1..) => {
                into.extend_from_slice(&buffer[..length]);
                into.drain(..into.len().saturating_sub(most));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Ok(_) | Err(_) => *from = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;

    /// What a check makes of a shell's command, with this in the report of its start.
    fn check(command: &str, report: &[u8]) -> Result<(), String> {
        let mut child = Command::new("sh")
            .args(["-c", command])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let (reading, writing) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writing, report).unwrap();
        drop(writing);
        let (stdout, stderr): (OwnedFd, OwnedFd) =
            (child.stdout.take().unwrap().into(), child.stderr.take().unwrap().into());
        for fd in [&reading, &stdout, &stderr] {
            rustix::io::ioctl_fionbio(fd, true).unwrap();
        }
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let child_seen =
            Child { pid, pidfd, report: reading, stdin: None, stdout, stderr: Some(stderr), slave: None };
        let mut program = Program::new(child_seen);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = child.try_wait().unwrap().filter(|_| program.exit.is_none()) {
                program.exited(status.code(), status.signal());
            }
            if let Some(result) = program.turn() {
                return result;
            }
            assert!(Instant::now() < deadline, "it hangs");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_program_passes_by_its_exit_code_and_fails_with_its_last_words() {
        assert_eq!(check("echo fine", b""), Ok(()));
        assert_eq!(check("exit 3", b""), Err("exit code 3".to_owned()));
        assert_eq!(check("echo no answer >&2; exit 1", b""), Err("exit code 1: no answer".to_owned()));
        assert_eq!(check("kill -9 $$", b""), Err("killed by signal 9".to_owned()));
        let long = check("head -c 100000 /dev/zero | tr '\\0' x; echo the end; exit 1", b"").unwrap_err();
        assert!(long.len() < TOLD + 20 && long.ends_with("xxxthe end"), "{long}");
    }

    #[test]
    fn what_a_program_leaves_behind_with_its_output_isnt_waited_for() {
        let begun = Instant::now();
        assert_eq!(check("sleep 5 & exit 0", b""), Ok(()));
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn a_program_that_doesnt_exist_fails_with_what_its_start_reported() {
        let report = br#"{"refused":{"process":0,"refusal":{"kind":"not-found","message":"/no: not there"}}}
"#;
        assert_eq!(check("exit 127", report), Err("/no: not there".to_owned()));
    }
}
