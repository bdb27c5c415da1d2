//! Lists the files of a folder of advisories, and reads them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use evidence::advisory::{Advisory, Affected, Rating, split_ecosystem};
use serde::{Deserialize, Serialize};

use super::AdvisoriesError;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::inventory::normal_python_name;

/// How deep folders may be nested.
const MOST_DEPTH: usize = 16;
/// The largest single advisory, in bytes.
const MOST_BYTES: u64 = 32 << 20;
/// The most files in one archive.
const MOST_ENTRIES: usize = 4 << 20;
/// How many files a thread looks at at least: for fewer none is started.
const LEAST_SHARE: usize = 2048;
/// The most files that aren't advisories which are named.
const MOST_NAMED: usize = 10;

/// The files of a folder.
pub(super) struct Listing {
    pub(super) files: Vec<PathBuf>,
    /// A digest of their names, sizes and times.
    pub(super) state: Digest,
}

/// An advisory's word about one package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) id: String,
    /// Its other names; that of what it was made from, where that is one.
    pub(super) aliases: Vec<String>,
    pub(super) summary: String,
    pub(super) rating: Option<Rating>,
    pub(super) affected: Affected,
}

/// Everything that a folder's advisories say.
#[derive(Default)]
pub(super) struct Gathered {
    /// By ecosystem, without its release, and name.
    pub(super) entries: BTreeMap<(String, String), Vec<Entry>>,
    /// Advisories that count.
    pub(super) count: u64,
    /// What isn't an advisory, in a person's words.
    pub(super) unread: Vec<String>,
    ratings: BTreeMap<String, Rating>,
    /// Of advisories without a rating: what they were made from.
    upstream: BTreeMap<String, Vec<String>>,
}

/// Lists the files of a folder. Every file is looked at, because one that is written anew in its place leaves its folder as it was;
/// so this is what a start costs with a large folder, and is done on every processor.
pub(super) fn list(folder: &Path) -> Result<Listing, AdvisoriesError> {
    let mut files = Vec::new();
    walk(folder, MOST_DEPTH, &mut files)?;
    // Byte by byte: to compare paths by their parts takes longer than all the rest.
    files.sort_unstable_by(|left, right| left.as_os_str().cmp(right.as_os_str()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let share = files.len().div_ceil(threads).max(LEAST_SHARE);
    let looks: Vec<Result<Vec<Stamp>, AdvisoriesError>> = std::thread::scope(|scope| {
        let parts: Vec<_> = files.chunks(share).collect();
        let (last, others) = match parts.split_last() {
            Some((last, others)) => (*last, others),
            None => return Vec::new(),
        };
        let running: Vec<_> = others.iter().map(|part| scope.spawn(|| look(part))).collect();
        let last = look(last);
        let panicked = || Err(failed(folder)(io::Error::other("a thread of it ended")));
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).chain([last]).collect()
    });
    let mut stamps = Vec::with_capacity(files.len());
    for look in looks {
        stamps.extend(look?);
    }
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut kept = Vec::with_capacity(files.len());
    for (path, stamp) in files.into_iter().zip(stamps) {
        let Some(numbers) = stamp else { continue };
        let name = path.strip_prefix(folder).unwrap_or(&path);
        hasher.update(name.as_os_str().as_encoded_bytes());
        hasher.update(&[0]);
        hasher.update(numbers.map(u64::to_le_bytes).as_flattened());
        kept.push(path);
    }
    Ok(Listing { files: kept, state: hasher.finish() })
}

/// By what a file is known to be as it was; nothing for what is no file.
type Stamp = Option<[u64; 6]>;

/// Looks at files; a link counts as what it leads to.
fn look(paths: &[PathBuf]) -> Result<Vec<Stamp>, AdvisoriesError> {
    let stamp = |path: &PathBuf| {
        let metadata = fs::metadata(path).map_err(failed(path))?;
        let numbers = [
            metadata.ino(),
            metadata.len(),
            metadata.mtime().cast_unsigned(),
            metadata.mtime_nsec().cast_unsigned(),
            metadata.ctime().cast_unsigned(),
            metadata.ctime_nsec().cast_unsigned(),
        ];
        Ok(metadata.is_file().then_some(numbers))
    };
    paths.iter().map(stamp).collect()
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> AdvisoriesError + '_ {
    move |source| AdvisoriesError::Read { path: path.to_owned(), source }
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), AdvisoriesError> {
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(failed(&path))?;
        let wanted = path.extension().is_some_and(|ending| ending == "json" || ending == "zip");
        if kind.is_dir() {
            let Some(depth) = depth.checked_sub(1) else {
                return Err(failed(&path)(io::Error::other("its folders are nested too deep")));
            };
            walk(&path, depth, files)?;
        } else if wanted {
            files.push(path);
        }
    }
    Ok(())
}

/// Reads all files, on as many threads as there are processors. The result doesn't depend on their number.
pub(super) fn gather(
    folder: &Path,
    files: &[PathBuf],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Gathered, AdvisoriesError> {
    let next = AtomicUsize::new(0);
    let done = AtomicU64::new(0);
    let all = Mutex::new(Ok(Gathered::default()));
    let work = || {
        let mut part = Gathered::default();
        let mut failed = None;
        while failed.is_none()
            && let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let report = || progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            failed = part.file(folder, path, &report).err();
        }
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        match (failed, &mut *all) {
            (Some(error), _) => *all = Err(error),
            (None, Ok(all)) => all.take(part),
            (None, Err(_)) => {}
        }
    };
    std::thread::scope(|scope| {
        let others = std::thread::available_parallelism().map_or(1, usize::from).min(16) - 1;
        for _ in 0..others {
            scope.spawn(work);
        }
        work();
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner).map(Gathered::finished)
}

impl Gathered {
    fn file(&mut self, folder: &Path, path: &Path, report: &dyn Fn()) -> Result<(), AdvisoriesError> {
        let name = path.strip_prefix(folder).unwrap_or(path).display().to_string();
        let failed = |source| AdvisoriesError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        if path.extension().is_some_and(|ending| ending == "zip") {
            return self.archive(&name, file, report).map_err(failed);
        }
        let mut bytes = Vec::new();
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        self.advisory(&name, &bytes);
        report();
        Ok(())
    }

    fn archive(&mut self, name: &str, file: File, report: &dyn Fn()) -> io::Result<()> {
        let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(io::Error::other)?;
        if archive.len() > MOST_ENTRIES {
            return Err(io::Error::other(format!(
                "it holds {} files; at most {MOST_ENTRIES} are read",
                archive.len()
            )));
        }
        let mut bytes = Vec::new();
        for index in 0..archive.len() {
            let entry = archive.by_index(index).map_err(io::Error::other)?;
            let inner = String::from_utf8_lossy(entry.name_raw()).into_owned();
            if !inner.ends_with(".json") {
                continue;
            }
            let inner = format!("{name}/{inner}");
            bytes.clear();
            entry.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
            self.advisory(&inner, &bytes);
            report();
        }
        Ok(())
    }

    fn advisory(&mut self, name: &str, bytes: &[u8]) {
        if bytes.len() as u64 > MOST_BYTES {
            self.unread.push(format!("{name}: it has more than {MOST_BYTES} bytes"));
            return;
        }
        let advisory = match Advisory::parse(bytes) {
            Ok(Some(advisory)) => advisory,
            Ok(None) => return,
            Err(error) => {
                self.unread.push(format!("{name}: {error}"));
                return;
            }
        };
        self.count += 1;
        let Advisory { id, mut aliases, upstream, summary, rating, affected } = advisory;
        match &rating {
            Some(rating) => {
                let known = self.ratings.entry(id.clone()).or_insert_with(|| rating.clone());
                *known = rating.clone().max(known.clone());
            }
            None => {
                let sources = aliases.iter().chain(&upstream).cloned().collect();
                self.upstream.insert(id.clone(), sources);
            }
        }
        // A distribution's advisory about one flaw is that flaw's; one about several is an update.
        if let [only] = upstream.as_slice()
            && !aliases.contains(only)
        {
            aliases.push(only.clone());
        }
        for affected in affected {
            let (family, package) = normal_name(&affected);
            let family = family.to_owned();
            let entry = Entry {
                id: id.clone(),
                aliases: aliases.clone(),
                summary: summary.clone(),
                rating: rating.clone(),
                affected,
            };
            self.entries.entry((family, package)).or_default().push(entry);
        }
    }

    fn take(&mut self, other: Gathered) {
        for (key, mut entries) in other.entries {
            self.entries.entry(key).or_default().append(&mut entries);
        }
        for (id, rating) in other.ratings {
            let known = self.ratings.entry(id).or_insert_with(|| rating.clone());
            *known = rating.max(known.clone());
        }
        self.upstream.extend(other.upstream);
        self.unread.extend(other.unread);
        self.count += other.count;
    }

    /// Sorts everything, and gives those that don't rate what they speak of the worst rating of those that they name.
    fn finished(mut self) -> Gathered {
        let (ratings, upstream) = (std::mem::take(&mut self.ratings), std::mem::take(&mut self.upstream));
        let inherited: BTreeMap<&String, Rating> = upstream
            .iter()
            .filter_map(|(id, sources)| {
                Some((id, sources.iter().filter_map(|source| ratings.get(source)).max()?.clone()))
            })
            .collect();
        for entries in self.entries.values_mut() {
            for entry in entries.iter_mut().filter(|entry| entry.rating.is_none()) {
                entry.rating = inherited.get(&entry.id).cloned();
            }
            entries.sort_by(|left, right| {
                let key = |entry: &Entry| (entry.id.clone(), entry.affected.ecosystem.clone());
                key(left).cmp(&key(right))
            });
            // The same advisory from a file and from an archive.
            entries.dedup();
        }
        self.unread.sort();
        let more = self.unread.len().saturating_sub(MOST_NAMED);
        self.unread.truncate(MOST_NAMED);
        if more > 0 {
            self.unread.push(format!("{more} more files of the advisories' folder aren't advisories"));
        }
        self
    }
}

/// A package's ecosystem, without its release, and its name as its inventory writes it.
pub(super) fn normal_name(affected: &Affected) -> (&str, String) {
    let family = split_ecosystem(&affected.ecosystem).0;
    let name = match family {
        "PyPI" => normal_python_name(&affected.name),
        "Packagist" => affected.name.to_ascii_lowercase(),
        _ => affected.name.clone(),
    };
    (family, name)
}
