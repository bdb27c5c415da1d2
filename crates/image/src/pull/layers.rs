//! The layers of an image: found, fetched, merged.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::{PullError, Report, stream};
use crate::digest::Digest;
use crate::layer;
use crate::manifest::Descriptor;
use crate::progress::Progress;
use crate::source::Source;
use crate::store::disk::{self, BlobLock, Scratch};
use crate::store::record::{Key, LayerRecord};
use crate::store::{ImageLayer, Store, StoreError, full_disk};

/// How many layers an image has at most in the store: what one virtual machine mounts.
const MOST_LAYERS: usize = 16;
const PARALLEL: usize = 3;

/// A layer of the image: where it comes from and what it must unpack to.
pub(super) struct Wanted {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
}

pub(super) type Found = (LayerRecord, ImageLayer);

impl Store {
    /// Brings in all layers, bottom first; of more than 16 the lowest are merged into one, and so are those that an overlay
    /// would show wrongly.
    pub(super) fn layers(
        &self,
        source: &Source,
        digest: &Digest,
        wanted: &[Wanted],
        progress: Report<'_>,
    ) -> Result<Vec<Found>, PullError> {
        let merge = if wanted.len() > MOST_LAYERS { wanted.len() + 1 - MOST_LAYERS } else { 0 };
        let (low, high) = wanted.split_at(merge);
        let low_ids: Vec<Digest> = low.iter().map(|layer| layer.diff_id.clone()).collect();
        let (key, merged_digest) = Key::merged(&low_ids);
        let merged = if merge > 0 { self.find_layer(&key)? } else { None };
        let needed = if merged.is_some() { high } else { wanted };

        let mut found: Vec<Option<Found>> = Vec::with_capacity(needed.len());
        for layer in needed {
            found.push(self.find_layer(&Key::layer(&layer.diff_id))?);
        }
        self.announce(digest, needed, &found, progress)?;
        self.fetch_missing(source, needed, &mut found, progress)?;
        let mut found: Vec<Found> = found.into_iter().flatten().collect();
        if found.len() != needed.len() {
            return Err(PullError::Vanished);
        }
        match merged {
            Some(merged) => found.insert(0, merged),
            None if merge > 0 => {
                let upper = found.split_off(merge);
                let merged = self.merge(&key, &merged_digest, &found, progress)?;
                found = upper;
                found.insert(0, merged);
            }
            None => {}
        }
        self.merge_dependent(found, progress)
    }

    /// Merges the layers that an overlay would show wrongly with those below them.
    fn merge_dependent(&self, mut found: Vec<Found>, progress: Report<'_>) -> Result<Vec<Found>, PullError> {
        let highest = found.iter().rposition(|(record, _)| record.needs_lower).filter(|index| *index > 0);
        let Some(highest) = highest else { return Ok(found) };
        let upper = found.split_off(highest + 1);
        let digests: Vec<Digest> = found.iter().map(|(record, _)| record.digest.clone()).collect();
        let (key, digest) = Key::merged(&digests);
        let merged = self.merge(&key, &digest, &found, progress)?;
        Ok(std::iter::once(merged).chain(upper).collect())
    }

    fn announce(
        &self,
        digest: &Digest,
        needed: &[Wanted],
        found: &[Option<Found>],
        progress: Report<'_>,
    ) -> Result<(), PullError> {
        let missing: Vec<&Descriptor> = needed
            .iter()
            .zip(found)
            .filter(|(_, found)| found.is_none())
            .map(|(layer, _)| &layer.descriptor)
            .collect();
        let bytes = missing.iter().map(|descriptor| descriptor.size).fold(0, u64::saturating_add);
        progress(Progress::Resolved { digest, layers: needed.len(), missing: missing.len(), bytes });
        for (record, _) in found.iter().flatten() {
            progress(Progress::Ready { layer: &record.digest, bytes: record.total_bytes, cached: true });
        }
        // What can't fit by far isn't worth fetching; the exact size is known, and checked, layer by layer.
        let least = bytes / 4;
        if least > self.options.quota {
            let used = self.usage()?.bytes;
            return Err(StoreError::Quota { needed: bytes, used, quota: self.options.quota }.into());
        }
        Ok(())
    }

    fn fetch_missing(
        &self,
        source: &Source,
        needed: &[Wanted],
        found: &mut [Option<Found>],
        progress: Report<'_>,
    ) -> Result<(), PullError> {
        let mut missing: Vec<usize> =
            found.iter().enumerate().filter(|(_, found)| found.is_none()).map(|(index, _)| index).collect();
        // The largest first, so that the last one to finish is a small one.
        missing.sort_by_key(|&index| std::cmp::Reverse(needed.get(index).map(|layer| layer.descriptor.size)));
        let workers = missing.len().min(PARALLEL);
        let queue = Mutex::new(VecDeque::from(missing));
        let results = Mutex::new(Vec::new());
        let first_error = Mutex::new(None);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some((index, layer)) = next.and_then(|index| Some((index, needed.get(index)?)))
                        else {
                            return;
                        };
                        match self.layer(source, layer, &stop, progress) {
                            Ok(layer) => {
                                results.lock().unwrap_or_else(PoisonError::into_inner).push((index, layer));
                            }
                            Err(error) => {
                                stop.store(true, Ordering::Relaxed);
                                let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                                first.get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        if let Some(error) = first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        for (index, layer) in results.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if let Some(slot) = found.get_mut(index) {
                *slot = Some(layer);
            }
        }
        Ok(())
    }

    /// Fetches one layer unless somebody else does; then it is waited for.
    fn layer(
        &self,
        source: &Source,
        layer: &Wanted,
        stop: &AtomicBool,
        progress: Report<'_>,
    ) -> Result<Found, PullError> {
        let Wanted { descriptor, diff_id } = layer;
        let key = Key::layer(diff_id);
        let lock = self.root.join("locks").join(&key.name);
        let failed = |source| self.failed("lock", &lock, source);
        let _lock = BlobLock::take(lock.clone(), &|| progress(Progress::Waiting { layer: diff_id }))
            .map_err(failed)?;
        if let Some(found) = self.find_layer(&key)? {
            progress(Progress::Ready { layer: diff_id, bytes: found.0.total_bytes, cached: true });
            return Ok(found);
        }
        let work = stream::Work {
            source,
            descriptor,
            diff_id,
            limits: self.options.limits(descriptor.size),
            stop,
            fetched: &|done| progress(Progress::Fetching { layer: diff_id, done, total: descriptor.size }),
        };
        let found = self.make(&key, diff_id, |out| {
            stream::run(&work, out).map_err(|error| match full_disk(&error) {
                true => PullError::Store(StoreError::Full { root: self.root.clone() }),
                false => PullError::Layer { layer: descriptor.digest.clone(), source: Box::new(error) },
            })
        })?;
        progress(Progress::Ready { layer: diff_id, bytes: found.0.total_bytes, cached: false });
        Ok(found)
    }

    fn merge(
        &self,
        key: &Key,
        digest: &Digest,
        low: &[Found],
        progress: Report<'_>,
    ) -> Result<Found, PullError> {
        progress(Progress::Merging { layers: low.len() });
        let lock = self.root.join("locks").join(format!("merged-{}", key.name));
        let failed = |source| self.failed("lock", &lock, source);
        let _lock = BlobLock::take(lock.clone(), &|| {}).map_err(failed)?;
        if let Some(found) = self.find_layer(key)? {
            return Ok(found);
        }
        let mut files = Vec::with_capacity(low.len());
        for (_, layer) in low {
            files.push(File::open(&layer.path).map_err(|source| self.failed("open", &layer.path, source))?);
        }
        self.make(key, digest, |out| {
            layer::merge(&files, out, true).map_err(|error| match full_disk(&error) {
                true => PullError::Store(StoreError::Full { root: self.root.clone() }),
                false => PullError::Merge(Box::new(error)),
            })
        })
    }

    /// Makes a layer in a scratch folder, and puts it in its place once it is whole and on disk.
    fn make(
        &self,
        key: &Key,
        digest: &Digest,
        write: impl FnOnce(&mut File) -> Result<layer::Layer, PullError>,
    ) -> Result<Found, PullError> {
        let folder = self.layer_folder(key);
        let failed = |source| self.failed("store", &folder, source);
        let scratch = Scratch::new(&self.tmp()).map_err(failed)?;
        let mut out = scratch.create("layer.squashfs").map_err(failed)?;
        let layer = write(&mut out)?;
        let record = LayerRecord::new(key.clone(), digest.clone(), &layer);
        let found = out.metadata().map_err(failed)?.len();
        if found != record.total_bytes {
            return Err(StoreError::Damaged { path: folder, expected: record.total_bytes, found }.into());
        }
        self.make_room(record.total_bytes)?;
        out.sync_data().map_err(failed)?;
        drop(out);
        let mut beside = scratch.create("layer.json").map_err(failed)?;
        serde_json::to_writer(&mut beside, &record).map_err(|error| failed(error.into()))?;
        beside.sync_all().map_err(failed)?;
        // Held before it is visible, so that no collector can come between.
        let held = disk::hold(&scratch.path("layer.squashfs")).map_err(failed)?;
        scratch.publish(&folder).map_err(failed)?;
        let layer = self.hold_layer(record.clone())?.ok_or(PullError::Vanished)?;
        drop(held);
        Ok((record, layer))
    }
}

/// Leaves out every layer that comes again further up. The upper one puts all of the lower one's entries back and
/// hides all that it hid, so the result is the same, and no file system has to be mounted twice.
pub(super) fn without_repeats(layers: &[Descriptor], diff_ids: Vec<Digest>) -> Vec<Wanted> {
    let mut seen = HashSet::new();
    let mut wanted: Vec<Wanted> = layers
        .iter()
        .cloned()
        .zip(diff_ids)
        .rev()
        .filter(|(_, diff_id)| seen.insert(diff_id.clone()))
        .map(|(descriptor, diff_id)| Wanted { descriptor, diff_id })
        .collect();
    wanted.reverse();
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_layer_that_comes_twice_the_upper_one_stays() {
        let descriptor = |text: &str| Descriptor {
            media_type: String::new(),
            digest: Digest::of(text.as_bytes()),
            size: 0,
            platform: None,
            annotations: None,
        };
        let layers = ["a", "b", "a", "c"].map(descriptor);
        let ids = layers.iter().map(|layer| layer.digest.clone()).collect();
        let left: Vec<Digest> =
            without_repeats(&layers, ids).into_iter().map(|layer| layer.diff_id).collect();
        assert_eq!(left, ["b", "a", "c"].map(|text| Digest::of(text.as_bytes())));
    }
}
