//! `cargo +nightly fuzz run policy` in `crates/hac`; what it does is `hac::fuzzing::policy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hac::fuzzing::policy(bytes));
