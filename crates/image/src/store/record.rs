//! What the store writes down: one file per image, one beside each layer.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::config::ImageConfig;
use crate::digest::{Digest, hex, unhex};
use crate::layer::Layer;
use crate::platform::Platform;

/// The version of everything in the store's folder.
pub(crate) const VERSION: u32 = 1;
/// The version of the bytes that a layer becomes: part of its key, so that a change never mixes the two.
const LAYER_FORMAT: u32 = 2;

/// Which of the two folders a layer lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// One layer of an image.
    Layers,
    /// Several layers of an image, merged.
    Merged,
    /// A Wasm program.
    Wasm,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Layers, Kind::Merged, Kind::Wasm];

    pub(crate) fn folder(self) -> &'static str {
        match self {
            Kind::Layers => "layers",
            Kind::Merged => "merged",
            Kind::Wasm => "wasm",
        }
    }

    /// The file in a piece of content's folder whose lock keeps it.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Kind::Layers | Kind::Merged => "layer.squashfs",
            Kind::Wasm => "module.wasm",
        }
    }
}

/// The name of a layer in the store: what it was made of, and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn layer(diff_id: &Digest) -> Key {
        Key { kind: Kind::Layers, name: format!("{}-v{LAYER_FORMAT}", diff_id.file_name()) }
    }

    pub(crate) fn wasm(digest: &Digest) -> Key {
        Key { kind: Kind::Wasm, name: digest.file_name() }
    }

    /// Returns the key of the merger of some layers, bottom first, and the digest that stands for them.
    pub(crate) fn merged(diff_ids: &[Digest]) -> (Key, Digest) {
        let mut chain = String::from("merged\n");
        for diff_id in diff_ids {
            chain.push_str(&diff_id.to_string());
            chain.push('\n');
        }
        let digest = Digest::of(chain.as_bytes());
        (Key { kind: Kind::Merged, name: format!("{}-v{LAYER_FORMAT}", digest.file_name()) }, digest)
    }
}

/// A layer's file system as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) key: Key,
    pub(crate) digest: Digest,
    pub(crate) file_system_bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) verity_root: Root,
    pub(crate) verity_data_blocks: u64,
    pub(crate) verity_hash_offset: u64,
    pub(crate) entries: u64,
    pub(crate) unpacked_bytes: u64,
    /// [`Layer::needs_lower`].
    pub(crate) needs_lower: bool,
}

impl LayerRecord {
    pub(crate) fn new(key: Key, digest: Digest, layer: &Layer) -> LayerRecord {
        LayerRecord {
            key,
            digest,
            file_system_bytes: layer.file_system_bytes,
            total_bytes: layer.total_bytes,
            verity_root: Root(layer.verity.root),
            verity_data_blocks: layer.verity.data_blocks,
            verity_hash_offset: layer.verity.hash_offset,
            entries: layer.entries,
            unpacked_bytes: layer.unpacked_bytes,
            needs_lower: layer.needs_lower,
        }
    }
}

/// A verity tree's root hash, written in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Root(pub(crate) [u8; 32]);

impl From<Root> for String {
    fn from(root: Root) -> String {
        hex(&root.0)
    }
}

impl TryFrom<String> for Root {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Root, &'static str> {
        unhex(&text).map(Root).ok_or("a root hash has 64 hexadecimal digits")
    }
}

/// A Wasm program as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WasmRecord {
    pub(crate) key: Key,
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
}

/// By what a file is known to be the one that was read: place, size and the time of its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Tells whether the last change is so long ago that another one would have another time: file systems count in
    /// steps of milliseconds.
    pub(crate) fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or(0);
        i64::try_from(now).is_ok_and(|now| self.changed.0.saturating_add(1) < now)
    }
}

/// One image: everything that starting it needs, so that a start reads one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) version: u32,
    pub(crate) reference: String,
    pub(crate) platform: Platform,
    pub(crate) digest: Digest,
    pub(crate) config_digest: Digest,
    pub(crate) compressed_bytes: u64,
    /// Seconds since 1970.
    pub(crate) pulled: u64,
    pub(crate) layers: Vec<LayerRecord>,
    pub(crate) config: ImageConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wasm: Option<WasmRecord>,
    /// For an image that is a file: the file as it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stamp: Option<Stamp>,
}

impl ImageRecord {
    /// Reads a record; one that a newer binary wrote, or that is damaged, counts as not there.
    pub(crate) fn parse(text: &str) -> Option<ImageRecord> {
        serde_json::from_str::<ImageRecord>(text).ok().filter(|record| record.version == VERSION)
    }

    /// Returns what the image is for. A Wasm artifact runs anywhere and is kept under the platform that was asked for.
    pub(crate) fn meant_for(&self) -> Platform {
        match self.layers.is_empty() && self.wasm.is_some() {
            true => Platform::wasm(),
            false => self.platform.clone(),
        }
    }

    /// Returns the name of the record's file.
    pub(crate) fn file_name(reference: &str, platform: &Platform) -> String {
        format!("{}.json", Digest::of(format!("{reference}\n{platform}").as_bytes()).hex())
    }
}
