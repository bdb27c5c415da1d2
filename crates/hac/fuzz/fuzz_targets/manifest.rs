//! `cargo +nightly fuzz run manifest` in `crates/hac`; what it does is `hac::fuzzing::manifest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hac::fuzzing::manifest(bytes));
