//! Encrypted volumes: what a guest writes, this machine's disk doesn't show.

use std::fs;
use std::process::{Command, Output};

use crate::support::{Home, text};

const PATTERN: &str = "a pattern that would be found";

fn manifest(home: &Home, name: &str, isolation: &str) -> String {
    let path = home.path().join(format!("{name}-{isolation}.toml"));
    let manifest = format!(
        "[metadata]\nname = \"{name}\"\n[spec.deployment]\nimage = \"{}\"\n[spec.resources]\nmemory = \"96Mi\"\n\
         [spec.virtualization]\ntype = \"{isolation}\"\n[spec.networking]\nnetwork_type = \"none\"\n\
         [[spec.mounts]]\nsource = \"data\"\ndestination = \"/data\"\nsize = \"64Mi\"\nencrypted = true\n",
        home.image
    );
    fs::write(&path, manifest).unwrap();
    path.display().to_string()
}

fn run(home: &Home, manifest: &str, script: &str) -> Output {
    home.vimana(&["run", manifest, "--", "sh", "-c", script]).output().unwrap()
}

#[test]
fn what_an_encrypted_volume_holds_is_kept_and_stands_nowhere_in_clear() {
    let test = "what_an_encrypted_volume_holds_is_kept_and_stands_nowhere_in_clear";
    let Some(home) = Home::new(test) else { return };
    let box_ = manifest(&home, "box", "MicroVM");
    // Many times, so that it would lie whole in a block.
    let written = run(
        &home,
        &box_,
        &format!("for i in $(seq 2000); do echo {PATTERN}; done > /data/file; df -T /data"),
    );
    assert!(written.status.success() && text(&written.stdout).contains("/dev/"), "{}", text(&written.stderr));
    let disk = home.path().join("volumes/box/data/disk.img");
    let found = |what: &str| {
        Command::new("grep").args(["-rlaF", what]).arg(home.path().join("volumes")).output().unwrap()
    };
    assert_eq!(text(&found(PATTERN).stdout), "");
    assert!(text(&found("vimana crypt 1").stdout).contains("disk.img"), "grep would find it");
    let listed = text(&home.vimana(&["volume", "ls"]).output().unwrap().stdout);
    assert!(listed.contains("disk, encrypted"), "{listed}");

    for args in [["volume", "snapshot", "box/data", "kept"], ["volume", "restore", "box/data", "kept"]] {
        let output = home.vimana(&args).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    // Another key, sealed for this volume as if it were its own, opens nothing and destroys nothing.
    let key = home.path().join("volumes/box/data/key");
    let (good, aside) = (fs::read(&key).unwrap(), home.path().join("aside"));
    fs::rename(home.path().join("volumes/box"), &aside).unwrap();
    assert!(run(&home, &box_, "true").status.success());
    fs::copy(&disk, home.path().join("other.img")).unwrap();
    fs::copy(aside.join("data/disk.img"), &disk).unwrap();
    let before = fs::read(&disk).unwrap();
    let refused = run(&home, &box_, "true");
    assert!(
        !refused.status.success() && text(&refused.stderr).contains("isn't the one that it was written with"),
        "{}",
        text(&refused.stderr)
    );
    assert!(fs::read(&disk).unwrap() == before, "the disk was changed");
    fs::remove_file(&key).unwrap();
    let refused = run(&home, &box_, "true");
    assert!(text(&refused.stderr).contains("its key") && !key.exists(), "{}", text(&refused.stderr));
    fs::write(&key, good).unwrap();
    let read = run(&home, &box_, "sort -u /data/file; wc -l < /data/file");
    assert_eq!(text(&read.stdout), format!("{PATTERN}\n2000\n"), "{}", text(&read.stderr));

    let refused = run(&home, &manifest(&home, "other", "Container"), "true");
    assert!(text(&refused.stderr).contains("run it as MicroVM"), "{}", text(&refused.stderr));
    assert!(home.vimana(&["volume", "rm", "box/data"]).status().unwrap().success());
    assert!(!key.exists());
    home.assert_nothing_is_left();
}
