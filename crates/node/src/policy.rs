//! Whether an image may run on this machine: `policy.toml` in the home (see [`hac::policy`]).
//!
//! ```text
//! name -> registries, digest   before anything is fetched   decide::name
//! image -> signatures, scan    before anything runs         decide::image
//! ```
//!
//! [`decide`] is pure. [`Gate`] finds out what it must be told: it reads the policy, looks for signatures, scans; and keeps
//! what it found by the image's digest, so that the next start of the same image costs next to nothing.

pub mod decide;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use evidence::signature::{Identity, KeyError, PublicKey, TrustedRoot, TrustedRootError};
use hac::Policy;
use hac::policy::{Date, Severity};
use image::advisories::{Advisories, AdvisoriesError, Scan};
use image::inventory::InventoryError;
use image::signatures::{By, Signatures, Trusted};
use image::{Image, PullOptions, Reference, Store, whole};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::home::Home;
use decide::{Facts, Refusal};

/// What stands between an image and its start.
#[derive(Debug)]
pub struct Gate {
    /// What the operator wrote; allows everything if there is nothing.
    pub policy: Policy,
    path: PathBuf,
    cache: PathBuf,
}

/// Why an image doesn't get through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// The policy says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The policy can't be read.
    #[error("can't read the policy {}, so nothing may run", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The policy has mistakes, which are shown.
    #[error("the policy has mistakes, so nothing may run\n\n{rendered}")]
    Wrong {
        /// Every mistake with its line.
        rendered: String,
    },
    /// A key that the policy names can't be read.
    #[error("can't read the key {}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key that the policy names is none.
    #[error("can't use the key {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The trust root that the policy names can't be read.
    #[error("can't read the trust root {}", path.display())]
    RootFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The trust root that the policy names is none.
    #[error("can't use the trust root {}", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TrustedRootError,
    },
    /// The advisories can't be used.
    #[error("the image can't be scanned, and the policy wants it to be")]
    Advisories(#[source] AdvisoriesError),
    /// The image's packages can't be listed.
    #[error("the image can't be scanned, and the policy wants it to be")]
    Inventory(#[source] InventoryError),
    /// The image's name can't be made whole.
    #[error("can't tell where the image comes from")]
    Name(#[source] io::Error),
}

/// A scan, and what it was made with.
#[derive(Serialize, Deserialize)]
struct KeptScan {
    program: String,
    advisories: String,
    scan: Scan,
}

/// An image that may run.
#[derive(Debug)]
pub struct Allowed {
    /// What a person should know of it.
    pub notices: Vec<String>,
    /// The first of what a scan found and couldn't read; such an image wasn't looked at as a whole.
    pub unread: Option<String>,
}

impl Gate {
    /// Reads the policy of a home.
    ///
    /// # Errors
    /// There is one, and it can't be read or has mistakes. Nothing may run then.
    pub fn open(home: &Home) -> Result<Gate, GateError> {
        let path = home.policy();
        let policy = match fs::read_to_string(&path) {
            Ok(source) => hac::policy::parse(&source).map_err(|wrong| GateError::Wrong {
                rendered: wrong.render(&path.display().to_string(), &source, false).trim_end().to_owned(),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Policy::default(),
            Err(source) => return Err(GateError::Read { path, source }),
        };
        Ok(Gate { policy, path, cache: home.cache() })
    }

    /// The policy's file, whether it is there or not.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Judges an image by its name, before anything of it is fetched.
    ///
    /// # Errors
    /// [`GateError::Refused`].
    pub fn name(&self, reference: &Reference) -> Result<(), GateError> {
        Ok(decide::name(&self.policy, &full_name(reference)?, by_digest(reference))?)
    }

    /// Judges an image before anything of it runs, and says what a person should know of it. `say` is called before what
    /// may take a while.
    ///
    /// # Errors
    /// [`GateError::Refused`]; or what the policy demands can't be found out, which is no better.
    pub fn image(
        &self,
        store: &Store,
        image: &Image,
        options: &PullOptions,
        say: &mut dyn FnMut(&str),
    ) -> Result<Allowed, GateError> {
        let name = full_name(&image.reference)?;
        let signature = match self.policy.signatures.requires(&name) {
            true => Some(self.signature(store, image, options)?),
            false => None,
        };
        let facts = Facts {
            policy: &self.path.display().to_string(),
            image: &name,
            by_digest: by_digest(&image.reference),
            signature,
            scan: self.scan(image, say)?,
            today: today(),
        };
        let notices = decide::image(&self.policy, &facts)?;
        let unread = facts.scan.iter().flat_map(|scan| scan.unread.first()).map(ToString::to_string).next();
        Ok(Allowed { notices, unread })
    }

    /// Why the policy doesn't see to it that no image with a flaw that is known, and high or worse, runs here; `None` where it
    /// does.
    #[must_use]
    pub fn scan_missing(&self) -> Option<String> {
        let scan = &self.policy.scan;
        let set = |key: &str, to: &str| Some(format!("set {key} = {to} in {}", self.path.display()));
        if scan.advisories.is_none() {
            return set("[scan] advisories", "\"FOLDER\"");
        }
        if scan.threshold > Severity::High {
            return set("[scan] threshold", "\"high\"");
        }
        if scan.unrated < scan.threshold { set("[scan] unrated", "\"high\"") } else { None }
    }

    /// Whose signatures count for the policy, and the files of the keys in their order.
    ///
    /// # Errors
    /// A key or the trust root can't be read.
    pub fn trusted(&self) -> Result<(Trusted, Vec<PathBuf>), GateError> {
        let signatures = &self.policy.signatures;
        let files: Vec<PathBuf> = signatures.keys.iter().map(|key| self.beside(key)).collect();
        let identity = |identity: &hac::policy::Identity| Identity {
            identity: identity.identity.clone(),
            issuer: identity.issuer.clone(),
        };
        let trusted = Trusted {
            keys: files.iter().map(|file| read_key(file)).collect::<Result<_, _>>()?,
            root: signatures.trusted_root.as_ref().map(|root| read_root(&self.beside(root))).transpose()?,
            identities: signatures.identities.iter().map(identity).collect(),
        };
        Ok((trusted, files))
    }

    /// The folder of advisories that the policy names.
    #[must_use]
    pub fn advisories(&self) -> Option<PathBuf> {
        self.policy.scan.advisories.as_deref().map(|folder| self.beside(folder))
    }

    /// Where the indexes of advisories lie.
    #[must_use]
    pub fn index_cache(&self) -> PathBuf {
        self.cache.join("advisories")
    }

    fn beside(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("/")).join(path)
    }

    /// Who vouches for the image, or why nobody does. What was found before is asked first, so that a start needs no
    /// network.
    fn signature(
        &self,
        store: &Store,
        image: &Image,
        options: &PullOptions,
    ) -> Result<Result<String, String>, GateError> {
        let (trusted, files) = self.trusted()?;
        let named = |by: By| match by {
            By::Key(place) => files.get(place).map_or_else(String::new, |file| file.display().to_string()),
            By::Identity(signer) => signer.to_string(),
        };
        let kept = self.cache.join("signatures").join(format!("{}.json", image.digest.hex()));
        if let Some(found) = read_kept::<Signatures>(&kept)
            && found.image == image.digest
            && let Ok(verified) = found.verify(&trusted)
        {
            return Ok(Ok(named(verified.by)));
        }
        let found = match store.signatures(image, options) {
            Ok(found) => found,
            Err(error) => return Ok(Err(whole(&error))),
        };
        Ok(match found.verify(&trusted) {
            Ok(verified) => {
                keep(&kept, &found);
                Ok(named(verified.by))
            }
            Err(error) => Err(error.to_string()),
        })
    }

    fn scan(&self, image: &Image, say: &mut dyn FnMut(&str)) -> Result<Option<Scan>, GateError> {
        let Some(folder) = self.advisories() else { return Ok(None) };
        let advisories =
            Advisories::open(&folder, &self.index_cache(), &|_| {}).map_err(GateError::Advisories)?;
        let kept = self.cache.join("scans").join(format!("{}.json", image.digest.hex()));
        let (program, digest) = (env!("CARGO_PKG_VERSION"), advisories.digest().to_string());
        if let Some(found) = read_kept::<KeptScan>(&kept)
            && found.program == program
            && found.advisories == digest
        {
            return Ok(Some(found.scan));
        }
        say("scanning the image (once)");
        let inventory = image.inventory().map_err(GateError::Inventory)?;
        let scan = advisories.scan(&inventory).map_err(GateError::Advisories)?;
        keep(&kept, &KeptScan { program: program.to_owned(), advisories: digest, scan: scan.clone() });
        Ok(Some(scan))
    }
}

/// Reads a key's file.
///
/// # Errors
/// It can't be read, or holds no public key.
pub fn read_key(path: &Path) -> Result<PublicKey, GateError> {
    let text =
        fs::read_to_string(path).map_err(|source| GateError::KeyFile { path: path.to_owned(), source })?;
    PublicKey::from_pem(&text).map_err(|source| GateError::Key { path: path.to_owned(), source })
}

/// Reads the file of those who are trusted with identities.
///
/// # Errors
/// It can't be read, or isn't one.
pub fn read_root(path: &Path) -> Result<TrustedRoot, GateError> {
    let json = fs::read(path).map_err(|source| GateError::RootFile { path: path.to_owned(), source })?;
    TrustedRoot::parse(&json).map_err(|source| GateError::Root { path: path.to_owned(), source })
}

/// The day that it is, in UTC.
#[must_use]
pub fn today() -> Date {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Date::from_days(since / (24 * 60 * 60))
}

/// The name by which the policy speaks of an image.
fn full_name(reference: &Reference) -> Result<String, GateError> {
    Ok(reference.absolute().map_err(GateError::Name)?.to_string())
}

fn by_digest(reference: &Reference) -> bool {
    matches!(reference, Reference::Registry(name) if name.digest().is_some())
}

/// Reads what was kept; what can't be read was never there.
fn read_kept<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Keeps what was found. What can't be kept is found out again.
fn keep(path: &Path, found: &impl Serialize) {
    let written = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let part = path.with_extension(format!("{}.part", std::process::id()));
        fs::write(&part, serde_json::to_vec(found)?)?;
        fs::rename(&part, path)
    };
    let _ = written();
}

#[cfg(test)]
mod tests;
