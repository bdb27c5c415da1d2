//! Wasm programs: from files, from artifacts, and out of ordinary images.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::{Digest, Image, Platform, PullOptions, Reference, StoreOptions, WasmChoice};
use serde_json::{Value, json};

mod support;
use support::*;

const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const PROGRAM: &str = "application/wasm";
const OLD_CONFIG: &str = "application/vnd.wasm.config.v1+json";
const OLD_PROGRAM: &str = "application/vnd.wasm.content.layer.v1+wasm";

/// A core module's header, and then noise, for nobody runs it here.
fn module(seed: u64, length: usize) -> Vec<u8> {
    [b"\0asm\x01\0\0\0".as_slice(), &noise(seed, length)].concat()
}

fn wasm() -> PullOptions {
    PullOptions { wasm: WasmChoice::First, ..PullOptions::default() }
}

/// An OCI layout that is written by hand.
struct Layout {
    folder: tempfile::TempDir,
    entries: Vec<Value>,
}

impl Layout {
    fn new() -> Layout {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout { folder, entries: Vec::new() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.path().join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    fn artifact(&mut self, tag: &str, types: (&str, &str), program: &[u8]) -> Value {
        let config =
            self.blob(types.0, br#"{"created":"2026-01-02T03:04:05Z","architecture":"wasm","os":"wasip1"}"#);
        let layer = self.blob(types.1, program);
        self.manifest(tag, config, &[layer])
    }

    fn manifest(&mut self, tag: &str, config: Value, layers: &[Value]) -> Value {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
        let mut entry = self.blob(media_type, manifest.to_string().as_bytes());
        let plain = entry.clone();
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        self.add(entry);
        plain
    }

    /// Adds an index over manifests, each with its platform.
    fn index(&mut self, tag: &str, of: &[(&str, &Value)]) {
        let manifests: Vec<Value> = of
            .iter()
            .map(|(platform, manifest)| {
                let (os, architecture) = platform.split_once('/').unwrap();
                let mut entry = (*manifest).clone();
                entry["platform"] = json!({ "os": os, "architecture": architecture });
                entry
            })
            .collect();
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
        let mut entry = self.blob(media_type, index.to_string().as_bytes());
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        self.add(entry);
    }

    fn add(&mut self, entry: Value) {
        self.entries.push(entry);
        let index = json!({ "schemaVersion": 2, "manifests": self.entries });
        fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }

    fn reference(&self, tag: &str) -> Reference {
        format!("oci:{}:{tag}", text(self.path())).parse().unwrap()
    }
}

/// Returns the digest of an image's program, which is what it should be.
fn program(image: &Image) -> Digest {
    let module = image.wasm.as_ref().expect("it has a program");
    let bytes = fs::read(&module.path).unwrap();
    assert_eq!((bytes.len() as u64, Digest::of(&bytes)), (module.bytes, module.digest.clone()));
    module.digest.clone()
}

#[test]
fn a_program_in_a_file_is_kept_and_read_again_only_when_the_file_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hello.wasm");
    let reference: Reference = format!("wasm:{}", text(&path)).parse().unwrap();
    let first = module(1, 300_000);
    fs::write(&path, &first).unwrap();
    let shelf = Shelf::new();
    let image = shelf.pull(&reference).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(program(&image), Digest::of(&first));
    assert!(image.layers.is_empty() && image.config.entrypoint.is_empty());
    assert_eq!((image.platform.clone(), image.config.os.as_str()), (Platform::wasm(), "wasip1"));
    let (manifest, config) = shelf.store.documents(&image).unwrap();
    assert_eq!(
        (Digest::of(&manifest), Digest::of(&config)),
        (image.digest.clone(), image.config_digest.clone())
    );

    // A file that changed just now may change again within one tick of the clock.
    assert!(shelf.store.get(&reference).unwrap().is_none());
    // Nothing but the clock makes the time of the last change a past one.
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(shelf.pull(&reference).unwrap().digest, image.digest);
    assert_eq!(shelf.store.get(&reference).unwrap().expect("it is known").digest, image.digest);
    assert!(shelf.store.find(&reference, &wasm()).unwrap().is_some());

    let second = module(2, 300_000);
    fs::write(&path, &second).unwrap();
    assert!(shelf.store.get(&reference).unwrap().is_none(), "the file is another one now");
    let image = shelf.pull(&reference).unwrap();
    assert_eq!(program(&image), Digest::of(&second));
    fs::remove_file(&path).unwrap();
    assert!(shelf.store.get(&reference).unwrap().is_some(), "what was pulled last");
    shelf.assert_clean();
}

#[test]
fn a_component_is_told_from_a_core_module() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("component.wasm");
    fs::write(&path, b"\0asm\x0d\0\x01\0").unwrap();
    let image = Shelf::new().pull(&format!("wasm:{}", text(&path)).parse().unwrap()).unwrap();
    assert_eq!(image.config.os, "wasip2");
}

#[test]
fn what_is_no_wasm_program_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Shelf::new();
    let refuse = |name: &str, content: Option<&[u8]>, expected: &str| {
        let path = folder.path().join(name);
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let error = shelf.pull(&format!("wasm:{}", text(&path)).parse().unwrap()).unwrap_err();
        assert!(chain(&error).contains(expected), "{}", chain(&error));
    };
    refuse("text.wasm", Some(b"(module)"), "begins with \"(mod\"");
    refuse("empty.wasm", Some(b""), "begins with \"\"");
    refuse("none.wasm", None, "can't read");
    refuse(".", None, "not a regular file");
    let mut layout = Layout::new();
    layout.artifact("lie", (CONFIG, PROGRAM), b"\x7fELF....");
    let error = shelf.pull(&layout.reference("lie")).unwrap_err();
    assert!(chain(&error).contains("begins with \"\\x7fELF\""), "{}", chain(&error));
    layout.artifact("other", (CONFIG, PROGRAM), &module(4, 2000));
    let digest = Digest::of(&module(4, 2000));
    fs::write(layout.path().join("blobs/sha256").join(digest.hex()), module(5, 2000)).unwrap();
    let error = shelf.pull(&layout.reference("other")).unwrap_err();
    assert!(chain(&error).contains("its bytes have the digest"), "{}", chain(&error));
    shelf.assert_empty();
}

#[test]
fn an_artifact_is_pulled_from_layout_archive_and_registry_alike() {
    let test = "an_artifact_is_pulled";
    if !has(test, &["skopeo", "docker-registry", "tar"]) {
        return;
    }
    let mut layout = Layout::new();
    let content = module(7, 700_000);
    layout.artifact("new", (CONFIG, PROGRAM), &content);
    layout.artifact("old", (OLD_CONFIG, OLD_PROGRAM), &content);
    let shelf = Shelf::new();
    for tag in ["new", "old"] {
        let image = shelf.pull(&layout.reference(tag)).unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_eq!(program(&image), Digest::of(&content));
        assert_eq!(image.config.created.as_deref(), Some("2026-01-02T03:04:05Z"));
        assert_eq!(image.compressed_bytes, content.len() as u64);
    }
    let archive = layout.path().join("layout.tar");
    run("tar", &["-C", text(layout.path()), "-cf", text(&archive), "oci-layout", "index.json", "blobs"]);
    let from_archive = shelf.pull(&format!("oci-archive:{}:new", text(&archive)).parse().unwrap()).unwrap();
    assert_eq!(program(&from_archive), Digest::of(&content));
    let server = registry::Server::plain();
    server.push(&format!("oci:{}:new", text(layout.path())), "hello:1", &[]);
    let name: Reference = format!("127.0.0.1:{}/hello:1", server.port).parse().unwrap();
    let image = shelf.pull(&name).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(program(&image), Digest::of(&content));
    assert_eq!(names(&shelf.store.root().join("wasm")).len(), 1, "the same content is kept once");
    drop((image, from_archive));
    assert!(shelf.store.get(&name).unwrap().is_some());
    assert!(shelf.store.find(&name, &wasm()).unwrap().is_some());
    let listed = shelf.store.list().unwrap();
    assert!(
        listed.iter().all(|one| one.wasm.is_some() && one.layers == 0 && one.bytes == content.len() as u64)
    );
    shelf.assert_clean();
}

#[test]
fn programs_are_held_counted_and_removed_as_layers_are() {
    let folder = tempfile::tempdir().unwrap();
    let reference = |name: &str, seed| -> Reference {
        let path: PathBuf = folder.path().join(name);
        fs::write(&path, module(seed, 400_000)).unwrap();
        format!("wasm:{}", text(&path)).parse().unwrap()
    };
    let (one, two, three) = (reference("1.wasm", 1), reference("2.wasm", 2), reference("3.wasm", 3));
    let shelf = Shelf::with(StoreOptions { quota: 1_000_000, ..StoreOptions::default() });
    let held = shelf.pull(&one).unwrap();
    drop(shelf.pull(&two).unwrap());
    let usage = shelf.store.usage().unwrap();
    assert_eq!((usage.images, usage.layers, usage.programs, usage.bytes), (2, 0, 2, 800_016));
    assert!(shelf.store.remove(&one).unwrap_err().to_string().ends_with("is in use"));
    drop(shelf.pull(&three).unwrap());
    let left: Vec<String> = shelf.store.list().unwrap().into_iter().map(|image| image.reference).collect();
    assert!(!left.contains(&two.to_string()), "it was used longest ago, and not held: {left:?}");
    assert_eq!(program(&held), Digest::of(&module(1, 400_000)));
    drop(held);
    let freed = shelf.store.remove(&one).unwrap().unwrap();
    assert_eq!((freed.programs, freed.layers, freed.bytes), (1, 0, 400_008));
    assert_eq!(shelf.store.prune(true).unwrap().programs, 1);
    assert!(names(&shelf.store.root().join("wasm")).is_empty());
    shelf.assert_empty();
}

#[test]
fn of_an_index_the_wasm_program_is_chosen_when_that_is_asked_for() {
    let mut layout = Layout::new();
    let content = module(9, 1000);
    let wasm_entry = layout.artifact("w", (CONFIG, PROGRAM), &content);
    let other = layout.artifact("n", (CONFIG, PROGRAM), &module(10, 1000));
    let host = Platform::host().to_string();
    layout.index("both", &[(&host, &other), ("wasip1/wasm", &wasm_entry)]);
    let shelf = Shelf::new();
    let reference = layout.reference("both");
    let chosen = shelf.store.pull(&reference, &wasm(), &|_| {}).unwrap();
    assert_eq!(program(&chosen), Digest::of(&content));
    assert_ne!(program(&shelf.pull(&reference).unwrap()), Digest::of(&content));
    assert_eq!(shelf.store.find(&reference, &wasm()).unwrap().unwrap().digest, chosen.digest);
    assert_ne!(shelf.store.get(&reference).unwrap().unwrap().digest, chosen.digest);
    let fallback = PullOptions { wasm: WasmChoice::Fallback, ..PullOptions::default() };
    let ours = shelf.store.pull(&reference, &fallback, &|_| {}).unwrap();
    assert_ne!(program(&ours), Digest::of(&content), "what is for the machine goes before");
    layout.index("alone", &[("wasip1/wasm", &wasm_entry)]);
    let alone = layout.reference("alone");
    assert!(shelf.pull(&alone).is_err());
    assert_eq!(program(&shelf.store.pull(&alone, &fallback, &|_| {}).unwrap()), Digest::of(&content));
    assert!(shelf.store.find(&alone, &fallback).unwrap().is_some());
}

#[test]
fn an_ordinary_image_whose_entrypoint_is_a_program_has_both() {
    if !has("an_ordinary_image_whose_entrypoint", &["umoci", "skopeo", "docker-registry"]) {
        return;
    }
    let packer = Packer::new();
    let content = module(3, 50_000);
    packer.image("compat");
    packer.layer("compat", |root| {
        fs::create_dir(root.join("app")).unwrap();
        fs::write(root.join("app/hello.wasm"), module(1, 10)).unwrap();
    });
    packer.layer("compat", |root| fs::write(root.join("app/hello.wasm"), &content).unwrap());
    packer.layer("compat", |root| fs::write(root.join("data"), "data").unwrap());
    packer.config("compat", &["--config.entrypoint", "hello.wasm", "--config.workingdir", "/app"]);
    let shelf = Shelf::new();
    let image = shelf.pull(&packer.reference("compat")).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(program(&image), Digest::of(&content));
    assert!(!image.layers.is_empty());
    assert_eq!(image.platform, Platform::host());
    assert!(shelf.store.find(&packer.reference("compat"), &wasm()).unwrap().is_some(), "for want of another");

    // What the upper layer removed isn't there; the image is then none for Wasm.
    run("umoci", &["tag", "--image", &packer.name("compat"), "gone"]);
    packer.layer("gone", |root| fs::remove_file(root.join("app/hello.wasm")).unwrap());
    assert!(shelf.pull(&packer.reference("gone")).unwrap().wasm.is_none());
    let error = shelf.store.find(&packer.reference("gone"), &wasm()).unwrap();
    assert!(error.is_none());

    packer.config("compat", &["--os", "wasip1", "--architecture", "wasm"]);
    let server = registry::Server::plain();
    server.push(&format!("oci:{}", packer.name("compat")), "compat:1", &[]);
    let name: Reference = format!("127.0.0.1:{}/compat:1", server.port).parse().unwrap();
    let error = chain(&shelf.pull(&name).unwrap_err());
    assert!(error.contains("the image is for wasip1/wasm, but"), "{error}");
    for wasm in [WasmChoice::Fallback, WasmChoice::First] {
        let options = PullOptions { wasm, ..PullOptions::default() };
        let image = shelf.store.pull(&name, &options, &|_| {});
        let image = image.unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_eq!((program(&image), image.platform.clone()), (Digest::of(&content), Platform::wasm()));
    }

    packer.config("gone", &["--os", "wasi", "--architecture", "wasm"]);
    let error = chain(&shelf.store.pull(&packer.reference("gone"), &wasm(), &|_| {}).unwrap_err());
    assert!(error.contains("hello.wasm was refused: the image is for Wasm, but has no file"), "{error}");
    shelf.assert_clean();
}
