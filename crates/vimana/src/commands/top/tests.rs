use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use node::capacity::{Claim, Offer};
use node::daemon::view::{Allocation, DeploymentView, NodeView, SpacecoreView, StatsView};
use node::inventory::Inventory;

use super::draw::{Line, Look, Size, draw};
use super::reading::Reading;
use super::screen::decode;
use super::state::{Action, Key, Sort, State};

const WIDE: Size = Size { columns: 100, rows: 24 };

fn spacecore(name: &str, phase: &str, restarts: u32) -> SpacecoreView {
    SpacecoreView {
        name: name.to_owned(),
        deployment: "web".to_owned(),
        index: 0,
        revision: 1,
        phase: phase.to_owned(),
        since_unix_ms: 10_000_000,
        attempts: 1,
        restarts,
        last_end: None,
        exit_code: None,
        unhealthy: None,
        image_digest: None,
        ports: Vec::new(),
        ran_ms: None,
        notice: None,
    }
}

fn stats(name: &str, cpu_us: u64, resident: u64, sent: Option<u64>) -> StatsView {
    StatsView {
        name: name.to_owned(),
        guest_memory_total: 1 << 30,
        guest_memory_available: 1 << 29,
        guest_cpu_us: 0,
        guest_processes: 1,
        network_received: 0,
        network_sent: 77,
        resident,
        cpu_us,
        seen_received: sent.map(|_| 0),
        seen_sent: sent,
        refused: None,
    }
}

fn reading(at: Instant, spacecores: Vec<SpacecoreView>, stats: Vec<StatsView>) -> Reading {
    let total = Claim { memory_burstable: 3 << 30, ..Claim::default() };
    Reading {
        at,
        unix_ms: 10_090_000,
        node: NodeView {
            version: "0.1.0".to_owned(),
            pid: 1,
            since_unix_ms: 2_800_000,
            home: String::new(),
            offer: Offer { cpu_millis: 4000, memory: 8 << 30, disk: 0, oversell: 150, evict_below: 0 },
            allocation: Allocation { total, deployments: Vec::new() },
            inventory: Inventory::of_this_machine(std::path::Path::new("/")),
        },
        deployments: vec![DeploymentView {
            name: "web".to_owned(),
            image: String::new(),
            isolation: "MicroVM".to_owned(),
            revision: 1,
            wanted_revision: 1,
            replicas: 3,
            ready: 2,
            state: "running".to_owned(),
            trouble: None,
            ports: Vec::new(),
            spacecores,
        }],
        stats: stats.into_iter().map(|one| (one.name.clone(), one)).collect::<BTreeMap<_, _>>(),
    }
}

/// Three spacecores, of which one computes, one sends, and one has failed; measured twice within two seconds.
fn state() -> State {
    let spacecores = || {
        vec![spacecore("web", "ready", 0), spacecore("web-1", "ready", 12), spacecore("web-2", "failed", 3)]
    };
    let begun = Instant::now();
    let mut state = State::new(Sort::Cpu, "");
    let first = vec![stats("web", 1_000_000, 50 << 20, Some(1000)), stats("web-1", 0, 200 << 20, None)];
    state.take(reading(begun, spacecores(), first));
    let then =
        vec![stats("web", 1_250_000, 50 << 20, Some(5_001_000)), stats("web-1", 3_000_000, 200 << 20, None)];
    state.take(reading(begun + Duration::from_secs(2), spacecores(), then));
    state
}

fn text(state: &State, size: Size) -> String {
    draw(state, size).iter().map(|line| format!("{}\n", line.text.trim_end())).collect()
}

fn names(state: &State) -> Vec<&str> {
    state.rows().iter().map(|row| row.name.as_str()).collect()
}

fn press(state: &mut State, keys: &str) {
    for key in decode(keys.as_bytes()) {
        assert_eq!(state.press(key), Action::Stay, "{key:?}");
    }
}

#[test]
fn everything_stands_in_its_column() {
    assert_eq!(
        text(&state(), WIDE),
        "\
vimana 0.1.0, up 2h; 3 spacecores, 2 ready
CPU 1.62 of 4.00   memory 250.0 MiB of 8.0 GiB (3.0 GiB promised)   in 0 B/s   out 2.3 MiB/s


NAME   STATE        CPU*    MEMORY      IN/s     OUT/s RESTARTS SINCE ISOLATION
web-1  ready     150.0 % 200.0 MiB       0 B       0 B       12   90s MicroVM
web    ready      12.5 %  50.0 MiB       0 B   2.3 MiB        0   90s MicroVM
web-2  failed          -         -         -         -        3   90s MicroVM
"
    );
    let looks: Vec<Look> = draw(&state(), WIDE).iter().map(|line| line.look).collect();
    assert_eq!((looks[4], looks[5], looks[7]), (Look::Head, Look::Plain, Look::Warning));
}

#[test]
fn keys_sort_and_turn_the_order() {
    let mut state = state();
    for (key, order) in [
        ("m", ["web-1", "web", "web-2"]),
        ("m", ["web-2", "web", "web-1"]),
        ("n", ["web", "web-1", "web-2"]),
        ("r", ["web-1", "web-2", "web"]),
        ("s", ["web-2", "web", "web-1"]),
        ("a", ["web", "web-1", "web-2"]),
        ("a", ["web-2", "web-1", "web"]),
    ] {
        press(&mut state, key);
        assert_eq!(names(&state), order, "{key}");
    }
    assert!(text(&state, WIDE).contains("NAME^  STATE"), "{}", text(&state, WIDE));
}

#[test]
fn a_filter_is_typed_and_escape_forgets_it() {
    let mut state = state();
    press(&mut state, "/-q");
    assert!(text(&state, WIDE).contains("\nfilter: -q_\n"));
    press(&mut state, "\x7f1\r");
    assert_eq!((names(&state), state.typing), (vec!["web-1"], false));
    assert!(text(&state, WIDE).contains("\nfilter: -1 (1 of 3)\n"));
    press(&mut state, "\x1b");
    assert_eq!(names(&state).len(), 3);
    assert_eq!(state.press(Key::Char('q')), Action::Quit);
}

#[test]
fn what_is_held_still_stays_and_trouble_is_shown() {
    let mut state = state();
    press(&mut state, " ");
    state.take(reading(Instant::now(), Vec::new(), Vec::new()));
    assert_eq!(names(&state).len(), 3);
    assert!(text(&state, WIDE).starts_with("vimana 0.1.0, up 2h; 3 spacecores, 2 ready; held still\n"));
    press(&mut state, " ");
    state.trouble("no node runs here".to_owned());
    let line = Line { text: "no node runs here".to_owned(), look: Look::Warning };
    assert_eq!(draw(&state, WIDE)[2], line);
    state.take(reading(Instant::now(), Vec::new(), Vec::new()));
    assert_eq!(names(&state).len(), 0);
}

#[test]
fn no_terminal_is_too_small_and_scrolling_ends_at_the_last_line() {
    let mut state = state();
    for rows in 0..12 {
        for columns in [0, 1, 5, 20, 79, 300] {
            state.resized(rows);
            let lines = draw(&state, Size { columns, rows });
            assert!(lines.len() <= rows && lines.iter().all(|line| line.text.chars().count() <= columns));
        }
    }
    state.resized(6);
    let small = Size { columns: 80, rows: 6 };
    assert!(text(&state, small).contains("\nweb-1 ") && !text(&state, small).contains("\nweb-2 "));
    press(&mut state, "\x1b[B\x1b[B\x1b[B\x1b[B");
    assert!(text(&state, small).contains("\nweb-2 "));
    press(&mut state, "\x1b[H");
    assert!(text(&state, small).contains("\nweb-1 "));
    state.resized(24);
    assert_eq!(state.offset, 0);
}

#[test]
fn a_guest_that_begins_anew_or_says_nothing_has_no_rate() {
    let begun = Instant::now();
    let mut state = State::new(Sort::Name, "");
    let one = || vec![spacecore("web", "ready", 0)];
    state.take(reading(begun, one(), vec![stats("web", 9, 1, None)]));
    assert_eq!(state.rows()[0].cpu_milli, None);
    state.take(reading(begun + Duration::from_secs(1), one(), vec![stats("web", 3, 1, None)]));
    assert_eq!(state.rows()[0].cpu_milli, None);
    state.take(reading(begun + Duration::from_secs(2), one(), Vec::new()));
    assert_eq!((state.rows()[0].cpu_milli, state.rows()[0].memory), (None, None));
}

#[test]
fn a_strange_name_moves_no_cursor() {
    let mut state = State::new(Sort::Name, "");
    state.take(reading(Instant::now(), vec![spacecore("a\x1b[2J", "ready", 0)], Vec::new()));
    assert!(draw(&state, WIDE).iter().all(|line| !line.text.contains('\x1b')));
}

#[test]
fn keys_are_read_as_terminals_send_them() {
    assert_eq!(
        decode(b"a\x1b[A\x1bOB\x1b[5~\x1b[1;5C\x03"),
        [Key::Char('a'), Key::Up, Key::Down, Key::PageUp, Key::Interrupt]
    );
    assert_eq!(decode("é\x1b".as_bytes()), [Key::Char('é'), Key::Escape]);
}
