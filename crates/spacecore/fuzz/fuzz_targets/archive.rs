//! `cargo +nightly fuzz run archive` in `crates/spacecore`; what it does is `spacecore::fuzzing::archive`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| spacecore::fuzzing::archive(bytes));
