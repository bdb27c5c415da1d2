use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;

enum Signer {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    fn p256() -> Signer {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Signer::P256(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap())
    }

    fn ed25519() -> Signer {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Signer::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    fn sign(&self, message: &[u8]) -> String {
        BASE64_STANDARD.encode(match self {
            Signer::P256(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Signer::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }

    fn public(&self) -> PublicKey {
        let (prefix, key) = match self {
            Signer::P256(pair) => {
                ("3059301306072a8648ce3d020106082a8648ce3d030107034200", pair.public_key().as_ref())
            }
            Signer::Ed25519(pair) => ("302a300506032b6570032100", pair.public_key().as_ref()),
        };
        let byte = |at: usize| u8::from_str_radix(&prefix[at..at + 2], 16).unwrap();
        let mut der: Vec<u8> = (0..prefix.len()).step_by(2).map(byte).collect();
        der.extend_from_slice(key);
        let body = BASE64_STANDARD.encode(der);
        PublicKey::from_pem(&format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"))
            .unwrap()
    }
}

const DIGEST: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
const MANIFEST: &[u8] = b"hello";

fn payload() -> Value {
    json!({
        "critical": {
            "identity": { "docker-reference": "example.org/app" },
            "image": { "docker-manifest-digest": DIGEST },
            "type": "cosign container image signature",
        },
        "optional": null,
    })
}

#[test]
fn a_simple_signature_of_either_kind_of_key_vouches_for_its_image() {
    for signer in [Signer::p256(), Signer::ed25519()] {
        let bytes = payload().to_string().into_bytes();
        let signature = signer.sign(&bytes);
        assert_eq!(simple::verify(&signer.public(), &bytes, &signature, DIGEST), Ok(()));
        let other = Signer::p256().public();
        assert_eq!(simple::verify(&other, &bytes, &signature, DIGEST), Err(SignatureError::Key));
    }
}

#[test]
fn a_simple_signature_over_anything_else_vouches_for_nothing() {
    let signer = Signer::p256();
    let verify = |payload: &Value| {
        let bytes = payload.to_string().into_bytes();
        simple::verify(&signer.public(), &bytes, &signer.sign(&bytes), DIGEST)
    };
    let mut other = payload();
    other["critical"]["image"]["docker-manifest-digest"] = json!("sha256:00");
    assert_eq!(verify(&other), Err(SignatureError::Digest { found: "sha256:00".to_owned() }));
    let mut other = payload();
    other["critical"]["type"] = json!("atomic container signature");
    assert!(matches!(verify(&other), Err(SignatureError::Type { .. })));
    assert!(matches!(verify(&json!({ "critical": {} })), Err(SignatureError::Form { .. })));
    let bytes = payload().to_string().into_bytes();
    for wrong in ["", "!", "AAAA"] {
        assert!(simple::verify(&signer.public(), &bytes, wrong, DIGEST).is_err(), "{wrong}");
    }
}

fn statement() -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { "sha256": &DIGEST[7..] } }],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    })
}

fn enveloped(signer: &Signer, statement: &Value, kind: &str) -> Value {
    let payload = statement.to_string();
    let message = format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len());
    json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": { "publicKey": { "hint": "x" }, "tlogEntries": [] },
        "dsseEnvelope": {
            "payload": BASE64_STANDARD.encode(payload),
            "payloadType": kind,
            "signatures": [{ "sig": signer.sign(message.as_bytes()) }],
        },
    })
}

const IN_TOTO: &str = "application/vnd.in-toto+json";

fn judge(signer: &Signer, bundle: &Value) -> Result<(), SignatureError> {
    bundle::verify(&signer.public(), bundle.to_string().as_bytes(), DIGEST, MANIFEST)
}

#[test]
fn a_bundle_with_a_statement_about_the_image_vouches_for_it() {
    for signer in [Signer::p256(), Signer::ed25519()] {
        assert_eq!(judge(&signer, &enveloped(&signer, &statement(), IN_TOTO)), Ok(()));
        assert_eq!(
            judge(&Signer::p256(), &enveloped(&signer, &statement(), IN_TOTO)),
            Err(SignatureError::Key)
        );
    }
}

#[test]
fn a_bundle_that_was_changed_anywhere_vouches_for_nothing() {
    let signer = Signer::p256();
    let mut predicate = statement();
    predicate["predicateType"] = json!("https://slsa.dev/provenance/v1");
    assert!(matches!(
        judge(&signer, &enveloped(&signer, &predicate, IN_TOTO)),
        Err(SignatureError::Type { .. })
    ));
    let mut subject = statement();
    subject["subject"][0]["digest"]["sha256"] = json!("00");
    assert_eq!(
        judge(&signer, &enveloped(&signer, &subject, IN_TOTO)),
        Err(SignatureError::Digest { found: "sha256:00".to_owned() })
    );
    let mut kind = statement();
    kind["_type"] = json!("x");
    assert!(matches!(judge(&signer, &enveloped(&signer, &kind, IN_TOTO)), Err(SignatureError::Type { .. })));
    assert!(matches!(
        judge(&signer, &enveloped(&signer, &statement(), "text/plain")),
        Err(SignatureError::Type { .. })
    ));
    let whole = enveloped(&signer, &statement(), IN_TOTO);
    let bent = |pointer: &str, value: Value| {
        let mut bundle = whole.clone();
        *bundle.pointer_mut(pointer).unwrap() = value;
        judge(&signer, &bundle).unwrap_err()
    };
    let payload = BASE64_STANDARD.encode(statement().to_string() + " ");
    assert_eq!(bent("/dsseEnvelope/payload", json!(payload)), SignatureError::Key);
    assert_eq!(bent("/dsseEnvelope/payloadType", json!("application/x")), SignatureError::Key);
    assert!(matches!(bent("/dsseEnvelope/signatures", json!([])), SignatureError::Form { .. }));
    assert!(matches!(
        bent("/mediaType", json!("application/vnd.dev.sigstore.bundle.v0.4+json")),
        SignatureError::Unsupported { .. }
    ));
    let keyless = bent("/verificationMaterial", json!({ "certificate": { "rawBytes": "" } }));
    assert!(keyless.to_string().contains("keyless"), "{keyless}");
    let mut both = whole.clone();
    both["messageSignature"] = json!({ "signature": "" });
    assert!(matches!(judge(&signer, &both), Err(SignatureError::Form { .. })));
}

#[test]
fn a_bundle_over_the_manifest_itself_vouches_for_it() {
    let signer = Signer::p256();
    let bundle = |message: &[u8], algorithm: &str, hash: &[u8]| {
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": { "publicKey": { "hint": "" } },
            "messageSignature": {
                "messageDigest": { "algorithm": algorithm, "digest": BASE64_STANDARD.encode(hash) },
                "signature": signer.sign(message),
            },
        })
    };
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(MANIFEST);
    assert_eq!(judge(&signer, &bundle(MANIFEST, "SHA2_256", &hash)), Ok(()));
    assert_eq!(judge(&signer, &bundle(b"other", "SHA2_256", &hash)), Err(SignatureError::Key));
    assert!(judge(&signer, &bundle(MANIFEST, "SHA2_512", &hash)).is_err());
    assert!(judge(&signer, &bundle(MANIFEST, "SHA2_256", b"other")).is_err());
    let of_other = bundle::verify(
        &signer.public(),
        bundle(b"other", "SHA2_256", &Sha256::digest(b"other")).to_string().as_bytes(),
        DIGEST,
        b"other",
    );
    assert!(of_other.is_err(), "the manifest must be the one that the digest is of");
}

#[test]
fn what_is_no_public_key_is_refused_with_what_it_is() {
    let pem = |kind: &str, body: &str| format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n");
    let table = [
        (String::new(), KeyError::None),
        (pem("EC PRIVATE KEY", "AAAA"), KeyError::Private),
        (pem("PUBLIC KEY", "!"), KeyError::Base64),
        (pem("PUBLIC KEY", "AAAA"), KeyError::Kind),
        ("-----BEGIN PUBLIC KEY-----\nAAAA".to_owned(), KeyError::None),
    ];
    for (text, expected) in table {
        assert_eq!(PublicKey::from_pem(&text), Err(expected), "{text}");
    }
    assert_eq!(Signer::p256().public().fingerprint().len(), 16);
}

proptest! {
    #[test]
    fn no_bytes_vouch_for_an_image_or_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,80}") {
        let key = Signer::ed25519().public();
        prop_assert!(simple::verify(&key, &bytes, &text, DIGEST).is_err());
        prop_assert!(bundle::verify(&key, &bytes, DIGEST, MANIFEST).is_err());
        prop_assert!(PublicKey::from_pem(&text).is_err());
    }

    #[test]
    fn one_bit_changed_in_a_payload_is_noticed(at in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let signer = Signer::ed25519();
        let mut bytes = payload().to_string().into_bytes();
        let signature = signer.sign(&bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(simple::verify(&signer.public(), &bytes, &signature, DIGEST), Err(SignatureError::Key));
    }
}
