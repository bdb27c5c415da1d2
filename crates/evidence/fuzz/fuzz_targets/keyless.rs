//! `cargo +nightly fuzz run keyless` in `crates/evidence`; what it does is `evidence::fuzzing::keyless`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evidence::fuzzing::keyless(bytes));
