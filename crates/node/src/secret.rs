//! Secrets: values that workloads read and nobody else, encrypted at rest.
//!
//! Under `VIMANA_HOME/secrets/`: `key`, 32 random bytes, and one file for each secret, `NAME.secret`. A file is a version's byte, a nonce of
//! 12 bytes, and the value under ChaCha20-Poly1305 (RFC 8439) with the name as associated data, so that files can't be exchanged for each
//! other. Whoever can read the key reads the secrets: it protects copies of the folder without it, such as a backup that leaves it out.
//!
//! A value travels in the keeper's assignment, which is memory without a name, and over the guest's channel. It never stands in a plan, a
//! log, an argument or a record.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::replace::Durable;

/// The longest value in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

const VERSION: u8 = 1;
const KEY: &str = "key";
const ENDING: &str = ".secret";

/// Why a secret can't be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// A name that can't be a file's.
    #[error(
        "{0:?} can't be the name of a secret: letters, digits, hyphens, underscores and dots, no dot first, at most 64"
    )]
    Name(String),
    /// There is none.
    #[error(
        "there is no secret {0}; vimana secret set {0} makes it, and vimana secret ls lists those that there are"
    )]
    Unknown(String),
    /// It is too long.
    #[error("a secret has at most {MAX_BYTES} bytes; this one has more")]
    Long,
    /// The file isn't what was written, or the key is another.
    #[error("{} can't be decrypted: it was changed, or the key beside it is another one", .0.display())]
    Broken(PathBuf),
    /// The machine has no randomness to give, or refuses the key.
    #[error("this machine can't encrypt now")]
    Crypto,
    /// A file can't be read or written.
    #[error("can't use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> SecretError {
    let path = path.to_owned();
    move |source| SecretError::Io { path: path.clone(), source }
}

/// The secrets of a home.
#[derive(Debug, Clone)]
pub struct Secrets {
    folder: PathBuf,
}

impl Secrets {
    /// Those in this folder, which needn't exist yet.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Keeps a value, in place of one that there may be.
    ///
    /// # Errors
    /// The name or the value can't be, or the disk fails; what was there before still is.
    pub fn set(&self, name: &str, value: &[u8]) -> Result<(), SecretError> {
        let path = self.path(name)?;
        if value.len() > MAX_BYTES {
            return Err(SecretError::Long);
        }
        let file = self.seal(name, value)?;
        replace(&path, &file)
    }

    /// A value.
    ///
    /// # Errors
    /// There is none of this name, or it can't be read.
    pub fn get(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let path = self.path(name)?;
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SecretError::Unknown(name.to_owned()));
            }
            Err(source) => return Err(SecretError::Io { path, source }),
        };
        self.open(name, &bytes, &path)
    }

    /// Encrypts a value under the key of these secrets, for this purpose alone.
    pub(crate) fn seal(&self, purpose: &str, value: &[u8]) -> Result<Vec<u8>, SecretError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(at(&self.folder))?;
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        let mut bytes = Zeroizing::new(value.to_vec());
        let sealed = self.key()?.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(purpose.as_bytes()),
            &mut *bytes,
        );
        sealed.map_err(|_| SecretError::Crypto)?;
        Ok([&[VERSION][..], &nonce, &bytes].concat())
    }

    /// Decrypts what [`Secrets::seal`] has made for this purpose; `path` is where it was found, for people.
    pub(crate) fn open(
        &self,
        purpose: &str,
        bytes: &[u8],
        path: &Path,
    ) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let broken = || SecretError::Broken(path.to_owned());
        let (head, sealed) = bytes.split_at_checked(1 + NONCE_LEN).ok_or_else(broken)?;
        if head[0] != VERSION {
            return Err(broken());
        }
        let nonce = Nonce::try_assume_unique_for_key(&head[1..]).map_err(|_| broken())?;
        let mut value = Zeroizing::new(sealed.to_vec());
        let length = self
            .key()?
            .open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut value)
            .map_err(|_| broken())?
            .len();
        value.truncate(length);
        Ok(value)
    }

    /// Forgets a secret.
    ///
    /// # Errors
    /// There is none of this name, or the disk fails.
    pub fn remove(&self, name: &str) -> Result<(), SecretError> {
        let path = self.path(name)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(SecretError::Unknown(name.to_owned()))
            }
            other => other.map_err(at(&path)),
        }
    }

    /// The names of all secrets.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn names(&self) -> Result<BTreeSet<String>, SecretError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(at(&self.folder)(error)),
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(at(&self.folder))?.file_name();
            names.extend(name.to_str().and_then(|name| name.strip_suffix(ENDING)).map(str::to_owned));
        }
        Ok(names)
    }

    fn path(&self, name: &str) -> Result<PathBuf, SecretError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = (1..=64).contains(&name.len()) && name.bytes().all(is_plain) && !name.starts_with('.');
        match is_name {
            true => Ok(self.folder.join(format!("{name}{ENDING}"))),
            false => Err(SecretError::Name(name.to_owned())),
        }
    }

    /// The key, which is made with the first secret. Two who make it at the same time agree on one.
    fn key(&self) -> Result<LessSafeKey, SecretError> {
        let path = self.folder.join(KEY);
        let mut key = Zeroizing::new(Vec::new());
        if !path.exists() {
            let mut fresh = Zeroizing::new([0; 32]);
            random(&mut *fresh)?;
            let new = self.folder.join(format!(".{KEY}.{}", std::process::id()));
            replace(&new, &*fresh)?;
            match fs::hard_link(&new, &path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(&path)(error)),
                Ok(()) | Err(_) => {}
            }
            fs::remove_file(&new).map_err(at(&new))?;
        }
        File::open(&path).and_then(|mut file| file.read_to_end(&mut key)).map_err(at(&path))?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).map_err(|_| SecretError::Broken(path))?;
        Ok(LessSafeKey::new(key))
    }
}

/// Fills bytes with what nobody can guess.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), SecretError> {
    let got = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty());
    if got.is_ok_and(|got| got == bytes.len()) { Ok(()) } else { Err(SecretError::Crypto) }
}

/// Writes a file that is whole or not there, and that its owner alone reads.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), SecretError> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(new);
    crate::replace::replace(path, &new, bytes, Durable::Yes).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_set_is_read_and_stands_nowhere_in_the_clear() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Secrets::at(folder.path().join("secrets"));
        assert!(secrets.names().unwrap().is_empty());
        secrets.set("token", b"hunter2-hunter2").unwrap();
        secrets.set("token", b"correct horse battery").unwrap();
        secrets.set("empty", b"").unwrap();
        assert_eq!(&**secrets.get("token").unwrap(), b"correct horse battery");
        assert_eq!(&**secrets.get("empty").unwrap(), b"");
        assert_eq!(secrets.names().unwrap().into_iter().collect::<Vec<_>>(), ["empty", "token"]);
        for entry in fs::read_dir(folder.path().join("secrets")).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            assert!(!bytes.windows(7).any(|part| part == b"battery" || part == b"hunter2"), "{path:?}");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
        }
        secrets.remove("token").unwrap();
        assert!(matches!(secrets.get("token"), Err(SecretError::Unknown(_))));
        assert!(matches!(secrets.remove("token"), Err(SecretError::Unknown(_))));
    }

    #[test]
    fn a_changed_or_exchanged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Secrets::at(folder.path().to_owned());
        secrets.set("a", b"of a").unwrap();
        secrets.set("b", b"of b").unwrap();
        let (a, b) = (folder.path().join("a.secret"), folder.path().join("b.secret"));
        let good = fs::read(&a).unwrap();
        fs::copy(&b, &a).unwrap();
        assert!(matches!(secrets.get("a"), Err(SecretError::Broken(_))));
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            fs::write(&a, changed).unwrap();
            assert!(matches!(secrets.get("a"), Err(SecretError::Broken(_))), "byte {at}");
        }
        for length in 0..good.len() {
            fs::write(&a, &good[..length]).unwrap();
            assert!(matches!(secrets.get("a"), Err(SecretError::Broken(_))), "length {length}");
        }
        fs::write(&a, good).unwrap();
        assert!(secrets.get("a").is_ok());
        fs::write(folder.path().join(KEY), [7; 32]).unwrap();
        assert!(matches!(secrets.get("a"), Err(SecretError::Broken(_))));
    }

    #[test]
    fn names_never_lead_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Secrets::at(folder.path().to_owned());
        for wrong in ["", ".", "..", "a/b", "../a", ".a", "a b", &"x".repeat(65)] {
            assert!(matches!(secrets.set(wrong, b"x"), Err(SecretError::Name(_))), "{wrong}");
        }
        assert!(matches!(secrets.set("long", &vec![0; MAX_BYTES + 1]), Err(SecretError::Long)));
    }
}
