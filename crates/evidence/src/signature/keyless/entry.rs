//! An entry of a transparency log (Rekor, version 1): what the log says of it, and what is in it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{KeylessError, Signed, TrustedRoot, pem};

/// The most hashes of a proof: a tree of 2^64 entries needs no more.
const MOST_HASHES: usize = 64;

/// An entry, and the log's word for it.
#[derive(Debug)]
pub(in super::super) struct Entry {
    /// As the log has it, in base64.
    body: String,
    /// When it was added, in seconds since 1970.
    time: u64,
    index: u64,
    log: Vec<u8>,
    /// The log's signature over all of this.
    promise: Vec<u8>,
    proof: Option<Proof>,
    /// What it says it is: kind and version.
    kind: Option<(String, String)>,
}

#[derive(Debug)]
struct Proof {
    index: u64,
    size: u64,
    root: Vec<u8>,
    hashes: Vec<Vec<u8>>,
    checkpoint: String,
}

/// A number, which JSON made of Protocol Buffers writes as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u64),
    Text(String),
}

impl Number {
    fn get(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok().filter(|number: &u64| number.to_string() == *text),
        }
    }
}

/// An entry in a bundle.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct InBundle {
    log_index: Number,
    log_id: LogId,
    kind_version: KindVersion,
    #[serde(default)]
    integrated_time: Option<Number>,
    #[serde(default)]
    inclusion_promise: Option<InclusionPromise>,
    inclusion_proof: InclusionProof,
    canonicalized_body: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogId {
    key_id: String,
}

#[derive(Deserialize)]
struct KindVersion {
    kind: String,
    version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InclusionPromise {
    signed_entry_timestamp: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InclusionProof {
    log_index: Number,
    root_hash: String,
    tree_size: Number,
    hashes: Vec<String>,
    checkpoint: Checkpoint,
}

#[derive(Deserialize)]
struct Checkpoint {
    envelope: String,
}

/// An entry in cosign's annotation `dev.sigstore.cosign/bundle`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InAnnotation {
    signed_entry_timestamp: String,
    payload: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    body: String,
    integrated_time: u64,
    log_index: u64,
    #[serde(rename = "logID")]
    log_id: String,
}

const fn damaged(what: &'static str) -> KeylessError {
    KeylessError::Entry { what }
}

fn decode(text: &str) -> Result<Vec<u8>, KeylessError> {
    BASE64_STANDARD.decode(text).map_err(|_| damaged("it isn't proper base64"))
}

impl Entry {
    /// Takes an entry out of a bundle.
    pub(in super::super) fn of_bundle(entry: &InBundle) -> Result<Self, KeylessError> {
        let number = |number: &Number| number.get().ok_or(damaged("a number of it isn't one"));
        let (Some(promise), Some(time)) = (&entry.inclusion_promise, &entry.integrated_time) else {
            return Err(damaged(
                "it has no signed time of the log's (SignedEntryTimestamp); timestamps of others aren't judged here",
            ));
        };
        let proof = &entry.inclusion_proof;
        if proof.hashes.len() > MOST_HASHES {
            return Err(damaged("its proof is too long"));
        }
        Ok(Self {
            body: entry.canonicalized_body.clone(),
            time: number(time)?,
            index: number(&entry.log_index)?,
            log: decode(&entry.log_id.key_id)?,
            promise: decode(&promise.signed_entry_timestamp)?,
            proof: Some(Proof {
                index: number(&proof.log_index)?,
                size: number(&proof.tree_size)?,
                root: decode(&proof.root_hash)?,
                hashes: proof.hashes.iter().map(|hash| decode(hash)).collect::<Result<_, _>>()?,
                checkpoint: proof.checkpoint.envelope.clone(),
            }),
            kind: Some((entry.kind_version.kind.clone(), entry.kind_version.version.clone())),
        })
    }

    /// Reads cosign's annotation.
    pub(in super::super) fn of_annotation(json: &str) -> Result<Self, KeylessError> {
        let entry: InAnnotation =
            serde_json::from_str(json).map_err(|_| damaged("it isn't what cosign writes"))?;
        let Payload { body, integrated_time, log_index, log_id } = entry.payload;
        let promise = decode(&entry.signed_entry_timestamp)?;
        let log = unhex(&log_id).ok_or(damaged("its log's identifier isn't hexadecimal"))?;
        Ok(Self { body, time: integrated_time, index: log_index, log, promise, proof: None, kind: None })
    }

    /// Checks that a log of the trust root has the entry, and that it is about this signature with this certificate. Gives the
    /// time at which the log took it.
    pub(super) fn check(
        &self,
        root: &TrustedRoot,
        certificate: &[u8],
        signed: &Signed<'_>,
    ) -> Result<u64, KeylessError> {
        let body = decode(&self.body)?;
        let known: Vec<_> =
            root.logs.iter().filter(|log| log.id == self.log && log.valid.holds(self.time)).collect();
        if known.is_empty() {
            return Err(KeylessError::NoLog { log: hex(&self.log).chars().take(64).collect() });
        }
        // In the canonical form of JSON (RFC 8785); base64 and hexadecimal digits need no escapes.
        let promised = format!(
            "{{\"body\":\"{}\",\"integratedTime\":{},\"logID\":\"{}\",\"logIndex\":{}}}",
            self.body,
            self.time,
            hex(&self.log),
            self.index
        );
        let log = known
            .into_iter()
            .find(|log| log.key.verifies(promised.as_bytes(), &self.promise))
            .ok_or(damaged("the log's signature over it isn't proper"))?;
        if let Some(proof) = &self.proof {
            proof.check(&body, &|text, signature| log.key.verifies(text, signature))?;
        }
        let content: Content =
            serde_json::from_slice(&body).map_err(|_| damaged("it is of a kind that isn't judged"))?;
        if let Some((kind, version)) = &self.kind
            && (*kind != content.kind || *version != content.api_version)
        {
            return Err(damaged("it isn't of the kind that the bundle says"));
        }
        content.check(certificate, signed)?;
        Ok(self.time)
    }
}

impl Proof {
    /// Checks that an entry is in the tree whose root the log has signed (RFC 6962, section 2.1; the note's form is C2SP's
    /// `signed-note`).
    fn check(&self, body: &[u8], is_signed: &dyn Fn(&[u8], &[u8]) -> bool) -> Result<(), KeylessError> {
        let mut hasher = Sha256::new();
        hasher.update([0]);
        hasher.update(body);
        let found = self
            .root_over(hasher.finalize().into())
            .ok_or(damaged("its proof has another length than it must"))?;
        if found.as_slice() != self.root {
            return Err(damaged("its proof leads to another tree"));
        }
        let (text, signatures) =
            self.checkpoint.split_once("\n\n").ok_or(damaged("the tree's checkpoint is none"))?;
        let text = format!("{text}\n");
        let mut lines = text.lines();
        let (_, size, root) = (lines.next(), lines.next(), lines.next());
        if size.and_then(|size| size.parse::<u64>().ok()) != Some(self.size)
            || root.and_then(|root| decode(root).ok()).as_ref() != Some(&self.root)
        {
            return Err(damaged("the tree's checkpoint is of another tree"));
        }
        let signed = signatures.lines().take(16).any(|line| {
            let signature = line.strip_prefix("\u{2014} ").and_then(|line| line.rsplit_once(' '));
            let bytes = signature.and_then(|(_, base64)| decode(base64).ok()).unwrap_or_default();
            // Before the signature stand four bytes of the key's own hash.
            bytes.get(4..).is_some_and(|signature| is_signed(text.as_bytes(), signature))
        });
        signed.then_some(()).ok_or(damaged("the tree's checkpoint isn't signed by the log"))
    }

    fn root_over(&self, leaf: [u8; 32]) -> Option<[u8; 32]> {
        let (mut place, mut last) = (self.index, self.size.checked_sub(1)?);
        if place > last {
            return None;
        }
        let node = |left: &[u8], right: &[u8]| -> [u8; 32] {
            let mut hasher = Sha256::new();
            hasher.update([1]);
            hasher.update(left);
            hasher.update(right);
            hasher.finalize().into()
        };
        let mut root = leaf;
        for hash in &self.hashes {
            if last == 0 || hash.len() != 32 {
                return None;
            }
            if place & 1 == 1 || place == last {
                root = node(hash, &root);
                while place & 1 == 0 && place != 0 {
                    place >>= 1;
                    last >>= 1;
                }
            } else {
                root = node(&root, hash);
            }
            place >>= 1;
            last >>= 1;
        }
        (last == 0).then_some(root)
    }
}

/// What is in an entry.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    kind: String,
    api_version: String,
    spec: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HashedRekord {
    data: Hashed,
    signature: RekordSignature,
}

#[derive(Deserialize)]
struct Hashed {
    hash: Hash,
}

#[derive(Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RekordSignature {
    content: String,
    public_key: RekordKey,
}

#[derive(Deserialize)]
struct RekordKey {
    content: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dsse {
    payload_hash: Hash,
    signatures: Vec<DsseSignature>,
}

#[derive(Deserialize)]
struct DsseSignature {
    signature: String,
    verifier: String,
}

impl Content {
    fn check(self, certificate: &[u8], signed: &Signed<'_>) -> Result<(), KeylessError> {
        const SHAPE: KeylessError = damaged("it has another shape than its kind says");
        let (hash, message, signature, verifier) =
            match (self.kind.as_str(), self.api_version.as_str(), signed.payload) {
                ("hashedrekord", "0.0.1", _) => {
                    let HashedRekord { data, signature } =
                        serde_json::from_value(self.spec).map_err(|_| SHAPE)?;
                    (data.hash, signed.message, signature.content, signature.public_key.content)
                }
                ("dsse", "0.0.1", Some(payload)) => {
                    let Dsse { payload_hash, signatures } =
                        serde_json::from_value(self.spec).map_err(|_| SHAPE)?;
                    let [DsseSignature { signature, verifier }] =
                        <[_; 1]>::try_from(signatures).map_err(|_| SHAPE)?;
                    (payload_hash, payload, signature, verifier)
                }
                _ => return Err(damaged("it is of a kind that isn't judged")),
            };
        if hash.algorithm != "sha256" || hash.value != hex(&Sha256::digest(message)) {
            return Err(damaged("it is about something else than what is signed"));
        }
        if decode(&signature)? != signed.signature {
            return Err(damaged("it is about another signature"));
        }
        let verifier = String::from_utf8(decode(&verifier)?).ok();
        match verifier.as_deref().and_then(|text| pem::certificates(text).ok()).as_deref() {
            Some([found]) if found == certificate => Ok(()),
            _ => Err(damaged("it is about another certificate")),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        pair.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u8::from_str_radix(pair, 16).ok())?
    });
    pairs.collect()
}

#[cfg(any(test, fuzzing))]
pub(super) fn read_anything(bytes: &[u8]) {
    let in_bundle = serde_json::from_slice::<InBundle>(bytes).ok();
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let entries =
        in_bundle.map(|entry| Entry::of_bundle(&entry)).into_iter().chain([Entry::of_annotation(text)]);
    let signed = Signed { message: bytes, signature: bytes, payload: Some(bytes) };
    for entry in entries.flatten() {
        let body = decode(&entry.body).unwrap_or_default();
        if let Some(proof) = &entry.proof {
            let _ = proof.check(&body, &|_, _| true);
        }
        if let Ok(content) = serde_json::from_slice::<Content>(&body) {
            assert!(content.check(bytes, &signed).is_err(), "it is about something else");
        }
    }
}
