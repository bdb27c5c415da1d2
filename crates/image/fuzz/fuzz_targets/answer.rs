//! `cargo +nightly fuzz run answer` in `crates/image`; what it does is `image::fuzzing::answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| image::fuzzing::answer(bytes));
