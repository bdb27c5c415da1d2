//! cosign's simple signing (cosign, `specs/SIGNATURE_SPEC.md`; containers-signature(5)).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::{PublicKey, SignatureError, form, shortened};

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
    let signature = BASE64_STANDARD.decode(signature.trim()).map_err(|_| form("it isn't proper base64"))?;
    if !key.verifies(payload, &signature) {
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
