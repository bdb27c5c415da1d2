//! What this machine's kernel has to confine a process with, beside namespaces and control groups: seccomp, AppArmor, SELinux.
//!
//! Seccomp filters are this program's own. AppArmor and SELinux apply what an administrator has loaded: a virtual machine
//! monitor gets the AppArmor profile [`PROFILE`] where there is one (apparmor(7), `aa_change_onexec`). SELinux decides by
//! the label of the process that starts it, as its policy says; there is none of Vimana's.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// The AppArmor profile that a virtual machine monitor gets where it is loaded.
pub const PROFILE: &str = "vimana-monitor";

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Confinement {
    /// Whether the kernel filters system calls.
    pub seccomp: bool,
    /// AppArmor.
    pub apparmor: AppArmor,
    /// Whether SELinux is on and enforces.
    pub selinux: bool,
}

/// What there is of AppArmor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AppArmor {
    /// It isn't in this kernel, or is off.
    Off,
    /// It is on, and has no profile of the name [`PROFILE`], or this user can't see whether it has.
    NoProfile,
    /// The profile is loaded, and enforced.
    Profile,
}

impl Confinement {
    /// Looks.
    pub fn here() -> Self {
        Self::below(Path::new("/"))
    }

    fn below(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let is_on = read("sys/module/apparmor/parameters/enabled").trim() == "Y";
        let wanted = format!("{PROFILE} (enforce)");
        let has_profile = read("sys/kernel/security/apparmor/profiles").lines().any(|line| line == wanted);
        Self {
            seccomp: read("proc/sys/kernel/seccomp/actions_avail").contains("errno"),
            apparmor: match (is_on, has_profile) {
                (false, _) => AppArmor::Off,
                (true, false) => AppArmor::NoProfile,
                (true, true) => AppArmor::Profile,
            },
            selinux: read("sys/fs/selinux/enforce").trim() == "1",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_its_modules_is_understood() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let found = || Confinement::below(root.path());
        assert_eq!(found(), Confinement { seccomp: false, apparmor: AppArmor::Off, selinux: false });
        write(
            "proc/sys/kernel/seccomp/actions_avail",
            "kill_process kill_thread trap errno trace log allow\n",
        );
        write("sys/module/apparmor/parameters/enabled", "Y\n");
        write("sys/kernel/security/apparmor/profiles", "vimana-monitor (complain)\nman_groff (enforce)\n");
        write("sys/fs/selinux/enforce", "0");
        assert_eq!(found(), Confinement { seccomp: true, apparmor: AppArmor::NoProfile, selinux: false });
        write("sys/kernel/security/apparmor/profiles", "man_groff (enforce)\nvimana-monitor (enforce)\n");
        write("sys/fs/selinux/enforce", "1");
        assert_eq!(found(), Confinement { seccomp: true, apparmor: AppArmor::Profile, selinux: true });
    }
}
