//! Decides how many replicas a measured load asks for, free of I/O, clocks and floating point.
//!
//! Each [`step`] takes one sample of the metric from each replica that could be measured and recommends
//! `ceil(replicas * average / target)` of them, as Kubernetes' horizontal autoscaler does:
//!
//! - **Tolerance**: an average within [`TOLERANCE_PERCENT`] of the target recommends what there is.
//! - **Missing samples**: replicas that weren't measured are taken to be at the target when more are recommended, as a
//!   starting one shall not be counted twice; and when fewer are, so that silence takes nothing away.
//! - **Up**: at once, to at most twice as many as, or [`UP_AT_LEAST`] more than, the fewest of the last minute.
//! - **Down**: to the highest recommendation of the last [`WINDOW_MS`], and only once so much has been seen.
//! - **Turning round**: after a change in one direction none in the other follows for [`WINDOW_MS`], downwards, or
//!   [`UP_WINDOW_MS`] upwards.
//! - **Bounds**: `min` and `max` hold always and at once.

#[cfg(test)]
mod tests;

use hac::model::Scaling;
use serde::{Deserialize, Serialize};

/// How far from the target an average may lie without anything following, in percent of the target.
pub const TOLERANCE_PERCENT: u64 = 10;

/// How long a lower load has to last before replicas are removed: 5 minutes.
pub const WINDOW_MS: u64 = 300_000;

/// The time in which the number may at most double, and that lies between a removal and an addition: 1 minute.
pub const UP_WINDOW_MS: u64 = 60_000;

/// How many replicas may be added within [`UP_WINDOW_MS`], even if that is more than twice as many.
pub const UP_AT_LEAST: u32 = 4;

/// What has to be known of the past, and is written down.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Autoscaler {
    /// When it looked first.
    since_ms: Option<u64>,
    /// The recommendations of the last window, oldest first, each higher than those after it: only these can be the
    /// highest of what is left of the window.
    recommended: Vec<Moment>,
    /// The numbers of replicas of the last minute, oldest first, each lower than those after it.
    replicas: Vec<Moment>,
    last_up_ms: Option<u64>,
    last_down_ms: Option<u64>,
}

/// A number at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Moment {
    at_ms: u64,
    count: u32,
}

/// Decides on the number of replicas, and answers it if it differs from `replicas`, which is the number that is wanted so
/// far. A sample is in the unit of [`Scaling::target`] times 10, so in permille for CPU and memory.
///
/// `now_ms` is a clock that doesn't go back; if it does, which a machine's restart brings about, the past is forgotten.
pub fn step(
    now_ms: u64,
    autoscaler: &mut Autoscaler,
    scaling: &Scaling,
    replicas: u32,
    samples: &[u64],
) -> Option<u32> {
    autoscaler.forget_a_clock_that_began_anew(now_ms);
    // Bounds that contradict each other don't get past a manifest's validation.
    let (min, max) = (scaling.min.max(1), scaling.max.max(scaling.min).max(1));
    let bounded = replicas.clamp(min, max);
    let recommended = recommendation(scaling, bounded, samples).clamp(min, max);
    let decided = autoscaler.decide(now_ms, bounded, recommended).clamp(min, max);
    autoscaler.note_change(now_ms, replicas, decided);
    (decided != replicas).then_some(decided)
}

/// What the samples by themselves ask for.
fn recommendation(scaling: &Scaling, replicas: u32, samples: &[u64]) -> u32 {
    // In tenths, as the samples are; in 128 bits nothing overflows that has any meaning.
    let target = u128::from(scaling.target.max(1)) * 10;
    let measured = samples.iter().take(replicas as usize);
    let silent = u128::from(replicas).saturating_sub(measured.len() as u128);
    let load = measured.map(|sample| u128::from(*sample)).sum::<u128>() + silent * target;
    let at_target = u128::from(replicas) * target;
    if load.abs_diff(at_target) * 100 <= at_target * u128::from(TOLERANCE_PERCENT) {
        return replicas;
    }
    u32::try_from(load.div_ceil(target)).unwrap_or(u32::MAX)
}

impl Autoscaler {
    fn forget_a_clock_that_began_anew(&mut self, now_ms: u64) {
        let last = [&self.recommended, &self.replicas].into_iter().filter_map(|moments| moments.last());
        let last_ms = last.map(|moment| moment.at_ms).max();
        if last_ms.is_some_and(|last_ms| last_ms > now_ms) {
            *self = Self::default();
        }
    }

    fn decide(&mut self, now_ms: u64, replicas: u32, recommended: u32) -> u32 {
        let since_ms = *self.since_ms.get_or_insert(now_ms);
        let highest =
            note(&mut self.recommended, now_ms, WINDOW_MS, recommended, |earlier, now| earlier > now);
        let fewest = note(&mut self.replicas, now_ms, UP_WINDOW_MS, replicas, |earlier, now| earlier < now);
        let within = |moment_ms: Option<u64>, window_ms| {
            moment_ms.is_some_and(|moment_ms| now_ms.saturating_sub(moment_ms) < window_ms)
        };
        if recommended > replicas {
            if within(self.last_down_ms, UP_WINDOW_MS) {
                return replicas;
            }
            let ceiling = fewest.saturating_mul(2).max(fewest.saturating_add(UP_AT_LEAST));
            return recommended.min(ceiling).max(replicas);
        }
        let seen_enough = !within(Some(since_ms), WINDOW_MS) && !within(self.last_up_ms, WINDOW_MS);
        if seen_enough { highest.min(replicas) } else { replicas }
    }

    fn note_change(&mut self, now_ms: u64, replicas: u32, decided: u32) {
        match decided.cmp(&replicas) {
            std::cmp::Ordering::Greater => self.last_up_ms = Some(now_ms),
            std::cmp::Ordering::Less => self.last_down_ms = Some(now_ms),
            std::cmp::Ordering::Equal => {}
        }
    }
}

/// Notes a number and gives the extreme one of the window: `outlasts` says whether an earlier number is more extreme than
/// a later one, so that it hides it for as long as it is in the window.
fn note(
    moments: &mut Vec<Moment>,
    now_ms: u64,
    window_ms: u64,
    count: u32,
    outlasts: impl Fn(u32, u32) -> bool,
) -> u32 {
    moments.retain(|moment| now_ms.saturating_sub(moment.at_ms) < window_ms && outlasts(moment.count, count));
    moments.push(Moment { at_ms: now_ms, count });
    moments.first().map_or(count, |moment| moment.count)
}
