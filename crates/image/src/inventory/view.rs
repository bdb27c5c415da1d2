//! The files of interest as the workload would see them: layer over layer, whiteouts and all.

use std::collections::BTreeMap;

use super::format::Format;
use super::links;
use crate::layer::reader::{Entry, Kind, ReadError, Reader};

/// The most files that are looked into.
pub(super) const MOST_FILES: usize = 200_000;

/// The most links that are named.
const MOST_LINKS: usize = 1000;

/// A file that is to be read.
pub(super) struct Found {
    pub(super) layer: usize,
    pub(super) entry: Entry,
    pub(super) format: Format,
}

/// A file that names the distribution.
pub(super) struct Release {
    pub(super) layer: usize,
    pub(super) entry: Entry,
}

/// What is of interest in an image.
#[derive(Default)]
pub(super) struct View {
    pub(super) files: BTreeMap<Vec<u8>, Found>,
    /// `etc/os-release` comes before `usr/lib/os-release`, to which it is a link mostly.
    pub(super) releases: BTreeMap<Vec<u8>, Release>,
    /// Links at places where packages are listed which lead to where none would be found; each with its reason.
    pub(super) links: BTreeMap<Vec<u8>, String>,
    /// Whether there were more than are looked into.
    pub(super) too_many: bool,
}

const RELEASES: [&[u8]; 2] = [b"etc/os-release", b"usr/lib/os-release"];

impl View {
    /// Looks through layers, bottom first. An error comes with the layer's index.
    pub(super) fn of(readers: &[Reader<'_>]) -> Result<View, (usize, ReadError)> {
        let mut view = View::default();
        for (layer, reader) in readers.iter().enumerate() {
            for entry in reader.entries() {
                view.add(layer, entry.map_err(|error| (layer, error))?);
            }
        }
        Ok(view)
    }

    fn add(&mut self, layer: usize, entry: Entry) {
        if layer > 0 && !entry.path.is_empty() {
            // Whatever it is, what was of that name is gone; and what was below it, unless both are folders.
            self.files.remove(&entry.path);
            self.releases.remove(&entry.path);
            self.links.remove(&entry.path);
        }
        if layer > 0 && (entry.kind != Kind::Directory || entry.is_opaque()) {
            self.remove_below(&entry.path);
        }
        if let Kind::Symlink(target) = &entry.kind
            && let Some(reason) = links::hidden(&entry.path, target)
        {
            match self.links.len() < MOST_LINKS {
                true => drop(self.links.insert(entry.path.clone(), reason)),
                false => self.too_many = true,
            }
        }
        if !matches!(entry.kind, Kind::File(_)) {
            return;
        }
        if RELEASES.contains(&entry.path.as_slice()) {
            self.releases.insert(entry.path.clone(), Release { layer, entry });
        } else if let Some(format) = Format::of(&entry.path, entry.mode, entry.size()) {
            match self.files.len() < MOST_FILES {
                true => drop(self.files.insert(entry.path.clone(), Found { layer, entry, format })),
                false => self.too_many = true,
            }
        }
    }

    fn remove_below(&mut self, folder: &[u8]) {
        let prefix = if folder.is_empty() { Vec::new() } else { [folder, b"/"].concat() };
        let below: Vec<Vec<u8>> = self
            .files
            .range(prefix.clone()..)
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&prefix))
            .cloned()
            .collect();
        for path in below {
            self.files.remove(&path);
        }
        self.releases.retain(|path, _| !path.starts_with(&prefix));
        self.links.retain(|path, _| !path.starts_with(&prefix));
    }
}
