//! Any text is either a policy or gets errors that can be shown.
//!
//! `cargo +nightly fuzz run policy` in `crates/hac`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    match hac::policy::parse(source) {
        Ok(policy) => {
            let _ = (policy.registries.allows(source), policy.signatures.requires(source));
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            let shown = errors.render("fuzz", source, false);
            assert!(shown.chars().all(|c| c == '\n' || !c.is_control()));
        }
    }
});
