//! `cargo +nightly fuzz run version` in `crates/evidence`; what it does is `evidence::fuzzing::version`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evidence::fuzzing::version(bytes));
