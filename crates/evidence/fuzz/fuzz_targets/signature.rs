//! No bytes vouch for an image, and none make the judge panic.
//!
//! `cargo +nightly fuzz run signature` in `crates/evidence`.

#![no_main]

use evidence::signature::{PublicKey, bundle, simple};
use libfuzzer_sys::fuzz_target;

const KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----";
const DIGEST: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fuzz_target!(|input: (&[u8], &str)| {
    let (bytes, text) = input;
    let key = PublicKey::from_pem(KEY).expect("it is one");
    assert!(simple::verify(&key, bytes, text, DIGEST).is_err());
    assert!(bundle::verify(&key, bytes, DIGEST, b"hello").is_err());
    let _ = PublicKey::from_pem(text);
});
