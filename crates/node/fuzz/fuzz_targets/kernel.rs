//! `cargo +nightly fuzz run kernel` in `crates/node`; what it does is `hypercore::fuzzing::kernel`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hypercore::fuzzing::kernel(bytes));
