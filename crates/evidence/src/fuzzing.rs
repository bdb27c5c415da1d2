//! What the fuzz targets of this crate do with any bytes; tests do the same with real inputs that were changed.

use crate::advisory::{Advisory, scheme};
use crate::signature::{PublicKey, TrustedRoot, bundle, simple};
use crate::version::Scheme;

const KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----";
const DIGEST: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// An advisory, which judges any version.
pub fn advisory(bytes: &[u8]) {
    let Ok(Some(advisory)) = Advisory::parse(bytes) else { return };
    for affected in &advisory.affected {
        // Others are left out.
        let Some(scheme) = scheme(&affected.ecosystem) else { continue };
        for version in affected.versions.iter().map(String::as_str).chain(["1.0", "", "0~1", &advisory.id]) {
            let verdict = affected.judge(scheme, version);
            assert!(verdict.is_some() || !affected.versions.iter().any(|listed| listed == version));
        }
    }
}

/// A payload or bundle, and a signature or key; the first zero parts them. None vouches for an image.
pub fn signature(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (payload, text) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let text = String::from_utf8_lossy(text);
    if let Ok(key) = PublicKey::from_pem(KEY) {
        assert!(simple::verify(&key, payload, &text, DIGEST).is_err());
        assert!(bundle::verify(&key, payload, DIGEST, b"hello").is_err());
    }
    let _ = PublicKey::from_pem(&text);
}

/// Everything that belongs to a signature of an identity: trust root, certificate, promises, entry and proof.
pub fn keyless(bytes: &[u8]) {
    if let Ok(root) = TrustedRoot::parse(bytes) {
        assert!(bundle::verify_keyless(&root, bytes, DIGEST, b"hello").is_err());
    }
    crate::signature::keyless::read_anything(bytes);
}

/// Three versions, parted by line breaks: every order is total.
pub fn version(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.splitn(3, '\n');
    let (a, b, c) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    for scheme in Scheme::ALL {
        assert_eq!(scheme.compare(a, b), scheme.compare(b, a).reverse());
        let mut three = [a, b, c];
        three.sort_by(|left, right| scheme.compare(left, right));
        assert!(scheme.compare(three[0], three[1]).is_le());
        assert!(scheme.compare(three[1], three[2]).is_le());
        assert!(scheme.compare(three[0], three[2]).is_le());
    }
}

#[cfg(test)]
mod tests;
