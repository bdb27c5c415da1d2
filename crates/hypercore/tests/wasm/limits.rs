//! What a program can't have, and can't do to others.

use std::time::{Duration, Instant};

use spacecore::wire::message::{ExitStatus, ToGuest};

use super::programs::{killed_by, printing};
use super::rig::Rig;

const FOR_EVER: &str = "(loop $l (br $l))";

#[test]
fn a_program_that_loops_for_ever_is_stopped_within_milliseconds() {
    let rig = Rig::text(&printing("up\n", FOR_EVER));
    let mut running = rig.start();
    running.until("up", |seen| !seen.stdout.is_empty());
    let begin = Instant::now();
    running.say(&ToGuest::Signal { process: 0, signal: 15 });
    running.until("ended", |seen| seen.status.is_some());
    assert_eq!(running.seen.status, killed_by(15));
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    running.until_the_end();

    let mut running = rig.start();
    running.until("up", |seen| !seen.stdout.is_empty());
    let begin = Instant::now();
    drop(running);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[test]
fn a_program_that_waits_for_ever_is_stopped_too() {
    let mut rig = Rig::text(super::programs::CAT);
    rig.process.stdin = true;
    let mut running = rig.start();
    running.until("started", |seen| seen.started);
    running.say(&ToGuest::Shutdown { grace_ms: 60_000 });
    running.until("gone", |seen| seen.gone);
    assert_eq!(running.seen.status, killed_by(15));
}

#[test]
fn growing_beyond_the_limit_fails_and_the_program_goes_on() {
    // Counts the pages that it gets: 64 MiB are 1024, and it begins with one.
    let grow = "(local $n i32) (loop $l (if (i32.ge_s (memory.grow (i32.const 1)) (i32.const 0)) (then \
                (local.set $n (i32.add (local.get $n) (i32.const 1))) (br $l)))) \
                (call $exit (i32.eq (local.get $n) (i32.const 1023)))";
    let text = printing("", grow)
        .replace("(func (export \"_start\")\n", "(func (export \"_start\") (local $n i32)\n");
    let text = text.replacen("(local $n i32) (loop", "(loop", 1);
    let seen = Rig::text(&text).run();
    assert_eq!(seen.status, Some(ExitStatus::Code(1)), "{}", seen.stderr());
}

#[test]
fn a_program_that_can_t_do_without_more_memory_dies_with_the_reason_in_its_status() {
    let begins_too_large =
        printing("", "").replace("(memory (export \"memory\") 1)", "(memory (export \"memory\") 2000)");
    let grows =
        printing("up\n", "(if (i32.lt_s (memory.grow (i32.const 5000)) (i32.const 0)) (then (unreachable)))");
    for text in [begins_too_large, grows] {
        let seen = Rig::text(&text).run();
        assert_eq!(seen.status, Some(ExitStatus::Signal { signal: 9, out_of_memory: true }));
        // Whoever keeps it says the reason, as of every workload: twice would be once too often.
        assert_eq!(seen.stderr(), "");
    }
}

#[test]
fn tables_are_held_to_their_limit() {
    let text = printing(
        "",
        "(call $exit (i32.eq (table.grow $t (ref.null func) (i32.const 10000)) (i32.const -1)))",
    )
    .replace("(func $deep", "(table $t 1 funcref) (func $deep");
    assert_eq!(Rig::text(&text).run().status, Some(ExitStatus::Code(1)));
}

#[test]
fn a_reader_that_stops_stops_the_program_and_nothing_piles_up() {
    let flood =
        "(loop $l (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br $l))";
    let rig = Rig::text(&printing(&"x".repeat(4000), flood));
    let mut running = rig.start();
    running.reads = false;
    running.until("full", |seen| seen.stdout.len() >= 256 * 1024);
    let before = running.instance.observe().unwrap().cpu;
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        running.turn(Duration::from_millis(50));
    }
    assert_eq!(running.seen.stdout.len(), 256 * 1024, "no more than the credit");
    let used = running.instance.observe().unwrap().cpu - before;
    assert!(used < Duration::from_millis(100), "it waits without working: {used:?}");
    running.say(&ToGuest::Signal { process: 0, signal: 9 });
    running.until("ended", |seen| seen.status.is_some());
    assert_eq!(running.seen.status, killed_by(9));
}

#[test]
fn a_neighbour_that_fails_in_every_way_disturbs_nobody() {
    let steady = Rig::text(&printing("up\n", FOR_EVER));
    let mut running = steady.start();
    running.until("up", |seen| !seen.stdout.is_empty());
    for then in ["(unreachable)", "(drop (call $deep (i32.const 0)))", "(drop (i32.load (i32.const -4)))"] {
        let mut neighbour = Rig::text(&printing("", then));
        neighbour.driver = steady.driver.clone();
        assert!(matches!(neighbour.run().status, Some(ExitStatus::Signal { .. })));
    }
    let before = running.instance.observe().unwrap().cpu;
    std::thread::sleep(Duration::from_millis(100));
    assert!(running.instance.observe().unwrap().cpu > before, "it goes on");
    running.say(&ToGuest::Signal { process: 0, signal: 15 });
    running.until_the_end();
}

#[test]
fn a_share_of_the_processor_is_kept() {
    let mut rig = Rig::text(&printing("up\n", FOR_EVER));
    rig.machine.cpu_milli = 250;
    let mut running = rig.start();
    running.until("up", |seen| !seen.stdout.is_empty());
    let (begin, before) = (Instant::now(), running.instance.observe().unwrap().cpu);
    std::thread::sleep(Duration::from_secs(5));
    let used = running.instance.observe().unwrap().cpu - before;
    let share = used.as_secs_f64() / begin.elapsed().as_secs_f64();
    // On a machine that is busy with other things it gets less.
    assert!((0.1..0.2625).contains(&share), "{share}");
}
