//! What programs see, and how they end.

use spacecore::wire::message::ExitStatus;

use super::rig::Rig;

/// A module that prints a text.
pub fn printing(text: &str, then: &str) -> String {
    let escaped: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1)
          (data (i32.const 16) "{escaped}")
          (func (export "_start")
            (i32.store (i32.const 0) (i32.const 16))
            (i32.store (i32.const 4) (i32.const {length}))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            {then}))"#,
        length = text.len()
    )
}

#[test]
fn a_module_prints_and_ends() {
    let seen = Rig::text(&printing("hello\n", "")).run();
    assert_eq!((seen.stdout().as_str(), seen.status), ("hello\n", Some(ExitStatus::Code(0))));
    assert!(seen.hello && seen.started && seen.stderr.is_empty());
}
