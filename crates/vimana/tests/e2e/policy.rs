//! What an operator allows: scans, signatures and the policy, through the real command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Home, VIMANA, code, skipped, text};

#[path = "../../../image/tests/support/layout.rs"]
pub(crate) mod layout;

#[path = "../../../evidence/tests/sigstore/mod.rs"]
#[allow(dead_code)]
mod sigstore;

use layout::{add, blob, write_image};
use sigstore::{Certificate, IDENTITY, ISSUER, World};

const STATUS: &[u8] =
    b"Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nSource: openssl\nVersion: 3.0.11-1~deb12u1\n";

/// What is complained of if the policy has no complaint.
pub(crate) const NO_KERNEL: &str = "/no/such/kernel";

/// A home, an image of Debian's, and a folder of advisories.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) image: String,
    pub(crate) digest: image::Digest,
}

impl Place {
    pub(crate) fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let (reference, digest) = write_image(
            &folder.path().join("layout"),
            "app",
            &[&[("etc/os-release", b"ID=debian\nVERSION_ID=\"12\"\n"), ("var/lib/dpkg/status", STATUS)]],
        );
        fs::create_dir_all(folder.path().join("home")).unwrap();
        fs::create_dir_all(folder.path().join("osv")).unwrap();
        Place { image: reference.to_string(), digest, folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn policy(&self, text: &str) {
        fs::write(self.path("home/policy.toml"), text).unwrap();
    }

    pub(crate) fn vimana(&self, args: &[&str]) -> Output {
        let mut command = Command::new(VIMANA);
        command.args(args).env("VIMANA_HOME", self.path("home")).env_remove("VIMANA_KERNEL").output().unwrap()
    }

    /// What `vimana plan` of the image complains of: what the policy says is said before the kernel is missed.
    pub(crate) fn complaint(&self) -> String {
        text(&self.vimana(&["plan", "--accel", "tcg", "--kernel", NO_KERNEL, &self.image]).stderr)
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.vimana(args);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
    }
}

fn write_advisory(osv: &Path, id: &str, fixed: &str, vector: &str) {
    let advisory = json!({
        "id": format!("DEBIAN-{id}"),
        "upstream": [id],
        "summary": "It \u{1b}[2Jbreaks",
        "severity": [{ "type": "CVSS_V3", "score": vector }],
        "affected": [{
            "package": { "ecosystem": "Debian:12", "name": "openssl" },
            "ranges": [{ "type": "ECOSYSTEM", "events": [{ "introduced": "0" }, { "fixed": fixed }] }],
        }],
    });
    fs::write(osv.join(format!("{id}.json")), advisory.to_string()).unwrap();
}

const CRITICAL: &str = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H";
const MEDIUM: &str = "CVSS:3.1/AV:L/AC:H/PR:L/UI:N/S:U/C:H/I:N/A:N";

#[test]
fn a_scan_shows_what_is_known_and_its_exit_code_says_whether_it_is_bad() {
    let place = Place::new();
    let osv = place.path("osv");
    write_advisory(&osv, "CVE-2024-1", "3.0.11-1~deb12u2", MEDIUM);
    let folder = osv.to_str().unwrap();
    let scan = |extra: &[&str]| {
        place.vimana(&[&["image", "scan", &place.image, "--advisories", folder][..], extra].concat())
    };
    let output = scan(&[]);
    assert_eq!(code(output.status), 0, "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for part in [
        "openssl",
        "3.0.11-1~deb12u1",
        "3.0.11-1~deb12u2",
        "CVE-2024-1",
        "medium (4.7)",
        "findings: 1, high or worse: 0",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains('\u{1b}'), "an advisory's text doesn't reach the terminal's control");
    assert_eq!(code(scan(&["--threshold", "medium"]).status), 3);
    write_advisory(&osv, "CVE-2024-2", "3.0.12-1", CRITICAL);
    assert_eq!(code(scan(&[]).status), 3, "an advisory that came is seen");
    let document = place.json(&["image", "scan", &place.image, "--advisories", folder, "--json"]);
    assert_eq!(document["failing"], 1);
    assert_eq!(document["findings"][0]["advisory"], "CVE-2024-2");
    assert_eq!(document["findings"][0]["rating"]["score"], "9.8");
    assert_eq!(document["findings"][0]["installed"], json!(["libssl3"]));
    let nowhere = place.vimana(&["image", "scan", &place.image, "--advisories", "/no/such/folder"]);
    assert_eq!(code(nowhere.status), 1);
    let unnamed = place.vimana(&["image", "scan", &place.image]);
    assert!(text(&unnamed.stderr).contains("--advisories"), "{}", text(&unnamed.stderr));
}

#[test]
fn a_bill_of_materials_is_the_same_every_time() {
    let place = Place::new();
    let file = place.path("a.json");
    let output = place.vimana(&["image", "sbom", &place.image, "--output", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let again = place.vimana(&["image", "sbom", &place.image]);
    assert_eq!(fs::read(&file).unwrap(), again.stdout);
    let document: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(document["specVersion"], "1.6");
    assert_eq!(document["components"][1]["name"], "libssl3");
}

#[test]
fn a_known_flaw_keeps_an_image_from_running_until_the_policy_ignores_it() {
    let place = Place::new();
    write_advisory(&place.path("osv"), "CVE-2024-2", "3.0.12-1", CRITICAL);
    let scanning = "[scan]\nadvisories = \"../osv\"\n";
    place.policy(scanning);
    for command in ["plan", "run"] {
        let output = place.vimana(&[command, "--accel", "tcg", &place.image]);
        let said = text(&output.stderr);
        assert_eq!(code(output.status), if command == "run" { 125 } else { 1 }, "{said}");
        for part in [
            "may not run here",
            "openssl 3.0.11-1~deb12u1 (libssl3)",
            "CVE-2024-2",
            "critical (9.8)",
            "fixed in 3.0.12-1",
            "scan.ignore",
            "policy.toml",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    place.policy(&format!("{scanning}ignore = [\"CVE-2024-2 not reachable here until 2000-01-01\"]\n"));
    let said = place.complaint();
    assert!(said.contains("it was ignored until 2000-01-01"), "{said}");
    place.policy(&format!("{scanning}ignore = [\"CVE-2024-2 not reachable here\"]\n"));
    let said = place.complaint();
    assert!(said.contains(NO_KERNEL), "{said}");
    // What was found is kept, but no longer than the advisories are the same.
    write_advisory(&place.path("osv"), "CVE-2024-3", "3.0.12-1", CRITICAL);
    let said = place.complaint();
    assert!(said.contains("CVE-2024-3") && !said.contains("CVE-2024-2,"), "{said}");
    fs::remove_dir_all(place.path("osv")).unwrap();
    let said = place.complaint();
    assert!(said.contains("can't be scanned, and the policy wants it to be"), "{said}");
}

#[test]
fn an_image_from_elsewhere_is_refused_before_it_is_fetched() {
    let place = Place::new();
    place.policy("[registries]\nallowed = [\"docker.io/library\"]\n");
    let said = place.complaint();
    assert!(said.contains("registries.allowed has only docker.io/library"), "{said}");
    let images = fs::read_dir(place.path("home/images/images")).unwrap().count();
    assert_eq!(images, 0, "nothing of it was stored");
    place.policy("[registries]\nrequire_digest = true\n");
    assert!(place.complaint().contains("@sha256:"));
    place.policy("[registries]\nalowed = []\n");
    let said = place.complaint();
    assert!(said.contains("policy.toml:2:1") && said.contains("did you mean `allowed`?"), "{said}");
}

#[test]
fn what_the_policy_allows_runs_and_the_plan_says_what_it_saw() {
    let Some(home) = Home::new("what_the_policy_allows_runs") else { return };
    let osv = home.path().join("osv");
    fs::create_dir(&osv).unwrap();
    write_advisory(&osv, "CVE-2024-2", "3.0.12-1", CRITICAL);
    let policy =
        format!("[registries]\nallowed = [\"oci:\"]\n[scan]\nadvisories = {:?}\n", osv.to_str().unwrap());
    fs::write(home.path().join("policy.toml"), policy).unwrap();
    let output = home.output(&[], "echo it runs");
    assert_eq!(
        (code(output.status), text(&output.stdout).as_str()),
        (0, "it runs\n"),
        "{}",
        text(&output.stderr)
    );
    home.assert_nothing_is_left();
}

/// Signs the image as cosign does, with a fresh key of openssl's; gives the public one.
pub(crate) fn sign(place: &Place) -> PathBuf {
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    let at = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let (key, public) = (at("key.pem"), at("home/key.pub"));
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key]);
    openssl(&["pkey", "-in", &key, "-pubout", "-out", &public]);
    let payload = json!({ "critical": {
        "identity": { "docker-reference": "" },
        "image": { "docker-manifest-digest": place.digest },
        "type": "cosign container image signature",
    } });
    fs::write(at("payload"), payload.to_string()).unwrap();
    openssl(&["dgst", "-sha256", "-sign", &key, "-out", &at("signature.der"), &at("payload")]);
    openssl(&["base64", "-A", "-in", &at("signature.der"), "-out", &at("signature")]);
    let layout = place.path("layout");
    let mut layer =
        blob(&layout, "application/vnd.dev.cosign.simplesigning.v1+json", payload.to_string().as_bytes());
    let signature = fs::read_to_string(at("signature")).unwrap();
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(&layout, "application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [layer],
    });
    add(&layout, Some(&format!("sha256-{}.sig", place.digest.hex())), &manifest);
    PathBuf::from(public)
}

#[test]
fn an_image_that_must_be_signed_runs_only_if_it_is() {
    if Command::new("openssl").arg("version").output().is_err() {
        skipped("an_image_that_must_be_signed_runs_only_if_it_is", "openssl isn't installed");
        return;
    }
    let place = Place::new();
    let other = Place::new();
    sign(&other);
    fs::copy(other.path("home/key.pub"), place.path("home/other.pub")).unwrap();
    place.policy("[signatures]\nkeys = [\"other.pub\"]\n");
    let said = place.complaint();
    assert!(said.contains("must be signed") && said.contains("no signature lies beside it"), "{said}");
    let public = sign(&place);
    let said = place.complaint();
    assert!(said.contains("must be signed") && said.contains("isn't of this key"), "{said}");
    let verify =
        |key: &Path| place.vimana(&["image", "verify", &place.image, "--key", key.to_str().unwrap()]);
    let output = verify(&public);
    assert_eq!(code(output.status), 0, "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(place.digest.hex()));
    assert_eq!(code(verify(&place.path("home/other.pub")).status), 3);
    assert_eq!(code(verify(&place.path("key.pem")).status), 1, "a private key is no public one");
    let document =
        place.json(&["image", "verify", &place.image, "--key", public.to_str().unwrap(), "--json"]);
    assert_eq!((&document["verified"], &document["form"]), (&json!(true), &json!("cosign")));
    place.policy("[signatures]\nkeys = [\"other.pub\", \"key.pub\"]\n");
    let said = place.complaint();
    assert!(said.contains(NO_KERNEL), "{said}");
    // A signature that was found is kept, but judged with the keys of the day.
    let index = place.path("layout/index.json");
    let mut list: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    list["manifests"].as_array_mut().unwrap().truncate(1);
    fs::write(&index, list.to_string()).unwrap();
    let said = place.complaint();
    assert!(said.contains(NO_KERNEL), "{said}");
    place.policy("[signatures]\nkeys = [\"other.pub\"]\n");
    let said = place.complaint();
    assert!(said.contains("must be signed"), "{said}");
}

#[test]
fn an_image_that_an_identity_must_sign_runs_only_if_that_one_did() {
    let place = Place::new();
    let layout = place.path("layout");
    let bundle_type = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let mut world = World::new();
    world.digest = place.digest.to_string();
    fs::write(place.path("home/trusted_root.json"), world.root_document().to_string()).unwrap();
    let policy = |identity: &str| {
        place.policy(&format!(
            "[signatures]\ntrusted_root = \"trusted_root.json\"\n\n[[signatures.identities]]\nidentity = {identity:?}\nissuer = \
             {ISSUER:?}\n"
        ));
    };
    policy(IDENTITY);
    assert!(place.complaint().contains("no signature lies beside it"), "{}", place.complaint());
    let bundle = world.bundle(&Certificate::default(), "dsse").to_string();
    let manifest = fs::read(layout.join("blobs/sha256").join(place.digest.hex())).unwrap();
    let artifact = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": bundle_type,
        "config": blob(&layout, "application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [blob(&layout, bundle_type, bundle.as_bytes())],
        "subject": blob(&layout, "application/vnd.oci.image.manifest.v1+json", &manifest),
    });
    add(&layout, None, &artifact);
    assert!(place.complaint().contains(NO_KERNEL), "{}", place.complaint());
    policy("https://example.org/acme/other/*");
    let said = place.complaint();
    assert!(said.contains("must be signed") && said.contains("isn't among the identities"), "{said}");
    policy("https://example.org/acme/*");
    assert!(place.complaint().contains(NO_KERNEL), "{}", place.complaint());
    // By hand, without the policy.
    let root = place.path("home/trusted_root.json");
    let verify = |issuer: &str| {
        let root = ["--trusted-root", root.to_str().unwrap()];
        let who = ["--identity", IDENTITY, "--issuer", issuer, &place.image];
        place.vimana(&[&["image", "verify"][..], &root, &who].concat())
    };
    let output = verify(ISSUER);
    assert_eq!(code(output.status), 0, "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(&format!("is signed by {IDENTITY} (says {ISSUER})")));
    assert_eq!(code(verify("https://other.example.org").status), 3);
    assert_eq!(code(place.vimana(&["image", "verify", "--identity", IDENTITY, &place.image]).status), 2);
    fs::write(place.path("home/trusted_root.json"), "{}").unwrap();
    let said = place.complaint();
    assert!(said.contains("can't use the trust root") && said.contains("missing field"), "{said}");
}
