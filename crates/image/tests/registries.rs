//! Images from a real registry: plain, with TLS and passwords, and with tokens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use image::{Progress, PullOptions, Reference};

mod support;
use support::registry::{PASSWORD, Server, USER};
use support::wire::{Answer, Counter, Web};
use support::*;

const PROGRAMS: [&str; 3] = ["umoci", "skopeo", "docker-registry"];

fn reference(port: u16, name: &str) -> Reference {
    format!("127.0.0.1:{port}/{name}").parse().unwrap()
}

/// Options that don't look at the tester's own logins.
fn options() -> PullOptions {
    PullOptions { docker_config: Some(PathBuf::from("/nonexistent")), ..PullOptions::default() }
}

#[test]
fn an_image_comes_from_a_registry_as_from_its_layout() {
    if !has("an_image_comes_from_a_registry", &PROGRAMS) {
        return;
    }
    let packer = Packer::new();
    small_image(&packer, "one", 3);
    let server = Server::plain();
    let source = format!("oci:{}", packer.name("one"));
    server.push(&source, "team/app:v1", &[]);
    server.push(&source, "team/zstd:v1", &["--dest-compress-format", "zstd"]);
    server.push(&source, "team/docker:v1", &["--format", "v2s2"]);
    let local = Shelf::new().pull(&packer.reference("one")).unwrap();
    let roots = |image: &image::Image| image.layers.iter().map(|l| l.verity_root).collect::<Vec<_>>();
    for name in ["team/app:v1", "team/zstd:v1", "team/docker:v1"] {
        let shelf = Shelf::new();
        let events = Mutex::new(Vec::new());
        let image = shelf
            .store
            .pull(&reference(server.port, name), &options(), &|step| {
                events.lock().unwrap().push(match step {
                    Progress::Fetching { done, total, .. } => format!("{}", done <= total),
                    Progress::Done { .. } => "done".to_owned(),
                    _ => String::new(),
                });
            })
            .unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
        assert_eq!(roots(&image), roots(&local), "{name}");
        let events = events.into_inner().unwrap();
        assert_eq!(events.last().map(String::as_str), Some("done"));
        assert!(events.contains(&"true".to_owned()) && !events.contains(&"false".to_owned()));
        shelf.assert_clean();
    }
    let shelf = Shelf::new();
    let image = shelf.store.pull(&reference(server.port, "team/app:v1"), &options(), &|_| {}).unwrap();
    let by_digest: Reference =
        format!("127.0.0.1:{}/team/app@{}", server.port, image.digest).parse().unwrap();
    assert!(shelf.store.get(&by_digest).unwrap().is_none());
    shelf.store.pull(&by_digest, &options(), &|_| {}).unwrap();
    drop(server);
    shelf.store.pull(&by_digest, &options(), &|_| {}).expect("what is named by digest needs no network");
}

#[test]
fn what_a_registry_lacks_is_named() {
    if !has("what_a_registry_lacks", &PROGRAMS) {
        return;
    }
    let server = Server::plain();
    let shelf = Shelf::new();
    let error = shelf.store.pull(&reference(server.port, "no/thing:v1"), &options(), &|_| {}).unwrap_err();
    assert!(chain(&error).contains("has no manifest v1 of no/thing (it says: "), "{}", chain(&error));
    let gone = reference(registry_port_that_is_closed(), "x");
    let error = shelf.store.pull(&gone, &options(), &|_| {}).unwrap_err();
    assert!(chain(&error).contains("can't reach 127.0.0.1"), "{}", chain(&error));
    shelf.assert_empty();
}

fn registry_port_that_is_closed() -> u16 {
    support::registry::free_port()
}

#[test]
fn a_registry_with_tls_and_passwords_needs_the_root_and_the_login() {
    let test = "a_registry_with_tls_and_passwords";
    if !has(test, &PROGRAMS) || !has(test, &["openssl", "htpasswd"]) {
        return;
    }
    let packer = Packer::new();
    small_image(&packer, "one", 2);
    let server = Server::guarded();
    server.push(&format!("oci:{}", packer.name("one")), "team/app:v1", &[]);
    let name = reference(server.port, "team/app:v1");
    let shelf = Shelf::new();
    let refusal = |options: &PullOptions| chain(&shelf.store.pull(&name, options, &|_| {}).unwrap_err());
    let untrusted = refusal(&options());
    assert!(untrusted.contains("isn't trusted") && untrusted.contains("VIMANA_REGISTRY_CA"), "{untrusted}");
    let mut with = options();
    with.registry_ca = Some(server.ca());
    let anonymous = refusal(&with);
    assert!(anonymous.contains("anonymous users"), "{anonymous}");
    let config = server.folder.path().join("docker");
    fs::create_dir(&config).unwrap();
    with.docker_config = Some(config.clone());
    let write = |password: &str| {
        let text = format!(
            r#"{{"auths":{{"127.0.0.1:{}":{{"username":"{USER}","password":"{password}"}}}}}}"#,
            server.port
        );
        fs::write(config.join("config.json"), text).unwrap();
    };
    write("wrong");
    let wrong = refusal(&with);
    assert!(wrong.contains("the user of the credentials found") && !wrong.contains("wrong"), "{wrong}");
    shelf.assert_empty();
    write(PASSWORD);
    let image = shelf.store.pull(&name, &with, &|_| {}).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(image.layers.len(), 2);
    let plain = PullOptions { registry_ca: None, plain_http: true, ..with.clone() };
    assert!(Shelf::new().store.pull(&name, &plain, &|_| {}).is_err());
    with.registry_ca = Some(config.join("config.json"));
    assert!(refusal(&with).contains("holds no certificate"));
}

#[test]
fn a_credential_helper_is_asked() {
    let test = "a_credential_helper_is_asked";
    if !has(test, &PROGRAMS) || !has(test, &["openssl", "htpasswd"]) {
        return;
    }
    // The helper must be on PATH, which belongs to the whole process: nextest runs each test in its own.
    if std::env::var_os("NEXTEST").is_none() {
        eprintln!("SKIPPED: {test}: it changes PATH, which needs a process of its own (cargo nextest)");
        return;
    }
    let packer = Packer::new();
    small_image(&packer, "one", 1);
    let server = Server::guarded();
    server.push(&format!("oci:{}", packer.name("one")), "app", &[]);
    let folder = server.folder.path();
    let helper = folder.join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread host\n[ \"$1 $host\" = \"get 127.0.0.1:{}\" ] || exit 1\n\
         echo '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n",
        server.port
    );
    fs::write(&helper, script).unwrap();
    run("chmod", &["755", text(&helper)]);
    fs::write(folder.join("config.json"), r#"{"credsStore":"test"}"#).unwrap();
    let path = format!("{}:{}", text(folder), std::env::var("PATH").unwrap());
    #[allow(unsafe_code)]
    // SAFETY: this process runs this test alone, and no other thread of it reads the environment now.
    unsafe {
        std::env::set_var("PATH", path);
    }
    let options = PullOptions {
        registry_ca: Some(server.ca()),
        docker_config: Some(folder.to_owned()),
        ..PullOptions::default()
    };
    let shelf = Shelf::new();
    let pulled = shelf.store.pull(&reference(server.port, "app"), &options, &|_| {});
    assert!(pulled.is_ok(), "{}", chain(&pulled.unwrap_err()));
}

#[test]
fn a_multi_platform_index_gives_the_image_for_the_platform() {
    if !has("a_multi_platform_index", &PROGRAMS) {
        return;
    }
    let packer = Packer::new();
    for (tag, architecture) in [("a", "amd64"), ("b", "arm64")] {
        small_image(&packer, tag, 1);
        packer.config(
            tag,
            &[
                "--architecture",
                architecture,
                "--os",
                "linux",
                "--config.label",
                &format!("arch={architecture}"),
            ],
        );
    }
    merge_into_index(&packer);
    let server = Server::plain();
    server.push(&format!("oci:{}", packer.name("multi")), "multi:v1", &["--all"]);
    let shelf = Shelf::new();
    for architecture in ["amd64", "arm64"] {
        let platform = Some(format!("linux/{architecture}").parse().unwrap());
        let options = PullOptions { platform, ..options() };
        let image = shelf
            .store
            .pull(&reference(server.port, "multi:v1"), &options, &|_| {})
            .unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_eq!(image.config.labels.get("arch").map(String::as_str), Some(architecture));
    }
    assert_eq!(shelf.store.list().unwrap().len(), 2);
    let options = PullOptions { platform: Some("linux/s390x".parse().unwrap()), ..options() };
    let error = shelf.store.pull(&reference(server.port, "multi:v1"), &options, &|_| {}).unwrap_err();
    assert!(chain(&error).contains("there are images for: linux/amd64, linux/arm64"), "{}", chain(&error));
    let single = PullOptions { platform: Some("linux/s390x".parse().unwrap()), ..PullOptions::default() };
    let error = shelf.store.pull(&packer.reference("a"), &single, &|_| {}).unwrap_err();
    assert!(chain(&error).contains("the image is for linux/amd64"), "{}", chain(&error));
}

/// Makes the tag `multi` an index of the images `a` and `b`.
fn merge_into_index(packer: &Packer) {
    let path = packer.layout.join("index.json");
    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut entries = Vec::new();
    for (tag, architecture) in [("a", "amd64"), ("b", "arm64")] {
        let all = index["manifests"].as_array().unwrap();
        let entry =
            all.iter().find(|e| e["annotations"]["org.opencontainers.image.ref.name"] == tag).unwrap();
        let mut entry = entry.clone();
        entry.as_object_mut().unwrap().remove("annotations");
        entry["platform"] = serde_json::json!({ "os": "linux", "architecture": architecture });
        entries.push(entry);
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let multi =
        serde_json::json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries }).to_string();
    let digest = image::Digest::of(multi.as_bytes());
    fs::write(packer.layout.join("blobs/sha256").join(digest.hex()), &multi).unwrap();
    index["manifests"].as_array_mut().unwrap().push(serde_json::json!({
        "mediaType": media_type, "size": multi.len(), "digest": digest,
        "annotations": { "org.opencontainers.image.ref.name": "multi" },
    }));
    fs::write(&path, index.to_string()).unwrap();
}

#[test]
fn a_token_is_asked_for_pulling_only_and_the_password_goes_to_the_token_server_alone() {
    if !has("a_token_is_asked_for", &["umoci"]) {
        return;
    }
    let packer = Packer::new();
    small_image(&packer, "one", 2);
    let tokens = Web::serve(|request| {
        let scoped = request.path.contains("scope=repository%3Ateam%2Fapp%3Apull&service=reg");
        let known = request.headers.get("authorization").map(String::as_str)
            == Some("Basic c29tZWJvZHk6c2U6Y3JldA==");
        match scoped && known {
            true => Answer::new(200, r#"{"token":"let-me-in","expires_in":60}"#),
            false => Answer::new(401, ""),
        }
    });
    let realm = format!("http://{}/token", tokens.address);
    // The blobs come from another place, which must see no credentials.
    let layout = packer.layout.clone();
    let storage = Web::serve(move |request| {
        let hex = request.path.trim_start_matches('/');
        Answer::new(200, fs::read(layout.join("blobs/sha256").join(hex)).unwrap())
    });
    let (blobs, layout) = (format!("http://{}", storage.address), packer.layout.clone());
    let registry = Web::serve(move |request| {
        if request.headers.get("authorization").map(String::as_str) != Some("Bearer let-me-in") {
            let challenge =
                format!("Bearer realm=\"{realm}\",service=\"reg\",scope=\"repository:team/app:push,pull\"");
            return Answer::new(401, "").with("WWW-Authenticate", challenge);
        }
        let digest = request.path.rsplit("sha256:").next().unwrap();
        if request.path.contains("/blobs/") {
            return Answer::new(307, "").with("Location", format!("{blobs}/{digest}"));
        }
        let index: serde_json::Value =
            serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap().replace("sha256:", "");
        Answer::new(200, fs::read(layout.join("blobs/sha256").join(digest)).unwrap())
    });
    let config = tempfile::tempdir().unwrap();
    let name = reference(registry.address.port(), "team/app:v1");
    let login = format!(
        r#"{{"auths":{{"127.0.0.1:{}":{{"auth":"c29tZWJvZHk6c2U6Y3JldA=="}}}}}}"#,
        registry.address.port()
    );
    fs::write(config.path().join("config.json"), login).unwrap();
    let options = PullOptions { docker_config: Some(config.path().to_owned()), ..PullOptions::default() };
    let shelf = Shelf::new();
    let image =
        shelf.store.pull(&name, &options, &|_| {}).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(image.layers.len(), 2);
    assert_eq!(tokens.seen().len(), 1, "one token serves the whole pull");
    assert!(!storage.seen().is_empty());
    assert!(storage.seen().iter().all(|request| !request.headers.contains_key("authorization")));
    let shown: Vec<String> =
        registry.seen().iter().filter_map(|request| request.headers.get("authorization").cloned()).collect();
    assert!(shown.iter().all(|value| value == "Bearer let-me-in"), "{shown:?}");
}

#[test]
fn an_identity_token_is_exchanged() {
    let tokens = Web::serve(|request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let fits = request.method == "POST"
            && body.contains("grant_type=refresh_token")
            && body.contains("refresh_token=refresh%2Fme")
            && body.contains("scope=repository%3Ax%3Apull");
        if fits { Answer::new(200, r#"{"access_token":"fresh"}"#) } else { Answer::new(400, "") }
    });
    let realm = format!("http://{}/token", tokens.address);
    let registry =
        Web::serve(move |request| match request.headers.get("authorization").map(String::as_str) {
            Some("Bearer fresh") => Answer::new(404, r#"{"errors":[{"code":"X","message":"let in"}]}"#),
            _ => Answer::new(401, "").with("WWW-Authenticate", format!("Bearer realm=\"{realm}\"")),
        });
    let config = tempfile::tempdir().unwrap();
    let port = registry.address.port();
    let login = format!(r#"{{"auths":{{"127.0.0.1:{port}":{{"identitytoken":"refresh/me"}}}}}}"#);
    fs::write(config.path().join("config.json"), login).unwrap();
    let options = PullOptions { docker_config: Some(config.path().to_owned()), ..PullOptions::default() };
    let error = Shelf::new().store.pull(&reference(port, "x"), &options, &|_| {}).unwrap_err();
    assert!(chain(&error).contains("let in"), "{}", chain(&error));
}

#[test]
fn two_stores_users_fetch_each_blob_once() {
    if !has("two_stores_users_fetch_each_blob_once", &PROGRAMS) {
        return;
    }
    let packer = Packer::new();
    small_image(&packer, "one", 4);
    let server = Server::plain();
    server.push(&format!("oci:{}", packer.name("one")), "app", &[]);
    let counter = Counter::before(server.port);
    let shelf = Shelf::new();
    let name = reference(counter.address.port(), "app");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let image = shelf.store.pull(&name, &options(), &|_| {});
                assert_eq!(image.unwrap_or_else(|error| panic!("{}", chain(&error))).layers.len(), 4);
            });
        }
    });
    let blobs = counter.blobs();
    assert_eq!(blobs.len(), 5, "four layers and a configuration: {blobs:?}");
    assert!(blobs.values().all(|count| *count == 1), "{blobs:?}");
    shelf.assert_clean();
}
