//! What the fuzz targets of this crate do with any bytes; tests do the same with real inputs that were changed.

use crate::Format;
use crate::import::{Options, import as read_file};

/// A manifest: it survives printing in both formats, or gets errors that can be shown.
pub fn manifest(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    for format in [Format::Toml, Format::Yaml] {
        match crate::parse(source, format) {
            Ok(manifest) => {
                assert!(crate::validate(&manifest).is_ok());
                let toml = crate::to_toml(&manifest);
                assert_eq!(crate::parse(&toml, Format::Toml).as_ref(), Ok(&manifest), "{toml}");
                let yaml = crate::to_yaml(&manifest);
                assert_eq!(crate::parse(&yaml, Format::Yaml).as_ref(), Ok(&manifest), "{yaml}");
            }
            Err(errors) => {
                assert!(!errors.0.is_empty());
                for error in errors.iter() {
                    assert!(error.span.is_some_and(|span| span.end <= source.len()));
                }
                is_shown(&errors, source);
            }
        }
    }
    let _ = crate::explain(source);
}

/// A policy.
pub fn policy(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    match crate::policy::parse(source) {
        Ok(policy) => {
            let _ = (policy.registries.allows(source), policy.signatures.requires(source));
        }
        Err(errors) => is_shown(&errors, source),
    }
}

/// The settings of an image: they survive being packed, and tighten a manifest or contradict it.
pub fn settings(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    match crate::settings::parse(source) {
        Ok(settings) => {
            assert_eq!(crate::settings::parse(&settings.to_line()).as_ref(), Ok(&settings));
            if let Ok(tightened) = settings.tighten(&crate::Manifest::from_image("app")) {
                let again = settings.tighten(&tightened.manifest).map(|again| again.changes);
                assert_eq!(again, Ok(Vec::new()), "{source}");
            }
        }
        Err(errors) => is_shown(&errors, source),
    }
}

/// A compose file or an SDL: manifests that read back, or errors that can be shown.
pub fn import(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    match read_file(source, &Options::default()) {
        Ok(found) => {
            for service in &found.services {
                let toml = found.to_toml(service, "compose.yml");
                let read = crate::parse(&toml, Format::Toml);
                assert!(read.is_ok(), "{toml}\n{:?}", read.err());
            }
        }
        Err(errors) => is_shown(&errors, source),
    }
    let _ = crate::import::dotenv(source);
}

fn is_shown(errors: &crate::Diagnostics, source: &str) {
    assert!(!errors.0.is_empty());
    let shown = errors.render("fuzz", source, false);
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()));
}

#[cfg(test)]
mod tests;
