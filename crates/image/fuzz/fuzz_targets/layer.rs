//! `cargo +nightly fuzz run layer` in `crates/image`; what it does is `image::fuzzing::layer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| image::fuzzing::layer(bytes));
