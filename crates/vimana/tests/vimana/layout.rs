//! OCI layouts, written by hand.

use std::fs;
use std::io;
use std::path::Path;

use image::Digest;
use serde_json::{Value, json};

/// Writes a layout of one image with one layer: configuration and layer each with its media type.
pub fn write(folder: &Path, tag: &str, config: (&str, &Value), layer: (&str, &[u8])) -> io::Result<()> {
    fs::create_dir_all(folder.join("blobs/sha256"))?;
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let blob = |media_type: &str, bytes: &[u8]| -> io::Result<Value> {
        let digest = Digest::of(bytes);
        fs::write(folder.join("blobs/sha256").join(digest.hex()), bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    };
    let layer = blob(layer.0, layer.1)?;
    let config = blob(config.0, config.1.to_string().as_bytes())?;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer] });
    let mut entry = blob(media_type, manifest.to_string().as_bytes())?;
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    fs::write(folder.join("index.json"), json!({ "schemaVersion": 2, "manifests": [entry] }).to_string())
}
