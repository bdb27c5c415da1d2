//! What it costs to decide, without anything that is decided on: for 10 to 10,000 simulated spacecores of one deployment, one look at all of
//! them, and a passed check of each.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::{Duration, Instant};

use node::rollout::{self, Move, Rollout, Seen, Wanted};
use node::supervisor::{CheckRule, Effect, Input, Phase, Rules, State, Timer};

/// How long each is repeated for.
const TIME: Duration = Duration::from_millis(200);

fn main() -> Result<(), Box<dyn Error>> {
    for count in [10, 100, 1000, 10_000] {
        let mut fleet = Fleet::running(count)?;
        let look = repeated(|now_ms| fleet.look(now_ms))?;
        let check = repeated(|now_ms| fleet.check(now_ms))?;
        let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(count);
        println!(
            "{count} spacecores: a look {:.1} us, {:.0} ns each; a check of each {:.0} ns",
            look.as_secs_f64() * 1e6,
            each(look),
            each(check),
        );
    }
    Ok(())
}

/// The mean time of one.
fn repeated(mut one: impl FnMut(u64) -> Result<(), String>) -> Result<Duration, String> {
    let begun = Instant::now();
    let mut times = 0;
    while begun.elapsed() < TIME {
        times += 1;
        // Later each time: checks are due then.
        one(1_000_000 * u64::from(times))?;
    }
    Ok(begun.elapsed() / times)
}

/// The replicas of one deployment.
struct Fleet {
    wanted: Wanted,
    rollout: Rollout,
    states: Vec<State>,
}

impl Fleet {
    /// Brings all of them from nothing to ready.
    fn running(replicas: u32) -> Result<Self, String> {
        let check = CheckRule { interval_ms: 10_000, timeout_ms: 2000, grace_ms: 0, retries: 3 };
        let rules = Rules { checks: vec![check], ..Rules::of(&hac::Manifest::from_image("busybox")) };
        let update = hac::Manifest::from_image("busybox").spec.update;
        let wanted = Wanted {
            revision: 1,
            replicas,
            strategy: update.strategy,
            max_parallel: update.max_parallel,
            auto_revert: update.auto_revert,
            running: true,
        };
        let mut rollout = Rollout::default();
        let moves = rollout::plan(0, &mut rollout, &wanted, &[]);
        let added = moves.iter().filter(|one| matches!(one, Move::Add { .. })).count();
        let mut states = Vec::new();
        for _ in 0..added {
            let mut state = State::new(rules.clone());
            state.step(0, Input::Run);
            let attempt = state.attempt();
            state.step(0, Input::Started { attempt });
            state.step(0, Input::Checked { attempt, check: 0, result: Ok(()) });
            states.push(state);
        }
        let mut fleet = Self { wanted, rollout, states };
        fleet.look(0)?;
        match fleet.states.len() == usize::try_from(replicas).unwrap_or(0) && fleet.rollout.good() == Some(1)
        {
            true => Ok(fleet),
            false => Err("the fleet isn't there".to_owned()),
        }
    }

    /// Looks at all of them, as after any change.
    fn look(&mut self, now_ms: u64) -> Result<(), String> {
        let seen = |(index, state): (u32, &State)| Seen {
            index,
            revision: 1,
            phase: state.phase(),
            since_ms: 0,
            restarts: state.restarts(),
            leaving: false,
        };
        let seen: Vec<Seen> = (0..).zip(&self.states).map(seen).collect();
        let moves = rollout::plan(now_ms, &mut self.rollout, &self.wanted, &seen);
        match moves.iter().any(|one| !matches!(one, Move::Done { .. } | Move::Tell(_))) {
            true => Err(format!("something is to be moved: {moves:?}")),
            false => Ok(()),
        }
    }

    /// Has the check of each be due, asked and passed.
    fn check(&mut self, now_ms: u64) -> Result<(), String> {
        for state in &mut self.states {
            let effects = state.step(now_ms, Input::Timer(Timer::Check(0)));
            if !effects.iter().any(|effect| matches!(effect, Effect::RunCheck { .. })) {
                return Err(format!("no check is asked: {effects:?}"));
            }
            let attempt = state.attempt();
            state.step(now_ms, Input::Checked { attempt, check: 0, result: Ok(()) });
            if state.phase() != Phase::Ready {
                return Err(format!("it is {:?}", state.phase()));
            }
        }
        Ok(())
    }
}
