//! The machine's monotonic clock, which every process of a run shares, so that one timeline spans them.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Nanoseconds since 1970 (UTC).
pub fn unix_time_ns() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    u64::try_from(now.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// A moment of a run worth showing in `--timings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// What had just been done, a few words.
    pub name: String,
    /// When, in nanoseconds of the monotonic clock.
    pub at_ns: u64,
}

impl Mark {
    /// Notes that `name` has just been done.
    pub fn now(name: impl Into<String>) -> Self {
        Self { name: name.into(), at_ns: now_ns() }
    }
}
