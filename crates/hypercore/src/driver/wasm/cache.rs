//! Compiled code on disk, kept by the program's digest and everything that the code depends on.
//!
//! Loading compiled code trusts it as the processor does. So a file is loaded only from a folder that nobody but this user
//! can write to, only where it is this user's alone, and only where the SHA-256 digest at its end matches what is before it;
//! any other is compiled anew and replaced. Files appear whole, by a rename: two that store the same at once both succeed.

use std::fs::{File, Metadata, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;

/// What a file ends with, behind its digest.
const MARK: &[u8; 8] = b"vimanaw1";

const TRAILER: usize = 32 + MARK.len();

/// Bytes read at once for the digest.
const CHUNK: usize = 128 * 1024;

/// The place of one program's compiled code.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
    name: String,
}

/// Compiled code that was found and can be trusted.
#[derive(Debug)]
pub(super) struct Compiled {
    file: File,
}

impl Compiled {
    /// The file, from its beginning.
    pub(super) fn file(self) -> File {
        self.file
    }
}

/// Feeds what an engine's configuration hashes into a digest that is the same in every process.
struct Fingerprint(Sha256);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}

/// What compiled code depends on beside the program: wasmtime's version, its settings, the processor.
pub(super) fn fingerprint(engine: &Engine) -> String {
    let mut hasher = Fingerprint(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn is_own(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

impl Place {
    /// The place in a folder, which is made if it doesn't exist; none where the folder isn't this user's alone.
    pub(super) fn find(folder: &Path, digest: &str, fingerprint: &str) -> Option<Self> {
        crate::private_folder(folder).ok()?;
        let metadata = std::fs::symlink_metadata(folder).ok()?;
        let is_trusted = metadata.is_dir() && is_own(&metadata);
        let name = format!("{digest}-{fingerprint}.cwasm");
        is_trusted.then(|| Self { folder: folder.to_owned(), name })
    }

    /// Opens the compiled code; nothing where there is none, or none that can be trusted.
    pub(super) fn open(&self) -> Option<Compiled> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.folder.join(&self.name))
            .ok()?;
        let metadata = file.metadata().ok()?;
        let is_whole = metadata.is_file() && is_own(&metadata) && check(&mut file, metadata.len()).ok()?;
        io::Seek::rewind(&mut file).ok()?;
        is_whole.then_some(Compiled { file })
    }

    /// Keeps compiled code. A cache that can't be written is no reason not to run.
    pub(super) fn keep(&self, code: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder)?;
        file.write_all(code)?;
        file.write_all(&Sha256::digest(code))?;
        file.write_all(MARK)?;
        // Not synced: what a crash tears doesn't match its digest.
        file.persist(self.folder.join(&self.name)).map_err(|error| error.error)?;
        Ok(())
    }
}

/// Whether a file ends with the digest of what is before.
fn check(file: &mut File, length: u64) -> io::Result<bool> {
    let Some(mut left) = length.checked_sub(TRAILER as u64) else {
        return Ok(false);
    };
    let mut digest = Sha256::new();
    let mut chunk = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
    while left > 0 {
        let most = chunk.len().min(usize::try_from(left).unwrap_or(CHUNK));
        let part = chunk.get_mut(..most).unwrap_or_default();
        file.read_exact(part)?;
        digest.update(&*part);
        left -= part.len() as u64;
    }
    let mut trailer = [0; TRAILER];
    file.read_exact(&mut trailer)?;
    let (found, mark) = trailer.split_at(32);
    Ok(mark == MARK && found == digest.finalize().as_slice())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn place(folder: &Path) -> Place {
        Place::find(folder, "d", "f").unwrap()
    }

    #[test]
    fn what_is_kept_is_found_and_what_is_damaged_isnt() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        assert!(place.open().is_none());
        place.keep(b"code").unwrap();
        let path = folder.path().join("d-f.cwasm");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let mut kept = Vec::new();
        place.open().unwrap().file().read_to_end(&mut kept).unwrap();
        assert!(kept.starts_with(b"code"));
        let good = std::fs::read(&path).unwrap();
        for spoilt in
            [&good[..good.len() - 1], &good[1..], b"", b"vimanaw1", &[good.as_slice(), b"x"].concat()]
        {
            std::fs::write(&path, spoilt).unwrap();
            assert!(place.open().is_none(), "{spoilt:?}");
        }
        place.keep(b"code").unwrap();
        assert!(place.open().is_some(), "it is replaced");
    }

    #[test]
    fn a_folder_or_file_that_others_can_write_isnt_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let place = place(folder.path());
        place.keep(b"code").unwrap();
        set(&folder.path().join("d-f.cwasm"), 0o620);
        assert!(place.open().is_none());
        for mode in [0o770, 0o702, 0o1777] {
            set(folder.path(), mode);
            assert!(Place::find(folder.path(), "d", "f").is_none(), "{mode:o}");
        }
        set(folder.path(), 0o755);
        assert!(Place::find(folder.path(), "d", "f").is_some());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(Place::find(&link, "d", "f").is_none());
    }
}
