//! What can go wrong with a source.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::MAX_DEPTH;
use super::containerd::ContainerdError;
use super::registry::RegistryError;
use crate::digest::Digest;
use crate::manifest::{MAX_DOCUMENT, ManifestError};

/// An image's source that doesn't give what it should.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A file can't be read.
    #[error("can't read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A blob stopped in the middle.
    #[error("can't read {digest} to its end")]
    Read {
        /// Its digest.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layout's or archive's own files aren't as they should be.
    #[error("{} isn't {what}: {reason}", path.display())]
    Form {
        /// The folder or file.
        path: PathBuf,
        /// What it was read as.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The name isn't in the layout or archive.
    #[error("{} holds no image named \"{wanted}\"; it holds: {}", path.display(), listing(found))]
    NoSuchName {
        /// The folder or file.
        path: PathBuf,
        /// The name that was asked for.
        wanted: String,
        /// The names that there are.
        found: Vec<String>,
    },
    /// There are several images and no name says which.
    #[error("{} holds several images; put a colon and one of these names behind it: {}", path.display(), listing(found))]
    NameNeeded {
        /// The folder or file.
        path: PathBuf,
        /// The names that there are.
        found: Vec<String>,
    },
    /// A document is larger than any should be.
    #[error("{digest} is declared to have {size} bytes; at most {MAX_DOCUMENT} are read of such a document")]
    Large {
        /// Its digest.
        digest: Digest,
        /// Its declared size in bytes.
        size: u64,
    },
    /// The content has another length than declared.
    #[error("{digest} has {found} bytes or more, but is declared to have {declared}")]
    Size {
        /// Its digest.
        digest: Digest,
        /// Its declared size in bytes.
        declared: u64,
        /// How many bytes were read.
        found: u64,
    },
    /// The content isn't what its digest says.
    #[error("what was served as {declared} is really {found}")]
    Digest {
        /// The digest that was asked for.
        declared: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// Indexes hold indexes without an end.
    #[error("the image's indexes are nested more than {MAX_DEPTH} deep")]
    Depth,
    /// A manifest can't be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The registry doesn't serve.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// containerd doesn't serve.
    #[error(transparent)]
    Containerd(#[from] ContainerdError),
}

pub(super) fn listing(names: &[String]) -> String {
    if names.is_empty() { "no names".to_owned() } else { names.join(", ") }
}
