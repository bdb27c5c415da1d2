//! The output of a workload, kept on disk by a keeper that outlives whoever reads it.

use std::fs::{File, OpenOptions, rename};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Size in bytes at which a file is set aside; one older file is kept, so a stream needs twice this at most.
const ROTATE_AT: u64 = 8 * 1024 * 1024;

/// One stream's file, `NAME.log`, and the one before it, `NAME.log.1`.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Spool {
    /// Opens the file of a stream in a run folder, and goes on at its end.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn open(run_folder: &Path, name: &str) -> io::Result<Self> {
        let path = run_folder.join(format!("{name}.log"));
        let file = append(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// The disk is full or gone; what was written before stays.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size >= ROTATE_AT {
            rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = append(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(bytes)?;
        self.size = self.size.saturating_add(bytes.len() as u64);
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_never_grows_beyond_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), "stdout").unwrap();
        let chunk = vec![b'x'; 1024 * 1024];
        for _ in 0..40 {
            spool.write(&chunk).unwrap();
        }
        let sizes: Vec<u64> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), 2);
        assert!(sizes.iter().all(|size| *size <= ROTATE_AT + chunk.len() as u64), "{sizes:?}");
    }
}
