use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{SignatureError, bundle, simple};
use super::*;

use crate::sigstore as maker;
use maker::{Certificate, DIGEST, IDENTITY, ISSUER, MANIFEST, TIME, World};

impl World {
    fn root(&self) -> TrustedRoot {
        TrustedRoot::parse(self.root_document().to_string().as_bytes()).unwrap()
    }
}

fn judge(world: &World, bundle: &Value) -> Result<Signer, SignatureError> {
    bundle::verify_keyless(&world.root(), bundle.to_string().as_bytes(), DIGEST, MANIFEST)
}

fn refusal(world: &World, bundle: &Value) -> String {
    judge(world, bundle).unwrap_err().to_string()
}

fn judge_simple(world: &World, layer: &maker::Layer) -> Result<Signer, SignatureError> {
    let material =
        simple::Keyless { certificate: &layer.certificate, chain: Some(&layer.chain), bundle: &layer.bundle };
    simple::verify_keyless(&world.root(), layer.payload.as_bytes(), &layer.signature, &material, DIGEST)
}

#[test]
fn an_identity_s_signature_vouches_for_an_image_in_every_form() {
    let world = World::new();
    let expected = Signer { identity: IDENTITY.to_owned(), issuer: ISSUER.to_owned(), time: TIME };
    for kind in ["dsse", "hashedrekord"] {
        let bundle = world.bundle(&Certificate::default(), kind);
        assert_eq!(judge(&world, &bundle), Ok(expected.clone()), "{kind}");
    }
    let over_manifest = world.bundle_over_manifest(&Certificate::default());
    assert_eq!(judge(&world, &over_manifest), Ok(expected.clone()));
    assert_eq!(judge_simple(&world, &world.layer(&Certificate::default())), Ok(expected.clone()));
    // The same for the other ways to say who it is.
    for certificate in [
        Certificate {
            name: maker::mail("me@example.org"),
            identity_text: "me@example.org",
            ..Certificate::default()
        },
        Certificate { name: maker::user("me"), identity_text: "me", ..Certificate::default() },
        Certificate { issuers: [true, false], ..Certificate::default() },
        Certificate { issuers: [false, true], ..Certificate::default() },
    ] {
        let signer = judge(&world, &world.bundle(&certificate, "dsse")).unwrap();
        assert_eq!((signer.identity.as_str(), signer.issuer.as_str()), (certificate.identity_text, ISSUER));
    }
    // Where the root certifies signers itself.
    let signer =
        judge(&world, &world.bundle(&Certificate { by_root: true, ..Certificate::default() }, "dsse"));
    assert_eq!(signer, Ok(expected));
}

/// Every value of a document that holds no others, with where it is.
fn leaves(value: &Value, at: &str, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| leaves(value, &format!("{at}/{key}"), found))
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| leaves(value, &format!("{at}/{index}"), found));
        }
        leaf => found.push((at.to_owned(), leaf.clone())),
    }
}

/// The same value, a little different: a bit of what base64 hides, a number, a letter.
fn bent(value: &Value) -> Vec<Value> {
    let Value::String(text) = value else {
        return value.as_u64().map(|number| json!(number + 1)).into_iter().collect();
    };
    let mut out = vec![json!(""), json!(format!("x{text}"))];
    if let Ok(number) = text.parse::<u64>() {
        out.extend([json!((number + 1).to_string()), json!(number.saturating_sub(1).to_string())]);
    } else if let Ok(bytes) = BASE64_STANDARD.decode(text) {
        for at in [0, bytes.len() / 2, bytes.len().saturating_sub(1)] {
            let mut bytes = bytes.clone();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1;
            }
            out.push(json!(BASE64_STANDARD.encode(bytes)));
        }
    } else {
        let mut chars: Vec<char> = text.chars().collect();
        let middle = chars.len() / 2;
        chars[middle] = if chars[middle] == '7' { '8' } else { '7' };
        out.push(json!(chars.into_iter().collect::<String>()));
    }
    out.retain(|changed| changed != value);
    out
}

/// Bends each value of a document in turn, and gives those places where nobody noticed.
fn unnoticed(document: &Value, judge: impl Fn(&Value) -> bool) -> Vec<String> {
    assert!(judge(document), "it counts as it is");
    let mut found = Vec::new();
    leaves(document, "", &mut found);
    assert!(found.len() > 4, "{found:?}");
    let mut unnoticed = Vec::new();
    for (at, value) in found {
        for changed in bent(&value) {
            let mut other = document.clone();
            *other.pointer_mut(&at).unwrap() = changed.clone();
            if judge(&other) {
                unnoticed.push(format!("{at} = {changed}"));
            }
        }
        // Nor may anything be left out.
        let (parent, key) = at.rsplit_once('/').unwrap();
        let mut other = document.clone();
        match other.pointer_mut(parent).unwrap() {
            Value::Object(map) => drop(map.shift_remove(key)),
            Value::Array(list) => drop(list.remove(key.parse().unwrap())),
            _ => unreachable!(),
        }
        if judge(&other) {
            unnoticed.push(format!("{at} left out"));
        }
    }
    unnoticed
}

#[test]
fn each_field_of_a_bundle_that_is_changed_is_noticed() {
    let world = World::new();
    for bundle in
        [world.bundle(&Certificate::default(), "dsse"), world.bundle(&Certificate::default(), "hashedrekord")]
    {
        assert_eq!(unnoticed(&bundle, |bundle| judge(&world, bundle).is_ok()), Vec::<String>::new());
    }
    let over_manifest = world.bundle_over_manifest(&Certificate::default());
    assert_eq!(unnoticed(&over_manifest, |bundle| judge(&world, bundle).is_ok()), Vec::<String>::new());
}

#[test]
fn each_field_of_cosign_s_annotations_that_is_changed_is_noticed() {
    let world = World::new();
    let layer = world.layer(&Certificate::default());
    let judged = |layer: &maker::Layer| judge_simple(&world, layer).is_ok();
    let bundle: Value = serde_json::from_str(&layer.bundle).unwrap();
    let found =
        unnoticed(&bundle, |bundle| judged(&maker::Layer { bundle: bundle.to_string(), ..layer.clone() }));
    assert_eq!(found, Vec::<String>::new());
    let other = world.layer(&Certificate::default());
    for changed in [
        maker::Layer { payload: layer.payload.replace("cosign", "Cosign"), ..layer.clone() },
        maker::Layer { signature: other.signature.clone(), ..layer.clone() },
        maker::Layer { certificate: other.certificate.clone(), ..layer.clone() },
        maker::Layer { certificate: String::new(), ..layer.clone() },
        maker::Layer { certificate: format!("{}{}", layer.certificate, other.certificate), ..layer.clone() },
        maker::Layer { bundle: other.bundle.clone(), ..layer.clone() },
        maker::Layer { chain: "no certificate".to_owned(), ..layer.clone() },
    ] {
        assert!(!judged(&changed), "{changed:?}");
    }
    // The chain only helps to find the way to the trust root: without it the trust root's own certificates do.
    assert!(judged(&maker::Layer { chain: String::new(), ..layer.clone() }));
    // Where they don't, the chain must lead there.
    let mut sparse = world.root_document();
    let certificates = &mut sparse["certificateAuthorities"][0]["certChain"]["certificates"];
    *certificates = json!([certificates[1]]);
    let root = TrustedRoot::parse(sparse.to_string().as_bytes()).unwrap();
    let judged = |chain: &str| {
        let material =
            simple::Keyless { certificate: &layer.certificate, chain: Some(chain), bundle: &layer.bundle };
        simple::verify_keyless(&root, layer.payload.as_bytes(), &layer.signature, &material, DIGEST)
    };
    assert!(judged(&layer.chain).is_ok());
    assert!(judged("").unwrap_err().to_string().contains("no certificate authority"));
}

#[test]
fn a_certificate_that_isn_t_a_signer_s_doesn_t_count() {
    let world = World::new();
    for (certificate, part) in [
        (Certificate { days_later: 1, ..Certificate::default() }, "CertNotValidYet"),
        (Certificate { days_later: -1, ..Certificate::default() }, "CertExpired"),
        (Certificate { for_code: false, ..Certificate::default() }, ""),
        (Certificate { is_authority: true, ..Certificate::default() }, "CaUsedAsEndEntity"),
        (Certificate { name: Vec::new(), ..Certificate::default() }, "must name one identity"),
        (
            Certificate { name: [maker::mail("a@b"), maker::mail("c@d")].concat(), ..Certificate::default() },
            "one identity",
        ),
        (Certificate { name: maker::mail("a\nb"), ..Certificate::default() }, "neither an address"),
        (Certificate { name: maker::mail("\u{fc}@b"), ..Certificate::default() }, ""),
        (Certificate { name: maker::write(0x82, b"a"), ..Certificate::default() }, "neither an address"),
        (Certificate { issuers: [false, false], ..Certificate::default() }, "who issued the identity"),
        (Certificate { other_issuer: true, ..Certificate::default() }, "who issued the identity"),
        (Certificate { promised: false, ..Certificate::default() }, "promise"),
        (Certificate { promise_of_other: true, ..Certificate::default() }, "promise"),
    ] {
        let said = refusal(&world, &world.bundle(&certificate, "dsse"));
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn whom_the_trust_root_doesn_t_know_vouches_for_nothing() {
    let (world, other) = (World::new(), World::new());
    let bundle = world.bundle(&Certificate::default(), "dsse");
    let mixed = |table: &str| {
        let mut document = world.root_document();
        document[table] = other.root_document()[table].clone();
        let root = TrustedRoot::parse(document.to_string().as_bytes()).unwrap();
        bundle::verify_keyless(&root, bundle.to_string().as_bytes(), DIGEST, MANIFEST)
            .unwrap_err()
            .to_string()
    };
    for (table, part) in [
        ("tlogs", "which the trust root doesn't have"),
        ("ctlogs", "promise"),
        ("certificateAuthorities", "no certificate authority of the trust root vouches"),
    ] {
        assert!(mixed(table).contains(part), "{table}: {}", mixed(table));
    }
    // A log that is known by its identifier, with another key.
    let mut document = world.root_document();
    document["tlogs"][0]["publicKey"] = other.root_document()["tlogs"][0]["publicKey"].clone();
    let root = TrustedRoot::parse(document.to_string().as_bytes()).unwrap();
    let said = bundle::verify_keyless(&root, bundle.to_string().as_bytes(), DIGEST, MANIFEST).unwrap_err();
    assert!(said.to_string().contains("the log's signature over it isn't proper"), "{said}");
    // Neither does anybody outside the time for which it is trusted; the last second counts.
    for table in ["tlogs", "ctlogs", "certificateAuthorities"] {
        for (start, end, counts) in [
            ("2023-11-14T22:13:21Z", None, false),
            ("2020-01-01T00:00:00Z", Some("2023-11-14T22:13:19Z"), false),
            ("2020-01-01T00:00:00Z", Some("2023-11-14T22:13:20.999Z"), true),
        ] {
            let mut document = world.root_document();
            let range = json!({ "start": start, "end": end });
            match table {
                "certificateAuthorities" => document[table][0]["validFor"] = range,
                _ => document[table][0]["publicKey"]["validFor"] = range,
            }
            let root = TrustedRoot::parse(document.to_string().as_bytes()).unwrap();
            let judged = bundle::verify_keyless(&root, bundle.to_string().as_bytes(), DIGEST, MANIFEST);
            assert_eq!(judged.is_ok(), counts, "{table} {start} {end:?}");
        }
    }
    // Where the trust root has no logs of certificates, none must have promised anything.
    let mut document = world.root_document();
    document["ctlogs"] = json!([]);
    let root = TrustedRoot::parse(document.to_string().as_bytes()).unwrap();
    let unpromised = world.bundle(&Certificate { promised: false, ..Certificate::default() }, "dsse");
    assert!(bundle::verify_keyless(&root, unpromised.to_string().as_bytes(), DIGEST, MANIFEST).is_ok());
}

#[test]
fn an_entry_about_another_signature_is_of_no_use() {
    let world = World::new();
    let (one, two) =
        (world.bundle(&Certificate::default(), "dsse"), world.bundle(&Certificate::default(), "dsse"));
    let mut swapped = one.clone();
    swapped["verificationMaterial"]["tlogEntries"] = two["verificationMaterial"]["tlogEntries"].clone();
    let said = refusal(&world, &swapped);
    assert!(said.contains("about another signature"), "{said}");
    let mut both = one.clone();
    let entries = both["verificationMaterial"]["tlogEntries"].as_array_mut().unwrap();
    entries.push(two["verificationMaterial"]["tlogEntries"][0].clone());
    assert!(judge(&world, &both).is_err());
    // The same message signed by the same key, logged with somebody else's certificate.
    let said = refusal(
        &world,
        &world.bundle(&Certificate { logged_with_other: true, ..Certificate::default() }, "dsse"),
    );
    assert!(said.contains("another certificate"), "{said}");
    for (kind, version) in [("intoto", "0.0.2"), ("dsse", "0.0.2"), ("hashedrekord", "0.0.2")] {
        let said = refusal(&world, &world.bundle_of_kind(&Certificate::default(), kind, version));
        assert!(said.contains("of a kind that isn't judged"), "{kind}: {said}");
    }
}

#[test]
fn an_identity_is_meant_as_a_whole_or_by_its_start_and_always_with_its_issuer() {
    let signer = Signer { identity: IDENTITY.to_owned(), issuer: ISSUER.to_owned(), time: TIME };
    let covers = |identity: &str, issuer: &str| {
        Identity { identity: identity.to_owned(), issuer: issuer.to_owned() }.covers(&signer)
    };
    assert!(
        covers(IDENTITY, ISSUER) && covers("https://example.org/acme/app/release.yml@refs/heads/*", ISSUER)
    );
    assert!(
        !covers("https://example.org/acme", ISSUER) && !covers("https://example.org/acmeister/*", ISSUER)
    );
    assert!(!covers(IDENTITY, "https://token.example.org/") && !covers(IDENTITY, ""));
}

#[test]
fn keys_and_identities_aren_t_taken_for_each_other() {
    let world = World::new();
    let keyless = world.bundle(&Certificate::default(), "dsse").to_string();
    let key = PublicKey::from_der(world.certificate_logs_key()).unwrap();
    let said = bundle::verify(&key, keyless.as_bytes(), DIGEST, MANIFEST).unwrap_err().to_string();
    assert!(said.contains("by an identity (keyless)"), "{said}");
    let mut keyed = world.bundle(&Certificate::default(), "dsse");
    keyed["verificationMaterial"]["publicKey"] = json!({ "hint": "" });
    assert!(refusal(&world, &keyed).contains("signed with a key"));
}

#[test]
fn what_is_no_trust_root_is_refused_with_what_is_wrong() {
    let world = World::new();
    let changed = |pointer: &str, value: Value| {
        let mut document = world.root_document();
        *document.pointer_mut(pointer).unwrap() = value;
        TrustedRoot::parse(document.to_string().as_bytes()).unwrap_err().to_string()
    };
    assert!(TrustedRoot::parse(world.root_document().to_string().as_bytes()).is_ok());
    for (pointer, value, part) in [
        ("/mediaType", json!("x"), "mediaType"),
        ("/tlogs", json!([]), "no transparency log"),
        ("/certificateAuthorities", json!([]), "no certificate authority"),
        ("/tlogs/0/publicKey/rawBytes", json!("!"), "a log has no proper key"),
        ("/tlogs/0/publicKey/rawBytes", json!("AAAA"), "no transparency log whose key could be used"),
        ("/ctlogs/0/publicKey/rawBytes", json!("AAAA"), "no log of certificates whose key could be used"),
        ("/tlogs/0/publicKey/validFor", json!({}), "or time"),
        ("/certificateAuthorities/0/validFor/start", json!("yesterday"), "from when on"),
        ("/certificateAuthorities/0/certChain/certificates", json!([]), "no proper certificates"),
        (
            "/certificateAuthorities/0/certChain/certificates/0/rawBytes",
            json!("AAAA"),
            "no proper certificates",
        ),
        ("/ctlogs", json!(vec![json!({}); 3]), "missing field"),
    ] {
        let said = changed(pointer, value);
        assert!(said.contains(part), "{pointer}: {said}");
    }
    assert!(TrustedRoot::parse(b"[]").is_err());
}

proptest! {
    #[test]
    fn no_bytes_vouch_or_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,80}") {
        let _ = certificate::read(&bytes);
        let _ = promise::check(&World::shared().root(), Some(&bytes), &bytes, &bytes);
        let _ = TrustedRoot::parse(&bytes);
        prop_assert!(Entry::of_annotation(&text).is_err());
        prop_assert!(bundle::verify_keyless(&World::shared().root(), &bytes, DIGEST, MANIFEST).is_err());
    }

    #[test]
    fn one_bit_changed_in_a_certificate_is_noticed(at in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let world = World::shared();
        let mut bundle = world.sample().clone();
        let pointer = "/verificationMaterial/certificate/rawBytes";
        let mut der = BASE64_STANDARD.decode(bundle.pointer(pointer).unwrap().as_str().unwrap()).unwrap();
        let at = at.index(der.len());
        der[at] ^= 1 << bit;
        let _ = certificate::read(&der);
        *bundle.pointer_mut(pointer).unwrap() = json!(BASE64_STANDARD.encode(der));
        prop_assert!(judge(world, &bundle).is_err());
    }
}
