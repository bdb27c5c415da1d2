//! From the kernel's first instruction of user space to Hello, and what can be prepared while the keeper answers.

use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, makedev};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::time::{ClockId, clock_gettime};
use spacecore::wire::VERSION;
use spacecore::wire::message::{Refusal, RefusalKind, ToHost};

use crate::channel::Channel;
use crate::modules::{Known, Modules};
use crate::steps::Steps;
use spacecore::refusal::{OrRefuse, refuse};

/// The workload's `/dev`, made before the configuration is known.
pub(crate) const DEV: &str = "/devices";

/// The one `devpts` of the guest: PID 1 opens masters in it, the workload sees it as `/dev/pts`.
pub(crate) const PTS: &str = "/devices/pts";

const PORT_PATIENCE: Duration = Duration::from_secs(20);
const NAP: Duration = Duration::from_micros(200);

/// Mounts a file system of the kernel's own at a folder that is made for it.
pub(crate) fn mount_kernel_fs(
    kind: &str,
    at: &str,
    flags: MountFlags,
    data: &std::ffi::CStr,
) -> Result<(), Refusal> {
    make_folder(at)?;
    rustix::mount::mount(kind, at, kind, flags, data)
        .or_refuse(RefusalKind::Root, || format!("mounting {kind} at {at}"))
}

/// Makes a folder outside the workload's root, unless it is there.
pub(crate) fn make_folder(at: &str) -> Result<(), Refusal> {
    match rustix::fs::mkdir(at, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(refuse(RefusalKind::Root, format!("making the folder {at}: {error}"))),
    }
}

/// Mounts what the channel needs, loads its modules and opens it.
///
/// # Errors
/// The guest can't reach its keeper.
pub(crate) fn open_channel(modules: &mut Modules, steps: &mut Steps) -> Result<Channel, Refusal> {
    mount_kernel_fs("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=755")?;
    mount_kernel_fs("sysfs", "/sys", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, c"")?;
    steps.end("mount devices");
    let deadline = Instant::now() + PORT_PATIENCE;
    let channel = loop {
        if let Some(channel) = Channel::open() {
            break channel;
        }
        if !modules.load_next(Known::default())? {
            nap(deadline)?;
        }
    };
    steps.end("load modules of the channel");
    while !channel.is_connected() {
        nap(deadline)?;
    }
    steps.end("open the channel");
    Ok(channel)
}

fn nap(deadline: Instant) -> Result<(), Refusal> {
    if Instant::now() > deadline {
        return Err(refuse(RefusalKind::Other, "no virtio-serial port of the keeper's name is connected"));
    }
    std::thread::sleep(NAP);
    Ok(())
}

/// Queues Hello.
pub(crate) fn say_hello(channel: &mut Channel) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let clock = clock_gettime(ClockId::Boottime);
    let uptime_us = u64::try_from(clock.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000)
        .saturating_add(u64::try_from(clock.tv_nsec / 1000).unwrap_or(0));
    channel.link.send_control(&ToHost::Hello { version: VERSION, release, uptime_us });
}

/// Makes the workload's `/dev`: the nodes that the OCI runtime specification asks for, `pts` and `shm`.
///
/// # Errors
/// The kernel lacks `tmpfs` or `devpts`.
pub(crate) fn make_dev() -> Result<(), Refusal> {
    let flags = MountFlags::NOSUID;
    mount_kernel_fs("tmpfs", DEV, flags | MountFlags::STRICTATIME, c"mode=755,size=64k")?;
    let mask = rustix::process::umask(Mode::empty());
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        make_node(name, makedev(1, minor))?;
    }
    make_node("tty", makedev(5, 0))?;
    rustix::process::umask(mask);
    let links = [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ];
    for (target, name) in links {
        rustix::fs::symlink(target, format!("{DEV}/{name}"))
            .or_refuse(RefusalKind::Root, || format!("making /dev/{name}"))?;
    }
    let flags = flags | MountFlags::NOEXEC;
    mount_kernel_fs("devpts", PTS, flags, c"mode=620,gid=5,ptmxmode=666")?;
    let shm = format!("{DEV}/shm");
    mount_kernel_fs("tmpfs", &shm, flags | MountFlags::NODEV, c"mode=1777,size=64m")
}

fn make_node(name: &str, device: u64) -> Result<(), Refusal> {
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(CWD, format!("{DEV}/{name}"), FileType::CharacterDevice, mode, device)
        .or_refuse(RefusalKind::Root, || format!("making /dev/{name}"))
}
