//! The signatures that lie beside an image, and whether one of them is of a key.
//!
//! They are looked for where cosign and others put them: under the tag `sha256-<digest>.sig`, and as what refers to the
//! image (OCI 1.1), in the same repository or layout. One over an index counts for every image that the index lists.
//! [`Store::signatures`] fetches them, [`Signatures::verify`] judges them, without any network.

mod attached;

use evidence::signature::{Identity, PublicKey, SignatureError, Signer, TrustedRoot, bundle, simple};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};
use crate::manifest::{self, Document};
use crate::options::PullOptions;
use crate::source::{Source, SourceError};
use crate::store::{Image, Store, StoreError};

/// What was found beside an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signatures {
    /// The image's digest.
    pub image: Digest,
    /// The manifest, and every index above it that was met on the way to it; as they were fetched.
    documents: Vec<String>,
    signatures: Vec<Signature>,
    /// What lies there and can't be read, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unread: Vec<String>,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    /// Of which document it is found beside.
    subject: Digest,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    /// cosign's: what is signed, and the signature in base64; beside it, for an identity's, its certificate, those above it,
    /// and the entry in the transparency log.
    Simple {
        payload: String,
        signature: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        certificate: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        chain: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        entry: Option<String>,
    },
    /// Sigstore's, as it is.
    Bundle { json: String },
}

/// Whose signatures count.
#[derive(Debug, Clone, Default)]
pub struct Trusted {
    /// Anybody who has one of these keys.
    pub keys: Vec<PublicKey>,
    /// Who has one of these identities, as far as the authorities and logs of this root say so.
    pub root: Option<TrustedRoot>,
    /// The identities.
    pub identities: Vec<Identity>,
}

/// Who has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// A key, by its place among those that are trusted.
    Key(usize),
    /// An identity.
    Identity(Signer),
}

/// A signature that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose it is.
    pub by: By,
    /// What it is over: the image's manifest, or an index that lists it.
    pub subject: Digest,
    /// "cosign" or "bundle".
    pub form: &'static str,
}

/// No signature that counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// There is none at all.
    #[error("no signature lies beside it (neither under the tag {tag} nor as a referrer){}", broken(unread))]
    None {
        /// The tag that a signature would have.
        tag: String,
        /// What lies there and can't be read.
        unread: Vec<String>,
    },
    /// There are some, and none vouches for it.
    #[error("none of its {count} signatures vouches for it: {}{}", reasons.join("; "), broken(unread))]
    Refused {
        /// How many there are.
        count: usize,
        /// Why not, each reason once.
        reasons: Vec<String>,
        /// What lies there too and can't be read.
        unread: Vec<String>,
    },
}

fn broken(unread: &[String]) -> String {
    match unread {
        [] => String::new(),
        some => format!("; what can't be read there: {}", some.join("; ")),
    }
}

/// Signatures that can't be looked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignaturesError {
    /// The place can't be asked.
    #[error("can't look for signatures of {image}")]
    Source {
        /// The image.
        image: String,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// Nothing can lie beside such an image.
    #[error("no signature can lie beside {image}: only registries and OCI layouts keep them")]
    NoPlace {
        /// The image.
        image: String,
    },
    /// The image's own manifest can't be read.
    #[error("can't read the manifest of {image}")]
    Store {
        /// The image.
        image: String,
        /// Why.
        #[source]
        source: StoreError,
    },
}

impl Store {
    /// Looks for an image's signatures in the place that it came from. Nothing is judged yet.
    ///
    /// # Errors
    /// [`SignaturesError`]; that there are none is no error.
    pub fn signatures(&self, image: &Image, options: &PullOptions) -> Result<Signatures, SignaturesError> {
        let name = || image.reference.to_string();
        let failed = |source| SignaturesError::Source { image: name(), source };
        let (own, _) =
            self.documents(image).map_err(|source| SignaturesError::Store { image: name(), source })?;
        let source = Source::open(&image.reference, options, &self.tmp(), self.options.unpacked_bytes);
        let source = source.map_err(failed)?;
        if !matches!(source, Source::Registry(_) | Source::Layout(_)) {
            return Err(SignaturesError::NoPlace { image: name() });
        }
        // The indexes that lead to the image today; where they lead elsewhere by now, the image's own signatures count.
        let mut documents = vec![own];
        let wanted = [image.platform.clone()];
        let indexes = source.indexes(&wanted).map_err(failed)?;
        documents.extend(indexes.into_iter().filter(|index| lists(index, &image.digest)));
        let (mut signatures, mut unread) = (Vec::new(), Vec::new());
        for document in &documents {
            let subject = Digest::of(document);
            let found = attached::find(&source, &subject).map_err(failed)?;
            signatures
                .extend(found.forms.into_iter().map(|form| Signature { subject: subject.clone(), form }));
            unread.extend(found.unread);
        }
        let documents =
            documents.iter().map(|document| String::from_utf8_lossy(document).into_owned()).collect();
        Ok(Signatures { image: image.digest.clone(), documents, signatures, unread })
    }
}

impl Signatures {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.signatures.len()
    }

    /// Finds a signature that counts and vouches for the image.
    ///
    /// # Errors
    /// [`Unverified`].
    pub fn verify(&self, trusted: &Trusted) -> Result<Verified, Unverified> {
        if self.signatures.is_empty() {
            return Err(Unverified::None { tag: attached::tag(&self.image), unread: self.unread.clone() });
        }
        let mut reasons: Vec<String> = Vec::new();
        for signature in &self.signatures {
            // What it is over is found by its digest: the image itself, or an index that lists it.
            let document = self.documents.iter().map(String::as_bytes).find(|document| {
                let mut hasher = Hasher::new(signature.subject.algorithm());
                hasher.update(document);
                hasher.finish() == signature.subject
            });
            let Some(document) = document else { continue };
            if signature.subject != self.image && !lists(document, &self.image) {
                continue;
            }
            match signature.form.verify(trusted, &signature.subject, document) {
                Ok(by) => {
                    let (subject, form) = (signature.subject.clone(), signature.form.name());
                    return Ok(Verified { by, subject, form });
                }
                Err(more) => reasons.extend(more),
            }
        }
        reasons.sort();
        reasons.dedup();
        Err(Unverified::Refused { count: self.signatures.len(), reasons, unread: self.unread.clone() })
    }
}

impl Form {
    fn name(&self) -> &'static str {
        match self {
            Form::Simple { .. } => "cosign",
            Form::Bundle { .. } => "bundle",
        }
    }

    /// Tells who vouches by it for a document, or for each of those who are trusted why they don't.
    fn verify(&self, trusted: &Trusted, subject: &Digest, document: &[u8]) -> Result<By, Vec<String>> {
        let digest = subject.to_string();
        let mut reasons = Vec::new();
        for (place, key) in trusted.keys.iter().enumerate() {
            let judged = match self {
                Form::Simple { payload, signature, .. } => {
                    simple::verify(key, payload.as_bytes(), signature, &digest)
                }
                Form::Bundle { json } => bundle::verify(key, json.as_bytes(), &digest, document),
            };
            match judged {
                Ok(()) => return Ok(By::Key(place)),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        if let Some(root) = &trusted.root {
            match self.signer(root, &digest, document) {
                Ok(signer) if trusted.identities.iter().any(|identity| identity.covers(&signer)) => {
                    return Ok(By::Identity(signer));
                }
                Ok(signer) => {
                    reasons.push(format!("it is signed by {signer}, who isn't among the identities"))
                }
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Err(reasons)
    }

    fn signer(&self, root: &TrustedRoot, digest: &str, document: &[u8]) -> Result<Signer, SignatureError> {
        match self {
            Form::Simple {
                payload,
                signature,
                certificate: Some(certificate),
                chain,
                entry: Some(entry),
            } => {
                let material = simple::Keyless { certificate, chain: chain.as_deref(), bundle: entry };
                simple::verify_keyless(root, payload.as_bytes(), signature, &material, digest)
            }
            Form::Simple { .. } => Err(SignatureError::Unsupported {
                what: "it has no certificate of an identity with an entry of a transparency log",
            }),
            Form::Bundle { json } => bundle::verify_keyless(root, json.as_bytes(), digest, document),
        }
    }
}

/// Tells whether an index lists a manifest.
fn lists(index: &[u8], digest: &Digest) -> bool {
    match manifest::parse(index) {
        Ok(Document::Index(entries)) => entries.iter().any(|entry| entry.digest == *digest),
        _ => false,
    }
}
