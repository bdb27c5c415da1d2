//! The process that runs root's Wasm programs, seen from outside.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::compiling::cat;
use crate::support::{Home, Killed, text};

/// The processes that were started by this one.
fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let listed = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    listed
        .flat_map(|line| line.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

fn arguments(pid: i32) -> String {
    text(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ")
}

#[test]
fn root_s_wasm_programs_run_in_a_jailed_process_and_its_death_is_told() {
    let test = "root_s_wasm_programs_run_in_a_jailed_process_and_its_death_is_told";
    let Some(home) = Home::new(test) else { return };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: {test}: needs root");
        return;
    }
    let program = home.path().join("cat.wasm");
    fs::write(&program, cat()).unwrap();
    let program = format!("wasm:{}", program.display());
    let mut child = Killed(
        home.vimana(&["run", "-i", "--isolation", "Wasm", "--network", "none", &program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut input = child.0.stdin.take().unwrap();
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    writeln!(input, "here").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "here");

    let keepers = home.processes().into_iter().map(|(pid, _)| pid);
    let runner = keepers.flat_map(children).find(|pid| arguments(*pid).trim_end().ends_with("run-wasm"));
    let runner = runner.expect("a keeper of root's has a runner");
    let status = fs::read_to_string(format!("/proc/{runner}/status")).unwrap();
    let line = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        found.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let user: u32 = line("Uid:")[1].parse().unwrap();
    assert!(user >= hypercore::jail::FIRST_ID, "{status}");
    assert_eq!(line("CapBnd:"), ["0000000000000000"]);
    assert_eq!(line("CapPrm:"), ["0000000000000000"]);
    assert_eq!((line("NoNewPrivs:"), line("Seccomp:")), (vec!["1".to_owned()], vec!["2".to_owned()]));
    for kind in ["mnt", "pid", "net", "ipc", "uts"] {
        let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{kind}")).unwrap();
        assert_ne!(of(&runner.to_string()), of("self"), "{kind}");
    }
    let seen = fs::read_dir(format!("/proc/{runner}/root")).unwrap().flatten();
    let seen: Vec<_> = seen.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(!seen.contains(&"root".to_owned()) && !seen.contains(&"home".to_owned()), "{seen:?}");

    rustix::process::kill_process(
        rustix::process::Pid::from_raw(runner).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let status = child.0.wait().unwrap();
    let mut words = String::new();
    std::io::Read::read_to_string(&mut child.0.stderr.take().unwrap(), &mut words).unwrap();
    assert_eq!(status.code(), Some(125), "{words}");
    assert!(words.contains("process in the jail") && words.contains("has died"), "{words}");
    drop(child);
    home.assert_nothing_is_left();
}
