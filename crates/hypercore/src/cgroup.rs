//! Control groups: what the processes of one spacecore may take of the machine together, what they use, and that nothing of
//! it is left.
//!
//! On version 1 a group is one folder in each controller's hierarchy, on version 2 one folder. The group of a container is
//! made and limited by `libcontainer`, that of a virtual machine monitor by [`Group::make`].
//!
//! Root's groups lie at the top of the hierarchy. Anybody else needs a group that is handed on, and version 2: see
//! [`delegation`].
//!
//! Source: the Linux kernel's `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/`.

pub(crate) mod delegation;
mod limits;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::driver::Observation;
use delegation::Delegated;
pub use limits::Limits;
pub(crate) use limits::{PERIOD_US, quota_us, shares};

/// Where control groups are mounted.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";
/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const VERSION_2: rustix::fs::FsWord = 0x6367_7270;
/// How long a group may take to become empty after everything in it was killed.
const PATIENCE: Duration = Duration::from_secs(10);
const NAP: Duration = Duration::from_millis(1);

/// Whether this machine has version 2 alone.
pub(crate) fn is_unified() -> bool {
    rustix::fs::statfs(ROOT).is_ok_and(|status| status.f_type == VERSION_2)
}

/// The controllers of version 1 that limit or measure a spacecore.
pub(crate) const NEEDED: [&str; 6] = ["memory", "cpu", "cpuacct", "pids", "freezer", "devices"];

/// Writes the calling process into the group that it is in already, which changes nothing.
///
/// The kernel makes whoever first moves a process between groups wait until every processor has passed a quiet state, some
/// milliseconds; for a while after that nobody waits. Who has nothing else to do can wait early.
///
/// # Errors
/// The group isn't there, or isn't the user's to write.
pub fn wake() -> io::Result<()> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let wanted = if is_unified() { "0::" } else { ":pids:" };
    let group =
        own.lines().find_map(|line| Some(line.split_once(wanted)?.1)).ok_or(io::ErrorKind::NotFound)?;
    let hierarchy = if is_unified() { "" } else { "pids" };
    fs::write(Path::new(ROOT).join(hierarchy).join(group.trim_start_matches('/')).join("cgroup.procs"), "0")
}

/// The first controller that this machine lacks of those that limit a spacecore.
pub(crate) fn lacks() -> Option<&'static str> {
    let unified = is_unified();
    let listed = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).unwrap_or_default();
    ["memory", "cpu", "pids", "freezer"].into_iter().find(|name| match unified {
        // Version 2 freezes without a controller.
        true => *name != "freezer" && !listed.split_whitespace().any(|controller| controller == *name),
        false => !Path::new(ROOT).join(name).join("cgroup.procs").exists(),
    })
}

/// Why a spacecore can have no control group of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoGroup {
    /// A controller lacks.
    #[error("control groups lack the controller {0}, which limits a spacecore; see /sys/fs/cgroup")]
    NoController(&'static str),
    /// They are mounted so that nobody can change them.
    #[error("control groups can't be changed here: /sys/fs/cgroup is mounted read-only")]
    ReadOnly,
    /// They have a version that can't be handed on to a user.
    #[error(
        "control groups are of version 1 here, and only version 2 can be handed on to a user; run vimana with sudo, or boot with systemd.unified_cgroup_hierarchy=1"
    )]
    Version1,
    /// The user may not make control groups.
    #[error("no control group is handed on to this user; {IN_SCOPE}, or run vimana with sudo")]
    NotDelegated,
    /// The user's control group holds processes that aren't this program's to move.
    #[error(
        "the control group {} holds other processes, beside which no spacecore's group can lie; {IN_SCOPE}",
        group.display()
    )]
    OthersInGroup {
        /// Its folder.
        group: PathBuf,
    },
    /// A controller isn't handed on to the user's control group.
    #[error(
        "the control group {} has no controller {controller}, which limits a spacecore; sudo systemctl edit user@.service: [Service] Delegate=cpu memory pids, then log in again",
        group.display()
    )]
    NotHandedOn {
        /// The controller.
        controller: &'static str,
        /// The group's folder.
        group: PathBuf,
    },
}

/// What gives a user's command a control group of its own.
const IN_SCOPE: &str =
    "start it in one of its own: systemd-run --user --scope -p Delegate=yes vimana run ...";

/// Where groups of spacecores can be made.
pub(crate) enum Place {
    /// At the top of the hierarchy.
    Top,
    /// In a group that is handed on.
    Below(Delegated),
}

/// Where the calling user's groups can be made.
pub(crate) fn place() -> Result<Place, NoGroup> {
    let (is_root, is_unified) = (rustix::process::geteuid().is_root(), is_unified());
    if !is_root && !is_unified {
        return Err(NoGroup::Version1);
    }
    if let Some(controller) = lacks() {
        return Err(NoGroup::NoController(controller));
    }
    // What looks like the top inside a container of somebody else's is a group like others, and has this file.
    let is_top = !is_unified || !Path::new(ROOT).join("cgroup.type").exists();
    if !is_root || !is_top {
        return delegation::find().map(Place::Below);
    }
    let hierarchy = Path::new(ROOT).join(if is_unified { "" } else { "memory" });
    match rustix::fs::access(hierarchy, rustix::fs::Access::WRITE_OK) {
        Ok(()) => Ok(Place::Top),
        Err(_) => Err(NoGroup::ReadOnly),
    }
}

/// Says whether spacecores that the calling user starts can have control groups, and if not, why.
///
/// # Errors
/// The first reason against it.
pub fn usable() -> Result<(), NoGroup> {
    place().map(drop)
}

/// Removes the group of the spacecore in this folder, with all that is still in it. Nothing happens where there is none.
///
/// # Errors
/// Something in it can't be ended, or it can't be removed.
pub fn clear(folder: &Path) -> io::Result<()> {
    Group::of(folder)?.remove()
}

/// The name of the control group of the spacecore in this folder.
pub(crate) fn name_of(folder: &Path) -> String {
    use sha2::Digest;
    let digest = crate::kernel::hex(&sha2::Sha256::digest(folder.as_os_str().as_bytes()));
    format!("vimana-{}", digest.get(..16).unwrap_or_default())
}

/// The group of one spacecore.
#[derive(Debug, Clone)]
pub struct Group {
    name: String,
    /// The folder that its folder lies in, on version 2.
    parent: PathBuf,
    unified: bool,
}

/// The file in a spacecore's folder that names the group which its own lies in, where that isn't the root of all.
const PARENT_FILE: &str = "group";

impl Group {
    /// The group of the spacecore in this folder, at a place where it can be made. What it lies in is noted in the folder
    /// first: whoever clears up after a keeper may belong to another.
    ///
    /// # Errors
    /// There is no such place, or the folder can't be written to.
    pub fn prepare(folder: &Path) -> io::Result<Self> {
        let name = name_of(folder);
        let top = Self { name, parent: PathBuf::from(ROOT), unified: is_unified() };
        match place().map_err(io::Error::other)? {
            Place::Top => Ok(top),
            Place::Below(delegated) => {
                let explain = |what: String| move |error| io::Error::other(format!("{what}: {error}"));
                let place = delegated.folder.display();
                delegated.settle().map_err(explain(format!("preparing the control group {place}")))?;
                let noted = fs::write(folder.join(PARENT_FILE), delegated.folder.as_os_str().as_bytes());
                noted.map_err(explain("noting the control group".to_owned()))?;
                Ok(Self { parent: delegated.folder, ..top })
            }
        }
    }

    /// The group of the spacecore in this folder, whether or not it exists.
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let top = Self { name: name_of(folder), parent: PathBuf::from(ROOT), unified: is_unified() };
        let parent = match fs::read(folder.join(PARENT_FILE)) {
            Ok(parent) => PathBuf::from(OsString::from_vec(parent)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(top),
            Err(error) => return Err(error),
        };
        let is_inside = parent.starts_with(ROOT) && !parent.iter().any(|part| part == "..");
        match is_inside {
            true => Ok(Self { parent, ..top }),
            // Killed while it was written, before there was a group.
            false => Ok(top),
        }
    }

    /// Its name, which is that of its folder.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The folder that its folder lies in, on version 2.
    pub(crate) fn parent(&self) -> &Path {
        &self.parent
    }

    /// Whether a process is in it, also one that has just ended. On version 1 the runtime has made sure.
    pub(crate) fn holds(&self, pid: i32) -> io::Result<bool> {
        if !self.unified {
            return Ok(true);
        }
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let name = Some(self.name.as_str());
        Ok(groups.lines().any(|line| line.starts_with("0::/") && line.rsplit('/').next() == name))
    }

    /// Those of its folders that there are: one for each controller, or the only one.
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
    pub(crate) fn observe(&self) -> io::Result<Observation> {
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
    pub(crate) fn freeze(&self, still: bool) -> io::Result<()> {
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
    ///
    /// # Errors
    /// Something in it doesn't end, or it can't be removed.
    pub fn remove(&self) -> io::Result<()> {
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
    pub(crate) fn freeze_file(&self, still: bool) -> io::Result<()> {
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
