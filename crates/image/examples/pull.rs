//! Pulls an image into a store and prints its layers: `pull STORE REFERENCE`.

use std::io::Write;
use std::time::Instant;

use image::{PullOptions, Store, StoreOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, root, reference] = arguments.as_slice() else {
        return Err("usage: pull STORE REFERENCE".into());
    };
    let begun = Instant::now();
    let store = Store::open(root.as_ref(), StoreOptions::from_env()?)?;
    let opened = begun.elapsed();
    let image = store.pull(&reference.parse()?, &PullOptions::default(), &|_| {})?;
    let mut out = std::io::stdout();
    writeln!(out, "opened in {opened:?}, pulled after {:?}", begun.elapsed())?;
    for layer in &image.layers {
        writeln!(out, "{} {} bytes in {}", layer.digest, layer.total_bytes, layer.path.display())?;
    }
    let begun = Instant::now();
    store.get(&reference.parse()?)?;
    writeln!(out, "found again in {:?}", begun.elapsed())?;
    Ok(())
}
