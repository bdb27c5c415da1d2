use serde_json::json;

#[path = "../../../../fuzz/mutated.rs"]
mod mutated;
use mutated::stands;

use crate::sigstore::{Certificate, World};

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn advisories_stand_any_change() {
    let osv = json!({
        "id": "GHSA-1", "aliases": ["CVE-2024-1"], "modified": "2024-01-01T00:00:00Z", "summary": "It breaks",
        "severity": [{ "type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H" }],
        "affected": [{
            "package": { "ecosystem": "npm", "name": "left-pad" }, "versions": ["1.0.0"],
            "ranges": [{ "type": "SEMVER", "events": [{ "introduced": "0" }, { "fixed": "1.2.3-rc.1" }] }],
        }],
    });
    let debian = json!({
        "id": "DEBIAN-CVE-2024-2", "upstream": ["CVE-2024-2"],
        "affected": [{
            "package": { "ecosystem": "Debian:12", "name": "openssl" },
            "ranges": [{ "type": "ECOSYSTEM", "events": [{ "introduced": "0" }, { "last_affected": "3.0~1" }] }],
        }],
    });
    stands(FOLDER, "advisory", &[osv, debian].map(|seed| seed.to_string().into_bytes()), super::advisory);
}

#[test]
fn signatures_stand_any_change() {
    let world = World::new();
    let layer = world.layer(&Certificate::default());
    let bundle = world.bundle(&Certificate::default(), "dsse").to_string();
    let seeds = [format!("{}\0{}", layer.payload, layer.signature), format!("{bundle}\0{}", super::KEY)];
    stands(FOLDER, "signature", &seeds.map(String::into_bytes), super::signature);
}

#[test]
fn what_belongs_to_identities_stands_any_change() {
    use base64::Engine as _;
    let world = World::new();
    let bundle = world.bundle(&Certificate::default(), "dsse");
    let certificate = bundle["verificationMaterial"]["certificate"]["rawBytes"].as_str().unwrap();
    let seeds = [
        world.root_document().to_string().into_bytes(),
        bundle["verificationMaterial"]["tlogEntries"][0].to_string().into_bytes(),
        world.layer(&Certificate::default()).bundle.into_bytes(),
        world.layer(&Certificate::default()).chain.into_bytes(),
        base64::prelude::BASE64_STANDARD.decode(certificate).unwrap(),
    ];
    stands(FOLDER, "keyless", &seeds, super::keyless);
}

#[test]
fn versions_stand_any_change() {
    let seeds = [
        "1.0.0-rc.1+b\n1.0.0\n2",
        "1:1.2~rc1-1ubuntu2\n1.2-1\n0",
        "1!1.0.post1.dev2+a\n1.0a1\n1",
        "v1.x-dev\n1.*\n",
    ];
    stands(FOLDER, "version", &seeds.map(|seed| seed.as_bytes().to_vec()), super::version);
}
