//! Run folders: what a spacecore has on disk while it runs.
//!
//! Each spacecore has one folder under `run/`, named by its identifier, made by its keeper and removed by it. Its keeper
//! holds a lock in it for as long as it lives, so that a folder whose owner was killed can be told from one in use: the
//! next command sweeps it away.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use hypercore::driver::container;
use rustix::fs::{FlockOperation, flock};

const LOCK: &str = "lock";
/// The folder that a container's driver has in a run folder.
pub(crate) const CONTAINER: &str = "container";

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
        fs::remove_dir_all(&self.path)
    }
}

/// Makes a folder inside a run folder.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Removes what a keeper that was killed has left: its run folder, and what a container has outside of it.
///
/// # Errors
/// Something can't be removed.
pub fn clear(path: &Path) -> io::Result<()> {
    let container = path.join(CONTAINER);
    if container.exists() {
        container::clear(&container)?;
    }
    match fs::remove_dir_all(path) {
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
    let _gate = gate(run)?;
    let mut swept = 0;
    for entry in fs::read_dir(run)? {
        let path = entry?.path();
        if is_deserted_socket(&path) {
            // Whoever else swept it away did the same.
            let _ = fs::remove_file(&path);
        }
        if path.is_dir() && !path.join("outcome.json").exists() && !is_held(&path) && clear(&path).is_ok() {
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
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(run.join(".gate"))?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
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
    fn two_spacecores_never_share_a_folder() {
        let home = tempfile::tempdir().unwrap();
        let _first = RunFolder::create(&home.path().join("run/one")).unwrap();
        assert_eq!(
            RunFolder::create(&home.path().join("run/one")).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
    }
}
