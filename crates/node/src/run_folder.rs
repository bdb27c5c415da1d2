//! Run folders: what a spacecore has on disk while it runs.
//!
//! Each spacecore has one folder under `run/`, named by its identifier, made by its keeper and removed by it. Its keeper
//! holds a lock in it for as long as it lives, so that a folder whose owner was killed can be told from one in use: the
//! next command sweeps it away.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use hypercore::cgroup;
use hypercore::driver::container;
use hypercore::remove::remove_tree;
use hypercore::routed;
use rustix::fs::{FlockOperation, flock};

const LOCK: &str = "lock";
/// The folder that a container's driver has in a run folder.
pub(crate) const CONTAINER: &str = "container";
/// The folder that a virtual machine's driver has there.
pub(crate) const MACHINE: &str = "machine";

/// A run folder that this process holds.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes the folder and holds it.
    ///
    /// # Errors
    /// It exists already, or can't be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let all = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(all)?;
        // A sweep that runs at the same time mustn't see the folder without its lock.
        let _creation = gate(all)?;
        DirBuilder::new().mode(0o700).create(path)?;
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder with all that is in it.
    ///
    /// # Errors
    /// Something in it can't be removed.
    pub fn remove(self) -> io::Result<()> {
        remove_tree(&self.path)
    }
}

/// Makes a folder inside a run folder.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Removes what a keeper that was killed has left: its run folder, and what a container or a virtual machine has outside of it.
///
/// # Errors
/// Something can't be removed.
pub fn clear(path: &Path) -> io::Result<()> {
    let is_folder = |path: &Path| path.symlink_metadata().is_ok_and(|found| found.is_dir());
    let (container, machine) = (path.join(CONTAINER), path.join(MACHINE));
    if is_folder(&container) {
        container::clear(&container)?;
    }
    if is_folder(&machine) {
        cgroup::clear(&machine)?;
    }
    match remove_tree(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes the folders under `run` whose owners are gone; returns how many there were. Folders of a keeper that ended by
/// itself and left its outcome for somebody to read are kept.
///
/// # Errors
/// The folder `run` can't be read.
pub fn sweep(run: &Path) -> io::Result<usize> {
    if !run.exists() {
        return Ok(0);
    }
    routed::sweep();
    let _gate = gate(run)?;
    let mut swept = 0;
    for entry in fs::read_dir(run)? {
        let path = entry?.path();
        if is_deserted_socket(&path) {
            // Whoever else swept it away did the same.
            let _ = fs::remove_file(&path);
        }
        if path.symlink_metadata().is_ok_and(|found| found.is_dir())
            && !path.join("outcome.json").exists()
            && !is_held(&path)
            && clear(&path).is_ok()
        {
            swept += 1;
        }
    }
    Ok(swept)
}

/// Whether this is the socket of a keeper that was killed.
fn is_deserted_socket(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "sock")
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn is_held(path: &Path) -> bool {
    match OpenOptions::new().write(true).open(path.join(LOCK)) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err(),
        // A folder without a lock was being removed when its owner died.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Holds the gate that every change of the folder `run` goes through.
pub(crate) fn gate(run: &Path) -> io::Result<File> {
    check_own(run)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(run.join(".gate"))?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

/// Refuses a folder in which others could put something for this user to follow, to join, or to clear away.
///
/// # Errors
/// It isn't a folder of this user's, or others may write to it.
pub(crate) fn check_own(run: &Path) -> io::Result<()> {
    let found = run.symlink_metadata()?;
    if found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    let path = run.display();
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("{path} must be a folder of the user who runs this, and nobody else may write to it"),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_sweep_takes_what_nobody_holds_and_leaves_what_somebody_does() {
        let home = tempfile::tempdir().unwrap();
        let run = home.path().join("run");
        let held = RunFolder::create(&run.join("held")).unwrap();
        let dead = RunFolder::create(&run.join("dead")).unwrap();
        fs::write(dead.path().join("disk.img"), "x").unwrap();
        let dead_path = dead.path().to_owned();
        drop(dead);
        fs::create_dir(run.join("half-removed")).unwrap();
        assert_eq!(sweep(&run).unwrap(), 2);
        assert!(held.path().exists() && !dead_path.exists() && !run.join("half-removed").exists());
        held.remove().unwrap();
        assert_eq!(sweep(&run).unwrap(), 0);
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused_and_no_link_is_followed() {
        let home = tempfile::tempdir().unwrap();
        let run = home.path().join("run");
        let precious = home.path().join("precious/upper");
        fs::create_dir_all(&precious).unwrap();
        fs::create_dir_all(run.join("dead")).unwrap();
        std::os::unix::fs::symlink(home.path().join("precious"), run.join("dead/container")).unwrap();
        std::os::unix::fs::symlink(home.path().join("precious"), run.join("linked")).unwrap();
        sweep(&run).unwrap();
        assert!(precious.exists() && !run.join("dead").exists());
        fs::set_permissions(&run, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(sweep(&run).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn two_spacecores_never_share_a_folder() {
        let home = tempfile::tempdir().unwrap();
        let _first = RunFolder::create(&home.path().join("run/one")).unwrap();
        assert_eq!(
            RunFolder::create(&home.path().join("run/one")).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
    }
}
