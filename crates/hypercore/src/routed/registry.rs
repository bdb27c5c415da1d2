//! Who is on the machine's network: one file for each spacecore, locked by its keeper, and what was changed of the machine.
//!
//! ```text
//!  /run/vimana/net/COOKIE/     one folder for each network namespace that is somebody's machine
//!    gate                      locked while anything is changed
//!    machine.json              what was changed, and has to be as it was when the last one is gone
//!    K                         the spacecore with this number; who runs has it locked
//!    NETWORK@K                 that it is in this private network
//! ```
//!
//! A file that nobody has locked is of somebody who was killed: the next who passes the gate removes it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::addresses::{Addresses, NUMBERS};
use super::namespace;
use super::settings::Changed;

const FOLDER: &str = "/run/vimana/net";
/// The version of the files' form.
const VERSION: u32 = 1;
/// The longest file that is read.
const MOST: u64 = 1 << 20;

/// A spacecore on the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// What the others find it by.
    pub(super) name: String,
    /// The private network that it is in.
    pub(super) network: Option<String>,
    pub(super) addresses: Addresses,
}

/// What all spacecores of a machine share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Shared {
    version: u32,
    /// Where the next number is looked for.
    next: u16,
    /// The network that all addresses are from.
    pub(super) network: Option<Ipv4Addr>,
    pub(super) changed: Changed,
    /// The private networks that the table knows, with the numbers of those in them.
    pub(super) joined: Vec<(String, Vec<u16>)>,
}

/// The folder of the calling thread's network namespace.
#[derive(Clone, Debug)]
pub(super) struct Registry(PathBuf);

/// The folder while nobody else changes it.
#[derive(Debug)]
pub(super) struct Gate<'a> {
    folder: &'a Path,
    pub(super) shared: Shared,
    _lock: File,
}

/// A number, for as long as this lives.
#[derive(Debug)]
pub(super) struct Lease {
    _lock: File,
    pub(super) record: Record,
}

impl Registry {
    pub(super) fn here() -> io::Result<Self> {
        Self::at(&Path::new(FOLDER).join(namespace::cookie()?.to_string()))
    }

    pub(super) fn at(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self(folder.to_owned()))
    }

    /// The folder, if there is anything in it to look after.
    pub(super) fn existing() -> Option<Self> {
        let folder = Path::new(FOLDER).join(namespace::cookie().ok()?.to_string());
        folder.is_dir().then_some(Self(folder))
    }

    /// Whether the network was tried here and worked.
    pub(super) fn was_tried(&self) -> bool {
        self.0.join("tried").exists()
    }

    pub(super) fn note_tried(&self) -> io::Result<()> {
        open(&self.0.join("tried")).map(drop)
    }

    pub(super) fn gate(&self) -> io::Result<Gate<'_>> {
        let lock = self.lock()?;
        let shared = fs::read(self.0.join("machine.json")).unwrap_or_default();
        // Of an empty file, or a form that isn't known, nothing is believed.
        let shared = serde_json::from_slice(&shared).ok().filter(|shared: &Shared| shared.version == VERSION);
        Ok(Gate { folder: &self.0, shared: shared.unwrap_or_default(), _lock: lock })
    }

    /// Locks the gate: the file that is there now, as one may have been removed meanwhile with its folder.
    fn lock(&self) -> io::Result<File> {
        use std::os::unix::fs::MetadataExt;
        let path = self.0.join("gate");
        loop {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
            let lock = open(&path)?;
            flock(&lock, FlockOperation::LockExclusive)?;
            if fs::metadata(&path)
                .is_ok_and(|there| lock.metadata().is_ok_and(|own| own.ino() == there.ino()))
            {
                return Ok(lock);
            }
        }
    }

    /// Removes the folders of other network namespaces in which nobody runs and nothing is left to be taken back.
    pub(super) fn sweep_others(&self) {
        let folders = self.0.parent().map(fs::read_dir);
        for entry in folders.into_iter().flatten().flatten().flatten().filter(|entry| entry.path() != self.0)
        {
            let other = Self(entry.path());
            let Ok(gate) = open(&other.0.join("gate")) else { continue };
            let is_free = flock(&gate, FlockOperation::NonBlockingLockExclusive).is_ok();
            if is_free && other.files().next().is_none() && !other.0.join("machine.json").exists() {
                // Whoever makes it anew has another one.
                let _ = fs::remove_dir_all(&other.0);
            }
        }
    }

    /// Who is in a private network and runs, in the order of their numbers.
    pub(super) fn members(&self, network: &str) -> Vec<Record> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (of, number) = name.rsplit_once('@')?;
            (of == network).then(|| number.parse::<u16>().ok())?
        });
        let records = numbers.filter_map(|number| live(&self.0.join(number.to_string())));
        let mut all: Vec<Record> =
            records.filter(|record| record.network.as_deref() == Some(network)).collect();
        all.sort_by_key(|record| record.addresses.number);
        all
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| number(path).is_some())
    }
}

fn number(path: &Path) -> Option<u16> {
    path.file_name()?.to_str()?.parse().ok()
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(path)
}

fn is_held(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => flock(file, FlockOperation::Unlock).map(|()| false).map_err(io::Error::from),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn live(path: &Path) -> Option<Record> {
    let mut file = File::open(path).ok()?;
    if is_held(&file).ok()? { read(&mut file) } else { None }
}

fn read(file: &mut File) -> Option<Record> {
    let mut bytes = Vec::new();
    Read::take(&*file, MOST).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok().filter(|record: &Record| record.version == VERSION)
}

/// Removes a spacecore's files; the lock's last, so that nobody has the number before.
fn remove(folder: &Path, number: u16, record: Option<Record>) -> io::Result<()> {
    if let Some(network) = record.and_then(|record| record.network) {
        let _ = fs::remove_file(folder.join(format!("{network}@{number}")));
    }
    fs::remove_file(folder.join(number.to_string()))
}

impl Gate<'_> {
    /// Takes a number that nobody has.
    ///
    /// # Errors
    /// All are taken, or the private network's name is none.
    pub(super) fn take(
        &mut self,
        name: &str,
        network: Option<&str>,
        block: Ipv4Addr,
        has_ipv6: bool,
        is_free: impl Fn(u16) -> bool,
    ) -> io::Result<Lease> {
        if network.is_some_and(|name| name.is_empty() || name.len() > 200 || name.contains(['/', '@', '\0']))
        {
            return Err(io::Error::other(format!("{network:?} can't be a private network's name")));
        }
        let next = self.shared.next % NUMBERS;
        for number in (next..NUMBERS).chain(0..next) {
            let path = self.folder.join(number.to_string());
            let mut file = open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // What is left of the last who had it may take the kernel a moment to remove.
                Ok(()) if is_free(number) => {}
                Ok(()) => {
                    let left = read(&mut file);
                    remove(self.folder, number, left)?;
                    continue;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some(old) = read(&mut file).and_then(|left| left.network) {
                let _ = fs::remove_file(self.folder.join(format!("{old}@{number}")));
            }
            if let Some(network) = network {
                open(&self.folder.join(format!("{network}@{number}")))?;
            }
            let record = Record {
                version: VERSION,
                name: name.to_owned(),
                network: network.map(str::to_owned),
                addresses: Addresses { number, network: block, has_ipv6 },
            };
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(&serde_json::to_vec(&record)?)?;
            self.shared.next = number.saturating_add(1) % NUMBERS;
            return Ok(Lease { _lock: file, record });
        }
        Err(io::Error::other(format!("all {NUMBERS} addresses are in use")))
    }

    /// Keeps what all share.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        self.shared.version = VERSION;
        let path = self.folder.join("machine.json");
        let new = self.folder.join("machine.new");
        fs::write(&new, serde_json::to_vec(&self.shared)?)?;
        fs::rename(new, path)
    }

    /// Removes the files of those who were killed. Says whether somebody runs, which may be known before all are looked at.
    pub(super) fn sweep(&self) -> bool {
        for path in self.registry().files() {
            let Ok(mut file) = File::open(&path) else { continue };
            if is_held(&file).unwrap_or(true) {
                return true;
            }
            if let Some(number) = number(&path) {
                // Another attempt is made by the next one.
                let _ = remove(self.folder, number, read(&mut file));
            }
        }
        false
    }

    pub(super) fn registry(&self) -> Registry {
        Registry(self.folder.to_owned())
    }

    /// Takes a number back.
    pub(super) fn take_back(&self, lease: &Lease) {
        let _ = remove(self.folder, lease.record.addresses.number, Some(lease.record.clone()));
    }

    /// Forgets what all share, as nobody is left.
    pub(super) fn forget(&mut self) {
        self.shared = Shared::default();
        let _ = fs::remove_file(self.folder.join("machine.json"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(gate: &mut Gate<'_>, name: &str) -> Lease {
        gate.take(name, Some("net"), Ipv4Addr::new(10, 213, 0, 0), true, |_| true).unwrap()
    }

    #[test]
    fn a_number_belongs_to_one_and_is_free_again_when_its_owner_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::at(folder.path()).unwrap();
        let mut gate = registry.gate().unwrap();
        let (first, second) = (take(&mut gate, "a"), take(&mut gate, "b"));
        assert_ne!(first.record.addresses.number, second.record.addresses.number);
        drop(gate);
        let names = |network: &str| -> Vec<String> {
            registry.members(network).into_iter().map(|record| record.name).collect()
        };
        assert_eq!((names("net"), names("other")), (vec!["a".to_owned(), "b".to_owned()], vec![]));
        // Killed: the file is left, and nobody holds it.
        drop(first);
        assert_eq!(names("net"), ["b"]);
        let gate = registry.gate().unwrap();
        gate.take_back(&second);
        drop(second);
        assert!(!gate.sweep());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the gate alone");
    }

    #[test]
    fn numbers_go_round_so_that_the_kernel_has_time_to_remove_what_was() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::at(folder.path()).unwrap();
        let mut gate = registry.gate().unwrap();
        let first = take(&mut gate, "a");
        let number = first.record.addresses.number;
        gate.take_back(&first);
        assert_eq!(take(&mut gate, "b").record.addresses.number, number + 1);
        gate.keep().unwrap();
        drop(gate);
        assert_eq!(registry.gate().unwrap().shared.next, number + 2);
    }

    #[test]
    fn of_files_that_mean_nothing_nothing_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::at(folder.path()).unwrap();
        fs::write(folder.path().join("machine.json"), "{\"version\": 7}").unwrap();
        fs::write(folder.path().join("3"), "garbage").unwrap();
        assert_eq!(registry.gate().unwrap().shared, Shared::default());
        assert!(registry.members("net").is_empty());
    }
}
