//! A Wasm program in a file, shown as the artifact that it would be in a registry.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::SourceError;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::manifest::{Descriptor, WASM_CONFIG, WASM_LAYER};
use crate::store::record::Stamp;

/// How a component's version and layer are written after the magic (component model, "Binary Format"); a core module
/// has 1, 0.
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];

pub(crate) struct WasmFile {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    digest: Digest,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl WasmFile {
    pub(crate) fn open(path: &Path) -> Result<WasmFile, SourceError> {
        let failed = |source| SourceError::File { path: path.to_owned(), source };
        // Not blocking, so that a pipe that lies there can't hold the pull.
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(io::Error::other("it is not a regular file")));
        }
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; 1 << 18];
        let mut size = 0u64;
        let mut version = [0; 4];
        loop {
            let count = match file.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            let read = buffer.get(..count).unwrap_or_default();
            if read.is_empty() {
                break;
            }
            if size == 0
                && let Some(found) = read.get(4..8)
            {
                version.copy_from_slice(found);
            }
            size = size.saturating_add(count as u64);
            hasher.update(read);
        }
        let digest = hasher.finish();
        let os = if version == COMPONENT { "wasip2" } else { "wasip1" };
        let config =
            json!({ "architecture": "wasm", "os": os, "layerDigests": [&digest] }).to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": WASM_CONFIG, "digest": Digest::of(&config), "size": config.len() },
            "layers": [{ "mediaType": WASM_LAYER, "digest": &digest, "size": size }],
        });
        let manifest = manifest.to_string().into_bytes();
        Ok(WasmFile { path: path.to_owned(), file, stamp: Stamp::of(&metadata), digest, config, manifest })
    }

    /// Returns the manifest that was made for the program.
    pub(crate) fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// Returns by what the file is known again, unless it changed so lately that this doesn't tell.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.stamp.is_settled().then_some(self.stamp)
    }

    pub(crate) fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, SourceError> {
        if descriptor.digest != self.digest {
            return Ok(Box::new(self.config.as_slice()));
        }
        let mut file = &self.file;
        file.rewind().map_err(|source| SourceError::File { path: self.path.clone(), source })?;
        Ok(Box::new(file))
    }
}
