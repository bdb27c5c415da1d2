//! A folder of advisories, for use without any network.
//!
//! The folder holds OSV's JSON files, or archives of them as OSV hands them out (`all.zip`), in any arrangement.
//! [`Advisories::open`] makes an index of it, once for each state of the folder, and looks only into that from then on:
//! what a scan costs doesn't grow with the folder but for a look at its files' sizes and times.

mod gather;
mod index;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use evidence::advisory::{Finding, covers, merge, scheme, split_ecosystem};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::inventory::{Inventory, Package};
use crate::store::disk::{self, Scratch};

pub use evidence::advisory::{Level, Rating};

/// Advisories, found by package.
#[derive(Debug)]
pub struct Advisories {
    folder: PathBuf,
    index: index::Index,
}

/// What a scan says of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// Each flaw of each package once, the worst first.
    pub findings: Vec<Finding>,
    /// How many packages were looked up.
    pub packages: usize,
    /// What of the image and of the advisories couldn't be read, in a person's words.
    pub unread: Vec<String>,
}

/// A folder of advisories that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdvisoriesError {
    /// It can't be read.
    #[error("can't read the advisories in {}", path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There are none.
    #[error(
        "{} holds no advisory: it must hold OSV's JSON files, or their archives as OSV hands them out (all.zip)",
        path.display()
    )]
    None {
        /// The folder.
        path: PathBuf,
    },
    /// The index can't be written or read.
    #[error("can't keep the index of the advisories at {}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Advisories {
    /// Opens a folder. Its index lies in the folder `cache`, and is made anew if a file of the advisories' folder has
    /// changed; `progress` is then called with the count of the files that were read.
    ///
    /// # Errors
    /// [`AdvisoriesError`]; a single file that isn't an advisory is no error, see [`Scan::unread`].
    pub fn open(
        folder: &Path,
        cache: &Path,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Advisories, AdvisoriesError> {
        let folder = std::path::absolute(folder)
            .map_err(|source| AdvisoriesError::Read { path: folder.to_owned(), source })?;
        let listing = gather::list(&folder)?;
        let name = Digest::of(folder.as_os_str().as_encoded_bytes());
        let path = cache.join(format!("{}.index", name.hex()));
        let failed = |source| AdvisoriesError::Index { path: path.clone(), source };
        if let Ok(file) = File::open(&path)
            && let Some(index) = index::Index::open(file, &listing.state).map_err(failed)?
        {
            return Ok(Advisories { folder, index });
        }
        let gathered = gather::gather(&folder, &listing.files, progress)?;
        if gathered.count == 0 {
            return Err(AdvisoriesError::None { path: folder });
        }
        let bytes = index::write(&listing.state, gathered).map_err(failed)?;
        let tmp = cache.join("tmp");
        fs::create_dir_all(&tmp).map_err(failed)?;
        disk::sweep(&tmp, None).map_err(failed)?;
        Scratch::new(&tmp)
            .and_then(|scratch| scratch.publish_file("index", &bytes, &path))
            .map_err(failed)?;
        let index = File::open(&path).and_then(|file| index::Index::open(file, &listing.state));
        let index =
            index.map_err(failed)?.ok_or_else(|| failed(io::Error::other("it was written in vain")))?;
        Ok(Advisories { folder, index })
    }

    /// The folder that they come from.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A digest of everything that is known of the advisories: with the same one, the same image has the same findings.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.index.digest
    }

    /// How many advisories there are, without those that are withdrawn.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.index.advisories
    }

    /// Looks up what is installed.
    ///
    /// # Errors
    /// The index can't be read any more.
    pub fn scan(&self, inventory: &Inventory) -> Result<Scan, AdvisoriesError> {
        let failed = |source| AdvisoriesError::Index { path: self.folder.clone(), source };
        let mut findings = Vec::new();
        let mut packages: Vec<&Package> = inventory.packages.iter().collect();
        let subject = |package: &Package| {
            (package.ecosystem.clone(), package.advised_name.clone(), package.advised_version.clone())
        };
        packages.sort_by_cached_key(|package| subject(package));
        for group in packages.chunk_by(|left, right| subject(left) == subject(right)) {
            let Some(package) = group.first() else { continue };
            let Some(ecosystem) = &package.ecosystem else { continue };
            let Some(scheme) = scheme(ecosystem) else { continue };
            let mut installed: Vec<String> = group.iter().map(|package| package.name.clone()).collect();
            installed.dedup();
            let known =
                self.index.find(split_ecosystem(ecosystem).0, &package.advised_name).map_err(failed)?;
            for entry in known.into_iter().filter(|entry| covers(&entry.affected.ecosystem, ecosystem)) {
                let Some(verdict) = entry.affected.judge(scheme, &package.advised_version) else { continue };
                findings.push(Finding {
                    package: package.advised_name.clone(),
                    version: package.advised_version.clone(),
                    installed: installed.clone(),
                    ecosystem: ecosystem.clone(),
                    advisory: entry.id,
                    aliases: entry.aliases,
                    summary: entry.summary,
                    rating: entry.affected.rating.or(entry.rating),
                    fixed: verdict.fixed,
                });
            }
        }
        let of_image = inventory.unread.iter().map(|unread| match unread.path.as_str() {
            "" => format!("of the image, {}", unread.reason),
            path => format!("{path} of the image: {}", unread.reason),
        });
        let wanted: BTreeSet<&str> =
            inventory.packages.iter().filter_map(|package| package.ecosystem.as_deref()).collect();
        let is_unknown =
            |ecosystem: &&str| !self.index.ecosystems.iter().any(|known| covers(known, ecosystem));
        let unknown = wanted
            .into_iter()
            .filter(is_unknown)
            .map(|ecosystem| format!("there is no advisory for {ecosystem}, so its packages match none"));
        let unread = of_image.chain(unknown).chain(self.index.unread.iter().cloned()).collect();
        Ok(Scan { findings: merge(findings), packages: inventory.packages.len(), unread })
    }
}

#[cfg(test)]
mod tests;
