//! What this machine can isolate with, what it can't, why, and what would mend it.
//!
//! [`examine`] looks; everything that it found is in the [`Report`], and what a person should do stands with it. It changes
//! nothing but the cache of the KVM probe, and takes less than a second.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::confinement::{AppArmor, Confinement, PROFILE};
use crate::driver::qemu::Qemu;
use crate::driver::{Accelerator, container};
use crate::jail::Strength;
use crate::kernel::{KernelStore, Origin, choose};
use crate::routed::{self, Unusable};
use crate::{cgroup, kvm, spawn};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The version of this report's form.
    pub version: u32,
    /// Every isolation, with every accelerator that it can have.
    pub isolations: Vec<Isolation>,
    /// What the isolations stand on.
    pub findings: Vec<Finding>,
    /// What this version doesn't do yet, so that nobody trusts in it too early.
    pub not_yet: Vec<&'static str>,
}

impl Report {
    /// Whether there is an isolation that works.
    pub fn usable(&self) -> bool {
        self.isolations.iter().any(|isolation| isolation.missing.is_empty())
    }
}

/// One isolation with one driver and accelerator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Isolation {
    /// `MicroVM`, `Container`, ...
    pub kind: &'static str,
    /// The driver, if there is one for it.
    pub driver: Option<&'static str>,
    /// What executes the guest.
    pub accelerator: Option<Accelerator>,
    /// What it lacks, and what would mend it. It works if nothing stands here.
    pub missing: Vec<String>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// Whether it is as it should be.
    pub good: bool,
    /// What was found.
    pub found: String,
    /// What would mend it, where something would.
    pub remedy: Option<String>,
}

const NOT_YET: [&str; 3] = [
    "no jail around Wasm programs that use sockets, nor around those of users who aren't root: their keeper runs them",
    "no Unikernel or TEE",
    "KVM with QEMU is written but was never run on a machine where KVM works",
];

/// Examines this machine. `home` is the folder that holds `kernels` and `cache`.
pub fn examine(home: &Path) -> Report {
    let qemu = qemu();
    let kernel = kernel(home);
    let kvm = kvm(home);
    let vm = [&qemu, &kernel];
    let lacks = |also: Option<&Finding>| {
        let bad = vm.into_iter().chain(also).filter(|finding| !finding.good);
        bad.map(|finding| finding.remedy.clone().unwrap_or_else(|| finding.found.clone())).collect()
    };
    let micro_vm = |accelerator, missing| Isolation {
        kind: "MicroVM",
        driver: Some("qemu"),
        accelerator: Some(accelerator),
        missing,
    };
    let absent = |kind| Isolation {
        kind,
        driver: None,
        accelerator: None,
        missing: vec!["not in this version yet".to_owned()],
    };
    let mut isolations =
        vec![micro_vm(Accelerator::Kvm, lacks(Some(&kvm))), micro_vm(Accelerator::Tcg, lacks(None))];
    isolations.push(absent("Unikernel"));
    isolations.push(Isolation {
        kind: "Container",
        driver: Some("container"),
        accelerator: None,
        missing: container::usable().err().map(|missing| missing.to_string()).into_iter().collect(),
    });
    isolations.push(Isolation { kind: "Wasm", driver: Some("wasm"), accelerator: None, missing: Vec::new() });
    isolations.push(absent("TEE"));
    let mut findings = vec![qemu, kvm, kernel, routed(), passt(), cgroups(), user_namespaces()];
    findings.extend(container_ids());
    findings.extend([landlock(), seccomp(), modules(), jail(), limits(), disk(home)]);
    Report { version: 1, isolations, findings, not_yet: NOT_YET.to_vec() }
}

fn finding(what: &'static str, good: bool, found: impl Into<String>, remedy: Option<&str>) -> Finding {
    Finding { what, good, found: found.into(), remedy: remedy.filter(|_| !good).map(str::to_owned) }
}

fn qemu() -> Finding {
    let remedy = Some("install QEMU: sudo apt-get install qemu-system-x86");
    match Qemu::find().program() {
        Some(program) => finding("QEMU", true, program.display().to_string(), None),
        None => finding("QEMU", false, "qemu-system-x86_64 isn't installed", remedy),
    }
}

fn kvm(home: &Path) -> Finding {
    match kvm::known(&home.join("cache")).missing() {
        None => finding("KVM", true, "runs guest code", None),
        // The reason says what would mend it.
        Some(missing) => finding("KVM", false, missing, None),
    }
}

fn kernel(home: &Path) -> Finding {
    let remedy = Some("get a guest kernel: vimana kernel fetch");
    let chosen = KernelStore::open(&home.join("kernels")).map_err(|error| error.to_string());
    match chosen.and_then(|store| choose(&store, None, None).map_err(|error| error.to_string())) {
        Ok((kernel, origin)) => {
            let from = match origin {
                Origin::Named => "named",
                Origin::Configured => "from VIMANA_KERNEL",
                Origin::Store => "in the store",
                Origin::Boot => "from /boot",
            };
            let digest: String = kernel.digest.chars().take(12).collect();
            finding("guest kernel", true, format!("{} {digest} ({from})", kernel.release), None)
        }
        Err(error) => finding("guest kernel", false, error, remedy),
    }
}

fn passt() -> Finding {
    let remedy =
        Some("install passt: sudo apt-get install passt (spacecores without network run without it)");
    match spawn::find("passt") {
        Some(program) => finding("passt", true, program.display().to_string(), None),
        None => finding("passt", false, "passt isn't installed", remedy),
    }
}

/// Whether the kernel carries spacecores' networks.
fn routed() -> Finding {
    const WHAT: &str = "kernel's network";
    match (routed::usable(), routed::hindered()) {
        (Ok(()), None) => finding(WHAT, true, "for every spacecore that root starts", None),
        (Ok(()), Some(hindered)) => {
            let remedy = "let the firewall forward what comes from and goes to vm-*, and run with --carrier routed; until then passt carries it";
            finding(WHAT, false, hindered, Some(remedy))
        }
        // That is as it should be.
        (Err(missing @ Unusable::NotRoot), _) => {
            finding(WHAT, true, format!("{missing}; passt carries it"), None)
        }
        (Err(missing), _) => finding(WHAT, false, missing.to_string(), Some("until then passt carries it")),
    }
}

fn cgroups() -> Finding {
    let v2 = |place: &str| fs::read_to_string(Path::new(place).join("cgroup.controllers")).ok();
    match (v2("/sys/fs/cgroup"), v2("/sys/fs/cgroup/unified")) {
        (Some(controllers), _) => {
            finding("cgroups", true, format!("version 2 ({})", controllers.trim()), None)
        }
        (None, Some(_)) => finding("cgroups", true, "version 1, version 2 beside it", None),
        (None, None) if Path::new("/sys/fs/cgroup/memory").is_dir() => {
            finding("cgroups", true, "version 1", None)
        }
        (None, None) => finding("cgroups", false, "not mounted", None),
    }
}

fn user_namespaces() -> Finding {
    let read = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).ok();
    let is = |name, value: &str| read(name).is_some_and(|text| text.trim() == value);
    if !Path::new("/proc/self/ns/user").exists() || is("user/max_user_namespaces", "0") {
        return finding(
            "user namespaces",
            false,
            "off in this kernel",
            Some("sudo sysctl user.max_user_namespaces=10000"),
        );
    }
    if is("kernel/unprivileged_userns_clone", "0") {
        let remedy = Some("sudo sysctl kernel.unprivileged_userns_clone=1");
        return finding("user namespaces", false, "for root only", remedy);
    }
    let restricted = is("kernel/apparmor_restrict_unprivileged_userns", "1");
    finding(
        "user namespaces",
        true,
        if restricted { "restricted by AppArmor" } else { "for everybody" },
        None,
    )
}

/// How far the jail of a virtual machine monitor reaches.
fn jail() -> Finding {
    let strength = Strength::here();
    let remedy = match strength {
        Strength::Bare(_) => Some("let users have namespaces, see the line above, or run as root"),
        Strength::Full | Strength::UserNamespace => None,
    };
    finding("jail", !matches!(strength, Strength::Bare(_)), strength.describe(), remedy)
}

/// Whether a virtual machine monitor can be held to what its machine may take.
fn limits() -> Finding {
    match cgroup::usable() {
        Ok(()) => {
            finding("limits", true, "processor time, memory and threads of each monitor, by cgroups", None)
        }
        // The reason says what would mend it.
        Err(missing) => {
            finding("limits", false, format!("none for a monitor beyond its jail: {missing}"), None)
        }
    }
}

/// Of a user that isn't root, which users a container could have.
fn container_ids() -> Option<Finding> {
    const REMEDY: &str = "sudo apt-get install uidmap, and 65535 ids in /etc/subuid and /etc/subgid (without them a container has no user but root)";
    let found = match container::Ids::here() {
        container::Ids::High { .. } => return None,
        container::Ids::Range { users, .. } => finding(
            "container users",
            true,
            format!("root, who is you, and 65535 more (from {users} on)"),
            None,
        ),
        container::Ids::One => finding("container users", false, "root, who is you, alone", Some(REMEDY)),
    };
    Some(found)
}

fn landlock() -> Finding {
    const VERSION_FLAG: libc::c_ulong = 1;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the call takes no memory; it only returns the version.
    #[allow(unsafe_code)]
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, VERSION_FLAG) };
    match version {
        1.. => finding("Landlock", true, format!("version {version}"), None),
        _ => finding("Landlock", false, "not in this kernel, or not enabled (lsm=...,landlock)", None),
    }
}

fn seccomp() -> Finding {
    let good = Confinement::here().seccomp;
    finding("seccomp", good, if good { "filters" } else { "not in this kernel; nothing runs without" }, None)
}

/// What there is of AppArmor and SELinux. A machine needs neither.
fn modules() -> Finding {
    let found = Confinement::here();
    let apparmor = match found.apparmor {
        AppArmor::Off => "AppArmor is off".to_owned(),
        AppArmor::NoProfile => format!("AppArmor is on, without a profile {PROFILE} for monitors"),
        AppArmor::Profile => format!("AppArmor confines monitors by {PROFILE}"),
    };
    let selinux = if found.selinux { "SELinux is on, without a type for monitors" } else { "SELinux is off" };
    finding("security modules", true, format!("{apparmor}; {selinux}"), None)
}

fn disk(home: &Path) -> Finding {
    const ENOUGH: u64 = 2 << 30;
    let existing = home.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(status) => {
            let free = status.f_bavail.saturating_mul(status.f_frsize);
            let found = format!("{} MiB free in {}", free >> 20, home.display());
            finding(
                "disk",
                free >= ENOUGH,
                found,
                Some("make room: images need some 2 GiB (vimana image prune)"),
            )
        }
        Err(error) => finding("disk", false, format!("{}: {error}", existing.display()), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_examined_within_a_second_and_nothing_that_fails_is_without_a_word() {
        let home = tempfile::tempdir().unwrap();
        let begin = std::time::Instant::now();
        let report = examine(home.path());
        assert!(begin.elapsed().as_secs() < 1, "{:?}", begin.elapsed());
        for finding in &report.findings {
            assert!(!finding.found.is_empty(), "{finding:?}");
        }
        let kinds: Vec<&str> = report.isolations.iter().map(|isolation| isolation.kind).collect();
        assert_eq!(kinds, ["MicroVM", "MicroVM", "Unikernel", "Container", "Wasm", "TEE"]);
        assert_eq!(report.usable(), report.isolations.iter().any(|isolation| isolation.missing.is_empty()));
    }

    #[test]
    fn without_a_kernel_the_report_says_how_to_get_one() {
        let home = tempfile::tempdir().unwrap();
        let finding = kernel(home.path());
        // A machine with a readable /boot has one.
        assert!(finding.good || finding.remedy.unwrap().contains("vimana kernel fetch"));
    }
}
