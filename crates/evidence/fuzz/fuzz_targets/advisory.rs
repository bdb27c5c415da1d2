//! Any bytes are either an advisory, which judges any version, or an error.
//!
//! `cargo +nightly fuzz run advisory` in `crates/evidence`.

#![no_main]

use evidence::advisory::{Advisory, scheme};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(advisory)) = Advisory::parse(bytes) else { return };
    for affected in &advisory.affected {
        let scheme = scheme(&affected.ecosystem).expect("others are left out");
        for version in affected.versions.iter().map(String::as_str).chain(["1.0", "", "0~1", &advisory.id]) {
            let verdict = affected.judge(scheme, version);
            assert!(verdict.is_some() || !affected.versions.iter().any(|listed| listed == version));
        }
    }
});
