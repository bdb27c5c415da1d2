//! A signer's certificate: what Fulcio writes into it (sigstore/fulcio, `docs/certificate-specification.md`, `docs/oid-info.md`).

use pki_types::{CertificateDer, UnixTime};
use webpki::ring::{
    ECDSA_P256_SHA256, ECDSA_P256_SHA384, ECDSA_P384_SHA256, ECDSA_P384_SHA384, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
};
use webpki::{EndEntityCert, KeyUsage};

use super::der::{self, Value};
use super::{KeylessError, TrustedRoot};

/// 1.3.6.1.5.5.7.3.3, the use of a key for signing code.
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];
/// 2.5.29.37 and 2.5.29.17 (RFC 5280).
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// 1.3.6.1.4.1.57264.1.1, the issuer as plain bytes, and 1.3.6.1.4.1.57264.1.8, the same as a DER string.
const ISSUER_PLAIN: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x01];
const ISSUER: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x08];
/// 1.3.6.1.4.1.57264.1.7, a name that is neither an address nor a URI.
const OTHER_NAME: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x07];
/// 1.3.6.1.4.1.11129.2.4.2, what certificate logs promised (RFC 6962, section 3.3).
const TIMESTAMPS: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02];
/// The most certificates that a signature may bring along.
const MOST_BROUGHT: usize = 8;
const EXTENSIONS: u8 = 0xa3;

/// What a certificate says, once it is known to be an authority's.
#[derive(Debug)]
pub(super) struct Leaf<'d> {
    /// The key, with its algorithm, in DER.
    pub(super) key: &'d [u8],
    /// Whose it is.
    pub(super) identity: String,
    /// Who has looked at that.
    pub(super) issuer: String,
    /// The promises of certificate logs.
    pub(super) timestamps: Option<&'d [u8]>,
    /// What the logs have signed: the certificate's content without their promises.
    pub(super) logged: Vec<u8>,
}

/// Reads a certificate.
pub(super) fn read(certificate: &[u8]) -> Result<Leaf<'_>, KeylessError> {
    const DAMAGED: KeylessError = KeylessError::Certificate { what: "it isn't one in DER form" };
    let fields = der::only(certificate, der::SEQUENCE).and_then(der::all).ok_or(DAMAGED)?;
    let tbs = fields.first().filter(|tbs| tbs.tag == der::SEQUENCE).ok_or(DAMAGED)?;
    let fields = der::all(tbs.content).ok_or(DAMAGED)?;
    // version, serial number, algorithm, issuer, validity, subject, key, ..., extensions (RFC 5280, section 4.1).
    let key = fields.get(6).filter(|key| key.tag == der::SEQUENCE).ok_or(DAMAGED)?;
    let (last, before) = fields.split_last().ok_or(DAMAGED)?;
    let list = Some(last)
        .filter(|last| last.tag == EXTENSIONS)
        .and_then(|last| der::only(last.content, der::SEQUENCE));
    let extensions = list.and_then(der::all).ok_or(DAMAGED)?;
    let extensions: Vec<(Value<'_>, Extension<'_>)> = extensions
        .into_iter()
        .map(|value| Some((value, Extension::read(value)?)))
        .collect::<Option<_>>()
        .ok_or(DAMAGED)?;
    let found = |id: &[u8]| -> Result<Option<&[u8]>, KeylessError> {
        let mut values =
            extensions.iter().filter(|(_, extension)| extension.id == id).map(|(_, known)| known.value);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(KeylessError::Certificate { what: "it says the same thing twice" }),
            (value, None) => Ok(value),
        }
    };
    let uses = found(EXTENDED_KEY_USAGE)?.and_then(|value| der::all(der::only(value, der::SEQUENCE)?));
    if !uses.unwrap_or_default().iter().any(|usage| usage.tag == der::OID && usage.content == CODE_SIGNING) {
        return Err(KeylessError::Certificate { what: "it isn't for signing code" });
    }
    let names = found(SUBJECT_ALT_NAME)?.and_then(|value| der::all(der::only(value, der::SEQUENCE)?));
    let [name] = names.as_deref().unwrap_or_default() else {
        return Err(KeylessError::Certificate { what: "it must name one identity" });
    };
    let identity = identity(*name).ok_or(KeylessError::Certificate {
        what: "its identity is neither an address of mail, a URI nor a user's name",
    })?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok().filter(|text| !text.is_empty());
    let plain = found(ISSUER_PLAIN)?.map(text);
    let named = found(ISSUER)?.map(|value| der::only(value, der::UTF8).and_then(text));
    let issuer = match (named, plain) {
        (Some(Some(issuer)), None) | (None, Some(Some(issuer))) => issuer,
        (Some(Some(issuer)), Some(Some(plain))) if issuer == plain => issuer,
        _ => {
            return Err(KeylessError::Certificate {
                what: "it doesn't say, or not clearly, who issued the identity",
            });
        }
    };
    let timestamps = match found(TIMESTAMPS)? {
        Some(value) => Some(der::only(value, der::OCTETS).ok_or(DAMAGED)?),
        None => None,
    };
    let others = extensions.iter().filter(|(_, extension)| extension.id != TIMESTAMPS);
    let others: Vec<u8> = others.flat_map(|(value, _)| value.whole.iter().copied()).collect();
    let mut logged: Vec<u8> = before.iter().flat_map(|field| field.whole.iter().copied()).collect();
    logged.extend(der::write(EXTENSIONS, &der::write(der::SEQUENCE, &others)));
    Ok(Leaf { key: key.whole, identity, issuer, timestamps, logged: der::write(der::SEQUENCE, &logged) })
}

struct Extension<'d> {
    id: &'d [u8],
    value: &'d [u8],
}

impl<'d> Extension<'d> {
    fn read(value: Value<'d>) -> Option<Self> {
        let fields = (value.tag == der::SEQUENCE).then(|| der::all(value.content))??;
        let (id, value) = match fields.as_slice() {
            [id, value] => (id, value),
            [id, critical, value] if critical.tag == der::BOOLEAN => (id, value),
            _ => return None,
        };
        (id.tag == der::OID && value.tag == der::OCTETS)
            .then_some(Self { id: id.content, value: value.content })
    }
}

/// The identity in a name (RFC 5280, `GeneralName`).
fn identity(name: Value<'_>) -> Option<String> {
    let bytes = match name.tag {
        // rfc822Name, uniformResourceIdentifier
        0x81 | 0x86 => Some(name.content).filter(|bytes| bytes.is_ascii())?,
        // otherName
        0xa0 => match der::all(name.content)?.as_slice() {
            [id, value] if id.tag == der::OID && id.content == OTHER_NAME && value.tag == 0xa0 => {
                der::only(value.content, der::UTF8)?
            }
            _ => return None,
        },
        _ => return None,
    };
    String::from_utf8(bytes.to_vec())
        .ok()
        .filter(|text| !text.is_empty() && !text.chars().any(char::is_control))
}

/// Checks that an authority of the trust root vouches for a certificate at a time (seconds since 1970), and gives the key that
/// has signed it, with its algorithm, in DER. `brought` are certificates on the way that came along with it.
pub(super) fn check(
    root: &TrustedRoot,
    certificate: &[u8],
    brought: &[Vec<u8>],
    time: u64,
) -> Result<Vec<u8>, KeylessError> {
    let chain = |error: webpki::Error| KeylessError::Chain { why: error.to_string() };
    let der = CertificateDer::from(certificate);
    let leaf = EndEntityCert::try_from(&der).map_err(chain)?;
    let moment = UnixTime::since_unix_epoch(std::time::Duration::from_secs(time));
    let algorithms = [
        ECDSA_P256_SHA256,
        ECDSA_P256_SHA384,
        ECDSA_P384_SHA256,
        ECDSA_P384_SHA384,
        ED25519,
        RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384,
        RSA_PKCS1_2048_8192_SHA512,
    ];
    let mut why = KeylessError::NoAuthority;
    for authority in root.authorities.iter().filter(|authority| authority.valid.holds(time)) {
        let Some((anchor, between)) = authority.certificates.split_last() else { continue };
        let Ok(trusted) = webpki::anchor_from_trusted_cert(anchor) else { continue };
        let brought = brought.iter().take(MOST_BROUGHT).map(|der| CertificateDer::from(der.as_slice()));
        let between: Vec<CertificateDer<'_>> = between.iter().cloned().chain(brought).collect();
        let anchors = [trusted];
        let usage = KeyUsage::required_if_present(CODE_SIGNING);
        match leaf.verify_for_usage(&algorithms, &anchors, &between, moment, usage, None, None) {
            Ok(path) => {
                let issuer = path.intermediate_certificates().next();
                return Ok(match issuer {
                    Some(issuer) => issuer.subject_public_key_info().to_vec(),
                    None => der::write(der::SEQUENCE, path.anchor().subject_public_key_info.as_ref()),
                });
            }
            Err(error) => why = chain(error),
        }
    }
    Err(why)
}
