//! An OCI layer becomes a read-only compressed file system.
//!
//! [`convert`] turns a layer's tar stream into one squashfs 4.0 image (LZ4, blocks of 128 KiB) with its dm-verity tree
//! behind it, in one pass: file data is compressed and written as it arrives, names and attributes are kept in memory
//! and written at the end. [`merge`] puts several such images together without compressing anything again, and
//! [`reader`] reads them back.
//!
//! ```text
//! 0            96        106                                              file_system_bytes = hash_offset
//! | superblock | options | data and fragments, in the order of the tar | tables | padding | hash tree |
//! ```
//!
//! **The same layer gives the same bytes everywhere**: nothing depends on clock, host, user or timing.
//!
//! What a layer says about those below it is written as overlayfs reads it: `.wh.NAME` becomes a character device 0:0
//! called NAME, `.wh..wh..opq` the xattr `trusted.overlay.opaque=y` of its folder. Parents that the tar holds nothing
//! about are made with mode 0755 and owner 0, and marked `trusted.vimana.implied=y`: [`merge`] then leaves a lower
//! layer's attributes as they are. Of the layer's own xattrs, those in `user.` and `security.` are kept; `trusted.` and
//! `user.overlay.`, which could forge these marks, and those that squashfs can't hold are dropped.
//!
//! Sources: OCI image-spec, `layer.md`; the kernel's `filesystems/squashfs.rst` and `filesystems/overlayfs.rst`.

pub(crate) mod extract;
mod format;
mod merge;
mod pack;
pub mod reader;
mod sink;
mod tar;
mod tree;
mod unpack;
mod write;

use std::fs::File;
use std::io::{self, Read};

pub use extract::ExtractError;
pub use merge::MergeError;

/// What a layer may hold at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files, folders and everything else that has a name, those that are replaced later on and implied parents included.
    pub entries: u64,
    /// Bytes of all files together, and of the tar stream itself.
    pub unpacked_bytes: u64,
}

impl Default for Limits {
    /// 4 Mi entries, 64 GiB.
    fn default() -> Self {
        Self { entries: 4 << 20, unpacked_bytes: 64 << 30 }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Bytes of the file system with its padding: a multiple of 4096.
    pub file_system_bytes: u64,
    /// Bytes of the file: file system and hash tree.
    pub total_bytes: u64,
    /// What a dm-verity target needs.
    pub verity: Verity,
    /// Names in the image, the root aside.
    pub entries: u64,
    /// Bytes of all files together, unpacked. From [`convert`] this counts those too that later entries replaced.
    pub unpacked_bytes: u64,
    /// Whether an overlay of this layer over others would show something else than the image means: it implies folders
    /// whose attributes lower layers know, or hides all of theirs by an opaque root, which overlayfs doesn't heed. Such a
    /// layer has to be merged with those below it.
    pub needs_lower: bool,
}

/// What a dm-verity target needs: format 1, SHA-256, blocks of 4096 bytes, no salt, no superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verity {
    /// The root digest.
    pub root: [u8; 32],
    /// How many blocks of data the tree covers.
    pub data_blocks: u64,
    /// Where the tree begins in the same file, in bytes.
    pub hash_offset: u64,
}

impl Verity {
    /// The root digest in lower-case hexadecimal digits.
    #[must_use]
    pub fn root_hex(&self) -> String {
        crate::digest::hex(&self.root)
    }
}

/// Converts a layer's uncompressed tar stream into a squashfs image with its hash tree, written from the start of `out`,
/// whose earlier content is lost. Reads `tar` to its very end, also what follows the archive, unless it fails.
///
/// # Errors
/// [`ConvertError`]; `out` then holds nothing of use.
pub fn convert(tar: impl Read, out: &mut File, limits: &Limits) -> Result<Layer, ConvertError> {
    unpack::convert(tar, out, limits)
}

/// Puts several layers' images together into one, bottom first: what the result shows is what overlayfs shows over them.
/// Compressed blocks are copied as they are. With `bottom`, nothing will lie below the result, and whiteouts go when
/// they have done their work; without, those stay that still hide something in layers further down.
///
/// # Errors
/// [`MergeError`]; `out` then holds nothing of use.
pub fn merge(layers: &[File], out: &mut File, bottom: bool) -> Result<Layer, MergeError> {
    merge::merge(layers, out, bottom)
}

/// Why an image couldn't be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file couldn't be written.
    #[error("writing the layer's file system failed")]
    Io(#[from] io::Error),
    /// More owners than squashfs can hold.
    #[error("the layer has more than 65535 different users and groups, which is more than squashfs can hold")]
    Owners,
    /// Names and attributes take more than squashfs can hold.
    #[error("the layer's names and attributes take more room than squashfs has for them")]
    Tables,
}

/// Why a layer was not converted. All but [`ConvertError::Read`] and [`ConvertError::Write`] are about the layer itself,
/// and come again at the next attempt.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The source of the tar stream failed.
    #[error("reading the layer's tar stream failed at byte {at}")]
    Read {
        /// Where in the stream.
        at: u64,
        /// What the source said.
        source: io::Error,
    },
    /// The image couldn't be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The stream ends within an entry.
    #[error("the layer's tar stream ends at byte {at}, in the middle of an entry")]
    Truncated {
        /// Where it ends.
        at: u64,
    },
    /// A header can't be understood.
    #[error("the tar header at byte {at} can't be used: {what}")]
    Header {
        /// Where in the stream.
        at: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An entry of a kind that a layer can't have.
    #[error("{path:?} is {what}, which a layer can't hold")]
    Unsupported {
        /// The entry.
        path: String,
        /// What it is.
        what: String,
    },
    /// A path with a `..` in it.
    #[error("the path {path:?} has a \"..\" in it; a layer's paths must stay below its root")]
    ParentComponent {
        /// The entry.
        path: String,
    },
    /// A name or path longer than Linux allows.
    #[error("{path:?} is too long: a name has at most 255 bytes and a path at most 4095")]
    TooLong {
        /// The entry, shortened.
        path: String,
    },
    /// The root, described as something else than a folder.
    #[error("the layer describes its root as something else than a folder")]
    Root,
    /// An entry below something that isn't a folder.
    #[error("{path:?} lies below {at:?}, which isn't a folder in this layer")]
    BelowNonDirectory {
        /// The entry.
        path: String,
        /// What lies in the way.
        at: String,
    },
    /// A hard link to nothing.
    #[error("{path:?} is a hard link to {target:?}, which isn't in the layer before it")]
    LinkMissing {
        /// The entry.
        path: String,
        /// What it links to.
        target: String,
    },
    /// A hard link to a folder.
    #[error("{path:?} is a hard link to {target:?}, which is a folder")]
    LinkDirectory {
        /// The entry.
        path: String,
        /// What it links to.
        target: String,
    },
    /// A hard link out of the layer.
    #[error("{path:?} is a hard link to {target:?}, which has a \"..\" in it")]
    LinkEscapes {
        /// The entry.
        path: String,
        /// What it links to.
        target: String,
    },
    /// A symbolic link to nothing, or to a path longer than Linux allows.
    #[error("the symbolic link {path:?} has a target of {length} bytes; it must have 1 to 4095")]
    SymlinkTarget {
        /// The entry.
        path: String,
        /// Bytes of its target.
        length: usize,
    },
    /// A whiteout of no name, or with something below it.
    #[error(
        "{path:?} isn't a whiteout that means anything: \".wh.\" must be followed by a name, and have nothing below"
    )]
    Whiteout {
        /// The entry.
        path: String,
    },
    /// A device whose numbers Linux doesn't have.
    #[error("{path:?} is the device {major}:{minor}; the numbers go to 4095 and 1048575")]
    Device {
        /// The entry.
        path: String,
        /// Its major number.
        major: u64,
        /// Its minor number.
        minor: u64,
    },
    /// An xattr that Linux doesn't allow.
    #[error(
        "{path:?} has an xattr with a name of {name} bytes and a value of {value}; at most 255 and 65536 are allowed"
    )]
    Xattr {
        /// The entry.
        path: String,
        /// Bytes of the xattr's name.
        name: usize,
        /// Bytes of its value.
        value: usize,
    },
    /// More entries than allowed.
    #[error("the layer has more than {limit} entries, which is the limit")]
    TooManyEntries {
        /// [`Limits::entries`].
        limit: u64,
    },
    /// More data than allowed.
    #[error("the layer unpacks to more than {limit} bytes, which is the limit")]
    TooLarge {
        /// [`Limits::unpacked_bytes`].
        limit: u64,
    },
    /// Names, link targets and xattrs that would fill the memory.
    #[error("the layer's names, link targets and xattrs take more than {limit} bytes, which is the limit")]
    TooMuchMetadata {
        /// The limit.
        limit: u64,
    },
}

impl ConvertError {
    fn unsupported(path: &[u8], flag: u8) -> Self {
        let what = match flag {
            b'S' => "a sparse file in GNU tar's own form".to_owned(),
            b'M' => "the rest of a file from another volume".to_owned(),
            b'D' => "the list of a folder from an incremental backup".to_owned(),
            other => format!("an entry of tar type {:?}", char::from(other)),
        };
        Self::Unsupported { path: shown(path), what }
    }
}

/// A path as it may appear in an error: not too long; what isn't UTF-8 is replaced.
fn shown(path: &[u8]) -> String {
    const LONGEST: usize = 200;
    match path.get(..LONGEST) {
        Some(head) if path.len() > LONGEST => format!("{}...", String::from_utf8_lossy(head)),
        _ => String::from_utf8_lossy(path).into_owned(),
    }
}
