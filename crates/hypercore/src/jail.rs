//! The jail: what a program of the host is confined to before its first instruction.
//!
//! It is the second line of defence. A virtual machine monitor stands between a workload and the host; should the workload
//! take it over, what it finds around itself is this:
//!
//! | | of root | of another user |
//! |---|---|---|
//! | who it is | a user of its own ([`Ids`]), in no group but those of its devices | the user |
//! | what it sees | a root of its own, read-only, with its program, libraries and images | the same |
//! | whom it sees | nobody: own process, network, IPC, host name and mount namespaces | the same |
//! | what it may | no capability, and no way to gain one (`no_new_privs`) | the same |
//! | what it asks of the kernel | the system calls of `jail/filter.rs` | the same |
//! | which files it opens | those of its root, to read (Landlock, where the kernel has it) | the same |
//! | how much it takes | open files, processes, sizes of files; it dies before others when memory is short | the same, without the processes |
//! | what it takes in all | processors, memory, threads: a control group of its own ([`Group`]) | the same, where one is handed on to the user |
//!
//! Another user's jail is built in a user namespace. Where the machine forbids that to its users, what is left is
//! `no_new_privs`, the filter, Landlock and the limits: see [`Strength`].
//!
//! ```text
//!  keeper --clone--> namespaces -> mounts, pivot_root -> limits -> user -> Landlock -> seccomp -> execve
//!     |--control group, meanwhile-------------------------------------->|                  |
//!     |<--------------- the step that failed, or nothing ----------------------------------|
//! ```
//!
//! Everything that needs memory is made before the clone; the child makes system calls alone. Disks and sockets are handed
//! over as open descriptors, so that the program needs no right to any path of them.

mod child;
mod closure;
// Only `build.rs` needs it; here it is tested.
#[cfg(test)]
mod filter;
mod ids;

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use landlock::{
    Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
};
use landlock::{RulesetCreatedAttr, Scope};

pub(crate) use self::child::{Failed, Ready, Step, last_error};
pub use self::closure::closure;
pub use self::ids::{FIRST_ID, IDS, Ids};
use crate::cgroup::Group;
use crate::driver::Accelerator;
use crate::driver::Class;
use crate::spawn::{self, Spawned};

/// A device that a program in a jail may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// `/dev/null`.
    Null,
    /// `/dev/urandom`.
    Urandom,
    /// `/dev/kvm`.
    Kvm,
}

impl Device {
    fn path(self) -> &'static Path {
        Path::new(match self {
            Self::Null => "/dev/null",
            Self::Urandom => "/dev/urandom",
            Self::Kvm => "/dev/kvm",
        })
    }
}

/// Which system calls a program may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Those of an emulator that translates.
    Emulator,
    /// Those of one that uses KVM.
    Kvm,
    /// Those of a process that runs Wasm programs: it opens, makes and removes files, in the folders that it is handed as open
    /// descriptors. It has a `/proc` of its own.
    Wasm,
    /// Those of one whose program has a network: sockets of TCP and UDP beside.
    WasmSockets,
}

impl Calls {
    /// Whether they are those of a process that runs Wasm programs.
    fn run_wasm(self) -> bool {
        match self {
            Self::Emulator | Self::Kvm => false,
            Self::Wasm | Self::WasmSockets => true,
        }
    }
}

impl From<Accelerator> for Calls {
    fn from(accelerator: Accelerator) -> Self {
        match accelerator {
            Accelerator::Tcg => Self::Emulator,
            Accelerator::Kvm => Self::Kvm,
        }
    }
}

/// A part of the jail. Each can be left out, which is for tests that show what it is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A user of its own, without capabilities.
    User,
    /// A root of its own.
    Root,
    /// A process namespace of its own.
    Processes,
    /// Network, IPC and host name namespaces of its own.
    Network,
    /// The filter of system calls.
    Filter,
    /// Landlock.
    Landlock,
    /// The limits of each process.
    Limits,
    /// The control group.
    Group,
}

/// What a program is confined to.
#[derive(Debug)]
pub struct Jail {
    /// Files and folders of the host that its root has, each at its own path, read-only.
    pub shown: Vec<PathBuf>,
    /// The devices that its root has.
    pub devices: Vec<Device>,
    /// The system calls that it may make.
    pub calls: Calls,
    /// The greatest size in bytes that it may give a file.
    pub file_bytes: u64,
    /// How many files it may have open.
    pub open_files: u64,
    /// How many threads it may have; nothing where the user isn't its own.
    pub threads: u64,
    /// The user that it becomes, for root.
    pub ids: Option<Ids>,
    /// The control group that it is put into before it begins; whoever made it removes it.
    pub group: Option<Group>,
    /// How early the kernel ends it when the machine is short of memory.
    pub class: Class,
    /// The AppArmor profile that it gets as it is executed, which must be loaded.
    pub profile: Option<&'static str>,
    /// What is left out.
    pub without: Vec<Part>,
}

/// How far a jail reaches on this machine, for this user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strength {
    /// Everything, with a user of its own.
    Full,
    /// Everything but a user of its own: in a user namespace.
    UserNamespace,
    /// No namespaces: the machine forbids user namespaces to its users, with this error's number.
    Bare(i32),
}

impl Strength {
    /// Finds out by trying.
    pub fn here() -> Self {
        match rustix::process::geteuid().is_root() {
            true => Self::Full,
            false => child::try_user_namespace().map_or_else(Self::Bare, |()| Self::UserNamespace),
        }
    }

    /// What it is, for people.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Full => "a user, a root folder and namespaces of its own, a filter of system calls",
            Self::UserNamespace => {
                "a root folder and namespaces of its own, a filter of system calls; the user is the one who starts it"
            }
            Self::Bare(_) => {
                "a filter of system calls and Landlock; this machine allows its users no namespaces"
            }
        }
    }
}

impl Jail {
    fn has(&self, part: Part) -> bool {
        !self.without.contains(&part)
    }

    /// Starts a program in it. `fds[i]` becomes its descriptor 100 + `i`; it has no other, and no environment. It dies with the
    /// thread that called this.
    ///
    /// # Errors
    /// The step that failed, and why.
    pub fn start(&self, program: &Path, args: &[OsString], fds: Vec<OwnedFd>) -> io::Result<Spawned> {
        spawn::spawn(program, args, fds, Some(self))
    }

    /// The control group that it is put into.
    pub(crate) fn control_group(&self) -> Option<&Group> {
        self.group.as_ref().filter(|_| self.has(Part::Group))
    }

    /// Makes everything that needs memory.
    pub(crate) fn ready(&self) -> io::Result<Ready> {
        let strength = Strength::here();
        let groups = self.groups()?;
        let user = match &self.ids {
            Some(ids) if self.has(Part::User) => Some(ids.first()),
            _ => None,
        };
        if user.is_some() {
            self.check_readable()?;
        }
        let namespaces = !matches!(strength, Strength::Bare(_));
        let root = (namespaces && self.has(Part::Root)).then(|| self.root()).transpose()?;
        Ok(Ready {
            flags: if namespaces { self.flags(&strength) } else { 0 },
            root,
            user,
            groups,
            landlock: if self.has(Part::Landlock) { self.landlock()? } else { None },
            filter: self.has(Part::Filter).then(|| compiled(self.calls)),
            limits: if self.has(Part::Limits) { self.limits(user.is_some()) } else { Vec::new() },
            drops: self.has(Part::User),
            oom_score: self.class.oom_score().to_string().into_bytes(),
            profile: self.profile.map(|name| format!("exec {name}").into_bytes()),
        })
    }

    fn flags(&self, strength: &Strength) -> libc::c_int {
        let mut flags = libc::CLONE_NEWNS;
        if *strength == Strength::UserNamespace {
            flags |= libc::CLONE_NEWUSER;
        }
        if self.has(Part::Processes) {
            flags |= libc::CLONE_NEWPID;
        }
        if self.has(Part::Network) {
            flags |= libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        }
        flags
    }

    /// The groups that its devices ask for: nobody else on the machine is let in for it.
    fn groups(&self) -> io::Result<Vec<u32>> {
        let mut groups = Vec::new();
        for device in &self.devices {
            let status = fs::metadata(device.path())?;
            if status.mode() & 0o006 != 0o006 && status.mode() & 0o060 == 0o060 {
                groups.push(status.gid());
            }
        }
        Ok(groups)
    }

    /// A user of its own can read only what everybody may.
    fn check_readable(&self) -> io::Result<()> {
        for path in &self.shown {
            let status = fs::metadata(path).map_err(|error| named(path, &error))?;
            let wanted = if status.is_dir() { 0o5 } else { 0o4 };
            if status.permissions().mode() & wanted != wanted {
                let reason = format!("{} can't be read by a user of its own: chmod o+r it", path.display());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
            }
        }
        Ok(())
    }

    fn root(&self) -> io::Result<child::Root> {
        let mut root = child::Root::with_proc(self.calls.run_wasm())?;
        let devices = self.devices.iter().map(|device| device.path());
        let mut paths: Vec<&Path> = self.shown.iter().map(PathBuf::as_path).chain(devices).collect();
        paths.sort_unstable();
        paths.dedup();
        let mut last_folder: Option<&Path> = None;
        for path in paths {
            // What a folder holds comes with it.
            if last_folder.is_some_and(|folder| path.starts_with(folder)) {
                continue;
            }
            let status = fs::metadata(path).map_err(|error| named(path, &error))?;
            root.add(&CString::new(path.as_os_str().as_bytes())?, path, &status)?;
            last_folder = if status.is_dir() { Some(path) } else { last_folder };
        }
        Ok(root)
    }

    fn landlock(&self) -> io::Result<Option<OwnedFd>> {
        let broken = |error: &dyn std::error::Error| io::Error::other(format!("Landlock: {error}"));
        let newest = landlock::ABI::V6;
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .scope(Scope::from_all(newest))
            .map_err(|error| broken(&error))?;
        if self.calls != Calls::WasmSockets {
            // Whom the program of that one reaches, its gateway decides.
            ruleset = ruleset.handle_access(AccessNet::from_all(newest)).map_err(|error| broken(&error))?;
        }
        if self.calls.run_wasm() {
            // It gets folders later, and Landlock would refuse what lies in them: a ruleset can't be widened.
            return Ok(ruleset.create().map_err(|error| broken(&error))?.into());
        }
        let ruleset = ruleset.handle_access(AccessFs::from_all(newest)).map_err(|error| broken(&error))?;
        let mut ruleset = ruleset.create().map_err(|error| broken(&error))?;
        for path in &self.shown {
            let is_folder = fs::metadata(path)?.is_dir();
            let file = AccessFs::ReadFile | AccessFs::Execute;
            let access = if is_folder { file | AccessFs::ReadDir } else { file };
            let beneath = PathBeneath::new(PathFd::new(path).map_err(|error| broken(&error))?, access);
            ruleset = ruleset.add_rule(beneath).map_err(|error| broken(&error))?;
        }
        for device in &self.devices {
            let access = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
            let beneath =
                PathBeneath::new(PathFd::new(device.path()).map_err(|error| broken(&error))?, access);
            ruleset = ruleset.add_rule(beneath).map_err(|error| broken(&error))?;
        }
        Ok(ruleset.into())
    }

    fn limits(&self, own_user: bool) -> Vec<(u32, u64)> {
        let mut limits = vec![
            (libc::RLIMIT_CORE, 0),
            (libc::RLIMIT_NOFILE, self.open_files),
            // What it says on standard error goes to a file too: at its limit a word too many would kill it.
            (libc::RLIMIT_FSIZE, self.file_bytes.max(spawn::STDERR_KEPT)),
            (libc::RLIMIT_MSGQUEUE, 0),
        ];
        if own_user {
            limits.push((libc::RLIMIT_NPROC, self.threads));
        }
        // Not every root may raise what it has been held to itself.
        limits.into_iter().map(|(resource, most)| (resource, most.min(highest(resource)))).collect()
    }
}

/// The filter as the kernel takes it, which `build.rs` has compiled.
fn compiled(calls: Calls) -> Vec<libc::sock_filter> {
    crate::seccomp::instructions(match calls {
        Calls::Emulator => include_bytes!(concat!(env!("OUT_DIR"), "/emulator.bpf")),
        Calls::Kvm => include_bytes!(concat!(env!("OUT_DIR"), "/kvm.bpf")),
        Calls::Wasm => include_bytes!(concat!(env!("OUT_DIR"), "/wasm.bpf")),
        Calls::WasmSockets => include_bytes!(concat!(env!("OUT_DIR"), "/wasm-sockets.bpf")),
    })
}

/// The highest limit that this process may set.
#[allow(unsafe_code)]
fn highest(resource: u32) -> u64 {
    let mut own = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure outlives the call.
    unsafe { libc::getrlimit(resource, &raw mut own) };
    own.rlim_max
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// What kind of thing a path is, for the place that it gets.
fn is_device(status: &fs::Metadata) -> bool {
    status.file_type().is_char_device()
}
