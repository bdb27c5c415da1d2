//! The control group below which a user's spacecores get theirs.
//!
//! Root takes the top of the hierarchy. Anybody else needs a group that is delegated: one whose folder, `cgroup.procs` and
//! `cgroup.subtree_control` are the user's to write (`cgroup-v2.rst`, "Delegation"). It is looked for from the caller's own
//! group upwards, because whoever moves a process must also be allowed to write to the closest group above both its old and
//! its new place.
//!
//! A group whose controllers are handed on to others may hold no processes itself. Where those in it are all ours, the
//! command and its keeper, they are moved to a group of their own beside the spacecores' ([`KEEPERS`]); where there are
//! others, it isn't this program's to move them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{NoGroup, ROOT};

/// The controllers that limit a spacecore.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// The group that the command and its keeper are moved to.
const KEEPERS: &str = "vimana-keepers";
/// How often processes are moved until no new one is found.
const ROUNDS: usize = 100;

/// A group that a spacecore's may be made in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delegated {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// The processes in it, which must be moved before.
    busy: bool,
}

/// The group that is delegated to the calling user.
pub(crate) fn find() -> Result<Delegated, NoGroup> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    search(Path::new(ROOT), own, &is_ours)
}

/// Looks from `own`, a path below `root`, upwards.
fn search(root: &Path, own: &str, is_ours: &dyn Fn(&str) -> bool) -> Result<Delegated, NoGroup> {
    let mut refusal = NoGroup::NotDelegated;
    let own = Path::new(own.trim_start_matches('/'));
    for group in own.ancestors().filter(|group| !group.as_os_str().is_empty()) {
        let name = group.file_name().unwrap_or_default().to_string_lossy();
        let folder = root.join(group);
        // A session's manager switches the controllers of its own groups on and off as its own units need them.
        let is_managed = name.ends_with(".slice") || name.starts_with("user@");
        if name == KEEPERS || is_managed || !is_writable(&folder) {
            continue;
        }
        let handed = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
        if let Some(lacking) =
            CONTROLLERS.iter().find(|name| !handed.split_whitespace().any(|it| it == **name))
        {
            refusal = NoGroup::NotHandedOn { controller: lacking, group: folder };
            continue;
        }
        let inside = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        match inside.lines().all(is_ours) {
            true => return Ok(Delegated { folder, busy: !inside.is_empty() }),
            false => refusal = NoGroup::OthersInGroup { group: folder },
        }
    }
    Err(refusal)
}

fn is_writable(group: &Path) -> bool {
    use rustix::fs::Access;
    let all = [("", Access::WRITE_OK | Access::EXEC_OK), ("cgroup.procs", Access::WRITE_OK)];
    all.into_iter()
        .chain([("cgroup.subtree_control", Access::WRITE_OK)])
        .all(|(name, access)| rustix::fs::access(group.join(name), access).is_ok())
}

/// Whether a process executes the program that this one executes.
fn is_ours(pid: &str) -> bool {
    let program = |pid: &str| fs::metadata(format!("/proc/{pid}/exe")).map(|file| (file.dev(), file.ino()));
    matches!((program(pid), program("self")), (Ok(theirs), Ok(own)) if theirs == own)
}

impl Delegated {
    /// Makes it ready: no process in it, and the controllers handed on. Others may do the same at the same time.
    pub(crate) fn settle(&self) -> io::Result<()> {
        if self.busy {
            self.move_away()?;
        }
        let wanted = CONTROLLERS.map(|name| format!("+{name}")).join(" ");
        fs::write(self.folder.join("cgroup.subtree_control"), wanted)
    }

    fn move_away(&self) -> io::Result<()> {
        let keepers = self.folder.join(KEEPERS);
        match fs::create_dir(&keepers) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        for _ in 0..ROUNDS {
            let inside = fs::read_to_string(self.folder.join("cgroup.procs"))?;
            if inside.is_empty() {
                return Ok(());
            }
            for pid in inside.lines() {
                if !is_ours(pid) && Path::new("/proc").join(pid).exists() {
                    return Err(io::Error::other("another process came into it"));
                }
                // One that has just ended needs no move.
                let _ = fs::write(keepers.join("cgroup.procs"), pid);
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of folders that looks like a hierarchy: a group's path, its controllers, its processes.
    fn hierarchy(groups: &[(&str, &str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, controllers, processes) in groups {
            let folder = root.path().join(path);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("cgroup.controllers"), controllers).unwrap();
            fs::write(folder.join("cgroup.procs"), processes).unwrap();
            fs::write(folder.join("cgroup.subtree_control"), "").unwrap();
        }
        root
    }

    const ALL: &str = "cpu io memory pids\n";

    fn found(groups: &[(&str, &str, &str)], own: &str) -> Result<(PathBuf, bool), NoGroup> {
        let root = hierarchy(groups);
        let found = search(root.path(), own, &|pid| pid == "7")?;
        Ok((found.folder.strip_prefix(root.path()).unwrap().to_owned(), found.busy))
    }

    #[test]
    fn the_closest_group_without_other_processes_is_taken() {
        let groups = [("a", ALL, ""), ("a/b.scope", ALL, "7\n7\n")];
        assert_eq!(found(&groups, "/a/b.scope").unwrap(), ("a/b.scope".into(), true));
        let groups = [("a", ALL, ""), ("a/b", ALL, "7\n8\n")];
        assert_eq!(found(&groups, "/a/b").unwrap(), ("a".into(), false));
    }

    #[test]
    fn keepers_that_were_moved_find_the_group_that_they_were_moved_from() {
        let groups = [("a", ALL, ""), ("a/vimana-keepers", ALL, "7\n")];
        assert_eq!(found(&groups, "/a/vimana-keepers").unwrap(), ("a".into(), false));
    }

    #[test]
    fn each_refusal_says_what_is_wrong_with_the_closest_group() {
        let refused = |groups: &[(&str, &str, &str)], own| found(groups, own).unwrap_err();
        assert!(matches!(refused(&[("a", ALL, "8\n")], "/a"), NoGroup::OthersInGroup { .. }));
        let lacking = refused(&[("a", "memory pids\n", "7\n")], "/a");
        assert!(matches!(lacking, NoGroup::NotHandedOn { controller: "cpu", .. }));
        // The groups of a session's manager are its own.
        let managed = [("user@1.service", ALL, ""), ("user@1.service/app.slice", ALL, "")];
        assert_eq!(refused(&managed, "/user@1.service/app.slice/x.scope"), NoGroup::NotDelegated);
        assert_eq!(refused(&[], "/"), NoGroup::NotDelegated);
    }
}
