use serde_json::json;

use super::*;
use crate::digest::Digest;

#[path = "../../../../fuzz/mutated.rs"]
mod mutated;
use mutated::stands;

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn lists_of_packages_stand_any_change() {
    let texts: [(Format, &[u8]); 9] = [
        (
            Format::Dpkg,
            b"Package: libssl3\nStatus: install ok installed\nSource: openssl (1)\nVersion: 3.0.11-1\n\n",
        ),
        (Format::Apk, b"P:musl\nV:1.2.4-r2\nA:x86_64\no:musl\n\n"),
        (Format::NodeLock, br#"{"packages":{"node_modules/a":{"version":"1.0.0"}}}"#),
        (
            Format::NodeLock,
            br#"{"dependencies":{"a":{"version":"1.0.0","dependencies":{"b":{"version":"npm:c@2"}}}}}"#,
        ),
        (Format::PythonMetadata, b"Metadata-Version: 2.1\nName: Foo_Bar\nVersion: 1.0\n\nText\n"),
        (Format::CargoLock, b"[[package]]\nname = \"serde\"\nversion = \"1.0.0\"\nsource = \"registry+x\"\n"),
        (Format::GoSum, b"golang.org/x/net v0.1.0 h1:abc=\ngolang.org/x/net v0.1.0/go.mod h1:abc=\n"),
        (Format::GemLock, b"GEM\n  remote: https://rubygems.org/\n  specs:\n    rack (2.0.1)\n"),
        (Format::Composer, br#"{"packages":[{"name":"a/b","version":"v1.0.0"}]}"#),
    ];
    let place = |wanted: Format| Format::ALL.iter().position(|format| *format == wanted).unwrap_or(0);
    let mut seeds: Vec<Vec<u8>> =
        texts.iter().map(|(format, text)| [&[place(*format) as u8], *text].concat()).collect();
    let sqlite = [&b"SQLite format 3\0\x10\0"[..], &[0; 4078]].concat();
    seeds.push([&[place(Format::RpmSqlite) as u8][..], &sqlite].concat());
    seeds.push(
        [
            &[place(Format::GoProgram) as u8][..],
            b"\x7fELF\x02\x01\x01",
            b"\xff Go buildinf:\x08\x02",
            &[0; 64],
        ]
        .concat(),
    );
    stands(FOLDER, "inventory", &seeds, inventory);
}

#[test]
fn documents_stand_any_change() {
    let descriptor = |kind: &str| json!({ "mediaType": kind, "digest": Digest::of(b"x"), "size": 3 });
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip");
    let image = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json"), "layers": [layer, layer],
        "annotations": { "a": "b" },
    });
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json");
    entry["platform"] = json!({ "os": "linux", "architecture": "amd64", "variant": "v2" });
    let index = json!({ "schemaVersion": 2, "manifests": [entry, entry] });
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Cmd": ["/bin/sh"], "Env": ["A=1"], "User": "1:1", "ExposedPorts": { "80/tcp": {} }, "Labels": { "a": "b" } },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(b"x")] },
    });
    let wasm = json!({
        "schemaVersion": 2, "config": descriptor("application/vnd.wasm.config.v0+json"),
        "layers": [descriptor("application/wasm")],
    });
    stands(
        FOLDER,
        "document",
        &[image, index, config, wasm].map(|seed| seed.to_string().into_bytes()),
        document,
    );
}

#[test]
fn answers_of_registries_stand_any_change() {
    let seeds = [
        r#"Bearer realm="https://auth.example/token",service="a, \"b\"",scope="x:y:pull", Basic realm=z"#,
        "../v2/app/blobs/uploads/1?a=b&c=%20#x",
        "https://user:pass@[2001:db8::1]:5000/v2/?x",
        r#"{"errors":[{"code":"DENIED","message":"no","detail":{}}]}"#,
        "localhost:5000/a/b:1@sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        "oci-archive:/srv/x.tar:latest",
    ];
    stands(FOLDER, "answer", &seeds.map(|seed| seed.as_bytes().to_vec()), answer);
}

#[test]
fn layers_stand_any_change() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: ::tar::EntryType, target: &str, content: &[u8]| {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        match target {
            "" => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, content).unwrap();
            }
            target => builder.append_link(&mut header, path, target).unwrap(),
        }
    };
    add("./", ::tar::EntryType::Directory, "", b"");
    add("bin", ::tar::EntryType::Directory, "", b"");
    add("bin/sh", ::tar::EntryType::Regular, "", &[7; 3000]);
    add("bin/bash", ::tar::EntryType::Link, "bin/sh", b"");
    add("lib", ::tar::EntryType::Symlink, "../../etc", b"");
    add("etc/.wh.passwd", ::tar::EntryType::Regular, "", b"");
    add("var/.wh..wh..opq", ::tar::EntryType::Regular, "", b"");
    add("dev/null", ::tar::EntryType::Char, "", b"");
    add(&"long/".repeat(40), ::tar::EntryType::Directory, "", b"");
    let gnu = builder.into_inner().unwrap();
    let mut builder = ::tar::Builder::new(Vec::new());
    let pairs: [(&str, &[u8]); 4] =
        [("path", b"a/b"), ("SCHILY.xattr.user.x", b"y"), ("mtime", b"1.5"), ("size", b"3")];
    builder.append_pax_extensions(pairs).unwrap();
    let mut header = ::tar::Header::new_ustar();
    header.set_size(3);
    builder.append_data(&mut header, "short", &b"abc"[..]).unwrap();
    stands(FOLDER, "layer", &[gnu, builder.into_inner().unwrap()], layer);
}
