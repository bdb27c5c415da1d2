//! `cargo +nightly fuzz run inventory` in `crates/image`; what it does is `image::fuzzing::inventory`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| image::fuzzing::inventory(bytes));
