//! Pulls an image into a fresh store and times its trees, made and found: `tree_speed REFERENCE [FOLDER]`.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::time::Instant;

use image::{PullOptions, Store, StoreOptions};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let reference = arguments.next().expect("a reference").parse().unwrap();
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = parent.join(format!("tree-speed-{}", std::process::id()));
    let store = Store::open(&folder, StoreOptions::default()).unwrap();
    let begun = Instant::now();
    let image = store.pull(&reference, &PullOptions::default(), &|_| {}).unwrap();
    let entries: u64 = image.layers.iter().map(|layer| layer.entries).sum();
    let bytes: u64 = image.layers.iter().map(|layer| layer.unpacked_bytes).sum();
    println!(
        "pulled in {:?}: {} layers, {entries} entries, {bytes} bytes",
        begun.elapsed(),
        image.layers.len()
    );
    let begun = Instant::now();
    store.trees(&image).unwrap();
    println!("made in {:?}", begun.elapsed());
    let begun = Instant::now();
    for _ in 0..1000 {
        store.trees(&image).unwrap();
    }
    println!("found in {:?}", begun.elapsed() / 1000);
    drop(image);
    std::fs::remove_dir_all(&folder).unwrap();
}
