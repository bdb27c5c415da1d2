//! OCI layouts written by hand, without any program.

use std::fs;
use std::path::Path;

use image::{Digest, Reference};
use serde_json::{Value, json};

/// Files of a layer: paths and contents. A path that begins with `!` is executable; one that begins with `@` is a link to its content. The folders above are described too, so
/// that no layer has to be merged with another.
pub(crate) type Files<'f> = &'f [(&'f str, &'f [u8])];

/// Writes an image with these layers into the layout, under this tag; gives its name and the digest of its manifest.
pub(crate) fn write_image(layout: &Path, tag: &str, layers: &[Files<'_>]) -> (Reference, Digest) {
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let tars: Vec<Vec<u8>> = layers.iter().map(|files| tar(files)).collect();
    let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
    let config = json!({
        "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
        "os": "linux",
        "config": { "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = blob(layout, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let layers: Vec<Value> =
        tars.iter().map(|tar| blob(layout, "application/vnd.oci.image.layer.v1.tar", tar)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": layers,
    });
    let digest = add(layout, Some(tag), &manifest);
    (format!("oci:{}:{tag}", layout.display()).parse().unwrap(), digest)
}

/// Writes a blob and gives its descriptor.
pub(crate) fn blob(layout: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes);
    fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}

/// Writes a manifest and lists it in the layout's index, under a tag if there is one.
pub(crate) fn add(layout: &Path, tag: Option<&str>, manifest: &Value) -> Digest {
    let media_type = manifest["mediaType"].as_str().unwrap();
    let mut descriptor = blob(layout, media_type, manifest.to_string().as_bytes());
    if let Some(tag) = tag {
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    }
    let digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
    let index = layout.join("index.json");
    let mut document: Value = fs::read(&index).map_or_else(
        |_| json!({ "schemaVersion": 2, "manifests": [] }),
        |bytes| serde_json::from_slice(&bytes).unwrap(),
    );
    document["manifests"].as_array_mut().unwrap().push(descriptor);
    fs::write(index, document.to_string()).unwrap();
    digest
}

fn tar(files: Files<'_>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let add =
        |builder: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, mode: u32, content: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content).unwrap();
        };
    add(&mut builder, "./", tar::EntryType::Directory, 0o755, b"");
    let mut folders = std::collections::BTreeSet::new();
    for (path, content) in files {
        let (path, mode) = match path.strip_prefix('!') {
            Some(path) => (path, 0o755),
            None => (*path, 0o644),
        };
        let plain = path.trim_start_matches('@');
        for (at, _) in plain.match_indices('/') {
            if folders.insert(&plain[..at]) {
                add(&mut builder, &plain[..at], tar::EntryType::Directory, 0o755, b"");
            }
        }
        match path.strip_prefix('@') {
            Some(path) => {
                let mut header = tar::Header::new_ustar();
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, path, std::str::from_utf8(content).unwrap()).unwrap();
            }
            None => add(&mut builder, path, tar::EntryType::Regular, mode, content),
        }
    }
    builder.into_inner().unwrap()
}
