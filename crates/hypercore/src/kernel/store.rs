//! The folder that keeps kernels by content.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{FileError, Kernel, Module, at, hex, module, release_order};

/// The version of `kernel.json` that is written.
const VERSION: u32 = 1;
const RECORD: &str = "kernel.json";
/// The largest record that is read, in bytes.
const RECORD_MAX: u64 = 1 << 20;

/// The folder that keeps kernels by content. Any number of processes may use one at once.
#[derive(Clone, Debug)]
pub struct KernelStore {
    root: PathBuf,
}

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or folder of it can't be read or written.
    #[error("can't use the kernel store")]
    File(#[source] FileError),
    /// A kernel's record is of a version that this binary doesn't know, or is damaged.
    #[error("the record {} isn't one of version {VERSION}; remove its folder and fetch the kernel again", .0.display())]
    Record(PathBuf),
    /// A kernel's files aren't those that it was kept by.
    #[error(
        "the kernel {digest} has changed on disk (it is now {found}); remove it: vimana kernel rm {digest}"
    )]
    Changed {
        /// What it was kept by.
        digest: String,
        /// What its files give now.
        found: String,
    },
    /// No kernel, or more than one, begins with these digits.
    #[error("{0:?} isn't the digest of one kernel in the store (see: vimana kernel ls)")]
    Unknown(String),
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    release: String,
    image: String,
    modules: Vec<Module>,
    builtin: Option<Vec<String>>,
}

/// A kernel that isn't in the store yet: everything in memory.
pub(super) struct Parts {
    pub(super) release: String,
    pub(super) image_name: &'static str,
    pub(super) image: Vec<u8>,
    pub(super) modules: Vec<(Module, Vec<u8>)>,
    pub(super) builtin: Option<Vec<String>>,
}

impl KernelStore {
    /// Opens the store in `root`, making the folder if there is none.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        crate::private_folder(root).map_err(at(root))?;
        Ok(Self { root: std::path::absolute(root).map_err(at(root))? })
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All its kernels, the newest release first, of the same the one with the most modules. A damaged record is left out; [`KernelStore::get`] names it.
    pub fn list(&self) -> Result<Vec<Kernel>, StoreError> {
        let mut kernels = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(at(&self.root))? {
            let name = entry.map_err(at(&self.root))?.file_name();
            if let Some(digest) = name.to_str().filter(|name| is_digest(name)) {
                kernels.extend(self.get(digest).ok());
            }
        }
        kernels.sort_by_cached_key(|kernel| {
            (release_order(&kernel.release), kernel.modules.len(), kernel.digest.clone())
        });
        kernels.reverse();
        Ok(kernels)
    }

    /// The kernel of the newest release.
    pub fn newest(&self) -> Result<Option<Kernel>, StoreError> {
        Ok(self.list()?.into_iter().next())
    }

    /// The kernel with this digest.
    pub fn get(&self, digest: &str) -> Result<Kernel, StoreError> {
        if !is_digest(digest) {
            return Err(StoreError::Unknown(digest.to_owned()));
        }
        let folder = self.root.join(digest);
        let path = folder.join(RECORD);
        let mut text = Vec::new();
        let file = File::open(&path).map_err(at(&path))?;
        file.take(RECORD_MAX).read_to_end(&mut text).map_err(at(&path))?;
        let record: Option<Record> = serde_json::from_slice(&text).ok().filter(sound);
        let record = record.ok_or(StoreError::Record(path))?;
        let mut bytes = text.len() as u64;
        let images = [folder.join(&record.image)].into_iter();
        let modules = record.modules.iter().map(|module| folder.join(module_file(&module.name)));
        for file in images.chain(modules) {
            bytes = bytes.saturating_add(fs::metadata(&file).map_err(at(&file))?.len());
        }
        let Record { release, image, modules, builtin, .. } = record;
        Ok(Kernel { digest: digest.to_owned(), release, image: folder.join(image), modules, builtin, bytes })
    }

    /// The one kernel whose digest begins with `prefix`.
    pub fn by_prefix(&self, prefix: &str) -> Result<Option<Kernel>, StoreError> {
        if prefix.is_empty() {
            return Ok(None);
        }
        let mut found = self.list()?.into_iter().filter(|kernel| kernel.digest.starts_with(prefix));
        Ok(found.next().filter(|_| found.next().is_none()))
    }

    /// Reads a kernel's files again and compares them with its digest.
    pub fn verify(&self, kernel: &Kernel) -> Result<(), StoreError> {
        let folder = self.root.join(&kernel.digest);
        let mut names = vec![RECORD.to_owned()];
        names.extend(kernel.image.file_name().and_then(|name| name.to_str()).map(str::to_owned));
        names.extend(kernel.modules.iter().map(|module| module_file(&module.name)));
        let mut lines = Vec::new();
        for name in names {
            let path = folder.join(&name);
            lines.push(line(&name, &fs::read(&path).map_err(at(&path))?));
        }
        let found = digest(lines);
        if found != kernel.digest {
            return Err(StoreError::Changed { digest: kernel.digest.clone(), found });
        }
        Ok(())
    }

    /// Removes a kernel. A machine that runs with it goes on.
    pub fn remove(&self, kernel: &Kernel) -> Result<(), StoreError> {
        let folder = self.root.join(&kernel.digest);
        // Out of sight first, so that nobody finds half of it.
        let aside = self.aside()?;
        let target = aside.path().join("removed");
        fs::rename(&folder, &target).map_err(at(&folder))?;
        fs::remove_dir_all(&target).map_err(at(&target))?;
        Ok(())
    }

    /// A folder for something in the making, removed when dropped, or by [`KernelStore::sweep`] if its maker is killed.
    pub(super) fn aside(&self) -> Result<Aside, StoreError> {
        self.sweep();
        let folder =
            tempfile::Builder::new().prefix(".new-").tempdir_in(&self.root).map_err(at(&self.root))?;
        let path = folder.path().join(".lock");
        let lock = File::create(&path).map_err(at(&path))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|e| at(&path)(e.into()))?;
        Ok(Aside { folder, _lock: lock })
    }

    /// Removes what killed makers left. Nothing here is worth an error: the next one tries again.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.root) else {
            return;
        };
        for entry in entries.flatten() {
            if !entry.file_name().to_string_lossy().starts_with(".new-") {
                continue;
            }
            // Without a lock file the maker may be between its two steps; give it a minute.
            let Ok(lock) = File::open(entry.path().join(".lock")) else {
                let age = entry
                    .metadata()
                    .and_then(|status| status.modified())
                    .ok()
                    .and_then(|at| at.elapsed().ok());
                if age.is_some_and(|age| age.as_secs() > 60) {
                    let _ = fs::remove_dir_all(entry.path());
                }
                continue;
            };
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Keeps a kernel. Keeping the same one twice, or twice at once, is keeping it once.
    pub(super) fn insert(&self, parts: Parts) -> Result<Kernel, StoreError> {
        let record = Record {
            version: VERSION,
            release: parts.release,
            image: parts.image_name.to_owned(),
            modules: parts.modules.iter().map(|(module, _)| module.clone()).collect(),
            builtin: parts.builtin,
        };
        let record =
            serde_json::to_vec_pretty(&record).map_err(|error| at(&self.root)(io::Error::other(error)))?;
        let mut files = vec![(RECORD.to_owned(), record), (parts.image_name.to_owned(), parts.image)];
        files.extend(parts.modules.into_iter().map(|(module, bytes)| (module_file(&module.name), bytes)));
        let digest = digest(files.iter().map(|(name, bytes)| line(name, bytes)).collect());
        let target = self.root.join(&digest);
        if target.is_dir() {
            return self.get(&digest);
        }
        let aside = self.aside()?;
        let folder = aside.path().join("kernel");
        write(&folder, &files).map_err(at(&folder))?;
        let image = folder.join(parts.image_name);
        fs::set_permissions(&image, crate::readable_by_all()).map_err(at(&image))?;
        match fs::rename(&folder, &target) {
            Ok(()) => sync(&self.root).map_err(at(&self.root))?,
            Err(_) if target.is_dir() => {}
            Err(error) => return Err(at(&target)(error).into()),
        }
        self.get(&digest)
    }

    /// The digest that was noted under a key, if its kernel is still there.
    pub(super) fn noted(&self, key: &str) -> Option<Kernel> {
        let digest = fs::read_to_string(self.root.join(".known").join(key)).ok()?;
        self.get(digest.trim()).ok()
    }

    /// Notes a digest under a key. It only saves time, so a failure is no error.
    pub(super) fn note(&self, key: &str, digest: &str) {
        let folder = self.root.join(".known");
        let _ = crate::private_folder(&folder).and_then(|()| {
            let mut file = tempfile::NamedTempFile::new_in(&folder)?;
            file.write_all(digest.as_bytes())?;
            file.persist(folder.join(key)).map(drop).map_err(|error| error.error)
        });
    }
}

/// A folder in the making.
pub(super) struct Aside {
    folder: tempfile::TempDir,
    _lock: File,
}

impl Aside {
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn write(folder: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    crate::private_folder(folder.join("modules"))?;
    for (name, bytes) in files {
        let mut file = File::create(folder.join(name))?;
        file.write_all(bytes)?;
        file.sync_all()?;
    }
    sync(&folder.join("modules"))?;
    sync(folder)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn line(name: &str, bytes: &[u8]) -> (String, String) {
    (name.to_owned(), format!("{} {} {name}\n", hex(&Sha256::digest(bytes)), bytes.len()))
}

fn digest(mut lines: Vec<(String, String)>) -> String {
    lines.sort();
    let whole: String = lines.into_iter().map(|(_, line)| line).collect();
    hex(&Sha256::digest(whole.as_bytes()))
}

fn module_file(name: &str) -> String {
    format!("modules/{name}.ko")
}

fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether a record is of our version and its names stay inside the kernel's folder.
fn sound(record: &Record) -> bool {
    let plain = |name: &String| module::name(&format!("{name}.ko")).is_some_and(|normal| normal == *name);
    record.version == VERSION
        && ["vmlinux", "vmlinuz"].contains(&record.image.as_str())
        && record.modules.iter().all(|module| plain(&module.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(release: &str) -> Parts {
        let module = Module { name: "virtio".into(), needs: Vec::new() };
        Parts {
            release: release.into(),
            image_name: "vmlinux",
            image: b"image".to_vec(),
            modules: vec![(module, b"module".to_vec())],
            builtin: None,
        }
    }

    #[test]
    fn a_kernel_is_kept_once_and_found_by_its_digest() {
        let root = tempfile::tempdir().unwrap();
        let store = KernelStore::open(root.path()).unwrap();
        let kernel = store.insert(parts("6.1.0")).unwrap();
        assert_eq!(store.insert(parts("6.1.0")).unwrap(), kernel);
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&kernel));
        assert_eq!(store.by_prefix(&kernel.digest[..8]).unwrap(), Some(kernel.clone()));
        store.verify(&kernel).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "something else was left behind");
    }

    #[test]
    fn the_newest_release_is_chosen() {
        let root = tempfile::tempdir().unwrap();
        let store = KernelStore::open(root.path()).unwrap();
        for release in ["6.1.0-9", "6.1.0-56", "6.1.0-7"] {
            store.insert(parts(release)).unwrap();
        }
        assert_eq!(store.newest().unwrap().unwrap().release, "6.1.0-56");
    }

    #[test]
    fn a_changed_file_is_noticed_and_a_removed_kernel_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let store = KernelStore::open(root.path()).unwrap();
        let kernel = store.insert(parts("6.1.0")).unwrap();
        fs::write(&kernel.image, b"Image").unwrap();
        assert!(matches!(store.verify(&kernel), Err(StoreError::Changed { .. })));
        store.remove(&kernel).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_maker_left_is_swept_and_a_living_one_s_stays() {
        let root = tempfile::tempdir().unwrap();
        let store = KernelStore::open(root.path()).unwrap();
        let living = store.aside().unwrap();
        let dead = root.path().join(".new-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(".lock"), b"").unwrap();
        store.insert(parts("6.1.0")).unwrap();
        assert!(living.path().is_dir());
        assert!(!dead.exists());
    }

    #[test]
    fn many_at_once_keep_one() {
        let root = tempfile::tempdir().unwrap();
        let store = KernelStore::open(root.path()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| store.insert(parts("6.1.0")).unwrap());
            }
        });
        assert_eq!(store.list().unwrap().len(), 1);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_record_that_points_outside_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let store = KernelStore::open(root.path()).unwrap();
        let kernel = store.insert(parts("6.1.0")).unwrap();
        let path = root.path().join(&kernel.digest).join(RECORD);
        let text = fs::read_to_string(&path).unwrap();
        for (from, to) in
            [("vmlinux", "../x"), ("\"virtio\"", "\"../x\""), ("\"version\": 1", "\"version\": 2")]
        {
            fs::write(&path, text.replace(from, to)).unwrap();
            assert!(matches!(store.get(&kernel.digest), Err(StoreError::Record(_))), "{to}");
        }
    }
}
