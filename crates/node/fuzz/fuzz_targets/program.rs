//! `cargo +nightly fuzz run program` in `crates/node`; what it does is `hypercore::fuzzing::program`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hypercore::fuzzing::program(bytes));
