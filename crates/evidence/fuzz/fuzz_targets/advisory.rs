//! `cargo +nightly fuzz run advisory` in `crates/evidence`; what it does is `evidence::fuzzing::advisory`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evidence::fuzzing::advisory(bytes));
