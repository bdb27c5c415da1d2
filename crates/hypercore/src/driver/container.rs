//! The container driver: `libcontainer`, embedded.
//!
//! PID 1 of a container is `spacecore`, the same static binary that is PID 1 of a microVM, executed from memory, with the
//! channel as its only descriptor. It starts the workload, and speaks the same protocol to the keeper.
//!
//! What holds a workload in:
//!
//! - namespaces of its own for users, processes, mounts, network, IPC, host name and control groups; its root is an
//!   ordinary user of the host (ids from [`FIRST_ID`] on, or the user who runs it: [`Ids`]);
//! - the capabilities that container engines leave to root, in its own user namespace alone, and no way to gain more;
//! - a seccomp filter that allows what is listed ([`seccomp`]); masked and read-only paths of `/proc` and `/sys`;
//! - limits for memory (without swap), processor time, processes and, on request, bytes written;
//! - trees of the host only as mounts that show them with the container's owners, without devices and set-user-id bits.
//!
//! It needs Linux 5.12, and either root or, for a user, control groups of version 2 of which one is handed on to the user
//! ([`crate::cgroup`]). Root's containers have an overlay as root from 5.19 on, and a copy before. [`usable`] says what lacks.
//!
//! # Precondition of `start`
//!
//! `libcontainer` and this driver fork and go on with all of their memory, so the process must have one thread when
//! [`Driver::start`] is called; it may have as many as it likes afterwards. Where the container has a network, a thread
//! pair is started before `start` returns.

mod config;
mod copy;
mod hierarchies;
mod ids;
mod instance;
mod mapping;
mod root;
mod seccomp;
mod start;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

pub use self::config::{FIRST_ID, IDS};
pub use self::ids::Ids;
use self::instance::Running;
use crate::cgroup::{self, Group, NoGroup};
use crate::driver::{
    Body, Driver, Execution, Instance, Machine, PrepareError, Prepared, StartError, Wire, Wiring,
};
use crate::scratch::Owner;
use crate::tap::Pump;
use crate::{jail, spawn};

/// Its name, as in the table of drivers.
pub const NAME: &str = "container";

/// The oldest kernel that shows a tree with other owners (`mount_setattr`).
const KERNEL: (u32, u32) = (5, 12);

/// Runs containers.
#[derive(Debug, Clone, Copy, Default)]
pub struct ContainerDriver;

/// Why this machine, or this user, can't run containers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// The kernel is too old.
    #[error("the kernel is Linux {0}; containers need 5.12 or newer")]
    Kernel(String),
    /// There are no user namespaces.
    #[error(
        "this kernel has no user namespaces, or they are switched off; see /proc/sys/user/max_user_namespaces"
    )]
    NoUserNamespaces,
    /// There is no control group to limit a container.
    #[error(transparent)]
    Group(#[from] NoGroup),
    /// User namespaces are there, and a user that isn't root can't use them.
    #[error(
        "this user can't make user namespaces ({0}); {how}, or run vimana with sudo",
        how = match .0 {
            UserNamespaces::Sysctl => "sudo sysctl kernel.unprivileged_userns_clone=1",
            UserNamespaces::AppArmor => "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
            UserNamespaces::Refused(_) => "see /proc/sys/user/max_user_namespaces and the system's security module",
        }
    )]
    UserNamespaces(UserNamespaces),
}

/// What keeps a user from user namespaces.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UserNamespaces {
    /// A setting of Debian's kernels.
    #[error("kernel.unprivileged_userns_clone is 0")]
    Sysctl,
    /// AppArmor.
    #[error("AppArmor takes their privileges away")]
    AppArmor,
    /// Something else; what the kernel said.
    #[error("{0}")]
    Refused(String),
}

/// Says whether containers can run here, and if not, why.
///
/// # Errors
/// The first reason against it.
pub fn usable() -> Result<(), Unusable> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut parts = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version < KERNEL {
        return Err(Unusable::Kernel(release));
    }
    let most = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    if !Path::new("/proc/self/ns/user").exists() || most.trim() == "0" {
        return Err(Unusable::NoUserNamespaces);
    }
    let is_root = rustix::process::geteuid().is_root();
    // A user's version and controllers are told before what is found out by trying.
    if !is_root && !cgroup::is_unified() {
        return Err(NoGroup::Version1.into());
    }
    if !is_root && cgroup::lacks().is_none() {
        mapping::try_user_namespace().map_err(|error| Unusable::UserNamespaces(explain(&error)))?;
    }
    Ok(cgroup::usable()?)
}

fn explain(error: &io::Error) -> UserNamespaces {
    let is = |name: &str, value: &str| {
        fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).is_ok_and(|text| text.trim() == value)
    };
    match () {
        () if is("unprivileged_userns_clone", "0") => UserNamespaces::Sysctl,
        () if is("apparmor_restrict_unprivileged_userns", "1") => UserNamespaces::AppArmor,
        () => UserNamespaces::Refused(error.to_string()),
    }
}

/// Gives a folder of the calling user's an owner and a mode as that user's containers see them. Where they have only one id
/// it stays root's.
///
/// # Errors
/// The ids aren't among those that the containers have, or the folder isn't the user's.
pub fn give(folder: &Path, owner: Owner) -> io::Result<()> {
    use std::os::unix::fs::{PermissionsExt, chown};
    let ids = Ids::here();
    let set = || {
        chown(folder, Some(owner.uid), Some(owner.gid))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(owner.mode))
    };
    match (ids, owner.uid, owner.gid) {
        (Ids::One, ..) | (_, 0, 0) => fs::set_permissions(folder, fs::Permissions::from_mode(owner.mode)),
        _ => ids.inside(set),
    }
}

/// Does something in another process that is root over the ids of the calling user's containers. Memory that it changes
/// stays as it was for the caller.
///
/// # Errors
/// The ids can't be had, or the work fails; of that only the number of the error comes back.
pub fn inside(work: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
    Ids::here().inside(work)
}

/// Makes the user namespace by which [`show`] shows folders.
///
/// # Errors
/// The kernel has no user namespaces, or no more of them.
pub(crate) fn namespace(first: u32) -> io::Result<OwnedFd> {
    Ids::High { first }.outer()
}

/// Opens a folder of the host so that what root owns in it is the first id's of the namespace.
///
/// # Errors
/// It isn't there, or lies on a file system that can't be shown with other owners.
pub(crate) fn show(folder: &Path, namespace: &OwnedFd, readonly: bool) -> io::Result<OwnedFd> {
    let used = if readonly { mapping::Use::Read } else { mapping::Use::Write };
    mapping::take(folder, Some(namespace), used)
}

/// Removes what a keeper that was killed has left of the container in this folder ([`crate::driver::Container::folder`]):
/// processes, its control group, and what was written. Nothing happens where nothing is left.
///
/// # Errors
/// Something can't be removed.
pub fn clear(folder: &Path) -> io::Result<()> {
    cgroup::clear(folder)?;
    root::remove(folder)
}

impl Driver for ContainerDriver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, machine: &Machine) -> Result<Prepared, PrepareError> {
        let Body::Container(container) = &machine.body else {
            return Err(PrepareError::Body { driver: NAME, body: machine.body.kind() });
        };
        Ok(Prepared {
            driver: NAME,
            network: machine.network.is_some(),
            console: false,
            execution: Execution::Container {
                config: config::config(machine, container, Ids::here())?,
                container: container.clone(),
                network: machine.network,
            },
        })
    }

    /// Makes the container and starts its PID 1; see the module's documentation for what the caller must be.
    fn start(&self, prepared: &Prepared, wiring: Wiring) -> Result<Box<dyn Instance>, StartError> {
        let Execution::Container { config, container, network } = &prepared.execution else {
            return Err(StartError::Prepared { driver: NAME, other: prepared.driver });
        };
        if network.is_some() != wiring.network.is_some() {
            let prepared = if network.is_some() { "with" } else { "without" };
            return Err(StartError::Wiring { wire: "a network", prepared });
        }
        let (stream, pair) = match wiring.network {
            Some(Wire::Stream(stream)) => (Some(stream), None),
            Some(Wire::Pair(pair)) => (None, Some(pair)),
            Some(Wire::Tap(_)) => return Err(StartError::Wiring { wire: "a tap", prepared: "without" }),
            None => (None, None),
        };
        let failed = |reason: String| StartError::Container(reason);
        let stderr = spawn::bounded_memory().map_err(|error| failed(error.to_string()))?;
        let root = rustix::process::geteuid().is_root();
        let range = root.then(jail::Ids::take).transpose();
        let range = range.map_err(|error| failed(format!("taking user ids: {error}")))?;
        let ids = match &range {
            Some(range) => Ids::High { first: range.first() },
            None => Ids::here(),
        };
        let group = Group::prepare(&container.folder).map_err(|error| failed(error.to_string()))?;
        let making = start::Making {
            config,
            container,
            name: group.name(),
            parent: group.parent(),
            ids,
            channel: wiring.channel.as_fd(),
            stderr: stderr.as_fd(),
            network: *network,
            pair,
        };
        let made = start::make(making).map_err(|reason| {
            // What was begun ends with its control group; the reason is what matters.
            let _ = clear(&container.folder);
            failed(reason)
        })?;
        // The runtime lets a user's container run without limits where it may not set them.
        if !group.holds(made.pid.as_raw_nonzero().get()).unwrap_or(false) {
            let _ = rustix::process::pidfd_send_signal(&made.init, rustix::process::Signal::KILL);
            let _ = rustix::process::waitpid(Some(made.pid), rustix::process::WaitOptions::empty());
            let _ = clear(&container.folder);
            return Err(failed("it isn't in its control group, which would limit it".to_owned()));
        }
        // Only the container has the channel from here on, so that its end is seen.
        drop(wiring.channel);
        let mut running = Running::new(made.pid, made.init, group, container.folder.clone(), stderr, range);
        if let (Some(tap), Some(stream)) = (made.tap, stream) {
            let pump =
                Pump::start(tap, stream).map_err(|error| failed(format!("starting the network: {error}")))?;
            running.pumps(pump);
        }
        Ok(Box::new(running))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Class, Container, Mount, MountSource};

    fn machine() -> Machine {
        Machine {
            name: "box".into(),
            cpu_milli: 500,
            memory_mib: 64,
            class: Class::default(),
            network: None,
            body: Body::Container(Container {
                layers: vec!["/layer".into()],
                folder: "/run/folder".into(),
                hostname: "box".into(),
                readonly: false,
                upper_bytes: None,
                mounts: Vec::new(),
                pids: 10,
            }),
        }
    }

    fn container(machine: &mut Machine) -> &mut Container {
        match &mut machine.body {
            Body::Container(container) => container,
            _ => unreachable!(),
        }
    }

    fn config(machine: &Machine) -> serde_json::Value {
        match ContainerDriver.prepare(machine).unwrap().execution {
            Execution::Container { config, .. } => config,
            _ => unreachable!(),
        }
    }

    #[test]
    fn limits_are_what_the_machine_says() {
        let config = config(&machine());
        let resources = &config["linux"]["resources"];
        assert_eq!(resources["memory"]["limit"], 64 << 20);
        assert_eq!(resources["memory"]["swap"], 64 << 20);
        assert_eq!(
            (&resources["cpu"]["quota"], &resources["cpu"]["period"]),
            (&50_000.into(), &100_000.into())
        );
        assert_eq!(resources["pids"]["limit"], 11);
    }

    #[test]
    fn every_namespace_is_a_new_one_and_privileges_can_t_grow() {
        let config = config(&machine());
        let namespaces = config["linux"]["namespaces"].as_array().unwrap();
        assert_eq!(namespaces.len(), 7);
        assert!(namespaces.iter().all(|namespace| namespace.get("path").is_none()));
        assert_eq!(config["process"]["noNewPrivileges"], true);
        assert_eq!(config["linux"]["uidMappings"][0]["hostID"], FIRST_ID);
    }

    #[test]
    fn mounts_of_the_host_never_carry_devices_or_set_user_id_bits() {
        let mut machine = machine();
        container(&mut machine).mounts = vec![Mount {
            source: MountSource::Folder("/srv/data".into()),
            destination: "/data".into(),
            readonly: true,
        }];
        let config = config(&machine);
        let mount = config["mounts"].as_array().unwrap().last().unwrap();
        assert_eq!(mount["source"], "/srv/data");
        assert_eq!(mount["options"], serde_json::json!(["rbind", "nosuid", "nodev", "rro"]));
    }

    #[test]
    fn values_that_no_container_can_have_are_refused_with_what_would_be_right() {
        let wrong: [fn(&mut Container); 4] = [
            |container| container.pids = 0,
            |container| container.layers.clear(),
            |container| container.hostname = "a b".into(),
            |container| container.folder = "relative".into(),
        ];
        for spoil in wrong {
            let mut machine = machine();
            spoil(container(&mut machine));
            assert!(matches!(ContainerDriver.prepare(&machine), Err(PrepareError::Value { .. })));
        }
        let tiny = Machine { memory_mib: 1, ..machine() };
        assert!(matches!(ContainerDriver.prepare(&tiny), Err(PrepareError::Value { .. })));
    }

    #[test]
    fn the_control_group_s_name_depends_on_the_folder_alone() {
        let name = cgroup::name_of(Path::new("/run/folder"));
        assert_eq!(name, cgroup::name_of(Path::new("/run/folder")));
        assert_ne!(name, cgroup::name_of(Path::new("/run/folder2")));
        assert!(name.starts_with("vimana-") && name.len() == 23);
    }
}
