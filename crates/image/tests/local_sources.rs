//! Images from layout folders and archives, as umoci and skopeo write them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use image::{Reference, StoreOptions};

mod support;
use support::*;

#[test]
fn an_image_from_a_layout_is_pulled_once_and_then_found_without_its_source() {
    if !has("an_image_from_a_layout", &["umoci"]) {
        return;
    }
    let packer = Packer::new();
    small_image(&packer, "one", 3);
    let shelf = Shelf::new();
    let pulled = shelf.pull(&packer.reference("one")).unwrap();
    assert_eq!(pulled.layers.len(), 3);
    assert_eq!(pulled.config.entrypoint, ["/bin/hello"]);
    assert_eq!(pulled.config.user, "1000:1000");
    assert!(pulled.config.env.contains(&"A=b".to_owned()));
    shelf.assert_clean();
    fs::remove_dir_all(&packer.layout).unwrap();
    let found = shelf.store.get(&packer.reference("one")).unwrap().unwrap();
    assert_eq!(found.digest, pulled.digest);
    for (found, pulled) in found.layers.iter().zip(&pulled.layers) {
        assert_eq!(found.verity_root, pulled.verity_root);
        assert_eq!(found.file.metadata().unwrap().len(), pulled.total_bytes);
        assert_eq!(found.verity_hash_offset, found.verity_data_blocks * 4096);
    }
    let (manifest, config) = shelf.store.documents(&found).unwrap();
    assert_eq!(image::Digest::of(&manifest), found.digest);
    assert_eq!(image::Digest::of(&config), found.config_digest);
}

#[test]
fn the_same_layer_becomes_the_same_bytes_from_every_source_and_compression() {
    if !has("the_same_layer_becomes_the_same_bytes", &["umoci", "skopeo"]) {
        return;
    }
    let packer = Packer::new();
    small_image(&packer, "one", 2);
    let folder = packer.folder.path();
    let oci = format!("oci:{}", packer.name("one"));
    let copies = [
        (format!("oci-archive:{}:t", text(&folder.join("a.tar"))), vec![]),
        (format!("docker-archive:{}:example.org/x:t", text(&folder.join("d.tar"))), vec![]),
        (format!("oci:{}:zstd", text(&folder.join("zstd"))), vec!["--dest-compress-format", "zstd"]),
        (format!("oci:{}:plain", text(&folder.join("plain"))), vec!["--dest-decompress"]),
    ];
    let roots = |reference: &Reference| -> Vec<[u8; 32]> {
        let shelf = Shelf::new();
        let image = shelf.pull(reference).unwrap_or_else(|error| panic!("{reference}: {}", chain(&error)));
        image.layers.iter().map(|layer| layer.verity_root).collect()
    };
    let expected = roots(&packer.reference("one"));
    for (target, options) in copies {
        let mut arguments = vec!["copy", "-q"];
        arguments.extend(options);
        arguments.extend([oci.as_str(), target.as_str()]);
        run("skopeo", &arguments);
        assert_eq!(roots(&target.parse().unwrap()), expected, "{target}");
    }
    let archive = folder.join("d.tar");
    run("gzip", &[text(&archive)]);
    assert_eq!(roots(&format!("docker-archive:{}.gz", text(&archive)).parse().unwrap()), expected);
}

#[test]
fn whiteouts_links_devices_and_odd_names_survive_packing_by_umoci() {
    let test = "whiteouts_links_devices_and_odd_names";
    if !has(test, &["umoci", "unsquashfs", "mknod", "setfattr"]) || !is_root(test) {
        return;
    }
    let packer = Packer::new();
    packer.image("odd");
    packer.layer("odd", |root| {
        use std::os::unix::ffi::OsStrExt;
        fs::create_dir_all(root.join("gone")).unwrap();
        fs::write(root.join("gone/a"), "a").unwrap();
        fs::create_dir_all(root.join("opaque")).unwrap();
        fs::write(root.join("opaque/lower"), "lower").unwrap();
        fs::write(root.join("original"), noise(1, 5000)).unwrap();
        fs::hard_link(root.join("original"), root.join("linked")).unwrap();
        fs::write(root.join(std::ffi::OsStr::from_bytes(b"latin-\xe9")), "x").unwrap();
        run("mknod", &[text(&root.join("null")), "c", "1", "3"]);
        run("chown", &["1234:5678", text(&root.join("original"))]);
        run("setfattr", &["-n", "user.note", "-v", "kept", text(&root.join("original"))]);
    });
    packer.layer("odd", |root| {
        fs::remove_dir_all(root.join("gone")).unwrap();
        fs::remove_dir_all(root.join("opaque")).unwrap();
        fs::create_dir(root.join("opaque")).unwrap();
        fs::write(root.join("opaque/upper"), "upper").unwrap();
        // umoci compares whole seconds; a folder that looks unchanged is left out of the layer, which then implies it.
        run("touch", &["-d", "2001-02-03", text(&root.join("opaque")), text(root)]);
    });
    let shelf = Shelf::new();
    let image = shelf.pull(&packer.reference("odd")).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let lower = listing(&image.layers[0].path);
    let line = |list: &str, name: &str| {
        let hit = list.lines().find(|line| line.ends_with(name)).map(str::to_owned);
        hit.unwrap_or_else(|| panic!("{name} isn't in\n{list}"))
    };
    assert!(line(&lower, "/null").starts_with("crw"));
    assert!(line(&lower, "/original").contains("1234/5678"));
    assert!(line(&lower, "/linked").contains("1234/5678"));
    assert!(lower.contains("latin-"));
    let upper = listing(&image.layers[1].path);
    assert!(line(&upper, "/gone").starts_with('c'), "{upper}");
    assert!(upper.contains("/opaque/upper"));
    shelf.assert_clean();
}

#[test]
fn a_layout_without_the_name_says_which_names_it_has() {
    if !has("a_layout_without_the_name", &["umoci"]) {
        return;
    }
    let packer = Packer::new();
    small_image(&packer, "one", 1);
    let shelf = Shelf::new();
    let error = shelf.pull(&packer.reference("two")).unwrap_err();
    assert!(chain(&error).contains("holds no image named \"two\"; it holds: one"), "{}", chain(&error));
    let folder = packer.folder.path();
    let error = shelf.pull(&format!("oci:{}", text(folder)).parse().unwrap()).unwrap_err();
    assert!(chain(&error).contains("oci-layout"), "{}", chain(&error));
    packer.image("two");
    let error = shelf.pull(&format!("oci:{}", text(&packer.layout)).parse().unwrap()).unwrap_err();
    assert!(chain(&error).contains("several images"), "{}", chain(&error));
    shelf.assert_empty();
}

#[test]
fn a_changed_layout_is_read_again_and_shared_layers_are_kept_once() {
    if !has("a_changed_layout", &["umoci"]) {
        return;
    }
    let packer = Packer::new();
    small_image(&packer, "one", 2);
    let shelf = Shelf::new();
    let first = shelf.pull(&packer.reference("one")).unwrap();
    packer.layer("one", |root| fs::write(root.join("more"), "more").unwrap());
    let second = shelf.pull(&packer.reference("one")).unwrap();
    assert_eq!(second.layers.len(), 3);
    assert_eq!(second.layers[0].path, first.layers[0].path);
    assert_eq!(names(&shelf.store.root().join("layers")).len(), 3);
    assert_eq!(shelf.store.list().unwrap().len(), 1);
}

#[test]
fn removing_and_pruning_spare_what_is_held_or_shared() {
    if !has("removing_and_pruning", &["umoci"]) {
        return;
    }
    let packer = Packer::new();
    small_image(&packer, "one", 2);
    run("umoci", &["tag", "--image", &packer.name("one"), "two"]);
    packer.layer("two", |root| fs::write(root.join("more"), "more").unwrap());
    let shelf = Shelf::new();
    let store = &shelf.store;
    let (one, two) = (packer.reference("one"), packer.reference("two"));
    let held = shelf.pull(&one).unwrap();
    drop(shelf.pull(&two).unwrap());
    assert!(store.remove(&one).unwrap_err().to_string().ends_with("is in use"));
    let listed = store.list().unwrap();
    assert_eq!(listed.iter().filter(|image| image.in_use).count(), 1);
    let freed = store.prune(true).unwrap();
    assert_eq!((freed.images.len(), freed.layers), (1, 1));
    assert!(store.get(&one).unwrap().is_some());
    assert!(store.get(&two).unwrap().is_none());
    drop(held);
    let freed = store.remove(&one).unwrap().unwrap();
    assert_eq!(freed.layers, 2);
    assert!(store.remove(&one).unwrap().is_none());
    assert_eq!(store.usage().unwrap().bytes, 0);
    shelf.assert_empty();
    assert!(names(&store.root().join("manifests")).is_empty());
    assert!(names(&store.root().join("configs")).is_empty());
}

#[test]
fn the_quota_lets_the_longest_unused_image_go_and_refuses_what_cannot_fit() {
    if !has("the_quota", &["umoci"]) {
        return;
    }
    let packer = Packer::new();
    for (seed, tag) in ["a", "b", "c"].into_iter().enumerate() {
        packer.image(tag);
        packer.layer(tag, |root| fs::write(root.join("x"), noise(seed as u64 + 7, 400_000)).unwrap());
    }
    let shelf = Shelf::with(StoreOptions { quota: 1_000_000, ..StoreOptions::default() });
    let pull = |tag| shelf.pull(&packer.reference(tag)).unwrap();
    drop(pull("a"));
    drop(pull("b"));
    std::thread::sleep(std::time::Duration::from_millis(20));
    drop(shelf.store.get(&packer.reference("a")).unwrap());
    drop(pull("c"));
    assert!(shelf.store.get(&packer.reference("b")).unwrap().is_none(), "b was used longest ago");
    let _a = shelf.store.get(&packer.reference("a")).unwrap().unwrap();
    let _c = shelf.store.get(&packer.reference("c")).unwrap().unwrap();
    let error = chain(&shelf.pull(&packer.reference("b")).unwrap_err());
    assert!(error.contains("of the store's quota of 1000000 bytes"), "{error}");
    shelf.assert_clean();
    assert_eq!(names(&shelf.store.root().join("layers")).len(), 2);
}

#[test]
fn a_store_of_another_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("version"), "2\n").unwrap();
    let error = image::Store::open(folder.path(), StoreOptions::default()).unwrap_err();
    assert!(error.to_string().contains("of version 2"), "{error}");
}
