//! What isn't run, and why.

use hypercore::driver::wasm::wants_network;
use hypercore::driver::{Driver, Mount, MountSource, PrepareError};
use spacecore::wire::message::RefusalKind;

use super::programs::printing;
use super::rig::Rig;

#[test]
fn what_isn_t_a_program_is_named_for_what_it_is() {
    let module = |text: &str| wat::parse_str(text).unwrap();
    let whole = module(&printing("hello\n", ""));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "is empty"),
        (b"\x7fELF....".to_vec(), "a native program"),
        (b"(module)".to_vec(), "text form"),
        (whole[..7].to_vec(), "the first bytes of a Wasm module"),
        (whole[..whole.len() / 2].to_vec(), "can't be run"),
        ([&whole, &b"\xff\xff\xff"[..]].concat(), "can't be run"),
        (module("(module)"), "a core module without _start"),
        (module("(module (func (export \"_initialize\")))"), "made to be a library"),
        (module("(module (func (export \"_start\") (param i32)))"), "whose _start isn't such a function"),
        (module("(module (import \"env\" \"magic\" (func)) (func (export \"_start\")))"), "env::magic"),
        (module("(component)"), "doesn't export wasi:cli/run"),
        (module("(component (component))"), "doesn't export wasi:cli/run"),
    ];
    for (bytes, words) in cases {
        let seen = Rig::binary(&bytes).run();
        assert!(seen.refusal().contains(words), "{words}: {}", seen.refusal());
        assert_eq!(seen.refusals[0].1.kind, RefusalKind::NotExecutable);
        assert!(!seen.started);
    }
}

#[test]
fn a_file_that_is_missing_or_another_than_was_meant_is_refused() {
    let mut rig = Rig::text(&printing("", ""));
    let module = rig.body().module.clone();
    std::fs::write(&module, wat::parse_str(printing("other", "")).unwrap()).unwrap();
    assert!(rig.run().refusal().contains("SHA-256"));
    std::fs::remove_file(&module).unwrap();
    let seen = rig.run();
    assert_eq!(seen.refusals[0].1.kind, RefusalKind::NotFound);
}

#[test]
fn a_folder_that_isn_t_there_is_refused() {
    let mut rig = Rig::text(&printing("", ""));
    let path = rig.mount("data", "/data", false);
    std::fs::remove_dir(path).unwrap();
    let seen = rig.run();
    assert!(seen.refusal().contains("/data"), "{}", seen.refusal());
    assert_eq!(seen.refusals[0].1.kind, RefusalKind::Mount);
}

#[test]
fn what_can_t_be_granted_is_refused_before_anything_runs() {
    let spoil: [fn(&mut Rig); 6] = [
        |rig| rig.body().digest = "abc".into(),
        |rig| rig.machine.cpu_milli = 0,
        |rig| rig.machine.memory_mib = 0,
        |rig| rig.machine.memory_mib = u64::MAX,
        |rig| {
            let source = MountSource::File("/etc/hosts".into());
            rig.body().mounts.push(Mount { source, destination: "/x".into(), readonly: true });
        },
        |rig| {
            let source = MountSource::Memory(4096);
            rig.body().mounts.push(Mount { source, destination: "/x".into(), readonly: false });
        },
    ];
    for spoil in spoil {
        let mut rig = Rig::text(&printing("", ""));
        spoil(&mut rig);
        let result = rig.driver.prepare(&rig.machine);
        assert!(matches!(result, Err(PrepareError::Value { .. })), "{:?}", rig.machine);
    }
}

#[test]
fn only_a_component_that_imports_sockets_wants_a_network() {
    let wants = |text: &str| {
        let mut rig = Rig::text(text);
        wants_network(&rig.body().module)
    };
    assert!(!wants(&printing("", "")).unwrap());
    assert!(!wants("(component)").unwrap());
    assert!(!wants("(component (import \"wasi:io/error@0.2.0\" (instance)))").unwrap());
    assert!(wants("(component (import \"wasi:sockets/network@0.2.0\" (instance)))").unwrap());
    assert!(!wants("(component (component (import \"wasi:sockets/network@0.2.0\" (instance))))").unwrap());
    let rig = Rig::binary(b"nothing");
    assert!(wants_network(&rig.folder.path().join("program.wasm")).is_err());
}
