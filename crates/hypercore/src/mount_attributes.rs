//! The attributes of mounts (mount_setattr(2), Linux 5.12), for which the libraries have no call.

use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;

pub(crate) const RDONLY: u64 = 0x1;
pub(crate) const NOSUID: u64 = 0x2;
pub(crate) const NODEV: u64 = 0x4;
pub(crate) const NOEXEC: u64 = 0x8;
pub(crate) const IDMAP: u64 = 0x10_0000;

/// `struct mount_attr` of `linux/mount.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Attributes {
    /// Those to set.
    pub(crate) set: u64,
    /// Those to take away.
    pub(crate) clear: u64,
    /// How mounts spread from it and to it; 0 leaves that as it is.
    pub(crate) propagation: u64,
    /// The user namespace whose ids it shows, as a descriptor; needed with [`IDMAP`].
    pub(crate) namespace: u64,
}

/// Sets the attributes of a mount, as openat2(2) would find it. Needs no memory, so that it may be called in a child that was just
/// forked.
///
/// # Errors
/// The kernel's.
#[allow(unsafe_code)]
pub(crate) fn set(folder: RawFd, path: &CStr, flags: libc::c_int, attributes: &Attributes) -> io::Result<()> {
    // SAFETY: the structure has the size that is named and, like the path, outlives the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            folder,
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<Attributes>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
