//! Any text is either a manifest that survives printing in both formats, or gets errors that can be shown.
//!
//! `cargo +nightly fuzz run manifest` in `crates/hac`.

#![no_main]

use hac::Format;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    for format in [Format::Toml, Format::Yaml] {
        match hac::parse(source, format) {
            Ok(manifest) => {
                assert!(hac::validate(&manifest).is_ok());
                let toml = hac::to_toml(&manifest);
                assert_eq!(hac::parse(&toml, Format::Toml).as_ref(), Ok(&manifest), "{toml}");
                let yaml = hac::to_yaml(&manifest);
                assert_eq!(hac::parse(&yaml, Format::Yaml).as_ref(), Ok(&manifest), "{yaml}");
            }
            Err(errors) => {
                assert!(!errors.0.is_empty());
                for error in errors.iter() {
                    assert!(error.span.is_some_and(|span| span.end <= source.len()));
                }
                let shown = errors.render("fuzz", source, false);
                assert!(shown.chars().all(|c| c == '\n' || !c.is_control()));
            }
        }
    }
    let _ = hac::explain(source);
});
