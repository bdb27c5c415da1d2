//! Folders in memory, as a program is given its secrets: nothing of them is on a disk, and they are gone with the last who has them open.

use std::io;
use std::os::fd::OwnedFd;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

/// Makes a folder that only this user of the machine's reads and writes, of so many bytes. It has no place: whoever is given the
/// descriptor has it. Root alone can do that.
///
/// # Errors
/// The kernel doesn't make it.
pub(super) fn folder(bytes: u64, user: u32) -> io::Result<OwnedFd> {
    let make = || {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (name, value) in [
            ("size", bytes.to_string()),
            ("nr_inodes", "1024".to_owned()),
            ("mode", "0700".to_owned()),
            ("uid", user.to_string()),
            ("gid", user.to_string()),
        ] {
            fsconfig_set_string(&context, name, &*value)?;
        }
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().map_err(|error: rustix::io::Errno| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("a folder in memory can't be made: {error}"))
    })
}
