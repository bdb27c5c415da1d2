//! User namespaces, and mounts that show a tree's owners as a container's.
//!
//! The trees of images and volumes belong to the ids that they name, from 0 on. The ids of root's containers are high ones
//! of the host ([`Ids::High`]). An idmapped mount (mount_setattr(2), Linux 5.12; under an overlay 5.19) shows the one as the other,
//! so that one tree on disk serves every container and no owner is ever changed. A user's containers need none: they are made
//! where the user is root.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::config::IDS;
use super::ids::Ids;
use crate::mount_attributes::{self, Attributes, IDMAP, NODEV, NOSUID, RDONLY};

/// Makes a user namespace; `set` gives it its ids, by the number of a process in it.
///
/// # Errors
/// The kernel has no user namespaces, or no more of them; or the ids can't be set.
pub(super) fn user_namespace(set: impl FnOnce(i32) -> io::Result<()>) -> io::Result<OwnedFd> {
    let set = |child| set(child).and_then(|()| open_namespace(child, "user"));
    with_child(libc::CLONE_NEWUSER, None, set, || 0).map(|(namespace, _)| namespace)
}

/// Finds out whether the caller can make a user namespace and may do in it what root may: there are systems that allow the
/// one without the other.
pub(super) fn try_user_namespace() -> io::Result<()> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let probe = || {
        // SAFETY: the call takes plain numbers and changes nothing but this process, which ends.
        #[allow(unsafe_code)]
        let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
        if result == 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap_or(libc::EPERM) }
    };
    match with_child(libc::CLONE_NEWUSER, None, |child| write_maps(child, user, group, 1), probe)? {
        ((), 0) => Ok(()),
        ((), code) => Err(io::Error::from_raw_os_error(code)),
    }
}

/// The namespaces of a container that are made before it.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// Its ids.
    pub(super) user: OwnedFd,
    /// Its network, if it has one. A user may not look for it in a process that is hidden from tracing, as the runtime's
    /// are.
    pub(super) network: Option<OwnedFd>,
}

/// Makes the namespaces of a container. What the kernel counts for the user who made them (inotify's watches, message queues,
/// pending signals, further namespaces) is counted for root's containers each under its own first id, not for the host's root. The
/// ids of a user's are within those that the calling process is root of, and the
/// same.
pub(super) fn container_namespaces(ids: Ids, network: bool) -> io::Result<Namespaces> {
    let flags = libc::CLONE_NEWUSER | if network { libc::CLONE_NEWNET } else { 0 };
    let set = |child| {
        match ids {
            Ids::High { first } => write_maps(child, first, first, IDS)?,
            Ids::One => write_maps(child, 0, 0, 1)?,
            Ids::Range { .. } => {
                // The kernel takes no range that lies in two of the outer namespace.
                let same = format!("0 0 1\n1 1 {}\n", IDS.saturating_sub(1));
                fs::write(format!("/proc/{child}/gid_map"), &same)?;
                fs::write(format!("/proc/{child}/uid_map"), &same)?;
            }
        }
        let network = if network { Some(open_namespace(child, "net")?) } else { None };
        Ok(Namespaces { user: open_namespace(child, "user")?, network })
    };
    let owner = if let Ids::High { first } = ids { Some(first) } else { None };
    let made = with_child(flags, owner, set, || 0).or_else(|error| match owner {
        // Some machines let nobody but root make them: counted for the host's root is better than not at all.
        Some(_) if error.kind() == io::ErrorKind::PermissionDenied => with_child(flags, None, set, || 0),
        _ => Err(error),
    });
    made.map(|(namespaces, _)| namespaces)
}

fn open_namespace(child: i32, kind: &str) -> io::Result<OwnedFd> {
    Ok(OwnedFd::from(fs::File::open(format!("/proc/{child}/ns/{kind}"))?))
}

/// Forks a process into new namespaces, which belong to `owner` or, without one, to the caller; lets `set` work on it by its number, and then the process run `probe`, whose number
/// comes back. The process copies one of many threads: `probe` must make nothing but system calls.
#[allow(unsafe_code)]
fn with_child<T>(
    namespaces: libc::c_int,
    owner: Option<u32>,
    set: impl FnOnce(i32) -> io::Result<T>,
    probe: impl FnOnce() -> i32,
) -> io::Result<(T, i32)> {
    let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (hears, told) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let flags = libc::c_long::from(libc::SIGCHLD | if owner.is_none() { namespaces } else { 0 });
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: without CLONE_VM this is a fork; the child makes system calls on plain numbers and ends.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, 0) };
    if child == 0 {
        let mut byte = 0_u8;
        // SAFETY: the buffer is one byte of this function's own, the rest are numbers; the process ends without running anybody's destructors.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::close(writing.as_raw_fd());
            if let Some(owner) = owner {
                if !become_owner(owner) || libc::unshare(namespaces) != 0 {
                    libc::_exit(libc::EPERM)
                }
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            }
            libc::write(told.as_raw_fd(), (&raw const byte).cast(), 1);
            libc::read(reading.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::_exit(probe())
        }
    }
    let child = i32::try_from(child).ok().filter(|pid| *pid > 0).ok_or_else(io::Error::last_os_error)?;
    drop(told);
    // It is where it belongs, or has ended.
    let is_there =
        rustix::io::retry_on_intr(|| rustix::io::read(&hears, &mut [0; 1])).is_ok_and(|got| got > 0);
    let set = if is_there { set(child) } else { Err(io::ErrorKind::PermissionDenied.into()) };
    // Not by closing it: a process that another thread has forked meanwhile may have the same end open, and be waiting too.
    let _ = rustix::io::write(&writing, &[0]);
    let child = rustix::process::Pid::from_raw(child);
    let wait = || rustix::process::waitpid(child, rustix::process::WaitOptions::empty());
    let ended = rustix::io::retry_on_intr(wait)?;
    let code = ended.and_then(|(_, status)| status.exit_status()).unwrap_or(libc::EPERM);
    set.map(|set| (set, code))
}

/// Makes the calling process, which is root and has one thread, another user who keeps root's capabilities: there are machines
/// that let nobody without them make a user namespace.
#[allow(unsafe_code)]
fn become_owner(owner: u32) -> bool {
    /// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`.
    const VERSION_3: u32 = 0x2008_0522;
    let mut header = [VERSION_3, 0];
    // Effective, permitted, inheritable; twice.
    let mut sets = [0_u32; 6];
    // SAFETY: header and sets have the form that version 3 asks for, and outlive the calls.
    unsafe {
        let kept = libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_setresuid, owner, owner, owner) == 0
            && libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) == 0;
        (sets[0], sets[3]) = (sets[1], sets[4]);
        kept && libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) == 0
    }
}

/// Gives the user namespace of a process the ids 0 to `count`, which are the caller's from `user` and `group` on.
pub(super) fn write_maps(child: i32, user: u32, group: u32, count: u32) -> io::Result<()> {
    if count == 1 {
        // The kernel demands it of whoever has no privileges; where it is so already it can't be said again.
        match fs::write(format!("/proc/{child}/setgroups"), "deny") {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    fs::write(format!("/proc/{child}/gid_map"), format!("0 {group} {count}\n"))?;
    fs::write(format!("/proc/{child}/uid_map"), format!("0 {user} {count}\n"))
}

/// What a mount that is taken from the host may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// As a layer under an overlay.
    Layer,
    /// By the workload, writing.
    Write,
    /// By the workload, reading.
    Read,
}

/// Takes a tree of the host as a mount that hangs nowhere yet, with its owners as the namespace has them.
pub(super) fn take(tree: &Path, namespace: Option<&OwnedFd>, used: Use) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if used != Use::Layer {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let mount = rustix::mount::open_tree(CWD, tree, flags)?;
    dress(&mount, namespace, used)?;
    Ok(mount)
}

/// Gives a mount that hangs nowhere yet its owners and its limits.
pub(super) fn dress(mount: &OwnedFd, namespace: Option<&OwnedFd>, used: Use) -> io::Result<()> {
    let mut set = match used {
        Use::Layer => RDONLY | NODEV,
        Use::Write => NOSUID | NODEV,
        Use::Read => NOSUID | NODEV | RDONLY,
    };
    if namespace.is_some() {
        set |= IDMAP;
    }
    set_attributes(mount, set, namespace, used != Use::Layer)
}

fn set_attributes(mount: &OwnedFd, set: u64, namespace: Option<&OwnedFd>, recursive: bool) -> io::Result<()> {
    let namespace = namespace.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs()));
    let propagation = u64::from(libc::MS_PRIVATE as u32);
    let attributes = Attributes { set, propagation, namespace, ..Attributes::default() };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    mount_attributes::set(mount.as_raw_fd(), c"", flags, &attributes)
}

/// Hangs a mount at a path.
pub(super) fn hang(mount: &OwnedFd, at: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", CWD, at, flags)?)
}

/// Mounts a file with an ext4 file system (its own or ext2's), without a place yet. The loop device is the kernel's to
/// free when the last mount of it is gone, however that comes.
pub(super) fn mount_disk(file: &Path, readonly: bool) -> io::Result<OwnedFd> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let (device, _open) = attach_loop(file, readonly)?;
    let context = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let device = CString::new(device.as_os_str().as_bytes())?;
    rustix::mount::fsconfig_set_string(&context, "source", &*device)?;
    if readonly {
        rustix::mount::fsconfig_set_flag(&context, "ro")?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOATIME;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Makes a file system in memory of at most so many bytes, without a place yet.
pub(super) fn mount_memory(bytes: u64) -> io::Result<OwnedFd> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "size", CString::new(bytes.to_string())?)?;
    rustix::mount::fsconfig_set_string(&context, "mode", c"755")?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Finds a free loop device and sets it on the file (`linux/loop.h`); it is free again when nobody has it open.
#[allow(unsafe_code)]
fn attach_loop(file: &Path, readonly: bool) -> io::Result<(std::path::PathBuf, fs::File)> {
    const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
    const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
    const LO_FLAGS_READ_ONLY: u32 = 1;
    const LO_FLAGS_AUTOCLEAR: u32 = 4;
    /// `struct loop_config`, whose `struct loop_info64` begins after 8 bytes and has its flags at 52.
    const CONFIG_BYTES: usize = 304;
    const FLAGS_AT: usize = 8 + 52;
    const TRIES: usize = 50;

    let backing = fs::OpenOptions::new().read(true).write(!readonly).open(file)?;
    let control = fs::OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    let mut config = [0_u8; CONFIG_BYTES];
    config[..4].copy_from_slice(&backing.as_raw_fd().to_ne_bytes());
    config[4..8].copy_from_slice(&4096_u32.to_ne_bytes());
    let flags = LO_FLAGS_AUTOCLEAR | if readonly { LO_FLAGS_READ_ONLY } else { 0 };
    config[FLAGS_AT..FLAGS_AT + 4].copy_from_slice(&flags.to_ne_bytes());
    let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
    for _ in 0..TRIES {
        // SAFETY: this request takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let device = std::path::PathBuf::from(format!("/dev/loop{number}"));
        let open = fs::OpenOptions::new().read(true).write(!readonly).open(&device)?;
        // SAFETY: the buffer has the size of `struct loop_config` and holds nothing but numbers.
        if unsafe { libc::ioctl(open.as_raw_fd(), LOOP_CONFIGURE, config.as_ptr()) } == 0 {
            return Ok((device, open));
        }
        // Somebody else was faster; the next number is free.
        last = io::Error::last_os_error();
        if last.raw_os_error() != Some(libc::EBUSY) {
            return Err(last);
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code)]
    fn the_namespaces_of_root_s_containers_belong_to_their_own_first_id() {
        /// `NS_GET_OWNER_UID` of `linux/nsfs.h`.
        const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;
        if !rustix::process::geteuid().is_root() {
            let _ = io::Write::write_all(
                &mut io::stderr(),
                b"SKIPPED: the_namespaces_of_root_s_containers_belong_to_their_own_first_id: needs root\n",
            );
            return;
        }
        let made = container_namespaces(Ids::High { first: crate::jail::FIRST_ID }, true).unwrap();
        let mut owner = 0_u32;
        // SAFETY: the request writes one number of 32 bits.
        let asked = unsafe { libc::ioctl(made.user.as_raw_fd(), NS_GET_OWNER_UID, &raw mut owner) };
        assert_eq!((asked, owner), (0, crate::jail::FIRST_ID));
        assert!(made.network.is_some());
    }
}
