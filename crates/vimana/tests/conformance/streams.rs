//! Standard input, output and error, and the events that they become.

use std::io::Write;
use std::process::Stdio;
use std::thread;

use serde_json::Value;

use crate::rig::{Ran, Rig, Running, finish};
use crate::survey::{hash, survey};
use crate::{Behaviour, behaviours};

pub const BEHAVIOURS: &[Behaviour] = behaviours![
    a_closed_standard_input_is_empty,
    standard_input_is_streamed_and_ends,
    sixty_four_megabytes_pass_through_unchanged,
    every_byte_value_passes,
    fifty_megabytes_of_output_arrive_unchanged,
    output_and_errors_are_apart_and_in_order,
    output_needs_no_newline_at_its_end,
    events_are_json_lines,
    timings_are_among_the_events,
];

fn a_closed_standard_input_is_empty(rig: &Rig) {
    assert_eq!(survey(rig).part("sum"), format!("0 {:016x}\n", hash(b"")));
}

fn standard_input_is_streamed_and_ends(rig: &Rig) {
    let mut running = Running::start(rig.run(&["-i"], &["upper"]).stdin(Stdio::piped()));
    let mut input = running.child.stdin.take().unwrap();
    // Each line goes in only after the one before has come out.
    for line in ["one", "two", "three"] {
        writeln!(input, "{line}").unwrap();
        assert_eq!(running.line(), line.to_uppercase());
    }
    drop(input);
    let ran = running.end();
    assert_eq!((ran.code, ran.text()), (0, String::new()), "{}", ran.err);
}

/// Bytes as the probe's `flood` makes them.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Runs with this input, all of it.
fn fed(rig: &Rig, probe: &[&str], bytes: Vec<u8>) -> Ran {
    let mut running = Running::start(rig.run(&["-i"], probe).stdin(Stdio::piped()));
    let mut input = running.child.stdin.take().unwrap();
    let writer = thread::spawn(move || input.write_all(&bytes));
    let ran = running.end();
    writer.join().unwrap().unwrap();
    ran
}

fn sixty_four_megabytes_pass_through_unchanged(rig: &Rig) {
    let bytes = noise(64 << 20);
    let (length, sum) = (bytes.len(), hash(&bytes));
    let ran = fed(rig, &["cat"], bytes);
    assert_eq!((ran.code, ran.out.len(), hash(&ran.out)), (0, length, sum), "{}", ran.err);
}

fn every_byte_value_passes(rig: &Rig) {
    let all: Vec<u8> = (0..=255).collect();
    let ran = fed(rig, &["binary", ",", "cat"], all.clone());
    let expected = [b"== binary\n".as_slice(), &all, b"== cat\n", &all].concat();
    assert_eq!((ran.code, ran.out), (0, expected), "{}", ran.err);
}

fn fifty_megabytes_of_output_arrive_unchanged(rig: &Rig) {
    let length = 50_000_000;
    let ran = rig.output(&[], &["flood", &length.to_string()]);
    let sum = hash(&ran.out);
    assert_eq!((ran.code, ran.out.len()), (0, length), "{}", ran.err);
    assert!(ran.err.contains(&format!("sum {sum:016x}")), "{sum:016x} isn't in {}", ran.err);
}

fn output_and_errors_are_apart_and_in_order(rig: &Rig) {
    let ran = rig.output(&[], &["apart"]);
    let expected = |name: &str| -> String { (0..200).map(|i| format!("{name} {i}\n")).collect() };
    assert_eq!((ran.code, ran.text()), (0, expected("out")), "{}", ran.err);
    // What Vimana itself has to say comes on standard error too.
    assert!(ran.err.contains(&expected("err")), "{}", ran.err);
}

fn output_needs_no_newline_at_its_end(rig: &Rig) {
    let ran = survey(rig);
    assert!(ran.out.ends_with(b"no newline at the end"), "{ran:?}");
}

/// The events of a run with both kinds of output, bytes that are no text, and an exit code.
fn events(rig: &Rig) -> (Ran, Vec<Value>) {
    let ran = rig.shared("events", || {
        let flags = ["--json", "--timings"];
        finish(&mut rig.run(&flags, &["apart", ",", "binary", ",", "exit", "3"]))
    });
    let lines = ran.text().lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    (ran, lines)
}

fn events_are_json_lines(rig: &Rig) {
    let (ran, events) = events(rig);
    let of = |name: &str| -> Vec<u8> {
        use base64::Engine;
        let of_stream = events.iter().filter(|event| event["event"] == "output" && event["stream"] == name);
        let bytes = of_stream.map(|event| match (event["text"].as_str(), event["base64"].as_str()) {
            (Some(text), None) => text.as_bytes().to_vec(),
            (None, Some(text)) => base64::prelude::BASE64_STANDARD.decode(text).unwrap(),
            other => panic!("an output event has text or base64: {other:?}"),
        });
        bytes.collect::<Vec<_>>().concat()
    };
    let lines = |name: &str| -> String { (0..200).map(|i| format!("{name} {i}\n")).collect() };
    let all: Vec<u8> = (0..=255).collect();
    let expected =
        [format!("== apart\n{}== binary\n", lines("out")).into_bytes(), all, b"== exit\n".to_vec()].concat();
    assert_eq!(of("stdout"), expected, "{}", ran.err);
    assert_eq!(String::from_utf8(of("stderr")).unwrap(), lines("err"));
    let standings: Vec<&str> = events.iter().filter_map(|event| event["standing"].as_str()).collect();
    assert!(standings.contains(&"running"), "{standings:?}");
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["exit_code"]), (&"ended".into(), &3.into()), "{last}");
    assert_eq!(ran.code, 3);
}

fn timings_are_among_the_events(rig: &Rig) {
    let (_, events) = events(rig);
    let timings = events.iter().find(|event| event["event"] == "timings").unwrap();
    let moments: Vec<(&str, f64)> = timings["moments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|moment| (moment["moment"].as_str().unwrap(), moment["at_ms"].as_f64().unwrap()))
        .collect();
    for name in ["command started", "keeper executed", "first byte of output", "all cleared away"] {
        assert!(moments.iter().any(|(known, _)| *known == name), "{name} isn't in {moments:?}");
    }
    assert!(moments.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{moments:?}");
}
