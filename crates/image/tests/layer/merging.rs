//! Merging against a model of overlayfs that looks names up from the top down.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use image::layer::{MergeError, merge};
use proptest::prelude::*;

use crate::archive::{Archive, Header, Image, Seen};
use crate::properties::{layer, operations};

type Tree = BTreeMap<Vec<u8>, Seen>;

fn has(seen: &Seen, mark: &str) -> bool {
    seen.xattrs.iter().any(|(name, _)| name == mark)
}

fn without_marks(seen: &Seen) -> Seen {
    let mut seen = seen.clone();
    seen.xattrs.retain(|(name, _)| !name.starts_with("trusted."));
    // Merging drops names, and with them links.
    seen.links = 0;
    seen
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// What the layers, bottom first, show together.
fn overlay(layers: &[Tree]) -> Tree {
    let mut shown = Tree::new();
    let stack: Vec<&Tree> = layers.iter().rev().collect();
    show(&stack, b"", &mut shown);
    shown
}

/// Shows a folder that is one in each of these layers, uppermost first.
fn show(stack: &[&Tree], path: &[u8], shown: &mut Tree) {
    let described = stack.iter().map(|layer| &layer[path]).find(|seen| !has(seen, "trusted.vimana.implied"));
    shown.insert(path.to_vec(), without_marks(described.unwrap_or(&stack[0][path])));
    let mut names = BTreeSet::new();
    for layer in stack {
        for other in layer.keys() {
            let below =
                if path.is_empty() { Some(&other[..]) } else { other.strip_prefix(&join(path, b"")[..]) };
            if let Some(name) = below.filter(|name| !name.is_empty() && !name.contains(&b'/')) {
                names.insert(name.to_vec());
            }
        }
    }
    for name in names {
        let child = join(path, &name);
        let mut folders = Vec::new();
        for layer in stack {
            let Some(seen) = layer.get(&child) else { continue };
            if seen.kind == "directory" {
                folders.push(*layer);
                if has(seen, "trusted.overlay.opaque") {
                    break;
                }
            } else {
                let whiteout = seen.kind == "char" && seen.content == b"0:0";
                if folders.is_empty() && !whiteout {
                    shown.insert(child.clone(), without_marks(seen));
                }
                break;
            }
        }
        if !folders.is_empty() {
            show(&folders, &child, shown);
        }
    }
}

fn merged(images: &[&Image], bottom: bool) -> Image {
    let files: Vec<File> = images.iter().map(|image| image.file.try_clone().unwrap()).collect();
    let mut file = tempfile::tempfile().unwrap();
    let layer = merge(&files, &mut file, bottom).unwrap();
    Image { file, layer }
}

fn assert_same(ours: &Tree, expected: &Tree) {
    let names = |tree: &Tree| -> Vec<String> {
        tree.iter().map(|(path, seen)| format!("{} {}", String::from_utf8_lossy(path), seen.kind)).collect()
    };
    assert_eq!(names(ours), names(expected));
    for (path, seen) in expected {
        assert!(&ours[path] == seen, "{}", String::from_utf8_lossy(path));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_merge_shows_what_its_layers_show(
        layers in proptest::collection::vec(operations(), 1..5),
        split in any::<proptest::sample::Index>(),
    ) {
        let images: Vec<Image> = layers.iter().map(|operations| layer(operations)).collect();
        let images: Vec<&Image> = images.iter().collect();
        let trees: Vec<Tree> = images.iter().map(|image| image.seen()).collect();
        let expected = overlay(&trees);

        let whole = merged(&images, true);
        let plain: Tree = whole.seen().iter().map(|(path, seen)| (path.clone(), without_marks(seen))).collect();
        assert_same(&plain, &expected);
        prop_assert!(merged(&images, true).bytes() == whole.bytes());

        // The upper ones merged over the lower ones, and the lower ones merged below the upper ones.
        let at = split.index(images.len());
        let upper = merged(&images[at..], false).seen();
        let mut parts = trees[..at].to_vec();
        parts.push(upper);
        assert_same(&overlay(&parts), &expected);
        if at > 0 {
            let mut parts = vec![merged(&images[..at], true).seen()];
            parts.extend_from_slice(&trees[at..]);
            assert_same(&overlay(&parts), &expected);
        }
        // Merging what is merged changes nothing more.
        let again = merged(&[&whole], true).seen();
        let again: Tree = again.iter().map(|(path, seen)| (path.clone(), without_marks(seen))).collect();
        assert_same(&again, &expected);
    }
}

#[test]
fn what_nobody_sees_any_more_is_not_copied() {
    let lower =
        Archive::default().file("big", &crate::archive::noise(4 << 20, 1)).file("small", b"1").converted();
    let upper = Archive::default().file(".wh.big", b"").converted();
    let both = merged(&[&lower, &upper], true);
    assert_eq!(both.paths(), ["small"]);
    assert_eq!(both.layer.unpacked_bytes, 1);
    assert!(both.layer.total_bytes < 64 << 10);
}

#[test]
fn an_implied_folder_takes_the_attributes_from_below() {
    let lower =
        Archive::default().raw(Header { mode: 0o1777, uid: 9, ..Header::new(b'5', b"tmp") }, b"").converted();
    let upper = Archive::default().file("tmp/new", b"x").converted();
    let both = merged(&[&lower, &upper], true);
    let tmp = both.entry("tmp");
    assert_eq!((tmp.mode, tmp.uid, tmp.is_implied()), (0o1777, 9, false));
    assert_eq!(both.content("tmp/new"), b"x");
    // Where nothing below is known yet, it stays implied.
    assert!(merged(&[&upper], false).entry("tmp").is_implied());
}

#[test]
fn hard_links_stay_links() {
    let lower = Archive::default().file("a", b"data").hard_link("b", "a").hard_link("c", "a").converted();
    let upper = Archive::default().file("a", b"new").converted();
    let both = merged(&[&lower, &upper], true);
    assert_eq!(both.entry("b").inode, both.entry("c").inode);
    assert_eq!(both.entry("b").links, 2);
    assert_eq!(both.content("a"), b"new");
}

#[test]
fn merging_nothing_is_refused() {
    let mut out = tempfile::tempfile().unwrap();
    assert!(matches!(merge(&[], &mut out, true), Err(MergeError::Nothing)));
}

#[test]
fn a_damaged_layer_is_named() {
    let good = Archive::default().file("a", b"x").converted();
    let mut out = tempfile::tempfile().unwrap();
    let result = merge(&[good.file, tempfile::tempfile().unwrap()], &mut out, true);
    assert!(matches!(result, Err(MergeError::Layer { layer: 1, .. })), "{result:?}");
}
