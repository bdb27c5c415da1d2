//! OCI image layouts: a folder, or a tar file of one (OCI image specification, "Image Layout").

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::SourceError;
use super::tarball::Tarball;
use crate::manifest::{self, Descriptor, Document, MAX_DOCUMENT};
use crate::platform::Platform;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const WHAT: &str = "an OCI image layout";

/// A layout and the name that was asked for.
pub(crate) struct Layout {
    path: PathBuf,
    place: Place,
    tag: Option<String>,
}

enum Place {
    Folder,
    Tar(Tarball),
}

#[derive(Deserialize)]
struct Marker {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

impl Layout {
    pub(crate) fn folder(path: &Path, tag: Option<&str>) -> Result<Layout, SourceError> {
        Layout { path: path.to_owned(), place: Place::Folder, tag: tag.map(str::to_owned) }.checked()
    }

    pub(crate) fn tar(path: &Path, tag: Option<&str>, tmp: &Path, most: u64) -> Result<Layout, SourceError> {
        let place = Place::Tar(Tarball::open(path, tmp, most)?);
        Layout { path: path.to_owned(), place, tag: tag.map(str::to_owned) }.checked()
    }

    fn checked(self) -> Result<Layout, SourceError> {
        let marker: Marker = serde_json::from_slice(&self.small("oci-layout")?)
            .map_err(|error| self.wrong(format!("its file oci-layout is damaged ({error})")))?;
        if !marker.version.starts_with("1.") {
            return Err(self.wrong(format!("its version is {}, and 1.x is read", marker.version)));
        }
        Ok(self)
    }

    /// Finds the manifest or index that the name stands for, and for which platform it was chosen if there was a choice.
    pub(crate) fn root(&self, wanted: &[Platform]) -> Result<(Descriptor, Option<Platform>), SourceError> {
        let bytes = self.small("index.json")?;
        let Document::Index(entries) = manifest::parse(&bytes)? else {
            return Err(self.wrong("its index.json is not an index".to_owned()));
        };
        let found =
            || entries.iter().filter_map(|entry| entry.annotation(REF_NAME)).map(str::to_owned).collect();
        let candidates: Vec<Descriptor> = match &self.tag {
            Some(tag) => {
                entries.iter().filter(|entry| entry.annotation(REF_NAME) == Some(tag)).cloned().collect()
            }
            None => entries.clone(),
        };
        match candidates.as_slice() {
            [] => Err(SourceError::NoSuchName {
                path: self.path.clone(),
                wanted: self.tag.clone().unwrap_or_default(),
                found: found(),
            }),
            [only] => Ok((only.clone(), None)),
            several if self.tag.is_some() || several.iter().all(|entry| entry.platform.is_some()) => {
                let (chosen, platform) = manifest::choose(several, wanted)?;
                Ok((chosen.clone(), platform))
            }
            _ => Err(SourceError::NameNeeded { path: self.path.clone(), found: found() }),
        }
    }

    /// Reads `index.json` as it is.
    pub(crate) fn index(&self) -> Result<Vec<u8>, SourceError> {
        self.small("index.json")
    }

    pub(crate) fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, SourceError> {
        let name = format!("blobs/{}/{}", descriptor.digest.algorithm().name(), descriptor.digest.hex());
        let (reader, size) = self.open(&name)?;
        if size != descriptor.size {
            return Err(SourceError::Size {
                digest: descriptor.digest.clone(),
                declared: descriptor.size,
                found: size,
            });
        }
        Ok(reader)
    }

    fn small(&self, name: &str) -> Result<Vec<u8>, SourceError> {
        let (reader, size) = self.open(name)?;
        if size > MAX_DOCUMENT {
            return Err(
                self.wrong(format!("its file {name} has {size} bytes, and at most {MAX_DOCUMENT} are read"))
            );
        }
        let mut bytes = Vec::new();
        reader
            .take(MAX_DOCUMENT)
            .read_to_end(&mut bytes)
            .map_err(|source| SourceError::File { path: self.path.join(name), source })?;
        Ok(bytes)
    }

    fn open(&self, name: &str) -> Result<(Box<dyn Read + Send + '_>, u64), SourceError> {
        match &self.place {
            Place::Folder => {
                let path = self.path.join(name);
                let failed = |source| SourceError::File { path: path.clone(), source };
                // Not blocking, so that a pipe that lies there can't hold the pull.
                let file = OpenOptions::new()
                    .read(true)
                    .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
                    .open(&path)
                    .map_err(failed)?;
                let metadata = file.metadata().map_err(failed)?;
                if !metadata.is_file() {
                    return Err(failed(io::Error::other("it is not a regular file")));
                }
                Ok((Box::new(file), metadata.len()))
            }
            Place::Tar(tar) => match tar.open_entry(name) {
                Some((reader, size)) => Ok((Box::new(reader), size)),
                None => Err(self.wrong(format!("it lacks {name}"))),
            },
        }
    }

    fn wrong(&self, reason: String) -> SourceError {
        SourceError::Form { path: self.path.clone(), what: WHAT, reason }
    }
}
