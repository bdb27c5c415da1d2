//! Writable disks: sparse files with an empty file system ([`spacecore::ext4`]).
//!
//! Only what differs from zero is written, so a disk of 100 GiB costs some 6 MB until it is used.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use spacecore::crypt::{MARK_BYTES, Mark};
pub use spacecore::ext4::Owner;
use spacecore::ext4::{self, Ground, Kind};

/// The smallest scratch disk: one group's tables and some room.
pub const MIN_BYTES: u64 = 8 * 1024 * 1024;
/// The smallest volume: that, and the smallest journal that the kernel takes.
pub const MIN_VOLUME_BYTES: u64 = 16 * 1024 * 1024;
/// The largest: what 32-bit block numbers address.
pub const MAX_BYTES: u64 = 16 * 1024 * 1024 * 1024 * 1024 - 128 * 1024 * 1024;

/// Why a scratch disk can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The size is out of range.
    #[error("a disk of {bytes} bytes can't be made; it must have {least} to {MAX_BYTES}")]
    Size {
        /// The size that was asked for.
        bytes: u64,
        /// The least.
        least: u64,
    },
    /// The file can't be written.
    #[error("can't write the disk {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes a scratch disk: the file, which must not exist, and the file system in it.
///
/// # Errors
/// The size is out of range, or the file can't be written; what was begun is removed.
pub fn create(path: &Path, bytes: u64) -> Result<(), ScratchError> {
    write(path, bytes, MIN_BYTES, Kind::Scratch)
}

/// Makes the disk of a volume: the file, which must not exist, and the file system in it, with a journal.
///
/// # Errors
/// As [`create`].
pub fn create_volume(path: &Path, bytes: u64, owner: Owner) -> Result<(), ScratchError> {
    write(path, bytes, MIN_VOLUME_BYTES, Kind::Volume(owner))
}

/// Makes the disk of an encrypted volume: the file, which must not exist, with a mark that there is no file system in it yet. The guest
/// makes it, which alone is told the key.
///
/// # Errors
/// As [`create`].
pub fn create_encrypted(path: &Path, bytes: u64) -> Result<(), ScratchError> {
    make(path, bytes, MIN_VOLUME_BYTES, |file| {
        let mut mark = [0; MARK_BYTES];
        Mark::New.write(&mut mark);
        // What it holds in clear is as large as was asked for.
        file.set_len(bytes.saturating_add(MARK_BYTES as u64))?;
        file.write_all_at(&mark, 0)?;
        file.sync_all()
    })
}

fn write(path: &Path, bytes: u64, least: u64, kind: Kind) -> Result<(), ScratchError> {
    make(path, bytes, least, |file| {
        file.set_len(bytes)?;
        ext4::format(file, bytes, kind, Ground::Zeros)?;
        if kind == Kind::Scratch { Ok(()) } else { file.sync_all() }
    })
}

fn make(
    path: &Path,
    bytes: u64,
    least: u64,
    fill: impl FnOnce(&File) -> io::Result<()>,
) -> Result<(), ScratchError> {
    if !(least..=MAX_BYTES).contains(&bytes) {
        return Err(ScratchError::Size { bytes, least });
    }
    let failed = |source| ScratchError::Write { path: path.to_owned(), source };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    fill(&file).map_err(|source| {
        // The first failure is the one to tell.
        let _ = std::fs::remove_file(path);
        failed(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_file_system_checker_finds_nothing_to_complain_of() {
        let folder = std::env::temp_dir().join(format!("vimana-scratch-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let checker = ["/sbin/e2fsck", "/usr/sbin/e2fsck"].iter().find(|path| Path::new(path).exists());
        let Some(checker) = checker else {
            eprintln!(
                "SKIPPED: the_file_system_checker_finds_nothing_to_complain_of: e2fsck isn't installed"
            );
            return;
        };
        let mib = 1024 * 1024;
        // One group, a last group that is left off, one that is kept, many groups, several descriptor blocks.
        for (number, bytes) in
            [MIN_BYTES, 129 * mib, 131 * mib, 1024 * mib, 100 * 1024 * mib].into_iter().enumerate()
        {
            let disk = folder.join(format!("{number}.img"));
            create(&disk, bytes).unwrap();
            let output = Command::new(checker).args(["-f", "-n"]).arg(&disk).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            std::fs::remove_file(&disk).unwrap();
            assert!(output.status.success(), "{bytes}: {said}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_file_system_checker_finds_nothing_but_the_missing_lost_and_found_of_a_volume() {
        let folder = tempfile::tempdir().unwrap();
        let checker = ["/sbin/e2fsck", "/usr/sbin/e2fsck"].iter().find(|path| Path::new(path).exists());
        let Some(checker) = checker else {
            eprintln!(
                "SKIPPED: the_file_system_checker_finds_nothing_but_the_missing_lost_and_found_of_a_volume: e2fsck isn't installed"
            );
            return;
        };
        let mib = 1024 * 1024;
        let owner = Owner { uid: 70_000, gid: 1000, mode: 0o1770 };
        for bytes in [MIN_VOLUME_BYTES, 129 * mib, 1024 * mib, 100 * 1024 * mib] {
            let disk = folder.path().join(format!("{bytes}.img"));
            create_volume(&disk, bytes, owner).unwrap();
            // It may put back what it misses; a second look then finds nothing at all.
            let check = |answer| Command::new(checker).args(["-f", answer]).arg(&disk).output().unwrap();
            let said = String::from_utf8_lossy(&check("-y").stdout).into_owned();
            let fixed: Vec<_> = said.lines().filter(|line| line.contains('?')).collect();
            assert_eq!(fixed, ["/lost+found not found.  Create? yes"], "{bytes}: {said}");
            assert!(check("-n").status.success(), "{bytes}");
        }
    }

    #[test]
    fn a_disk_that_held_something_else_gets_a_file_system_too() {
        let folder = tempfile::tempdir().unwrap();
        let checker = ["/sbin/e2fsck", "/usr/sbin/e2fsck"].iter().find(|path| Path::new(path).exists());
        let Some(checker) = checker else {
            eprintln!(
                "SKIPPED: a_disk_that_held_something_else_gets_a_file_system_too: e2fsck isn't installed"
            );
            return;
        };
        let mib = 1024 * 1024;
        for bytes in [MIN_VOLUME_BYTES, 300 * mib] {
            let path = folder.path().join(format!("{bytes}.img"));
            std::fs::write(&path, vec![0xa5; usize::try_from(bytes).unwrap()]).unwrap();
            let disk = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            assert!(!ext4::is_there(&disk).unwrap());
            ext4::format(&disk, bytes, Kind::Volume(Owner::default()), Ground::Anything).unwrap();
            assert!(ext4::is_there(&disk).unwrap());
            let check = |answer| Command::new(checker).args(["-f", answer]).arg(&path).output().unwrap();
            let said = String::from_utf8_lossy(&check("-y").stdout).into_owned();
            let fixed: Vec<_> = said.lines().filter(|line| line.contains('?')).collect();
            assert_eq!(fixed, ["/lost+found not found.  Create? yes"], "{bytes}: {said}");
            assert!(check("-n").status.success(), "{bytes}");
        }
    }

    #[test]
    fn a_large_disk_costs_next_to_nothing_until_it_is_used() {
        use std::os::unix::fs::MetadataExt;
        let disk = std::env::temp_dir().join(format!("vimana-scratch-sparse-{}.img", std::process::id()));
        create(&disk, 100 * 1024 * 1024 * 1024).unwrap();
        let used = std::fs::metadata(&disk).unwrap().blocks() * 512;
        std::fs::remove_file(&disk).unwrap();
        assert!(used < 8 * 1024 * 1024, "{used}");
    }

    #[test]
    fn a_size_out_of_range_is_refused_and_leaves_no_file() {
        let disk = std::env::temp_dir().join(format!("vimana-scratch-range-{}.img", std::process::id()));
        for bytes in [0, MIN_BYTES - 1, MAX_BYTES + 1] {
            assert!(matches!(create(&disk, bytes), Err(ScratchError::Size { .. })));
        }
        assert!(!disk.exists());
    }
}
