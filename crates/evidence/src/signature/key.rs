//! Public keys (PEM: RFC 7468, section 13): ECDSA over P-256 and P-384, and Ed25519.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey,
    VerificationAlgorithm,
};
use sha2::{Digest as _, Sha256};

/// What stands before a P-256 point in its DER form (RFC 5480).
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// What stands before a P-384 point.
const P384: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
    0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];
/// What stands before an Ed25519 key in its DER form (RFC 8410).
const ED: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";
const LONGEST: usize = 64 << 10;

/// A key that signatures are checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    der: Vec<u8>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Ed25519,
}

/// A text that is no key which could be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no public key in it.
    #[error("it holds no public key in PEM form (\"{BEGIN}\")")]
    None,
    /// It holds a private one.
    #[error(
        "it holds a private key; its public one belongs here (cosign public-key, or openssl pkey -pubout)"
    )]
    Private,
    /// Its bytes aren't base64.
    #[error("its public key isn't proper base64")]
    Base64,
    /// It is of a kind that isn't known.
    #[error("its public key is neither ECDSA over P-256 or P-384 nor Ed25519")]
    Kind,
}

impl PublicKey {
    /// Reads a key.
    ///
    /// # Errors
    /// [`KeyError`], in words that follow the file's name.
    pub fn from_pem(text: &str) -> Result<PublicKey, KeyError> {
        let text = text.get(..LONGEST).unwrap_or(text);
        let Some((_, rest)) = text.split_once(BEGIN) else {
            return Err(if text.contains("PRIVATE KEY-----") { KeyError::Private } else { KeyError::None });
        };
        let (body, _) = rest.split_once(END).ok_or(KeyError::None)?;
        let base64: String = body.split_whitespace().collect();
        PublicKey::from_der(BASE64_STANDARD.decode(base64).map_err(|_| KeyError::Base64)?)
    }

    /// Takes a key in DER form, with its algorithm (`SubjectPublicKeyInfo`).
    ///
    /// # Errors
    /// [`KeyError::Kind`].
    pub fn from_der(der: Vec<u8>) -> Result<PublicKey, KeyError> {
        // Points are taken uncompressed alone.
        let is = |prefix: &[u8], point: &[u8], length: usize| {
            let rest = der.strip_prefix(prefix);
            rest.is_some_and(|rest| rest.len() == length && rest.starts_with(point))
        };
        let kind = if is(P256, &[4], 65) {
            Kind::P256
        } else if is(P384, &[4], 97) {
            Kind::P384
        } else if is(ED, &[], 32) {
            Kind::Ed25519
        } else {
            return Err(KeyError::Kind);
        };
        Ok(PublicKey { der, kind })
    }

    /// By what a person tells keys apart: 16 hexadecimal digits of the SHA-256 of its DER form.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        Sha256::digest(&self.der).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Tells whether a signature over a message is of this key: for P-256 in DER form over the SHA-256 of the message, for
    /// P-384 over its SHA-384 or SHA-256, for Ed25519 over the message itself.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let (algorithms, prefix): (&[&dyn VerificationAlgorithm], _) = match self.kind {
            Kind::P256 => (&[&ECDSA_P256_SHA256_ASN1], P256),
            Kind::P384 => (&[&ECDSA_P384_SHA384_ASN1, &ECDSA_P384_SHA256_ASN1], P384),
            Kind::Ed25519 => (&[&ED25519], ED),
        };
        let key = self.der.get(prefix.len()..).unwrap_or_default();
        algorithms
            .iter()
            .any(|algorithm| UnparsedPublicKey::new(*algorithm, key).verify(message, signature).is_ok())
    }
}
