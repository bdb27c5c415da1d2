//! What is installed in an image: the packages of its distribution and of languages, read out of its layers.
//!
//! [`Image::inventory`] looks through the layers as the workload would see them, without unpacking anything, and reads
//! the databases that package managers keep there. All of it is an image author's word: every parser takes any bytes,
//! has a bound on what it takes in, and what can't be read is said in [`Inventory::unread`] and never left out in silence.

mod apk;
mod distribution;
mod dpkg;
mod format;
mod go;
mod json;
mod links;
mod package;
mod python;
mod rpm;
mod ruby;
mod sqlite;
mod toml;
mod view;

use std::collections::BTreeMap;
use std::io::Read;

use crate::digest::Digest;
use crate::layer::reader::{ReadError, Reader};
use crate::store::Image;

pub use distribution::Distribution;
pub use format::{Format, Unreadable};
pub use package::{Kind, Location, Package, Record};
pub(crate) use python::normal as normal_python_name;

/// The most packages that are listed.
const MOST_PACKAGES: usize = 200_000;
/// The most places that are listed of one package.
const MOST_PLACES: usize = 16;

/// The most bytes of files that are read of one image. A file with many names is read by each of them.
const MOST_READ: u64 = 8 << 30;

/// What is installed in an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The distribution, if the image says which.
    pub distribution: Option<Distribution>,
    /// Every package once, sorted by kind, name, version and architecture.
    pub packages: Vec<Package>,
    /// What couldn't be read.
    pub unread: Vec<Unread>,
}

/// A file of the image that couldn't be read, so that what it lists is missing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unread {
    /// The file, from the image's root.
    pub path: String,
    /// Why, in a person's words.
    pub reason: String,
}

/// An image whose layers can't be read.
#[derive(Debug, thiserror::Error)]
#[error("layer {layer} of the image can't be read for its packages")]
pub struct InventoryError {
    layer: Digest,
    #[source]
    source: ReadError,
}

impl Image {
    /// Lists what is installed in the image. An image that is nothing but a Wasm program has an empty list.
    ///
    /// # Errors
    /// A layer in the store is damaged. What is damaged in the image itself is in [`Inventory::unread`].
    pub fn inventory(&self) -> Result<Inventory, InventoryError> {
        let failed = |layer: usize| {
            let layer = self.layers[layer].digest.clone();
            move |source| InventoryError { layer, source }
        };
        let mut readers = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            readers.push(Reader::open(&layer.file).map_err(failed(index))?);
        }
        let mut gathered = Gathered::default();
        let view = view::View::of(&readers).map_err(|(layer, source)| failed(layer)(source))?;
        if view.too_many {
            gathered.unread("", format!("only the first {} files of interest are read", view::MOST_FILES));
        }
        for (path, reason) in &view.links {
            gathered.unread(&format!("/{}", String::from_utf8_lossy(path)), reason.clone());
        }
        let mut left = MOST_READ;
        for (path, found) in &view.files {
            let name = format!("/{}", String::from_utf8_lossy(path));
            match left.checked_sub(found.entry.size()) {
                Some(rest) => left = rest,
                None => {
                    gathered.unread(&name, format!("more than {} GiB are to be read", MOST_READ >> 30));
                    continue;
                }
            }
            let content = readers[found.layer].content(&found.entry);
            // Only regular files come into the view.
            let Ok(content) = content else { continue };
            let place = Location { layer: self.layers[found.layer].digest.clone(), path: name.clone() };
            match found.format.read(path, content, found.entry.size()) {
                Ok(records) => gathered.add(found.format, records, &place),
                Err(reason) => gathered.unread(&name, reason.to_string()),
            }
        }
        for (path, found) in &view.releases {
            let mut text = Vec::new();
            if let Ok(content) = readers[found.layer].content(&found.entry)
                && content.take(distribution::MOST_BYTES).read_to_end(&mut text).is_ok()
                && gathered.distribution.is_none()
            {
                gathered.distribution = Distribution::parse(&text);
            } else if gathered.distribution.is_none() {
                gathered.unread(&String::from_utf8_lossy(path), "it can't be read".to_owned());
            }
        }
        Ok(gathered.finish())
    }
}

type Key = (Kind, String, String, Option<String>);

#[derive(Default)]
struct Gathered {
    distribution: Option<Distribution>,
    packages: BTreeMap<Key, (Record, Vec<Location>)>,
    unread: Vec<Unread>,
    full: bool,
}

impl Gathered {
    fn unread(&mut self, path: &str, reason: String) {
        self.unread.push(Unread { path: path.to_owned(), reason });
    }

    fn add(&mut self, format: Format, records: Vec<Record>, place: &Location) {
        let kind = format.kind();
        if records.len() > MOST_PACKAGES {
            self.unread(&place.path, format!("only its first {MOST_PACKAGES} entries are read"));
        }
        let mut improper = 0_usize;
        for record in records {
            if !record.is_proper() {
                improper += 1;
                continue;
            }
            let key = (kind, record.name.clone(), record.version.clone(), record.arch.clone());
            if self.packages.len() >= MOST_PACKAGES && !self.packages.contains_key(&key) {
                self.full = true;
                continue;
            }
            let (_, places) = self.packages.entry(key).or_insert_with(|| (record, Vec::new()));
            if places.len() < MOST_PLACES && !places.contains(place) {
                places.push(place.clone());
            }
        }
        if improper > 0 {
            self.unread(
                &place.path,
                format!("{improper} of its packages have a name or version that none can have"),
            );
        }
    }

    fn finish(mut self) -> Inventory {
        if self.full {
            self.unread("", format!("only the first {MOST_PACKAGES} packages are listed"));
        }
        let has = |kind: Kind| self.packages.keys().any(|(of, ..)| *of == kind);
        let of_system = [Kind::Deb, Kind::Apk, Kind::Rpm].into_iter().find(|kind| has(*kind));
        if let Some(kind) = of_system
            && self.distribution.as_ref().and_then(|known| known.ecosystem(kind)).is_none()
        {
            let reason = match &self.distribution {
                Some(known) => {
                    format!("there are no advisories for packages of {known}, so its packages match none")
                }
                None => "the image doesn't say which distribution it is, so its packages match no advisories"
                    .to_owned(),
            };
            self.unread("/etc/os-release", reason);
        }
        let distribution = self.distribution;
        let packages = self.packages.into_iter().map(|((kind, ..), (record, locations))| {
            Package::new(kind, record, locations, distribution.as_ref())
        });
        let packages = packages.collect();
        self.unread.sort();
        Inventory { packages, distribution, unread: self.unread }
    }
}

#[cfg(test)]
mod tests;
