use hac::Manifest;
use hac::model::RestartPolicy;
use spacecore::wire::message::{ExitStatus, Refusal, RefusalKind};

use super::twin::{Twin, check, exit, rules};
use super::*;
use crate::keeper::report::Outcome;

fn with_policy(restart: RestartPolicy) -> Rules {
    Rules { restart, ..rules() }
}

fn checked_twin() -> Twin {
    Twin::running(Rules { checks: vec![check()], ..rules() })
}

#[test]
fn what_follows_from_an_end_is_what_the_policy_says() {
    use Phase::{Completed, Failed, Waiting};
    use RestartPolicy::{Always, Never, OnFailure};
    let killed = || End::Exited(ExitStatus::Signal { signal: 9, out_of_memory: true });
    let refused = || End::Refused("no such program".to_owned());
    let not_started = || End::NotStarted("no memory".to_owned());
    let lost = || End::Lost("killed".to_owned());
    let table = [
        // The end, and what follows under: never, never but it recovers, on-failure, always.
        (exit(0), [Completed, Completed, Completed, Waiting]),
        (exit(7), [Failed, Failed, Waiting, Waiting]),
        (killed(), [Failed, Failed, Waiting, Waiting]),
        (refused(), [Failed, Failed, Failed, Failed]),
        (not_started(), [Failed, Waiting, Waiting, Waiting]),
        (lost(), [Failed, Waiting, Waiting, Waiting]),
        (End::Stopped, [Failed, Waiting, Waiting, Waiting]),
        (End::NeverBegun, [Failed, Waiting, Waiting, Waiting]),
    ];
    for (end, follows) in table {
        for ((restart, recovers), phase) in
            [(Never, false), (Never, true), (OnFailure, false), (Always, false)].into_iter().zip(follows)
        {
            let mut twin = Twin::running(Rules { restart, recovers, ..rules() });
            twin.ended(end.clone());
            assert_eq!(twin.phase(), phase, "{end:?} under {restart}, recovers: {recovers}");
            assert_eq!(twin.state.last_end(), Some(&end), "the result is kept");
        }
    }
}

#[test]
fn a_manifest_s_rules_are_read() {
    let manifest = hac::parse(
        "apiVersion = \"vistara.eigenlayer/v1\"\nkind = \"SpaceCore\"\n[metadata]\nname = \"web\"\n[spec.deployment]\nimage = \"web\"\n\
         [spec.restart]\npolicy = \"always\"\nbackoff = \"2s\"\nmax_attempts = 4\n[[spec.checks]]\ntype = \"tcp\"\nport = 80\n\
         interval = \"3s\"\ntimeout = \"1s\"\ngrace_period = \"7s\"\nretries = 2\n",
        hac::Format::Toml,
    );
    let manifest: Manifest = manifest.expect("a valid manifest");
    let check = CheckRule { interval_ms: 3000, timeout_ms: 1000, grace_ms: 7000, retries: 2 };
    let expected = Rules {
        restart: RestartPolicy::Always,
        backoff_ms: 2000,
        max_attempts: 4,
        recovers: false,
        deadline_ms: None,
        grace_ms: GRACE_MS,
        drain_ms: 0,
        checks: vec![check],
    };
    assert_eq!(Rules::of(&manifest), expected);
}

#[test]
fn a_keeper_s_last_words_are_read() {
    let refusal = |kind| Outcome::Refused(Refusal { kind, message: "no".to_owned() });
    let reason = || "gone".to_owned();
    assert_eq!(End::of(&Outcome::Exited(ExitStatus::Code(3))), exit(3));
    assert_eq!(End::of(&Outcome::Stopped), End::Stopped);
    assert_eq!(End::of(&refusal(RefusalKind::NotFound)), End::Refused("no".to_owned()));
    assert_eq!(
        End::of(&refusal(RefusalKind::Network)),
        End::NotStarted("no".to_owned()),
        "another attempt may do"
    );
    assert_eq!(End::of(&Outcome::NotStarted { reason: reason() }), End::NotStarted("gone".to_owned()));
    for outcome in [
        Outcome::Silent { awaited: reason(), after_ms: 5 },
        Outcome::Violation { reason: reason() },
        Outcome::NetworkEnded { reason: reason() },
        Outcome::MachineEnded { reason: reason() },
    ] {
        assert!(matches!(End::of(&outcome), End::Lost(why) if why.contains("gone")), "{outcome:?}");
    }
}

#[test]
fn waits_double_up_to_five_minutes() {
    let mut twin = Twin::running(rules());
    let mut waits = Vec::new();
    for _ in 0..11 {
        twin.ended(exit(1));
        let ended_ms = twin.now_ms;
        assert_eq!(twin.next_timer(), Some(Timer::Backoff));
        waits.push((twin.now_ms - ended_ms) / 1000);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert_eq!(twin.state.restarts(), 11);
    assert_eq!(twin.state.attempt(), 12);
}

#[test]
fn a_wait_that_is_longer_than_five_minutes_by_itself_is_kept() {
    let mut twin = Twin::running(Rules { backoff_ms: 2 * BACKOFF_CAP_MS, ..rules() });
    for _ in 0..2 {
        twin.ended(exit(1));
        let ended_ms = twin.now_ms;
        twin.next_timer();
        assert_eq!(twin.now_ms - ended_ms, 2 * BACKOFF_CAP_MS);
    }
}

#[test]
fn a_row_ends_with_an_attempt_that_was_ready_for_five_minutes() {
    for (ready_for_ms, wait_ms) in [(BACKOFF_CAP_MS - 1, 4000), (BACKOFF_CAP_MS, 1000)] {
        let mut twin = Twin::running(rules());
        for _ in 0..2 {
            twin.ended(exit(1));
            twin.next_timer();
        }
        twin.started();
        twin.pass(ready_for_ms);
        twin.ended(exit(1));
        assert_eq!(twin.timers[&Timer::Backoff] - twin.now_ms, wait_ms);
    }
}

#[test]
fn so_many_restarts_in_a_row_are_tried_and_no_more() {
    let mut twin = Twin::running(Rules { max_attempts: 2, ..rules() });
    for _ in 0..2 {
        twin.ended(exit(1));
        assert_eq!(twin.phase(), Phase::Waiting);
        twin.next_timer();
    }
    twin.ended(exit(9));
    assert_eq!(twin.phase(), Phase::Failed);
    assert_eq!(twin.state.last_end(), Some(&exit(9)));
    assert!(twin.told.contains(&Event::GaveUp { restarts: 2 }));
    twin.give(Input::Restart);
    twin.ended(exit(9));
    assert_eq!(twin.phase(), Phase::Waiting, "a restart that was asked for begins a new row");
}

#[test]
fn without_checks_it_is_ready_when_it_runs() {
    assert_eq!(Twin::running(rules()).phase(), Phase::Ready);
}

#[test]
fn it_is_ready_when_every_check_has_passed_once() {
    let mut twin = Twin::running(Rules { checks: vec![check(), check()], ..rules() });
    assert_eq!(twin.phase(), Phase::Running);
    twin.answer(0, true);
    assert_eq!(twin.phase(), Phase::Running);
    twin.answer(1, false);
    twin.pass(1000);
    twin.answer(1, true);
    assert_eq!(twin.phase(), Phase::Ready);
}

#[test]
fn a_check_is_asked_each_second_until_it_passes_and_then_at_its_interval() {
    let mut twin = checked_twin();
    let started_ms = twin.now_ms;
    let mut asked_ms = Vec::new();
    for passes in [false, false, true, true, true] {
        asked_ms.push(twin.now_ms - started_ms);
        twin.now_ms += 300;
        twin.answer(0, passes);
        assert_eq!(twin.next_timer(), Some(Timer::Check(0)));
    }
    assert_eq!(asked_ms, [0, 1000, 2000, 12_000, 22_000]);
}

#[test]
fn failures_within_the_grace_period_do_not_count() {
    let mut twin = checked_twin();
    while twin.now_ms < 1_000_000 + check().grace_ms {
        twin.answer(0, false);
        assert_eq!(twin.phase(), Phase::Running);
        twin.next_timer();
    }
    for _ in 0..2 {
        twin.answer(0, false);
        assert_eq!(twin.phase(), Phase::Running);
        twin.next_timer();
    }
    twin.answer(0, false);
    assert_eq!(twin.phase(), Phase::Stopping, "the third failure that counts");
}

#[test]
fn an_attempt_that_gets_unhealthy_is_stopped_and_has_failed_whatever_it_exits_with() {
    let mut twin = checked_twin();
    twin.answer(0, true);
    twin.now_ms += check().grace_ms;
    for passes in [false, false, true, false, false] {
        twin.next_timer();
        twin.answer(0, passes);
        assert_eq!(twin.phase(), Phase::Ready, "failures count in a row");
    }
    twin.next_timer();
    twin.answer(0, false);
    assert_eq!(twin.phase(), Phase::Stopping);
    twin.ended(exit(0));
    assert_eq!(twin.phase(), Phase::Waiting);
    let end = twin.state.last_end().map(End::to_string);
    assert_eq!(end.as_deref(), Some("unhealthy: check 0 failed 3 times in a row: refused"));
}

#[test]
fn under_never_an_unhealthy_attempt_is_stopped_for_good_unless_it_recovers() {
    for (recovers, phase) in [(false, Phase::Failed), (true, Phase::Waiting)] {
        let one = CheckRule { grace_ms: 0, retries: 1, ..check() };
        let rules = Rules { recovers, checks: vec![one], ..with_policy(RestartPolicy::Never) };
        let mut twin = Twin::running(rules);
        twin.answer(0, false);
        twin.ended(End::Stopped);
        assert_eq!(twin.phase(), phase);
    }
}

#[test]
fn a_check_without_an_answer_has_failed() {
    let mut twin = Twin::running(Rules { checks: vec![CheckRule { grace_ms: 0, ..check() }], ..rules() });
    for _ in 0..2 {
        assert_eq!(twin.next_timer(), Some(Timer::Check(0)), "no answer");
        assert_eq!(twin.next_timer(), Some(Timer::Check(0)), "the next question");
    }
    twin.next_timer();
    assert_eq!(twin.phase(), Phase::Stopping);
}

#[test]
fn a_task_that_runs_too_long_is_stopped_and_has_failed() {
    let mut twin = Twin::running(Rules { deadline_ms: Some(60_000), ..with_policy(RestartPolicy::Never) });
    twin.pass(59_999);
    assert_eq!(twin.phase(), Phase::Ready);
    twin.pass(1);
    assert_eq!(twin.phase(), Phase::Stopping);
    twin.ended(exit(0));
    assert_eq!(twin.phase(), Phase::Failed);
    assert_eq!(twin.state.last_end(), Some(&End::Overdue { after_ms: 60_000 }));
}

#[test]
fn a_keeper_that_hangs_is_asked_then_killed_itself_until_it_is_gone_and_that_is_said_once() {
    let mut twin = Twin::running(rules());
    twin.give(Input::Halt);
    twin.pass(5000 + STOP_PATIENCE_MS - 1);
    assert_eq!((twin.kills, twin.destroyed), (0, 0));
    twin.pass(1);
    assert_eq!((twin.kills, twin.destroyed), (1, 0), "the keeper may only have waited for its guest");
    twin.daemon_dies(twin.now_ms);
    for times in 1..4 {
        twin.pass(KILL_PATIENCE_MS);
        assert_eq!((twin.kills, twin.destroyed), (1, times));
    }
    let told = |event: &Event| twin.told.iter().filter(|told| *told == event).count();
    assert_eq!(told(&Event::Killing { attempt: 1 }), 1);
    assert_eq!(told(&Event::Destroying { attempt: 1 }), 1);
    twin.ended(End::Lost("its keeper was killed".to_owned()));
    assert_eq!(twin.phase(), Phase::Halted);
    twin.give(Input::Run);
    twin.started();
    twin.give(Input::Halt);
    twin.pass(5000 + STOP_PATIENCE_MS);
    assert_eq!((twin.kills, twin.destroyed), (2, 3), "the next one is asked first as well");
}

#[test]
fn a_halt_keeps_the_workload_s_own_status() {
    let mut twin = Twin::running(rules());
    twin.give(Input::Halt);
    twin.ended(exit(143));
    assert_eq!(twin.phase(), Phase::Halted);
    assert_eq!(twin.state.last_end(), Some(&exit(143)));
}

#[test]
fn the_last_command_during_a_stop_is_the_one_that_counts() {
    use Input::{Halt, Restart, Run};
    for (commands, phase) in [
        (vec![Halt], Phase::Halted),
        (vec![Halt, Run], Phase::Starting),
        (vec![Halt, Restart], Phase::Starting),
        (vec![Restart, Halt], Phase::Halted),
        (vec![Restart, Run], Phase::Starting),
        (vec![Halt, Run, Halt], Phase::Halted),
    ] {
        let mut twin = Twin::running(rules());
        for command in &commands {
            twin.give(command.clone());
        }
        twin.ended(exit(0));
        assert_eq!(twin.phase(), phase, "{commands:?}");
    }
}

#[test]
fn run_is_a_wish_that_may_be_repeated() {
    let mut twin = Twin::running(rules());
    twin.give(Input::Run);
    assert_eq!((twin.phase(), twin.state.attempt()), (Phase::Ready, 1));
    twin.ended(exit(1));
    twin.give(Input::Run);
    assert_eq!(twin.phase(), Phase::Waiting, "the back-off holds");
    twin.next_timer();
    twin.ended(exit(0));
    twin.give(Input::Run);
    assert_eq!(twin.phase(), Phase::Completed, "the result stays");
    twin.give(Input::Halt);
    assert_eq!(twin.state.last_end(), Some(&exit(0)));
    twin.give(Input::Run);
    assert_eq!(twin.phase(), Phase::Starting, "who halts and runs wants another one");
}

#[test]
fn restart_starts_anew_from_everywhere_without_a_wait() {
    let mut twin = Twin::running(rules());
    twin.ended(exit(1));
    twin.give(Input::Restart);
    assert_eq!(twin.phase(), Phase::Starting);
    twin.give(Input::Restart);
    assert_eq!(twin.phase(), Phase::Stopping);
    twin.ended(End::Stopped);
    assert_eq!((twin.phase(), twin.state.attempt()), (Phase::Starting, 3));
    assert_eq!(twin.state.restarts(), 0, "none of them happened by itself");
}

#[test]
fn inputs_about_an_earlier_attempt_are_ignored() {
    let mut twin = Twin::running(rules());
    twin.ended(exit(1));
    twin.next_timer();
    for input in [Input::Started { attempt: 1 }, Input::Ended { attempt: 1, end: exit(0) }] {
        twin.give(input);
        assert_eq!((twin.phase(), twin.state.attempt()), (Phase::Starting, 2));
    }
}

#[test]
fn a_daemon_that_comes_back_adopts_what_lives() {
    let mut twin = Twin::running(Rules { deadline_ms: Some(60_000), checks: vec![check()], ..rules() });
    twin.answer(0, true);
    twin.pass(4000);
    let effects = twin.daemon_dies(twin.now_ms + 10_000);
    assert!(effects.contains(&Effect::Find { attempt: 1 }));
    assert!(effects.contains(&Effect::SetTimer { timer: Timer::Deadline, after_ms: 46_000 }), "{effects:?}");
    assert!(effects.contains(&Effect::SetTimer { timer: Timer::Check(0), after_ms: 0 }));
    twin.started();
    assert_eq!(twin.phase(), Phase::Ready, "a daemon's restart takes nothing out of service");
}

#[test]
fn a_daemon_that_comes_back_judges_what_died() {
    let mut twin = Twin::running(rules());
    twin.daemon_dies(twin.now_ms);
    twin.ended(End::Lost("the keeper is gone".to_owned()));
    assert_eq!(twin.phase(), Phase::Waiting);
}

#[test]
fn a_question_that_died_with_the_daemon_is_asked_again_and_has_not_failed() {
    let strict = CheckRule { grace_ms: 0, retries: 1, ..check() };
    let mut twin = Twin::running(Rules { checks: vec![strict], ..rules() });
    twin.daemon_dies(twin.now_ms + 60_000);
    twin.next_timer();
    assert_eq!(twin.phase(), Phase::Running);
    twin.answer(0, true);
    assert_eq!(twin.phase(), Phase::Ready);
}

#[test]
fn a_start_that_the_daemon_s_death_overtook_is_repeated_even_under_never() {
    let mut twin = Twin::new(with_policy(RestartPolicy::Never));
    twin.give(Input::Run);
    twin.daemon_dies(twin.now_ms);
    twin.ended(End::NeverBegun);
    assert_eq!((twin.phase(), twin.state.attempt()), (Phase::Starting, 2));
    twin.ended(End::NeverBegun);
    assert_eq!(twin.phase(), Phase::Failed, "but only after a death");
}

#[test]
fn a_stop_that_was_under_way_is_repeated_by_the_daemon_that_comes_back() {
    let mut twin = Twin::running(rules());
    twin.give(Input::Halt);
    let effects = twin.daemon_dies(twin.now_ms + 1000);
    assert!(effects.contains(&Effect::Stop { attempt: 1, drain_ms: 0, grace_ms: 5000 }));
    twin.pass(5000 + STOP_PATIENCE_MS - 1000);
    assert_eq!(twin.kills, 1);
}

#[test]
fn a_clock_that_began_anew_makes_no_wait_longer_than_it_was() {
    let mut twin = Twin::running(rules());
    twin.ended(exit(1));
    let effects = twin.daemon_dies(3);
    assert_eq!(effects, [Effect::SetTimer { timer: Timer::Backoff, after_ms: 1000 }]);
}

#[test]
fn a_clock_that_jumps_between_two_nodes_neither_skips_a_wait_for_good_nor_makes_one_longer() {
    // The machine's clock since its start, which a machine's restart takes back and its sleep doesn't count.
    for (jump_ms, left_ms) in [(-999_990, 1000), (-500, 1000), (0, 1000), (400, 600), (1_000_000_000, 0)] {
        let mut twin = Twin::running(Rules { max_attempts: 1, ..rules() });
        twin.ended(exit(1));
        let now_ms = twin.now_ms.checked_add_signed(jump_ms).unwrap();
        let effects = twin.daemon_dies(now_ms);
        assert_eq!(effects, [Effect::SetTimer { timer: Timer::Backoff, after_ms: left_ms }], "{jump_ms}");
        twin.pass(left_ms);
        assert_eq!((twin.phase(), twin.starts.len()), (Phase::Starting, 2), "{jump_ms}");
        twin.ended(exit(1));
        assert_eq!(twin.phase(), Phase::Failed, "no jump gives a further attempt");
    }
    for jump_ms in [-999_990, 1_000_000_000] {
        let mut twin = Twin::running(Rules { deadline_ms: Some(60_000), ..rules() });
        twin.daemon_dies(twin.now_ms.checked_add_signed(jump_ms).unwrap());
        twin.started();
        twin.pass(60_000);
        assert_eq!(twin.phase(), Phase::Stopping, "it ends in its time, whatever the clock did: {jump_ms}");
    }
}

#[test]
fn a_timer_that_comes_too_early_is_set_for_the_rest() {
    let mut state = State::new(rules());
    state.step(0, Input::Run);
    state.step(10, Input::Ended { attempt: 1, end: exit(1) });
    let effects = state.step(510, Input::Timer(Timer::Backoff));
    assert_eq!(effects, [Effect::SetTimer { timer: Timer::Backoff, after_ms: 500 }]);
    state.step(1010, Input::Timer(Timer::Backoff));
    assert_eq!(state.phase(), Phase::Starting);
}

#[test]
fn whom_it_serves_come_to_their_end_before_it_is_stopped_unless_it_isn_t_well() {
    let serving = Rules { drain_ms: 3000, deadline_ms: Some(10_000), ..rules() };
    let stop = |drain_ms| Effect::Stop { attempt: 1, drain_ms, grace_ms: 5000 };
    for input in [Input::Halt, Input::Restart] {
        let mut twin = Twin::running(serving.clone());
        let effects = twin.state.step(twin.now_ms, input);
        assert!(effects.contains(&stop(3000)), "{effects:?}");
        let after_ms = 3000 + 5000 + STOP_PATIENCE_MS;
        assert!(effects.contains(&Effect::SetTimer { timer: Timer::Stop, after_ms }), "{effects:?}");
    }
    let mut twin = Twin::running(serving);
    let effects = twin.state.step(twin.now_ms + 10_000, Input::Timer(Timer::Deadline));
    assert!(effects.contains(&stop(0)), "{effects:?}");
}

#[test]
fn what_is_evicted_comes_back_whatever_its_policy_and_however_often_it_failed() {
    let rules = Rules { max_attempts: 1, ..with_policy(RestartPolicy::Never) };
    let mut twin = Twin::running(rules);
    for _ in 0..3 {
        twin.give(Input::Evict { reason: "the machine was short of memory".to_owned() });
        assert_eq!(twin.phase(), Phase::Stopping);
        twin.give(Input::Evict { reason: "again".to_owned() });
        twin.ended(exit(0));
        assert_eq!(twin.phase(), Phase::Waiting);
        let reason = "the machine was short of memory".to_owned();
        assert_eq!(twin.state.last_end(), Some(&End::Evicted(reason)));
        twin.pass(1000);
        twin.started();
        assert_eq!(twin.phase(), Phase::Ready);
    }
    twin.give(Input::Halt);
    twin.ended(End::Stopped);
    twin.give(Input::Evict { reason: "it isn't there".to_owned() });
    assert_eq!(twin.phase(), Phase::Halted);
}
