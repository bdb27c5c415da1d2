//! What leaves the store: by name, by pruning, and by the quota.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::disk::{self, Scratch};
use super::record::{ImageRecord, Key, Kind};
use super::{Store, StoreError, trees};
use crate::digest::Digest;
use crate::platform::Platform;
use crate::reference::Reference;

/// One line of a listing.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The image's name.
    pub reference: String,
    /// What it is for.
    pub platform: Platform,
    /// The manifest's digest.
    pub digest: Digest,
    /// How many file systems it has in the store.
    pub layers: usize,
    /// The Wasm program's digest, if the image has one.
    pub wasm: Option<Digest>,
    /// The size of file systems and program in bytes; what images share counts for each.
    pub bytes: u64,
    /// When the image was made, as it says (RFC 3339).
    pub created: Option<String>,
    /// When it was pulled, in seconds since 1970.
    pub pulled: u64,
    /// When it was last looked up or pulled, in seconds since 1970.
    pub last_used: u64,
    /// Whether a process holds it.
    pub in_use: bool,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Freed {
    /// The names of the images.
    pub images: Vec<String>,
    /// How many layers.
    pub layers: u64,
    /// How many Wasm programs.
    pub programs: u64,
    /// Their size in bytes, with the trees that layers were unpacked to.
    pub bytes: u64,
}

/// How full the store is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// How many images there are.
    pub images: u64,
    /// How many layers there are, each counted once.
    pub layers: u64,
    /// How many Wasm programs there are, each counted once.
    pub programs: u64,
    /// The size of layers, programs and unpacked trees in bytes.
    pub bytes: u64,
    /// The part of it that unpacked trees take, in bytes.
    pub tree_bytes: u64,
    /// The part of it that no image names, in bytes.
    pub unreferenced_bytes: u64,
    /// The most that the store keeps, in bytes.
    pub quota: u64,
}

struct Known {
    path: PathBuf,
    record: ImageRecord,
    last_used: SystemTime,
}

/// One thing that the store keeps.
struct Content {
    key: Key,
    /// What it takes, its trees included.
    bytes: u64,
    tree_bytes: u64,
}

impl Store {
    /// Lists all images, the last used first.
    pub fn list(&self) -> Result<Vec<Summary>, StoreError> {
        let mut all = Vec::new();
        for Known { path, record, last_used } in self.records()? {
            let in_use = disk::seize(&path).map_err(|source| self.failed("open", &path, source))?.is_none()
                && path.exists();
            let layers = record.layers.iter().map(|layer| layer.total_bytes);
            let program = record.wasm.iter().map(|wasm| wasm.bytes);
            all.push(Summary {
                platform: record.meant_for(),
                bytes: layers.chain(program).fold(0, u64::saturating_add),
                reference: record.reference,
                digest: record.digest,
                layers: record.layers.len(),
                wasm: record.wasm.map(|wasm| wasm.digest),
                created: record.config.created,
                pulled: record.pulled,
                last_used: seconds(last_used),
                in_use,
            });
        }
        all.sort_by(|a, b| b.last_used.cmp(&a.last_used).then_with(|| a.reference.cmp(&b.reference)));
        Ok(all)
    }

    /// Removes an image, for all platforms, and the content that no other image names. Answers `None` if there
    /// is no such image, and [`StoreError::InUse`] if a process holds it.
    pub fn remove(&self, reference: &Reference) -> Result<Option<Freed>, StoreError> {
        let name =
            reference.absolute().map_err(|source| self.failed("find", &self.root, source))?.to_string();
        let _lock = self.lock(true)?;
        let mut freed = Freed::default();
        for known in self.records()?.iter().filter(|known| known.record.reference == name) {
            if !self.forget(known, &mut freed)? {
                return Err(StoreError::InUse { reference: name });
            }
        }
        if freed.images.is_empty() {
            return Ok(None);
        }
        self.remove_unreferenced(&mut freed)?;
        Ok(Some(freed))
    }

    /// Removes content that no image names, and with `all` every image that isn't in use too.
    pub fn prune(&self, all: bool) -> Result<Freed, StoreError> {
        let tmp = self.tmp();
        disk::sweep(&tmp, self.options.owners).map_err(|source| self.failed("sweep", &tmp, source))?;
        let _lock = self.lock(true)?;
        let mut freed = Freed::default();
        if all {
            for known in self.records()? {
                self.forget(&known, &mut freed)?;
            }
        }
        self.remove_unreferenced(&mut freed)?;
        Ok(freed)
    }

    /// Measures the store.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let records = self.records()?;
        let named = named(&records);
        let mut usage = Usage {
            images: records.len().try_into().unwrap_or(u64::MAX),
            quota: self.options.quota,
            ..Usage::default()
        };
        for Content { key, bytes, tree_bytes } in self.content()? {
            match key.kind {
                Kind::Layers | Kind::Merged => usage.layers += 1,
                Kind::Wasm => usage.programs += 1,
            }
            usage.bytes = usage.bytes.saturating_add(bytes);
            usage.tree_bytes = usage.tree_bytes.saturating_add(tree_bytes);
            if !named.contains(&key) {
                usage.unreferenced_bytes = usage.unreferenced_bytes.saturating_add(bytes);
            }
        }
        Ok(usage)
    }

    /// Makes room for so many bytes within the quota: first goes what no image names, then the images whose last
    /// use is longest ago. What is in use stays.
    pub(crate) fn make_room(&self, needed: u64) -> Result<Freed, StoreError> {
        let mut freed = Freed::default();
        let fits = |bytes: u64| bytes.saturating_add(needed) <= self.options.quota;
        let used = || -> Result<u64, StoreError> {
            Ok(self.content()?.iter().map(|content| content.bytes).fold(0, u64::saturating_add))
        };
        if fits(used()?) {
            return Ok(freed);
        }
        let _lock = self.lock(true)?;
        self.remove_unreferenced(&mut freed)?;
        let mut records = self.records()?;
        records.sort_by_key(|known| known.last_used);
        for known in &records {
            if fits(used()?) {
                return Ok(freed);
            }
            if self.forget(known, &mut freed)? {
                self.remove_unreferenced(&mut freed)?;
            }
        }
        let used = used()?;
        if fits(used) {
            return Ok(freed);
        }
        Err(StoreError::Quota { needed, used, quota: self.options.quota })
    }

    /// Takes the store's lock: shared to write an image down, exclusive to remove.
    pub(crate) fn lock(&self, exclusive: bool) -> Result<File, StoreError> {
        let path = self.root.join("lock");
        disk::lock_file(&path, exclusive).map_err(|source| self.failed("lock", &path, source))
    }

    /// Removes an image's record unless it is in use.
    fn forget(&self, known: &Known, freed: &mut Freed) -> Result<bool, StoreError> {
        let failed = |source| self.failed("remove", &known.path, source);
        // A listing tries the same lock for a moment, so the first "no" isn't the last word.
        let mut seized = None;
        for _ in 0..3 {
            seized = disk::seize(&known.path).map_err(failed)?;
            if seized.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if seized.is_none() {
            return Ok(false);
        }
        fs::remove_file(&known.path).map_err(failed)?;
        disk::sync_parent(&known.path).map_err(failed)?;
        freed.images.push(known.record.reference.clone());
        Ok(true)
    }

    /// Removes content that no record names and nobody holds. The caller has the exclusive lock.
    fn remove_unreferenced(&self, freed: &mut Freed) -> Result<(), StoreError> {
        let records = self.records()?;
        let named = named(&records);
        for Content { key, bytes, .. } in self.content()? {
            if !named.contains(&key) && self.remove_content(&key)? {
                match key.kind {
                    Kind::Layers | Kind::Merged => freed.layers += 1,
                    Kind::Wasm => freed.programs += 1,
                }
                freed.bytes = freed.bytes.saturating_add(bytes);
            }
        }
        let manifests: BTreeSet<String> =
            records.iter().map(|known| known.record.digest.file_name()).collect();
        let configs: BTreeSet<String> =
            records.iter().map(|known| known.record.config_digest.file_name()).collect();
        for (folder, named) in [("manifests", manifests), ("configs", configs)] {
            let folder = self.root.join(folder);
            for name in names(&folder).map_err(|source| self.failed("list", &folder, source))? {
                let path = folder.join(&name);
                let failed = |source| self.failed("remove", &path, source);
                if !named.contains(&name)
                    && let Some(_seized) = disk::seize(&path).map_err(failed)?
                {
                    fs::remove_file(&path).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    fn remove_content(&self, key: &Key) -> Result<bool, StoreError> {
        let folder = self.layer_folder(key);
        let failed = |source| self.failed("remove", &folder, source);
        let Some(_seized) = disk::seize(&folder.join(key.kind.file())).map_err(failed)? else {
            return Ok(false);
        };
        // Out of sight in one step; if this process dies here, the next sweep does the rest.
        let scratch = Scratch::new(&self.tmp()).map_err(failed)?.with_owners(self.options.owners);
        fs::rename(&folder, scratch.path("removed")).map_err(failed)?;
        disk::sync_parent(&folder).map_err(failed)?;
        Ok(true)
    }

    fn records(&self) -> Result<Vec<Known>, StoreError> {
        let folder = self.root.join("images");
        let mut known = Vec::new();
        for name in names(&folder).map_err(|source| self.failed("list", &folder, source))? {
            let path = folder.join(name);
            // Read without a lock, which would make the image look used: a record is replaced whole.
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            let Some(record) = ImageRecord::parse(&text) else {
                continue;
            };
            let last_used =
                fs::metadata(&path).and_then(|metadata| metadata.modified()).unwrap_or(UNIX_EPOCH);
            known.push(Known { path, record, last_used });
        }
        Ok(known)
    }

    /// Lists what the store keeps, with what it takes.
    fn content(&self) -> Result<Vec<Content>, StoreError> {
        let mut content = Vec::new();
        for kind in Kind::ALL {
            let folder = self.root.join(kind.folder());
            for name in names(&folder).map_err(|source| self.failed("list", &folder, source))? {
                let place = folder.join(&name);
                match fs::metadata(place.join(kind.file())) {
                    Ok(metadata) => {
                        let tree_bytes = trees::bytes_in(&place);
                        let bytes = metadata.len().saturating_add(tree_bytes);
                        content.push(Content { key: Key { kind, name }, bytes, tree_bytes });
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(self.failed("measure", &place, error)),
                }
            }
        }
        Ok(content)
    }
}

fn named(records: &[Known]) -> BTreeSet<Key> {
    let mut named = BTreeSet::new();
    for Known { record, .. } in records {
        named.extend(record.layers.iter().map(|layer| layer.key.clone()));
        named.extend(record.wasm.iter().map(|wasm| wasm.key.clone()));
    }
    named
}

/// Lists a folder in a fixed order, without names that the store never makes.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or(0)
}
