//! Certificates in PEM (RFC 7468, section 5).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::KeylessError;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// The most certificates of one text.
const MOST: usize = 16;

/// Reads every certificate of a text, in DER; there must be one at least.
pub(in super::super) fn certificates(text: &str) -> Result<Vec<Vec<u8>>, KeylessError> {
    const NONE: KeylessError = KeylessError::Certificate { what: "it isn't one in PEM form" };
    let mut found = Vec::new();
    for part in text.split(BEGIN).skip(1).take(MOST) {
        let (body, _) = part.split_once(END).ok_or(NONE)?;
        let base64: String = body.split_whitespace().collect();
        found.push(BASE64_STANDARD.decode(base64).map_err(|_| NONE)?);
    }
    if found.is_empty() { Err(NONE) } else { Ok(found) }
}
