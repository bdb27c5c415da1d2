//! A container as the OCI runtime specification describes it (`config.json`, version 1.0.2), for any runtime to judge.

use std::path::Path;

use serde_json::{Value, json};

use super::ids::Ids;
use super::seccomp;
use crate::cgroup::{self, PERIOD_US, quota_us};
use crate::driver::{Container, Machine, Mount, MountSource, PrepareError};

/// The first of the ids from which root's containers have theirs.
pub use crate::jail::FIRST_ID;
/// How many ids a container has.
pub use crate::jail::IDS;

/// How many files a process may have open, and how far it may raise that.
pub(super) const OPEN_FILES: (u64, u64) = (65_536, 524_288);

/// What container engines leave to root.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What `spacecore` needs beside: it brings up the network's interfaces. It takes this from every process that it starts,
/// out of the bounding set too.
const OWN_CAPABILITY: &str = "CAP_NET_ADMIN";

/// Files and folders of the kernel that say too much about the host.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/devices/virtual/dmi",
    "/sys/firmware",
];

/// Those that may be read. The folder of control groups is a file system in memory where the host has version 1, which the
/// runtime doesn't mount read-only.
const READONLY: [&str; 6] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys/fs/cgroup"];

/// The files that `spacecore` writes when it is configured; mounted where the root can't be written.
pub(super) const WRITTEN: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// Checks a container and describes it.
pub(super) fn config(machine: &Machine, container: &Container, ids: Ids) -> Result<Value, PrepareError> {
    check(machine, container)?;
    let (users, groups) = ids.mappings();
    let mut capabilities = CAPABILITIES.to_vec();
    capabilities.push(OWN_CAPABILITY);
    let namespaces =
        ["pid", "network", "ipc", "uts", "mount", "user", "cgroup"].map(|kind| json!({ "type": kind }));
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["spacecore", spacecore::wire::CONTAINER_MODE],
            "env": [],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
                "inheritable": [],
                "ambient": [],
            },
            "rlimits": [{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }],
            "noNewPrivileges": true,
            "oomScoreAdj": machine.class.oom_score(),
        },
        "root": { "path": "root", "readonly": container.readonly },
        "hostname": container.hostname,
        "mounts": mounts(container, ids)?,
        "linux": {
            "uidMappings": users,
            "gidMappings": groups,
            "namespaces": namespaces,
            "cgroupsPath": format!("/{}", cgroup::name_of(&container.folder)),
            "resources": resources(machine, container),
            "maskedPaths": MASKED,
            "readonlyPaths": readonly(),
            "seccomp": seccomp::filter(container.writes_to_host()),
        },
    });
    if machine.network.is_some()
        && let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut)
    {
        // Every user may open low ports and send pings: nobody else shares this network.
        let sysctl = json!({
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": format!("0 {}", ids.count().saturating_sub(1)),
        });
        linux.insert("sysctl".to_owned(), sysctl);
    }
    Ok(config)
}

/// The hierarchies of version 1 lie each in a folder of its own; where there are none nothing is done.
fn readonly() -> Vec<String> {
    let hierarchies = cgroup::NEEDED.iter().map(|name| format!("/sys/fs/cgroup/{name}"));
    READONLY.iter().map(ToString::to_string).chain(hierarchies).collect()
}

fn check(machine: &Machine, container: &Container) -> Result<(), PrepareError> {
    let wrong = |what: &str, found: String, wanted: &'static str| {
        Err(PrepareError::Value { what: what.to_owned(), found, wanted })
    };
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let hostname = &container.hostname;
    if hostname.is_empty() || hostname.len() > 64 || !hostname.bytes().all(is_name_byte) {
        return wrong("the host name", format!("{hostname:?}"), "1 to 64 letters, digits, '-', '_' and '.'");
    }
    if machine.cpu_milli == 0 {
        return wrong("the processor time", "0".to_owned(), "at least 1 thousandth of a CPU");
    }
    if machine.memory_mib < 8 {
        return wrong("the memory", format!("{} MiB", machine.memory_mib), "at least 8 MiB");
    }
    if container.pids == 0 {
        return wrong("the number of processes", "0".to_owned(), "at least 1");
    }
    if container.layers.is_empty() {
        return wrong("the number of layers", "0".to_owned(), "at least 1");
    }
    for path in container.layers.iter().chain([&container.folder]) {
        if !path.is_absolute() {
            return wrong("a folder of the container", format!("{path:?}"), "an absolute path");
        }
    }
    for mount in &container.mounts {
        if !mount.destination.starts_with('/') || mount.destination.contains('\0') {
            return wrong("a mount's destination", format!("{:?}", mount.destination), "an absolute path");
        }
    }
    Ok(())
}

fn resources(machine: &Machine, container: &Container) -> Value {
    let memory = machine.memory_mib.saturating_mul(1 << 20).min(i64::MAX.unsigned_abs());
    let quota = quota_us(machine.cpu_milli);
    json!({
        // The same with swap as without, so that there is none.
        "memory": { "limit": memory, "swap": memory },
        "cpu": { "quota": quota, "period": PERIOD_US, "shares": cgroup::shares(machine.cpu_milli, machine.class) },
        // One of them is PID 1.
        "pids": { "limit": u64::from(container.pids).saturating_add(1) },
        "devices": devices(),
    })
}

/// Which devices may be opened; a user namespace lets nobody make a node anyway.
fn devices() -> Value {
    let device = |major: u32, minor: Option<u32>| match minor {
        Some(minor) => json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" }),
        None => json!({ "allow": true, "type": "c", "major": major, "access": "rwm" }),
    };
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend([3, 5, 7, 8, 9].map(|minor| device(1, Some(minor))));
    rules.extend([device(5, Some(0)), device(5, Some(2)), device(136, None)]);
    Value::Array(rules)
}

fn mounts(container: &Container, ids: Ids) -> Result<Vec<Value>, PrepareError> {
    let kernel = |kind: &str, source: &str, destination: &str, options: &str| {
        let options: Vec<&str> = options.split(',').collect();
        json!({ "destination": destination, "type": kind, "source": source, "options": options })
    };
    // The group of terminals, where there is one.
    let terminals = if ids == Ids::One { "" } else { ",gid=5" };
    let terminals = format!("nosuid,noexec,newinstance,ptmxmode=0666,mode=0620{terminals}");
    let mut mounts = vec![
        kernel("proc", "proc", "/proc", "nosuid,noexec,nodev"),
        kernel("tmpfs", "tmpfs", "/dev", "nosuid,strictatime,mode=755,size=65536k"),
        kernel("devpts", "devpts", "/dev/pts", &terminals),
        kernel("tmpfs", "shm", "/dev/shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),
        kernel("mqueue", "mqueue", "/dev/mqueue", "nosuid,noexec,nodev"),
        kernel("sysfs", "sysfs", "/sys", "nosuid,noexec,nodev,ro"),
        kernel("cgroup", "cgroup", "/sys/fs/cgroup", "nosuid,noexec,nodev,relatime,ro"),
    ];
    for mount in &container.mounts {
        mounts.push(match &mount.source {
            MountSource::Memory(bytes) => {
                let access = if mount.readonly { ",ro" } else { "" };
                let options = format!("nosuid,nodev,mode=1777,size={bytes}{access}");
                kernel("tmpfs", "tmpfs", &mount.destination, &options)
            }
            MountSource::Folder(path) | MountSource::File(path) | MountSource::Disk(path) => {
                bind(mount, path, ids)?
            }
        });
    }
    if container.readonly {
        for file in WRITTEN {
            let source = container.folder.join(file.trim_start_matches("/etc/"));
            let mount = Mount {
                source: MountSource::File(source.clone()),
                destination: file.to_owned(),
                readonly: false,
            };
            mounts.push(bind(&mount, &source, ids)?);
        }
    }
    Ok(mounts)
}

/// A mount of the host. The owners of root's are shown as those of the container; a user's are so by themselves.
fn bind(mount: &Mount, source: &Path, ids: Ids) -> Result<Value, PrepareError> {
    let source = source.to_str().ok_or_else(|| PrepareError::Path(source.to_owned()))?;
    let mut options = vec!["rbind", "nosuid", "nodev"];
    if mount.readonly {
        options.push("rro");
    }
    let mut bind = json!({
        "destination": mount.destination,
        "type": "bind",
        "source": source,
        "options": options,
    });
    if !ids.is_rootless()
        && let Some(bind) = bind.as_object_mut()
    {
        let (users, groups) = ids.mappings();
        bind.insert("uidMappings".to_owned(), users);
        bind.insert("gidMappings".to_owned(), groups);
    }
    Ok(bind)
}
