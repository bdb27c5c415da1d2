//! The examples run as they stand.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Home, Killed, eventually, kill, page, skipped, text};

/// A copy of the examples beside their image, so that a test writes nothing into the source tree.
fn examples(home: &Home) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let copy = home.path().join("examples");
    assert!(Command::new("cp").arg("-r").args([&source, &copy]).status().unwrap().success());
    let _ = fs::remove_dir_all(copy.join("busybox.oci"));
    let layout = home.image.strip_prefix("oci:").unwrap().strip_suffix(":latest").unwrap();
    symlink(layout, copy.join("busybox.oci")).unwrap();
    copy
}

#[test]
fn hello_says_hello_from_a_machine_of_its_own() {
    let Some(home) = Home::new("hello_says_hello_from_a_machine_of_its_own") else { return };
    let manifest = examples(&home).join("hello/hac.toml");
    let output = home.vimana(&["run", manifest.to_str().unwrap()]).output().unwrap();
    assert!(text(&output.stdout).starts_with("Hello from hello, a machine with its own kernel: Linux "));
}

#[test]
fn the_batch_job_reads_one_folder_and_writes_another() {
    let Some(home) = Home::new("the_batch_job_reads_one_folder_and_writes_another") else { return };
    let examples = examples(&home);
    // With no argument it takes the manifest of the folder that it is called in.
    let output = home.vimana(&["run"]).current_dir(examples.join("batch")).output().unwrap();
    let counted = fs::read_to_string(examples.join("batch/output/words.txt"))
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    assert_eq!(counted.lines().count(), 5);
    assert!(counted.trim_start().starts_with("6 a\n"), "{counted}");
}

#[test]
fn the_web_server_answers_through_its_published_port() {
    let test = "the_web_server_answers_through_its_published_port";
    let Some(home) = Home::new(test) else { return };
    if Command::new("passt").arg("--version").output().is_err() {
        return skipped(test, "passt isn't installed");
    }
    let manifest = examples(&home).join("web/hac.toml");
    let mut child = Killed(
        home.vimana(&["run", "-p", "127.0.0.1:18080:8080", manifest.to_str().unwrap()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let answer = eventually("the server answers", 40, || {
        let answer = page(18080, Duration::from_secs(1))?;
        answer.contains("Hello from inside a microVM").then_some(answer)
    });
    assert!(answer.contains("200 OK"), "{answer}");
    kill(child.0.id(), libc::SIGINT);
    child.0.wait().unwrap();
    home.assert_nothing_is_left();
}
