//! `cargo +nightly fuzz run document` in `crates/image`; what it does is `image::fuzzing::document`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| image::fuzzing::document(bytes));
