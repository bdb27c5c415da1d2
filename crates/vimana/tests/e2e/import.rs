//! `vimana hac import`, as a person coming from another tool meets it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{VIMANA, code, text};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hac/tests/data/import");
const TWO: &str = "services:\n  web:\n    image: nginx:1\n    volumes: ['./site:/site']\n    privileged: true\n  db:\n    image: redis:7\n";

fn import_in(folder: &Path, args: &[&str]) -> Output {
    Command::new(VIMANA)
        .args(["hac", "import"])
        .args(args)
        .current_dir(folder)
        .env_remove("TAG")
        .output()
        .unwrap()
}

fn folder_with(name: &str, content: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), content).unwrap();
    folder
}

#[test]
fn each_service_becomes_a_folder_with_a_manifest_that_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let samples = ["web.yaml", "deploy.yaml", "gpu.sdl.yaml", "wordpress.sdl.yaml"];
    for sample in samples {
        let out = folder.path().join(sample);
        let output =
            import_in(folder.path(), &[&format!("{SAMPLES}/{sample}"), "--out", out.to_str().unwrap()]);
        assert_eq!(code(output.status), 0, "{}", text(&output.stderr));
        for entry in fs::read_dir(&out).unwrap().flatten() {
            let manifest = entry.path().join("hac.toml");
            let checked = Command::new(VIMANA).args(["hac", "check"]).arg(&manifest).output().unwrap();
            assert!(checked.status.success(), "{}", text(&checked.stderr));
            assert_eq!(fs::read_dir(entry.path()).unwrap().count(), 1, "nothing else is left");
        }
    }
}

#[test]
fn what_is_not_carried_over_is_listed_with_its_place_and_what_to_do() {
    let folder = folder_with("compose.yaml", TWO);
    let output = import_in(folder.path(), &["compose.yaml"]);
    let said = text(&output.stderr);
    for part in [
        "wrote ./web/hac.toml",
        "Not carried over (1)",
        "compose.yaml:5:5: services.web.privileged",
        "instead:",
    ] {
        assert!(said.contains(part), "{part} isn't in\n{said}");
    }
    assert!(output.stdout.is_empty());
    let manifest = fs::read_to_string(folder.path().join("web/hac.toml")).unwrap();
    assert!(manifest.contains("services.web.privileged"), "the manifest says it too:\n{manifest}");
}

#[test]
fn a_relative_folder_stays_the_same_one_wherever_the_manifest_goes() {
    let folder = folder_with("compose.yaml", TWO);
    fs::create_dir(folder.path().join("site")).unwrap();
    for out in [".", "deploy/here"] {
        let output = import_in(folder.path(), &["compose.yaml", "--out", out]);
        assert_eq!(code(output.status), 0, "{}", text(&output.stderr));
        let place = folder.path().join(out).join("web");
        let manifest =
            hac::parse(&fs::read_to_string(place.join("hac.toml")).unwrap(), hac::Format::Toml).unwrap();
        let source = manifest.spec.mounts[0].source.clone().unwrap();
        let found = place.join(source).canonicalize().unwrap();
        assert_eq!(found, folder.path().join("site").canonicalize().unwrap());
    }
}

#[test]
fn what_is_there_is_never_overwritten_without_being_asked() {
    let folder = folder_with("compose.yaml", TWO);
    fs::create_dir(folder.path().join("db")).unwrap();
    let mine = folder.path().join("db/hac.toml");
    fs::write(&mine, "mine").unwrap();
    let output = import_in(folder.path(), &["compose.yaml"]);
    let said = text(&output.stderr);
    assert_eq!(code(output.status), 1);
    assert!(said.contains("./db/hac.toml is already there") && said.contains("--force"), "{said}");
    assert_eq!(fs::read_to_string(&mine).unwrap(), "mine");
    assert!(!folder.path().join("web").exists(), "all or nothing");
    let output = import_in(folder.path(), &["compose.yaml", "--force"]);
    assert_eq!(code(output.status), 0);
    assert!(fs::read_to_string(&mine).unwrap().contains("redis:7"));
}

#[test]
fn a_manifest_that_can_t_be_written_takes_the_others_back() {
    let folder = folder_with("compose.yaml", TWO);
    // A file stands where the second service's folder would be.
    fs::write(folder.path().join("db"), "").unwrap();
    let output = import_in(folder.path(), &["compose.yaml", "--force"]);
    assert_eq!(code(output.status), 1);
    assert!(text(&output.stderr).contains("nothing was written"), "{}", text(&output.stderr));
    assert!(!folder.path().join("web").exists());
}

#[test]
fn of_two_imports_at_once_one_writes_and_the_other_says_why_not() {
    let folder = folder_with("compose.yaml", TWO);
    let start = || {
        Command::new(VIMANA)
            .args(["hac", "import", "compose.yaml"])
            .current_dir(folder.path())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let outputs = [start(), start(), start()].map(|child| child.wait_with_output().unwrap());
    let done = outputs.iter().filter(|output| output.status.success()).count();
    assert_eq!(done, 1, "{:?}", outputs.map(|output| text(&output.stderr)));
    for service in ["web", "db"] {
        let left: Vec<_> = fs::read_dir(folder.path().join(service)).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}

#[test]
fn variables_come_from_the_environment_then_from_files() {
    let compose = "services:\n  web:\n    image: nginx:${TAG}\n    env_file: [app.env, gone.env]\n";
    let folder = folder_with("compose.yaml", compose);
    let image = |args: &[&str], tag: Option<&str>| {
        let mut command = Command::new(VIMANA);
        command.args(["hac", "import", "--stdout", "compose.yaml"]).args(args).current_dir(folder.path());
        match tag {
            Some(tag) => command.env("TAG", tag),
            None => command.env_remove("TAG"),
        };
        command.output().unwrap()
    };
    let refused = image(&[], None);
    assert_eq!(code(refused.status), 1);
    assert!(text(&refused.stderr).contains("its variable isn't set"), "{}", text(&refused.stderr));
    fs::write(folder.path().join(".env"), "TAG=beside\n").unwrap();
    fs::write(folder.path().join("other.env"), "TAG='other'\n").unwrap();
    fs::write(folder.path().join("app.env"), "GREETING=hello\n").unwrap();
    for (args, tag, expected) in [
        (vec![], None, "nginx:beside"),
        (vec!["--env-file", "other.env"], None, "nginx:other"),
        (vec![], Some("outside"), "nginx:outside"),
    ] {
        let output = image(&args, tag);
        let manifest = text(&output.stdout);
        assert!(manifest.contains(expected) && manifest.contains("GREETING = \"hello\""), "{manifest}");
        assert!(text(&output.stderr).contains("gone.env"), "{}", text(&output.stderr));
    }
    assert!(!folder.path().join("web").exists(), "--stdout writes nothing");
}

#[test]
fn json_has_what_was_made_and_what_was_not_carried_over() {
    let folder = folder_with("compose.yaml", TWO);
    let output = import_in(folder.path(), &["--json", "compose.yaml"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    assert_eq!(said["from"], "compose");
    assert_eq!(said["services"][0]["path"], "./web/hac.toml");
    assert_eq!(said["not_carried"][0]["key"], "services.web.privileged");
    assert_eq!((&said["not_carried"][0]["line"], &said["not_carried"][0]["column"]), (&5.into(), &5.into()));
    fs::write(folder.path().join("wrong.yaml"), "services:\n  a: {ports: [x]}\n").unwrap();
    let output = import_in(folder.path(), &["--json", "wrong.yaml"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((code(output.status), &said["valid"]), (1, &false.into()));
    assert_eq!(said["diagnostics"].as_array().unwrap().len(), 2);
}

#[test]
fn a_file_that_can_t_be_imported_leaves_nothing_behind() {
    let folder = folder_with("compose.yaml", "services:\n\tweb:\n");
    for (file, expected) in [
        ("compose.yaml", "compose.yaml:2:1: line 2 is indented with a tab"),
        ("gone.yaml", "gone.yaml can't be opened"),
        (".", "can't be read"),
    ] {
        let output = import_in(folder.path(), &[file]);
        assert_eq!(code(output.status), 1, "{file}");
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_help_shows_how_it_is_used() {
    let output = Command::new(VIMANA).args(["hac", "import", "--help"]).output().unwrap();
    let help = text(&output.stdout);
    for part in
        ["Examples:", "vimana hac import compose.yaml", "--env-file", "--stdout", "docker compose config"]
    {
        assert!(help.contains(part), "{part} isn't in\n{help}");
    }
}
