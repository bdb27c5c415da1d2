//! Pausing, measuring, stopping; several at once; the cache of compiled code.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use hypercore::driver::wasm::Wasm;
use spacecore::wire::message::{ExitStatus, ToGuest};

use super::programs::{killed_by, printing};
use super::rig::{Rig, Running, is_readable};

fn cpu(running: &mut Running) -> Duration {
    running.instance.observe().unwrap().cpu
}

#[test]
fn a_paused_program_uses_no_time_and_goes_on_when_resumed() {
    let rig = Rig::text(&printing("up\n", "(loop $l (br $l))"));
    let mut running = rig.start();
    running.until("up", |seen| !seen.stdout.is_empty());
    running.instance.pause().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let paused = cpu(&mut running);
    std::thread::sleep(Duration::from_millis(200));
    assert!(cpu(&mut running) - paused < Duration::from_millis(5));
    running.instance.resume().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(cpu(&mut running) > paused + Duration::from_millis(5));
    running.instance.pause().unwrap();
    running.instance.stop().unwrap();
    assert!(running.instance.pause().is_err() && running.instance.observe().is_err());
    assert!(is_readable(running.instance.handle()));
}

#[test]
fn signals_do_what_they_do_to_a_process_that_says_nothing_about_them() {
    for signal in [1, 2, 3, 9, 10, 15] {
        let rig = Rig::text(&printing("up\n", "(loop $l (br $l))"));
        let mut running = rig.start();
        running.until("up", |seen| !seen.stdout.is_empty());
        for ignored in [17, 23, 28, 0, -1, 65, 19, 18] {
            running.say(&ToGuest::Signal { process: 0, signal: ignored });
        }
        running.say(&ToGuest::Signal { process: 0, signal });
        assert_eq!(running.until_the_end().status, killed_by(signal));
    }
}

#[test]
fn stats_say_what_the_program_uses() {
    let text = printing("up\n", "(loop $l (br $l))").replace("\"memory\") 1)", "\"memory\") 16)");
    let rig = Rig::text(&text);
    let mut running = rig.start();
    running.until("up", |seen| !seen.stdout.is_empty());
    running.say(&ToGuest::Stats { request: 7 });
    running.until("measured", |seen| seen.stats.contains_key(&7));
    let stats = &running.seen.stats[&7];
    assert_eq!((stats.memory_total, stats.memory_available), (64 << 20, 63 << 20));
    assert_eq!(stats.processes, 1);
    assert_eq!(running.instance.observe().unwrap().resident_bytes, 1 << 20);
    assert_eq!(running.instance.pid(), std::process::id() as i32);
}

#[test]
fn nothing_else_can_be_executed() {
    let rig = Rig::text(&printing("up\n", "(loop $l (br $l))"));
    let mut running = rig.start();
    running.until("up", |seen| !seen.stdout.is_empty());
    running.say(&ToGuest::Exec { process: 3, spec: rig.process.clone() });
    running.until("refused", |seen| !seen.refusals.is_empty());
    assert_eq!(running.seen.refusals[0].0, Some(3));
    assert!(running.seen.refusal().contains("only its one program"));
    running.say(&ToGuest::Signal { process: 0, signal: 15 });
    running.until_the_end();
}

#[test]
fn a_keeper_that_hangs_up_ends_the_program() {
    let rig = Rig::text(&printing("up\n", "(loop $l (br $l))"));
    let mut running = rig.start();
    running.until("up", |seen| !seen.stdout.is_empty());
    let mut instance = running.hang_up();
    let begin = std::time::Instant::now();
    while instance.ended().unwrap().is_none() {
        assert!(begin.elapsed() < super::rig::PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn one_keeper_holds_many() {
    let rig = Rig::text(&printing("up\n", "(loop $l (br $l))"));
    let mut many: Vec<Running> = (0..20).map(|_| rig.start()).collect();
    for running in &mut many {
        running.until("up", |seen| !seen.stdout.is_empty());
    }
    let compiled = many.iter().filter(|running| running.seen.configured[0].starts_with("compile")).count();
    assert!((1..20).contains(&compiled), "{compiled}");
    for mut running in many {
        running.say(&ToGuest::Signal { process: 0, signal: 15 });
        assert_eq!(running.until_the_end().status, killed_by(15));
    }
}

#[test]
fn compiled_code_is_kept_and_a_damaged_file_is_compiled_anew() {
    let mut rig = Rig::text(&printing("hello\n", ""));
    assert!(rig.run().configured[0].starts_with("compile"));
    assert!(rig.run().configured[0].starts_with("find"), "in this process");
    let mut another_process = || {
        rig.driver = Wasm::new();
        let seen = rig.run();
        assert_eq!((seen.stdout().as_str(), seen.status), ("hello\n", Some(ExitStatus::Code(0))));
        seen.configured[0].clone()
    };
    assert!(another_process().starts_with("load"));
    let cache = fs::read_dir(rig.folder.path().join("cache")).unwrap();
    let files: Vec<_> = cache.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    let mut another_process = || {
        rig.driver = Wasm::new();
        rig.run().configured[0].clone()
    };
    let good = fs::read(&files[0]).unwrap();
    for at in [0, good.len() / 2, good.len() - 50, good.len() - 1] {
        let mut spoilt = good.clone();
        spoilt[at] ^= 1;
        fs::write(&files[0], spoilt).unwrap();
        assert!(another_process().starts_with("compile"), "{at}");
        assert!(another_process().starts_with("load"), "{at}");
    }
    fs::set_permissions(rig.folder.path().join("cache"), fs::Permissions::from_mode(0o777)).unwrap();
    rig.driver = Wasm::new();
    assert!(rig.run().configured[0].starts_with("compile"), "a folder that others can write isn't trusted");
}

#[test]
fn two_that_compile_the_same_at_once_both_succeed() {
    let rig = Rig::text(&printing("hello\n", ""));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (machine, process) = (rig.machine.clone(), rig.process.clone());
            scope.spawn(move || {
                let own = Rig { machine, process, ..Rig::text("(module)") };
                assert_eq!(own.run().stdout(), "hello\n");
            });
        }
    });
    let left = fs::read_dir(rig.folder.path().join("cache")).unwrap().count();
    assert_eq!(left, 1, "no temporary file stays");
}
