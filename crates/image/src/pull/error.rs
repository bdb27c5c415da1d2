//! What can go wrong with a pull.

use std::io;

use thiserror::Error;

use crate::config::ConfigError;
use crate::digest::Digest;
use crate::layer::reader::ReadError;
use crate::layer::{ConvertError, MergeError};
use crate::source::SourceError;
use crate::store::StoreError;

/// A pull that didn't bring the image. Layers that were complete stay; nothing else does.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PullError {
    /// The source doesn't give what it should.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The configuration can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A layer was refused.
    #[error("layer {layer} was refused")]
    Layer {
        /// The digest of the layer as it is fetched.
        layer: Digest,
        /// Why.
        #[source]
        source: Box<LayerError>,
    },
    /// The Wasm program was refused.
    #[error("the Wasm program {program} was refused")]
    Wasm {
        /// Its digest, or its path in the image.
        program: String,
        /// Why.
        #[source]
        source: Box<WasmError>,
    },
    /// The lowest layers can't be made into one.
    #[error("the image's lowest layers can't be merged")]
    Merge(#[source] Box<MergeError>),
    /// The store can't take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something was removed from the store by other means than this program while it was in use.
    #[error(
        "the image vanished from the store while it was being pulled; is something else removing files there?"
    )]
    Vanished,
}

/// Why a Wasm program was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WasmError {
    /// Its bytes didn't come as they should.
    #[error(transparent)]
    Blob(#[from] LayerError),
    /// It isn't a binary of WebAssembly.
    #[error(
        "it begins with \"{start}\", where a Wasm program begins with \"\\x00asm\"; is it in text form, or no Wasm?"
    )]
    Magic {
        /// Its first bytes, escaped.
        start: String,
    },
    /// It is larger than any should be.
    #[error("it has {size} bytes or more; at most {most} are read")]
    Large {
        /// Its size in bytes, or as much of it as was read.
        size: u64,
        /// The limit in bytes.
        most: u64,
    },
    /// The image is for Wasm but names no program.
    #[error("the image is for Wasm, but has neither entrypoint nor cmd")]
    NoEntrypoint,
    /// The image is for Wasm, but its entrypoint isn't in it.
    #[error("the image is for Wasm, but has no file of that name")]
    Absent,
    /// A layer can't be read back.
    #[error("a layer of the image can't be read")]
    Layer(#[source] ReadError),
}

/// Why a layer, or another blob, was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The source doesn't have it.
    #[error(transparent)]
    Source(SourceError),
    /// The source broke off.
    #[error("its source failed after {after} bytes")]
    Read {
        /// How many bytes had come.
        after: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is shorter than declared.
    #[error("it has {found} bytes, but {declared} are declared")]
    Short {
        /// The declared size in bytes.
        declared: u64,
        /// The real size in bytes.
        found: u64,
    },
    /// It is longer than declared.
    #[error("it goes on beyond the {declared} bytes that are declared")]
    Long {
        /// The declared size in bytes.
        declared: u64,
    },
    /// Its bytes aren't what the manifest says.
    #[error("its bytes have the digest {found}, but {declared} is declared")]
    Digest {
        /// The manifest's digest.
        declared: Digest,
        /// The real one.
        found: Digest,
    },
    /// Its unpacked bytes aren't what the configuration says.
    #[error("its unpacked bytes have the digest {found}, but the configuration's diff_id is {declared}")]
    DiffId {
        /// The configuration's diff_id.
        declared: Digest,
        /// The real one.
        found: Digest,
    },
    /// It isn't well-formed gzip or zstd.
    #[error("it can't be decompressed")]
    Compression {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It unpacks to far more than its size makes plausible.
    #[error("it is a decompression bomb: {packed} bytes unpack to more than {most}")]
    Bomb {
        /// Its size in bytes.
        packed: u64,
        /// The most bytes that it may unpack to.
        most: u64,
    },
    /// It isn't a tar file that can become a file system.
    #[error("it can't become a file system")]
    Convert(#[source] ConvertError),
    /// Another layer failed first.
    #[error("it was given up because another layer failed")]
    Aborted,
}
