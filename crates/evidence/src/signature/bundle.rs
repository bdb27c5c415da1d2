//! Sigstore's bundle, version 0.3 (sigstore/protobuf-specs, `sigstore_bundle.proto`): a DSSE envelope with an in-toto
//! statement, as cosign attaches it to images, or a signature over the manifest's bytes.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::keyless::entry::{Entry, InBundle};
use super::keyless::{self, Signed};
use super::{PublicKey, SignatureError, Signer, TrustedRoot, form, shortened};

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
    certificate: Option<Certificate>,
    #[serde(default)]
    // Who signs with a key needs none, so that they are read only for identities.
    tlog_entries: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    raw_bytes: String,
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
    let bundle = read(bundle)?;
    if bundle.verification_material.public_key.is_none() {
        return Err(SignatureError::Unsupported {
            what: "it is signed by an identity (keyless), not with a key",
        });
    }
    Content::of(&bundle, digest, manifest)?.check(key, digest)
}

/// Checks a bundle with an identity's signature, and that it vouches for the image with this digest; `manifest` are the bytes
/// that the digest is of. Gives whose it is.
///
/// # Errors
/// [`SignatureError`].
pub fn verify_keyless(
    root: &TrustedRoot,
    bundle: &[u8],
    digest: &str,
    manifest: &[u8],
) -> Result<Signer, SignatureError> {
    let bundle = read(bundle)?;
    let material = &bundle.verification_material;
    let (None, Some(certificate)) = (&material.public_key, &material.certificate) else {
        return Err(SignatureError::Unsupported { what: "it is signed with a key, not by an identity" });
    };
    let [entry] = material.tlog_entries.as_slice() else {
        return Err(form("it must have one entry of a transparency log"));
    };
    let entry: InBundle = serde_json::from_value(entry.clone())
        .map_err(|_| form("its entry of a transparency log lacks something, or isn't one"))?;
    let content = Content::of(&bundle, digest, manifest)?;
    let payload = match &content.kind {
        Kind::Envelope { payload, .. } => Some(payload.as_slice()),
        Kind::Manifest => None,
    };
    let signed = Signed { message: &content.message, signature: &content.signature, payload };
    let certificate = decode(&certificate.raw_bytes)?;
    let (key, signer) = keyless::check(root, &certificate, &[], &Entry::of_bundle(&entry)?, &signed)?;
    content.check(&key, digest).map(|()| signer)
}

fn read(bundle: &[u8]) -> Result<Bundle, SignatureError> {
    let bundle: Bundle = serde_json::from_slice(bundle).map_err(|_| form("it isn't a Sigstore bundle"))?;
    match MEDIA_TYPES.contains(&bundle.media_type.as_str()) {
        true => Ok(bundle),
        false => Err(SignatureError::Unsupported {
            what: "the bundle is of another version than 0.3, which is the one that is read",
        }),
    }
}

fn decode(text: &str) -> Result<Vec<u8>, SignatureError> {
    BASE64_STANDARD.decode(text).map_err(|_| form("it isn't proper base64"))
}

/// What a bundle's signature is over.
struct Content {
    message: Vec<u8>,
    signature: Vec<u8>,
    kind: Kind,
}

enum Kind {
    /// An envelope: the payload's type, and the payload.
    Envelope { kind: String, payload: Vec<u8> },
    /// The manifest itself.
    Manifest,
}

impl Content {
    fn of(bundle: &Bundle, digest: &str, manifest: &[u8]) -> Result<Self, SignatureError> {
        match (&bundle.dsse_envelope, &bundle.message_signature) {
            (Some(envelope), None) => Self::of_envelope(envelope),
            (None, Some(message)) => Self::of_manifest(message, digest, manifest),
            _ => Err(form("it must hold one signature, over an envelope or over a message")),
        }
    }

    fn of_envelope(envelope: &Envelope) -> Result<Self, SignatureError> {
        let payload = decode(&envelope.payload)?;
        // The envelope's pre-authentication encoding (DSSE, "Protocol").
        let kind = &envelope.payload_type;
        let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
        message.extend_from_slice(&payload);
        let [signature] = envelope.signatures.as_slice() else {
            return Err(form("its envelope must have one signature"));
        };
        let kind = Kind::Envelope { kind: kind.clone(), payload };
        Ok(Self { message, signature: decode(&signature.sig)?, kind })
    }

    fn of_manifest(
        message: &MessageSignature,
        digest: &str,
        manifest: &[u8],
    ) -> Result<Self, SignatureError> {
        let hash = Sha256::digest(manifest);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        if digest != format!("sha256:{hex}") {
            return Err(form("the manifest isn't the one that its digest is of"));
        }
        if let Some(said) = &message.message_digest
            && (said.algorithm != "SHA2_256" || decode(&said.digest)? != hash.as_slice())
        {
            return Err(form("the digest that it names isn't that of what is signed"));
        }
        Ok(Self { message: manifest.to_vec(), signature: decode(&message.signature)?, kind: Kind::Manifest })
    }

    /// Checks the signature, and then that it is about the image.
    fn check(&self, key: &PublicKey, digest: &str) -> Result<(), SignatureError> {
        if !key.verifies(&self.message, &self.signature) {
            return Err(SignatureError::Key);
        }
        let (kind, payload) = match &self.kind {
            Kind::Envelope { kind, payload } => (kind, payload),
            Kind::Manifest => return Ok(()),
        };
        if kind != PAYLOAD_TYPE {
            return Err(SignatureError::Type { found: shortened(kind) });
        }
        let statement: Statement =
            serde_json::from_slice(payload).map_err(|_| form("what is signed isn't an in-toto statement"))?;
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
}
