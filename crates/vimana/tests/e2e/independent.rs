//! Keepers that nobody's death ends, seen from whoever starts them and from whoever comes after.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hac::model::Isolation;
use node::keeper::assignment::{Assignment, Lifetime, LogPlan};
use node::keeper::report::{FromKeeper, Outcome, ToKeeper};
use node::log::{Reader, Wanted, parse_line};
use node::run_folder::{self, Left};
use node::session::Session;
use tempfile::TempDir;

use crate::adoption::until;
use crate::support::{VIMANA, eventually, kill, text};
use crate::vimana;

/// Where a parent finds the assignment for its keeper.
const ASSIGNMENT: &str = "VIMANA_TEST_ASSIGNMENT";

/// A program that says `begun` and sleeps for an hour.
const SLEEPER: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 200) "begun\n")
    (func (export "_start")
        (i32.store (i32.const 100) (i32.const 200))
        (i32.store (i32.const 104) (i32.const 6))
        (drop (call $write (i32.const 1) (i32.const 100) (i32.const 1) (i32.const 108)))
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 3600000000000))
        (drop (call $poll (i32.const 0) (i32.const 300) (i32.const 1) (i32.const 400)))))"#;

fn home() -> TempDir {
    vimana::home(&vimana::shared("e2e").unwrap(), "e2e-").unwrap()
}

/// An assignment for a Wasm program and a keeper that stays.
pub fn assignment(home: &Path, id: &str, program: &str) -> Assignment {
    let file = home.join(format!("{id}.wasm"));
    fs::write(&file, wat::parse_str(program).unwrap()).unwrap();
    let reference = format!("wasm:{}", file.display());
    let mut manifest = hac::Manifest::from_image(&reference);
    manifest.spec.virtualization.isolation = Isolation::Wasm;
    manifest.spec.networking.network_type = hac::model::NetworkType::None;
    let store = image::Store::open(&home.join("images"), image::StoreOptions::default()).unwrap();
    let options = image::PullOptions { wasm: image::WasmChoice::First, ..Default::default() };
    let image = store.pull(&reference.parse().unwrap(), &options, &|_| {}).unwrap();
    let machine = node::gather::machine_facts(Isolation::Wasm, None, None);
    let known = node::gather::image_facts(&store, &image, Isolation::Wasm).unwrap();
    let facts = node::gather::facts(known, None, machine);
    let request = node::plan::Request { manifest, ..node::plan::Request::default() };
    let plan = node::plan::Plan::decide(&request, &facts).unwrap();
    plan.assignment(id, &node::home::Home::at(home), None, Lifetime::Independent)
}

/// No test where nothing is said in the environment; the parent where the tests below execute this program again.
#[test]
fn a_parent_of_the_tests_beside_it() {
    let Some(path) = std::env::var_os(ASSIGNMENT) else { return };
    let assignment: Assignment = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let session = Session::start(Path::new(VIMANA), &assignment);
    eprintln!("{}", if session.is_ok() { "started" } else { "failed" });
    std::thread::sleep(Duration::from_secs(60));
}

/// A process of its own, in a session of its own, that starts a keeper.
fn parent(home: &Path, assignment: &Assignment) -> Child {
    let file = home.join("assignment.json");
    fs::write(&file, serde_json::to_vec(assignment).unwrap()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "independent::a_parent_of_the_tests_beside_it", "--nocapture"]);
    command.env(ASSIGNMENT, file).env("VIMANA_HOME", home).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::piped()).process_group(0).spawn().unwrap()
}

/// The keepers of a home, and processes that are about to become one.
fn keepers(home: &Path) -> Vec<u32> {
    let marker = format!("VIMANA_HOME={}", home.display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let arguments = text(&fs::read(entry.path().join("cmdline")).unwrap_or_default());
        let is_here = environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes());
        if is_here && (arguments == "vimana\0keeper\0" || arguments.contains("a_parent_of")) {
            found.push(pid);
        }
    }
    found
}

/// The only keeper of a home. While it starts a process there may seem to be two for a moment, and none while it is executed.
fn one_keeper(home: &Path) -> u32 {
    eventually("there is one keeper", 10, || match keepers(home)[..] {
        [keeper] => Some(keeper),
        _ => None,
    })
}

/// Ends a keeper as whoever adopts it would.
fn end(assignment: &Assignment) -> Outcome {
    let mut session = eventually("the keeper can be adopted", 20, || {
        assert_eq!(run_folder::look(&assignment.run_folder).unwrap(), Left::Held);
        Session::adopt(&assignment.run_folder).ok()
    });
    session.tell(&ToKeeper::Kill);
    until(&mut session, &mut Vec::new(), |message| match message {
        FromKeeper::Finished { outcome, .. } => Some(outcome.clone()),
        _ => None,
    })
}

fn ended(assignment: &Assignment) -> Left {
    eventually("the keeper has ended", 20, || {
        Some(run_folder::look(&assignment.run_folder).unwrap()).filter(|left| *left != Left::Held)
    })
}

#[test]
fn a_parent_killed_at_any_moment_leaves_one_keeper_and_a_held_folder_or_neither() {
    let home = home();
    let (mut held, mut not) = (0, 0);
    for round in 0..40_u64 {
        let assignment = assignment(home.path(), &format!("round-{round}"), SLEEPER);
        let mut parent = parent(home.path(), &assignment);
        // Every other time right after the spawn, otherwise somewhere around it.
        if round % 2 == 0 {
            let mut said = String::new();
            let mut lines = BufReader::new(parent.stderr.take().unwrap());
            while !said.contains("started") {
                said.clear();
                assert!(lines.read_line(&mut said).unwrap() > 0, "it started nothing");
            }
        } else {
            let deadline = Instant::now() + Duration::from_secs(20);
            while !assignment.run_folder.exists() {
                assert!(Instant::now() < deadline, "it made no folder");
            }
            std::thread::sleep(Duration::from_micros(round * 37 % 800));
        }
        kill(parent.id(), libc::SIGKILL);
        parent.wait().unwrap();
        let left = run_folder::look(&assignment.run_folder).unwrap();
        run_folder::sweep(&home.path().join("run")).unwrap();
        match left {
            Left::Held => {
                held += 1;
                one_keeper(home.path());
                assert_eq!(end(&assignment), Outcome::Stopped);
                assert_eq!(ended(&assignment), Left::Ended(Outcome::Stopped));
                eventually("the keeper's process ends", 10, || keepers(home.path()).is_empty().then_some(()));
            }
            Left::Deserted => {
                not += 1;
                std::thread::sleep(Duration::from_millis(50));
                assert_eq!(keepers(home.path()), Vec::<u32>::new(), "round {round}");
            }
            left => panic!("round {round}: {left:?}"),
        }
    }
    eprintln!("{held} keepers went on, {not} never were");
    assert!(held >= 20);
}

#[test]
fn several_attempts_of_a_spacecore_write_one_log() {
    let home = home();
    let folder = home.path().join("logs/web");
    for attempt in 1..=3 {
        let mut assignment = assignment(home.path(), &format!("web-{attempt}"), SLEEPER);
        assignment.log = Some(LogPlan { folder: folder.clone(), file_bytes: 1 << 20, files: 2 });
        let session = Session::start(Path::new(VIMANA), &assignment).unwrap();
        drop(session);
        eventually("the attempt has said something", 20, || {
            let mut reader = Reader::open(&folder, Wanted::default()).unwrap();
            let lines = reader.next_chunk().unwrap();
            let said: Vec<_> = lines.split_inclusive(|byte| *byte == b'\n').filter_map(parse_line).collect();
            assert!(said.iter().all(|line| line.text == b"begun" && line.full));
            (said.len() == attempt).then_some(())
        });
        assert_eq!(end(&assignment), Outcome::Stopped);
        assert_eq!(ended(&assignment), Left::Ended(Outcome::Stopped));
    }
}

#[test]
fn a_keeper_goes_on_when_its_parent_s_group_is_killed_and_its_output_closed_and_no_sweep_takes_its_folder() {
    let home = home();
    let assignment = assignment(home.path(), "goes-on", SLEEPER);
    let mut parent = parent(home.path(), &assignment);
    let mut errors = parent.stderr.take().unwrap();
    eventually("the keeper listens", 20, || assignment.run_folder.join("keeper.sock").exists().then_some(()));
    let group = rustix::process::Pid::from_raw(i32::try_from(parent.id()).unwrap()).unwrap();
    for signal in [rustix::process::Signal::HUP, rustix::process::Signal::KILL] {
        let _ = rustix::process::kill_process_group(group, signal);
    }
    parent.wait().unwrap();
    // Nothing that lives holds on to what the parent wrote to.
    let mut said = Vec::new();
    errors.read_to_end(&mut said).unwrap();
    drop(errors);
    let run = home.path().join("run");
    for _ in 0..10 {
        assert_eq!(run_folder::sweep(&run).unwrap(), 0);
        assert_eq!(run_folder::look(&assignment.run_folder).unwrap(), Left::Held);
        std::thread::sleep(Duration::from_millis(20));
    }
    let again = Session::start(Path::new(VIMANA), &assignment).unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
    kill(one_keeper(home.path()), libc::SIGKILL);
    assert_eq!(ended(&assignment), Left::Deserted);
    assert_eq!(run_folder::sweep(&run).unwrap(), 1);
    assert_eq!(run_folder::look(&assignment.run_folder).unwrap(), Left::Nothing);
}

#[test]
fn a_keeper_that_cant_be_executed_is_told_and_leaves_no_folder() {
    let home = home();
    let assignment = assignment(home.path(), "never", SLEEPER);
    let error = Session::start(Path::new("/no/such/program"), &assignment).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(run_folder::look(&assignment.run_folder).unwrap(), Left::Nothing);
}
