//! The places that images come from, behind one face: documents and blobs by descriptor.

use std::io::Read;
use std::path::Path;

use crate::digest::{Digest, Hasher};
use crate::manifest::{self, Descriptor, Document, MAX_DOCUMENT, Manifest};
use crate::platform::Platform;
use crate::pull::PullOptions;
use crate::reference::Reference;

pub(crate) mod docker_archive;
mod error;
pub(crate) mod layout;
pub(crate) mod registry;
pub(crate) mod tarball;

pub use error::SourceError;

use docker_archive::DockerArchive;
use layout::Layout;
use registry::Registry;

/// How deep an index may hold another.
const MAX_DEPTH: usize = 4;

pub(crate) enum Source {
    Registry(Registry),
    Layout(Layout),
    DockerArchive(DockerArchive),
}

/// The manifest of one image for one platform, with the bytes that its digest is of.
pub(crate) struct Resolved {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) manifest: Box<Manifest>,
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
        })
    }

    /// Finds the image for `platform`, going down through indexes.
    pub(crate) fn resolve(&self, platform: &Platform) -> Result<Resolved, SourceError> {
        let mut bytes = match self {
            Source::Registry(registry) => registry.manifest()?,
            Source::Layout(layout) => {
                let root = layout.root(platform)?;
                self.document(&root)?
            }
            Source::DockerArchive(archive) => archive.manifest().to_vec(),
        };
        for _ in 0..MAX_DEPTH {
            match manifest::parse(&bytes)? {
                Document::Manifest(manifest) => {
                    return Ok(Resolved { digest: Digest::of(&bytes), bytes, manifest });
                }
                Document::Index(entries) => {
                    let chosen = manifest::choose(&entries, platform)?;
                    bytes = self.document(chosen)?;
                }
            }
        }
        Err(SourceError::Depth)
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
        }
    }
}

fn is_image_json(descriptor: &Descriptor) -> bool {
    descriptor.media_type == "application/vnd.docker.container.image.v1+json"
}
