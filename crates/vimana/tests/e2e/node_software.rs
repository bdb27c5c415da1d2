//! Real node software, packed by the examples' own scripts: it starts, answers, and keeps what it has to keep.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use crate::support::{Home, Killed, kill, skipped, text};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").canonicalize().unwrap()
}

/// A copy of an example's folder with what its script packs, which is made once for all tests.
fn packed(test: &str, home: &Home, example: &str, script: &str, result: &str) -> Option<PathBuf> {
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packed");
    fs::create_dir_all(&shared).unwrap();
    let lock = File::create(shared.join(format!("{example}.lock"))).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let made = shared.join(result);
    if !made.exists() {
        let output = Command::new(examples().join(example).join(script)).arg(&made).output().unwrap();
        let said = text(&output.stderr);
        if let Some(missing) = said.lines().find(|line| line.starts_with("missing: ")) {
            skipped(test, missing);
            return None;
        }
        assert!(output.status.success(), "{example}/{script}: {said}");
    }
    let copy = home.path().join(example);
    assert!(
        Command::new("cp").arg("-r").arg(examples().join(example)).arg(&copy).status().unwrap().success()
    );
    let place = copy.join(result);
    let _ = fs::remove_dir_all(&place);
    std::os::unix::fs::symlink(made, place).unwrap();
    Some(copy)
}

/// Runs an example's manifest, and its check against the port that it is published on.
struct Running {
    child: Killed,
    url: String,
    check: PathBuf,
}

impl Running {
    fn start(home: &Home, folder: &Path, flags: &[&str], port: (u16, u16)) -> Self {
        let publish = format!("127.0.0.1:{}:{}", port.0, port.1);
        let manifest = folder.join("hac.toml");
        let mut args = vec!["run", "-p", &publish];
        args.extend(flags);
        args.push(manifest.to_str().unwrap());
        let log = File::create(home.path().join("run.log")).unwrap();
        let child = home.vimana(&args).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let url = format!("http://127.0.0.1:{}", port.0);
        Self { child: Killed(child), url, check: folder.join("check") }
    }

    fn check(&self, home: &Home, more: &[&str]) -> String {
        let output = Command::new(&self.check).arg(&self.url).args(more).output().unwrap();
        let log = || fs::read_to_string(home.path().join("run.log")).unwrap_or_default();
        assert!(output.status.success(), "{}\n{}", text(&output.stderr), log());
        text(&output.stdout)
    }

    fn stop(mut self, home: &Home) {
        kill(self.child.0.id(), libc::SIGTERM);
        self.child.0.wait().unwrap();
        home.assert_nothing_is_left();
    }
}

/// Mines a block, ends in order, and finds it again; then by `kill -9`.
fn monero(test: &str, isolation: &str, port: u16) {
    let Some(home) = Home::new(test) else { return };
    if let Some(reason) = crate::support::missing(isolation) {
        return skipped(test, &reason);
    }
    let Some(folder) = packed(test, &home, "monero", "pack", "monero.oci") else { return };
    let flags = ["--isolation", isolation];
    let node = Running::start(&home, &folder, &flags, (port, 18081));
    let said = node.check(&home, &[]);
    assert!(said.starts_with("height 0\nmined ") && said.ends_with("\nheight 1\n"), "{said}");
    node.stop(&home);

    let mut again = Running::start(&home, &folder, &flags, (port, 18081));
    assert_eq!(again.check(&home, &["0"]), "height 1\n");
    again.child.0.kill().unwrap();
    again.child.0.wait().unwrap();
    home.assert_nothing_is_left();
    let node = Running::start(&home, &folder, &flags, (port, 18081));
    assert_eq!(node.check(&home, &["0"]), "height 1\n");
    node.stop(&home);
}

#[test]
fn a_monero_node_in_a_microvm_mines_a_block_that_outlives_it() {
    monero("a_monero_node_in_a_microvm_mines_a_block_that_outlives_it", "MicroVM", 18181);
}

#[test]
fn a_monero_node_in_a_container_mines_a_block_that_outlives_it() {
    monero("a_monero_node_in_a_container_mines_a_block_that_outlives_it", "Container", 18182);
}

#[test]
fn an_ethereum_chain_in_a_microvm_answers_and_takes_a_transaction() {
    let test = "an_ethereum_chain_in_a_microvm_answers_and_takes_a_transaction";
    let Some(home) = Home::new(test) else { return };
    let Some(folder) = packed(test, &home, "ethereum", "pack", "ethereum.oci") else { return };
    let chain = Running::start(&home, &folder, &[], (18645, 8545));
    let said = chain.check(&home, &[]);
    assert!(said.starts_with("height 0\ntransaction 0x") && said.ends_with("\nheight 1\n"), "{said}");
    chain.stop(&home);
}

#[test]
fn a_wasm_program_built_from_c_sees_what_it_is_granted_and_nothing_else() {
    let test = "a_wasm_program_built_from_c_sees_what_it_is_granted_and_nothing_else";
    let Some(home) = Home::new(test) else { return };
    let Some(folder) = packed(test, &home, "wasm", "build", "hello.wasm") else { return };
    let manifest = folder.join("hac.toml");
    let run = |more: &[&str]| {
        let mut args = vec!["run", manifest.to_str().unwrap()];
        args.extend(more);
        home.vimana(&args).output().unwrap()
    };
    let output = run(&[]);
    let said = text(&output.stdout);
    assert!(
        said.starts_with("Good morning from a Wasm program with 1 argument\n"),
        "{said}{}",
        text(&output.stderr)
    );
    assert!(said.ends_with("      3      44     239 total\n"), "{said}");
    let output = run(&["--", "/texts", "/etc"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/etc: Capabilities insufficient"), "{}", text(&output.stderr));
    home.assert_nothing_is_left();
}
