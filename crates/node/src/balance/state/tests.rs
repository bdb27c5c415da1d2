use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const PORT: u16 = 80;

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn service(names: &[&str], leaving: &[&str], holds: bool) -> Service {
    let backend = |(name, port): (&&str, u16)| ((*name).to_owned(), BTreeMap::from([(PORT, address(port))]));
    Service {
        ports: BTreeSet::from([PORT]),
        backends: names.iter().zip(1000..).map(backend).collect(),
        leaving: leaving.iter().map(|name| (*name).to_owned()).collect(),
        holds,
    }
}

fn state(names: &[&str]) -> State {
    let mut state = State::default();
    state.serve(&service(names, &[], true));
    state
}

fn next(state: &mut State, now_ms: u64) -> Option<String> {
    state.came();
    match state.choose(PORT, now_ms) {
        Choice::Go { backend, .. } => Some(backend),
        Choice::Wait { .. } | Choice::Refuse => {
            state.gave_up();
            None
        }
    }
}

#[test]
fn callers_go_round_and_the_one_with_the_fewest_gets_the_next() {
    let mut state = state(&["a", "b", "c"]);
    let first: Vec<_> = (0..6).filter_map(|_| next(&mut state, 0)).collect();
    assert_eq!(first, ["a", "b", "c", "a", "b", "c"]);
    state.ended("b", false);
    assert_eq!(next(&mut state, 0).as_deref(), Some("b"));
}

#[test]
fn who_is_taken_out_of_service_gets_nobody_new_and_is_free_once_the_last_has_gone() {
    let mut state = state(&["a", "b"]);
    assert_eq!(next(&mut state, 0).as_deref(), Some("a"));
    state.serve(&service(&["b"], &["a"], true));
    assert!(state.drained().is_empty());
    assert_eq!((0..3).filter_map(|_| next(&mut state, 0)).collect::<Vec<_>>(), ["b", "b", "b"]);
    state.ended("a", false);
    assert_eq!((state.drained(), state.drained()), (vec!["a".to_owned()], vec![]));
    state.serve(&service(&["b"], &["never seen"], true));
    assert_eq!(state.drained(), ["never seen"]);
}

#[test]
fn callers_are_held_while_somebody_may_come_and_refused_otherwise() {
    let mut state = state(&[]);
    state.came();
    assert_eq!(state.choose(PORT, 0), Choice::Wait { until_ms: None });
    state.serve(&service(&[], &[], false));
    assert_eq!(state.choose(PORT, 0), Choice::Refuse);
    state.serve(&service(&["a"], &[], false));
    assert_eq!(state.choose(81, 0), Choice::Refuse, "nobody has this port");
    assert!(matches!(state.choose(PORT, 0), Choice::Go { is_trusted: false, .. }));
}

#[test]
fn who_says_no_rests_and_is_trusted_once_it_has_answered() {
    let mut state = state(&["a"]);
    assert!(next(&mut state, 0).is_some());
    state.failed("a", 0);
    assert_eq!(state.choose(PORT, 1), Choice::Wait { until_ms: Some(REST_MS) });
    assert!(matches!(state.choose(PORT, REST_MS), Choice::Go { is_trusted: false, .. }));
    state.answered("a");
    state.came();
    assert!(matches!(state.choose(PORT, REST_MS), Choice::Go { is_trusted: true, .. }));
    state.ended("a", true);
    state.came();
    assert!(matches!(state.choose(PORT, REST_MS), Choice::Go { is_trusted: false, .. }));
}

#[test]
fn what_is_known_of_a_backend_holds_where_the_node_says_nothing_new() {
    let mut state = state(&["a"]);
    let mut again = service(&["a"], &[], true);
    again.backends.insert("a".to_owned(), BTreeMap::new());
    state.serve(&again);
    assert_eq!(next(&mut state, 0).as_deref(), Some("a"));
}

#[derive(Debug, Clone)]
enum Step {
    Come,
    GiveUp,
    Choose,
    Fail(usize),
    End(usize),
    Serve(u8, u8, bool),
    Later(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Come),
        1 => Just(Step::GiveUp),
        4 => Just(Step::Choose),
        1 => any::<usize>().prop_map(Step::Fail),
        2 => any::<usize>().prop_map(Step::End),
        1 => (0u8..8, 0u8..8, any::<bool>()).prop_map(|(some, leave, holds)| Step::Serve(some, leave, holds)),
        1 => (0u64..200).prop_map(Step::Later),
    ]
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn some(bits: u8) -> Vec<&'static str> {
    NAMES.into_iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1).map(|(_, name)| name).collect()
}

proptest! {
    #[test]
    fn nobody_is_lost_and_only_who_serves_is_chosen(steps in proptest::collection::vec(any_step(), 0..200)) {
        let mut state = State::default();
        let (mut held, mut open, mut now_ms) = (0usize, Vec::<String>::new(), 0u64);
        let mut serving: Vec<&str> = Vec::new();
        for step in steps {
            match step {
                Step::Come => if state.has_room() { state.came(); held += 1; },
                Step::GiveUp => if held > 0 { state.gave_up(); held -= 1; },
                Step::Choose => if held > 0 {
                    let count = |name: &str| open.iter().filter(|one| *one == name).count();
                    match state.choose(PORT, now_ms) {
                        Choice::Go { backend, .. } => {
                            prop_assert!(serving.contains(&backend.as_str()));
                            let resting = |name: &str| state.backends[name].rests_until_ms > now_ms;
                            let fewest = serving.iter().filter(|name| !resting(name)).map(|name| count(name)).min();
                            prop_assert_eq!(Some(count(&backend)), fewest);
                            open.push(backend);
                            held -= 1;
                        }
                        Choice::Wait { until_ms: Some(until_ms) } => prop_assert!(until_ms > now_ms),
                        Choice::Wait { until_ms: None } => prop_assert!(serving.is_empty() && state.holds),
                        Choice::Refuse => prop_assert!(serving.is_empty() && !state.holds),
                    }
                },
                Step::Fail(place) => if !open.is_empty() {
                    let name = open.swap_remove(place % open.len());
                    state.failed(&name, now_ms);
                    held += 1;
                },
                Step::End(place) => if !open.is_empty() {
                    let name = open.swap_remove(place % open.len());
                    state.ended(&name, false);
                },
                Step::Serve(bits, leave, holds) => {
                    serving = some(bits);
                    state.serve(&service(&serving, &some(leave & !bits), holds));
                }
                Step::Later(ms) => now_ms += ms,
            }
            for name in state.drained() {
                prop_assert!(!open.contains(&name) && !serving.contains(&name.as_str()));
            }
            prop_assert_eq!((state.held, state.open), (held, open.len()));
            let counted: usize = state.backends.values().map(|backend| backend.open).sum();
            prop_assert_eq!(counted, open.len());
            prop_assert!(state.backends.len() <= NAMES.len());
        }
    }
}
