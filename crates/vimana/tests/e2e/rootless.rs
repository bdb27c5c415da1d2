//! Everything works without root.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Killed, VIMANA, code, eventually, kill, page, shared, skipped, text};

const NOBODY: &str = "65534";

/// A folder of nobody's with the binary, a guest kernel and the image in it; `None`, said aloud, where that can't be.
fn folder_of_nobody(test: &str) -> Option<tempfile::TempDir> {
    if !rustix::process::geteuid().is_root() {
        // Then every other test has shown it.
        skipped(test, "only root can become somebody else");
        return None;
    }
    let shared = shared().map_err(|reason| skipped(test, &reason)).ok()?;
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &str| {
        assert!(
            Command::new("cp").arg("-r").arg(from).arg(folder.path().join(to)).status().unwrap().success()
        );
    };
    fs::create_dir(folder.path().join("home")).unwrap();
    copy(Path::new(VIMANA), "vimana");
    copy(&shared.join("home/kernels"), "home/kernels");
    copy(&shared.join("busybox.oci"), "busybox.oci");
    fs::create_dir(folder.path().join("share")).unwrap();
    let owner = format!("{NOBODY}:{NOBODY}");
    assert!(Command::new("chown").args(["-R", &owner]).arg(folder.path()).status().unwrap().success());
    Some(folder)
}

fn as_nobody(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"])
        .arg(folder.join("vimana"))
        .args(args)
        .env("VIMANA_HOME", folder.join("home"))
        .stdin(Stdio::null());
    command
}

#[test]
fn a_user_without_root_runs_publishes_and_mounts() {
    let test = "a_user_without_root_runs_publishes_and_mounts";
    let Some(folder) = folder_of_nobody(test) else { return };
    let image = format!("oci:{}:latest", folder.path().join("busybox.oci").display());
    let volume = format!("{}:/share", folder.path().join("share").display());
    let network = Command::new("passt").arg("--version").output().is_ok();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let publish = format!("{port}:8080");
    let mut args = vec!["run", "--accel", "tcg", "-m", "96Mi", "-v", &volume];
    match network {
        true => args.extend(["-p", &publish]),
        false => args.extend(["--network", "none"]),
    }
    let script =
        "id -u; touch /share/made; stat -c %u /share/made; httpd -f -p 8080 -h /www & echo ready; wait";
    args.extend([image.as_str(), "--", "sh", "-c", script]);
    let mut child = Killed(as_nobody(folder.path(), &args).stdout(Stdio::piped()).spawn().unwrap());
    let lines: Vec<String> =
        BufReader::new(child.0.stdout.take().unwrap()).lines().take(3).map(Result::unwrap).collect();
    // Inside, root; what it makes is its own there, and the user's here.
    assert_eq!(lines, ["0", "0", "ready"]);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(folder.path().join("share/made")).unwrap().uid().to_string(), NOBODY);
    if network {
        let answer = eventually("the server answers", 30, || {
            let answer = page(port, Duration::from_secs(1))?;
            answer.contains("200 OK").then_some(answer)
        });
        assert!(answer.contains("microVM"), "{answer}");
    }
    kill(child.0.id(), libc::SIGTERM);
    kill(child.0.id(), libc::SIGTERM);
    child.0.wait().unwrap();
    let left =
        fs::read_dir(folder.path().join("home/run")).unwrap().flatten().filter(|e| e.path().is_dir()).count();
    assert_eq!(left, 0);
}

#[test]
fn a_port_that_only_root_may_have_is_said_to_be_one() {
    let test = "a_port_that_only_root_may_have_is_said_to_be_one";
    let Some(folder) = folder_of_nobody(test) else { return };
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if first.trim() != "1024" || Command::new("passt").arg("--version").output().is_err() {
        return skipped(test, "this machine lets everybody listen on low ports, or has no passt");
    }
    let image = format!("oci:{}:latest", folder.path().join("busybox.oci").display());
    let args = ["run", "--accel", "tcg", "-m", "96Mi", "-p", "80:80", &image, "--", "true"];
    let output = as_nobody(folder.path(), &args).output().unwrap();
    assert_eq!(code(output.status), 125);
    assert!(text(&output.stderr).contains("-p 8080:80"), "{}", text(&output.stderr));
}

#[test]
fn a_user_whom_no_control_group_was_handed_to_is_told_what_would_give_one() {
    let test = "a_user_whom_no_control_group_was_handed_to_is_told_what_would_give_one";
    let Some(folder) = folder_of_nobody(test) else { return };
    let image = format!("oci:{}:latest", folder.path().join("busybox.oci").display());
    let output =
        as_nobody(folder.path(), &["run", "--isolation", "Container", &image, "--", "true"]).output();
    let output = output.unwrap();
    let said = text(&output.stderr);
    assert_eq!(code(output.status), 125, "{said}");
    let known = ["of version 1 here", "systemd-run --user --scope", "this user can't make user namespaces"];
    assert!(known.iter().any(|reason| said.contains(reason)), "{said}");
    assert!(said.contains("--isolation MicroVM"), "{said}");
}
