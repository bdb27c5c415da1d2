//! Secrets: from standard input to a file that only the workload's user reads.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Home, missing, skipped, text};

const VALUE: &str = "correct horse battery staple";

fn set(home: &Home, name: &str, value: &str) {
    let mut child = home.vimana(&["secret", "set", name]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn manifest(home: &Home, isolation: &str, script: &str) -> String {
    let path = home.path().join("hac.toml");
    let manifest = format!(
        "[metadata]\nname = \"box\"\n[spec.deployment]\nimage = \"{}\"\nargs = [\"sh\", \"-c\", \"{script}\"]\n\
         user = \"7\"\nsecrets = [\"token\"]\n[spec.resources]\nmemory = \"96Mi\"\n\
         [spec.virtualization]\ntype = \"{isolation}\"\n[spec.networking]\nnetwork_type = \"none\"\n",
        home.image
    );
    fs::write(&path, manifest).unwrap();
    path.display().to_string()
}

fn reads_it(test: &str, isolation: &str) {
    let Some(home) = Home::new(test) else { return };
    let path = manifest(
        &home,
        isolation,
        "cat /run/secrets/token; echo; stat -c '%a %u' /run/secrets/token; mount | grep -c secrets",
    );
    let refused = home.vimana(&["run", &path]).output().unwrap();
    assert!(text(&refused.stderr).contains("vimana secret set token"), "{}", text(&refused.stderr));
    set(&home, "token", VALUE);
    let output = home.vimana(&["run", &path]).output().unwrap();
    assert_eq!(text(&output.stdout), format!("{VALUE}\n400 7\n1\n"), "{}", text(&output.stderr));
    let plan = home.vimana(&["plan", "--json", &path]).output().unwrap();
    let plan = text(&plan.stdout);
    let hex: String = VALUE.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(plan.contains("token") && !plan.contains(VALUE) && !plan.contains(&hex));
    // Nothing of it in the clear anywhere on the disk.
    let found = Command::new("grep").args(["-rlaF", VALUE]).arg(home.path()).output().unwrap();
    assert_eq!(text(&found.stdout), "");
    home.assert_nothing_is_left();
}

#[test]
fn a_microvm_s_workload_reads_its_secret_and_nobody_else_does() {
    reads_it("a_microvm_s_workload_reads_its_secret_and_nobody_else_does", "MicroVM");
}

#[test]
fn a_container_s_workload_reads_its_secret_and_nobody_else_does() {
    let test = "a_container_s_workload_reads_its_secret_and_nobody_else_does";
    match missing("Container") {
        Some(reason) => skipped(test, &reason),
        None => reads_it(test, "Container"),
    }
}

/// Opens `token` in its first folder, tries to write to it, and prints what is in it.
const READER: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $name (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 100) "token")
  (func (export "_start")
    (if (i32.eqz (call $open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 8) (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 200)))
      (then (call $exit (i32.const 3))))
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 200))
      (then (call $exit (i32.const 4))))
    (i32.store (i32.const 0) (i32.const 1000)) (i32.store (i32.const 4) (i32.const 100))
    (drop (call $read (i32.load (i32.const 200)) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $name (i32.const 3) (i32.const 1000) (i32.const 12)))
    (i32.store (i32.const 4) (i32.const 12))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

#[test]
fn a_wasm_program_reads_its_secret_where_everybody_else_does() {
    let test = "a_wasm_program_reads_its_secret_where_everybody_else_does";
    if !rustix::process::geteuid().is_root() {
        return skipped(test, "needs root");
    }
    let Some(home) = Home::new(test) else { return };
    let program = home.path().join("reader.wasm");
    fs::write(&program, wat::parse_str(READER).unwrap()).unwrap();
    set(&home, "token", VALUE);
    let path = home.path().join("hac.toml");
    let manifest = format!(
        "[metadata]\nname = \"reader\"\n[spec.deployment]\nimage = \"wasm:{}\"\nsecrets = [\"token\"]\n\
         [spec.resources]\nmemory = \"16Mi\"\n[spec.virtualization]\ntype = \"Wasm\"\n",
        program.display()
    );
    fs::write(&path, manifest).unwrap();
    let output = home.vimana(&["run", path.to_str().unwrap()]).output().unwrap();
    assert_eq!(text(&output.stdout), format!("{VALUE}/run/secrets"), "{}", text(&output.stderr));
    let found = Command::new("grep").args(["-rlaF", VALUE]).arg(home.path()).output().unwrap();
    assert_eq!(text(&found.stdout), "");
    home.assert_nothing_is_left();
}
