//! The last steps of a new process before its program runs: limits, capabilities, user, exec.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::AsFd;

use rustix::process::{Resource, Rlimit};
use rustix::thread::{Gid, Uid};
use spacecore::wire::message::{Process, Refusal, RefusalKind};

use crate::environment;
use crate::inside::enter_working_directory;
use crate::paths::Inside;
use crate::users::{self, Identity};
use crate::{filter, mode, signals};
use spacecore::refusal::{OrRefuse, refuse};

/// The capabilities that container engines leave to root: chown, dac_override, fowner, fsetid, kill, setgid, setuid,
/// setpcap, net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap. Source: `linux/capability.h`.
const CAPABILITIES: u64 = 1
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 7
    | 1 << 8
    | 1 << 10
    | 1 << 13
    | 1 << 18
    | 1 << 27
    | 1 << 29
    | SETFCAP;
/// Files that have capabilities: on the host they would be anybody's who finds them in a folder of its.
const SETFCAP: u64 = 1 << 31;

/// Becomes the program, the workload's or one beside it. Standard input, output and error are in place, and the namespaces are the workload's.
///
/// # Errors
/// Why there is no program to become; nothing else can return.
pub(crate) fn become_program(
    inside: &Inside,
    spec: &Process,
    hostname: &str,
    is_workload: bool,
) -> Result<Infallible, Refusal> {
    let Some(program) = spec.args.first().filter(|program| !program.is_empty()) else {
        return Err(refuse(RefusalKind::NotFound, "no program is named: the image has no command either"));
    };
    let identity =
        users::look_up(&spec.user, &inside.read_file("/etc/passwd"), &inside.read_file("/etc/group"))?;
    let env = environment::complete(&spec.env, &identity.home, hostname, spec.terminal.is_some());
    enter_working_directory(inside, &spec.working_directory, is_workload)?;
    set_limits();
    own_output(&identity, spec);
    become_user(&identity)?;
    if mode::writes_to_host() {
        // The last that looks for a path by it is behind.
        filter::forget_openat2()?;
    }
    execute(program, &spec.args, &env)
}

/// More open files than the kernel's default of 1024, without a core dump that nobody would find.
fn set_limits() {
    let limit = |current, maximum| Rlimit { current: Some(current), maximum: Some(maximum) };
    let _ = rustix::process::setrlimit(Resource::Nofile, limit(65_536, 524_288));
    let _ = rustix::process::setrlimit(Resource::Core, limit(0, 0));
}

/// Gives the user its own pipes and terminal, so that it can open `/dev/stdout` again.
fn own_output(identity: &Identity, spec: &Process) {
    let uid = Some(Uid::from_raw(identity.uid));
    if spec.stdin || spec.terminal.is_some() {
        let _ = rustix::fs::fchown(rustix::stdio::stdin(), uid, None);
    }
    let _ = rustix::fs::fchown(rustix::stdio::stdout(), uid, None);
    let _ = rustix::fs::fchown(rustix::stdio::stderr(), uid, None);
}

/// Whether this user namespace can't set supplementary groups (user_namespaces(7), `/proc/PID/setgroups`).
fn groups_are_fixed() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}

fn become_user(identity: &Identity) -> Result<(), Refusal> {
    drop_capabilities()?;
    let what = || format!("becoming user {} of group {}", identity.uid, identity.gid);
    // The kernel's "unchanged" is no user.
    if identity.uid == u32::MAX || identity.gid == u32::MAX {
        return Err(refuse(RefusalKind::User, format!("{}: no such number", what())));
    }
    let groups = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect::<Vec<_>>();
    // Where there is one id there are no further groups, and the kernel lets nobody change those that the keeper has.
    if !groups_are_fixed() {
        rustix::thread::set_thread_groups(&groups).or_refuse(RefusalKind::User, what)?;
    }
    rustix::thread::set_thread_gid(Gid::from_raw(identity.gid)).or_refuse(RefusalKind::User, what)?;
    rustix::thread::set_thread_uid(Uid::from_raw(identity.uid)).or_refuse(RefusalKind::User, what)
}

/// Takes every other capability out of the bounding set: exec then gives root no more than is left in it.
#[allow(unsafe_code)]
fn drop_capabilities() -> Result<(), Refusal> {
    let kept = if mode::writes_to_host() { CAPABILITIES & !SETFCAP } else { CAPABILITIES };
    for capability in 0..64u64 {
        if kept & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if result < 0 {
            let error = std::io::Error::last_os_error();
            match error.raw_os_error() {
                // The kernel knows no capability of this number, nor any above it.
                Some(libc::EINVAL) => return Ok(()),
                _ => return Err(error).or_refuse(RefusalKind::Other, || "dropping capabilities".to_owned()),
            }
        }
    }
    Ok(())
}

fn c_strings(strings: &[String], what: &str) -> Result<Vec<CString>, Refusal> {
    strings
        .iter()
        .map(|string| {
            CString::new(string.as_str())
                .or_refuse(RefusalKind::Protocol, || format!("the {what} {string:?} holds a zero byte"))
        })
        .collect()
}

#[allow(unsafe_code)]
fn execute(program: &str, args: &[String], env: &[String]) -> Result<Infallible, Refusal> {
    let args = c_strings(args, "argument")?;
    let variables = c_strings(env, "environment variable")?;
    let pointers = |strings: &[CString]| {
        let null = std::iter::once(std::ptr::null());
        strings.iter().map(|string| string.as_ptr()).chain(null).collect::<Vec<_>>()
    };
    let (args, variables) = (pointers(&args), pointers(&variables));
    signals::be_default();
    let mut found: Option<(String, std::io::Error)> = None;
    for candidate in environment::candidates(program, env) {
        let path = c_strings(std::slice::from_ref(&candidate), "program")?;
        // SAFETY: both arrays end with a null pointer and point to strings that live in this function; no other thread
        // exists.
        unsafe {
            libc::execve(path[0].as_ptr(), args.as_ptr(), variables.as_ptr());
        }
        let error = std::io::Error::last_os_error();
        let there = rustix::fs::stat(candidate.as_str()).is_ok();
        if there || !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) {
            found.get_or_insert((candidate, error));
        }
    }
    Err(not_executed(program, env, found))
}

fn not_executed(program: &str, env: &[String], found: Option<(String, std::io::Error)>) -> Refusal {
    match found {
        None if program.contains('/') => {
            refuse(RefusalKind::NotFound, format!("there is no {program} in the image"))
        }
        None => {
            let path = environment::value(env, "PATH").unwrap_or_default();
            refuse(
                RefusalKind::NotFound,
                format!("there is no {program} in the image, looked for in PATH ({path})"),
            )
        }
        Some((path, error)) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => refuse(
                RefusalKind::NotFound,
                format!("{path} is there, but the interpreter or loader that it names isn't"),
            ),
            Some(libc::ENOEXEC) => refuse(
                RefusalKind::NotExecutable,
                format!(
                    "{path} is no program for this machine: another architecture, or a script without #!"
                ),
            ),
            _ => refuse(RefusalKind::NotExecutable, format!("{path} can't be executed: {error}")),
        },
    }
}

/// Makes the terminal the controlling one of a new session; without a terminal only the session is new.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn lead_session(terminal: Option<impl AsFd>) -> Result<(), Refusal> {
    let what = || "starting a session".to_owned();
    rustix::process::setsid().or_refuse(RefusalKind::Other, what)?;
    match terminal {
        Some(terminal) => rustix::process::ioctl_tiocsctty(terminal).or_refuse(RefusalKind::Other, what),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_keeps_what_container_engines_leave_it() {
        assert_eq!(CAPABILITIES, 0xa804_25fb);
    }

    #[test]
    fn a_program_that_exists_and_one_that_doesnt_are_told_apart() {
        let error = std::io::Error::from_raw_os_error;
        let kind = |found| not_executed("x", &[], found).kind;
        assert_eq!(kind(None), RefusalKind::NotFound);
        assert_eq!(kind(Some(("/x".to_owned(), error(libc::ENOENT)))), RefusalKind::NotFound);
        assert_eq!(kind(Some(("/x".to_owned(), error(libc::ENOEXEC)))), RefusalKind::NotExecutable);
        assert_eq!(kind(Some(("/x".to_owned(), error(libc::EACCES)))), RefusalKind::NotExecutable);
    }
}
