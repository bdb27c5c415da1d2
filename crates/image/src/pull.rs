//! From a source into the store.
//!
//! A pull looks the manifest up, reads the configuration, and then brings in the layers that the store lacks,
//! three at a time ([`layers`]; [`stream`] does one), or the Wasm program ([`wasm`]). For each it takes a lock that
//! keeps every other thread and process from fetching the same, looks again whether it is there by now, and makes it
//! in a scratch folder that appears in the store by one rename. The image's record is written last; until then the
//! image isn't there.

use std::fs::File;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::{self, ConfigError, ImageConfig};
use crate::digest::Digest;
use crate::options::{PullOptions, WasmChoice};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::source::{Resolved, Source, SourceError};
use crate::store::disk::{self, BlobLock, Scratch};
use crate::store::record::{ImageRecord, VERSION, WasmRecord};
use crate::store::{Image, Store, StoreError};

mod error;
pub(crate) mod inflate;
mod layers;
mod stream;
mod wasm;

pub use error::{LayerError, PullError, WasmError};

use layers::{Found, without_repeats};

type Report<'a> = &'a (dyn Fn(Progress<'_>) + Sync);

impl Store {
    /// Brings an image into the store and answers it, held against removal. Blocks until it is there; `progress`
    /// is called from several threads. An image that is named by digest and is there already needs no network.
    pub fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &(dyn Fn(Progress<'_>) + Sync),
    ) -> Result<Image, PullError> {
        let reference = reference.absolute().map_err(|source| self.failed("find", &self.root, source))?;
        let wanted = options.wanted(&self.options.platform);
        // A program in a file that is as it was when it was read needs no second look.
        let stable = match &reference {
            Reference::Registry(name) => name.digest().is_some(),
            Reference::Wasm { path } => path.exists(),
            _ => false,
        };
        if stable && let Some(image) = self.find(&reference, options)? {
            progress(Progress::Done { digest: &image.digest });
            return Ok(image);
        }
        progress(Progress::Resolving);
        let source = Source::open(&reference, options, &self.tmp(), self.options.unpacked_bytes)?;
        let resolved = source.resolve(&wanted)?;
        for platform in &wanted {
            if let Some(image) = self.load(&reference, platform, false)?
                && image.digest == resolved.digest
                && (image.wasm.is_some() || options.wasm != WasmChoice::First)
                && !matches!(reference, Reference::Wasm { .. })
            {
                progress(Progress::Done { digest: &image.digest });
                return Ok(image);
            }
        }
        let image = self.bring(&source, &reference, &wanted, &resolved, progress)?;
        progress(Progress::Done { digest: &image.digest });
        Ok(image)
    }

    fn bring(
        &self,
        source: &Source,
        reference: &Reference,
        wanted: &[Platform],
        resolved: &Resolved,
        progress: Report<'_>,
    ) -> Result<Image, PullError> {
        let (_manifest, _) = self.document("manifests", &resolved.digest, || Ok(resolved.bytes.clone()))?;
        let descriptor = &resolved.manifest.config;
        let (_config, bytes) =
            self.document("configs", &descriptor.digest, || source.document(descriptor))?;
        if let Some(program) = &resolved.manifest.wasm {
            let config = config::parse_wasm(&bytes);
            // It runs anywhere, and so is kept under the name of what was asked for.
            let base = || wanted.iter().find(|platform| !platform.is_wasm());
            let platform = resolved.platform.as_ref().or_else(base).unwrap_or(&self.options.platform);
            let (record, _held) = self.program(source, &resolved.digest, program, progress)?;
            self.write_down(reference, platform, resolved, config, &[], Some(record), source)?;
            return self.load(reference, platform, false)?.ok_or(PullError::Vanished);
        }
        let (config, diff_ids) = config::parse(&bytes)?;
        let platform = match &resolved.platform {
            Some(platform) => config.check_platform(platform).map(|()| platform.clone()),
            None => config.choose_platform(wanted),
        }?;
        let layers = &resolved.manifest.layers;
        if layers.len() != diff_ids.len() {
            return Err(ConfigError::LayerCount { layers: layers.len(), diff_ids: diff_ids.len() }.into());
        }
        let wanted = without_repeats(layers, diff_ids);
        let found = self.layers(source, &resolved.digest, &wanted, progress)?;
        let program = self.program_in(&config, &platform, &found)?;
        let record = program.as_ref().map(|(record, _)| record.clone());
        self.write_down(reference, &platform, resolved, config, &found, record, source)?;
        // All of it is still held here, so nothing can come between.
        self.load(reference, &platform, false)?.ok_or(PullError::Vanished)
    }

    /// Fetches a document or finds it; the file is held, so that no collector takes it before the image's
    /// record names it.
    fn document(
        &self,
        folder: &'static str,
        digest: &Digest,
        fetch: impl FnOnce() -> Result<Vec<u8>, SourceError>,
    ) -> Result<(File, Vec<u8>), PullError> {
        let path = self.root.join(folder).join(digest.file_name());
        let failed = |source| self.failed("store", &path, source);
        let find = || -> Result<Option<(File, Vec<u8>)>, StoreError> {
            let Some(file) = disk::hold(&path).map_err(failed)? else {
                return Ok(None);
            };
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut &file, &mut bytes).map_err(failed)?;
            Ok(Some((file, bytes)))
        };
        if let Some(found) = find()? {
            return Ok(found);
        }
        let lock = self.root.join("locks").join(format!("{folder}-{}", digest.file_name()));
        let _lock = BlobLock::take(lock, &|| {}).map_err(failed)?;
        if let Some(found) = find()? {
            return Ok(found);
        }
        let bytes = fetch()?;
        let scratch = Scratch::new(&self.tmp()).map_err(failed)?;
        let mut file = scratch.create("document").map_err(failed)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        // Held under its scratch name already: the lock belongs to the file, not to its name.
        let held = disk::hold(&scratch.path("document")).map_err(failed)?.ok_or(PullError::Vanished)?;
        std::fs::rename(scratch.path("document"), &path).map_err(failed)?;
        disk::sync_parent(&path).map_err(failed)?;
        Ok((held, bytes))
    }

    #[expect(clippy::too_many_arguments, reason = "they are the record's parts, each from another place")]
    fn write_down(
        &self,
        reference: &Reference,
        platform: &Platform,
        resolved: &Resolved,
        config: ImageConfig,
        found: &[Found],
        wasm: Option<WasmRecord>,
        source: &Source,
    ) -> Result<(), PullError> {
        let reference = reference.to_string();
        let path = self.root.join("images").join(ImageRecord::file_name(&reference, platform));
        let record = ImageRecord {
            version: VERSION,
            reference,
            platform: platform.clone(),
            digest: resolved.digest.clone(),
            config_digest: resolved.manifest.config.digest.clone(),
            compressed_bytes: resolved.manifest.content_bytes(),
            pulled: SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or(0),
            layers: found.iter().map(|(record, _)| record.clone()).collect(),
            config,
            wasm,
            stamp: source.stamp(),
        };
        let failed = |source| self.failed("store", &path, source);
        let bytes = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
        let _lock = self.lock(false)?;
        let scratch = Scratch::new(&self.tmp()).map_err(failed)?;
        scratch.publish_file("image.json", &bytes, &path).map_err(failed)?;
        Ok(())
    }
}
