//! The store's file operations: what makes it survive a crash and be shared.
//!
//! - A [`Scratch`] folder under `tmp/` holds what isn't complete. Its maker keeps it locked; a folder that nobody
//!   has locked belongs to a process that died, and [`sweep`] removes it.
//! - A complete file or folder gets its name by one `rename`, after its bytes are on disk and before the folder
//!   is synced, so a name always stands for whole content.
//! - [`hold`] takes a shared lock on content in use; [`seize`] takes the exclusive lock that removal needs.
//! - [`BlobLock`] lets one process at a time make a piece of content.
//!
//! All locks are `flock(2)`: they belong to an open file, end with its last descriptor, and so never outlive a
//! process that dies.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::options::Owners;

/// A locked folder for incomplete files; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: File,
    published: bool,
    owners: Option<Owners>,
}

impl Scratch {
    /// Lets it hold files of these owners too.
    pub(crate) fn with_owners(self, owners: Option<Owners>) -> Scratch {
        let mut scratch = self;
        scratch.owners = owners;
        scratch
    }

    pub(crate) fn new(tmp: &Path) -> io::Result<Scratch> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let serial = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = tmp.join(format!("{}-{serial}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            // A sweeper may see the folder before it is locked: then it goes, and another name is tried.
            let Ok(lock) = File::open(&path) else { continue };
            if try_exclusive(&lock)? && is_at(&lock, &path) {
                return Ok(Scratch { path, _lock: lock, published: false, owners: None });
            }
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(self.path(name))
    }

    /// Writes a file and moves it to `target`, replacing what is there.
    pub(crate) fn publish_file(&self, name: &str, bytes: &[u8], target: &Path) -> io::Result<()> {
        let mut file = self.create(name)?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        fs::rename(self.path(name), target)?;
        sync_parent(target)
    }

    /// Moves the whole folder to `target`; answers `false` if something is there already.
    pub(crate) fn publish(mut self, target: &Path) -> io::Result<bool> {
        File::open(&self.path)?.sync_all()?;
        match fs::rename(&self.path, target) {
            Ok(()) => {
                self.published = true;
                sync_parent(target)?;
                Ok(true)
            }
            Err(error)
                if matches!(error.raw_os_error(), Some(code) if code == Errno::NOTEMPTY.raw_os_error()
                || code == Errno::EXIST.raw_os_error()) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.published {
            // What can't be removed now, a sweep tries again.
            let _ = remove_all(&self.path, self.owners);
        }
    }
}

/// Removes a folder in which there may be files of these owners.
fn remove_all(folder: &Path, owners: Option<Owners>) -> io::Result<()> {
    match (fs::remove_dir_all(folder), owners) {
        (Err(error), Some(owners)) if error.kind() == io::ErrorKind::PermissionDenied => {
            (owners.inside)(&mut || fs::remove_dir_all(folder))
        }
        (result, _) => result,
    }
}

/// Removes what dead processes left in `folder`, scratch folders or blobs' locks, and answers how many that were.
pub(crate) fn sweep(folder: &Path, owners: Option<Owners>) -> io::Result<u64> {
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // Another sweeper may be faster; both see to the same end.
        let Ok(file) = File::open(&path) else { continue };
        if !try_exclusive(&file)? || !is_at(&file, &path) {
            continue;
        }
        let gone = match file.metadata() {
            Ok(metadata) if metadata.is_dir() => remove_all(&path, owners),
            _ => fs::remove_file(&path),
        };
        match gone {
            Ok(()) => removed += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Files of ids that were the user's to give and aren't any more; they are in nobody's way.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

/// Opens `path` under a shared lock, or answers `None` if there is nothing.
pub(crate) fn hold(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        lock(&file, FlockOperation::LockShared)?;
        if is_at(&file, path) {
            return Ok(Some(file));
        }
    }
}

/// Opens `path` under the exclusive lock, or answers `None` if it is in use or gone.
pub(crate) fn seize(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok((try_exclusive(&file)? && is_at(&file, path)).then_some(file))
}

/// The right to make one piece of content, against every other thread and process.
#[derive(Debug)]
pub(crate) struct BlobLock {
    path: PathBuf,
    _file: File,
}

impl BlobLock {
    /// Takes the lock, calling `waiting` once if somebody else has it.
    pub(crate) fn take(path: PathBuf, waiting: &dyn Fn()) -> io::Result<BlobLock> {
        let mut told = false;
        loop {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            if !try_exclusive(&file)? {
                if !told {
                    waiting();
                    told = true;
                }
                lock(&file, FlockOperation::LockExclusive)?;
            }
            if is_at(&file, &path) {
                return Ok(BlobLock { path, _file: file });
            }
        }
    }
}

impl Drop for BlobLock {
    fn drop(&mut self) {
        // Still locked here: whoever waits sees that the name is gone and starts over.
        let _ = fs::remove_file(&self.path);
    }
}

/// Takes the shared or exclusive lock on the file at `path`, which is made if need be.
pub(crate) fn lock_file(path: &Path, exclusive: bool) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    lock(&file, if exclusive { FlockOperation::LockExclusive } else { FlockOperation::LockShared })?;
    Ok(file)
}

pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn lock(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn try_exclusive(file: &File) -> io::Result<bool> {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Tells whether `path` still names the open file: a lock on a removed or replaced file protects nothing.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => open.ino() == named.ino() && open.dev() == named.dev(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_scratch_folder_survives_a_sweep_and_a_dead_one_does_not() {
        let tmp = tempfile::tempdir().unwrap();
        let live = Scratch::new(tmp.path()).unwrap();
        live.create("x").unwrap();
        fs::create_dir(tmp.path().join("dead")).unwrap();
        fs::write(tmp.path().join("dead/file"), "x").unwrap();
        assert_eq!(sweep(tmp.path(), None).unwrap(), 1);
        assert!(live.path("x").exists());
        drop(live);
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }

    #[test]
    fn content_in_use_is_not_seized() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("x");
        fs::write(&path, "x").unwrap();
        let held = hold(&path).unwrap().unwrap();
        assert!(seize(&path).unwrap().is_none());
        drop(held);
        assert!(seize(&path).unwrap().is_some());
        assert!(hold(&tmp.path().join("y")).unwrap().is_none());
    }

    #[test]
    fn one_thread_at_a_time_has_a_blobs_lock() {
        let tmp = tempfile::tempdir().unwrap();
        let inside = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let lock = BlobLock::take(tmp.path().join("blob"), &|| {}).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }
}
