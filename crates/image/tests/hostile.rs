//! Registries and layers that lie: each is refused with a reason, and leaves nothing in the store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use image::{Digest, PullOptions, Reference, StoreOptions};
use serde_json::json;

mod support;
use support::wire::{Answer, Request, Web};
use support::*;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image of one layer, every part of which a test may bend.
#[derive(Clone)]
struct Forged {
    packed: Vec<u8>,
    digest: Digest,
    size: u64,
    diff_id: Digest,
    urls: Vec<String>,
}

impl Forged {
    fn honest(tar: &[u8]) -> Forged {
        let packed = gzip(tar);
        Forged {
            digest: Digest::of(&packed),
            size: packed.len() as u64,
            diff_id: Digest::of(tar),
            packed,
            urls: Vec::new(),
        }
    }

    fn config(&self) -> Vec<u8> {
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [self.diff_id] },
        });
        config.to_string().into_bytes()
    }

    fn manifest(&self) -> Vec<u8> {
        let config = self.config();
        let manifest = json!({
            "schemaVersion": 2,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&config), "size": config.len(),
            },
            "layers": [{ "mediaType": LAYER, "digest": self.digest, "size": self.size, "urls": self.urls }],
        });
        manifest.to_string().into_bytes()
    }

    fn answer(&self, request: &Request) -> Answer {
        let config = self.config();
        if request.path.contains("/manifests/") {
            Answer::new(200, self.manifest())
        } else if request.path.ends_with(Digest::of(&config).hex()) {
            Answer::new(200, config)
        } else if request.path.ends_with(self.digest.hex()) {
            Answer::new(200, self.packed.clone())
        } else {
            Answer::new(404, "")
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        // Written by hand, because the builder refuses the names that matter here.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn amd64() -> StoreOptions {
    StoreOptions { platform: "linux/amd64".parse().unwrap(), ..StoreOptions::default() }
}

fn options() -> PullOptions {
    PullOptions {
        docker_config: Some(PathBuf::from("/nonexistent")),
        plain_http: true,
        ..PullOptions::default()
    }
}

fn name(web: &Web) -> Reference {
    format!("{}/x", web.address).parse().unwrap()
}

/// Pulls and returns the refusal, after checking that it left nothing.
fn refusal(web: &Web, limits: StoreOptions) -> String {
    let shelf = Shelf::with(limits);
    let error = shelf.store.pull(&name(web), &options(), &|_| {}).expect_err("it should have been refused");
    shelf.assert_empty();
    chain(&error)
}

fn serve(image: Forged) -> Web {
    Web::serve(move |request| image.answer(request))
}

#[test]
fn an_honest_image_by_the_same_server_is_taken() {
    let shelf = Shelf::with(amd64());
    let image =
        Forged { urls: vec!["http://127.0.0.1:1/never".into()], ..Forged::honest(&tar(&[("a", b"b")])) };
    let web = serve(image);
    let pulled = shelf.store.pull(&name(&web), &options(), &|_| {});
    assert!(pulled.is_ok(), "{}", chain(&pulled.unwrap_err()));
}

#[test]
fn a_layer_that_lies_is_refused_and_leaves_nothing() {
    let honest = Forged::honest(&tar(&[("a", &noise(1, 300_000))]));
    let other = Digest::of(b"other");
    let mut flipped = honest.packed.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut longer = honest.packed.clone();
    longer.extend([0; 1000]);
    let no_gzip = {
        let mut packed = honest.packed.clone();
        packed[5000..6000].fill(0);
        packed
    };
    let table = [
        (Forged { packed: flipped, ..honest.clone() }, "its bytes have the digest"),
        (Forged { digest: other.clone(), ..honest.clone() }, "its bytes have the digest"),
        (Forged { packed: no_gzip, ..honest.clone() }, "its bytes have the digest"),
        (Forged { diff_id: other, ..honest.clone() }, "the configuration's diff_id is"),
        (Forged { size: honest.size - 1, ..honest.clone() }, "is declared to have"),
        (Forged { size: honest.size + 1, ..honest.clone() }, "is declared to have"),
        (Forged { size: u64::MAX, ..honest.clone() }, "needs 18446744073709551615 bytes"),
        (Forged { packed: longer, ..honest.clone() }, "is declared to have"),
        (Forged::honest(&tar(&[("../../evil", b"x")])), "\"..\""),
        (Forged::honest(&tar(&[("a", &[b'x'; 1000])])[..700]), "ends at byte"),
        (Forged::honest(b"not a tar at all, but long enough to be looked at"), "tar"),
    ];
    for (image, expected) in table {
        let found = refusal(&serve(image), amd64());
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn decompression_bombs_are_refused_whatever_they_are_packed_with() {
    let limits = || StoreOptions { unpacked_bytes: 4 << 20, ..amd64() };
    let zeros = tar(&[("zeros", &vec![0; 64 << 20])]);
    let bomb = Forged::honest(&zeros);
    assert!(bomb.size < 1 << 20);
    let found = refusal(&serve(bomb.clone()), limits());
    assert!(found.contains("unpack") && found.contains("to more than 4194304"), "{found}");
    let packed = zstd::encode_all(zeros.as_slice(), 1).unwrap();
    let bomb = Forged { digest: Digest::of(&packed), size: packed.len() as u64, packed, ..bomb };
    let found = refusal(&serve(bomb), limits());
    assert!(found.contains("unpack") && found.contains("to more than 4194304"), "{found}");
    let names: Vec<String> = (0..5000).map(|number| format!("file-{number}")).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let many = Forged::honest(&tar(&entries));
    let found = refusal(&serve(many), StoreOptions { entries: 1000, ..amd64() });
    assert!(found.contains("1000"), "{found}");
}

#[test]
fn a_broken_transfer_is_taken_up_where_it_broke() {
    let image = Forged::honest(&tar(&[("a", &noise(2, 3_000_000))]));
    for knows_ranges in [true, false] {
        let (image, breaks) = (image.clone(), Arc::new(AtomicUsize::new(0)));
        let web = Web::serve(move |request| {
            if !request.path.ends_with(image.digest.hex()) {
                return image.answer(request);
            }
            let range = request.headers.get("range").and_then(|r| r.strip_prefix("bytes="));
            let from: usize = range.and_then(|r| r.trim_end_matches('-').parse().ok()).unwrap_or(0);
            let from = if knows_ranges { from } else { 0 };
            let last = image.packed.len() - 1;
            let mut answer = match from {
                0 => Answer::new(200, image.packed.clone()),
                _ => Answer::new(206, image.packed[from..].to_vec())
                    .with("Content-Range", format!("bytes {from}-{last}/{}", last + 1)),
            };
            if breaks.fetch_add(1, Ordering::SeqCst) < 2 {
                answer.cut = Some(answer.body.len() / 2);
            }
            answer
        });
        let shelf = Shelf::with(amd64());
        let pulled = shelf.store.pull(&name(&web), &options(), &|_| {});
        assert!(pulled.is_ok(), "{}", chain(&pulled.unwrap_err()));
        let ranges: Vec<_> = web.seen().iter().filter_map(|r| r.headers.get("range").cloned()).collect();
        assert_eq!(ranges.len(), 2, "{ranges:?}");
        shelf.assert_clean();
    }
}

#[test]
fn a_server_that_is_busy_is_asked_again_and_one_that_always_breaks_is_given_up() {
    let image = Forged::honest(&tar(&[("a", b"b")]));
    let (busy, tries) = (image.clone(), AtomicUsize::new(0));
    let web = Web::serve(move |request| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::new(503, ""),
        _ => busy.answer(request),
    });
    let shelf = Shelf::with(amd64());
    shelf.store.pull(&name(&web), &options(), &|_| {}).unwrap();
    let web = Web::serve(move |request| {
        let mut answer = image.answer(request);
        if request.path.ends_with(image.digest.hex()) {
            answer.cut = Some(10);
        }
        answer
    });
    let found = refusal(&web, amd64());
    assert!(found.contains("failed after"), "{found}");
}

#[test]
fn redirects_end_and_never_lead_from_a_far_registry_to_this_machine() {
    let inner = Web::serve(|_| Answer::new(200, "secret"));
    let web = Web::serve(|request| Answer::new(302, "").with("Location", request.path.clone()));
    let found = refusal(&web, amd64());
    assert!(found.contains("is redirected more than 5 times"), "{found}");
    for location in ["file:///etc/passwd", "http://user:word@127.0.0.1/", "gopher://x/"] {
        let web = Web::serve(move |_| Answer::new(302, "").with("Location", location));
        let found = refusal(&web, amd64());
        assert!(found.contains("isn't an address that can be asked"), "{location}: {found}");
    }
    // A registry on this machine may not lead to a link's own services, such as a cloud's metadata.
    for location in
        ["http://169.254.169.254/latest/meta-data", "http://[fe80::1]/x", "http://[::ffff:169.254.169.254]/x"]
    {
        let web = Web::serve(move |_| Answer::new(302, "").with("Location", location));
        let found = refusal(&web, amd64());
        assert!(found.contains("leads where it may not"), "{location}: {found}");
    }
    let realm = "Bearer realm=\"http://169.254.169.254/token\"";
    let web = Web::serve(move |_| Answer::new(401, "").with("WWW-Authenticate", realm));
    let found = refusal(&web, amd64());
    assert!(found.contains("leads where it may not"), "{found}");
    assert!(inner.seen().is_empty());
}

#[test]
fn documents_that_are_too_large_or_wrong_are_refused() {
    let image = Forged::honest(&tar(&[("a", b"b")]));
    let large = Web::serve(|_| Answer::new(200, vec![b' '; (4 << 20) + 10]));
    let found = refusal(&large, amd64());
    assert!(found.contains("a manifest of more than 4194304 bytes"), "{found}");
    let (config, lying) = (Digest::of(&image.config()), image.clone());
    let web = Web::serve(move |request| match request.path.ends_with(config.hex()) {
        true => Answer::new(200, vec![b'{'; lying.config().len()]),
        false => lying.answer(request),
    });
    let found = refusal(&web, amd64());
    assert!(found.contains("what was served as"), "{found}");
    let other = image.clone();
    let web = Web::serve(move |request| other.answer(request));
    let by_digest: Reference = format!("{}/x@{}", web.address, Digest::of(b"else")).parse().unwrap();
    let shelf = Shelf::with(amd64());
    let error = shelf.store.pull(&by_digest, &options(), &|_| {}).unwrap_err();
    assert!(chain(&error).contains("serves the manifest"), "{}", chain(&error));
    let schema_one = Web::serve(|_| Answer::new(200, r#"{"schemaVersion":1,"fsLayers":[]}"#));
    assert!(refusal(&schema_one, amd64()).contains("schema 1"));
    let html = Web::serve(|_| Answer::new(200, "<html>"));
    assert!(refusal(&html, amd64()).contains("isn't what the image specification describes"));
}

#[test]
fn a_server_that_speaks_no_http_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(8) {
            let _ = stream.and_then(|mut stream| stream.write_all(&noise(3, 200_000)));
        }
    });
    let shelf = Shelf::with(amd64());
    let error = shelf.store.pull(&format!("{address}/x").parse().unwrap(), &options(), &|_| {}).unwrap_err();
    assert!(chain(&error).contains("can't reach"), "{}", chain(&error));
    shelf.assert_empty();
}
