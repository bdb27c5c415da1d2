//! Where signatures lie, and what they look like there.

use std::io::Read as _;

use serde::Deserialize;

use super::Form;
use crate::digest::{Digest, Hasher};
use crate::manifest::Descriptor;
use crate::source::registry::RegistryError;
use crate::source::{Source, SourceError};

/// The most signatures of one image that are looked at.
const MOST_SIGNATURES: usize = 64;
/// The most things that may refer to an image.
const MOST_REFERRERS: usize = 256;
/// The most that is said of what can't be read.
const MOST_UNREAD: usize = 8;
/// The longest payload or bundle, in bytes.
const LONGEST: u64 = 1 << 20;

const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIMPLE_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const BUNDLE_PREFIX: &str = "application/vnd.dev.sigstore.bundle";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What cosign puts beside the signature of an identity: its certificate, those above it, the entry in the log.
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const ENTRY: &str = "dev.sigstore.cosign/bundle";
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

/// A list of manifests. Each entry is read by itself, so that a damaged one costs no other its place.
#[derive(Deserialize)]
struct List {
    #[serde(default)]
    manifests: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(flatten)]
    descriptor: Descriptor,
}

impl Listed {
    /// Whether it may be a signature's manifest. Those that say nothing of themselves may be.
    fn may_sign(&self) -> bool {
        self.artifact_type.as_deref().is_none_or(signs)
    }
}

fn signs(artifact_type: &str) -> bool {
    artifact_type == SIMPLE_ARTIFACT || artifact_type.starts_with(BUNDLE_PREFIX)
}

/// What was found beside an image.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) forms: Vec<Form>,
    /// What looks like a signature and can't be read, and why.
    pub(super) unread: Vec<String>,
}

impl Found {
    /// Takes what was read; what is only broken itself is noted, and stops nothing else. An error is one of the place's.
    fn take<T>(
        &mut self,
        of: &Digest,
        read: Result<Option<T>, SourceError>,
    ) -> Result<Option<T>, SourceError> {
        match read {
            Ok(found) => Ok(found),
            Err(error) if is_its_own(&error) => {
                if self.unread.len() < MOST_UNREAD {
                    self.unread.push(format!("{}: {error}", of.short()));
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether an error is about the one thing that was to be read, rather than about the place that it lies in.
fn is_its_own(error: &SourceError) -> bool {
    match error {
        SourceError::Size { .. }
        | SourceError::Digest { .. }
        | SourceError::Large { .. }
        | SourceError::File { .. }
        | SourceError::Form { .. }
        | SourceError::Manifest(_)
        | SourceError::Depth
        | SourceError::Registry(RegistryError::NotFound { .. } | RegistryError::Large { .. }) => true,
        SourceError::Read { .. }
        | SourceError::NoSuchName { .. }
        | SourceError::NameNeeded { .. }
        | SourceError::Registry(_)
        | SourceError::Containerd(_) => false,
    }
}

/// The tag under which cosign puts an image's signatures.
pub(super) fn tag(digest: &Digest) -> String {
    format!("{}.sig", digest.file_name())
}

/// Finds the signatures beside a manifest. What can't be understood there is no signature.
pub(super) fn find(source: &Source, subject: &Digest) -> Result<Found, SourceError> {
    let mut found = Found::default();
    let mut artifacts: Vec<Artifact> = Vec::new();
    let list = match source {
        Source::Registry(registry) => {
            artifacts.extend(registry.manifest_if_there(&tag(subject))?.and_then(|bytes| read(&bytes)));
            registry.referrers(subject)?
        }
        Source::Layout(layout) => Some(layout.index()?),
        Source::DockerArchive(_) | Source::Wasm(_) | Source::Containerd(_) => None,
    };
    let list: Option<List> = list.and_then(|bytes| read(&bytes));
    let entries = list.map(|list| list.manifests).unwrap_or_default();
    let mut listed: Vec<Listed> = entries
        .into_iter()
        .filter_map(|entry| serde_json::from_value(entry).ok())
        .filter(|listed: &Listed| listed.may_sign() && listed.descriptor.digest != *subject)
        .collect();
    // Those that say that they are signatures come first: whoever can add to the list can't crowd them out with anything else.
    let is_tagged = |listed: &Listed| listed.descriptor.annotation(REF_NAME) == Some(tag(subject).as_str());
    listed.sort_by_key(|listed| !(is_tagged(listed) || listed.artifact_type.is_some()));
    for listed in listed.iter().take(MOST_REFERRERS) {
        let artifact = source.document(&listed.descriptor).map(|bytes| read::<Artifact>(&bytes));
        let artifact = found.take(&listed.descriptor.digest, artifact)?;
        artifacts.extend(artifact.filter(|artifact| is_tagged(listed) || artifact.refers_to(subject)));
    }
    for layer in artifacts.into_iter().flat_map(|artifact| artifact.layers) {
        if found.forms.len() < MOST_SIGNATURES
            && let Some(form) = found.take(&layer.digest, form(source, &layer))?
            && !found.forms.contains(&form)
        {
            found.forms.push(form);
        }
    }
    Ok(found)
}

impl Artifact {
    fn refers_to(&self, subject: &Digest) -> bool {
        self.artifact_type.as_deref().is_none_or(signs)
            && self.subject.as_ref().is_some_and(|of| of.digest == *subject)
    }
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
        Some(signature) => {
            let annotation = |name: &str| layer.annotation(name).map(str::to_owned);
            Form::Simple {
                payload: text,
                signature,
                certificate: annotation(CERTIFICATE),
                chain: annotation(CHAIN),
                entry: annotation(ENTRY),
            }
        }
        None => Form::Bundle { json: text },
    }))
}

fn read<T: for<'d> Deserialize<'d>>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}
