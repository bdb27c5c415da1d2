//! What must hold between the keys of a manifest: what can be read one by one may still make no sense together.

mod hardware;
mod operation;
mod trust;
mod workload;

use crate::decode::Context;
use crate::diagnostic::Diagnostics;
use crate::model::Manifest;
pub(crate) use hardware::networking;
pub(crate) use workload::wrong_destination;

/// Checks a manifest that was built or changed by a program; one that [`crate::parse`] gave is already checked.
///
/// The diagnostics have keys, but no places.
pub fn validate(manifest: &Manifest) -> Result<(), Diagnostics> {
    let mut context = Context::new(None);
    check(manifest, &mut context);
    context.finish()
}

/// Checks a manifest and reports to the context, which knows the places.
pub(crate) fn check(manifest: &Manifest, context: &mut Context<'_>) {
    workload::check(manifest, context);
    hardware::check(&manifest.spec, context);
    operation::check(&manifest.spec, context);
    trust::check(&manifest.spec, context);
}

/// Says why a text isn't a DNS label (RFC 1123); `None` if it is one.
pub(crate) fn not_a_dns_label(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let reason = if text.is_empty() {
        "it is empty".to_owned()
    } else if text.len() > 63 {
        format!("it has {} characters, and at most 63 are allowed", text.chars().count())
    } else if let Some(wrong) = text.chars().find(|c| !allowed(*c)) {
        format!("{wrong:?} isn't one of a-z, 0-9 and -")
    } else if text.starts_with('-') || text.ends_with('-') {
        "it starts or ends with -".to_owned()
    } else {
        return None;
    };
    Some(reason)
}

/// Makes a DNS label out of a text, for a suggestion.
fn like_a_dns_label(text: &str) -> Option<String> {
    let label: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(63)
        .collect();
    let label = label.trim_matches('-');
    (!label.is_empty()).then(|| format!("for example {label:?}"))
}
