//! What programs see, and how they end.

use spacecore::wire::message::ExitStatus;

use super::rig::Rig;

/// A module that prints a text, then does what the instructions say.
pub(crate) fn printing(text: &str, then: &str) -> String {
    let escaped: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1)
          (data (i32.const 16) "{escaped}")
          (func $deep (param i32) (result i32)
            (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
          (func (export "_start")
            (i32.store (i32.const 0) (i32.const 16))
            (i32.store (i32.const 4) (i32.const {length}))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            {then}))"#,
        length = text.len()
    )
}

/// Copies standard input to standard output.
pub(crate) const CAT: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (loop $more
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 65536))
      (if (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then (unreachable)))
      (if (i32.load (i32.const 8)) (then
        (i32.store (i32.const 4) (i32.load (i32.const 8)))
        (loop $rest
          (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)) (then (unreachable)))
          (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.load (i32.const 12))))
          (i32.store (i32.const 4) (i32.sub (i32.load (i32.const 4)) (i32.load (i32.const 12))))
          (br_if $rest (i32.load (i32.const 4))))
        (br $more))))))"#;

pub(crate) const fn killed_by(signal: i32) -> Option<ExitStatus> {
    Some(ExitStatus::Signal { signal, out_of_memory: false })
}

#[test]
fn a_module_prints_and_ends() {
    let seen = Rig::text(&printing("hello\n", "")).run();
    assert_eq!((seen.stdout().as_str(), seen.status), ("hello\n", Some(ExitStatus::Code(0))));
    assert!(seen.hello && seen.started && seen.stderr.is_empty());
}

#[test]
fn exit_codes_are_the_low_eight_bits() {
    for (code, seen) in [(0, 0), (1, 1), (125, 125), (126, 126), (200, 200), (255, 255), (256 + 7, 7)] {
        let rig = Rig::text(&printing("", &format!("(call $exit (i32.const {code}))")));
        assert_eq!(rig.run().status, Some(ExitStatus::Code(seen)), "{code}");
    }
}

#[test]
fn a_trap_is_a_signal_with_the_reason_as_last_line() {
    let traps = [
        ("(unreachable)", 6, "unreachable"),
        ("(drop (i32.load (i32.const -4)))", 6, "out of bounds memory access"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", 6, "divide by zero"),
        ("(drop (call $deep (i32.const 0)))", 11, "call stack exhausted in function deep"),
    ];
    for (instructions, signal, words) in traps {
        let seen = Rig::text(&printing("before\n", instructions)).run();
        assert_eq!(seen.status, killed_by(signal), "{instructions}");
        assert_eq!(seen.stdout(), "before\n");
        let said = seen.stderr();
        assert!(said.starts_with("vimana: ") && said.ends_with('\n') && said.lines().count() == 1, "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn bytes_go_in_and_come_out_as_they_are() {
    let mut rig = Rig::text(CAT);
    rig.process.stdin = true;
    let bytes: Vec<u8> = (0..2_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut running = rig.start();
    running.until("started", |seen| seen.started);
    running.type_in(&bytes);
    running.end_input();
    let seen = running.until_the_end();
    assert_eq!(seen.status, Some(ExitStatus::Code(0)), "{}", seen.stderr());
    assert!(seen.stdout == bytes, "{} of {} bytes", seen.stdout.len(), bytes.len());
}

#[test]
fn without_standard_input_it_is_at_its_end() {
    assert_eq!(Rig::text(CAT).run().status, Some(ExitStatus::Code(0)));
}

#[test]
fn a_terminal_echoes_lines_and_types_signals() {
    let mut rig = Rig::text(CAT);
    super::rig::a_terminal(&mut rig.process);
    let mut running = rig.start();
    running.until("started", |seen| seen.started);
    running.type_in(b"one\x7f\x7fkay\r");
    running.until("answered", |seen| seen.stdout().matches("okay\r\n").count() == 1);
    running.type_in(b"\x03");
    let seen = running.until_the_end();
    assert_eq!(seen.status, killed_by(2));
    assert!(seen.stdout().ends_with("^C"), "{:?}", seen.stdout());
}
