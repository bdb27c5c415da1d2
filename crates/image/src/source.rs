//! The places that images come from, behind one face: documents and blobs by descriptor.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::digest::{Digest, Hasher};
use crate::manifest::{self, Descriptor, Document, MAX_DOCUMENT, Manifest, ManifestError};
use crate::platform::Platform;
use crate::pull::PullOptions;
use crate::reference::Reference;

pub(crate) mod docker_archive;
pub(crate) mod layout;
pub(crate) mod registry;
pub(crate) mod tarball;

use docker_archive::DockerArchive;
use layout::Layout;
use registry::{Registry, RegistryError};

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
    pub(crate) manifest: Manifest,
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
                    return Ok(Resolved {
                        digest: Digest::of(&bytes),
                        bytes,
                        manifest,
                    });
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
            return Err(SourceError::Large {
                digest: descriptor.digest.clone(),
                size: descriptor.size,
            });
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
            .map_err(|source| SourceError::Read {
                digest: descriptor.digest.clone(),
                source,
            })?;
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
            return Err(SourceError::Digest {
                declared: descriptor.digest.clone(),
                found,
            });
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

/// An image's source that doesn't give what it should.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A file can't be read.
    #[error("can't read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A blob stopped in the middle.
    #[error("can't read {digest} to its end")]
    Read {
        /// Its digest.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layout's or archive's own files aren't as they should be.
    #[error("{} isn't {what}: {reason}", path.display())]
    Form {
        /// The folder or file.
        path: PathBuf,
        /// What it was read as.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The name isn't in the layout or archive.
    #[error("{} holds no image named \"{wanted}\"; it holds: {}", path.display(), listing(found))]
    NoSuchName {
        /// The folder or file.
        path: PathBuf,
        /// The name that was asked for.
        wanted: String,
        /// The names that there are.
        found: Vec<String>,
    },
    /// There are several images and no name says which.
    #[error("{} holds several images; put a colon and one of these names behind it: {}", path.display(), listing(found))]
    NameNeeded {
        /// The folder or file.
        path: PathBuf,
        /// The names that there are.
        found: Vec<String>,
    },
    /// A document is larger than any should be.
    #[error("{digest} is declared to have {size} bytes; at most {MAX_DOCUMENT} are read of such a document")]
    Large {
        /// Its digest.
        digest: Digest,
        /// Its declared size in bytes.
        size: u64,
    },
    /// The content has another length than declared.
    #[error("{digest} has {found} bytes or more, but is declared to have {declared}")]
    Size {
        /// Its digest.
        digest: Digest,
        /// Its declared size in bytes.
        declared: u64,
        /// How many bytes were read.
        found: u64,
    },
    /// The content isn't what its digest says.
    #[error("what was served as {declared} is really {found}")]
    Digest {
        /// The digest that was asked for.
        declared: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// Indexes hold indexes without an end.
    #[error("the image's indexes are nested more than {MAX_DEPTH} deep")]
    Depth,
    /// A manifest can't be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The registry doesn't serve.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

fn listing(names: &[String]) -> String {
    if names.is_empty() {
        "no names".to_owned()
    } else {
        names.join(", ")
    }
}
