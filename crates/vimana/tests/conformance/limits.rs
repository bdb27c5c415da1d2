//! What a workload is given of the machine, and what becomes of one that wants more.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rig::{Rig, Running, finish, kill, tree};
use crate::{Behaviour, behaviours};

pub const BEHAVIOURS: &[Behaviour] = behaviours![
    who_eats_all_memory_dies_alone_with_the_reason,
    half_a_cpu_is_half_a_cpu,
    recursion_without_an_end_is_an_end,
    a_fork_bomb_stays_inside,
    there_are_no_more_processes_than_allowed,
    a_full_disk_is_full_and_no_fuller,
];

fn who_eats_all_memory_dies_alone_with_the_reason(rig: &Rig) {
    let ran = rig.output(&["--json"], &["hog"]);
    assert_eq!(ran.code, 137, "{ran:?}");
    let last: Value = serde_json::from_str(ran.text().lines().last().unwrap()).unwrap();
    assert_eq!(last["exit_code"], 137, "{last}");
    assert_eq!(last["outcome"]["exited"]["signal"]["out-of-memory"], true, "{last}");
    let message = last["message"].as_str().unwrap_or_default();
    assert!(message.contains("memory") && message.contains("96 MiB"), "{last}");
}

/// Of five seconds, the share that the processes of a run were on a processor, and whether the machine had time to spare.
fn share_of_a_cpu(pid: u32) -> (f64, bool) {
    let window = Duration::from_secs(5);
    let used = || tree(pid).values().sum::<u64>() as f64 / 100.0;
    // What is read lies within what is timed, however long a busy machine takes to read it.
    let (begun, before, idle) = (Instant::now(), used(), idle());
    std::thread::sleep(window);
    let (after, idle_after) = (used(), self::idle());
    let elapsed = begun.elapsed().as_secs_f64();
    ((after - before) / elapsed, (idle_after - idle) / elapsed > 0.5)
}

/// Seconds of all processors that nobody has wanted since the start.
fn idle() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    text.split_whitespace().nth(1).and_then(|seconds| seconds.parse().ok()).unwrap()
}

fn half_a_cpu_is_half_a_cpu(rig: &Rig) {
    let running = Running::ready(&mut rig.run(&["--cpus", "500m"], &["spin"]));
    let mut shares = Vec::new();
    let mut spared = false;
    // A busy machine may give less; it never gives more.
    while shares.len() < 3 && !shares.last().is_some_and(|share| *share >= 0.475) {
        let (share, spare) = share_of_a_cpu(running.pid());
        shares.push(share);
        spared |= spare;
        assert!(share <= 0.525, "{shares:?}");
        assert!(share >= 0.475 || !spare, "{shares:?}");
    }
    kill(running.pid(), libc::SIGINT);
    assert_eq!(running.end().code, 130);
    if !spared && shares.iter().all(|share| *share < 0.475) {
        let test = format!("{}::half_a_cpu_is_half_a_cpu", rig.isolation.module());
        eprintln!("SKIPPED: {test}: the machine was too busy to give as much; it gave no more: {shares:?}");
    }
}

fn recursion_without_an_end_is_an_end(rig: &Rig) {
    let ran = rig.output(&[], &["deep"]);
    assert_eq!(ran.code, 128 + libc::SIGSEGV, "{ran:?}");
}

fn processes_here() -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()).count()
}

fn a_fork_bomb_stays_inside(rig: &Rig) {
    let before = processes_here();
    let lines = "[spec.resources]\npids = 64\n[spec.networking]\nnetwork_type = \"none\"\n";
    let mut running = Running::ready(&mut rig.run_manifest(lines, &[], &["bomb"]));
    running.until("spread");
    // Others may start processes meanwhile; a bomb that isn't held makes thousands.
    let during = processes_here();
    assert!(during < before + 300, "{before} processes became {during}");
    let started = Instant::now();
    assert!(Command::new("true").status().unwrap().success());
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "the host takes {:?} for a process",
        started.elapsed()
    );
    kill(running.pid(), libc::SIGTERM);
    kill(running.pid(), libc::SIGINT);
    let ran = running.end();
    assert!([130, 143].contains(&ran.code), "{}", ran.code);
}

fn there_are_no_more_processes_than_allowed(rig: &Rig) {
    let lines = "[spec.resources]\npids = 64\n[spec.networking]\nnetwork_type = \"none\"\n";
    let ran = finish(&mut rig.run_manifest(lines, &[], &["crowd"]));
    let count: u32 = ran.text().lines().next().unwrap_or_default().parse().unwrap_or(0);
    assert!((32..64).contains(&count) && ran.text().contains("fail EAGAIN"), "{ran:?}");
}

const STORAGE: i64 = 64 << 20;

fn a_full_disk_is_full_and_no_fuller(rig: &Rig) {
    let lines = "[spec.resources]\nstorage = \"64Mi\"\n[spec.networking]\nnetwork_type = \"none\"\n";
    let ran = finish(&mut rig.run_manifest(
        lines,
        &[],
        &["fill", "/full", ",", "drop", "/full", ",", "write", "/x", "y"],
    ));
    let said = ran.said();
    let (bytes, how) = said[0].split_once(' ').unwrap_or_else(|| panic!("{ran:?}"));
    let bytes: i64 = bytes.parse().unwrap();
    assert_eq!(how, "fail ENOSPC", "{ran:?}");
    // The file system has some of it for itself.
    assert!((STORAGE / 2..=STORAGE).contains(&bytes), "{ran:?}");
    assert_eq!(&said[1..], ["ok", "ok"], "there is room again: {ran:?}");
}
