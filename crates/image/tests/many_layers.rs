//! Images with more layers than a virtual machine mounts, and stores that run full.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use image::{PullError, StoreError};

mod support;
use support::*;

#[test]
fn of_more_than_sixteen_layers_the_lowest_become_one() {
    let test = "of_more_than_sixteen_layers";
    if !has(test, &["umoci", "unsquashfs"]) {
        return;
    }
    let packer = Packer::new();
    packer.image("deep");
    for number in 0..20 {
        packer.layer("deep", |root| {
            fs::write(root.join(format!("file-{number}")), format!("{number}")).unwrap();
            fs::write(root.join("changed"), format!("{number}")).unwrap();
            if number == 2 {
                fs::remove_file(root.join("file-1")).unwrap();
            }
        });
    }
    let shelf = Shelf::new();
    let image = shelf.pull(&packer.reference("deep")).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(image.layers.len(), 16);
    let lowest = listing(&image.layers[0].path);
    for number in [0, 2, 3, 4] {
        assert!(lowest.contains(&format!("/file-{number}")), "{lowest}");
    }
    assert!(!lowest.contains("file-1") && !lowest.contains("file-5"), "{lowest}");
    let again = Shelf::new();
    let same = again.pull(&packer.reference("deep")).unwrap();
    assert_eq!(same.layers[0].verity_root, image.layers[0].verity_root);
    // The layers that became one are nobody's now.
    assert!(again.store.usage().unwrap().unreferenced_bytes > 0);
    let freed = again.store.prune(false).unwrap();
    assert_eq!((freed.images.len(), freed.layers), (0, 5));
    assert_eq!(again.pull(&packer.reference("deep")).unwrap().layers.len(), 16);
    packer.layer("deep", |root| fs::write(root.join("top"), "top").unwrap());
    assert_eq!(again.pull(&packer.reference("deep")).unwrap().layers.len(), 16);
    again.assert_clean();
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    let test = "a_full_disk_is_named";
    if !has(test, &["umoci", "mount", "umount"]) || !is_root(test) {
        return;
    }
    let packer = Packer::new();
    packer.image("big");
    packer.layer("big", |root| fs::write(root.join("x"), noise(5, 6_000_000)).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs", text(folder.path())])
        .status()
        .unwrap();
    if !mounted.success() {
        eprintln!("SKIPPED: {test}: a tmpfs can't be mounted here");
        return;
    }
    let store = image::Store::open(&folder.path().join("store"), image::StoreOptions::default());
    let result =
        store.as_ref().map(|store| store.pull(&packer.reference("big"), &Default::default(), &|_| {}));
    let left = store.as_ref().map(|store| names(&store.root().join("tmp"))).unwrap_or_default();
    run("umount", &[text(folder.path())]);
    let error = result.unwrap().unwrap_err();
    assert!(matches!(error, PullError::Store(StoreError::Full { .. })), "{}", chain(&error));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_layer_that_only_implies_a_folder_keeps_the_folder_as_it_was() {
    let test = "a_layer_that_only_implies_a_folder";
    if !has(test, &["umoci", "unsquashfs", "tar"]) {
        return;
    }
    let packer = Packer::new();
    packer.image("implied");
    packer.layer("implied", |root| {
        use std::os::unix::fs::PermissionsExt;
        fs::create_dir(root.join("tmp")).unwrap();
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    });
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tmp")).unwrap();
    fs::write(folder.path().join("tmp/x"), "x").unwrap();
    let archive = folder.path().join("only-the-file.tar");
    run("tar", &["-C", text(folder.path()), "-cf", text(&archive), "tmp/x"]);
    run("umoci", &["raw", "add-layer", "--image", &packer.name("implied"), text(&archive)]);
    let shelf = Shelf::new();
    let image = shelf.pull(&packer.reference("implied")).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(image.layers.len(), 1, "an overlay of the two would show /tmp as 0755");
    let listing = listing(&image.layers[0].path);
    assert!(
        listing.lines().any(|line| line.starts_with("drwxrwxrwt") && line.ends_with("/tmp")),
        "{listing}"
    );
    assert!(listing.contains("/tmp/x"), "{listing}");
}
