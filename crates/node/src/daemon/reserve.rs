//! Space that the node keeps for itself, so that on a full disk it can still keep that something ends.
//!
//! What is kept replaces a file by another one that is written beside it, so that a full disk refuses a `stop` like everything else, and
//! with it what would make space. So a file of [`BYTES`] lies beside the records. It is given up when a change that ends something finds no
//! space, and made again as soon as there is some: after a record was replaced by one of its size that is at once.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// How much is kept: more than any record takes that isn't made to be large.
const BYTES: u64 = 4 * 1024 * 1024;

/// The file that is kept.
#[derive(Debug, Clone)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// The reserve in a folder, as much of it as there is space for.
    pub(super) fn open(folder: &Path) -> Self {
        let reserve = Self { path: folder.join("reserve") };
        reserve.fill();
        reserve
    }

    /// Gives the space up; `false` where there was none.
    pub(super) fn give_up(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }

    /// Takes the space again, if there is as much.
    pub(super) fn fill(&self) {
        // A block of a file system's has half a KiB at least (stat(2)).
        let is_full = |found: fs::Metadata| found.blocks().saturating_mul(512) >= BYTES;
        if self.path.symlink_metadata().is_ok_and(is_full) {
            return;
        }
        if self.take().is_err() {
            // It is worth nothing in part, and tried again with the next change.
            let _ = fs::remove_file(&self.path);
        }
    }

    fn take(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
            Err(rustix::io::Errno::OPNOTSUPP) => write(&mut file),
            other => Ok(other?),
        }
    }
}

/// Takes space where it can't be asked for: by bytes that nothing can make smaller.
fn write(file: &mut File) -> io::Result<()> {
    let mut random = vec![0; 64 * 1024];
    for _ in 0..BYTES / (64 * 1024) {
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        io::Write::write_all(file, &random)?;
    }
    file.sync_all()
}

/// Whether something failed because no space is left.
pub(super) fn is_for_want_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_taken_again() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::open(folder.path());
        let taken = || folder.path().join("reserve").metadata().map_or(0, |found| found.blocks() * 512);
        assert!(taken() >= BYTES);
        assert!(reserve.give_up());
        assert_eq!(taken(), 0);
        assert!(!reserve.give_up(), "there is nothing more");
        reserve.fill();
        assert!(taken() >= BYTES);
    }

    #[test]
    fn bytes_take_space_where_it_can_t_be_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::create(folder.path().join("reserve")).unwrap();
        write(&mut file).unwrap();
        assert!(file.metadata().unwrap().blocks() * 512 >= BYTES);
    }
}
