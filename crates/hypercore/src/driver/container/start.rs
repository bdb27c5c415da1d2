//! The short-lived process that makes a container.
//!
//! ```text
//!  keeper --fork--> maker: user namespace, own mounts, root     (root.rs)
//!    |                |--libcontainer--> (intermediate) --> init: namespaces, limits, pivot, seccomp
//!    |                |                                       |
//!    |                |--makes its interface                 |
//!    |                |--start---------------------------->  executes spacecore
//!    |<--pid, tap-----+ ends
//!    |<-------------------- parent of init
//! ```
//!
//! The keeper itself changes nothing of its own: mounts, namespaces and open files of the making end with the maker. `init`
//! is the keeper's child (`CLONE_PARENT`), and dies with it.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, SendAncillaryBuffer, SendAncillaryMessage};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use serde_json::{Value, json};

use super::config::{OPEN_FILES, WRITTEN};
use super::ids::Ids;
use super::mapping::Namespaces;
use super::{mapping, root};
use crate::cgroup;
use crate::driver::{Container, Network};
use crate::routed::Pair;
use crate::{guest, seccomp, tap};

/// The filters of `seccomp.rs` as the kernel takes them, which `build.rs` has compiled: 8 bytes for each instruction.
static COMPILED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/container.bpf"));
static WITH_FOLDERS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/container-with-folders.bpf"));

/// The longest reason that a maker gives.
const REASON_MAX: usize = 4096;
/// Above every descriptor that `spacecore` is given.
const PARKED: RawFd = 10;

/// What the maker is given.
pub(super) struct Making<'a> {
    /// The bundle's configuration.
    pub(super) config: &'a Value,
    /// What it was made from.
    pub(super) container: &'a Container,
    /// The name of the container, which is that of its control group too.
    pub(super) name: &'a str,
    /// The folder that the control group's lies in.
    pub(super) parent: &'a Path,
    /// Where its ids come from.
    pub(super) ids: Ids,
    /// The channel's end for `spacecore`.
    pub(super) channel: BorrowedFd<'a>,
    /// What `spacecore` has as standard error.
    pub(super) stderr: BorrowedFd<'a>,
    /// The network card, if it has one.
    pub(super) network: Option<Network>,
    /// What its interface is made with, where the kernel carries its network.
    pub(super) pair: Option<Pair>,
}

/// What was made.
pub(super) struct Made {
    /// PID 1 of the container, a child of the caller.
    pub(super) init: OwnedFd,
    /// Its number.
    pub(super) pid: Pid,
    /// The tap inside its network namespace.
    pub(super) tap: Option<OwnedFd>,
}

/// Makes a container and starts its PID 1. The caller must have one thread.
#[allow(unsafe_code)]
pub(super) fn make(making: Making<'_>) -> Result<Made, String> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(|error| error.to_string())?;
    let parent = rustix::process::getpid();
    // SAFETY: the caller has one thread, so that the child may go on with all of its memory.
    let maker = match unsafe { libc::fork() } {
        0 => {
            drop(ours);
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            let _ = rustix::process::setpgid(None, None);
            let answer = match rustix::process::getppid() == Some(parent) {
                true => run(making),
                false => Err("the keeper has died".to_owned()),
            };
            tell(&theirs, answer);
            // SAFETY: ends this process without running what its parent registered for its own exit.
            unsafe { libc::_exit(0) }
        }
        maker => Pid::from_raw(maker)
            .filter(|_| maker > 0)
            .ok_or_else(|| io::Error::last_os_error().to_string())?,
    };
    // Both sides do it, so that it is done whoever comes first.
    let _ = rustix::process::setpgid(Some(maker), Some(maker));
    drop(theirs);
    let heard = hear(&ours);
    // The maker, and the intermediate process that libcontainer has left to this one: a group of their own.
    while rustix::process::waitpgid(maker, WaitOptions::empty()).is_ok_and(|ended| ended.is_some()) {}
    let (pid, tap) = heard?;
    let init = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|error| error.to_string())?;
    Ok(Made { init, pid, tap })
}

fn tell(to: impl AsFd, answer: Result<(i32, Option<OwnedFd>), String>) {
    let (bytes, tap) = match answer {
        Ok((pid, tap)) => (pid.to_ne_bytes().to_vec(), tap),
        Err(reason) => ([&0_i32.to_ne_bytes()[..], reason.as_bytes()].concat(), None),
    };
    let sent = tap.as_ref().map(AsFd::as_fd);
    let sent = sent.as_slice();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sent.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(sent));
    }
    let bytes = bytes.get(..bytes.len().min(REASON_MAX)).unwrap_or_default();
    let flags = rustix::net::SendFlags::NOSIGNAL;
    // A keeper that has died hears nothing.
    let _ = rustix::net::sendmsg(to, &[io::IoSlice::new(bytes)], &mut control, flags);
}

fn hear(from: impl AsFd) -> Result<(Pid, Option<OwnedFd>), String> {
    let mut bytes = [0; REASON_MAX];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = rustix::net::RecvFlags::CMSG_CLOEXEC;
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&from, &mut [io::IoSliceMut::new(&mut bytes)], &mut control, flags)
    });
    let length = received.map_err(|error| error.to_string())?.bytes;
    let Some((pid, reason)) = bytes.get(..length).and_then(|bytes| bytes.split_first_chunk::<4>()) else {
        return Err("the process that makes it has died".to_owned());
    };
    let pid = Pid::from_raw(i32::from_ne_bytes(*pid))
        .ok_or_else(|| String::from_utf8_lossy(reason).into_owned())?;
    let tap = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((pid, tap))
}

/// What the maker does.
fn run(mut making: Making<'_>) -> Result<(i32, Option<OwnedFd>), String> {
    let text = |error: &dyn std::error::Error| chain(error);
    let executor = Init::new(making.channel, making.container.writes_to_host())
        .map_err(|error| format!("preparing PID 1: {error}"))?;
    raise_limits();
    let waker = wake_groups();
    if making.ids.is_rootless() {
        let entering = |error: io::Error| format!("becoming root of a user namespace: {error}");
        making.ids.enter().map_err(entering)?;
        // The kernel forgets it when a process' credentials change.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| entering(error.into()))?;
    }
    let namespaces = mapping::container_namespaces(making.ids, making.network.is_some())
        .map_err(|error| format!("making a user namespace: {error}"))?;
    let pair = making.pair.take();
    let stage = root::make(&making, &namespaces.user).map_err(|error| text(&error))?;
    let config = fill_in(making.config, &namespaces, &stage);
    let write = |error: io::Error| format!("writing the bundle: {error}");
    let file = fs::File::create(stage.bundle.join("config.json")).map_err(write)?;
    serde_json::to_writer(io::BufWriter::new(file), &config).map_err(|error| write(error.into()))?;
    let null = || fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(write);
    let stderr = making.stderr.try_clone_to_owned().map_err(write)?;
    let mut container = ContainerBuilder::new(making.name.to_owned(), SyscallType::default())
        .with_executor(executor)
        .with_root_path(stage.bundle.clone())
        .map_err(|error| text(&error))?
        .with_stdin(null()?)
        .with_stdout(null()?)
        .with_stderr(stderr)
        .as_init(&stage.bundle)
        .with_systemd(false)
        .with_detach(true)
        .as_sibling(true)
        .build()
        .map_err(|error| text(&error))?;
    let pid = container.pid().map(|pid| pid.as_raw()).ok_or("libcontainer names no process")?;
    let tap = match (making.network, &namespaces.network, pair) {
        (Some(Network { mac, .. }), Some(namespace), Some(pair)) => {
            let joined = pair.join(namespace.as_fd(), tap::NAME, mac);
            joined.map_err(|error| format!("making the network's interface: {error}"))?;
            None
        }
        (Some(Network { mac, mtu, .. }), Some(namespace), None) => {
            let tap = tap::open_in(namespace, tap::NAME, mac, mtu);
            Some(tap.map_err(|error| format!("making the network's tap: {error}"))?)
        }
        _ => None,
    };
    container.start().map_err(|error| text(&error))?;
    if let Some(waker) = waker {
        let _ = rustix::process::waitpid(Some(waker), WaitOptions::empty());
    }
    Ok((pid, tap))
}

/// Lets a process of its own wait for what would hold up this one later; nothing depends on it.
#[allow(unsafe_code)]
fn wake_groups() -> Option<Pid> {
    // SAFETY: this process has one thread, so that the child may go on with all of its memory.
    match unsafe { libc::fork() } {
        0 => {
            let _ = cgroup::wake();
            // SAFETY: ends this process without running what its parent registered for its own exit.
            unsafe { libc::_exit(0) }
        }
        waker => Pid::from_raw(waker).filter(|_| waker > 0),
    }
}

/// Takes the limit of open files that the container gets: behind its user namespace nobody may raise it any more. Where
/// even this process may not, the container has the limit of its keeper.
fn raise_limits() {
    use rustix::process::{Resource, Rlimit};
    let files = Rlimit { current: Some(OPEN_FILES.0), maximum: Some(OPEN_FILES.1) };
    if rustix::process::setrlimit(Resource::Nofile, files).is_err() {
        let own = rustix::process::getrlimit(Resource::Nofile);
        let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: own.maximum, ..own });
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

/// The configuration with what is known only now: the namespaces that were needed before the container, and where the
/// root and the mounts lie on the stage. They have their owners and limits already.
fn fill_in(config: &Value, made: &Namespaces, stage: &root::Stage) -> Value {
    let mut config = config.clone();
    let mut set = |pointer: &str, value: Value| {
        if let Some(place) = config.pointer_mut(pointer) {
            *place = value;
        }
    };
    set("/root/path", json!(stage.root));
    // Installed by this driver, which has it compiled: see `COMPILED`.
    set("/linux/seccomp", Value::Null);
    set("/linux/uidMappings", Value::Null);
    set("/linux/gidMappings", Value::Null);
    if let Some(namespaces) = config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
        for (kind, namespace) in [("user", Some(&made.user)), ("network", made.network.as_ref())] {
            let Some(namespace) = namespace else { continue };
            let path = format!("/proc/self/fd/{}", namespace.as_raw_fd());
            for entry in namespaces.iter_mut().filter(|entry| entry["type"] == kind) {
                *entry = json!({ "type": kind, "path": path });
            }
        }
    }
    // Those of the kernel come first, then the container's in order, then the files that are written.
    let mounts = config.pointer_mut("/mounts").and_then(Value::as_array_mut);
    let binds = mounts.into_iter().flatten().filter(|mount| mount["type"] == "bind");
    let sources = stage.mounts.iter().flatten().chain(&stage.written);
    for (mount, source) in binds.zip(sources) {
        *mount = json!({
            "destination": mount["destination"],
            "type": "bind",
            "source": source,
            "options": ["rbind"],
        });
    }
    debug_assert!(stage.written.len() <= WRITTEN.len());
    config
}

/// Executes `spacecore` from memory, so that neither is anything of the keeper's program left in the container nor a file of
/// the host open that it could write to.
#[derive(Clone, Copy)]
struct Init {
    program: RawFd,
    channel: RawFd,
    writes_to_host: bool,
}

impl Init {
    fn new(channel: BorrowedFd<'_>, writes_to_host: bool) -> io::Result<Self> {
        use std::io::Write;
        use std::os::fd::IntoRawFd;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 don't know that a program may be told apart from data.
        let memory = rustix::fs::memfd_create("spacecore", flags | MemfdFlags::EXEC)
            .or_else(|_| rustix::fs::memfd_create("spacecore", flags))?;
        let mut memory = fs::File::from(memory);
        memory.write_all(guest::GUEST)?;
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&memory, seals)?;
        // Both end with the maker, which executes nothing itself.
        let program = rustix::io::fcntl_dupfd_cloexec(&memory, PARKED)?.into_raw_fd();
        let channel = rustix::io::fcntl_dupfd_cloexec(channel, PARKED)?.into_raw_fd();
        Ok(Self { program, channel, writes_to_host })
    }
}

impl Executor for Init {
    #[allow(unsafe_code)]
    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
        let mut program = seccomp::instructions(if self.writes_to_host { WITH_FOLDERS } else { COMPILED });
        let length =
            u16::try_from(program.len()).map_err(|error| ExecutorError::Execution(Box::new(error)))?;
        let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
        const ARGUMENTS: [&CStr; 3] = [c"spacecore", c"container", c"with-folders"];
        let folders = if self.writes_to_host { ARGUMENTS[2].as_ptr() } else { std::ptr::null() };
        let arguments = [ARGUMENTS[0].as_ptr(), ARGUMENTS[1].as_ptr(), folders, std::ptr::null()];
        let environment = [std::ptr::null::<libc::c_char>()];
        // SAFETY: this process has one thread and is about to execute another program, so that no descriptor and no signal
        // is anybody else's; both arrays end with a null pointer and point to constants.
        unsafe {
            for signal in 1..=64 {
                libc::signal(signal, libc::SIG_DFL);
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            libc::umask(0o022);
            if libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const filter) != 0 {
                return Err(ExecutorError::Execution(Box::new(io::Error::last_os_error())));
            }
            libc::dup2(self.channel, spacecore::wire::CONTAINER_CHANNEL);
            let first = spacecore::wire::CONTAINER_CHANNEL.unsigned_abs().saturating_add(1);
            libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            libc::syscall(
                libc::SYS_execveat,
                self.program,
                c"".as_ptr(),
                arguments.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        Err(ExecutorError::Execution(Box::new(io::Error::last_os_error())))
    }

    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    /// The last thing before this process waits for its start, which a keeper that dies now would never give.
    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| ExecutorSetEnvsError::SetEnvs(Box::new(io::Error::from(error))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What of this a process with the filter is refused, by the kernel's own answer: the numbers for which `asks` fails with `EPERM`.
    #[allow(unsafe_code)]
    fn refused(compiled: &[u8], numbers: std::ops::Range<u8>, asks: impl Fn(u8) -> i64) -> Vec<u8> {
        let mut program = seccomp::instructions(compiled);
        let filter =
            libc::sock_fprog { len: u16::try_from(program.len()).unwrap(), filter: program.as_mut_ptr() };
        let (reading, writing) = rustix::pipe::pipe().unwrap();
        // SAFETY: the child makes system calls on numbers and on what was made before it, and ends.
        unsafe {
            if libc::fork() == 0 {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                libc::syscall(libc::SYS_seccomp, 1, 0, &raw const filter);
                for number in numbers {
                    if asks(number) < 0 && *libc::__errno_location() == libc::EPERM {
                        libc::write(writing.as_raw_fd(), (&raw const number).cast(), 1);
                    }
                }
                libc::_exit(0);
            }
        }
        drop(writing);
        let mut refused = Vec::new();
        io::Read::read_to_end(&mut fs::File::from(reading), &mut refused).unwrap();
        refused
    }

    #[allow(unsafe_code)]
    fn refused_families() -> Vec<i32> {
        // SAFETY: plain numbers.
        let make = |family: u8| unsafe { libc::socket(family.into(), libc::SOCK_DGRAM, 0) }.into();
        refused(COMPILED, 0..64, make).into_iter().map(i32::from).collect()
    }

    #[test]
    #[allow(unsafe_code)]
    fn files_that_change_their_user_or_group_are_made_only_where_no_folder_of_the_host_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| std::ffi::CString::new(folder.path().join(name).to_str().unwrap()).unwrap();
        let (file, new, other) = (path("file"), path("new"), path("other"));
        fs::write(folder.path().join("file"), "").unwrap();
        let create = libc::O_CREAT | libc::O_RDWR;
        // SAFETY: system calls on numbers and on C strings that outlive them.
        let asks = |number: u8| unsafe {
            match number {
                0 => libc::chmod(file.as_ptr(), 0o755).into(),
                1 => libc::open(new.as_ptr(), create, 0o755).into(),
                // Nothing is made, so that its mode says nothing.
                2 => libc::open(file.as_ptr(), libc::O_RDONLY, 0o6777).into(),
                3 => libc::chmod(file.as_ptr(), 0o2775).into(),
                4 => libc::chmod(file.as_ptr(), 0o4755).into(),
                5 => libc::fchmodat(libc::AT_FDCWD, file.as_ptr(), 0o4755, 0).into(),
                6 => libc::open(other.as_ptr(), create, 0o4755).into(),
                7 => libc::syscall(libc::SYS_openat, libc::AT_FDCWD, other.as_ptr(), create, 0o2755),
                _ => libc::mknod(other.as_ptr(), libc::S_IFREG | 0o4755, 0).into(),
            }
        };
        assert_eq!(refused(WITH_FOLDERS, 0..9, asks), [3, 4, 5, 6, 7, 8]);
        assert!(refused(COMPILED, 0..8, asks).is_empty());
    }

    #[test]
    fn sockets_are_made_of_the_usual_families_alone() {
        let refused = refused_families();
        for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK] {
            assert!(!refused.contains(&family), "{family}");
        }
        for family in
            [libc::AF_VSOCK, libc::AF_XDP, libc::AF_ALG, libc::AF_BLUETOOTH, libc::AF_CAN, libc::AF_TIPC]
        {
            assert!(refused.contains(&family), "{family}");
        }
    }
}
