//! Run folders: what a spacecore has on disk while it runs.
//!
//! Each spacecore has one folder under `run/`, named by its identifier, made by its keeper and removed by it. Its keeper
//! holds a lock in it for as long as it lives, so that a folder whose owner was killed can be told from one in use: the
//! next command sweeps it away.
//!
//! The folder of an independent keeper is made, and locked, by whoever starts the keeper, which inherits the lock: the lock
//! belongs to the open file (flock(2)), and is held until the last process has closed it. So there is no moment at which the
//! keeper is on its way and its folder seems to be nobody's. Such a keeper leaves its outcome there. [`look`] tells which of
//! these is the case.

mod holder;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use hypercore::cgroup;
use hypercore::driver::container;
use hypercore::remove::remove_tree;
use hypercore::routed;
use rustix::fs::{FlockOperation, flock};

use crate::keeper::report::{self, Outcome};
use crate::replace::{Durable, replace};

pub(crate) use self::holder::{kill_holder, signal_holder};

const LOCK: &str = "lock";
/// What version an independent keeper speaks, as a number.
const PROTOCOL: &str = "protocol";
/// What an independent keeper leaves.
const OUTCOME: &str = "outcome.json";
/// The folder that a container's driver has in a run folder.
pub(crate) const CONTAINER: &str = "container";
/// The folder that a virtual machine's driver has there.
pub(crate) const MACHINE: &str = "machine";
/// The folder there that passt's control group is named by.
pub(crate) const NETWORK: &str = "network";

/// A run folder that this process holds.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    lock: File,
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
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Takes over what another process has made and locked, with the open file that holds the lock.
    ///
    /// # Errors
    /// The file isn't the folder's lock, or somebody else holds it.
    pub fn take_over(path: &Path, lock: OwnedFd) -> io::Result<Self> {
        let lock = File::from(lock);
        let (given, named) = (lock.metadata()?, fs::symlink_metadata(path.join(LOCK))?);
        if (given.dev(), given.ino()) != (named.dev(), named.ino()) {
            let path = path.display();
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("this isn't the lock of {path}"),
            ));
        }
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// The open file that holds the lock, for a child to inherit.
    pub(crate) fn lock(&self) -> &File {
        &self.lock
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
    let container = path.join(CONTAINER);
    if is_folder(&container) {
        container::clear(&container)?;
    }
    for grouped in [path.join(MACHINE), path.join(NETWORK)] {
        if is_folder(&grouped) {
            cgroup::clear(&grouped)?;
        }
    }
    match remove_tree(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What is left of a spacecore in its run folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// Its keeper lives, or is about to: it can be adopted.
    Held,
    /// Its keeper has ended, and left this outcome.
    Ended(Outcome),
    /// Its keeper is gone without a word, or never came to life: [`clear`] takes away what it left.
    Deserted,
    /// There is no such folder.
    Nothing,
}

/// Looks at what is left of a spacecore. A keeper that lives is always [`Left::Held`], also when its spacecore has ended.
///
/// # Errors
/// The folder can't be looked into.
pub fn look(path: &Path) -> io::Result<Left> {
    match path.symlink_metadata() {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Left::Nothing),
        Err(error) => return Err(error),
    }
    if is_held(path) {
        return Ok(Left::Held);
    }
    match fs::read(path.join(OUTCOME)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).map_or(Left::Deserted, Left::Ended)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Left::Deserted),
        Err(error) => Err(error),
    }
}

/// Says in a run folder what version its keeper speaks. To be called before it listens.
///
/// # Errors
/// The folder can't be written.
pub(crate) fn say_protocol(path: &Path) -> io::Result<()> {
    let unfinished = path.join("protocol.tmp");
    replace(&path.join(PROTOCOL), &unfinished, report::PROTOCOL.to_string().as_bytes(), Durable::No)
}

/// What version the keeper speaks that listens in a run folder. Those of version 1 didn't always say so.
pub(crate) fn protocol(path: &Path) -> u32 {
    let said = fs::read_to_string(path.join(PROTOCOL)).ok();
    said.and_then(|said| said.trim().parse().ok()).unwrap_or(1)
}

/// Leaves an outcome in a run folder: whole, or not at all, whatever ends this process or the machine.
///
/// # Errors
/// The folder can't be written.
pub(crate) fn leave(path: &Path, outcome: &Outcome) -> io::Result<()> {
    let unfinished = path.join("outcome.json.tmp");
    let outcome = serde_json::to_vec(outcome)?;
    replace(&path.join(OUTCOME), &unfinished, &outcome, Durable::Yes)
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
            && !path.join(OUTCOME).exists()
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

/// Whether somebody holds the folder. Two who ask at the same time don't take each other for its owner.
fn is_held(path: &Path) -> bool {
    // Whatever else lies there under this name neither blocks nor leads elsewhere.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    match OpenOptions::new().read(true).custom_flags(flags).open(path.join(LOCK)) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockShared).is_err(),
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
    fn what_is_left_of_a_spacecore_is_told_apart() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run/one");
        assert_eq!(look(&path).unwrap(), Left::Nothing);
        let held = RunFolder::create(&path).unwrap();
        assert_eq!(look(&path).unwrap(), Left::Held);
        let outcome = Outcome::NotStarted { reason: "no memory".to_owned() };
        leave(&path, &outcome).unwrap();
        assert_eq!(look(&path).unwrap(), Left::Held, "whoever keeps it still lives");
        drop(held);
        assert_eq!(look(&path).unwrap(), Left::Ended(outcome));
        assert_eq!(sweep(&home.path().join("run")).unwrap(), 0);
        for torn in ["", "{\"not-started\":{\"rea", "\0\0\0\0", "[]"] {
            fs::write(path.join(OUTCOME), torn).unwrap();
            assert_eq!(look(&path).unwrap(), Left::Deserted, "{torn:?}");
        }
        fs::remove_file(path.join(OUTCOME)).unwrap();
        assert_eq!(look(&path).unwrap(), Left::Deserted);
        fs::remove_file(path.join(LOCK)).unwrap();
        assert_eq!(look(&path).unwrap(), Left::Deserted);
    }

    #[test]
    fn a_lock_that_is_passed_on_is_held_until_the_last_has_closed_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run/one");
        let maker = RunFolder::create(&path).unwrap();
        let passed_on: OwnedFd = maker.lock().try_clone().unwrap().into();
        drop(maker);
        let keeper = RunFolder::take_over(&path, passed_on).unwrap();
        assert_eq!(look(&path).unwrap(), Left::Held);
        assert_eq!(sweep(&home.path().join("run")).unwrap(), 0);
        let another = File::open(path.join(LOCK)).unwrap();
        assert!(
            RunFolder::take_over(&path, another.into()).is_err(),
            "who doesn't hold it can't take it over"
        );
        drop(keeper);
        assert_eq!(look(&path).unwrap(), Left::Deserted);
        let other = File::open("/dev/null").unwrap();
        assert_eq!(
            RunFolder::take_over(&path, other.into()).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn a_keeper_says_what_it_speaks_and_one_that_does_not_is_of_the_first_version() {
        let home = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&home.path().join("run/one")).unwrap();
        assert_eq!(protocol(folder.path()), 1);
        say_protocol(folder.path()).unwrap();
        assert_eq!(protocol(folder.path()), report::PROTOCOL);
        fs::write(folder.path().join(PROTOCOL), "7\n").unwrap();
        assert_eq!(protocol(folder.path()), 7);
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
