//! A bill of materials in CycloneDX 1.6: the same image, the same bytes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::digest::{Algorithm, Digest};
use crate::inventory::{Inventory, Location, Package};
use crate::reference::Reference;
use crate::store::Image;

/// Writes what is installed in an image as CycloneDX 1.6 JSON. It has no time and no random number, so that the same image
/// gives the same bytes everywhere; its serial number is made of its content.
#[must_use]
pub fn sbom(image: &Image, inventory: &Inventory) -> Value {
    document(&name(&image.reference), &image.digest, &image.platform.to_string(), inventory)
}

fn document(name: &str, digest: &Digest, platform: &str, inventory: &Inventory) -> Value {
    let mut references = BTreeSet::new();
    let mut components = Vec::with_capacity(inventory.packages.len() + 1);
    if let Some(known) = &inventory.distribution {
        let reference = format!("os:{known}");
        references.insert(reference.clone());
        let mut system = json!({ "type": "operating-system", "bom-ref": reference, "name": known.id });
        if let Some(version) = &known.version {
            system["version"] = json!(version);
        }
        components.push(system);
    }
    components.extend(inventory.packages.iter().map(|package| component(package, &mut references)));
    let unread = inventory.unread.iter().map(|unread| {
        let value = if unread.path.is_empty() {
            unread.reason.clone()
        } else {
            format!("{}: {}", unread.path, unread.reason)
        };
        json!({ "name": "vimana:unread", "value": value })
    });
    let properties: Vec<Value> =
        std::iter::once(json!({ "name": "vimana:platform", "value": platform })).chain(unread).collect();
    let algorithm = match digest.algorithm() {
        Algorithm::Sha256 => "SHA-256",
        Algorithm::Sha512 => "SHA-512",
    };
    let serial = Digest::of(json!([name, digest, &components, &properties]).to_string().as_bytes());
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid(&serial),
        "version": 1,
        "metadata": {
            "tools": { "components": [
                { "type": "application", "name": "vimana", "version": env!("CARGO_PKG_VERSION") },
            ] },
            "component": {
                "type": "container",
                "bom-ref": format!("image:{digest}"),
                "name": name,
                "version": digest,
                "hashes": [{ "alg": algorithm, "content": digest.hex() }],
            },
            "properties": properties,
        },
        "components": components,
    })
}

fn component(package: &Package, references: &mut BTreeSet<String>) -> Value {
    let mut reference = package.purl.clone();
    let mut number = 1;
    while !references.insert(reference.clone()) {
        number += 1;
        reference = format!("{}#{number}", package.purl);
    }
    let place = |location: &Location| {
        [
            json!({ "name": "vimana:layer", "value": location.layer }),
            json!({ "name": "vimana:file", "value": location.path }),
        ]
    };
    let mut properties: Vec<Value> = package.locations.iter().flat_map(place).collect();
    properties
        .extend(package.ecosystem.iter().map(|name| json!({ "name": "vimana:ecosystem", "value": name })));
    json!({
        "type": "library",
        "bom-ref": reference,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        "properties": properties,
    })
}

/// The image's name without what changes from machine to machine: for one in a file or folder, the last part of its path.
fn name(reference: &Reference) -> String {
    match reference {
        Reference::Registry(name) => format!("{}/{}", name.registry(), name.repository()),
        Reference::Containerd { name } => name.clone(),
        Reference::Layout { path, .. }
        | Reference::OciArchive { path, .. }
        | Reference::DockerArchive { path, .. }
        | Reference::Wasm { path } => {
            path.file_name().map_or_else(|| "image".to_owned(), |name| name.to_string_lossy().into_owned())
        }
    }
}

/// A UUID of version 8, made of a digest (RFC 9562, section 5.8).
fn uuid(digest: &Digest) -> String {
    let hex = digest.hex();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("urn:uuid:{}-{}-8{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

#[cfg(test)]
mod tests;
