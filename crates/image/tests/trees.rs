//! Layers as folder trees, looked at by other programs and through real overlays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use image::{StoreOptions, TreeError};

mod support;
use support::*;

/// What a tree shows of one path: kind and mode, owner, time, device, size, target or content, xattrs.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    device: u64,
    links: u64,
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut all = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let content = match metadata.file_type() {
            kind if kind.is_file() => fs::read(&path).unwrap(),
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
            _ => Vec::new(),
        };
        let seen = Seen {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            // A whiteout has no time that anybody sees.
            mtime: if metadata.mode() == 0o020_000 { 0 } else { metadata.mtime() },
            device: metadata.rdev(),
            links: if metadata.is_dir() { 0 } else { metadata.nlink() },
            content,
            xattrs: xattrs(&path),
        };
        all.insert(path.strip_prefix(root).unwrap().to_owned(), seen);
    }
    all
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .filter(|name| !name.starts_with(b"trusted.vimana."))
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

/// Packs two layers with one of everything.
fn odd_image(packer: &Packer) {
    packer.image("odd");
    packer.layer("odd", |root| {
        for folder in ["gone", "opaque", "deep/er/est", "closed"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("gone/a"), "a").unwrap();
        fs::write(root.join("opaque/lower"), "lower").unwrap();
        fs::write(root.join("deep/er/est/file"), noise(3, 300_001)).unwrap();
        fs::write(root.join("empty"), "").unwrap();
        fs::write(root.join("original"), noise(1, 5000)).unwrap();
        fs::hard_link(root.join("original"), root.join("deep/linked")).unwrap();
        fs::hard_link(root.join("original"), root.join("zz")).unwrap();
        fs::write(root.join(OsStr::from_bytes(b"latin-\xe9")), "x").unwrap();
        let sparse = fs::File::create(root.join("sparse")).unwrap();
        sparse.set_len(3 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (2 << 20) + 7).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        run("mknod", &[text(&root.join("null")), "c", "1", "3"]);
        run("mkfifo", &["-m", "0622", text(&root.join("pipe"))]);
        run("chown", &["-h", "1234:5678", text(&root.join("original")), text(&root.join("link"))]);
        run("chmod", &["6755", text(&root.join("original"))]);
        run("chmod", &["1777", text(&root.join("deep"))]);
        run("chmod", &["0500", text(&root.join("closed"))]);
        run("setfattr", &["-n", "user.note", "-v", "kept", text(&root.join("original"))]);
        let ping = "0x0100000200200000000000000000000000000000";
        run("setfattr", &["-n", "security.capability", "-v", ping, text(&root.join("empty"))]);
        run("touch", &["-hd", "1999-12-31T23:59:59Z", text(&root.join("link")), text(&root.join("closed"))]);
    });
    packer.layer("odd", |root| {
        fs::remove_dir_all(root.join("gone")).unwrap();
        fs::remove_dir_all(root.join("opaque")).unwrap();
        fs::create_dir(root.join("opaque")).unwrap();
        fs::write(root.join("opaque/upper"), "upper").unwrap();
        fs::write(root.join("deep/er/new"), "new").unwrap();
        let changed = ["opaque", "deep", "deep/er", ""].map(|name| root.join(name));
        let mut touch = vec!["-d", "2001-02-03"];
        touch.extend(changed.iter().map(|path| text(path)));
        run("touch", &touch);
    });
}

#[test]
fn a_tree_is_what_another_program_unpacks_from_the_same_layer() {
    let test = "a_tree_is_what_another_program_unpacks";
    if !has(test, &["umoci", "unsquashfs", "mknod", "setfattr"]) || !is_root(test) {
        return;
    }
    let packer = Packer::new();
    odd_image(&packer);
    let shelf = Shelf::new();
    let image = shelf.pull(&packer.reference("odd")).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let trees = shelf.store.trees(&image).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(trees.len(), image.layers.len());
    for (layer, tree) in image.layers.iter().zip(&trees) {
        let other = packer.folder.path().join(layer.digest.short());
        run("unsquashfs", &["-q", "-n", "-d", text(&other), text(&layer.path)]);
        let (mine, theirs) = (look(tree), look(&other));
        assert_eq!(mine.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        for (path, seen) in &mine {
            assert!(seen == &theirs[path], "{}: {seen:.0?}\n{:.0?}", path.display(), theirs[path]);
        }
    }
    let bottom = look(&trees[0]);
    assert_eq!(bottom[Path::new("original")].mode & 0o7777, 0o6755);
    assert_eq!(bottom[Path::new("original")].links, 3);
    assert!(bottom[Path::new("empty")].xattrs.contains_key(b"security.capability".as_slice()));
    assert!(fs::metadata(trees[0].join("sparse")).unwrap().blocks() * 512 < 1 << 20, "holes stay holes");
    for folder in trees[0].ancestors().skip(1).take(4) {
        let mode = fs::metadata(folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is open to others", folder.display());
    }
    shelf.assert_clean();
}

#[test]
fn an_overlay_of_the_trees_shows_the_image() {
    let test = "an_overlay_of_the_trees";
    if !has(test, &["umoci", "mount", "umount", "setfattr"]) || !is_root(test) {
        return;
    }
    let packer = Packer::new();
    odd_image(&packer);
    let shelf = Shelf::new();
    let image = shelf.pull(&packer.reference("odd")).unwrap();
    let trees = shelf.store.trees(&image).unwrap();
    let at = packer.folder.path().join("mounted");
    fs::create_dir(&at).unwrap();
    let mut lower: Vec<&str> = trees.iter().rev().map(|tree| text(tree)).collect();
    let nothing = packer.folder.path().join("nothing");
    fs::create_dir(&nothing).unwrap();
    // A read-only overlay has two lower folders at least.
    lower.push(text(&nothing));
    let options = format!("ro,lowerdir={}", lower.join(":"));
    run("mount", &["-t", "overlay", "overlay", "-o", &options, text(&at)]);
    let seen = look(&at);
    run("umount", &[text(&at)]);
    let has = |path: &str| seen.contains_key(Path::new(path));
    assert!(!has("gone") && !has("opaque/lower") && has("opaque/upper") && has("deep/er/est/file"));
    assert_eq!(seen[Path::new("deep/er/new")].content, b"new");
    assert_eq!(seen[Path::new("link")].content, b"/etc/passwd");
}

#[test]
fn trees_are_made_once_counted_and_go_with_their_layers() {
    if !has("trees_are_made_once", &["umoci"]) {
        return;
    }
    let packer = Packer::new();
    small_image(&packer, "one", 3);
    let shelf = Shelf::new();
    let image = shelf.pull(&packer.reference("one")).unwrap();
    let before = shelf.store.usage().unwrap();
    assert_eq!(before.tree_bytes, 0);
    let all: Vec<Vec<PathBuf>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| shelf.store.trees(&image).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|trees| trees == &all[0]));
    let inodes = |trees: &[PathBuf]| -> Vec<u64> {
        trees.iter().map(|tree| fs::metadata(tree).unwrap().ino()).collect()
    };
    let first = inodes(&all[0]);
    assert_eq!(inodes(&shelf.store.trees(&image).unwrap()), first, "nothing is made again");
    for (number, tree) in all[0].iter().enumerate() {
        let name = format!("file-{number}");
        assert_eq!(fs::read(tree.join(name)).unwrap(), noise(number as u64, 40_000 + number * 1000));
    }
    let usage = shelf.store.usage().unwrap();
    assert!(usage.tree_bytes > 120_000 && usage.bytes == before.bytes + usage.tree_bytes);
    // After another boot nobody knows what of a tree reached the disk.
    let tree = all[0][0].parent().unwrap();
    fs::write(tree.join("root/file-0"), "half of it").unwrap();
    fs::rename(tree, format!("{}0", text(tree))).unwrap();
    let again = shelf.store.trees(&image).unwrap();
    assert_eq!(again, all[0]);
    assert_eq!(fs::read(again[0].join("file-0")).unwrap(), noise(0, 40_000));
    assert_eq!(shelf.store.usage().unwrap(), usage, "the old one is gone");
    shelf.assert_clean();
    drop(image);
    let freed = shelf.store.remove(&packer.reference("one")).unwrap().unwrap();
    assert_eq!((freed.layers, freed.bytes), (3, usage.bytes));
    shelf.assert_empty();
}

#[test]
fn trees_keep_to_the_quota() {
    if !has("trees_keep_to_the_quota", &["umoci"]) {
        return;
    }
    let packer = Packer::new();
    packer.image("zeros");
    // What compresses well takes little as a layer, and all of its size as a tree.
    packer.layer("zeros", |root| fs::write(root.join("x"), b"abc".repeat(1_000_000)).unwrap());
    let shelf = Shelf::with(StoreOptions { quota: 1_000_000, ..StoreOptions::default() });
    let image = shelf.pull(&packer.reference("zeros")).unwrap();
    let error = shelf.store.trees(&image).unwrap_err();
    assert!(matches!(error, TreeError::Store(_)) && error.to_string().contains("quota"), "{error}");
    shelf.assert_clean();
}

#[test]
fn a_layer_that_is_nested_too_deep_is_refused_and_can_be_removed() {
    if !has("a_layer_that_is_nested_too_deep", &["umoci"]) {
        return;
    }
    let packer = Packer::new();
    packer.image("deep");
    packer.layer("deep", |root| fs::create_dir_all(root.join("d/".repeat(300))).unwrap());
    let shelf = Shelf::new();
    let image = shelf.pull(&packer.reference("deep")).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let error = chain(&shelf.store.trees(&image).unwrap_err());
    assert!(error.contains("more than 256 folders deep"), "{error}");
    shelf.assert_clean();
    drop(image);
    shelf.store.remove(&packer.reference("deep")).unwrap().unwrap();
    shelf.assert_empty();
}
