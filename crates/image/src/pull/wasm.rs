//! The Wasm program of an image: a file, an artifact's only content, or what an ordinary image's entrypoint names.

use std::fs::File;
use std::io::{self, Read, Write};

use super::layers::Found;
use super::{LayerError, PullError, Report, WasmError};
use crate::config::ImageConfig;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::layer::reader::{Entry, Kind, Reader};
use crate::manifest::Descriptor;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::source::Source;
use crate::store::disk::{self, BlobLock, Scratch};
use crate::store::record::{Key, WasmRecord};
use crate::store::{Store, StoreError, WasmModule, full_disk};

/// The most bytes that a Wasm program may have.
const MOST: u64 = 512 << 20;
/// What a Wasm program begins with (WebAssembly core specification, 5.5.16); what follows tells modules from components.
const MAGIC: &[u8; 4] = b"\0asm";
const CHUNK: usize = 256 << 10;

type FoundProgram = (WasmRecord, WasmModule);

impl Store {
    /// Brings in an artifact's program.
    pub(super) fn program(
        &self,
        source: &Source,
        image: &Digest,
        descriptor: &Descriptor,
        progress: Report<'_>,
    ) -> Result<FoundProgram, PullError> {
        let digest = &descriptor.digest;
        let refused = |error| self.refused(digest.to_string(), error);
        let size = descriptor.size;
        if size > MOST {
            return Err(refused(WasmError::Large { size, most: MOST }));
        }
        let found = self.find_module(digest)?;
        let missing = usize::from(found.is_none());
        progress(Progress::Resolved { digest: image, layers: 1, missing, bytes: size * missing as u64 });
        if let Some(found) = found {
            progress(Progress::Ready { layer: digest, bytes: found.0.bytes, cached: true });
            return Ok(found);
        }
        let lock = self.root.join("locks").join(format!("wasm-{}", digest.file_name()));
        let _lock = BlobLock::take(lock.clone(), &|| progress(Progress::Waiting { layer: digest }))
            .map_err(|source| self.failed("lock", &lock, source))?;
        if let Some(found) = self.find_module(digest)? {
            progress(Progress::Ready { layer: digest, bytes: found.0.bytes, cached: true });
            return Ok(found);
        }
        let reader = source.blob(descriptor).map_err(|error| refused(LayerError::Source(error).into()))?;
        let fetched = |done| progress(Progress::Fetching { layer: digest, done, total: size });
        let found = self.keep(reader, digest.algorithm(), digest.to_string(), &fetched, |bytes, found| {
            if bytes < size {
                return Err(LayerError::Short { declared: size, found: bytes });
            }
            if bytes > size {
                return Err(LayerError::Long { declared: size });
            }
            match found == digest {
                true => Ok(()),
                false => Err(LayerError::Digest { declared: digest.clone(), found: found.clone() }),
            }
        })?;
        progress(Progress::Ready { layer: digest, bytes: found.0.bytes, cached: false });
        Ok(found)
    }

    /// Finds the program in an ordinary image: where its platform is Wasm's, or its entrypoint ends in `.wasm`.
    pub(super) fn program_in(
        &self,
        config: &ImageConfig,
        platform: &Platform,
        layers: &[Found],
    ) -> Result<Option<FoundProgram>, PullError> {
        let Some(program) = config.program() else {
            return match platform.is_wasm() {
                true => Err(self.refused("that the image should name".to_owned(), WasmError::NoEntrypoint)),
                false => Ok(None),
            };
        };
        if !platform.is_wasm() && !program.ends_with(".wasm") {
            return Ok(None);
        }
        let beside = format!("{}/{program}", config.working_dir);
        let places = if program.starts_with('/') { vec![program] } else { vec![beside.as_str(), program] };
        for (_, layer) in layers.iter().rev() {
            let failed = |error| self.refused(program.to_owned(), WasmError::Layer(error));
            let reader = Reader::open(&layer.file).map_err(failed)?;
            for place in &places {
                match look(&reader, &parts(place)).map_err(failed)? {
                    Look::File(entry) => {
                        let Ok(content) = reader.content(&entry) else { return Err(PullError::Vanished) };
                        let name = program.to_owned();
                        let found = self.keep(content, Algorithm::Sha256, name, &|_| {}, |_, _| Ok(()))?;
                        return Ok(Some(found));
                    }
                    Look::Nothing => {}
                    Look::Hidden => return self.absent(program, platform),
                }
            }
        }
        self.absent(program, platform)
    }

    fn absent(&self, program: &str, platform: &Platform) -> Result<Option<FoundProgram>, PullError> {
        match platform.is_wasm() {
            true => Err(self.refused(program.to_owned(), WasmError::Absent)),
            false => Ok(None),
        }
    }

    fn find_module(&self, digest: &Digest) -> Result<Option<FoundProgram>, StoreError> {
        let key = Key::wasm(digest);
        let path = self.layer_folder(&key).join(key.kind.file());
        let bytes = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("measure", &path, error)),
        };
        let record = WasmRecord { key, digest: digest.clone(), bytes };
        Ok(self.hold_module(record.clone())?.map(|module| (record, module)))
    }

    /// Copies a program into the store, under the digest that it turns out to have.
    fn keep(
        &self,
        mut from: impl Read,
        algorithm: Algorithm,
        name: String,
        fetched: &dyn Fn(u64),
        check: impl FnOnce(u64, &Digest) -> Result<(), LayerError>,
    ) -> Result<FoundProgram, PullError> {
        let tmp = self.tmp();
        let failed = |source| PullError::Store(self.failed("store a Wasm program in", &tmp, source));
        let scratch = Scratch::new(&tmp).map_err(failed)?;
        let mut out = scratch.create("module.wasm").map_err(failed)?;
        let mut hasher = Hasher::new(algorithm);
        let mut bytes = 0u64;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = (&mut from).take(CHUNK as u64).read_to_end(&mut chunk);
            read.map_err(|source| {
                self.refused(name.clone(), LayerError::Read { after: bytes, source }.into())
            })?;
            if bytes == 0 && !chunk.starts_with(MAGIC) {
                let start = chunk.get(..4).unwrap_or(&chunk).to_vec();
                return Err(self.refused(name, WasmError::Magic { start: start.escape_ascii().to_string() }));
            }
            if chunk.is_empty() {
                break;
            }
            bytes = bytes.saturating_add(chunk.len() as u64);
            if bytes > MOST {
                return Err(self.refused(name, WasmError::Large { size: bytes, most: MOST }));
            }
            hasher.update(&chunk);
            out.write_all(&chunk).map_err(failed)?;
            fetched(bytes);
        }
        let digest = hasher.finish();
        check(bytes, &digest).map_err(|error| self.refused(name, error.into()))?;
        self.make_room(bytes)?;
        out.sync_data().map_err(failed)?;
        self.publish_module(scratch, out, digest)
    }

    fn publish_module(&self, scratch: Scratch, out: File, digest: Digest) -> Result<FoundProgram, PullError> {
        let folder = self.layer_folder(&Key::wasm(&digest));
        let failed = |source| self.failed("store", &folder, source);
        drop(out);
        // Held before it is visible, so that no collector can come between.
        let _held = disk::hold(&scratch.path("module.wasm")).map_err(failed)?;
        // Somebody else may have stored the same; then that one counts.
        scratch.publish(&folder).map_err(failed)?;
        self.find_module(&digest)?.ok_or(PullError::Vanished)
    }

    fn refused(&self, program: String, error: WasmError) -> PullError {
        match full_disk(&error) {
            true => PullError::Store(StoreError::Full { root: self.root.clone() }),
            false => PullError::Wasm { program, source: Box::new(error) },
        }
    }
}

/// What a layer says of a path.
enum Look {
    File(Box<Entry>),
    /// Nothing; layers below may.
    Nothing,
    /// That it isn't there, whatever layers below say.
    Hidden,
}

/// Looks a path up in one layer, as an overlay would. Symbolic links aren't followed.
fn look(reader: &Reader<'_>, wanted: &[u8]) -> Result<Look, crate::layer::reader::ReadError> {
    let mut otherwise = Look::Nothing;
    for entry in reader.entries() {
        let entry = entry?;
        let below = wanted.strip_prefix(entry.path.as_slice());
        match (below, &entry.kind) {
            (Some(b""), Kind::File(_)) => return Ok(Look::File(Box::new(entry))),
            (Some(b""), _) => return Ok(Look::Hidden),
            (Some([b'/', ..]), Kind::Directory) if !entry.is_opaque() => {}
            (Some([b'/', ..]), _) => otherwise = Look::Hidden,
            _ => {}
        }
    }
    Ok(otherwise)
}

/// Returns a path as layers write it: no slashes at its ends, no dots.
fn parts(path: &str) -> Vec<u8> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_path_is_read_as_from_the_root() {
        for (path, expected) in
            [("/a.wasm", "a.wasm"), ("./a.wasm", "a.wasm"), ("/x/../y//a.wasm", "y/a.wasm"), ("/../a", "a")]
        {
            assert_eq!(parts(path), expected.as_bytes(), "{path}");
        }
    }
}
