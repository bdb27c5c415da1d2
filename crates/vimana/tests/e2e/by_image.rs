//! An image that only one isolation can run, where nobody says which one there is to be.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::{code, text};
use crate::vimana::{command, layout};

/// A program that prints a line.
const HELLO: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 8) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "hello\n")
  (func (export "_start") (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))))"#;

/// Writes an OCI layout with a Wasm artifact, and gives its name.
fn artifact(folder: &Path) -> String {
    let config = json!({ "architecture": "wasm", "os": "wasip1", "layerDigests": [] });
    let program = wat::parse_str(HELLO).unwrap();
    let config = ("application/vnd.wasm.config.v0+json", &config);
    layout::write(folder, "latest", config, ("application/wasm", &program)).unwrap();
    format!("oci:{}:latest", folder.display())
}

#[test]
fn a_wasm_image_runs_as_wasm_where_no_isolation_is_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let image = artifact(&home.path().join("hello.wasm.oci"));
    let vimana = |args: &[&str]| -> Output { command(&home.path().join("home"), args).output().unwrap() };
    let planned = |args: &[&str]| {
        let output = vimana(&[&["plan", "--json"], args].concat());
        let document: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
        let isolation = document["plan"]["isolation"].as_str().unwrap().to_owned();
        (isolation, document["plan"]["notices"].to_string().contains("no isolation is asked for"))
    };
    assert_eq!(planned(&[&image]), ("Wasm".to_owned(), true));
    assert_eq!(planned(&["--isolation", "Wasm", &image]), ("Wasm".to_owned(), false));
    let ran = vimana(&["run", &image]);
    assert_eq!((code(ran.status), text(&ran.stdout)), (0, "hello\n".to_owned()), "{}", text(&ran.stderr));

    let manifest = home.path().join("hac.toml");
    let written = |rest: &str| {
        fs::write(&manifest, format!("[spec.deployment]\nimage = \"{image}\"\n{rest}")).unwrap();
        manifest.to_str().unwrap()
    };
    assert_eq!(planned(&[written("")]), ("Wasm".to_owned(), true));
    // Whoever asks for something else is told that it can't be, and gets nothing else.
    let file = written("[spec.virtualization]\ntype = \"Container\"\n");
    for args in [vec!["plan", file], vec!["plan", "--isolation", "Container", &image]] {
        let output = vimana(&args);
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{args:?}: {}", text(&output.stdout));
        assert!(said.contains("--isolation Wasm") || said.contains("no container can run"), "{said}");
    }
}
