//! Starting a process: its pipes or terminal, its namespaces, and what it reports before it becomes its program.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::Pid;
use rustix::thread::ThreadNameSpaceType;
use spacecore::wire::message::{Configuration, Process, Refusal, RefusalKind, ToHost, Transfer};

use crate::configure::Outside;
use crate::exec::{become_program, lead_session};
use crate::init::Init;
use crate::inside::{link_console, move_in, show_console, write_etc, write_secrets};
use crate::paths::Inside;
use crate::relay;
use crate::steps::Steps;
use crate::terminal::Terminal;
use crate::transfer;
use spacecore::refusal::OrRefuse;

/// Where a process runs.
#[derive(Debug)]
pub(crate) enum Place<'a> {
    /// Among the processes of this first one, with new mounts that it sets up: the workload.
    New(&'a Init, &'a Configuration, &'a Outside, Steps),
    /// In the namespaces of the workload, which this descriptor of a process names.
    Beside(BorrowedFd<'a>),
    /// In the namespaces of PID 1, which are a container's; the workload, where there is a configuration.
    Here(Option<(&'a Configuration, Steps)>),
}

/// A process that was started, seen from PID 1. No descriptor blocks.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// Messages of the process before it became its program, as lines of JSON; closed by then.
    pub(crate) report: OwnedFd,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: Option<OwnedFd>,
    /// Held so that the terminal lives as long as the process does, whether or not it has it open.
    pub(crate) slave: Option<OwnedFd>,
}

/// What a process reports before it becomes its program, one line each.
#[derive(Debug, PartialEq)]
pub(crate) enum Report {
    /// The folder of this stream is mounted.
    Mounted(u16),
    /// Something for the keeper.
    Message(ToHost),
}

impl Report {
    fn to_line(&self) -> Vec<u8> {
        let mut line = match self {
            Self::Mounted(stream) => stream.to_string().into_bytes(),
            Self::Message(message) => serde_json::to_vec(message).unwrap_or_default(),
        };
        line.push(b'\n');
        line
    }

    /// Reads a line without its end.
    pub(crate) fn from_line(line: &[u8]) -> Option<Self> {
        match line.first()? {
            b'{' => serde_json::from_slice(line).ok().map(Self::Message),
            _ => std::str::from_utf8(line).ok()?.parse().ok().map(Self::Mounted),
        }
    }
}

/// What the new process has as standard input, output and error, and its end of the report.
struct Ends {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    report: OwnedFd,
    terminal: Option<String>,
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Refusal> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).or_refuse(RefusalKind::Other, || "making a pipe".to_owned())
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, Refusal> {
    fd.try_clone().or_refuse(RefusalKind::Other, || "duplicating a descriptor".to_owned())
}

/// Starts a process. Where the spacecore has folders, PID 1 must be `relayed` to its pipes.
///
/// # Errors
/// It couldn't even be forked; everything later is in its report.
pub(crate) fn start(
    place: Place<'_>,
    spec: &Process,
    hostname: &str,
    relayed: bool,
) -> Result<Child, Refusal> {
    let (report, report_end) = pipe()?;
    let (stdin, stdout, stderr, slave, ends);
    match spec.terminal {
        Some(size) => {
            let terminal = Terminal::open(size)?;
            let name = rustix::pty::ptsname(&terminal.master, Vec::new())
                .or_refuse(RefusalKind::Other, || "naming a terminal".to_owned())?;
            ends = Ends {
                stdin: duplicate(&terminal.slave)?,
                stdout: duplicate(&terminal.slave)?,
                stderr: duplicate(&terminal.slave)?,
                report: report_end,
                terminal: Some(name.to_string_lossy().into_owned()),
            };
            stdin = spec.stdin.then(|| duplicate(&terminal.master)).transpose()?;
            (stdout, stderr, slave) = (terminal.master, None, Some(terminal.slave));
        }
        None => {
            let (stdin_end, input) = match spec.stdin {
                true => pipe().map(|(end, input)| (end, Some(input)))?,
                false => (null()?, None),
            };
            let (output, stdout_end) = pipe()?;
            let (errors, stderr_end) = pipe()?;
            ends = Ends {
                stdin: stdin_end,
                stdout: stdout_end,
                stderr: stderr_end,
                report: report_end,
                terminal: None,
            };
            (stdin, stdout, stderr, slave) = match relayed {
                true => (
                    input.map(relay::before_input).transpose()?,
                    relay::behind_output(output)?,
                    Some(relay::behind_output(errors)?),
                    None,
                ),
                false => (input, output, Some(errors), None),
            };
        }
    }
    for fd in [Some(&report), stdin.as_ref(), Some(&stdout), stderr.as_ref()].into_iter().flatten() {
        rustix::io::ioctl_fionbio(fd, true).or_refuse(RefusalKind::Other, || "making a pipe".to_owned())?;
    }
    let (pid, pidfd) = match place {
        Place::New(init, ..) => among(init.as_fd(), || fork(place, spec, hostname, ends))?,
        Place::Beside(workload) => among(workload, || fork(place, spec, hostname, ends))?,
        Place::Here(_) => fork(place, spec, hostname, ends)?,
    };
    Ok(Child { pid, pidfd, report, stdin, stdout, stderr, slave })
}

fn null() -> Result<OwnedFd, Refusal> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .or_refuse(RefusalKind::Other, || "opening /dev/null".to_owned())
}

/// Forks in the pid namespace of a process.
fn among<T>(process: BorrowedFd<'_>, fork: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    let kind = ThreadNameSpaceType::PROCESS_ID;
    let what = || "joining the workload's processes".to_owned();
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
        .or_refuse(RefusalKind::Other, what)?;
    rustix::thread::move_into_thread_name_spaces(process, kind).or_refuse(RefusalKind::Other, what)?;
    let forked = fork();
    rustix::thread::move_into_thread_name_spaces(own.as_fd(), kind).or_refuse(RefusalKind::Other, what)?;
    forked
}

/// Forks; the child never returns from here.
fn fork(place: Place<'_>, spec: &Process, hostname: &str, ends: Ends) -> Result<(Pid, OwnedFd), Refusal> {
    let namespaces = match place {
        Place::New(..) => libc::CLONE_NEWNS | libc::CLONE_NEWIPC,
        Place::Beside(_) | Place::Here(_) => 0,
    };
    match clone(namespaces)? {
        Some(forked) => Ok(forked),
        None => run_child(place, spec, hostname, ends),
    }
}

/// Forks into new namespaces of these kinds (`CLONE_NEW...`); nothing is returned in the child.
///
/// # Errors
/// There is no room for a process more.
#[allow(unsafe_code)]
pub(crate) fn clone(namespaces: libc::c_int) -> Result<Option<(Pid, OwnedFd)>, Refusal> {
    let flags = libc::c_long::from(namespaces | libc::CLONE_PIDFD | libc::SIGCHLD);
    let mut pidfd: libc::c_int = -1;
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: without CLONE_VM this is a fork of a process that has one thread, so that the child may go on with all of
    // its memory; `pidfd` is where the kernel puts the descriptor that CLONE_PIDFD asks for.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, none, &raw mut pidfd, none, 0) };
    if result == 0 {
        return Ok(None);
    }
    let error = std::io::Error::last_os_error();
    let pid = i32::try_from(result).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw);
    match pid {
        // SAFETY: the kernel has just opened this descriptor for nobody else.
        Some(pid) => Ok(Some((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))),
        None => Err(error).or_refuse(RefusalKind::Other, || "forking".to_owned()),
    }
}

fn run_child(place: Place<'_>, spec: &Process, hostname: &str, ends: Ends) -> ! {
    crate::shutdown::forget_that_this_is_pid_1();
    let limited = match place {
        Place::Here(_) => {
            crate::container::be_ended_first();
            Ok(())
        }
        Place::New(..) | Place::Beside(_) => crate::cgroup::join(),
    };
    let mut report = std::fs::File::from(match duplicate(&ends.report) {
        Ok(report) => report,
        Err(_) => exit_child(),
    });
    let mut say = |message: &Report| {
        let _ = report.write_all(&message.to_line());
    };
    let done = limited.map_err(|refusal| (refusal, true));
    let refusal = match done.and_then(|()| set_up_child(place, spec, hostname, ends, &mut say)) {
        // The end of the report says that it runs.
        Ok(transfer) => transfer::run(transfer),
        Err(refusal) => refusal,
    };
    // The number is filled in by PID 1, which knows it.
    let process = refusal.1.then_some(0);
    say(&Report::Message(ToHost::Refused { process, refusal: refusal.0 }));
    exit_child()
}

fn exit_child() -> ! {
    exit(127)
}

/// Ends a forked process.
#[allow(unsafe_code)]
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: ends this process without running what its parent registered for its own exit.
    unsafe { libc::_exit(code) }
}

/// Becomes the program, or returns what is to be copied instead; an error says whether the process alone (`true`) or the whole
/// configuration failed.
fn set_up_child<'a>(
    place: Place<'_>,
    spec: &'a Process,
    hostname: &str,
    ends: Ends,
    say: &mut dyn FnMut(&Report),
) -> Result<&'a Transfer, (Refusal, bool)> {
    let process_alone = |refusal| (refusal, true);
    let is_workload = match &place {
        Place::New(..) | Place::Here(Some(_)) => true,
        Place::Beside(_) | Place::Here(None) => false,
    };
    let standard = || "setting up standard input and output".to_owned();
    rustix::stdio::dup2_stdin(&ends.stdin)
        .and_then(|()| rustix::stdio::dup2_stdout(&ends.stdout))
        .and_then(|()| rustix::stdio::dup2_stderr(&ends.stderr))
        .or_refuse(RefusalKind::Other, standard)
        .map_err(process_alone)?;
    let inside = match place {
        Place::New(_, configuration, outside, mut steps) => {
            let inside =
                move_in(configuration, outside, &mut steps, &mut |stream| say(&Report::Mounted(stream)))
                    .map_err(|refusal| (refusal, false))?;
            if let Some(terminal) = &ends.terminal {
                show_console(&inside, terminal).map_err(|refusal| (refusal, false))?;
            }
            say(&Report::Message(ToHost::Configured { steps: steps.done().to_vec() }));
            inside
        }
        Place::Beside(workload) => join(workload).map_err(process_alone)?,
        Place::Here(configuration) => {
            let root = || "opening the root".to_owned();
            let inside = Inside::root()
                .or_refuse(RefusalKind::Root, root)
                .map_err(|refusal| (refusal, configuration.is_some()))?;
            if let Some((configuration, mut steps)) = configuration {
                write_etc(&inside, configuration).map_err(|refusal| (refusal, false))?;
                write_secrets(&inside, configuration).map_err(|refusal| (refusal, false))?;
                if let Some(terminal) = &ends.terminal {
                    link_console(terminal);
                }
                steps.end("/etc files");
                say(&Report::Message(ToHost::Configured { steps: steps.done().to_vec() }));
            }
            inside
        }
    };
    if let Some(transfer) = &spec.transfer {
        return Ok(transfer);
    }
    let terminal = ends.terminal.is_some().then_some(&ends.stdin);
    lead_session(terminal).map_err(process_alone)?;
    match become_program(&inside, spec, hostname, is_workload).map_err(process_alone)? {}
}

/// Joins the workload's mounts. Its other processes can't look into this one until it is the program.
fn join(workload: BorrowedFd<'_>) -> Result<Inside, Refusal> {
    let what = || "joining the workload's mounts".to_owned();
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .or_refuse(RefusalKind::Other, what)?;
    let kinds = ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION;
    rustix::thread::move_into_thread_name_spaces(workload, kinds).or_refuse(RefusalKind::Other, what)?;
    Inside::root().or_refuse(RefusalKind::Other, what)
}

/// Sends a signal to a process that PID 1 hasn't reaped.
#[allow(unsafe_code)]
pub(crate) fn signal(pidfd: &OwnedFd, signal: i32) {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: pidfd_send_signal takes a descriptor, a number and no further memory.
    unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_as_they_were_written() {
        for report in [Report::Mounted(0x8000), Report::Message(ToHost::Started { process: 3 })] {
            let line = report.to_line();
            assert_eq!(Report::from_line(&line[..line.len() - 1]), Some(report));
        }
        assert_eq!(Report::from_line(b""), None);
        assert_eq!(Report::from_line(b"{x"), None);
    }
}
