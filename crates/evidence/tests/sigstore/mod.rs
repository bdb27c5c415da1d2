//! A Sigstore of a test's own: certificate authority, log of certificates, transparency log, and signers.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair as _,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) const DIGEST: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
pub(crate) const MANIFEST: &[u8] = b"hello";
pub(crate) const IDENTITY: &str = "https://example.org/acme/app/release.yml@refs/heads/main";
pub(crate) const ISSUER: &str = "https://token.example.org";
/// 2023-11-14T22:13:20Z.
pub(crate) const TIME: u64 = 1_700_000_000;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BITS: u8 = 0x03;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const UTF8: u8 = 0x0c;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTC: u8 = 0x17;

/// A value in DER.
pub(crate) fn write(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let length = match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => vec![short],
        Ok(long) => vec![0x81, long],
        Err(_) => vec![0x82, (length >> 8) as u8, (length & 0xff) as u8],
    };
    [&[tag], length.as_slice(), content].concat()
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A key of either curve.
struct Key {
    pair: EcdsaKeyPair,
    is_p384: bool,
}

impl Key {
    fn new(algorithm: &'static EcdsaSigningAlgorithm) -> Key {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        Key { pair, is_p384: algorithm == &ECDSA_P384_SHA384_ASN1_SIGNING }
    }

    fn p256() -> Key {
        Key::new(&ECDSA_P256_SHA256_ASN1_SIGNING)
    }

    fn p384() -> Key {
        Key::new(&ECDSA_P384_SHA384_ASN1_SIGNING)
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    /// `SubjectPublicKeyInfo`.
    fn public(&self) -> Vec<u8> {
        let curve: &[u8] = match self.is_p384 {
            true => &[0x2b, 0x81, 0x04, 0x00, 0x22],
            false => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
        };
        let algorithm = [write(OID, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]), write(OID, curve)].concat();
        let point = [&[0], self.pair.public_key().as_ref()].concat();
        write(SEQUENCE, &[write(SEQUENCE, &algorithm), write(BITS, &point)].concat())
    }

    fn algorithm(&self) -> Vec<u8> {
        let hash = if self.is_p384 { 3 } else { 2 };
        write(SEQUENCE, &write(OID, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, hash]))
    }

    fn id(&self) -> Vec<u8> {
        Sha256::digest(self.public()).to_vec()
    }
}

/// How a signer's certificate is to be.
pub(crate) struct Certificate {
    /// `GeneralName`s.
    pub(crate) name: Vec<u8>,
    pub(crate) identity_text: &'static str,
    /// The issuer as a DER string, and as plain bytes.
    pub(crate) issuers: [bool; 2],
    /// Whether the two contradict each other.
    pub(crate) other_issuer: bool,
    pub(crate) days_later: i32,
    pub(crate) for_code: bool,
    pub(crate) is_authority: bool,
    pub(crate) by_root: bool,
    pub(crate) promised: bool,
    pub(crate) promise_of_other: bool,
    pub(crate) logged_with_other: bool,
}

impl Default for Certificate {
    fn default() -> Self {
        Certificate {
            name: write(0x86, IDENTITY.as_bytes()),
            identity_text: IDENTITY,
            issuers: [true, true],
            other_issuer: false,
            days_later: 0,
            for_code: true,
            is_authority: false,
            by_root: false,
            promised: true,
            promise_of_other: false,
            logged_with_other: false,
        }
    }
}

pub(crate) fn mail(text: &str) -> Vec<u8> {
    write(0x81, text.as_bytes())
}

pub(crate) fn user(text: &str) -> Vec<u8> {
    let id = write(OID, &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x07]);
    write(0xa0, &[id, write(0xa0, &write(UTF8, text.as_bytes()))].concat())
}

fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { write(BOOLEAN, &[0xff]) } else { Vec::new() };
    write(SEQUENCE, &[write(OID, id), critical, write(OCTETS, value)].concat())
}

fn name(text: &str) -> Vec<u8> {
    let part = [write(OID, &[0x55, 0x04, 0x03]), write(UTF8, text.as_bytes())].concat();
    write(SEQUENCE, &write(SET, &write(SEQUENCE, &part)))
}

/// A certificate's content; the times as `YYMMDDhhmmssZ`.
fn content(
    signer: &Key,
    issuer: &str,
    times: [&str; 2],
    subject: &[u8],
    key: &Key,
    extensions: &[u8],
) -> Vec<u8> {
    let times: Vec<u8> = times.iter().flat_map(|time| write(UTC, time.as_bytes())).collect();
    let fields = [
        write(0xa0, &write(INTEGER, &[2])),
        write(INTEGER, &[7]),
        signer.algorithm(),
        name(issuer),
        write(SEQUENCE, &times),
        subject.to_vec(),
        key.public(),
        write(0xa3, &write(SEQUENCE, extensions)),
    ];
    write(SEQUENCE, &fields.concat())
}

fn signed(content: &[u8], signer: &Key) -> Vec<u8> {
    let signature = [&[0], signer.sign(content).as_slice()].concat();
    write(SEQUENCE, &[content.to_vec(), signer.algorithm(), write(BITS, &signature)].concat())
}

const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const LONG: [&str; 2] = ["200101000000Z", "300101000000Z"];

fn authority(key: &Key, subject: &str, signer: &Key, issuer: &str) -> Vec<u8> {
    let constraints = extension(BASIC_CONSTRAINTS, true, &write(SEQUENCE, &write(BOOLEAN, &[0xff])));
    signed(&content(signer, issuer, LONG, &name(subject), key, &constraints), signer)
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64_STANDARD.encode(der))
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// cosign's first form: a payload and its annotations.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) payload: String,
    pub(crate) signature: String,
    pub(crate) certificate: String,
    pub(crate) chain: String,
    pub(crate) bundle: String,
}

pub(crate) struct World {
    /// The image that is signed.
    pub(crate) digest: String,
    pub(crate) manifest: Vec<u8>,
    root: Key,
    intermediate: Key,
    certificates: [Vec<u8>; 2],
    certificate_log: Key,
    log: Key,
}

impl World {
    pub(crate) fn new() -> World {
        let (root, intermediate) = (Key::p384(), Key::p384());
        let certificates =
            [authority(&intermediate, "between", &root, "root"), authority(&root, "root", &root, "root")];
        let (digest, manifest) = (DIGEST.to_owned(), MANIFEST.to_vec());
        World {
            digest,
            manifest,
            root,
            intermediate,
            certificates,
            certificate_log: Key::p256(),
            log: Key::p256(),
        }
    }

    /// One that several tests look at.
    pub(crate) fn shared() -> &'static World {
        static WORLD: OnceLock<World> = OnceLock::new();
        WORLD.get_or_init(World::new)
    }

    /// A bundle of the shared one's.
    pub(crate) fn sample(&self) -> &'static Value {
        static SAMPLE: OnceLock<Value> = OnceLock::new();
        SAMPLE.get_or_init(|| World::shared().bundle(&Certificate::default(), "dsse"))
    }

    pub(crate) fn certificate_logs_key(&self) -> Vec<u8> {
        self.certificate_log.public()
    }

    pub(crate) fn root_document(&self) -> Value {
        let range = json!({ "start": "2020-01-01T00:00:00Z" });
        let log = |key: &Key| {
            json!([{
                "baseUrl": "https://log.example.org",
                "hashAlgorithm": "SHA2_256",
                "publicKey": { "rawBytes": base64(key.public()), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": range },
                "logId": { "keyId": base64(key.id()) },
            }])
        };
        let certificates: Vec<Value> =
            self.certificates.iter().map(|der| json!({ "rawBytes": base64(der) })).collect();
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": log(&self.log),
            "certificateAuthorities": [{
                "subject": { "organization": "example", "commonName": "root" },
                "certChain": { "certificates": certificates },
                "validFor": range,
            }],
            "ctlogs": log(&self.certificate_log),
            "timestampAuthorities": [],
        })
    }

    /// A signer's key and certificate.
    fn certify(&self, wanted: &Certificate) -> (Key, Vec<u8>) {
        let key = Key::p256();
        let (issuer, issuer_name) =
            if wanted.by_root { (&self.root, "root") } else { (&self.intermediate, "between") };
        let day = 14 + wanted.days_later;
        let times = [format!("2311{day}221000Z"), format!("2311{day}222000Z")];
        let usage: &[u8] = if wanted.for_code { &[3] } else { &[1] };
        let usage = [&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03], usage].concat();
        let issuer_text = if wanted.other_issuer { "https://other.example.org" } else { ISSUER };
        let mut extensions = vec![
            extension(&[0x55, 0x1d, 0x25], false, &write(SEQUENCE, &write(OID, &usage))),
            extension(&[0x55, 0x1d, 0x11], true, &write(SEQUENCE, &wanted.name)),
        ];
        if wanted.is_authority {
            let value = write(SEQUENCE, &write(BOOLEAN, &[0xff]));
            extensions.push(extension(BASIC_CONSTRAINTS, true, &value));
        }
        let fulcio = |last: u8| [0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, last];
        if wanted.issuers[0] {
            extensions.push(extension(&fulcio(8), false, &write(UTF8, issuer_text.as_bytes())));
        }
        if wanted.issuers[1] {
            extensions.push(extension(&fulcio(1), false, ISSUER.as_bytes()));
        }
        let [from, to] = &times;
        let empty = write(SEQUENCE, &[]);
        let content = |extensions: &[u8]| content(issuer, issuer_name, [from, to], &empty, &key, extensions);
        if wanted.promised {
            let promised = content(&extensions.concat());
            let issuer_key = if wanted.promise_of_other { self.log.public() } else { issuer.public() };
            let promise = self.promise(&promised, &issuer_key);
            let id = [0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02];
            // In the midst of the others, so that their order is kept when it is taken out.
            extensions.insert(1, extension(&id, false, &write(OCTETS, &promise)));
        }
        let certificate = signed(&content(&extensions.concat()), issuer);
        (key, certificate)
    }

    /// A list of one promise for a certificate's content.
    fn promise(&self, content: &[u8], issuer: &[u8]) -> Vec<u8> {
        let time = (TIME * 1000).to_be_bytes();
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        let message =
            [&[0, 0], &time[..], &[0, 1], &Sha256::digest(issuer), &length[1..], content, &[0, 0]].concat();
        let signature = self.certificate_log.sign(&message);
        let counted = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
        let promise =
            [&[0], self.certificate_log.id().as_slice(), &time, &[0, 0, 4, 3], &counted(&signature)].concat();
        counted(&counted(&promise))
    }

    /// What the log says of an entry: as JSON of bundles, and as cosign's annotation.
    fn logged(&self, body: &Value) -> (Value, Value) {
        let body_text = body.to_string();
        let encoded = base64(&body_text);
        let id: String = hex_of(&self.log.id());
        let promised = format!(
            "{{\"body\":\"{encoded}\",\"integratedTime\":{TIME},\"logID\":\"{id}\",\"logIndex\":1234}}"
        );
        let promise = base64(self.log.sign(promised.as_bytes()));
        // The fifth of seven entries: 0..4 are one tree, 4 and 5 another, 6 stands alone.
        let leaf = Sha256::digest([&[0], body_text.as_bytes()].concat());
        let node = |left: &[u8], right: &[u8]| Sha256::digest([&[1], left, right].concat()).to_vec();
        let others = [[1; 32], [2; 32], [3; 32]];
        let tree = node(&others[1], &node(&node(&leaf, &others[0]), &others[2]));
        let hashes = [others[0], others[2], others[1]];
        let note = format!("log.example.org - 1\n7\n{}\n", base64(&tree));
        let signature = [&self.log.id()[..4], &self.log.sign(note.as_bytes())].concat();
        let checkpoint = format!("{note}\n\u{2014} log.example.org {}\n", base64(signature));
        let in_bundle = json!({
            "logIndex": "1234",
            "logId": { "keyId": base64(self.log.id()) },
            "kindVersion": { "kind": body["kind"], "version": body["apiVersion"] },
            "integratedTime": TIME.to_string(),
            "inclusionPromise": { "signedEntryTimestamp": promise },
            "inclusionProof": {
                "logIndex": "4",
                "rootHash": base64(&tree),
                "treeSize": "7",
                "hashes": hashes.map(base64),
                "checkpoint": { "envelope": checkpoint },
            },
            "canonicalizedBody": encoded,
        });
        let in_annotation = json!({
            "SignedEntryTimestamp": promise,
            "Payload": { "body": encoded, "integratedTime": TIME, "logIndex": 1234, "logID": id },
        });
        (in_bundle, in_annotation)
    }

    fn hashedrekord(message: &[u8], signature: &[u8], certificate: &[u8]) -> Value {
        json!({
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": { "hash": { "algorithm": "sha256", "value": hex_of(&Sha256::digest(message)) } },
                "signature": { "content": base64(signature), "publicKey": { "content": base64(pem(certificate)) } },
            },
        })
    }

    pub(crate) fn bundle(&self, wanted: &Certificate, kind: &str) -> Value {
        self.bundle_of_kind(wanted, kind, "0.0.1")
    }

    /// A bundle with a statement about the image, logged as an entry of this kind and version.
    pub(crate) fn bundle_of_kind(&self, wanted: &Certificate, kind: &str, version: &str) -> Value {
        let (key, certificate) = self.certify(wanted);
        let payload = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "digest": { "sha256": &self.digest[7..] } }],
            "predicateType": "https://sigstore.dev/cosign/sign/v1",
        })
        .to_string();
        let payload_type = "application/vnd.in-toto+json";
        let message = format!("DSSEv1 {} {payload_type} {} {payload}", payload_type.len(), payload.len());
        let signature = key.sign(message.as_bytes());
        let logged_with = if wanted.logged_with_other { self.certify(wanted).1 } else { certificate.clone() };
        let mut body = match kind {
            "hashedrekord" => Self::hashedrekord(message.as_bytes(), &signature, &logged_with),
            _ => json!({
                "apiVersion": "0.0.1",
                "kind": kind,
                "spec": {
                    "envelopeHash": { "algorithm": "sha256", "value": "00" },
                    "payloadHash": { "algorithm": "sha256", "value": hex_of(&Sha256::digest(&payload)) },
                    "signatures": [{ "signature": base64(&signature), "verifier": base64(pem(&logged_with)) }],
                },
            }),
        };
        body["apiVersion"] = json!(version);
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": { "rawBytes": base64(&certificate) },
                "tlogEntries": [self.logged(&body).0],
            },
            "dsseEnvelope": {
                "payload": base64(&payload),
                "payloadType": payload_type,
                "signatures": [{ "sig": base64(&signature) }],
            },
        })
    }

    pub(crate) fn bundle_over_manifest(&self, wanted: &Certificate) -> Value {
        let (key, certificate) = self.certify(wanted);
        let signature = key.sign(&self.manifest);
        let body = Self::hashedrekord(&self.manifest, &signature, &certificate);
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": { "rawBytes": base64(&certificate) },
                "tlogEntries": [self.logged(&body).0],
            },
            "messageSignature": {
                "messageDigest": { "algorithm": "SHA2_256", "digest": base64(Sha256::digest(&self.manifest)) },
                "signature": base64(&signature),
            },
        })
    }

    pub(crate) fn layer(&self, wanted: &Certificate) -> Layer {
        let (key, certificate) = self.certify(wanted);
        let payload = json!({ "critical": {
            "identity": { "docker-reference": "" },
            "image": { "docker-manifest-digest": self.digest },
            "type": "cosign container image signature",
        } })
        .to_string();
        let signature = key.sign(payload.as_bytes());
        let (_, bundle) = self.logged(&Self::hashedrekord(payload.as_bytes(), &signature, &certificate));
        Layer {
            payload,
            signature: base64(&signature),
            certificate: pem(&certificate),
            chain: self.certificates.iter().map(|der| pem(der)).collect(),
            bundle: bundle.to_string(),
        }
    }
}
