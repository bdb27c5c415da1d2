//! What `docker save` writes: a tar file with `manifest.json`, a configuration and one tar file for each layer.
//!
//! It has no manifest with digests, so one is made here, as skopeo does: a layer that lies there plain has its
//! diff_id as its digest; one that is compressed is hashed.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use super::SourceError;
use super::tarball::{Section, Tarball};
use crate::config;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::manifest::{Descriptor, MAX_DOCUMENT, MAX_LAYERS};
use crate::pull::inflate::Inflate;

const WHAT: &str = "a file that docker save wrote";

pub(crate) struct DockerArchive {
    path: PathBuf,
    tar: Tarball,
    names: HashMap<Digest, String>,
    manifest: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerArchive {
    pub(crate) fn open(
        path: &Path,
        name: Option<&str>,
        tmp: &Path,
        most: u64,
    ) -> Result<DockerArchive, SourceError> {
        let tar = Tarball::open(path, tmp, most)?;
        let mut archive =
            DockerArchive { path: path.to_owned(), tar, names: HashMap::new(), manifest: Vec::new() };
        let all: Vec<Saved> = serde_json::from_slice(&archive.small("manifest.json")?)
            .map_err(|error| archive.wrong(format!("its manifest.json is damaged ({error})")))?;
        let saved = archive.choose(all, name)?;
        archive.describe(&saved)?;
        Ok(archive)
    }

    /// Returns the manifest that was made for the image.
    pub(crate) fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    pub(crate) fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, SourceError> {
        let name = self.names.get(&descriptor.digest);
        match name.and_then(|name| self.tar.open_entry(name)) {
            Some((section, _)) => Ok(Box::new(section)),
            None => Err(self.wrong(format!("it lacks {}", descriptor.digest))),
        }
    }

    fn choose(&self, all: Vec<Saved>, name: Option<&str>) -> Result<Saved, SourceError> {
        let found: Vec<String> = all.iter().filter_map(|saved| saved.repo_tags.clone()).flatten().collect();
        let several = all.len() > 1;
        match name {
            None if several => Err(SourceError::NameNeeded { path: self.path.clone(), found }),
            None => all.into_iter().next().ok_or_else(|| self.wrong("its manifest.json is empty".to_owned())),
            Some(name) => {
                let last = name.rsplit('/').next().unwrap_or(name);
                let full = if last.contains(':') { name.to_owned() } else { format!("{name}:latest") };
                let is_it = |tag: &String| tag == name || *tag == full;
                let hit = all.into_iter().find(|saved| saved.repo_tags.iter().flatten().any(is_it));
                hit.ok_or_else(|| SourceError::NoSuchName {
                    path: self.path.clone(),
                    wanted: name.to_owned(),
                    found,
                })
            }
        }
    }

    fn describe(&mut self, saved: &Saved) -> Result<(), SourceError> {
        let config = self.small(&saved.config)?;
        let (_, diff_ids) = config::parse(&config).map_err(|error| self.wrong(format!("{error}")))?;
        if saved.layers.len() != diff_ids.len() || diff_ids.len() > MAX_LAYERS {
            return Err(self.wrong(format!(
                "it has {} layers where its configuration lists {} (at most {MAX_LAYERS})",
                saved.layers.len(),
                diff_ids.len()
            )));
        }
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (name, diff_id) in saved.layers.iter().zip(diff_ids) {
            let mut start = Vec::new();
            let (section, size) = self.entry(name)?;
            section.take(8).read_to_end(&mut start).map_err(|source| self.unreadable(source))?;
            let digest = if Inflate::is_compressed(&start) { self.hash(name)? } else { diff_id };
            layers.push(json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": &digest,
                "size": size,
            }));
            self.names.insert(digest, name.clone());
        }
        let digest = Digest::of(&config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": &digest,
                "size": config.len(),
            },
            "layers": layers,
        });
        self.names.insert(digest, saved.config.clone());
        self.manifest = manifest.to_string().into_bytes();
        Ok(())
    }

    fn hash(&self, name: &str) -> Result<Digest, SourceError> {
        let (mut section, _) = self.entry(name)?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; 1 << 18];
        loop {
            let count = section.read(&mut buffer).map_err(|source| self.unreadable(source))?;
            if count == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(buffer.get(..count).unwrap_or_default());
        }
    }

    fn small(&self, name: &str) -> Result<Vec<u8>, SourceError> {
        let (section, size) = self.entry(name)?;
        if size > MAX_DOCUMENT {
            return Err(
                self.wrong(format!("its file {name} has {size} bytes, and at most {MAX_DOCUMENT} are read"))
            );
        }
        let mut bytes = Vec::new();
        section.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(|source| self.unreadable(source))?;
        Ok(bytes)
    }

    fn entry(&self, name: &str) -> Result<(Section, u64), SourceError> {
        self.tar.open_entry(name).ok_or_else(|| self.wrong(format!("it lacks {name}")))
    }

    fn unreadable(&self, source: std::io::Error) -> SourceError {
        SourceError::File { path: self.path.clone(), source }
    }

    fn wrong(&self, reason: String) -> SourceError {
        SourceError::Form { path: self.path.clone(), what: WHAT, reason }
    }
}
