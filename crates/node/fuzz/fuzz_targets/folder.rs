//! `cargo +nightly fuzz run folder` in `crates/node`; what it does is `node::fuzzing::folder`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| node::fuzzing::folder(bytes));
