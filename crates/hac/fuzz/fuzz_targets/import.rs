//! `cargo +nightly fuzz run import` in `crates/hac`; what it does is `hac::fuzzing::import`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hac::fuzzing::import(bytes));
