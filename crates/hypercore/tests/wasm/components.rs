//! Components of WASI 0.2, written by hand.

use spacecore::wire::message::ExitStatus;

use super::programs::killed_by;
use super::rig::Rig;

/// A component whose `run` does what the instructions say and returns what they leave: 0 is ok, 1 an error.
fn running(instructions: &str) -> String {
    format!(
        r#"(component
          (core module $m (func $run (export "run") (result i32) {instructions}))
          (core instance $i (instantiate $m))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $run (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $run)))"#
    )
}

/// A component that prints through `wasi:cli/stdout`.
const PRINTING: &str = r#"(component
  (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $failure))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "output-stream" (type $out (sub resource)))
    (alias outer 1 $failure (type $outer-failure))
    (export "error" (type $failure (eq $outer-failure)))
    (type $stream-error-shape (variant (case "last-operation-failed" (own $failure)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $stream-error-shape)))
    (export "[method]output-stream.blocking-write-and-flush" (func
      (param "self" (borrow $out)) (param "contents" (list u8)) (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $stream (type $outer-stream))
    (export "output-stream" (type $out (eq $outer-stream)))
    (export "get-stdout" (func (result (own $out))))))
  (core module $memory (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $memory (instantiate $memory))
  (core func $get (canon lower (func $stdout "get-stdout")))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
    (memory $memory "memory") (realloc (func $memory "realloc"))))
  (core module $m
    (import "host" "memory" (memory 1))
    (import "host" "get" (func $get (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (data (i32.const 16) "hello from a component\n")
    (func (export "run") (result i32)
      (call $write (call $get) (i32.const 16) (i32.const 23) (i32.const 512))
      (i32.load8_u (i32.const 512))))
  (core instance $host (export "memory" (memory $memory "memory"))
    (export "get" (func $get)) (export "write" (func $write)))
  (core instance $i (instantiate $m (with "host" (instance $host))))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $run (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $run)))"#;

#[test]
fn a_component_says_how_it_went() {
    assert_eq!(Rig::text(&running("(i32.const 0)")).run().status, Some(ExitStatus::Code(0)));
    assert_eq!(Rig::text(&running("(i32.const 1)")).run().status, Some(ExitStatus::Code(1)));
    let seen = Rig::text(&running("(unreachable)")).run();
    assert_eq!(seen.status, killed_by(6));
    assert!(seen.stderr().contains("in function run"), "{}", seen.stderr());
}

#[test]
fn a_component_prints_and_is_kept_compiled() {
    let mut rig = Rig::text(PRINTING);
    for how in ["compile", "load"] {
        rig.driver = hypercore::driver::wasm::Wasm::new();
        let seen = rig.run();
        assert_eq!(seen.stdout(), "hello from a component\n", "{:?}", seen);
        assert_eq!(seen.status, Some(ExitStatus::Code(0)));
        assert!(seen.configured[0].starts_with(how), "{:?}", seen.configured);
    }
}

#[test]
fn a_component_can_t_have_more_memory_than_the_whole_has() {
    let hungry = running("(i32.const 0)").replace("(core module $m", "(core module $m (memory 900)");
    let twice = hungry.replace(
        "(core instance $i (instantiate $m))",
        "(core instance $i (instantiate $m)) (core instance (instantiate $m))",
    );
    assert_eq!(Rig::text(&hungry).run().status, Some(ExitStatus::Code(0)));
    let status = Rig::text(&twice).run().status;
    assert_eq!(status, Some(ExitStatus::Signal { signal: 9, out_of_memory: true }));
}

/// A component that looks up a name that is an address already, and says whether it could.
const LOOKING_UP: &str = r#"(component
  (import "wasi:sockets/network@0.2.0" (instance $net
    (export "network" (type (sub resource)))
    (type $codes (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
      "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
      "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused" "connection-reset"
      "connection-aborted" "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
      "permanent-resolver-failure"))
    (export "error-code" (type (eq $codes)))))
  (alias export $net "network" (type $network))
  (alias export $net "error-code" (type $code))
  (import "wasi:sockets/instance-network@0.2.0" (instance $granted
    (alias outer 1 $network (type $outer-network))
    (export "network" (type $n (eq $outer-network)))
    (export "instance-network" (func (result (own $n))))))
  (import "wasi:sockets/ip-name-lookup@0.2.0" (instance $names
    (alias outer 1 $network (type $outer-network))
    (export "network" (type $n (eq $outer-network)))
    (alias outer 1 $code (type $outer-code))
    (export "error-code" (type $c (eq $outer-code)))
    (export "resolve-address-stream" (type $s (sub resource)))
    (export "resolve-addresses" (func (param "network" (borrow $n)) (param "name" string)
      (result (result (own $s) (error $c)))))))
  (core module $memory (memory (export "memory") 1))
  (core instance $memory (instantiate $memory))
  (core func $get (canon lower (func $granted "instance-network")))
  (core func $look (canon lower (func $names "resolve-addresses") (memory $memory "memory")))
  (core module $m
    (import "host" "memory" (memory 1))
    (import "host" "get" (func $get (result i32)))
    (import "host" "look" (func $look (param i32 i32 i32 i32)))
    (data (i32.const 16) "192.0.2.1")
    (func (export "run") (result i32)
      (call $look (call $get) (i32.const 16) (i32.const 9) (i32.const 512))
      (i32.load8_u (i32.const 512))))
  (core instance $host (export "memory" (memory $memory "memory"))
    (export "get" (func $get)) (export "look" (func $look)))
  (core instance $i (instantiate $m (with "host" (instance $host))))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $run (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $run)))"#;

#[test]
fn names_are_looked_up_with_a_network_and_not_without() {
    let mut rig = Rig::text(LOOKING_UP);
    assert_eq!(rig.run().status, Some(ExitStatus::Code(1)), "without");
    rig.machine.network = Some(hypercore::driver::Network {
        mac: hypercore::driver::Mac([0x52, 0x54, 0, 1, 2, 3]),
        mtu: 1400,
        carrier: hypercore::network::Carrier::Passt,
    });
    rig.network = Some(spacecore::wire::message::Network {
        addresses: vec!["10.0.2.15/24".into()],
        gateways: vec!["10.0.2.2".into()],
        dns: vec!["10.0.2.3".into()],
        search: Vec::new(),
        mtu: 1400,
    });
    let seen = rig.run();
    if let Some((_, refusal)) = seen.refusals.first() {
        return super::rig::skipped("names_are_looked_up_with_a_network_and_not_without", &refusal.message);
    }
    assert_eq!(seen.status, Some(ExitStatus::Code(0)), "{}", seen.stderr());
}
