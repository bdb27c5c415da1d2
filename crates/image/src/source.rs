//! The places that images come from, behind one face: documents and blobs by descriptor.

use std::io::Read;
use std::path::Path;

use crate::digest::{Digest, Hasher};
use crate::manifest::{self, Descriptor, Document, MAX_DOCUMENT, Manifest};
use crate::options::PullOptions;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::record::Stamp;

pub(crate) mod containerd;
pub(crate) mod docker_archive;
mod error;
pub(crate) mod layout;
pub(crate) mod registry;
pub(crate) mod tarball;
mod wasm_file;

pub use error::SourceError;

use containerd::Containerd;
use docker_archive::DockerArchive;
use layout::Layout;
use registry::Registry;
use wasm_file::WasmFile;

/// How deep an index may hold another.
const MAX_DEPTH: usize = 4;

pub(crate) enum Source {
    Registry(Registry),
    Layout(Layout),
    DockerArchive(DockerArchive),
    Wasm(WasmFile),
    Containerd(Containerd),
}

/// The manifest of one image for one platform, with the bytes that its digest is of.
pub(crate) struct Resolved {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) manifest: Box<Manifest>,
    /// For which platform it was chosen, if there was a choice.
    pub(crate) platform: Option<Platform>,
}

impl Source {
    /// Opens a source; `tmp` is where an archive that is compressed as a whole is unpacked.
    pub(crate) fn open(
        reference: &Reference,
        options: &PullOptions,
        tmp: &Path,
        most: u64,
    ) -> Result<Source, SourceError> {
        Ok(match reference {
            Reference::Registry(name) => Source::Registry(Registry::new(name, options)?),
            Reference::Layout { path, tag } => Source::Layout(Layout::folder(path, tag.as_deref())?),
            Reference::OciArchive { path, tag } => {
                Source::Layout(Layout::tar(path, tag.as_deref(), tmp, most)?)
            }
            Reference::DockerArchive { path, name } => {
                Source::DockerArchive(DockerArchive::open(path, name.as_deref(), tmp, most)?)
            }
            Reference::Wasm { path } => Source::Wasm(WasmFile::open(path)?),
            Reference::Containerd { name } => Source::Containerd(Containerd::open(name, options)?),
        })
    }

    /// Returns by what a file is known again that is the image itself.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        match self {
            Source::Wasm(file) => file.stamp(),
            Source::Registry(_) | Source::Layout(_) | Source::DockerArchive(_) | Source::Containerd(_) => {
                None
            }
        }
    }

    /// Finds the image for the first of the platforms that there is one for, going down through indexes.
    pub(crate) fn resolve(&self, wanted: &[Platform]) -> Result<Resolved, SourceError> {
        let mut platform = None;
        let mut bytes = match self {
            Source::Registry(registry) => registry.manifest()?,
            Source::Layout(layout) => {
                let (root, chosen) = layout.root(wanted)?;
                platform = chosen;
                self.document(&root)?
            }
            Source::DockerArchive(archive) => archive.manifest().to_vec(),
            Source::Wasm(file) => file.manifest().to_vec(),
            Source::Containerd(image) => self.document(image.root())?,
        };
        for _ in 0..MAX_DEPTH {
            match manifest::parse(&bytes)? {
                Document::Manifest(manifest) => {
                    return Ok(Resolved { digest: Digest::of(&bytes), bytes, manifest, platform });
                }
                Document::Index(entries) => {
                    let (entry, chosen) = manifest::choose(&entries, wanted)?;
                    bytes = self.document(entry)?;
                    platform = chosen.or(platform);
                }
            }
        }
        Err(SourceError::Depth)
    }

    /// Gives the indexes on the way to the image for the first of the platforms, the uppermost first.
    pub(crate) fn indexes(&self, wanted: &[Platform]) -> Result<Vec<Vec<u8>>, SourceError> {
        let mut bytes = match self {
            Source::Registry(registry) => registry.manifest()?,
            Source::Layout(layout) => self.document(&layout.root(wanted)?.0)?,
            Source::DockerArchive(_) | Source::Wasm(_) | Source::Containerd(_) => return Ok(Vec::new()),
        };
        let mut indexes = Vec::new();
        for _ in 0..MAX_DEPTH {
            let Document::Index(entries) = manifest::parse(&bytes)? else { break };
            let Ok((entry, _)) = manifest::choose(&entries, wanted) else {
                indexes.push(bytes);
                break;
            };
            let below = self.document(entry)?;
            indexes.push(std::mem::replace(&mut bytes, below));
        }
        Ok(indexes)
    }

    /// Reads a manifest or a configuration and checks its size and digest.
    pub(crate) fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
        if descriptor.size > MAX_DOCUMENT {
            return Err(SourceError::Large { digest: descriptor.digest.clone(), size: descriptor.size });
        }
        let mut bytes = Vec::new();
        let reader = match self {
            Source::Registry(registry)
                if !descriptor.media_type.contains("config") && !is_image_json(descriptor) =>
            {
                registry.manifest_by(descriptor)?
            }
            _ => self.blob(descriptor)?,
        };
        reader
            .take(descriptor.size.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| SourceError::Read { digest: descriptor.digest.clone(), source })?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if length != descriptor.size {
            return Err(SourceError::Size {
                digest: descriptor.digest.clone(),
                declared: descriptor.size,
                found: length,
            });
        }
        let mut hasher = Hasher::new(descriptor.digest.algorithm());
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != descriptor.digest {
            return Err(SourceError::Digest { declared: descriptor.digest.clone(), found });
        }
        Ok(bytes)
    }

    /// Opens a blob. What it yields isn't checked yet, but never goes on much beyond the declared size.
    pub(crate) fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, SourceError> {
        match self {
            Source::Registry(registry) => Ok(registry.blob(descriptor)?),
            Source::Layout(layout) => layout.blob(descriptor),
            Source::DockerArchive(archive) => archive.blob(descriptor),
            Source::Wasm(file) => file.blob(descriptor),
            Source::Containerd(image) => image.blob(descriptor),
        }
    }
}

fn is_image_json(descriptor: &Descriptor) -> bool {
    descriptor.media_type == "application/vnd.docker.container.image.v1+json"
}
