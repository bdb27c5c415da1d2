//! A container's control group: what it uses, whether it stands still, and that nothing of it is left.
//!
//! On version 1 the group is one folder in each controller's hierarchy, on version 2 one folder. `libcontainer` makes it and
//! sets its limits.
//!
//! Source: the Linux kernel's `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use super::mapping::{self, Use};
use crate::driver::Observation;

/// Where control groups are mounted.
pub(super) const ROOT: &str = "/sys/fs/cgroup";
/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const VERSION_2: rustix::fs::FsWord = 0x6367_7270;
/// How long a group may take to become empty after everything in it was killed.
const PATIENCE: Duration = Duration::from_secs(10);
const NAP: Duration = Duration::from_millis(1);

/// Whether this machine has version 2 alone.
pub(super) fn is_unified() -> bool {
    rustix::fs::statfs(ROOT).is_ok_and(|status| status.f_type == VERSION_2)
}

/// The controllers of version 1 that limit or measure a container.
pub(super) const NEEDED: [&str; 6] = ["memory", "cpu", "cpuacct", "pids", "freezer", "devices"];

/// Takes the hierarchies of version 1 that nothing here needs out of the calling process' own mount namespace: `libcontainer`
/// moves a container into each that it finds, and shows it there, which takes the kernel longest of all.
///
/// On version 2 it shows the group in which the container's is to lie as the root, which is what `libcontainer` works from.
pub(super) fn show_only(parent: &Path) -> io::Result<()> {
    if is_unified() {
        if parent == Path::new(ROOT) {
            return Ok(());
        }
        let tree = mapping::take(parent, None, Use::Write)?;
        return mapping::hang(&tree, Path::new(ROOT));
    }
    for hierarchy in fs::read_dir(ROOT).into_iter().flatten().flatten() {
        let name = hierarchy.file_name().to_string_lossy().into_owned();
        let is_link = hierarchy.file_type().is_ok_and(|kind| kind.is_symlink());
        if !is_link && !name.split(',').any(|controller| NEEDED.contains(&controller)) {
            // What can't be hidden is used.
            let _ = rustix::mount::unmount(hierarchy.path(), rustix::mount::UnmountFlags::DETACH);
        }
    }
    Ok(())
}

/// Writes the calling process into the group that it is in already, which changes nothing.
///
/// The kernel makes whoever first moves a process between groups wait until every processor has passed a quiet state, some
/// milliseconds; for a while after that nobody waits. A process that has nothing else to do can wait early.
pub(super) fn wake() -> io::Result<()> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let wanted = if is_unified() { "0::" } else { ":pids:" };
    let group =
        own.lines().find_map(|line| Some(line.split_once(wanted)?.1)).ok_or(io::ErrorKind::NotFound)?;
    let hierarchy = if is_unified() { "" } else { "pids" };
    fs::write(Path::new(ROOT).join(hierarchy).join(group.trim_start_matches('/')).join("cgroup.procs"), "0")
}

/// The first controller that this machine lacks of those that limit a container.
pub(super) fn lacks() -> Option<&'static str> {
    let unified = is_unified();
    let listed = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).unwrap_or_default();
    ["memory", "cpu", "pids", "freezer"].into_iter().find(|name| match unified {
        // Version 2 freezes without a controller.
        true => *name != "freezer" && !listed.split_whitespace().any(|controller| controller == *name),
        false => !Path::new(ROOT).join(name).join("cgroup.procs").exists(),
    })
}

/// The group of one container.
#[derive(Debug, Clone)]
pub(super) struct Group {
    name: String,
    /// The folder that its folder lies in, on version 2.
    parent: PathBuf,
    unified: bool,
}

/// The file in a container's folder that names the group which its own lies in, where that isn't the root of all.
const PARENT_FILE: &str = "group";

impl Group {
    /// The group of this name below the root, whether or not it exists.
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), parent: PathBuf::from(ROOT), unified: is_unified() }
    }

    /// The group of this name below a delegated one, which is noted in the container's folder first: whoever clears up after
    /// a keeper may belong to another.
    pub(super) fn below(parent: &Path, name: &str, folder: &Path) -> io::Result<Self> {
        fs::write(folder.join(PARENT_FILE), parent.as_os_str().as_bytes())?;
        Ok(Self { parent: parent.to_owned(), ..Self::new(name) })
    }

    /// The group of this name of the container in this folder.
    pub(super) fn of(folder: &Path, name: &str) -> io::Result<Self> {
        let parent = match fs::read(folder.join(PARENT_FILE)) {
            Ok(parent) => PathBuf::from(OsString::from_vec(parent)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::new(name)),
            Err(error) => return Err(error),
        };
        let is_inside = parent.starts_with(ROOT) && !parent.iter().any(|part| part == "..");
        match is_inside {
            true => Ok(Self { parent, ..Self::new(name) }),
            // Killed while it was written, before there was a group.
            false => Ok(Self::new(name)),
        }
    }

    /// The folder that its folder lies in, on version 2.
    pub(super) fn parent(&self) -> &Path {
        &self.parent
    }

    /// Whether a process is in it, also one that has just ended. On version 1 the runtime has made sure.
    pub(super) fn holds(&self, pid: i32) -> io::Result<bool> {
        if !self.unified {
            return Ok(true);
        }
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let name = Some(self.name.as_str());
        Ok(groups.lines().any(|line| line.starts_with("0::/") && line.rsplit('/').next() == name))
    }

    /// Its folders: one for each controller, or the only one.
    fn folders(&self) -> Vec<PathBuf> {
        if self.unified {
            return vec![self.parent.join(&self.name)];
        }
        let controllers = fs::read_dir(ROOT).into_iter().flatten().filter_map(Result::ok);
        controllers
            .map(|controller| controller.path().join(&self.name))
            .filter(|path| path.is_dir())
            .collect()
    }

    fn file(&self, unified: &str, controller: &str, name: &str) -> PathBuf {
        match self.unified {
            true => self.parent.join(&self.name).join(unified),
            false => Path::new(ROOT).join(controller).join(&self.name).join(name),
        }
    }

    fn number(&self, unified: &str, controller: &str, name: &str) -> io::Result<u64> {
        let text = fs::read_to_string(self.file(unified, controller, name))?;
        text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// Measures it.
    pub(super) fn observe(&self) -> io::Result<Observation> {
        let cpu = match self.unified {
            true => {
                let stat = fs::read_to_string(self.file("cpu.stat", "", ""))?;
                let used =
                    stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok());
                Duration::from_micros(used.unwrap_or(0))
            }
            false => Duration::from_nanos(self.number("", "cpuacct", "cpuacct.usage")?),
        };
        Ok(Observation {
            resident_bytes: self.number("memory.current", "memory", "memory.usage_in_bytes")?,
            cpu,
            threads: self.number("pids.current", "pids", "pids.current")?,
        })
    }

    /// Makes all of it stand still, or go on, and waits until it does.
    pub(super) fn freeze(&self, still: bool) -> io::Result<()> {
        let (state, value) = match (self.unified, still) {
            (true, true) => ("cgroup.freeze", "1"),
            (true, false) => ("cgroup.freeze", "0"),
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
        };
        let file = self.file(state, "freezer", state);
        let deadline = Instant::now() + PATIENCE;
        loop {
            fs::write(&file, value)?;
            let is_reached = match self.unified {
                true => {
                    let events = fs::read_to_string(self.file("cgroup.events", "", ""))?;
                    events.contains(if still { "frozen 1" } else { "frozen 0" })
                }
                false => fs::read_to_string(&file)?.trim() == value,
            };
            if is_reached {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(NAP);
        }
    }

    /// Kills everything in it, however often that forks, and removes it. Nothing happens where there is none.
    pub(super) fn remove(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut left = None;
            for folder in self.folders() {
                match fs::remove_dir(&folder) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => left = Some((folder, error)),
                }
            }
            let Some((folder, error)) = left else {
                return Ok(());
            };
            if Instant::now() > deadline {
                return Err(error);
            }
            let killed = kill_all(&folder);
            // What stands still can't die.
            let _ = self.freeze_file(false);
            if !killed {
                std::thread::sleep(NAP);
            }
        }
    }

    /// Writes the state and doesn't wait for it.
    pub(super) fn freeze_file(&self, still: bool) -> io::Result<()> {
        let (name, value) = match self.unified {
            true => ("cgroup.freeze", if still { "1" } else { "0" }),
            false => ("freezer.state", if still { "FROZEN" } else { "THAWED" }),
        };
        fs::write(self.file(name, "freezer", name), value)
    }
}

/// Kills the processes in a folder; says whether there was any.
fn kill_all(folder: &Path) -> bool {
    if fs::write(folder.join("cgroup.kill"), "1").is_ok() {
        return false;
    }
    let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut any = false;
    for pid in listed.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
        // A descriptor names the process that was listed even if its number is given to another meanwhile.
        if let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            && is_listed(folder, pid)
        {
            let _ = rustix::process::pidfd_send_signal(&process, Signal::KILL);
            any = true;
        }
    }
    any
}

fn is_listed(folder: &Path, pid: Pid) -> bool {
    let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    listed.lines().any(|line| line.parse() == Ok(pid.as_raw_nonzero().get()))
}
