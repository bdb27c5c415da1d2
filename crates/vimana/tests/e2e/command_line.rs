//! What the commands say without starting a machine.

use crate::support::{Home, code, text};

#[test]
fn a_plan_is_exact_and_runs_nothing() {
    let Some(home) = Home::new("a_plan_is_exact_and_runs_nothing") else {
        return;
    };
    let output =
        home.vimana(&["plan", "--json", "--accel", "tcg", "-m", "96Mi", &home.image]).output().unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    assert_eq!(plan["plan"]["accelerator"], "tcg");
    assert_eq!(plan["plan"]["memory_mib"], 96);
    assert_eq!(plan["plan"]["kernel"]["digest"].as_str().unwrap().len(), 64);
    assert_eq!(plan["plan"]["layers"][0]["verity_root"].as_str().unwrap().len(), 64);
    assert!(plan["execution"]["program"]["program"].as_str().unwrap().ends_with("qemu-system-x86_64"));
    let again =
        home.vimana(&["plan", "--json", "--accel", "tcg", "-m", "96Mi", &home.image]).output().unwrap();
    assert_eq!(output.stdout, again.stdout, "the same question has the same answer");
    home.assert_nothing_is_left();
}

#[test]
fn the_seed_s_sample_is_refused_here_with_what_would_run_instead_or_planned() {
    let Some(home) = Home::new("the_seed_s_sample_is_refused_here_with_what_would_run_instead_or_planned")
    else {
        return;
    };
    let manifest = home.path().join("hac.toml");
    let text_of = format!(
        "[spec.deployment]\nimage = \"{}\"\n[spec.virtualization]\ntype = \"MicroVM\"\nprovider = \"KVM\"\n",
        home.image
    );
    std::fs::write(&manifest, text_of).unwrap();
    let output = home.vimana(&["plan", manifest.to_str().unwrap()]).output().unwrap();
    let said = text(&output.stderr);
    // On a machine with KVM that works the plan says so instead.
    assert!(said.contains("--accel tcg") || text(&output.stdout).contains("accel kvm"), "{said}");
}

#[test]
fn all_errors_of_a_manifest_come_at_once_with_their_places() {
    let home = tempfile::tempdir().unwrap();
    let manifest = home.path().join("hac.toml");
    std::fs::write(&manifest, "[spec.deployment]\nimagee = \"x\"\n[spec.resources]\ncpu = \"many\"\n")
        .unwrap();
    let output = std::process::Command::new(crate::support::VIMANA)
        .args(["run", manifest.to_str().unwrap()])
        .env("VIMANA_HOME", home.path().join("home"))
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(code(output.status), 125);
    for part in ["hac.toml:2:", "hac.toml:4:", "image"] {
        assert!(said.contains(part), "{part} isn't in {said}");
    }
}

#[test]
fn without_a_manifest_the_way_to_one_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(crate::support::VIMANA)
        .arg("run")
        .current_dir(folder.path())
        .env("VIMANA_HOME", folder.path().join("home"))
        .output()
        .unwrap();
    assert_eq!(code(output.status), 125);
    assert!(text(&output.stderr).contains("vimana hac init"), "{}", text(&output.stderr));
    assert!(!folder.path().join("home").exists(), "nothing is made for a command that can't run");
}

#[test]
fn a_volume_that_cant_be_used_is_refused_before_anything_is_fetched() {
    let home = tempfile::tempdir().unwrap();
    let volume = home.path().join("volumes/web/data");
    std::fs::create_dir_all(&volume).unwrap();
    let record = r#"{"version":1,"content":{"disk":{"bytes":67108864,"guest-written":true}}}"#;
    std::fs::write(volume.join("volume.json"), record).unwrap();
    for (isolation, reason) in [("Container", "written by a microVM"), ("Wasm", "kept as a disk")] {
        let output = std::process::Command::new(crate::support::VIMANA)
            .args(["plan", "--isolation", isolation, "--name", "web", "-v", "data:/data"])
            .arg("registry.invalid/nothing:1")
            .env("VIMANA_HOME", home.path())
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(reason), "{said}");
    }
    assert!(!home.path().join("images").exists());
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in [
        vec!["run"],
        vec!["plan"],
        vec!["doctor"],
        vec!["hac", "init"],
        vec!["hac", "check"],
        vec!["hac", "schema"],
        vec!["hac", "convert"],
        vec!["hac", "import"],
        vec!["hac", "explain"],
        vec!["image", "pull"],
        vec!["image", "ls"],
        vec!["image", "inspect"],
        vec!["image", "sbom"],
        vec!["image", "scan"],
        vec!["image", "verify"],
        vec!["image", "rm"],
        vec!["image", "prune"],
        vec!["kernel", "fetch"],
        vec!["kernel", "ls"],
        vec!["kernel", "rm"],
    ] {
        let output =
            std::process::Command::new(crate::support::VIMANA).args(&command).arg("--help").output().unwrap();
        let help = text(&output.stdout);
        assert!(
            output.status.success() && help.contains("Example") && help.contains("vimana "),
            "{command:?}: {help}"
        );
    }
}

#[test]
fn a_keeper_started_by_hand_says_who_starts_it() {
    let output = std::process::Command::new("sh")
        .args(["-c", &format!("exec {} keeper 3<&- 4<&-", crate::support::VIMANA)])
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("started by other commands"), "{}", text(&output.stderr));
    assert_eq!(code(output.status), 1);
}
