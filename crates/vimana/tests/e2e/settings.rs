//! Settings that travel with an image, through the real command.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::policy::layout::{add, blob};
use crate::policy::{NO_KERNEL, Place, sign};
use crate::support::{Home, code, text};

const KEY: &str = "dev.vimana.settings";

/// Adds the image of this digest again under another tag, with settings in its annotations or in its labels.
fn demand(
    layout: &Path,
    digest: &str,
    tag: &str,
    annotation: Option<Value>,
    label: Option<&str>,
) -> image::Digest {
    let read = |digest: &str| -> Value {
        let hex = digest.trim_start_matches("sha256:");
        serde_json::from_slice(&fs::read(layout.join("blobs/sha256").join(hex)).unwrap()).unwrap()
    };
    let mut manifest = read(digest);
    if let Some(annotation) = annotation {
        manifest["annotations"] = json!({ KEY: annotation });
    }
    if let Some(label) = label {
        let mut config = read(manifest["config"]["digest"].as_str().unwrap());
        config["config"]["Labels"] = json!({ KEY: label });
        let media_type = manifest["config"]["mediaType"].as_str().unwrap().to_owned();
        manifest["config"] = blob(layout, &media_type, config.to_string().as_bytes());
    }
    if manifest["mediaType"].is_null() {
        manifest["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json");
    }
    add(layout, Some(tag), &manifest)
}

/// A place whose image carries settings.
fn demanding(annotation: Option<Value>, label: Option<&str>) -> Place {
    let mut place = Place::new();
    let layout = place.path("layout");
    place.digest = demand(&layout, &place.digest.to_string(), "demanding", annotation, label);
    place.image = format!("oci:{}:demanding", layout.display());
    place
}

const READ_ONLY: &str = "{\"spec\":{\"deployment\":{\"readonly_root\":true}}}";

#[test]
fn an_image_s_settings_are_shown_wherever_its_author_put_them() {
    for (annotation, label) in
        [(Some(json!(READ_ONLY)), None), (None, Some(READ_ONLY)), (Some(json!(READ_ONLY)), Some(READ_ONLY))]
    {
        let place = demanding(annotation, label);
        let output = place.vimana(&["image", "settings", "show", &place.image]);
        assert_eq!(
            text(&output.stdout),
            "spec.deployment.readonly_root = true\n",
            "{}",
            text(&output.stderr)
        );
        let shown = place.json(&["image", "settings", "show", &place.image, "--json"]);
        assert_eq!(shown["settings"], serde_json::from_str::<Value>(READ_ONLY).unwrap());
    }
    let place = Place::new();
    let output = place.vimana(&["image", "settings", "show", &place.image]);
    assert_eq!((code(output.status), text(&output.stdout).as_str()), (0, ""));
    assert!(text(&output.stderr).contains("demands nothing"));
}

#[test]
fn an_image_with_wrong_settings_doesnt_run() {
    let unknown = "{\"spec\":{\"deployment\":{\"privileged\":true}}}";
    for (annotation, label, part) in [
        (Some(json!(unknown)), None, "there is no key `privileged` in `spec.deployment`"),
        (Some(json!("\u{1b}[2J = 1")), None, "have mistakes"),
        (Some(json!(7)), None, "isn't a text"),
        (Some(json!(READ_ONLY)), Some("{}"), "say different things"),
    ] {
        let place = demanding(annotation, label);
        let output = place.vimana(&["image", "settings", "show", &place.image]);
        assert_eq!(code(output.status), 1);
        let shown = text(&output.stderr);
        assert!(shown.contains(part) && !shown.contains('\u{1b}'), "{part}: {shown}");
        assert!(place.complaint().contains(part), "{part}: {}", place.complaint());
    }
}

#[test]
fn settings_are_packed_into_one_line_or_refused_with_their_place() {
    let place = Place::new();
    let file = place.path("settings.toml");
    fs::write(&file, "[spec.deployment]\nreadonly_root = true\n").unwrap();
    let output = place.vimana(&["image", "settings", "pack", file.to_str().unwrap()]);
    assert_eq!(text(&output.stdout), format!("{READ_ONLY}\n"), "{}", text(&output.stderr));
    let mut command = std::process::Command::new(crate::support::VIMANA);
    let mut child = command
        .args(["image", "settings", "pack", "-"])
        .env("VIMANA_HOME", place.path("home"))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"[spec.deployment]\nreplicas = 2\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(output.status), 1);
    assert!(text(&output.stderr).contains("-:2:1"), "{}", text(&output.stderr));
}

#[test]
fn a_signature_covers_the_settings() {
    if std::process::Command::new("openssl").arg("version").output().is_err() {
        crate::support::skipped("a_signature_covers_the_settings", "openssl isn't installed");
        return;
    }
    let mut place = demanding(Some(json!(READ_ONLY)), None);
    sign(&place);
    place.policy("[signatures]\nkeys = [\"key.pub\"]\n");
    assert!(place.complaint().contains(NO_KERNEL), "{}", place.complaint());
    // The same image without its settings, under the same name: nobody has signed that.
    let index = place.path("layout/index.json");
    let mut list: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    list["manifests"].as_array_mut().unwrap().retain(|entry| entry["digest"] != json!(place.digest));
    fs::write(&index, list.to_string()).unwrap();
    let layout = place.path("layout");
    let plain = list["manifests"][0]["digest"].as_str().unwrap().to_owned();
    place.digest = demand(&layout, &plain, "demanding", None, None);
    assert!(place.complaint().contains("must be signed"), "{}", place.complaint());
}

#[test]
fn what_an_image_demands_holds_inside_and_can_t_be_loosened() {
    let Some(home) = Home::new("what_an_image_demands_holds_inside") else { return };
    let layout = home.path().join("demanding.oci");
    let shared = home.image.trim_start_matches("oci:").trim_end_matches(":latest").to_owned();
    let copied = std::process::Command::new("cp").args(["-r", &shared]).arg(&layout).status().unwrap();
    assert!(copied.success());
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let settings = "[spec.deployment]\nuser = \"1000\"\nreadonly_root = true\n[spec.networking]\nallow_to = [\"192.0.2.7\"]\n";
    demand(&layout, &digest, "demanding", Some(json!(settings)), None);
    let name = format!("oci:{}:demanding", layout.display());
    let vimana = |args: &[&str]| home.vimana(args).output().unwrap();
    let output = vimana(&[
        "run",
        "--accel",
        "tcg",
        "-m",
        "96Mi",
        "--network",
        "none",
        &name,
        "--",
        "sh",
        "-c",
        "id -u; touch /x || echo held",
    ]);
    assert_eq!(text(&output.stdout), "1000\nheld\n", "{}", text(&output.stderr));
    let output = vimana(&["plan", "--accel", "tcg", "-m", "96Mi", &name]);
    let shown = text(&output.stdout);
    for part in ["by image", "spec.deployment.readonly_root = true (was false)", "reaches      192.0.2.7"] {
        assert!(shown.contains(part), "{part}: {shown}{}", text(&output.stderr));
    }
    for (flags, part) in [
        (["--user", "0"], "the image demands \"1000\" and \"0\" is asked for"),
        (["--allow-to", "198.51.100.7"], "[192.0.2.7]"),
    ] {
        let output = vimana(&["plan", "--accel", "tcg", "-m", "96Mi", flags[0], flags[1], &name]);
        let said = text(&output.stderr);
        assert!(code(output.status) == 1 && said.contains(part), "{part}: {said}");
    }
    home.assert_nothing_is_left();
}
