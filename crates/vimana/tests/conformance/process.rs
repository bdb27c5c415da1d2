//! Exit codes, and what a workload is given.

use crate::rig::{Rig, Running};
use crate::survey::{LONG, ODD, hash, long, survey};
use crate::{Behaviour, behaviours};

pub const BEHAVIOURS: &[Behaviour] = behaviours![
    an_exit_code_is_the_workload_s_own,
    a_death_by_a_signal_is_128_and_its_number,
    a_program_that_isnt_there_is_127,
    a_program_that_cant_be_executed_is_126,
    arguments_arrive_as_they_are,
    variables_come_from_image_manifest_and_command_line,
    a_working_folder_is_made_where_it_lacks,
    a_user_s_name_brings_its_groups,
    a_user_and_group_may_be_numbers,
    a_user_s_files_are_that_user_s_alone,
    a_workload_has_its_spacecore_s_name,
    the_name_is_in_etc_hosts,
    the_clock_is_the_host_s,
    no_descriptors_are_inherited,
    no_signal_is_blocked_or_ignored,
    other_processes_arent_seen,
    a_second_run_is_as_the_first,
    two_at_once_know_nothing_of_each_other,
];

fn an_exit_code_is_the_workload_s_own(rig: &Rig) {
    assert_eq!(survey(rig).code, 0, "{}", survey(rig).err);
    // At once, as each takes a start.
    let runs = [1, 255].map(|code| (code, Running::start(&mut rig.run(&[], &["exit", &code.to_string()]))));
    for (code, running) in runs {
        let ran = running.end();
        assert_eq!(ran.code, code, "{ran:?}");
    }
}

fn a_death_by_a_signal_is_128_and_its_number(rig: &Rig) {
    let ran = rig.output(&[], &["abort"]);
    assert_eq!(ran.code, 128 + libc::SIGABRT, "{ran:?}");
}

fn a_program_that_isnt_there_is_127(rig: &Rig) {
    let ran = rig.output(&["--entrypoint", "/no/such/program"], &[]);
    assert_eq!(ran.code, 127, "{ran:?}");
    assert!(ran.err.contains("/no/such/program"), "{ran:?}");
}

fn a_program_that_cant_be_executed_is_126(rig: &Rig) {
    let ran = rig.output(&["--entrypoint", "/etc/plain"], &[]);
    assert_eq!(ran.code, 126, "{ran:?}");
    assert!(ran.err.contains("/etc/plain"), "{ran:?}");
}

/// A line as the probe writes a text, which no line's end inside can spoil.
fn told(text: &str) -> String {
    format!("{}:{text}\n", text.len())
}

fn arguments_arrive_as_they_are(rig: &Rig) {
    let said = survey(rig).part("args");
    let odd: String = ODD.iter().map(|text| told(text)).collect();
    let long = format!("{LONG}#{:016x}\n", hash(long('x').as_bytes()));
    assert!(said.contains(&format!("{}{odd}{long}", told("nothing"))), "{said}");
}

fn variables_come_from_image_manifest_and_command_line(rig: &Rig) {
    let said = survey(rig).part("env");
    let expected = [
        "IMAGE=of the image",
        "BOTH=of the manifest",
        "MANIFEST=of the manifest",
        "THREE=of the command line",
        "EMPTY=",
        "ODD=a=b c\"'\n$X",
    ];
    for variable in expected {
        assert!(said.contains(&told(variable)), "{variable:?} isn't in {said}");
    }
    let pair = format!("LONG={}", long('y'));
    let long = format!("LONG={}#{:016x}\n", pair.len(), hash(pair.as_bytes()));
    assert!(said.contains(&long), "{long:?} isn't in {said}");
    assert!(!said.contains("VIMANA_HOME") && !said.contains("CARGO"), "the host's own variables: {said}");
}

fn a_working_folder_is_made_where_it_lacks(rig: &Rig) {
    assert_eq!(survey(rig).part("cwd"), "/made/for/it\n");
}

fn a_user_s_name_brings_its_groups(rig: &Rig) {
    let said = survey(rig).part("id");
    let mut numbers: Vec<&str> = said.split_whitespace().collect();
    numbers.retain(|number| *number != "1234");
    assert!(said.starts_with("1234 1234") && numbers == ["2345", "3456"], "{said}");
}

fn a_user_and_group_may_be_numbers(rig: &Rig) {
    let ran = rig.output(&["-u", "77:88"], &["id"]);
    let numbers: Vec<String> = ran.text().split_whitespace().map(str::to_owned).collect();
    assert_eq!(numbers.first().map(String::as_str), Some("77"), "{ran:?}");
    // The group itself may be among the supplementary ones; none else may.
    assert!(numbers.len() >= 2 && numbers[1..].iter().all(|number| number == "88"), "{ran:?}");
}

fn a_user_s_files_are_that_user_s_alone(rig: &Rig) {
    let write = |user: &str| {
        rig.output(&["-u", user], &["write", "/home/x", "mine", ",", "write", "/etc/passwd", "x"]).said()
    };
    assert_eq!(write("worker"), ["ok", "fail EACCES"]);
    assert_eq!(write("77:88"), ["fail EACCES", "fail EACCES"]);
}

fn a_workload_has_its_spacecore_s_name(rig: &Rig) {
    // The survey is whoever's came first, so its name has a part alone in common.
    let said = survey(rig).part("host");
    assert!(said.starts_with("conformance-") && said.lines().count() == 1, "{said}");
}

fn the_name_is_in_etc_hosts(rig: &Rig) {
    let ran = survey(rig);
    let (hosts, name) = (ran.part("read"), ran.part("host"));
    let has = |address: &str, name: &str| {
        hosts.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(address) && words.any(|word| word == name)
        })
    };
    assert!(has("127.0.0.1", "localhost"), "{hosts}");
    assert!(hosts.split_whitespace().any(|word| word == name.trim()), "{name} isn't in {hosts}");
}

fn the_clock_is_the_host_s(rig: &Rig) {
    let ran = survey(rig);
    let clock: u64 = ran.part("now").trim().parse().unwrap();
    let lines: Vec<&str> = ran.err.lines().rev().take(2).collect();
    let (after, before): (u64, u64) = (lines[0].parse().unwrap(), lines[1].parse().unwrap());
    assert!((before..=after).contains(&clock), "{before} <= {clock} <= {after}");
}

fn no_descriptors_are_inherited(rig: &Rig) {
    assert_eq!(survey(rig).part("fds"), "");
}

fn no_signal_is_blocked_or_ignored(rig: &Rig) {
    let said = survey(rig).part("status");
    for field in ["SigBlk:", "SigIgn:"] {
        let line = said.lines().find(|line| line.starts_with(field)).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some("0000000000000000"), "{said}");
    }
}

fn other_processes_arent_seen(rig: &Rig) {
    // Itself, and PID 1 beside it.
    let said = survey(rig).part("processes");
    let count = said.lines().count();
    assert!((1..=2).contains(&count), "{said}");
}

fn a_second_run_is_as_the_first(rig: &Rig) {
    let probe = ["read", "/mark", ",", "write", "/mark", "x", ",", "list", "/", ",", "cwd"];
    let (first, second) = (rig.output(&[], &probe), rig.output(&[], &probe));
    assert!(first.said()[0].starts_with("fail"), "{first:?}");
    assert_eq!((first.code, first.text()), (0, second.text()), "{}{}", first.err, second.err);
}

fn two_at_once_know_nothing_of_each_other(rig: &Rig) {
    let mut patient = Running::start(
        rig.run(&["-i"], &["write", "/mark", "x", ",", "say", "ready\n", ",", "upper"])
            .stdin(std::process::Stdio::piped()),
    );
    patient.until("ready");
    let other = rig.output(&[], &["read", "/mark", ",", "abort"]);
    assert!(other.code > 128, "{other:?}");
    assert!(other.said()[0].starts_with("fail"), "{other:?}");
    // The other's end is nothing to this one.
    patient.until("== upper");
    let mut input = patient.child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"still here\n").unwrap();
    assert_eq!(patient.line(), "STILL HERE");
    drop(input);
    assert_eq!(patient.end().code, 0);
}
