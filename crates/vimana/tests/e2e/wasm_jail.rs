//! The process that runs root's Wasm programs, seen from outside.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::compiling::cat;
use crate::network::{carriers, free_port};
use crate::node::rig::Node;
use crate::support::{Home, Killed, eventually, kill, text};

/// A component that looks up a name and then sends back what it is sent first on each connection to port 8080.
const ECHO: &str = include_str!("wasm_jail/echo.wat");

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

    let (_, runner) = keeper_and_runner(&home);
    assert_jailed(runner);
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

/// A keeper of this home's, and the process in which it has Wasm programs run.
fn keeper_and_runner(home: &Home) -> (i32, i32) {
    let pairs =
        home.processes().into_iter().flat_map(|(pid, _)| children(pid).into_iter().map(move |of| (pid, of)));
    let found = pairs.into_iter().find(|(_, pid)| arguments(*pid).trim_end().ends_with("run-wasm"));
    found.expect("a keeper of root's has a runner")
}

/// Says that a process has a user, namespaces and a root of its own, and no capabilities.
fn assert_jailed(runner: i32) {
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
}

/// Where a process is in the machine's control groups, as folders.
fn groups(pid: i32) -> Vec<String> {
    let listed = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let folders = listed.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let own = path.rsplit('/').next()?.starts_with("vimana-");
        own.then(|| format!("/sys/fs/cgroup/{controllers}{path}"))
    });
    folders.collect()
}

/// Whether a thread of the machine is in this network namespace, or a process holds it open.
fn is_held(namespace: &Path) -> bool {
    let leads_there = |link: &Path| fs::read_link(link).is_ok_and(|name| name == namespace);
    let entries = |path: &str| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    entries("/proc").any(|process| {
        let process = process.display();
        entries(&format!("{process}/task")).any(|thread| leads_there(&thread.join("ns/net")))
            || entries(&format!("{process}/fd")).any(|fd| leads_there(&fd))
    })
}

/// What the program at this port of the machine sends back.
fn echo(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"hello").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    (!answer.is_empty()).then_some(answer)
}

#[test]
fn a_wasm_program_of_root_s_with_a_network_has_a_jailed_process_of_its_own_which_ends_with_its_keeper() {
    let test =
        "a_wasm_program_of_root_s_with_a_network_has_a_jailed_process_of_its_own_which_ends_with_its_keeper";
    let Some(home) = Home::new(test) else { return };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: {test}: needs root");
        return;
    }
    let program = home.path().join("echo.wasm");
    fs::write(&program, wat::parse_str(ECHO).unwrap()).unwrap();
    let program = format!("wasm:{}", program.display());
    for carrier in carriers(test) {
        let port = free_port();
        let publish = format!("{port}:8080");
        let network = ["--network", "public", "--carrier", carrier, "-p", &publish];
        let args = [&["run", "--isolation", "Wasm", "-m", "32Mi"][..], &network, &[&program]].concat();
        let mut command = home.vimana(&args);
        let mut child = Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "ready\n" {
            let mut words = String::new();
            child.0.stderr.take().unwrap().read_to_string(&mut words).unwrap();
            panic!("{carrier}: {line:?}: {words}");
        }
        let answer = eventually("the program answers", 8, || echo(port));
        assert_eq!(answer, "hello", "{carrier}");

        let (keeper, runner) = keeper_and_runner(&home);
        assert_jailed(runner);
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        let own = namespace(runner);
        assert_ne!(own, namespace(keeper), "{carrier}");
        let interfaces = fs::read_to_string(format!("/proc/{runner}/net/dev")).unwrap();
        assert!(interfaces.contains("eth0:"), "{carrier}: {interfaces}");
        assert!(is_held(&own), "{carrier}");
        let groups = groups(runner);
        assert_eq!(groups.is_empty(), hypercore::cgroup::usable().is_err(), "{carrier}: {groups:?}");
        // No other program is with it, nor in its keeper.
        assert_eq!(children(keeper).iter().filter(|pid| arguments(**pid).contains("run-wasm")).count(), 1);

        kill(u32::try_from(keeper).unwrap(), libc::SIGKILL);
        assert_eq!(child.0.wait().unwrap().code(), Some(125), "{carrier}");
        home.assert_nothing_is_left();
        eventually("its process is gone", 5, || {
            (!Path::new(&format!("/proc/{runner}")).exists()).then_some(())
        });
        assert!(!is_held(&own), "{carrier}");
        assert!(groups.iter().all(|folder| !Path::new(folder).exists()), "{carrier}: {groups:?}");
    }
}

#[test]
fn under_a_node_each_wasm_program_of_root_s_has_a_jailed_process_and_a_control_group_of_its_own() {
    let test = "under_a_node_each_wasm_program_of_root_s_has_a_jailed_process_and_a_control_group_of_its_own";
    let Some(mut node) = Node::new(test) else { return };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: {test}: needs root");
        return;
    }
    node.apply("pair", "replicas = 2", "", &[]);
    let runners: Vec<i32> = node.keepers().into_iter().flat_map(children).collect();
    assert_eq!(runners.len(), 2);
    runners.iter().copied().for_each(assert_jailed);
    let groups: Vec<String> = runners.iter().copied().flat_map(groups).collect();
    assert_eq!(groups.is_empty(), hypercore::cgroup::usable().is_err(), "{groups:?}");
    let different: std::collections::BTreeSet<&String> = groups.iter().collect();
    assert_eq!(different.len(), groups.len(), "each has its own: {groups:?}");
    node.clear();
    assert!(groups.iter().all(|folder| !Path::new(folder).exists()), "{groups:?}");
}
