//! Files that are replaced whole, whatever ends this process or the machine meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Whether the new content must be on the disk when the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    /// It outlives a power cut.
    Yes,
    /// It outlives this process.
    No,
}

/// Replaces a file's content by way of `new`, a name in the same folder that nobody else writes to. Its owner alone reads it.
///
/// # Errors
/// It can't be written; what was there before still is.
pub(crate) fn replace(path: &Path, new: &Path, bytes: &[u8], durable: Durable) -> io::Result<()> {
    let replaced = write(path, new, bytes, durable);
    if replaced.is_err() {
        // On a full disk what has been written of it would only be in the way.
        let _ = fs::remove_file(new);
    }
    replaced
}

fn write(path: &Path, new: &Path, bytes: &[u8], durable: Durable) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(new)?;
    file.write_all(bytes)?;
    if durable == Durable::No {
        return fs::rename(new, path);
    }
    file.sync_all()?;
    fs::rename(new, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_new_content_or_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join("file"), folder.path().join("new"));
        for durable in [Durable::Yes, Durable::No] {
            replace(&path, &new, b"content", durable).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"content");
            assert!(!new.exists());
        }
        assert!(replace(&path, &folder.path().join("none/new"), b"other", Durable::Yes).is_err());
        // A folder isn't replaced by a file.
        fs::create_dir(folder.path().join("folder")).unwrap();
        assert!(replace(&folder.path().join("folder"), &new, b"other", Durable::No).is_err());
        assert!(!new.exists(), "nothing is left of what failed");
        assert_eq!(fs::read(&path).unwrap(), b"content");
    }
}
