//! `cargo +nightly fuzz run channel` in `crates/spacecore`; what it does is `spacecore::fuzzing::channel`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| spacecore::fuzzing::channel(bytes));
