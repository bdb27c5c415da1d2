//! Signatures of identities ("keyless"): by a key that nobody keeps, which an authority has certified for some minutes.
//!
//! What makes such a signature worth something, and each part of it is checked here against a [`TrustedRoot`]:
//!
//! 1. A transparency log has an **entry** about this signature, this certificate and what is signed, and has signed when it
//!    took it ([`entry`]). A bundle also proves that the entry is in the log's tree.
//! 2. At that time the **certificate** was valid, for signing code, and an authority of the trust root vouches for it
//!    ([`certificate`]; the path is built and judged by webpki).
//! 3. A log of certificates **promised** to have it ([`promise`]), if the trust root has such logs.
//! 4. The signature over what is signed is of the certificate's key.
//!
//! Whose certificate it is comes out as a [`Signer`]; whether that one may sign is the caller's to decide. Time comes from the
//! log alone, so the same bytes get the same answer at any time.

mod certificate;
mod der;
pub(super) mod entry;
pub(super) mod pem;
mod promise;
mod root;
mod time;

use std::fmt;

use super::PublicKey;
pub(super) use entry::Entry;
pub use root::{TrustedRoot, TrustedRootError};

/// Who has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// An address of mail, or a URI such as a workflow's.
    pub identity: String,
    /// Who has looked at that: the URL of an OpenID provider.
    pub issuer: String,
    /// When the log took it, in seconds since 1970.
    pub time: u64,
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is in a certificate may be long; what a person is told needn't.
        write!(f, "{} (says {})", super::shortened(&self.identity), super::shortened(&self.issuer))
    }
}

/// Somebody who may sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The identity as it must be; with `*` as its last character, its start.
    pub identity: String,
    /// Who must have looked at it, exactly.
    pub issuer: String,
}

impl Identity {
    /// Tells whether a signer is meant by it.
    #[must_use]
    pub fn covers(&self, signer: &Signer) -> bool {
        let fits = match self.identity.strip_suffix('*') {
            Some(start) => signer.identity.starts_with(start),
            None => signer.identity == self.identity,
        };
        fits && signer.issuer == self.issuer
    }
}

/// Why an identity's signature isn't proper.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeylessError {
    /// The certificate can't be used.
    #[error("the signer's certificate can't be used: {what}")]
    Certificate {
        /// What is wrong with it.
        what: &'static str,
    },
    /// No authority counts at that time.
    #[error("the trust root has no certificate authority for the time of the signature")]
    NoAuthority,
    /// No authority vouches for it.
    #[error(
        "no certificate authority of the trust root vouches for the signer at the time of the signature ({why})"
    )]
    Chain {
        /// Why not.
        why: String,
    },
    /// It isn't known to a log of certificates.
    #[error("no certificate log's promise for the signer's certificate can be believed: {what}")]
    Promise {
        /// What is wrong with them.
        what: &'static str,
    },
    /// The log isn't known.
    #[error("the signature is in the log {log}, which the trust root doesn't have for that time")]
    NoLog {
        /// The log's identifier.
        log: String,
    },
    /// The log's entry can't be believed, or is about something else.
    #[error("the entry in the transparency log doesn't count: {what}")]
    Entry {
        /// What is wrong with it.
        what: &'static str,
    },
}

/// What was signed, and the signature.
pub(super) struct Signed<'s> {
    pub(super) message: &'s [u8],
    pub(super) signature: &'s [u8],
    /// What is in the envelope, if the message is one.
    pub(super) payload: Option<&'s [u8]>,
}

/// Checks everything about a signature but what it is over, and gives the key that it is of, and whose that is. `brought` are
/// other certificates that came along.
pub(super) fn check(
    root: &TrustedRoot,
    certificate: &[u8],
    brought: &[Vec<u8>],
    entry: &Entry,
    signed: &Signed<'_>,
) -> Result<(PublicKey, Signer), KeylessError> {
    let time = entry.check(root, certificate, signed)?;
    let issuer_key = certificate::check(root, certificate, brought, time)?;
    let leaf = certificate::read(certificate)?;
    promise::check(root, leaf.timestamps, &leaf.logged, &issuer_key)?;
    let key = PublicKey::from_der(leaf.key.to_vec()).map_err(|_| KeylessError::Certificate {
        what: "its key is neither ECDSA (P-256, P-384) nor Ed25519",
    })?;
    Ok((key, Signer { identity: leaf.identity, issuer: leaf.issuer, time }))
}

/// Reads bytes as everything that comes with an identity's signature, whatever they are.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_anything(bytes: &[u8]) {
    if let Ok(leaf) = certificate::read(bytes) {
        // What was read is somewhere in it; what logs have signed is one value again.
        assert!(der::only(&leaf.logged, der::SEQUENCE).is_some());
    }
    promise::read_anything(bytes);
    entry::read_anything(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = pem::certificates(text);
        let _ = time::seconds(text);
    }
}

#[cfg(test)]
mod tests;
