//! The keys of encrypted volumes: random, one for each volume, sealed under the key that seals secrets.
//!
//! It lies in the volume's folder as `key`, so that it goes with the volume: what was kept of a volume has the same key as the volume,
//! and is removed with it. Whoever has a copy of the folder without `VIMANA_HOME/secrets/key` reads nothing.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::secret::{SecretError, Secrets};

/// Bytes of a key: two of AES-256, as XTS mode needs.
const BYTES: usize = 64;
const FILE: &str = "key";

/// Why a volume's key can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is a volume and no key.
    #[error(
        "the volume {name} is encrypted, and its key {} is gone; without it nobody reads the volume. Put the file back, or remove the volume",
        path.display()
    )]
    Gone {
        /// The volume.
        name: String,
        /// Where its key should be.
        path: PathBuf,
    },
    /// It can't be opened.
    #[error("the key of the volume {name} can't be used")]
    Sealed {
        /// The volume.
        name: String,
        /// Why.
        source: SecretError,
    },
    /// A file can't be read or written.
    #[error("can't use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The key of the volume in this folder, as hexadecimal digits; made if there is neither key nor volume. `name` is the volume's whole name,
/// for which alone the key can be opened.
///
/// # Errors
/// There is a volume without a key, or the key isn't one that was made here for it.
pub fn of(secrets: &Secrets, folder: &Path, name: &str) -> Result<Zeroizing<String>, KeyError> {
    let path = folder.join(FILE);
    let sealed = |source| KeyError::Sealed { name: name.to_owned(), source };
    if !path.exists() {
        if super::exists(folder) {
            return Err(KeyError::Gone { name: name.to_owned(), path });
        }
        let mut key = Zeroizing::new([0; BYTES]);
        crate::secret::random(&mut *key).map_err(sealed)?;
        let bytes = secrets.seal(&purpose(name), &*key).map_err(sealed)?;
        make(folder, &path, &bytes).map_err(|source| KeyError::Io { path: path.clone(), source })?;
    }
    let bytes = fs::read(&path).map_err(|source| KeyError::Io { path: path.clone(), source })?;
    let key = secrets.open(&purpose(name), &bytes, &path).map_err(sealed)?;
    let mut digits = Zeroizing::new(String::with_capacity(2 * BYTES));
    for byte in key.iter() {
        for half in [byte >> 4, byte & 15] {
            digits.extend(char::from_digit(half.into(), 16));
        }
    }
    Ok(digits)
}

/// What a key is sealed for: a file can't be exchanged for a secret's, nor for another volume's.
fn purpose(name: &str) -> String {
    format!("volume {name}")
}

/// Writes a key that is whole or not there. Of two who make one at the same time the first decides, as something may be encrypted by it.
fn make(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = folder.join(format!(".{FILE}.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    match fs::hard_link(&new, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::remove_file(&new)?;
    File::open(folder)?.sync_all()
}

/// Destroys the key of the volume in this folder, if it has one.
///
/// # Errors
/// The disk fails.
pub(super) fn destroy(folder: &Path) -> io::Result<()> {
    let path = folder.join(FILE);
    match OpenOptions::new().write(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(mut file) => {
            let length = usize::try_from(file.metadata()?.len()).unwrap_or(0).min(4096);
            file.write_all(&vec![0; length])?;
            file.sync_all()?;
        }
    }
    fs::remove_file(&path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_for_a_volume_and_for_no_other() {
        let home = tempfile::tempdir().unwrap();
        let secrets = Secrets::at(home.path().join("secrets"));
        let (one, two) = (home.path().join("one"), home.path().join("two"));
        let key = of(&secrets, &one, "db/one").unwrap();
        assert_eq!(key.len(), 2 * BYTES);
        assert_eq!(*key, *of(&secrets, &one, "db/one").unwrap());
        assert_ne!(*key, *of(&secrets, &two, "db/two").unwrap());
        fs::copy(two.join(FILE), one.join(FILE)).unwrap();
        assert!(matches!(of(&secrets, &one, "db/one"), Err(KeyError::Sealed { .. })));
    }

    #[test]
    fn a_volume_without_its_key_gets_no_new_one() {
        let home = tempfile::tempdir().unwrap();
        let secrets = Secrets::at(home.path().join("secrets"));
        let folder = home.path().join("data");
        of(&secrets, &folder, "db/data").unwrap();
        fs::write(folder.join("volume.json"), "{}").unwrap();
        destroy(&folder).unwrap();
        destroy(&folder).unwrap();
        assert!(matches!(of(&secrets, &folder, "db/data"), Err(KeyError::Gone { .. })));
        assert!(!folder.join(FILE).exists());
    }
}
