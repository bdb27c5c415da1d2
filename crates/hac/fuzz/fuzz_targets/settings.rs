//! `cargo +nightly fuzz run settings` in `crates/hac`; what it does is `hac::fuzzing::settings`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hac::fuzzing::settings(bytes));
