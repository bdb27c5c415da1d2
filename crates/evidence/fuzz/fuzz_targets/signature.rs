//! `cargo +nightly fuzz run signature` in `crates/evidence`; what it does is `evidence::fuzzing::signature`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evidence::fuzzing::signature(bytes));
