//! cosign's simple signing (cosign, `specs/SIGNATURE_SPEC.md`; containers-signature(5)).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::keyless::entry::Entry;
use super::keyless::{self, Signed, pem};
use super::{PublicKey, SignatureError, Signer, TrustedRoot, form, shortened};

/// What the text must say it is.
const TYPE: &str = "cosign container image signature";

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Checks a signature (base64) over a payload, and that the payload is about the image with this digest. The name that the
/// image had when it was signed isn't looked at: an image keeps its signature when it is copied.
///
/// # Errors
/// [`SignatureError`]. What a payload says is looked at only when the signature is proper.
pub fn verify(key: &PublicKey, payload: &[u8], signature: &str, digest: &str) -> Result<(), SignatureError> {
    check(key, payload, &decode(signature)?, digest)
}

/// What cosign writes beside the signature of an identity.
#[derive(Debug, Clone, Copy)]
pub struct Keyless<'k> {
    /// The signer's certificate, in PEM: `dev.sigstore.cosign/certificate`.
    pub certificate: &'k str,
    /// The certificates above it, in PEM: `dev.sigstore.cosign/chain`.
    pub chain: Option<&'k str>,
    /// The entry in the transparency log: `dev.sigstore.cosign/bundle`.
    pub bundle: &'k str,
}

/// Checks an identity's signature (base64) over a payload, and that the payload is about the image with this digest. Gives whose
/// it is.
///
/// # Errors
/// [`SignatureError`].
pub fn verify_keyless(
    root: &TrustedRoot,
    payload: &[u8],
    signature: &str,
    material: &Keyless<'_>,
    digest: &str,
) -> Result<Signer, SignatureError> {
    let signature = decode(signature)?;
    let Ok([certificate]) = <[Vec<u8>; 1]>::try_from(pem::certificates(material.certificate)?) else {
        return Err(form("it must have one certificate"));
    };
    let chain = material.chain.filter(|chain| !chain.trim().is_empty());
    let brought = chain.map(pem::certificates).transpose()?.unwrap_or_default();
    let entry = Entry::of_annotation(material.bundle)?;
    let signed = Signed { message: payload, signature: &signature, payload: None };
    let (key, signer) = keyless::check(root, &certificate, &brought, &entry, &signed)?;
    check(&key, payload, &signature, digest).map(|()| signer)
}

fn decode(signature: &str) -> Result<Vec<u8>, SignatureError> {
    BASE64_STANDARD.decode(signature.trim()).map_err(|_| form("it isn't proper base64"))
}

fn check(key: &PublicKey, payload: &[u8], signature: &[u8], digest: &str) -> Result<(), SignatureError> {
    if !key.verifies(payload, signature) {
        return Err(SignatureError::Key);
    }
    let payload: Payload =
        serde_json::from_slice(payload).map_err(|_| form("what is signed isn't a simple signing payload"))?;
    if payload.critical.kind != TYPE {
        return Err(SignatureError::Type { found: shortened(&payload.critical.kind) });
    }
    if payload.critical.image.digest != digest {
        return Err(SignatureError::Digest { found: shortened(&payload.critical.image.digest) });
    }
    Ok(())
}
