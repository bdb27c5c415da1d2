//! What the node keeps on disk, one file for each deployment and each spacecore, under `VIMANA_HOME/node`.
//!
//! A deployment's file is on the disk before whoever asked for it gets an answer: what was acknowledged survives everything. A
//! spacecore's file says what the node was about to do with it, so that a node that is killed finds its spacecores again; a power
//! cut ends the spacecores themselves, so that file needn't be on the disk before the node goes on.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::call::is_name;
use super::logs::Logs;
use super::reserve::{self, Reserve};
use crate::autoscale::Autoscaler;
use crate::replace::Durable;
use crate::rollout::Rollout;
use crate::supervisor::State;

/// The version of both files' form.
pub const VERSION: u32 = 1;

/// The folders with a file for each.
const DEPLOYMENTS: &str = "deployments";
const SPACECORES: &str = "spacecores";

/// How many revisions of a deployment are kept.
pub const REVISIONS: usize = 10;

/// A deployment: an applied manifest, with those before it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// [`VERSION`].
    pub version: u32,
    /// Its name: the manifest's `metadata.name`.
    pub name: String,
    /// The last ones, newest last; never empty. The newest is what is wanted.
    pub revisions: Vec<Revision>,
    /// How many spacecores there shall be.
    pub replicas: u32,
    /// Whether they shall run; otherwise they stand still.
    pub running: bool,
    /// Whether it shall be gone.
    pub removing: bool,
    /// Whether its logs shall be gone with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removes_logs: bool,
    /// How far an update has come.
    pub rollout: Rollout,
    /// What is known of its load.
    pub autoscaler: Autoscaler,
}

/// One state of a deployment's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// Counts from 1.
    pub number: u64,
    /// The manifest as TOML, with paths that are absolute.
    pub manifest: String,
    /// Whether it was said which isolation there is to be; otherwise the image may say.
    pub names_isolation: bool,
    /// When it was applied, in milliseconds since 1970.
    pub applied_unix_ms: u64,
}

/// A spacecore of the node's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spacecore {
    /// [`VERSION`].
    pub version: u32,
    /// Its name, which no other spacecore of the node has.
    pub name: String,
    /// Its deployment's name.
    pub deployment: String,
    /// Its number in the deployment, from 0.
    pub index: u32,
    /// The deployment's revision that it runs.
    pub revision: u64,
    /// The name of the run folder of its current attempt, from just before its keeper is started.
    pub keeper: Option<String>,
    /// What was decided of it.
    pub state: State,
    /// The digest of the image that it runs or ran last.
    pub image_digest: Option<String>,
    /// Where its ports are published.
    pub ports: Vec<String>,
    /// Where its ports are, as its keeper says: by the guest's number.
    #[serde(default)]
    pub published: BTreeMap<u16, SocketAddr>,
    /// Since when it stands where it stands, on the clock of its state; 0 where a node of before has kept it.
    #[serde(default)]
    pub since_ms: u64,
    /// The same in milliseconds since 1970.
    #[serde(default)]
    pub since_unix_ms: u64,
}

impl Spacecore {
    /// Notes since when it stands where it stands.
    pub(super) fn stands_since(&mut self, now_ms: u64, now_unix_ms: u64) {
        (self.since_ms, self.since_unix_ms) = (now_ms, now_unix_ms);
    }
}

/// All that was kept.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The deployments.
    pub deployments: Vec<Deployment>,
    /// The spacecores.
    pub spacecores: Vec<Spacecore>,
    /// Files that can't be read.
    pub damaged: Vec<Damaged>,
}

/// A file that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The deployment whose it is, as far as that can be told.
    pub deployment: Option<String>,
    /// The spacecore, if it is a spacecore's.
    pub spacecore: Option<String>,
    /// Which file it is, and why it can't be read.
    pub reason: String,
}

/// Why the node's files can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A file can't be read or written.
    #[error("can't use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A revision's manifest can't be read any more.
    #[error("revision {revision} of {deployment} can't be read\n{reason}")]
    Manifest {
        /// The deployment.
        deployment: String,
        /// Which revision.
        revision: u64,
        /// Every mistake.
        reason: String,
    },
    /// A file isn't what this version writes.
    #[error(
        "{} isn't a file that this version of vimana can read; a newer one may have written it",
        path.display()
    )]
    Form {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// The folder with the node's files.
#[derive(Debug, Clone)]
pub struct Records {
    root: PathBuf,
    reserve: Reserve,
}

impl Records {
    /// Opens the folder, and makes it where it lacks.
    ///
    /// # Errors
    /// It can't be made.
    pub fn open(root: &Path) -> Result<Self, RecordError> {
        for folder in [root.to_owned(), root.join(DEPLOYMENTS), root.join(SPACECORES)] {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(at(&folder))?;
            // Who can write here has this user run what it likes.
            crate::run_folder::check_own(&folder).map_err(at(&folder))?;
        }
        Ok(Self { root: root.to_owned(), reserve: Reserve::open(root) })
    }

    fn deployments(&self) -> PathBuf {
        self.root.join(DEPLOYMENTS)
    }

    fn spacecores(&self) -> PathBuf {
        self.root.join(SPACECORES)
    }

    /// The logs of spacecores.
    pub(super) fn logs(&self) -> Logs {
        Logs::new(self.root.join("logs"))
    }

    /// Every deployment and spacecore that was kept, and which can't be read.
    ///
    /// # Errors
    /// A folder can't be read.
    pub fn load(&self) -> Result<Loaded, RecordError> {
        let deployments = load_all(&self.deployments(), |found: &Deployment| (found.version, &found.name))?;
        // A spacecore's file isn't synced, so that a power cut may have torn it; with the power its keeper has gone too.
        set_torn_aside(&self.spacecores())?;
        let spacecores = load_all(&self.spacecores(), |found: &Spacecore| (found.version, &found.name))?;
        let mut damaged = Vec::new();
        damaged.extend(deployments.1.into_iter().map(|(path, error)| Damaged {
            deployment: name_of(&path),
            spacecore: None,
            reason: image::whole(&error),
        }));
        damaged.extend(spacecores.1.into_iter().map(|(path, error)| Damaged {
            deployment: deployment_in(&path),
            spacecore: name_of(&path),
            reason: image::whole(&error),
        }));
        Ok(Loaded { deployments: deployments.0, spacecores: spacecores.0, damaged })
    }

    /// Moves the files of a deployment and of some spacecores to names that aren't read, `NAME.damaged`.
    ///
    /// # Errors
    /// One can't be moved.
    pub fn move_aside(&self, deployment: &str, spacecores: &[String]) -> Result<(), RecordError> {
        let all = spacecores.iter().map(|name| (self.spacecores(), name.as_str()));
        all.chain([(self.deployments(), deployment)]).try_for_each(|(folder, name)| {
            let path = folder.join(format!("{name}.json"));
            match fs::rename(&path, path.with_extension("damaged")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other.map_err(at(&path)),
            }
        })
    }

    /// Keeps a deployment; it is on the disk when this returns.
    ///
    /// # Errors
    /// It can't be written; what was there before still is.
    pub fn keep_deployment(&self, deployment: &Deployment) -> Result<(), RecordError> {
        replace(&self.deployments(), &deployment.name, deployment, Durable::Yes)?;
        self.reserve.fill();
        Ok(())
    }

    /// Keeps a deployment that is to end, also on a full disk: what space the node has for itself is used for it.
    ///
    /// # Errors
    /// As of [`Records::keep_deployment`].
    pub fn keep_deployment_surely(&self, deployment: &Deployment) -> Result<(), RecordError> {
        match self.keep_deployment(deployment) {
            Err(RecordError::File { source, .. })
                if reserve::is_for_want_of_space(&source) && self.reserve.give_up() =>
            {
                let kept = self.keep_deployment(deployment);
                self.reserve.fill();
                kept
            }
            other => other,
        }
    }

    /// Keeps a spacecore, for a node that comes after this one.
    ///
    /// # Errors
    /// It can't be written; what was there before still is.
    pub fn keep_spacecore(&self, spacecore: &Spacecore) -> Result<(), RecordError> {
        replace(&self.spacecores(), &spacecore.name, spacecore, Durable::No)
    }

    /// Forgets a deployment.
    ///
    /// # Errors
    /// Its file can't be removed.
    pub fn forget_deployment(&self, name: &str) -> Result<(), RecordError> {
        remove(&self.deployments(), name)
    }

    /// Forgets a spacecore. Its log is kept.
    ///
    /// # Errors
    /// Its file can't be removed.
    pub fn forget_spacecore(&self, name: &str) -> Result<(), RecordError> {
        remove(&self.spacecores(), name)
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> RecordError {
    let path = path.to_owned();
    move |source| RecordError::File { path: path.clone(), source }
}

/// The name that a file's is made of.
fn name_of(path: &Path) -> Option<String> {
    path.file_stem().and_then(OsStr::to_str).map(str::to_owned)
}

/// The deployment that a spacecore's file names, which can't be read as a whole.
fn deployment_in(path: &Path) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let name = value.get("deployment")?.as_str()?;
    is_name(name).then(|| name.to_owned())
}

/// Records that can be read, and files that can't with the reason.
type Read<T> = (Vec<T>, Vec<(PathBuf, RecordError)>);

/// Reads every file of a folder. `says` is what a record says of its version and name, which must be this version and the file's name:
/// a name becomes part of other paths.
fn load_all<T: DeserializeOwned>(
    folder: &Path,
    says: impl Fn(&T) -> (u32, &String),
) -> Result<Read<T>, RecordError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        // What is named otherwise was being written when its writer died.
        if path.extension().is_some_and(|ending| ending == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: &PathBuf| {
        let bytes = fs::read(path).map_err(at(path))?;
        let wrong = |source| RecordError::Form { path: path.clone(), source };
        let record: T = serde_json::from_slice(&bytes).map_err(wrong)?;
        let (version, name) = says(&record);
        if version != VERSION || path.file_stem() != Some(OsStr::new(name)) {
            let what = format!("it has version {version} and the name {name:?}");
            return Err(wrong(serde::de::Error::custom(what)));
        }
        Ok(record)
    };
    let mut all = (Vec::new(), Vec::new());
    for path in paths {
        match read(&path) {
            Ok(record) => all.0.push(record),
            Err(error) => all.1.push((path, error)),
        }
    }
    Ok(all)
}

/// Sets files aside, as `NAME.torn`, that were cut off before their end.
fn set_torn_aside(folder: &Path) -> Result<(), RecordError> {
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let bytes = fs::read(&path).map_err(at(&path))?;
        let read = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes);
        if read.is_err_and(|error| error.is_eof() || bytes.iter().all(|byte| *byte == 0)) {
            fs::rename(&path, path.with_extension("torn")).map_err(at(&path))?;
        }
    }
    Ok(())
}

fn replace(folder: &Path, name: &str, value: &impl Serialize, durable: Durable) -> Result<(), RecordError> {
    let (path, new) = (folder.join(format!("{name}.json")), folder.join(format!("{name}.new")));
    let bytes =
        serde_json::to_vec(value).map_err(|source| RecordError::Form { path: path.clone(), source })?;
    crate::replace::replace(&path, &new, &bytes, durable).map_err(at(&path))
}

fn remove(folder: &Path, name: &str) -> Result<(), RecordError> {
    let path = folder.join(format!("{name}.json"));
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(at(&path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Phase;
    use std::os::unix::fs::PermissionsExt;

    fn deployment(name: &str) -> Deployment {
        Deployment {
            version: VERSION,
            name: name.to_owned(),
            revisions: Vec::new(),
            replicas: 1,
            running: true,
            removing: false,
            removes_logs: false,
            rollout: Rollout::default(),
            autoscaler: Autoscaler::default(),
        }
    }

    #[test]
    fn a_record_of_another_version_or_name_is_damaged_and_a_torn_one_of_a_spacecore_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        records.keep_deployment(&deployment("web")).unwrap();
        assert_eq!(records.load().unwrap().deployments.len(), 1);
        for torn in ["", "{\"version\":1,\"na", "\0\0\0"] {
            fs::write(folder.path().join("spacecores/web.json"), torn).unwrap();
            let loaded = records.load().unwrap();
            assert!(loaded.spacecores.is_empty() && loaded.damaged.is_empty(), "{torn:?}");
        }
        let path = folder.path().join("deployments/web.json");
        let good = fs::read_to_string(&path).unwrap();
        for (from, to) in [("\"version\":1", "\"version\":2"), ("\"name\":\"web\"", "\"name\":\"../../x\"")] {
            assert!(good.contains(from), "{good}");
            fs::write(&path, good.replace(from, to)).unwrap();
            let loaded = records.load().unwrap();
            assert!(loaded.deployments.is_empty(), "{to}");
            let [damaged] = &loaded.damaged[..] else { panic!("{:?}", loaded.damaged) };
            assert_eq!((damaged.deployment.as_deref(), &damaged.spacecore), (Some("web"), &None));
            assert!(damaged.reason.contains("deployments/web.json"), "{}", damaged.reason);
        }
        fs::write(&path, good).unwrap();
        let foreign = "{\"version\":9,\"name\":\"web-1\",\"deployment\":\"web\"}";
        fs::write(folder.path().join("spacecores/web-1.json"), foreign).unwrap();
        let damaged = records.load().unwrap().damaged;
        assert_eq!(damaged.len(), 1);
        let whose = (damaged[0].deployment.as_deref(), damaged[0].spacecore.as_deref());
        assert_eq!(whose, (Some("web"), Some("web-1")));
        records.move_aside("web", &["web-1".to_owned()]).unwrap();
        assert!(records.load().unwrap().damaged.is_empty());
        assert_eq!(fs::read_to_string(folder.path().join("spacecores/web-1.damaged")).unwrap(), foreign);
    }

    #[test]
    fn what_the_first_version_has_kept_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        let (site, replica) =
            (include_str!("record/golden/deployment-1.json"), include_str!("record/golden/spacecore-1.json"));
        fs::write(folder.path().join("deployments/site.json"), site).unwrap();
        fs::write(folder.path().join("spacecores/site-1.json"), replica).unwrap();
        let Loaded { deployments, spacecores, damaged } = records.load().unwrap();
        assert_eq!(damaged, []);
        let (site, replica) = (&deployments[0], &spacecores[0]);
        assert_eq!((site.replicas, site.running, site.removing, site.removes_logs), (2, true, false, false));
        assert_eq!((site.rollout.good(), site.rollout.target()), (Some(1), Some(1)));
        assert_eq!((site.revisions[0].number, site.revisions[0].names_isolation), (1, true));
        let manifest = hac::parse(&site.revisions[0].manifest, hac::Format::Toml).unwrap();
        assert_eq!(manifest.spec.restart.max_attempts, 2);
        assert_eq!((replica.deployment.as_str(), replica.index, replica.revision), ("site", 1, 1));
        assert_eq!(replica.keeper.as_deref(), Some("site-1-c47bab0e5639"));
        assert_eq!((replica.state.phase(), replica.state.attempt()), (Phase::Ready, 1));
        assert_eq!(replica.state.rules().checks.len(), 1);
        // And what is kept of it by this version is read again.
        records.keep_deployment(site).unwrap();
        records.keep_spacecore(replica).unwrap();
        let again = records.load().unwrap();
        assert_eq!((again.deployments.len(), again.spacecores.len(), again.damaged), (1, 1, Vec::new()));
        assert_eq!(again.spacecores[0].state, replica.state);
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Records::open(folder.path()).unwrap();
        fs::set_permissions(folder.path().join("deployments"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Records::open(folder.path()), Err(RecordError::File { .. })));
    }
}
