//! What the workload's process does in its own namespaces before it becomes the workload: its root, its mounts, its
//! `/etc` files.

use std::io::Write;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags};
use spacecore::wire::SECRETS;
use spacecore::wire::message::{Configuration, Mount, MountSource, Network, Refusal, RefusalKind};

use crate::boot::DEV;
use crate::configure::{Outside, decode_hex};
use crate::encrypted;
use crate::folder::Folder;
use crate::paths::{Inside, of_descriptor};
use crate::root::ROOT;
use crate::steps::Steps;
use crate::users;
use spacecore::refusal::{OrRefuse, refuse};

/// Paths that say too much about the machine; the OCI runtimes' usual list.
const MASKED_FILES: [&str; 6] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/timer_stats",
];
const MASKED_FOLDERS: [&str; 4] = ["/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware"];
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn refuse_root<T>(result: Result<T, Errno>, what: &str) -> Result<T, Refusal> {
    result.or_refuse(RefusalKind::Root, || what.to_owned())
}

/// Makes the overlay the root of this process' mount namespace, with everything in it that the workload finds. PID 1 must
/// serve a folder as soon as `mounted` has named its stream: later mounts may lie inside it.
///
/// # Errors
/// What couldn't be mounted or written, and why.
pub(crate) fn move_in(
    configuration: &Configuration,
    outside: &Outside,
    steps: &mut Steps,
    mounted: &mut dyn FnMut(u16),
) -> Result<Inside, Refusal> {
    let mut disks = disk_mounts(configuration, outside)?.into_iter();
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let dev = refuse_root(rustix::mount::open_tree(CWD, DEV, flags), "taking /dev")?;
    refuse_root(rustix::process::chdir(ROOT), "entering the root")?;
    refuse_root(rustix::mount::mount_move(".", "/"), "moving the root into place")?;
    refuse_root(rustix::process::chroot("."), "entering the root")?;
    refuse_root(rustix::process::chdir("/"), "entering the root")?;
    let inside = refuse_root(Inside::root(), "opening the root")?;
    kernel_mounts(&inside, dev)?;
    if configuration.network.is_some() {
        loosen_ports();
    }
    mask()?;
    steps.end("workload's /proc, /sys, /dev");
    // Before anything of the host's is mounted: nobody's own /etc/hosts is written over.
    write_etc(&inside, configuration)?;
    let mut folders = outside.folders.iter();
    for mount in &configuration.mounts {
        make_mount(&inside, mount, &mut folders, &mut disks).map_err(|refusal| {
            refuse(refusal.kind, format!("the mount {}: {}", mount.destination, refusal.message))
        })?;
        if let MountSource::Folder { stream, .. } = mount.source {
            mounted(stream);
        }
    }
    if !configuration.mounts.is_empty() {
        steps.end("mounts");
    }
    if configuration.root.as_ref().is_some_and(|root| root.readonly) {
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        refuse_root(rustix::mount::mount_remount("/", flags, c""), "making the root read-only")?;
    }
    steps.end("/etc files");
    write_secrets(&inside, configuration)?;
    Ok(inside)
}

/// Mounts every disk without a place yet: its node can't be reached any more once the root is in place.
fn disk_mounts(configuration: &Configuration, outside: &Outside) -> Result<Vec<OwnedFd>, Refusal> {
    let mut mounts = Vec::new();
    for mount in &configuration.mounts {
        if let MountSource::Disk { serial, crypt } = &mount.source {
            let disk = outside.disks.node(serial, RefusalKind::Mount)?;
            let clear = crypt.as_ref().map(|crypt| encrypted::open(serial, disk, crypt, mount.readonly));
            let clear = clear.transpose()?;
            let node = clear.as_deref().unwrap_or(disk);
            mounts.push(
                mount_disk(node, mount.readonly, clear.is_some())
                    .or_refuse(RefusalKind::Mount, || format!("mounting disk {serial:?} as ext4"))?,
            );
        }
    }
    Ok(mounts)
}

fn mount_disk(node: &str, readonly: bool, is_encrypted: bool) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", node)?;
    if readonly {
        rustix::mount::fsconfig_set_flag(&context, "ro")?;
    }
    if is_encrypted {
        // Its tables needn't be zeros; writing them would take the host's disk for nothing.
        rustix::mount::fsconfig_set_flag(&context, "noinit_itable")?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if readonly {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn place(mount: &OwnedFd, at: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", at, "", flags)
}

fn kernel_mounts(inside: &Inside, dev: OwnedFd) -> Result<(), Refusal> {
    let strict = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // The mount point is the image's, but there is nothing yet that a link in it could reach beyond the root.
    refuse_root(inside.make_folder("/proc"), "making /proc")?;
    refuse_root(rustix::mount::mount("proc", "/proc", "proc", strict, None), "mounting /proc")?;
    let sys = refuse_root(inside.make_folder("/sys"), "making /sys")?;
    let readonly = strict | MountFlags::RDONLY;
    refuse_root(
        rustix::mount::mount("sysfs", of_descriptor(&sys), "sysfs", readonly, None),
        "mounting /sys",
    )?;
    let at = refuse_root(inside.make_folder("/dev"), "making /dev")?;
    refuse_root(place(&dev, &at), "mounting /dev")?;
    let queues = refuse_root(inside.make_folder("/dev/mqueue"), "making /dev/mqueue")?;
    match rustix::mount::mount("mqueue", of_descriptor(&queues), "mqueue", strict, None) {
        Ok(()) | Err(Errno::NODEV) => Ok(()),
        Err(error) => refuse_root(Err(error), "mounting /dev/mqueue"),
    }
}

/// Lets every user open low ports and send pings, as container engines do: nobody else shares this machine's network.
fn loosen_ports() {
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    let _ = std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
}

fn mask() -> Result<(), Refusal> {
    let ignore_missing = |result: Result<(), Errno>, path: &str| match result {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(error) => refuse_root(Err(error), &format!("masking {path}")),
    };
    for path in MASKED_FILES {
        ignore_missing(rustix::mount::mount_bind("/dev/null", path), path)?;
    }
    let mut empty: Option<&str> = None;
    for path in MASKED_FOLDERS {
        let result = match empty {
            Some(empty) => rustix::mount::mount_bind(empty, path),
            None => rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::RDONLY, c"size=0"),
        };
        if result.is_ok() {
            empty.get_or_insert(path);
        }
        ignore_missing(result, path)?;
    }
    for path in READONLY {
        let flags = MountFlags::BIND
            | MountFlags::RDONLY
            | MountFlags::NOSUID
            | MountFlags::NODEV
            | MountFlags::NOEXEC;
        let result = rustix::mount::mount_bind(path, path)
            .and_then(|()| rustix::mount::mount_remount(path, flags, c""));
        ignore_missing(result, path)?;
    }
    Ok(())
}

fn make_mount<'a>(
    inside: &Inside,
    mount: &Mount,
    folders: &mut impl Iterator<Item = &'a Folder>,
    disks: &mut impl Iterator<Item = OwnedFd>,
) -> Result<(), Refusal> {
    let is_file = matches!(mount.source, MountSource::Folder { file: true, .. });
    let at = match is_file {
        true => inside.make_file(&mount.destination),
        false => inside.make_folder(&mount.destination),
    }
    .or_refuse(RefusalKind::Mount, || "its place can't be made in the root".to_owned())?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    if mount.readonly {
        flags |= MountFlags::RDONLY;
    }
    let gone = || refuse(RefusalKind::Mount, "its source was never opened");
    let result = match &mount.source {
        MountSource::Folder { file, .. } => {
            let options = folders.next().ok_or_else(gone)?.mount_options(*file);
            rustix::mount::mount("vimana", of_descriptor(&at), "fuse", flags, &*options)
        }
        MountSource::Memory { bytes } => {
            let options = crate::root::memory_options(*bytes, 0o1777);
            rustix::mount::mount("tmpfs", of_descriptor(&at), "tmpfs", flags, &*options)
        }
        MountSource::Disk { .. } => place(&disks.next().ok_or_else(gone)?, &at),
    };
    result.or_refuse(RefusalKind::Mount, || "mounting it".to_owned())
}

/// Writes the files that say who and where the machine is.
///
/// # Errors
/// They can't be written.
pub(crate) fn write_etc(inside: &Inside, configuration: &Configuration) -> Result<(), Refusal> {
    let write =
        |path: &str, content: &str| refuse_root(inside.write_file(path, content), &format!("writing {path}"));
    let network = configuration.network.as_ref();
    write("/etc/hostname", &format!("{}\n", configuration.hostname))?;
    write("/etc/hosts", &hosts(&configuration.hostname, network))?;
    match network {
        Some(network) => write("/etc/resolv.conf", &resolv_conf(network)),
        None => Ok(()),
    }
}

/// Puts secrets where only the workload's user reads them: into the folder in memory at [`SECRETS`].
///
/// # Errors
/// One can't be written, or the user isn't known.
pub(crate) fn write_secrets(inside: &Inside, configuration: &Configuration) -> Result<(), Refusal> {
    if configuration.secrets.is_empty() {
        return Ok(());
    }
    let user = &configuration.process.user;
    let identity = users::look_up(user, &inside.read_file("/etc/passwd"), &inside.read_file("/etc/group"))?;
    for secret in &configuration.secrets {
        let what = || format!("the secret {:?}", secret.name);
        let plain = !secret.name.is_empty() && !secret.name.starts_with('.') && !secret.name.contains('/');
        let value = decode_hex(&secret.value).filter(|_| plain);
        let value =
            value.ok_or_else(|| refuse(RefusalKind::Protocol, format!("{} can't be read", what())))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o400);
        let file = inside.open(&format!("{SECRETS}/{}", secret.name), flags, mode);
        let file = file.or_refuse(RefusalKind::Mount, what)?;
        std::fs::File::from(file.try_clone().or_refuse(RefusalKind::Mount, what)?)
            .write_all(&value)
            .or_refuse(RefusalKind::Mount, what)?;
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        rustix::fs::fchown(&file, Some(uid), Some(gid)).or_refuse(RefusalKind::Mount, what)?;
    }
    Ok(())
}

fn hosts(hostname: &str, network: Option<&Network>) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    let mut own = network
        .into_iter()
        .flat_map(|network| &network.addresses)
        .filter_map(|address| address.split('/').next()?.parse::<IpAddr>().ok())
        .peekable();
    if own.peek().is_none() {
        text.push_str(&format!("127.0.1.1\t{hostname}\n"));
    }
    for address in own {
        text.push_str(&format!("{address}\t{hostname}\n"));
    }
    text
}

fn resolv_conf(network: &Network) -> String {
    let clean = |text: &str| text.split_whitespace().collect::<String>();
    let mut text = String::new();
    if !network.search.is_empty() {
        let domains = network.search.iter().map(|domain| clean(domain)).collect::<Vec<_>>();
        text.push_str(&format!("search {}\n", domains.join(" ")));
    }
    for server in &network.dns {
        text.push_str(&format!("nameserver {}\n", clean(server)));
    }
    text
}

/// Shows the workload's terminal as `/dev/console` too, as OCI runtimes do.
///
/// # Errors
/// The mount isn't possible.
pub(crate) fn show_console(inside: &Inside, terminal: &str) -> Result<(), Refusal> {
    let what = || "mounting /dev/console".to_owned();
    let at = inside.make_file("/dev/console").or_refuse(RefusalKind::Other, what)?;
    rustix::mount::mount_bind(terminal, of_descriptor(&at)).or_refuse(RefusalKind::Other, what)
}

/// Shows the workload's terminal as `/dev/console`, where there is no capability to mount it there.
pub(crate) fn link_console(terminal: &str) {
    let _ = rustix::fs::symlink(terminal, "/dev/console");
}

/// Enters the working directory. The workload's is made if it doesn't exist; that of a process beside it must be there.
///
/// # Errors
/// It is no absolute path, isn't there, or can't be made.
pub(crate) fn enter_working_directory(inside: &Inside, path: &str, makes: bool) -> Result<(), Refusal> {
    let path = if path.is_empty() { "/" } else { path };
    let what = || format!("the working directory {path:?}");
    if !path.starts_with('/') {
        return Err(refuse(RefusalKind::Protocol, format!("{} is no absolute path", what())));
    }
    let folder = if makes { inside.make_folder(path) } else { inside.open_folder(path) };
    let folder = folder.or_refuse(RefusalKind::Other, what)?;
    rustix::process::fchdir(&folder).or_refuse(RefusalKind::Other, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network {
            addresses: vec!["10.0.2.15/24".to_owned()],
            gateways: vec![],
            dns: vec!["10.0.2.3".to_owned(), "1.1.1.1\nx".to_owned()],
            search: vec!["a.example".to_owned(), "b.example".to_owned()],
            mtu: 1500,
        }
    }

    #[test]
    fn the_host_s_own_name_is_found_at_its_own_address() {
        assert!(hosts("box", Some(&network())).ends_with("10.0.2.15\tbox\n"));
        assert!(hosts("box", None).ends_with("127.0.1.1\tbox\n"));
    }

    #[test]
    fn name_servers_can_t_smuggle_lines() {
        let text = resolv_conf(&network());
        assert_eq!(text, "search a.example b.example\nnameserver 10.0.2.3\nnameserver 1.1.1.1x\n");
    }
}
