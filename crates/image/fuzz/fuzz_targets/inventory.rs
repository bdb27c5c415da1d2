//! Any bytes are either a list of packages or an error, for every format; the first byte chooses which.
//!
//! `cargo +nightly fuzz run inventory` in `crates/image`.

#![no_main]

use image::inventory::{Distribution, Format};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let format = Format::ALL[usize::from(*first) % Format::ALL.len()];
    let _ = format.parse(rest);
    let _ = format.read(rest, rest, rest.len() as u64);
    let _ = Format::of(rest, 0o755, 1 << 20);
    if let Some(known) = Distribution::parse(rest) {
        let _ = known.ecosystem(format.kind());
    }
});
