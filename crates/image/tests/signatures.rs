//! Signatures beside images, made by openssl as cosign makes them, in layouts and in a registry.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use evidence::signature::{Identity, PublicKey, TrustedRoot};
use image::signatures::{By, Trusted, Unverified};
use image::{Digest, PullOptions, Reference};
use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "../../evidence/tests/sigstore/mod.rs"]
#[allow(dead_code)]
mod sigstore;
mod support;
use sigstore::{Certificate, IDENTITY, ISSUER, World};
use support::layout::{add, blob, write_image};
use support::wire::{Answer, Web};
use support::{Shelf, has, run, text};

const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A key pair in a folder.
struct Key {
    folder: TempDir,
    ed25519: bool,
}

impl Key {
    fn new(kind: &str) -> Key {
        let key = Key { folder: TempDir::new().unwrap(), ed25519: kind == "ed25519" };
        let path = key.path("key.pem");
        match key.ed25519 {
            true => run("openssl", &["genpkey", "-algorithm", "ed25519", "-out", text(&path)]),
            false => {
                run("openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", text(&path)])
            }
        }
        run("openssl", &["pkey", "-in", text(&path), "-pubout", "-out", text(&key.path("key.pub"))]);
        key
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn public(&self) -> PublicKey {
        PublicKey::from_pem(&fs::read_to_string(self.path("key.pub")).unwrap()).unwrap()
    }

    fn sign(&self, message: &[u8]) -> String {
        let (key, input, output) = (self.path("key.pem"), self.path("message"), self.path("signature"));
        fs::write(&input, message).unwrap();
        let (key, input, output_text) = (text(&key), text(&input), text(&output));
        match self.ed25519 {
            true => run(
                "openssl",
                &["pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", input, "-out", output_text],
            ),
            false => run("openssl", &["dgst", "-sha256", "-sign", key, "-out", output_text, input]),
        }
        BASE64_STANDARD.encode(fs::read(&output).unwrap())
    }
}

fn payload(digest: &Digest) -> String {
    json!({
        "critical": {
            "identity": { "docker-reference": "" },
            "image": { "docker-manifest-digest": digest },
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string()
}

/// The manifest that cosign keeps signatures in.
fn artifact(layout: &Path, layers: &[Value]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(layout, "application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": layers,
    })
}

fn simple_layer(layout: &Path, payload: &str, signature: &str) -> Value {
    let mut layer = blob(layout, SIMPLE, payload.as_bytes());
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature });
    layer
}

fn sign_simple(layout: &Path, key: &Key, digest: &Digest) {
    let payload = payload(digest);
    let layer = simple_layer(layout, &payload, &key.sign(payload.as_bytes()));
    add(layout, Some(&format!("sha256-{}.sig", digest.hex())), &artifact(layout, &[layer]));
}

/// Puts a bundle beside an image, as a referrer.
fn attach_bundle(layout: &Path, digest: &Digest, bundle: &str) {
    let mut manifest = artifact(layout, &[blob(layout, BUNDLE, bundle.as_bytes())]);
    manifest["artifactType"] = json!(BUNDLE);
    let size = fs::metadata(layout.join("blobs/sha256").join(digest.hex())).unwrap().len();
    manifest["subject"] = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
    });
    add(layout, None, &manifest);
}

fn sign_bundle(layout: &Path, key: &Key, digest: &Digest) {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { "sha256": digest.hex() } }],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
    })
    .to_string();
    let kind = "application/vnd.in-toto+json";
    let message = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
    let bundle = json!({
        "mediaType": BUNDLE,
        "verificationMaterial": { "publicKey": { "hint": "" } },
        "dsseEnvelope": {
            "payload": BASE64_STANDARD.encode(&statement), "payloadType": kind,
            "signatures": [{ "sig": key.sign(message.as_bytes()) }],
        },
    });
    attach_bundle(layout, digest, &bundle.to_string());
}

/// What a store says of an image's signatures.
fn verify(reference: &Reference, keys: &[&Key]) -> Result<String, Unverified> {
    let shelf = Shelf::new();
    let image = shelf.pull(reference).unwrap();
    let trusted = Trusted { keys: keys.iter().map(|key| key.public()).collect(), ..Trusted::default() };
    let found = shelf.store.signatures(&image, &PullOptions::default()).unwrap();
    found.verify(&trusted).map(|verified| match verified.by {
        By::Key(place) => format!("{} {place}", verified.form),
        By::Identity(signer) => panic!("nobody asked for {signer}"),
    })
}

struct Signed {
    folder: TempDir,
    reference: Reference,
    digest: Digest,
}

impl Signed {
    fn new() -> Signed {
        let folder = TempDir::new().unwrap();
        let (reference, digest) =
            write_image(&folder.path().join("layout"), "app", &[&[("bin/app", b"app")]]);
        Signed { folder, reference, digest }
    }

    fn layout(&self) -> PathBuf {
        self.folder.path().join("layout")
    }
}

#[test]
fn a_signature_under_its_tag_or_as_a_referrer_vouches_for_an_image() {
    if !has("a_signature_under_its_tag", &["openssl"]) {
        return;
    }
    for kind in ["p256", "ed25519"] {
        let (key, other) = (Key::new(kind), Key::new("p256"));
        let image = Signed::new();
        let error = verify(&image.reference, &[&key]).unwrap_err();
        assert!(error.to_string().contains(&format!("sha256-{}.sig", image.digest.hex())), "{error}");
        sign_simple(&image.layout(), &key, &image.digest);
        assert_eq!(verify(&image.reference, &[&other, &key]).unwrap(), "cosign 1");
        assert!(matches!(verify(&image.reference, &[&other]), Err(Unverified::Refused { count: 1, .. })));
        let image = Signed::new();
        sign_bundle(&image.layout(), &key, &image.digest);
        assert_eq!(verify(&image.reference, &[&key]).unwrap(), "bundle 0");
        assert!(verify(&image.reference, &[&other]).is_err());
    }
}

#[test]
fn a_signature_of_another_image_or_over_a_changed_payload_vouches_for_nothing() {
    if !has("a_signature_of_another_image", &["openssl"]) {
        return;
    }
    let key = Key::new("p256");
    let image = Signed::new();
    let tag = format!("sha256-{}.sig", image.digest.hex());
    let of_other = payload(&Digest::of(b"another image"));
    let honest = payload(&image.digest);
    let bent = honest.replace("cosign container", "Cosign container");
    let table = [
        (of_other.clone(), key.sign(of_other.as_bytes()), "for sha256:"),
        (honest.clone(), key.sign(of_other.as_bytes()), "isn't of this key"),
        (bent.clone(), key.sign(honest.as_bytes()), "isn't of this key"),
        (bent.clone(), key.sign(bent.as_bytes()), "is of type"),
        (honest.clone(), "no base64!".to_owned(), "base64"),
        (honest + " ", String::new(), "isn't of this key"),
    ];
    for (payload, signature, reason) in table {
        let copy = Signed::new();
        let layer = simple_layer(&copy.layout(), &payload, &signature);
        add(&copy.layout(), Some(&tag), &artifact(&copy.layout(), &[layer]));
        assert_eq!(copy.digest, image.digest, "the same image each time");
        let error = verify(&copy.reference, &[&key]).unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn a_signature_beside_a_changed_image_is_of_no_use_to_it() {
    if !has("a_signature_beside_a_changed_image", &["openssl"]) {
        return;
    }
    let key = Key::new("p256");
    let image = Signed::new();
    sign_simple(&image.layout(), &key, &image.digest);
    let (changed, digest) = write_image(&image.layout(), "changed", &[&[("bin/app", b"evil")]]);
    assert_ne!(digest, image.digest);
    assert!(matches!(verify(&changed, &[&key]), Err(Unverified::None { .. })));
    // The old signature, put where the changed image's would be.
    let payload = payload(&image.digest);
    let layer = simple_layer(&image.layout(), &payload, &key.sign(payload.as_bytes()));
    let tag = format!("sha256-{}.sig", digest.hex());
    add(&image.layout(), Some(&tag), &artifact(&image.layout(), &[layer]));
    let error = verify(&changed, &[&key]).unwrap_err().to_string();
    assert!(error.contains(image.digest.hex()), "{error}");
}

/// Serves a layout as the repository `app` of a registry.
fn serve(layout: PathBuf, referrers: bool) -> Web {
    Web::serve(move |request| {
        let path = request.path.split('?').next().unwrap_or_default();
        let blob =
            |digest: &str| fs::read(layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:")));
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        let all = index["manifests"].as_array().unwrap();
        if let Some(which) = path.strip_prefix("/v2/app/manifests/") {
            let tagged = all
                .iter()
                .find(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == which)
                .and_then(|entry| entry["digest"].as_str());
            return blob(tagged.unwrap_or(which))
                .map_or_else(|_| Answer::new(404, ""), |bytes| Answer::new(200, bytes));
        }
        if let Some(digest) = path.strip_prefix("/v2/app/blobs/") {
            return blob(digest).map_or_else(|_| Answer::new(404, ""), |bytes| Answer::new(200, bytes));
        }
        if let (Some(digest), true) = (path.strip_prefix("/v2/app/referrers/"), referrers) {
            let manifest = |entry: &Value| -> Value {
                serde_json::from_slice(&blob(entry["digest"].as_str().unwrap()).unwrap()).unwrap()
            };
            let found = all.iter().filter(|entry| manifest(entry)["subject"]["digest"] == digest);
            let listed: Vec<Value> = found
                .map(|entry| {
                    let mut entry = entry.clone();
                    entry["artifactType"] = json!(BUNDLE);
                    entry
                })
                .collect();
            return Answer::new(200, json!({ "schemaVersion": 2, "manifests": listed }).to_string());
        }
        Answer::new(if path == "/v2/" { 200 } else { 404 }, "")
    })
}

#[test]
fn a_registry_is_asked_for_both_kinds_of_signatures() {
    if !has("a_registry_is_asked_for_both_kinds", &["openssl"]) {
        return;
    }
    let key = Key::new("p256");
    for (bundle, referrers, expected) in
        [(false, false, "cosign 0"), (false, true, "cosign 0"), (true, true, "bundle 0")]
    {
        let image = Signed::new();
        match bundle {
            true => sign_bundle(&image.layout(), &key, &image.digest),
            false => sign_simple(&image.layout(), &key, &image.digest),
        }
        let web = serve(image.layout(), referrers);
        let reference: Reference = format!("{}/app:app", web.address).parse().unwrap();
        assert_eq!(verify(&reference, &[&key]).unwrap(), expected);
    }
    let unsigned = Signed::new();
    let web = serve(unsigned.layout(), true);
    let reference: Reference = format!("{}/app:app", web.address).parse().unwrap();
    assert!(matches!(verify(&reference, &[&key]), Err(Unverified::None { .. })));
}

#[test]
fn a_signature_over_an_index_counts_for_the_images_that_it_lists() {
    if !has("a_signature_over_an_index", &["openssl"]) {
        return;
    }
    let key = Key::new("p256");
    let image = Signed::new();
    let size = fs::metadata(image.layout().join("blobs/sha256").join(image.digest.hex())).unwrap().len();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.digest, "size": size,
            "platform": { "os": "linux", "architecture": arch },
        }],
    });
    let of_index = add(&image.layout(), Some("multi"), &index);
    let reference: Reference = format!("oci:{}:multi", image.layout().display()).parse().unwrap();
    assert!(matches!(verify(&reference, &[&key]), Err(Unverified::None { .. })));
    sign_simple(&image.layout(), &key, &of_index);
    assert_eq!(verify(&reference, &[&key]).unwrap(), "cosign 0");
    // By its own name the index isn't met, and its signature isn't either.
    assert!(verify(&image.reference, &[&key]).is_err());
}

#[test]
fn an_image_that_nothing_can_lie_beside_says_so() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.wasm");
    fs::write(&path, b"\0asm\x01\0\0\0").unwrap();
    let reference: Reference = format!("wasm:{}", path.display()).parse().unwrap();
    let shelf = Shelf::new();
    let image = shelf
        .store
        .pull(&reference, &PullOptions { wasm: image::WasmChoice::First, ..PullOptions::default() }, &|_| {})
        .unwrap();
    let error = shelf.store.signatures(&image, &PullOptions::default()).unwrap_err();
    assert!(error.to_string().contains("no signature can lie beside"), "{error}");
}

/// A Sigstore whose signers sign this image.
fn world(image: &Signed) -> World {
    let manifest = fs::read(image.layout().join("blobs/sha256").join(image.digest.hex())).unwrap();
    let mut world = World::new();
    (world.digest, world.manifest) = (image.digest.to_string(), manifest);
    world
}

/// What a store says of an image's signatures by an identity.
fn verify_identity(image: &Signed, world: &World, identity: &str) -> Result<String, Unverified> {
    let shelf = Shelf::new();
    let found =
        shelf.store.signatures(&shelf.pull(&image.reference).unwrap(), &PullOptions::default()).unwrap();
    let trusted = Trusted {
        root: Some(TrustedRoot::parse(world.root_document().to_string().as_bytes()).unwrap()),
        identities: vec![Identity { identity: identity.to_owned(), issuer: ISSUER.to_owned() }],
        ..Trusted::default()
    };
    found.verify(&trusted).map(|verified| match verified.by {
        By::Identity(signer) => format!("{} {}", verified.form, signer.identity),
        By::Key(place) => panic!("nobody asked for key {place}"),
    })
}

#[test]
fn an_identity_s_signature_is_found_in_both_forms() {
    let image = Signed::new();
    let world_of = world(&image);
    for kind in ["dsse", "manifest"] {
        let image = Signed::new();
        let bundle = match kind {
            "dsse" => world_of.bundle(&Certificate::default(), kind),
            _ => world_of.bundle_over_manifest(&Certificate::default()),
        };
        attach_bundle(&image.layout(), &image.digest, &bundle.to_string());
        assert_eq!(verify_identity(&image, &world_of, IDENTITY).unwrap(), format!("bundle {IDENTITY}"));
        let error = verify_identity(&image, &world_of, "https://example.org/other").unwrap_err().to_string();
        assert!(error.contains("isn't among the identities") && error.contains(IDENTITY), "{error}");
        let error = verify_identity(&image, &World::new(), IDENTITY).unwrap_err().to_string();
        assert!(error.contains("which the trust root doesn't have"), "{error}");
    }
    let layer = world_of.layer(&Certificate::default());
    let mut entry = simple_layer(&image.layout(), &layer.payload, &layer.signature);
    for (name, text) in
        [("certificate", &layer.certificate), ("chain", &layer.chain), ("bundle", &layer.bundle)]
    {
        entry["annotations"][format!("dev.sigstore.cosign/{name}")] = json!(text);
    }
    let tag = format!("sha256-{}.sig", image.digest.hex());
    add(&image.layout(), Some(&tag), &artifact(&image.layout(), &[entry]));
    assert_eq!(verify_identity(&image, &world_of, IDENTITY).unwrap(), format!("cosign {IDENTITY}"));
}

#[test]
fn what_is_broken_beside_an_image_stops_no_other_signature_and_is_named() {
    if !has("what_is_broken_beside_an_image", &["openssl"]) {
        return;
    }
    let key = Key::new("p256");
    let image = Signed::new();
    let layout = image.layout();
    let blobs = layout.join("blobs/sha256");
    // What is damaged in every way that it can be: of another size, of another content, gone, no JSON, no descriptor.
    for (number, damage) in ["size", "content", "gone", "json", "large"].iter().enumerate() {
        let bundle = format!("{{\"number\":{number}}}");
        attach_bundle(&layout, &image.digest, &bundle);
        let mut index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        let entry = index["manifests"].as_array_mut().unwrap().last_mut().unwrap();
        let path = blobs.join(entry["digest"].as_str().unwrap().trim_start_matches("sha256:"));
        let bytes = fs::read(&path).unwrap();
        match *damage {
            "size" => fs::write(&path, &bytes[1..]).unwrap(),
            "content" => fs::write(&path, [&bytes[1..], b" "].concat()).unwrap(),
            "gone" => fs::remove_file(&path).unwrap(),
            "json" => *entry = blob(&layout, "application/vnd.oci.image.manifest.v1+json", b"nonsense"),
            _ => entry["size"] = json!(1_u64 << 40),
        }
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
    }
    let error = verify(&image.reference, &[&key]).unwrap_err();
    let Unverified::None { unread, .. } = &error else { panic!("{error}") };
    assert_eq!(unread.len(), 4, "{unread:?}");
    assert!(error.to_string().contains("what can't be read there: "), "{error}");
    // A bundle that is gone, whose manifest is there.
    attach_bundle(&layout, &image.digest, "{}");
    fs::remove_file(blobs.join(Digest::of(b"{}").hex())).unwrap();
    sign_bundle(&layout, &key, &image.digest);
    assert_eq!(verify(&image.reference, &[&key]).unwrap(), "bundle 0");
}

#[test]
fn other_things_that_refer_to_an_image_don_t_crowd_out_its_signature() {
    if !has("other_things_that_refer_to_an_image", &["openssl"]) {
        return;
    }
    let key = Key::new("p256");
    for expected in ["bundle 0", "cosign 0"] {
        let image = Signed::new();
        for number in 0..300 {
            let mut manifest = artifact(&image.layout(), &[]);
            manifest["annotations"] = json!({ "number": number.to_string() });
            add(&image.layout(), None, &manifest);
        }
        if expected == "cosign 0" {
            sign_simple(&image.layout(), &key, &image.digest);
        } else {
            sign_bundle(&image.layout(), &key, &image.digest);
            let path = image.layout().join("index.json");
            let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            index["manifests"].as_array_mut().unwrap().last_mut().unwrap()["artifactType"] = json!(BUNDLE);
            fs::write(&path, index.to_string()).unwrap();
        }
        assert_eq!(verify(&image.reference, &[&key]).unwrap(), expected);
    }
}
