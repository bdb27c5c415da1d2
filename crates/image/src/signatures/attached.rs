//! Where signatures lie, and what they look like there.

use std::io::Read as _;

use serde::Deserialize;

use super::Form;
use crate::digest::{Digest, Hasher};
use crate::manifest::Descriptor;
use crate::source::{Source, SourceError};

/// The most signatures of one image that are looked at.
const MOST_SIGNATURES: usize = 64;
/// The most things that may refer to an image.
const MOST_REFERRERS: usize = 256;
/// The longest payload or bundle, in bytes.
const LONGEST: u64 = 1 << 20;

const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIMPLE_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const BUNDLE_PREFIX: &str = "application/vnd.dev.sigstore.bundle";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The manifest of a signature; other manifests have these keys too.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Artifact {
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    subject: Option<Descriptor>,
}

/// A list of manifests, with what each is.
#[derive(Deserialize)]
struct List {
    #[serde(default)]
    manifests: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(flatten)]
    descriptor: Descriptor,
}

/// The tag under which cosign puts an image's signatures.
pub(super) fn tag(digest: &Digest) -> String {
    format!("{}.sig", digest.file_name())
}

/// Finds the signatures beside a manifest. What can't be understood there is no signature.
pub(super) fn find(source: &Source, subject: &Digest) -> Result<Vec<Form>, SourceError> {
    let artifacts = match source {
        Source::Registry(registry) => {
            let mut artifacts: Vec<Artifact> = registry
                .manifest_if_there(&tag(subject))?
                .and_then(|bytes| read(&bytes))
                .into_iter()
                .collect();
            let list: Option<List> = registry.referrers(subject)?.and_then(|bytes| read(&bytes));
            for listed in list.map(|list| list.manifests).unwrap_or_default().into_iter().take(MOST_REFERRERS)
            {
                // Those that say nothing of themselves are looked at too.
                let signs = |kind: &String| kind == SIMPLE_ARTIFACT || kind.starts_with(BUNDLE_PREFIX);
                if listed.artifact_type.as_ref().is_none_or(signs) {
                    artifacts.extend(refers(source, &listed.descriptor, subject)?);
                }
            }
            artifacts
        }
        Source::Layout(layout) => {
            let list: Option<List> = read(&layout.index()?);
            let mut artifacts = Vec::new();
            for listed in list.map(|list| list.manifests).unwrap_or_default().into_iter().take(MOST_REFERRERS)
            {
                let name = listed.descriptor.annotation(REF_NAME).unwrap_or_default();
                if name == tag(subject) {
                    artifacts.extend(read::<Artifact>(&source.document(&listed.descriptor)?));
                } else if listed.descriptor.digest != *subject {
                    artifacts.extend(refers(source, &listed.descriptor, subject)?);
                }
            }
            artifacts
        }
        Source::DockerArchive(_) | Source::Wasm(_) | Source::Containerd(_) => Vec::new(),
    };
    let mut found = Vec::new();
    for layer in artifacts.into_iter().flat_map(|artifact| artifact.layers) {
        if found.len() < MOST_SIGNATURES
            && let Some(form) = form(source, &layer)?
            && !found.contains(&form)
        {
            found.push(form);
        }
    }
    Ok(found)
}

/// Reads a manifest that may refer to the subject, and gives it if it does.
fn refers(source: &Source, listed: &Descriptor, subject: &Digest) -> Result<Option<Artifact>, SourceError> {
    let artifact: Option<Artifact> = read(&source.document(listed)?);
    Ok(artifact.filter(|artifact| {
        let signs = |kind: &String| kind == SIMPLE_ARTIFACT || kind.starts_with(BUNDLE_PREFIX);
        let kind_fits = artifact.artifact_type.as_ref().is_none_or(signs);
        kind_fits && artifact.subject.as_ref().is_some_and(|of| of.digest == *subject)
    }))
}

fn form(source: &Source, layer: &Descriptor) -> Result<Option<Form>, SourceError> {
    let signature = layer.annotation(SIGNATURE).filter(|_| layer.media_type == SIMPLE).map(str::to_owned);
    if (signature.is_none() && !layer.media_type.starts_with(BUNDLE_PREFIX)) || layer.size > LONGEST {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    source
        .blob(layer)?
        .take(LONGEST)
        .read_to_end(&mut bytes)
        .map_err(|source| SourceError::Read { digest: layer.digest.clone(), source })?;
    let mut hasher = Hasher::new(layer.digest.algorithm());
    hasher.update(&bytes);
    let found = hasher.finish();
    if found != layer.digest {
        return Err(SourceError::Digest { declared: layer.digest.clone(), found });
    }
    // What is signed is JSON, and so text.
    let Ok(text) = String::from_utf8(bytes) else { return Ok(None) };
    Ok(Some(match signature {
        Some(signature) => Form::Simple { payload: text, signature },
        None => Form::Bundle { json: text },
    }))
}

fn read<T: for<'d> Deserialize<'d>>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}
