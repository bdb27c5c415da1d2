//! What an operator allows to run on a machine: `policy.toml`.
//!
//! ```
//! let source = "[registries]\nallowed = [\"ghcr.io/acme\"]\n\n[scan]\nadvisories = \"/srv/osv\"\n";
//! let policy = hac::policy::parse(source)?;
//! assert!(policy.registries.allows("ghcr.io/acme/app:1"));
//! assert!(!policy.registries.allows("ghcr.io/acmeister/app:1"));
//! assert_eq!(policy.scan.threshold, hac::policy::Severity::High);
//! # Ok::<(), hac::Diagnostics>(())
//! ```

mod ignored;
mod pattern;

use crate::decode::{Context, Decode};
use crate::diagnostic::{Diagnostics, LineIndex};
use crate::tree::{self, Format};
use crate::words::words;

pub use ignored::{Date, Ignored, IgnoredError};
pub use pattern::{Pattern, PatternError};

/// What is allowed to run. The default allows everything, and looks at nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Where images may come from.
    pub registries: Registries,
    /// Who must have signed them.
    pub signatures: Signatures,
    /// What may be known against what is in them.
    pub scan: Scan,
}

/// Where images may come from: `[registries]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registries {
    /// Starts of the names of images that may run. Without it, all may; with an empty list, none.
    pub allowed: Option<Vec<Pattern>>,
    /// Whether an image must be named by its digest.
    pub require_digest: bool,
}

/// Who must have signed images: `[signatures]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signatures {
    /// Files with public keys (PEM), any of which will do; relative ones from the policy's folder.
    pub keys: Vec<String>,
    /// The file that says which certificate authorities and logs are trusted with identities, as Sigstore hands it out.
    pub trusted_root: Option<String>,
    /// Who may have signed without a key of their own, any of whom will do.
    pub identities: Vec<Identity>,
    /// Starts of the names of images that must be signed. Without it, all must if there are keys.
    pub required_for: Option<Vec<Pattern>>,
}

/// Who may sign by an identity: an entry of `signatures.identities`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// An address of mail, or a URI such as a workflow's; with `*` as its last character, the start of one.
    pub identity: String,
    /// Who must have looked at it: the URL of an OpenID provider.
    pub issuer: String,
}

/// What may be known against what is in images: `[scan]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The folder of advisories, relative from the policy's folder. With it, every image is scanned.
    pub advisories: Option<String>,
    /// From which severity on a finding keeps an image from running.
    pub threshold: Severity,
    /// The severity that an advisory counts as which names none.
    pub unrated: Severity,
    /// Advisories that keep nothing from running.
    pub ignore: Vec<Ignored>,
}

impl Default for Scan {
    fn default() -> Self {
        Self { advisories: None, threshold: Severity::High, unrated: Severity::High, ignore: Vec::new() }
    }
}

words! {
    /// How bad a flaw is, the mildest first.
    pub enum Severity {
        /// Below 4.0 in CVSS.
        Low = "low",
        /// From 4.0.
        Medium = "medium" | "moderate",
        /// From 7.0.
        High = "high",
        /// From 9.0.
        Critical = "critical",
    }
}

impl Registries {
    /// Tells whether an image of this full name may run.
    #[must_use]
    pub fn allows(&self, image: &str) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|pattern| pattern.matches(image)))
    }
}

impl Signatures {
    /// Tells whether an image of this full name must be signed.
    #[must_use]
    pub fn requires(&self, image: &str) -> bool {
        match &self.required_for {
            // Where a name can't be placed, the doubt is the image's.
            Some(patterns) => pattern::climbs(image) || patterns.iter().any(|pattern| pattern.matches(image)),
            None => !self.keys.is_empty() || !self.identities.is_empty(),
        }
    }
}

/// Reads a policy, which is TOML.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn parse(source: &str) -> Result<Policy, Diagnostics> {
    let root = tree::read(source, Format::Toml)
        .map_err(|error| Diagnostics(vec![error.into_diagnostic(&LineIndex::new(source))]))?;
    let mut context = Context::of("the policy", Some(source), other_place);
    let policy = Policy::decode(&root, "", &mut context).unwrap_or_default();
    check(&policy, &mut context);
    context.finish().map(|()| policy)
}

fn check(policy: &Policy, context: &mut Context<'_>) {
    check_identities(&policy.signatures, context);
    if policy.signatures.keys.is_empty() && policy.signatures.identities.is_empty() {
        if context.is_set("signatures.required_for") {
            context.conflict(
                &["signatures.required_for", "signatures.keys"],
                "signatures are required, but there is no key to check them with, and no identity",
                "name the files of public keys: keys = [\"cosign.pub\"]".to_owned(),
            );
        } else if context.is_set("signatures.keys") {
            context.conflict(
                &["signatures.keys"],
                "there is no key in `signatures.keys`, so that nothing would be checked",
                "name a file of a public key, or remove the line".to_owned(),
            );
        }
    }
    if policy.scan.advisories.is_none() {
        for key in ["scan.threshold", "scan.unrated", "scan.ignore"] {
            if context.is_set(key) {
                context.conflict(
                    &[key, "scan.advisories"],
                    format!("`{key}` is set, but there are no advisories to scan with"),
                    "name their folder: advisories = \"/srv/osv\"".to_owned(),
                );
            }
        }
    }
}

fn check_identities(signatures: &Signatures, context: &mut Context<'_>) {
    let (root, list) = ("signatures.trusted_root", "signatures.identities");
    match (&signatures.trusted_root, signatures.identities.is_empty()) {
        (None, false) => context.conflict(
            &[list, root],
            "identities are named, but nobody who is trusted to say whose a signature is",
            "name the file: trusted_root = \"trusted_root.json\"".to_owned(),
        ),
        (Some(_), true) => context.conflict(
            &[root, list],
            "there is a trust root, but no identity that could sign",
            "name one: [[signatures.identities]] with identity and issuer".to_owned(),
        ),
        _ => {}
    }
    for (index, Identity { identity, issuer }) in signatures.identities.iter().enumerate() {
        let key = |key: &str| format!("{list}[{index}].{key}");
        if let Err((wrong, right)) = check_identity(identity) {
            context.conflict(&[&key("identity")], format!("{identity:?} {wrong}"), right.to_owned());
        }
        if issuer.is_empty() || issuer.contains(['*', ' ']) {
            context.conflict(
                &[&key("issuer")],
                "an identity is worth as much as who has looked at it, and that must be said exactly",
                "for example issuer = \"https://token.actions.githubusercontent.com\"".to_owned(),
            );
        }
    }
}

/// Checks who a signer may be: an address of mail, or a URI whose end may be a `*`. That stands for what its owner's alone is: whatever
/// follows a folder of at least one name on a host, or the reference behind an `@`.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn check_identity(identity: &str) -> Result<(), (&'static str, &'static str)> {
    let start = identity.strip_suffix('*').unwrap_or(identity);
    if start.is_empty() || start.contains(['*', ' ']) {
        return Err(("names nobody", "write an address of mail or a URI; a * may stand at its end alone"));
    }
    if start == identity {
        return Ok(());
    }
    let Some((_, rest)) = start.split_once("://") else {
        return Err((
            "means others' too",
            "a * may stand at the end of a URI alone; write the whole address",
        ));
    };
    let path = rest.split_once('@').map_or(rest, |(path, _)| path);
    let names = path.split('/').filter(|name| !name.is_empty()).count();
    let has_reference = rest.contains('@') && !path.ends_with('/');
    match (names, has_reference) {
        // A host and a name on it.
        (2.., false) if rest.ends_with('/') => Ok(()),
        (3.., true) => Ok(()),
        (2.., _) => Err((
            "ends in the midst of a name, and so means others' too",
            "let the * follow a /, or stand behind an @",
        )),
        _ => Err(("means everybody on that host", "name at least one folder before the *")),
    }
}

/// Where a key belongs that stands elsewhere.
fn other_place(key: &str) -> Option<&'static str> {
    let plain = key.replace('-', "_").to_ascii_lowercase();
    let places = [
        "registries.allowed",
        "registries.require_digest",
        "signatures.keys",
        "signatures.trusted_root",
        "signatures.identities",
        "signatures.required_for",
        "scan.advisories",
        "scan.threshold",
        "scan.unrated",
        "scan.ignore",
    ];
    places.into_iter().find(|place| place.rsplit('.').next() == Some(plain.as_str()))
}

#[cfg(test)]
mod tests;
