//! The signatures that lie beside an image, and whether one of them is of a key.
//!
//! They are looked for where cosign and others put them: under the tag `sha256-<digest>.sig`, and as what refers to the
//! image (OCI 1.1), in the same repository or layout. One over an index counts for every image that the index lists.
//! [`Store::signatures`] fetches them, [`Signatures::verify`] judges them, without any network.

mod attached;

use evidence::signature::{PublicKey, SignatureError, bundle, simple};
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
    /// cosign's: what is signed, and the signature in base64.
    Simple { payload: String, signature: String },
    /// Sigstore's, as it is.
    Bundle { json: String },
}

/// A signature that is of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Which of the keys, by its place in their list.
    pub key: usize,
    /// What it is over: the image's manifest, or an index that lists it.
    pub subject: Digest,
    /// "cosign" or "bundle".
    pub form: &'static str,
}

/// No signature of any of the keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// There is none at all.
    #[error("no signature lies beside it (neither under the tag {tag} nor as a referrer)")]
    None {
        /// The tag that a signature would have.
        tag: String,
    },
    /// There are some, and none vouches for it.
    #[error("none of its {count} signatures vouches for it: {}", reasons.join("; "))]
    Refused {
        /// How many there are.
        count: usize,
        /// Why not, each reason once.
        reasons: Vec<String>,
    },
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
        let mut signatures = Vec::new();
        for document in &documents {
            let subject = Digest::of(document);
            let found = attached::find(&source, &subject).map_err(failed)?;
            signatures.extend(found.into_iter().map(|form| Signature { subject: subject.clone(), form }));
        }
        let documents =
            documents.iter().map(|document| String::from_utf8_lossy(document).into_owned()).collect();
        Ok(Signatures { image: image.digest.clone(), documents, signatures })
    }
}

impl Signatures {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.signatures.len()
    }

    /// Finds a signature of one of the keys that vouches for the image.
    ///
    /// # Errors
    /// [`Unverified`].
    pub fn verify(&self, keys: &[PublicKey]) -> Result<Verified, Unverified> {
        if self.signatures.is_empty() {
            return Err(Unverified::None { tag: attached::tag(&self.image) });
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
            for (key, public) in keys.iter().enumerate() {
                match signature.form.verify(public, &signature.subject, document) {
                    Ok(()) => {
                        let (subject, form) = (signature.subject.clone(), signature.form.name());
                        return Ok(Verified { key, subject, form });
                    }
                    Err(reason) => reasons.push(reason.to_string()),
                }
            }
        }
        reasons.sort();
        reasons.dedup();
        Err(Unverified::Refused { count: self.signatures.len(), reasons })
    }
}

impl Form {
    fn name(&self) -> &'static str {
        match self {
            Form::Simple { .. } => "cosign",
            Form::Bundle { .. } => "bundle",
        }
    }

    fn verify(&self, key: &PublicKey, subject: &Digest, document: &[u8]) -> Result<(), SignatureError> {
        let digest = subject.to_string();
        match self {
            Form::Simple { payload, signature } => {
                simple::verify(key, payload.as_bytes(), signature, &digest)
            }
            Form::Bundle { json } => bundle::verify(key, json.as_bytes(), &digest, document),
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
