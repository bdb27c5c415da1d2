use hac::model::ScalingMetric;
use proptest::prelude::*;

use super::*;

const INTERVAL_MS: u64 = 15_000;
const DAY_MS: u64 = 86_400_000;

fn scaling(min: u32, max: u32) -> Scaling {
    Scaling { min, max, metric: ScalingMetric::Cpu, target: 50, series: None }
}

/// A deployment whose load is spread evenly.
struct World {
    now_ms: u64,
    autoscaler: Autoscaler,
    scaling: Scaling,
    replicas: u32,
    /// When the number was changed, and to what.
    changes: Vec<(u64, u32)>,
}

impl World {
    fn new(scaling: Scaling, replicas: u32) -> Self {
        Self { now_ms: 7, autoscaler: Autoscaler::default(), scaling, replicas, changes: Vec::new() }
    }

    /// Measures once; the load is what one replica alone would show, in permille.
    fn look(&mut self, load: u64) {
        let samples = vec![load / u64::from(self.replicas); self.replicas as usize];
        if let Some(replicas) =
            step(self.now_ms, &mut self.autoscaler, &self.scaling, self.replicas, &samples)
        {
            assert_ne!(replicas, self.replicas);
            self.replicas = replicas;
            self.changes.push((self.now_ms, replicas));
        }
        assert!((self.scaling.min..=self.scaling.max).contains(&self.replicas));
        self.now_ms += INTERVAL_MS;
    }

    fn look_for(&mut self, load: u64, ms: u64) {
        let written = serde_json::to_string(&self.autoscaler).expect("it can be written");
        self.autoscaler = serde_json::from_str(&written).expect("it can be read back");
        let until_ms = self.now_ms + ms;
        while self.now_ms < until_ms {
            self.look(load);
        }
    }
}

#[test]
fn the_number_follows_the_ratio_of_load_and_target() {
    for (samples, recommended) in [
        (&[500, 500, 500, 500][..], 4),
        (&[549, 549, 549, 549], 4), // within the tolerance
        (&[560, 560, 560, 560], 5),
        (&[450, 450, 450, 450], 4),
        (&[370, 370, 370, 370], 3),
        (&[0, 0, 0, 0], 0),
        (&[1000, 1000], 6), // the two silent ones are taken to be at the target
        (&[0, 0], 2),
        (&[], 4),
        (&[u64::MAX; 4], u32::MAX),
    ] {
        assert_eq!(recommendation(&scaling(1, 9), 4, samples), recommended, "{samples:?}");
    }
}

#[test]
fn a_higher_load_is_followed_at_once_up_to_twice_as_many_a_minute() {
    let mut world = World::new(scaling(1, 100), 10);
    world.look(100 * 500);
    assert_eq!(world.replicas, 20);
    world.look(100 * 500);
    assert_eq!(world.replicas, 20);
    world.look_for(100 * 500, 4 * UP_WINDOW_MS);
    assert_eq!(world.replicas, 100);
    let numbers: Vec<u32> = world.changes.iter().map(|(_, replicas)| *replicas).collect();
    assert_eq!(numbers, [20, 40, 80, 100]);
}

#[test]
fn a_lower_load_is_followed_once_it_has_lasted_for_five_minutes() {
    let mut world = World::new(scaling(1, 10), 8);
    world.look_for(8 * 500, 2 * WINDOW_MS);
    let fell_ms = world.now_ms;
    world.look_for(2 * 500, 2 * WINDOW_MS);
    assert_eq!(world.replicas, 2);
    assert_eq!(world.changes.len(), 1);
    let after_ms = world.changes[0].0 - fell_ms;
    assert!((WINDOW_MS - INTERVAL_MS..=WINDOW_MS).contains(&after_ms), "{after_ms}");
}

#[test]
fn a_short_dip_takes_nothing_away() {
    let mut world = World::new(scaling(1, 10), 8);
    for _ in 0..10 {
        world.look_for(8 * 500, 60_000);
        world.look_for(500, WINDOW_MS - 60_000);
    }
    assert_eq!(world.changes, []);
}

#[test]
fn a_fresh_autoscaler_removes_nothing_before_it_has_seen_enough() {
    let mut world = World::new(scaling(1, 10), 8);
    world.look_for(0, WINDOW_MS);
    assert_eq!(world.replicas, 8);
    world.look(0);
    assert_eq!(world.replicas, 1);
}

#[test]
fn bounds_hold_at_once_and_without_samples() {
    for (replicas, decided) in [(0, Some(3)), (1, Some(3)), (3, None), (5, None), (9, Some(5))] {
        assert_eq!(step(0, &mut Autoscaler::default(), &scaling(3, 5), replicas, &[]), decided);
    }
}

#[test]
fn a_clock_that_began_anew_lets_the_past_be_forgotten() {
    let mut world = World::new(scaling(1, 10), 4);
    world.look_for(4 * 500, WINDOW_MS);
    world.now_ms = 3;
    world.look(8 * 500);
    assert_eq!(world.replicas, 8);
}

/// A number below `bound`, by xorshift.
fn random(seed: &mut u64, bound: u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 11) % bound
}

/// The direction of each change after the first, with its distance to the one before: whether it turned round.
fn turns(changes: &[(u64, u32)], first: u32) -> Vec<(bool, u64)> {
    let numbers: Vec<u32> =
        std::iter::once(first).chain(changes.iter().map(|(_, replicas)| *replicas)).collect();
    let ups: Vec<bool> = numbers.windows(2).map(|pair| pair[1] > pair[0]).collect();
    (1..changes.len())
        .filter(|place| ups[*place] != ups[*place - 1])
        .map(|place| (ups[place], changes[place].0 - changes[place - 1].0))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    // The load rises from a tenth at midnight to its peak at noon and falls again, with noise of a tenth and spikes.
    #[test]
    fn a_noisy_day_does_not_flap(seed in 1u64.., peak in 5u64..40) {
        let mut seed = seed;
        let mut world = World::new(scaling(1, 50), 4);
        while world.now_ms < DAY_MS {
            let from_noon_ms = world.now_ms.abs_diff(DAY_MS / 2);
            let mean = peak * 500 * (DAY_MS / 2 - from_noon_ms + DAY_MS / 20) / (DAY_MS / 2);
            let spike = if random(&mut seed, 500) == 0 { 2 } else { 1 };
            world.look(mean * (900 + random(&mut seed, 200)) / 1000 * spike);
        }
        let turns = turns(&world.changes, 4);
        for (up, after_ms) in &turns {
            prop_assert!(*after_ms >= if *up { UP_WINDOW_MS } else { WINDOW_MS }, "{:?}", world.changes);
        }
        // Of 5760 looks: some for each replica on the way up and down, two turns for each spike.
        prop_assert!(world.changes.len() < 200, "{} changes", world.changes.len());
    }

    #[test]
    fn a_step_of_the_load_is_followed_in_bounded_time(from in 1u32..40, to in 1u32..40) {
        let mut world = World::new(scaling(1, 40), from);
        world.look_for(u64::from(from) * 500, 2 * WINDOW_MS);
        prop_assert_eq!(&world.changes, &[]);
        // Up: as many doublings as it takes, a minute each. Down: the window.
        world.look_for(u64::from(to) * 500, if to > from { 6 * UP_WINDOW_MS } else { WINDOW_MS + INTERVAL_MS });
        let off = world.replicas.abs_diff(to);
        prop_assert!(u64::from(off) * 100 <= u64::from(world.replicas) * (TOLERANCE_PERCENT + 1), "{} for {to}", world.replicas);
        let settled = world.changes.len();
        world.look_for(u64::from(to) * 500, 4 * WINDOW_MS);
        prop_assert_eq!(world.changes.len(), settled, "and stays");
    }

    #[test]
    fn bounds_hold_whatever_is_measured(
        min in 1u32..9, more in 0u32..9,
        looks in prop::collection::vec((0u64..100_000, 0u32..30, prop::collection::vec(any::<u64>(), 0..12)), 1..40),
    ) {
        let scaling = scaling(min, min + more);
        let (mut autoscaler, mut now_ms) = (Autoscaler::default(), 0);
        for (after_ms, replicas, samples) in looks {
            now_ms += after_ms;
            let decided = step(now_ms, &mut autoscaler, &scaling, replicas, &samples).unwrap_or(replicas);
            prop_assert!((min..=min + more).contains(&decided));
        }
    }
}
