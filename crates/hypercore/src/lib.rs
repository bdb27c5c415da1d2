//! One interface over every hypervisor driver.
//!
//! A driver gives one isolation on this machine. What it speaks is workloads ([`driver::Driver::prepare`],
//! [`driver::Driver::start`], pause, resume, observe, stop), never registers or one backend's options.

pub mod cgroup;
pub mod confinement;
pub mod doctor;
pub mod driver;
mod frames;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod guest;
pub mod initramfs;
pub mod jail;
pub mod kernel;
pub mod kvm;
mod mount_attributes;
pub mod network;
pub mod passt;
pub mod remove;
pub mod routed;
pub mod scratch;
mod seccomp;
pub mod spawn;
pub mod tap;

/// The mode of what a program in a jail reads as a user of its own. The folders above it are this user's alone.
fn readable_by_all() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    std::fs::Permissions::from_mode(0o644)
}

/// Makes a folder, and those above it that lack, for this user alone: what is booted from must not be another user's to
/// change, whatever the process' file mode mask says.
fn private_folder(path: impl AsRef<std::path::Path>) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
