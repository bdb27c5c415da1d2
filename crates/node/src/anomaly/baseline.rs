//! What is usual of one number: the median of ordinary rounds, and how far they are from it.

use std::collections::VecDeque;

use super::{CALM, NEW_NORMAL, SUSTAINED, WINDOW};

/// How many spreads an unusual round is away from the median.
const SPREADS: u64 = 6;

/// The ordinary rounds of one number, and how those that came last compare.
#[derive(Debug, Clone, Default)]
pub(super) struct Baseline {
    rounds: VecDeque<u64>,
    /// The same by their size.
    sorted: Vec<u64>,
    /// Rounds in a row that deviate, since one didn't; and the other way round.
    beyond: u32,
    within: u32,
    alarmed: bool,
}

/// How a round compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usual {
    /// As usual, or nothing follows yet.
    Yes,
    /// It has been more for long enough.
    Exceeded { median: u64, spread: u64, alarm_above: u64 },
    /// It is as usual again, or what it is has become usual.
    Again,
}

impl Baseline {
    /// How many ordinary rounds are known.
    pub(super) fn rounds(&self) -> usize {
        self.rounds.len()
    }

    /// Takes the value of a round; `least` is what it must be more by.
    pub(super) fn step(&mut self, warm_up: usize, value: u64, least: u64) -> Usual {
        if self.rounds.len() < warm_up.clamp(1, WINDOW) {
            self.keep(value);
            return Usual::Yes;
        }
        let median = middle(&self.sorted);
        let at_least = median.saturating_add(least).max(median.saturating_mul(2));
        if value <= at_least {
            // However far rounds are apart, this is usual.
            return self.is_within(value);
        }
        let spread = self.spread(median);
        let alarm_above = at_least.max(median.saturating_add(spread.saturating_mul(SPREADS)));
        if value <= alarm_above {
            return self.is_within(value);
        }
        (self.beyond, self.within) = (self.beyond.saturating_add(1), 0);
        if self.beyond >= NEW_NORMAL {
            *self = Self::default();
            return Usual::Again;
        }
        if self.beyond < SUSTAINED {
            return Usual::Yes;
        }
        self.alarmed = true;
        Usual::Exceeded { median, spread, alarm_above }
    }

    fn is_within(&mut self, value: u64) -> Usual {
        self.within = self.within.saturating_add(1);
        if self.alarmed && self.within < CALM {
            // It may be a lull; and it isn't known to be ordinary.
            return Usual::Yes;
        }
        self.beyond = 0;
        self.keep(value);
        if std::mem::take(&mut self.alarmed) { Usual::Again } else { Usual::Yes }
    }

    /// Has a round be an ordinary one; the oldest goes.
    fn keep(&mut self, value: u64) {
        if self.rounds.len() >= WINDOW
            && let Some(oldest) = self.rounds.pop_front()
            && let Ok(at) = self.sorted.binary_search(&oldest)
        {
            self.sorted.remove(at);
        }
        self.rounds.push_back(value);
        let at = self.sorted.partition_point(|known| *known < value);
        self.sorted.insert(at, value);
    }

    /// 1.4826 times the median distance from the median: the standard deviation, if rounds have a normal distribution.
    fn spread(&self, median: u64) -> u64 {
        let mut distances: Vec<u64> = self.sorted.iter().map(|round| round.abs_diff(median)).collect();
        distances.sort_unstable();
        let scaled = u128::from(middle(&distances)).saturating_mul(14_826) / 10_000;
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}

fn middle(sorted: &[u64]) -> u64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}
