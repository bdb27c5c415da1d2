//! What the fuzz targets of this crate do with any bytes; tests do the same with real inputs that were changed.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::inventory::{Distribution, Format};
use crate::layer::{self, Limits, extract, reader::Kind, reader::Reader};
use crate::manifest::{self, Document};
use crate::source::registry;
use crate::{Platform, Reference, config};

/// A file of an image that lists packages; the first byte chooses its format.
pub fn inventory(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let Some(format) = Format::ALL.get(usize::from(*first) % Format::ALL.len()) else { return };
    let _ = format.parse(rest);
    let _ = format.read(rest, rest, rest.len() as u64);
    let _ = Format::of(rest, 0o755, 1 << 20);
    if let Some(known) = Distribution::parse(rest) {
        let _ = known.ecosystem(format.kind());
    }
}

/// An index, a manifest or a configuration.
pub fn document(bytes: &[u8]) {
    let wanted = [Platform::host(), Platform::wasm()];
    match manifest::parse(bytes) {
        Ok(Document::Index(entries)) => {
            if let Ok((chosen, _)) = manifest::choose(&entries, &wanted) {
                assert!(entries.contains(chosen));
            }
        }
        Ok(Document::Manifest(manifest)) => {
            assert!(
                manifest.layers.len() <= manifest::MAX_LAYERS
                    && manifest.content_bytes() >= manifest.config.size
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok((config, _)) = config::parse(bytes) {
        let _ = (config.choose_platform(&wanted), config.check_platform(&wanted[0]), config.program());
    }
    let _ = config::parse_wasm(bytes);
}

/// What a registry says beside content: challenges, redirects, errors; and names of images.
pub fn answer(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    registry::read_anything(bytes);
    if let Ok(reference) = text.parse::<Reference>() {
        let printed = reference.to_string();
        assert_eq!(printed.parse::<Reference>().map(|again| again.to_string()).ok(), Some(printed));
    }
}

/// A layer's tar: it becomes a file system that reads back and unpacks into a tree, or gets an error.
pub fn layer(bytes: &[u8]) {
    let memory = || {
        let memory = rustix::fs::memfd_create("layer", rustix::fs::MemfdFlags::CLOEXEC);
        memory.map(File::from)
    };
    let Ok(mut file) = memory() else { return };
    let limits = Limits { entries: 500, unpacked_bytes: 1 << 20 };
    let Ok(made) = layer::convert(bytes, &mut file, &limits) else { return };
    assert!(made.entries <= limits.entries && made.unpacked_bytes <= limits.unpacked_bytes);
    let Ok(mut again) = memory() else { return };
    let repeated = layer::convert(bytes, &mut again, &limits);
    assert_eq!(
        repeated.ok().map(|layer| layer.verity),
        Some(made.verity.clone()),
        "the same bytes every time"
    );
    let read = || -> Result<u64, layer::reader::ReadError> {
        let reader = Reader::open(&file)?;
        let mut entries = 0;
        for entry in reader.entries() {
            let entry = entry?;
            entries += u64::from(!entry.path.is_empty());
            if let (Kind::File(_), Ok(content)) = (&entry.kind, reader.content(&entry)) {
                let bytes = io::copy(&mut content.take(2 << 20), &mut io::sink());
                assert_eq!(bytes.ok(), Some(entry.size()));
            }
        }
        Ok(entries)
    };
    assert!(read().is_ok_and(|entries| entries == made.entries), "what was written reads back");
    unpack(&file);
}

/// Unpacks a layer into a folder that goes again; nothing comes to lie beside it.
fn unpack(file: &File) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let outer = std::env::temp_dir().join(format!("vimana-fuzz-{}-{number}", std::process::id()));
    let root = outer.join("root");
    if fs::create_dir_all(&root).is_err() {
        return;
    }
    if let Ok(opened) = File::open(&root).map(OwnedFd::from) {
        let _ = extract::extract(file, &opened, extract::Form::User);
    }
    let beside = fs::read_dir(&outer).map(Iterator::count);
    let _ = fs::set_permissions(&root, fs::Permissions::from_mode(0o700));
    let _ = fs::remove_dir_all(&outer);
    assert_eq!(beside.ok(), Some(1), "only the root is there");
}

#[cfg(test)]
mod tests;
