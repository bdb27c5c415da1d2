//! Sigstore's bundle, version 0.3, signed with a key (sigstore/protobuf-specs, `sigstore_bundle.proto`): a DSSE envelope
//! with an in-toto statement, as cosign attaches it to images, or a signature over the manifest's bytes.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{PublicKey, SignatureError, form, shortened};

/// The media type, less the minor version's suffix.
const MEDIA_TYPES: [&str; 2] =
    ["application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.sigstore.bundle+json;version=0.3"];
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENTS: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
/// The statement by which cosign says that an image is signed.
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Option<Envelope>,
    message_signature: Option<MessageSignature>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageSignature {
    message_digest: Option<MessageDigest>,
    signature: String,
}

#[derive(Deserialize)]
struct MessageDigest {
    algorithm: String,
    digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct Subject {
    digest: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Checks a bundle against a key, and that it vouches for the image with this digest; `manifest` are the bytes that the
/// digest is of.
///
/// # Errors
/// [`SignatureError`]. What is signed is looked at only when the signature is proper.
pub fn verify(key: &PublicKey, bundle: &[u8], digest: &str, manifest: &[u8]) -> Result<(), SignatureError> {
    let bundle: Bundle = serde_json::from_slice(bundle).map_err(|_| form("it isn't a Sigstore bundle"))?;
    if !MEDIA_TYPES.contains(&bundle.media_type.as_str()) {
        return Err(SignatureError::Unsupported {
            what: "the bundle is of another version than 0.3, which is the one that is read",
        });
    }
    if bundle.verification_material.public_key.is_none() {
        return Err(SignatureError::Unsupported {
            what: "it is signed with a certificate of an identity (keyless), which isn't judged here; sign with a key",
        });
    }
    match (bundle.dsse_envelope, bundle.message_signature) {
        (Some(envelope), None) => enveloped(key, &envelope, digest),
        (None, Some(message)) => direct(key, &message, digest, manifest),
        _ => Err(form("it must hold one signature, over an envelope or over a message")),
    }
}

fn enveloped(key: &PublicKey, envelope: &Envelope, digest: &str) -> Result<(), SignatureError> {
    let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| form("it isn't proper base64"));
    let payload = decode(&envelope.payload)?;
    // The envelope's pre-authentication encoding (DSSE, "Protocol").
    let kind = &envelope.payload_type;
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend_from_slice(&payload);
    let [signature] = envelope.signatures.as_slice() else {
        return Err(form("its envelope must have one signature"));
    };
    if !key.verifies(&message, &decode(&signature.sig)?) {
        return Err(SignatureError::Key);
    }
    if kind != PAYLOAD_TYPE {
        return Err(SignatureError::Type { found: shortened(kind) });
    }
    let statement: Statement =
        serde_json::from_slice(&payload).map_err(|_| form("what is signed isn't an in-toto statement"))?;
    if !STATEMENTS.contains(&statement.kind.as_str()) {
        return Err(SignatureError::Type { found: shortened(&statement.kind) });
    }
    if statement.predicate_type != SIGNED {
        return Err(SignatureError::Type { found: shortened(&statement.predicate_type) });
    }
    let subjects = statement.subject.iter().filter_map(|subject| subject.digest.as_ref()).flatten();
    let digests: Vec<String> =
        subjects.filter_map(|(algorithm, hex)| Some(format!("{algorithm}:{}", hex.as_str()?))).collect();
    match digests.iter().any(|found| found == digest) {
        true => Ok(()),
        false => Err(SignatureError::Digest { found: shortened(&digests.join(", ")) }),
    }
}

fn direct(
    key: &PublicKey,
    message: &MessageSignature,
    digest: &str,
    manifest: &[u8],
) -> Result<(), SignatureError> {
    let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| form("it isn't proper base64"));
    let hash = Sha256::digest(manifest);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    if digest != format!("sha256:{hex}") {
        return Err(form("the manifest isn't the one that its digest is of"));
    }
    if !key.verifies(manifest, &decode(&message.signature)?) {
        return Err(SignatureError::Key);
    }
    match &message.message_digest {
        Some(said) if said.algorithm != "SHA2_256" || decode(&said.digest)? != hash.as_slice() => {
            Err(form("the digest that it names isn't that of what is signed"))
        }
        _ => Ok(()),
    }
}
