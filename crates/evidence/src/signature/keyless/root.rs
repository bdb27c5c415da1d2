//! Whom a verifier trusts: Sigstore's `trusted_root.json` (sigstore/protobuf-specs, `sigstore_trustroot.proto`).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pki_types::CertificateDer;
use serde::Deserialize;

use super::super::PublicKey;
use super::time;

/// The most authorities or logs of a kind that are read.
const MOST: usize = 64;

/// The authorities and logs that a verifier trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedRoot {
    pub(super) authorities: Vec<Authority>,
    pub(super) logs: Vec<Log>,
    pub(super) certificate_logs: Vec<Log>,
}

/// An authority that certifies identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    /// The last one is its root.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) valid: Period,
}

/// A log, of signatures or of certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) id: Vec<u8>,
    pub(super) key: PublicKey,
    pub(super) valid: Period,
}

/// From a second on, to another one, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    from: u64,
    to: u64,
}

impl Period {
    pub(super) fn holds(self, time: u64) -> bool {
        (self.from..=self.to).contains(&time)
    }
}

/// A text that is no trust root which could be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustedRootError {
    /// It isn't of that form.
    #[error("it isn't a trusted_root.json of Sigstore: {what}")]
    Form {
        /// What is wrong with it.
        what: String,
    },
    /// It names nobody.
    #[error("it names no {what} whose key could be used, so that no signature could be checked")]
    Nobody {
        /// Who is missing.
        what: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: String,
    #[serde(default)]
    tlogs: Vec<Instance>,
    #[serde(default)]
    certificate_authorities: Vec<Certifier>,
    #[serde(default)]
    ctlogs: Vec<Instance>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    public_key: Key,
    log_id: LogId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogId {
    key_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    raw_bytes: String,
    valid_for: Option<Range>,
}

#[derive(Deserialize)]
struct Range {
    start: Option<String>,
    end: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Certifier {
    cert_chain: Chain,
    valid_for: Option<Range>,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<Raw>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    raw_bytes: String,
}

impl TrustedRoot {
    /// Reads a `trusted_root.json`. Logs whose keys are of a kind that isn't known vouch for nothing and are left out.
    ///
    /// # Errors
    /// [`TrustedRootError`], in words that follow the file's name.
    pub fn parse(json: &[u8]) -> Result<Self, TrustedRootError> {
        let form = |what: &str| TrustedRootError::Form { what: what.to_owned() };
        let document: Document = serde_json::from_slice(json)
            .map_err(|error| TrustedRootError::Form { what: error.to_string() })?;
        if !document.media_type.starts_with("application/vnd.dev.sigstore.trustedroot") {
            return Err(form("its mediaType is another one"));
        }
        if [document.tlogs.len(), document.ctlogs.len(), document.certificate_authorities.len()]
            .iter()
            .any(|n| *n > MOST)
        {
            return Err(form("its lists are too long"));
        }
        let authority = |certifier: &Certifier| -> Option<Authority> {
            let raw = certifier.cert_chain.certificates.iter();
            let certificates: Vec<CertificateDer<'static>> =
                raw.map(|raw| Some(decode(&raw.raw_bytes)?.into())).collect::<Option<_>>()?;
            let valid = period(certifier.valid_for.as_ref())?;
            certificates.iter().all(|one| webpki::anchor_from_trusted_cert(one).is_ok()).then_some(())?;
            (!certificates.is_empty()).then_some(Authority { certificates, valid })
        };
        let authorities: Option<Vec<_>> = document.certificate_authorities.iter().map(authority).collect();
        let authorities = authorities.ok_or_else(|| {
            form("a certificate authority has no proper certificates, or doesn't say from when on it counts")
        })?;
        let root = Self {
            authorities,
            logs: logs(&document.tlogs).ok_or_else(|| form("a log has no proper key, identifier or time"))?,
            certificate_logs: logs(&document.ctlogs)
                .ok_or_else(|| form("a log of certificates has no proper key, identifier or time"))?,
        };
        if root.authorities.is_empty() {
            return Err(TrustedRootError::Nobody { what: "certificate authority" });
        }
        if root.logs.is_empty() {
            return Err(TrustedRootError::Nobody { what: "transparency log" });
        }
        // If there are logs of certificates, then one of them must be usable: else their promises would seem not to be wanted.
        if root.certificate_logs.is_empty() && !document.ctlogs.is_empty() {
            return Err(TrustedRootError::Nobody { what: "log of certificates" });
        }
        Ok(root)
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok()
}

fn period(range: Option<&Range>) -> Option<Period> {
    let range = range?;
    let from = time::seconds(range.start.as_deref()?)?;
    let to = match &range.end {
        Some(end) => time::seconds(end)?,
        None => u64::MAX,
    };
    Some(Period { from, to })
}

fn logs(instances: &[Instance]) -> Option<Vec<Log>> {
    let mut logs = Vec::new();
    for instance in instances {
        let (id, key) = (decode(&instance.log_id.key_id)?, decode(&instance.public_key.raw_bytes)?);
        let valid = period(instance.public_key.valid_for.as_ref())?;
        if let Ok(key) = PublicKey::from_der(key) {
            logs.push(Log { id, key, valid });
        }
    }
    Some(logs)
}
