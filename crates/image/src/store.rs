//! The store: images and their layers in one folder, by content.
//!
//! ```text
//! version                         the number of this arrangement
//! lock                            shared: an image is being written down; exclusive: content is being removed
//! images/<hash of the name>.json  one image: digest, configuration, layers; its mtime is the last use
//! layers/<diff_id>-v2/            layer.squashfs (file system, then verity tree), layer.json, unpacked trees (`trees`)
//! merged/<chain>-v2/              the same, made of several layers
//! wasm/<digest>/                  module.wasm, a Wasm program
//! manifests/, configs/            documents by digest
//! locks/                          one file per piece of content that is being made
//! tmp/                            what isn't complete, see `disk`
//! ```
//!
//! **What keeps content alive.** Content is removed only under the exclusive `lock`, only if no image's record
//! names it, and only if nobody holds a shared lock on it. An [`Image`] holds its layers and its record for as
//! long as it lives; a pull holds each layer from the moment it is there. A record is written under the shared
//! `lock`, so that a collector either sees the record or meets the locks.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use thiserror::Error;

use crate::config::ImageConfig;
use crate::digest::{Digest, hex};
use crate::options::{PullOptions, WasmChoice};
use crate::platform::Platform;
use crate::reference::Reference;

mod collect;
pub(crate) mod disk;
mod options;
pub(crate) mod record;
mod trees;

pub use collect::{Freed, Summary, Usage};
pub use options::{OptionsError, Owners, StoreOptions};
pub use trees::TreeError;

use record::{ImageRecord, Key, LayerRecord, Stamp, VERSION, WasmRecord};

/// A folder of images that processes share.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) root: PathBuf,
    pub(crate) options: StoreOptions,
}

/// An image that is in the store, whole. While the value lives, no process removes its layers.
#[derive(Debug, Clone)]
pub struct Image {
    /// The name that it was pulled by; paths are absolute.
    pub reference: Reference,
    /// The digest of the manifest for this platform.
    pub digest: Digest,
    /// The digest of the configuration, which Docker calls the image's ID.
    pub config_digest: Digest,
    /// What the image is for.
    pub platform: Platform,
    /// How to run it.
    pub config: ImageConfig,
    /// The file systems, bottom first; at most 16, and none if the image is nothing but a Wasm program.
    pub layers: Vec<ImageLayer>,
    /// The Wasm program, if the image is one or its entrypoint names one.
    pub wasm: Option<WasmModule>,
    /// The size of what was fetched or would be, in bytes.
    pub compressed_bytes: u64,
    _record: Arc<File>,
}

/// A Wasm program of an image: a core module or a component, in binary form. Its first four bytes are checked, the rest
/// isn't.
#[derive(Debug, Clone)]
pub struct WasmModule {
    /// The file.
    pub path: PathBuf,
    /// The open file, read-only, which holds the lock that keeps the program; see [`ImageLayer::file`].
    pub file: Arc<File>,
    /// The digest of the file.
    pub digest: Digest,
    /// The size of the file in bytes.
    pub bytes: u64,
}

impl ImageLayer {
    /// Returns the verity tree's root hash in lower-case hexadecimal digits.
    pub fn verity_root_hex(&self) -> String {
        hex(&self.verity_root)
    }
}

/// One read-only file system of an image: squashfs, then its dm-verity hash tree, in one file.
#[derive(Debug, Clone)]
pub struct ImageLayer {
    /// The file.
    pub path: PathBuf,
    /// The open file, read-only, which holds the lock that keeps the layer. A process that inherits the
    /// descriptor, or opens its `/proc/self/fd` name while it is there, keeps the layer too.
    pub file: Arc<File>,
    /// The layer's diff_id; for merged layers, a digest of theirs.
    pub digest: Digest,
    /// The size of the squashfs in bytes, a multiple of 4096.
    pub file_system_bytes: u64,
    /// The size of the file in bytes: squashfs and hash tree.
    pub total_bytes: u64,
    /// The root hash of the verity tree (SHA-256, no salt, blocks of 4096 bytes).
    pub verity_root: [u8; 32],
    /// How many blocks of 4096 bytes the tree covers.
    pub verity_data_blocks: u64,
    /// Where in the file the tree begins, in bytes.
    pub verity_hash_offset: u64,
    /// How many files, folders and other entries the layer has.
    pub entries: u64,
    /// The size of the layer's files unpacked, in bytes.
    pub unpacked_bytes: u64,
}

impl Store {
    /// Opens the store in the folder `root`, making it if it isn't there, and removes what dead processes left.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Store, OpenError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        let root = std::path::absolute(root).map_err(failed(root))?;
        let version = root.join("version");
        match fs::read_to_string(&version) {
            Ok(text) => match text.trim().parse::<u32>() {
                // A store of an older program lacks the folders that came later.
                Ok(VERSION) => folders(&root).map_err(failed(&root))?,
                _ => {
                    return Err(OpenError::Version {
                        path: root,
                        found: text.trim().chars().take(20).collect(),
                    });
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(&root).map_err(failed(&root))?;
            }
            Err(error) => return Err(failed(&version)(error)),
        }
        for folder in ["tmp", "locks"] {
            let folder = root.join(folder);
            disk::sweep(&folder, options.owners).map_err(failed(&folder))?;
        }
        Ok(Store { root, options })
    }

    /// Returns the folder that the store lies in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Looks an image up by name, for this machine's platform, without any network; `None` if it isn't there
    /// or not whole. For an image from a folder or archive this is what was pulled from there the last time.
    pub fn get(&self, reference: &Reference) -> Result<Option<Image>, StoreError> {
        self.get_for(reference, &self.options.platform)
    }

    /// Looks an image up by name and platform.
    pub fn get_for(&self, reference: &Reference, platform: &Platform) -> Result<Option<Image>, StoreError> {
        let reference = reference.absolute().map_err(|source| self.failed("find", &self.root, source))?;
        self.load(&reference, platform, true)
    }

    /// Looks an image up as [`Store::pull`] with the same options would choose it. With [`WasmChoice::First`], an
    /// image without a Wasm program doesn't count.
    pub fn find(&self, reference: &Reference, options: &PullOptions) -> Result<Option<Image>, StoreError> {
        for platform in options.wanted(&self.options.platform) {
            if let Some(image) = self.get_for(reference, &platform)?
                && (image.wasm.is_some() || options.wasm != WasmChoice::First)
            {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// Looks an image up by its absolute name. With `current`, one from a file that has changed since isn't there.
    pub(crate) fn load(
        &self,
        reference: &Reference,
        platform: &Platform,
        current: bool,
    ) -> Result<Option<Image>, StoreError> {
        let name = ImageRecord::file_name(&reference.to_string(), platform);
        let path = self.root.join("images").join(name);
        let Some((file, record)) = self.read_record(&path)? else {
            return Ok(None);
        };
        if let Reference::Wasm { path } = reference
            && current
            && let Ok(metadata) = fs::metadata(path)
            && record.stamp != Some(Stamp::of(&metadata))
        {
            return Ok(None);
        }
        // The last use, which decides what is collected first. A store that can't be written still serves.
        let _ = file.set_modified(SystemTime::now());
        let platform = record.meant_for();
        let wasm = match record.wasm {
            Some(wasm) => match self.hold_module(wasm)? {
                Some(module) => Some(module),
                None => return Ok(None),
            },
            None => None,
        };
        let mut layers = Vec::with_capacity(record.layers.len());
        for layer in record.layers {
            match self.hold_layer(layer)? {
                Some(layer) => layers.push(layer),
                None => return Ok(None),
            }
        }
        Ok(Some(Image {
            reference: reference.clone(),
            digest: record.digest,
            config_digest: record.config_digest,
            platform,
            config: record.config,
            layers,
            wasm,
            compressed_bytes: record.compressed_bytes,
            _record: Arc::new(file),
        }))
    }

    /// Reads an image's manifest and configuration as they were fetched, byte for byte.
    pub fn documents(&self, image: &Image) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let read = |folder: &str, digest: &Digest| {
            let path = self.root.join(folder).join(digest.file_name());
            fs::read(&path).map_err(|source| self.failed("read", &path, source))
        };
        Ok((read("manifests", &image.digest)?, read("configs", &image.config_digest)?))
    }

    /// Reads and holds a record.
    fn read_record(&self, path: &Path) -> Result<Option<(File, ImageRecord)>, StoreError> {
        let failed = |source| self.failed("read", path, source);
        let Some(file) = disk::hold(path).map_err(failed)? else {
            return Ok(None);
        };
        let text = io::read_to_string(&file).map_err(failed)?;
        Ok(ImageRecord::parse(&text).map(|record| (file, record)))
    }

    pub(crate) fn layer_folder(&self, key: &Key) -> PathBuf {
        self.root.join(key.kind.folder()).join(&key.name)
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Holds a layer that is known; `None` if it isn't in the store.
    pub(crate) fn hold_layer(&self, record: LayerRecord) -> Result<Option<ImageLayer>, StoreError> {
        let path = self.layer_folder(&record.key).join("layer.squashfs");
        let failed = |source| self.failed("open", &path, source);
        let Some(file) = disk::hold(&path).map_err(failed)? else {
            return Ok(None);
        };
        let length = file.metadata().map_err(failed)?.len();
        if length != record.total_bytes {
            return Err(StoreError::Damaged { path, expected: record.total_bytes, found: length });
        }
        Ok(Some(ImageLayer {
            path,
            file: Arc::new(file),
            digest: record.digest,
            file_system_bytes: record.file_system_bytes,
            total_bytes: record.total_bytes,
            verity_root: record.verity_root.0,
            verity_data_blocks: record.verity_data_blocks,
            verity_hash_offset: record.verity_hash_offset,
            entries: record.entries,
            unpacked_bytes: record.unpacked_bytes,
        }))
    }

    /// Holds a Wasm program that is known; `None` if it isn't in the store.
    pub(crate) fn hold_module(&self, record: WasmRecord) -> Result<Option<WasmModule>, StoreError> {
        let path = self.layer_folder(&record.key).join(record.key.kind.file());
        let failed = |source| self.failed("open", &path, source);
        let Some(file) = disk::hold(&path).map_err(failed)? else {
            return Ok(None);
        };
        let length = file.metadata().map_err(failed)?.len();
        if length != record.bytes {
            return Err(StoreError::Damaged { path, expected: record.bytes, found: length });
        }
        Ok(Some(WasmModule { path, file: Arc::new(file), digest: record.digest, bytes: record.bytes }))
    }

    /// Finds and holds a layer by its key.
    pub(crate) fn find_layer(&self, key: &Key) -> Result<Option<(LayerRecord, ImageLayer)>, StoreError> {
        let path = self.layer_folder(key).join("layer.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("read", &path, error)),
        };
        // A record that can't be read, damaged or another version's, counts as not there: the layer is made again.
        let Ok(record) = serde_json::from_str::<LayerRecord>(&text) else { return Ok(None) };
        Ok(self.hold_layer(record.clone())?.map(|layer| (record, layer)))
    }

    pub(crate) fn failed(&self, what: &'static str, path: &Path, source: io::Error) -> StoreError {
        if is_full(&source) {
            return StoreError::Full { root: self.root.clone() };
        }
        StoreError::Io { what, path: path.to_owned(), source }
    }
}

/// Makes the folders; the version comes last, so that a half-made store is made again.
fn make(root: &Path) -> io::Result<()> {
    folders(root)?;
    let scratch = disk::Scratch::new(&root.join("tmp"))?;
    scratch.publish_file("version", format!("{VERSION}\n").as_bytes(), &root.join("version"))
}

fn folders(root: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    for folder in ["images", "layers", "merged", "wasm", "manifests", "configs", "locks", "tmp"] {
        builder.create(root.join(folder))?;
    }
    Ok(())
}

/// Tells whether an error means that there is no room on the disk.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Tells whether a full disk is at the bottom of an error.
pub(crate) fn full_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut current = Some(error);
    while let Some(error) = current {
        if error.downcast_ref::<io::Error>().is_some_and(is_full) {
            return true;
        }
        current = error.source();
    }
    false
}

/// A store that can't be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its folder can't be made or read.
    #[error("can't open the image store at {}", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another version of this program arranged it.
    #[error(
        "the image store at {} is of version {found}, and this program reads version {VERSION}: use a newer one, \
         or another folder", path.display()
    )]
    Version {
        /// The folder.
        path: PathBuf,
        /// What its version file says.
        found: String,
    },
}

/// A store that can't do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file operation failed.
    #[error("can't {what} {}", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk is full. What was begun is removed.
    #[error("the disk that holds the image store at {} is full", root.display())]
    Full {
        /// The store's folder.
        root: PathBuf,
    },
    /// A file isn't what was written.
    #[error(
        "{} has {found} bytes where {expected} were written: the store is damaged; remove the image and pull it \
         again", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The size that was written, in bytes.
        expected: u64,
        /// The size that it has, in bytes.
        found: u64,
    },
    /// There isn't room within the quota, even without every image that isn't in use.
    #[error(
        "the image needs {needed} bytes, but of the store's quota of {quota} bytes {used} are taken by images in \
         use; raise VIMANA_IMAGE_QUOTA or stop what uses them"
    )]
    Quota {
        /// The size of what is to be stored, in bytes.
        needed: u64,
        /// What can't be removed, in bytes.
        used: u64,
        /// The quota, in bytes.
        quota: u64,
    },
    /// The image is in use, so it can't be removed.
    #[error("{reference} is in use")]
    InUse {
        /// The image's name.
        reference: String,
    },
}
