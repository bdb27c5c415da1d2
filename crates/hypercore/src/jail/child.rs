//! What the child does between its clone and its program: system calls on what was prepared, and nothing that needs memory.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::is_device;
use crate::mount_attributes::{self, Attributes, NODEV, NOEXEC, NOSUID, RDONLY};

/// Where the new root is built: a folder that every machine has and that nothing which is shown lies in.
const BUILT_AT: &CStr = c"/proc";
/// How much the folders of the root may take.
const ROOT_OPTIONS: &CStr = c"mode=0755,size=1m,nr_inodes=1024";

/// A step that failed, and the kernel's reason.
pub(crate) type Failed = (Step, i32);

macro_rules! steps {
    ($($step:ident $words:literal)*) => {
        /// What the child does, in this order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Step { $($step),* }

        impl Step {
            const ALL: &'static [Self] = &[$(Self::$step),*];

            /// What it is, for people.
            pub(crate) fn words(self) -> &'static str {
                match self { $(Self::$step => $words),* }
            }
        }
    };
}

steps! {
    Parent "waiting for its parent"
    Session "beginning a session"
    Descriptors "placing its open files"
    Score "setting its OOM score"
    Profile "setting its AppArmor profile"
    HostName "setting a host name"
    Private "making its mounts private"
    NewRoot "mounting its root"
    Place "making a place in its root"
    Show "showing a file in its root"
    Close "making its root read-only"
    Pivot "changing to its root"
    Limit "setting a limit"
    Groups "changing its groups"
    User "changing its user"
    Capabilities "dropping its capabilities"
    NoNewPrivileges "giving up new privileges"
    DeathSignal "tying its life to its parent's"
    Landlock "restricting its files"
    Filter "restricting its system calls"
    Execute "executing it"
}

impl Step {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// A root that is to be built.
#[derive(Debug, Default)]
pub(crate) struct Root {
    /// Folders, each after the one that it lies in.
    folders: Vec<CString>,
    /// Empty files, over which others are shown.
    files: Vec<CString>,
    /// What is shown, where, and with which attributes.
    shown: Vec<(CString, CString, u64)>,
    /// Where the file system of its own processes is mounted.
    proc: Option<CString>,
}

impl Root {
    pub(super) fn with_proc(proc: bool) -> io::Result<Self> {
        let mut root = Self::default();
        if proc {
            let at = CString::new([BUILT_AT.to_bytes(), b"/proc"].concat())?;
            root.folder(at.clone());
            root.proc = Some(at);
        }
        Ok(root)
    }

    pub(super) fn add(&mut self, source: &CStr, path: &Path, status: &fs::Metadata) -> io::Result<()> {
        if !path.is_absolute() {
            return Err(io::Error::other(format!("{}: not an absolute path", path.display())));
        }
        let place = |path: &Path| -> io::Result<CString> {
            let path = [BUILT_AT.to_bytes(), path.as_os_str().as_bytes()].concat();
            Ok(CString::new(path)?)
        };
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.pop();
        for folder in above.into_iter().rev() {
            self.folder(place(folder)?);
        }
        let target = place(path)?;
        if status.is_dir() {
            self.folder(target.clone());
        } else {
            self.files.push(target.clone());
        }
        let attributes = match is_device(status) {
            true => NOSUID | NOEXEC,
            false => RDONLY | NOSUID | NODEV,
        };
        self.shown.push((source.to_owned(), target, attributes));
        Ok(())
    }

    fn folder(&mut self, folder: CString) {
        if !self.folders.contains(&folder) {
            self.folders.push(folder);
        }
    }
}

/// Everything that the child needs to confine itself.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(super) flags: libc::c_int,
    pub(super) root: Option<Root>,
    pub(super) user: Option<u32>,
    pub(super) groups: Vec<u32>,
    pub(super) landlock: Option<OwnedFd>,
    pub(super) filter: Option<Vec<libc::sock_filter>>,
    pub(super) limits: Vec<(u32, u64)>,
    pub(super) drops: bool,
    /// How early the kernel ends it for want of memory, as a number in digits.
    pub(super) oom_score: Vec<u8>,
    /// What the kernel is told of the AppArmor profile.
    pub(super) profile: Option<Vec<u8>>,
}

impl Ready {
    /// The namespaces that the clone makes.
    pub(crate) fn flags(&self) -> libc::c_int {
        self.flags
    }

    /// Whether the parent must say who the child is in its user namespace.
    pub(crate) fn is_mapped(&self) -> bool {
        self.flags & libc::CLONE_NEWUSER != 0
    }

    /// Builds the root, sets limits and user. Nothing that the program may do is refused yet.
    pub(crate) fn enter(&self) -> Result<(), Failed> {
        write(Step::Score, c"/proc/self/oom_score_adj", &self.oom_score)?;
        if let Some(profile) = &self.profile {
            // While there is a `/proc`. It has effect at the execution.
            write(Step::Profile, c"/proc/self/attr/exec", profile)?;
        }
        if self.flags & libc::CLONE_NEWUTS != 0 {
            name_host()?;
        }
        if let Some(root) = &self.root {
            build(root)?;
        }
        for (resource, most) in &self.limits {
            limit(*resource, *most)?;
        }
        if self.drops {
            // While this may still be done: root that has become another user may not any more.
            empty_bounding_set();
        }
        if let Some(user) = self.user {
            become_user(user, &self.groups)?;
        }
        if self.drops {
            drop_capabilities()?;
        }
        Ok(())
    }

    /// Takes away what is left but for what the program needs. The last before it.
    pub(crate) fn lock(&self) -> Result<(), Failed> {
        give_up_new_privileges()?;
        if let Some(ruleset) = &self.landlock {
            restrict(ruleset.as_raw_fd())?;
        }
        match &self.filter {
            Some(filter) => install(filter),
            None => Ok(()),
        }
    }
}

/// The number of the last system call's error.
pub(crate) fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn check(step: Step, answer: libc::c_long) -> Result<(), Failed> {
    if answer < 0 { Err((step, last_error())) } else { Ok(()) }
}

#[allow(unsafe_code)]
fn write(step: Step, path: &CStr, bytes: &[u8]) -> Result<(), Failed> {
    // SAFETY: a path and bytes that outlive the calls, and a descriptor that this function opened.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        check(step, file.into())?;
        let written = libc::write(file, bytes.as_ptr().cast(), bytes.len());
        check(step, written as libc::c_long)?;
        libc::close(file);
    }
    Ok(())
}

#[allow(unsafe_code)]
fn name_host() -> Result<(), Failed> {
    const NAME: &[u8] = b"vimana";
    // SAFETY: the name is a constant of the length that is told.
    check(Step::HostName, unsafe { libc::sethostname(NAME.as_ptr().cast(), NAME.len()) }.into())
}

#[allow(unsafe_code)]
fn build(root: &Root) -> Result<(), Failed> {
    let none = std::ptr::null();
    let point = BUILT_AT.as_ptr();
    // SAFETY: all paths and options are C strings that outlive the calls.
    unsafe {
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(Step::Private, libc::mount(none, c"/".as_ptr(), none, private, none.cast()).into())?;
        let flags = libc::MS_NOSUID | libc::MS_NOEXEC;
        let options = ROOT_OPTIONS.as_ptr().cast();
        let kind = c"tmpfs".as_ptr();
        check(Step::NewRoot, libc::mount(c"jail".as_ptr(), point, kind, flags, options).into())?;
        for folder in &root.folders {
            check(Step::Place, libc::mkdir(folder.as_ptr(), 0o755).into())?;
        }
        for file in &root.files {
            let made = libc::open(file.as_ptr(), libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC, 0o444);
            check(Step::Place, made.into())?;
            libc::close(made);
        }
        for (source, target, attributes) in &root.shown {
            let shown = libc::mount(source.as_ptr(), target.as_ptr(), none, libc::MS_BIND, none.cast());
            check(Step::Show, shown.into())?;
            set_attributes(Step::Show, target, *attributes)?;
        }
        if let Some(at) = &root.proc {
            let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            let kind = c"proc".as_ptr();
            check(Step::Show, libc::mount(kind, at.as_ptr(), kind, flags, none.cast()).into())?;
        }
        set_attributes(Step::Close, BUILT_AT, RDONLY | NOSUID | NOEXEC)?;
        check(Step::Pivot, libc::chdir(point).into())?;
        // The old root lies under the new one for a moment: pivot_root(2) says so.
        check(Step::Pivot, libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        check(Step::Pivot, libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into())?;
        check(Step::Pivot, libc::chdir(c"/".as_ptr()).into())
    }
}

fn set_attributes(step: Step, at: &CStr, set: u64) -> Result<(), Failed> {
    let attributes = Attributes { set, ..Attributes::default() };
    mount_attributes::set(libc::AT_FDCWD, at, 0, &attributes).map_err(|_| (step, last_error()))
}

#[allow(unsafe_code)]
fn limit(resource: u32, most: u64) -> Result<(), Failed> {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the structure outlives the call.
    check(Step::Limit, unsafe { libc::setrlimit(resource, &raw const limit) }.into())
}

#[allow(unsafe_code)]
fn become_user(user: u32, groups: &[u32]) -> Result<(), Failed> {
    // Straight to the kernel: the library's functions tell other threads, of which there are none here.
    // SAFETY: the groups outlive the call; the rest are numbers.
    unsafe {
        check(Step::Groups, libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(Step::Groups, libc::syscall(libc::SYS_setresgid, user, user, user))?;
        check(Step::User, libc::syscall(libc::SYS_setresuid, user, user, user))
    }
}

/// No program that this process executes can have a capability again.
#[allow(unsafe_code)]
fn empty_bounding_set() {
    for capability in 0..64 {
        // SAFETY: plain numbers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } < 0 {
            // The kernel has no more of them; or the caller isn't root, who has none to lose.
            break;
        }
    }
}

#[allow(unsafe_code)]
fn drop_capabilities() -> Result<(), Failed> {
    /// `struct __user_cap_header_struct` of `linux/capability.h`.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [0_u32; 6];
    // SAFETY: header and data have the form that version 3 asks for.
    unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        check(Step::Capabilities, libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()))
    }
}

#[allow(unsafe_code)]
fn give_up_new_privileges() -> Result<(), Failed> {
    // SAFETY: plain numbers.
    check(Step::NoNewPrivileges, unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())
}

#[allow(unsafe_code)]
fn restrict(ruleset: RawFd) -> Result<(), Failed> {
    // SAFETY: plain numbers.
    check(Step::Landlock, unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) })
}

#[allow(unsafe_code)]
fn install(filter: &[libc::sock_filter]) -> Result<(), Failed> {
    const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
    let length = u16::try_from(filter.len()).map_err(|_| (Step::Filter, libc::E2BIG))?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program and its instructions outlive the call, which only reads them.
    check(Step::Filter, unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    })
}

/// Says whether this user may make the namespaces of a jail, by making them in a process that ends at once.
#[allow(unsafe_code)]
pub(super) fn try_user_namespace() -> Result<(), i32> {
    let flags =
        libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::SIGCHLD;
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: without CLONE_VM this is a fork; the child ends without running anybody's destructors.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), none, none, none, 0) };
    if child == 0 {
        // SAFETY: ends this process.
        unsafe { libc::_exit(0) };
    }
    if child < 0 {
        return Err(last_error());
    }
    let child = i32::try_from(child).ok().and_then(rustix::process::Pid::from_raw);
    let _ = rustix::process::waitpid(child, rustix::process::WaitOptions::empty());
    Ok(())
}
