//! Converts a tar file to a layer and prints how fast that was.
//!
//! `cargo run --release -p image --example convert_speed -- LAYER.tar [OUT.squashfs]`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::File;
use std::time::Instant;

use image::layer::{Limits, convert};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let path = arguments.next().ok_or("usage: convert_speed LAYER.tar [OUT.squashfs]")?;
    let tar = File::open(&path)?;
    let bytes = tar.metadata()?.len();
    let out = arguments.next().unwrap_or_else(|| "/dev/shm/convert_speed.squashfs".into());
    let mut out = File::options().read(true).write(true).create(true).truncate(true).open(out)?;
    let begin = Instant::now();
    let layer = convert(tar, &mut out, &Limits::default())?;
    let seconds = begin.elapsed().as_secs_f64();
    let megabytes = bytes as f64 / 1e6;
    println!(
        "{megabytes:.1} MB of tar in {seconds:.3} s: {:.0} MB/s; {:.1} MB of image, {} entries, root {}",
        megabytes / seconds,
        layer.total_bytes as f64 / 1e6,
        layer.entries,
        layer.verity.root_hex(),
    );
    Ok(())
}
