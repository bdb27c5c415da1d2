//! Indexes and manifests, of OCI and of Docker (schema 2).
//!
//! What a document is, is decided by what it holds, never by a header that came with it: a document that could
//! be read both as an index and as a manifest is refused, because two readers would see two images under one
//! digest.

use serde::Deserialize;
use thiserror::Error;

use crate::digest::Digest;
use crate::platform::Platform;

/// The most bytes that a manifest, an index or a configuration may have.
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;
/// The most layers that an image may have.
pub(crate) const MAX_LAYERS: usize = 512;
const MAX_INDEX_ENTRIES: usize = 1024;

/// The configurations of Wasm artifacts: the CNCF's, and the one that was in use before it.
const WASM_CONFIGS: [&str; 2] = [WASM_CONFIG, "application/vnd.wasm.config.v1+json"];
const WASM_LAYERS: [&str; 2] = [WASM_LAYER, "application/vnd.wasm.content.layer.v1+wasm"];
/// The CNCF's type for a Wasm artifact's configuration (CNCF TAG Runtime, "Wasm OCI Artifact layout").
pub(crate) const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// The CNCF's type for a Wasm artifact's program.
pub(crate) const WASM_LAYER: &str = "application/wasm";

/// What a client is willing to read, in the words of HTTP's `Accept`.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A pointer to content: its type, size and digest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Descriptor {
    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name)?.as_str()
    }
}

/// A document that a registry or a layout hands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Box<Manifest>),
}

/// One image for one platform. `urls` of layers aren't read at all, so nothing can follow them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    /// Bottom first; none for a Wasm artifact.
    pub(crate) layers: Vec<Descriptor>,
    /// The program of a Wasm artifact.
    pub(crate) wasm: Option<Descriptor>,
}

impl Manifest {
    /// Returns the bytes that its layers or its program have as they are fetched.
    pub(crate) fn content_bytes(&self) -> u64 {
        self.layers.iter().chain(&self.wasm).map(|content| content.size).fold(0, u64::saturating_add)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<serde_json::Value>,
}

/// Reads an index or a manifest.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, ManifestError> {
    let raw: Raw = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
    if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
        return Err(ManifestError::SchemaOne);
    }
    if raw.schema_version != Some(2) {
        return Err(ManifestError::Schema { version: raw.schema_version });
    }
    let media_type = raw.media_type.unwrap_or_default();
    let says_index = media_type.ends_with("index.v1+json") || media_type.ends_with("manifest.list.v2+json");
    let says_manifest = media_type.ends_with("manifest.v1+json") || media_type.ends_with("manifest.v2+json");
    if !media_type.is_empty() && !says_index && !says_manifest {
        return Err(ManifestError::MediaType { media_type });
    }
    match (raw.manifests, raw.config, raw.layers) {
        (Some(manifests), None, None) if !says_manifest => {
            if manifests.len() > MAX_INDEX_ENTRIES {
                return Err(ManifestError::TooMany {
                    what: "images",
                    count: manifests.len(),
                    most: MAX_INDEX_ENTRIES,
                });
            }
            Ok(Document::Index(manifests))
        }
        (None, Some(config), Some(layers)) if !says_index => {
            if WASM_CONFIGS.contains(&config.media_type.as_str()) {
                return Ok(Document::Manifest(Box::new(wasm_artifact(config, layers)?)));
            }
            check_manifest(&config, &layers)?;
            Ok(Document::Manifest(Box::new(Manifest { config, layers, wasm: None })))
        }
        (None, None, None) => Err(ManifestError::Empty),
        _ => Err(ManifestError::Ambiguous),
    }
}

fn wasm_artifact(config: Descriptor, layers: Vec<Descriptor>) -> Result<Manifest, ManifestError> {
    if config.size > MAX_DOCUMENT {
        return Err(ManifestError::LargeConfig { size: config.size });
    }
    match <[Descriptor; 1]>::try_from(layers) {
        Ok([program]) if WASM_LAYERS.contains(&program.media_type.as_str()) => {
            Ok(Manifest { config, layers: Vec::new(), wasm: Some(program) })
        }
        Ok([other]) => Err(ManifestError::WasmType { media_type: other.media_type }),
        Err(layers) => Err(ManifestError::WasmLayers { count: layers.len() }),
    }
}

fn check_manifest(config: &Descriptor, layers: &[Descriptor]) -> Result<(), ManifestError> {
    let is_image = matches!(
        config.media_type.as_str(),
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    );
    if !is_image {
        return Err(ManifestError::NotAnImage { media_type: config.media_type.clone() });
    }
    if config.size > MAX_DOCUMENT {
        return Err(ManifestError::LargeConfig { size: config.size });
    }
    if layers.is_empty() {
        return Err(ManifestError::NoLayers);
    }
    if layers.len() > MAX_LAYERS {
        return Err(ManifestError::TooMany { what: "layers", count: layers.len(), most: MAX_LAYERS });
    }
    for (index, layer) in layers.iter().enumerate() {
        if !is_layer(&layer.media_type) {
            return Err(ManifestError::LayerType { index, media_type: layer.media_type.clone() });
        }
    }
    Ok(())
}

/// Tells whether `media_type` is a tar, compressed or not. How it is compressed is seen from its first bytes.
fn is_layer(media_type: &str) -> bool {
    let tar = media_type
        .strip_prefix("application/vnd.oci.image.layer.v1.tar")
        .or_else(|| media_type.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar"))
        .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.diff.tar"))
        .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff.tar"));
    matches!(tar, Some("" | "+gzip" | "+zstd" | ".gzip" | ".zstd"))
}

/// Chooses an image out of an index, for the first of the platforms that there is one for, and answers for which.
pub(crate) fn choose<'a>(
    entries: &'a [Descriptor],
    wanted: &[Platform],
) -> Result<(&'a Descriptor, Option<Platform>), ManifestError> {
    for platform in wanted {
        let ranked = entries
            .iter()
            .filter_map(|entry| platform.rank(entry.platform.as_ref()?).map(|rank| (rank, entry)))
            .min_by_key(|(rank, _)| *rank);
        if let Some((_, entry)) = ranked {
            return Ok((entry, Some(platform.clone())));
        }
    }
    match entries {
        [only] if only.platform.is_none() => Ok((only, None)),
        _ => {
            let mut offered: Vec<String> =
                entries.iter().filter_map(|entry| entry.platform.as_ref().map(Platform::to_string)).collect();
            offered.retain(|name| name != "unknown/unknown");
            offered.dedup();
            let wanted = wanted.first().cloned().unwrap_or_else(Platform::host);
            Err(ManifestError::Platform { wanted: Box::new(wanted), offered: offered.join(", ") })
        }
    }
}

/// A document that isn't a manifest of an image that can be read here.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It isn't JSON of the expected shape.
    #[error("the manifest isn't what the image specification describes")]
    Json(#[source] serde_json::Error),
    /// It is of Docker's first schema.
    #[error(
        "the manifest is of Docker's schema 1, which isn't read: push the image again with a current tool"
    )]
    SchemaOne,
    /// It is of an unknown schema.
    #[error("the manifest's schemaVersion is {}; it must be 2", version.map_or("missing".to_owned(), |v| v.to_string()))]
    Schema {
        /// The version, if there is one.
        version: Option<u64>,
    },
    /// Its media type is something else.
    #[error("the document is of type \"{media_type}\", which is neither an image's manifest nor an index")]
    MediaType {
        /// The type that it names.
        media_type: String,
    },
    /// It could be read as two things.
    #[error("the document is an index and a manifest at once, or contradicts its own mediaType")]
    Ambiguous,
    /// It is neither an index nor a manifest.
    #[error("the document holds neither \"manifests\" nor \"config\" and \"layers\"")]
    Empty,
    /// It describes something other than a container image.
    #[error("this isn't a container image but an artifact with a configuration of type \"{media_type}\"")]
    NotAnImage {
        /// The configuration's type.
        media_type: String,
    },
    /// The configuration is too large.
    #[error("the image's configuration has {size} bytes; at most {MAX_DOCUMENT} are read")]
    LargeConfig {
        /// Its declared size in bytes.
        size: u64,
    },
    /// There is no layer.
    #[error("the image has no layers, so there is nothing to boot")]
    NoLayers,
    /// A Wasm artifact's layer isn't a program.
    #[error(
        "the Wasm artifact's layer is of type \"{media_type}\", which isn't a Wasm program's ({WASM_LAYER})"
    )]
    WasmType {
        /// The type that it declares.
        media_type: String,
    },
    /// A Wasm artifact must have one program.
    #[error("the Wasm artifact has {count} layers; it must have one, of type {WASM_LAYER}")]
    WasmLayers {
        /// How many it has.
        count: usize,
    },
    /// There are too many entries.
    #[error("the manifest lists {count} {what}; at most {most} are read")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many are read.
        most: usize,
    },
    /// A layer isn't a tar.
    #[error(
        "layer {index} is of type \"{media_type}\"; layers must be tar files, plain or compressed by gzip or zstd"
    )]
    LayerType {
        /// Its place, counted from 0 at the bottom.
        index: usize,
        /// The type that it declares.
        media_type: String,
    },
    /// There is no image for the platform.
    #[error("there is no image for {wanted}; there are images for: {}", if offered.is_empty() { "nothing" } else { offered })]
    Platform {
        /// The platform that was asked for.
        wanted: Box<Platform>,
        /// The platforms that there are, separated by commas.
        offered: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{PullOptions, WasmChoice};

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","size":3,"digest":"{}"}}"#, Digest::of(b"x"))
    }

    fn image(layer: &str, extra: &str) -> String {
        let config = descriptor("application/vnd.oci.image.config.v1+json");
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]{extra}}}"#, descriptor(layer))
    }

    #[test]
    fn a_foreign_layers_addresses_are_not_even_read() {
        let text = image("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "")
            .replace("\"size\"", "\"urls\":[\"http://169.254.169.254/\"],\"size\"");
        assert!(matches!(parse(text.as_bytes()), Ok(Document::Manifest(_))));
    }

    #[test]
    fn a_document_that_is_two_things_is_refused() {
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        let both = image(layer, r#","manifests":[]"#);
        assert!(matches!(parse(both.as_bytes()), Err(ManifestError::Ambiguous)));
        let lie = image(layer, r#","mediaType":"application/vnd.oci.image.index.v1+json""#);
        assert!(matches!(parse(lie.as_bytes()), Err(ManifestError::Ambiguous)));
    }

    #[test]
    fn what_is_not_an_image_is_refused_by_name() {
        let table = [
            (image("application/vnd.oci.image.layer.v1.tar+encrypted", ""), "layer 0 is of type"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "schema 1"),
            (r#"{"schemaVersion":2}"#.to_owned(), "neither \"manifests\""),
            (r#"{"schemaVersion":3}"#.to_owned(), "schemaVersion is 3"),
            ("[]".to_owned(), "isn't what the image specification describes"),
            (
                image("application/vnd.oci.image.layer.v1.tar", "").replace("image.config", "empty"),
                "artifact",
            ),
        ];
        for (text, expected) in table {
            let error = parse(text.as_bytes()).expect_err(&text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_best_image_for_a_platform_is_chosen_and_a_missing_one_lists_the_others() {
        let entry = |platform: &str| Descriptor {
            media_type: String::new(),
            digest: Digest::of(platform.as_bytes()),
            size: 1,
            platform: Some(platform.parse().unwrap()),
            annotations: None,
        };
        let entries =
            [entry("linux/arm/v6"), entry("linux/arm/v7"), entry("linux/amd64"), entry("unknown/unknown")];
        let (chosen, platform) = choose(&entries, &["linux/arm/v7".parse().unwrap()]).unwrap();
        assert_eq!(chosen.digest, Digest::of(b"linux/arm/v7"));
        assert_eq!(platform.unwrap().to_string(), "linux/arm/v7");
        let error = choose(&entries, &["linux/s390x".parse().unwrap()]).unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no image for linux/s390x; there are images for: linux/arm/v6, linux/arm/v7, linux/amd64"
        );
        let wanted =
            |wasm| PullOptions { wasm, ..PullOptions::default() }.wanted(&"linux/amd64".parse().unwrap());
        let fallback = wanted(WasmChoice::Fallback);
        let wanted = wanted(WasmChoice::First);
        let (chosen, _) = choose(&entries, &wanted).unwrap();
        assert_eq!(chosen.digest, Digest::of(b"linux/amd64"), "for want of a Wasm program");
        let entries = [entry("linux/amd64"), entry("wasip2/wasm"), entry("wasip1/wasm")];
        assert_eq!(choose(&entries, &fallback).unwrap().0.digest, Digest::of(b"linux/amd64"));
        assert_eq!(choose(&entries[1..], &fallback).unwrap().0.digest, Digest::of(b"wasip1/wasm"));
        let (chosen, platform) = choose(&entries, &wanted).unwrap();
        assert_eq!(chosen.digest, Digest::of(b"wasip1/wasm"));
        assert_eq!(platform, Some(Platform::wasm()));
    }

    #[test]
    fn a_wasm_artifact_has_one_program() {
        let artifact = |layers: &str| {
            let config = descriptor(WASM_CONFIG);
            parse(format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#).as_bytes())
        };
        let program = descriptor(WASM_LAYER);
        let Ok(Document::Manifest(manifest)) = artifact(&program) else { panic!("it is one") };
        assert!(manifest.layers.is_empty());
        assert_eq!((manifest.wasm.as_ref().map(|wasm| wasm.size), manifest.content_bytes()), (Some(3), 3));
        let error = artifact(&format!("{program},{program}")).unwrap_err().to_string();
        assert!(error.contains("has 2 layers"), "{error}");
        let error = artifact(&descriptor("text/plain")).unwrap_err().to_string();
        assert!(error.contains("of type \"text/plain\""), "{error}");
    }
}
