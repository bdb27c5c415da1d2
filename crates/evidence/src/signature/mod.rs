//! Signatures over images, as cosign and Sigstore write them, against public keys and against identities.
//!
//! Two forms are read. [`simple`] is cosign's first: a small JSON text that names the image's digest, and a signature over
//! it. [`bundle`] is Sigstore's bundle of version 0.3: an in-toto statement in an envelope, or a signature over the
//! manifest itself. Against a key nothing else is looked at; a signature of an identity is [`keyless`].

pub mod bundle;
mod key;
pub mod keyless;
pub mod simple;

pub use key::{KeyError, PublicKey};
pub use keyless::{Identity, KeylessError, Signer, TrustedRoot, TrustedRootError};

/// Why a signature doesn't vouch for an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// It isn't of its form.
    #[error("the signature is damaged: {what}")]
    Form {
        /// What is wrong with it.
        what: &'static str,
    },
    /// It was made by another key, or over other bytes.
    #[error("the signature isn't of this key")]
    Key,
    /// It is a proper one, of another image.
    #[error("the signature is of this key, but for {found}")]
    Digest {
        /// The digest that it vouches for.
        found: String,
    },
    /// It is a proper one, of something else than an image.
    #[error("what is signed is of type {found:?}, which doesn't vouch for an image")]
    Type {
        /// What it says it is.
        found: String,
    },
    /// It is an identity's, and something about that isn't proper.
    #[error(transparent)]
    Keyless(#[from] KeylessError),
    /// It is of a kind that isn't judged.
    #[error("{what}")]
    Unsupported {
        /// What is in the way.
        what: &'static str,
    },
}

const fn form(what: &'static str) -> SignatureError {
    SignatureError::Form { what }
}

/// A stranger's word, short enough for an error.
fn shortened(text: &str) -> String {
    text.chars().take(160).collect()
}

#[cfg(test)]
mod tests;
