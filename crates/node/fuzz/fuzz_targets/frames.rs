//! `cargo +nightly fuzz run frames` in `crates/node`; what it does is `hypercore::fuzzing::frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hypercore::fuzzing::frames(bytes));
