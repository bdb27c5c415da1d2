//! What a pull is doing, for whoever draws bars.

use crate::digest::Digest;

/// One step of a pull. Calls come from several threads, in order for each layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The manifest is being looked up.
    Resolving,
    /// The manifest is known: so many layers, of which so many are to be fetched, with so many bytes.
    Resolved {
        /// The manifest's digest.
        digest: &'a Digest,
        /// All layers of the image.
        layers: usize,
        /// The layers that the store doesn't have yet.
        missing: usize,
        /// The compressed size of those, in bytes.
        bytes: u64,
    },
    /// Another process or thread fetches this layer; this one waits for it.
    Waiting {
        /// The layer's diff_id.
        layer: &'a Digest,
    },
    /// Bytes of a layer have arrived; conversion goes on at the same time.
    Fetching {
        /// The layer's diff_id.
        layer: &'a Digest,
        /// The compressed bytes that have arrived.
        done: u64,
        /// The layer's compressed size in bytes.
        total: u64,
    },
    /// The layer is complete, checked and on disk.
    Ready {
        /// The layer's diff_id.
        layer: &'a Digest,
        /// The size of its file system with its verity tree, in bytes.
        bytes: u64,
        /// Whether the store had it before.
        cached: bool,
    },
    /// The lowest layers are being merged into one.
    Merging {
        /// How many layers become one.
        layers: usize,
    },
    /// The image is in the store.
    Done {
        /// The manifest's digest.
        digest: &'a Digest,
    },
}
