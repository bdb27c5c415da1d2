//! A limit on a rate: who wants to send learns how long to wait. The generic cell rate algorithm (ITU-T I.371): one
//! moment is kept, by which all that was let through would have been sent at the rate.

use std::time::{Duration, Instant};

/// What may pass at once after a pause, as time at the rate: enough that timers needn't be exact.
const BURST: Duration = Duration::from_millis(20);

/// One direction's limit.
#[derive(Debug)]
pub(crate) struct Limit {
    bits_per_second: u64,
    sent_by: Option<Instant>,
}

impl Limit {
    pub(crate) fn new(bits_per_second: u64) -> Self {
        Self { bits_per_second: bits_per_second.max(1), sent_by: None }
    }

    /// Counts so many bytes as sent; says how long to wait before they may be.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) -> Duration {
        let bits = u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(8);
        let nanos = bits.saturating_mul(1_000_000_000) / u128::from(self.bits_per_second);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let begin = self.sent_by.map_or(earliest, |sent_by| sent_by.max(earliest));
        let sent_by = begin.checked_add(takes).unwrap_or(begin);
        self.sent_by = Some(sent_by);
        sent_by.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whoever waits as told sends at the rate, and no slower.
        #[test]
        fn over_time_the_rate_is_the_limit(
            bits in 100_000_u64..10_000_000_000, sizes in proptest::collection::vec(60_usize..32_014, 200..400),
        ) {
            let begin = Instant::now();
            let (mut limit, mut now, mut sent) = (Limit::new(bits), begin, 0_usize);
            for size in sizes {
                now += limit.take(size, now);
                sent += size;
            }
            let at_rate = Duration::from_secs_f64(sent as f64 * 8.0 / bits as f64);
            let took = now - begin;
            prop_assert!(took <= at_rate && took + BURST + Duration::from_micros(1) >= at_rate, "{took:?} {at_rate:?}");
        }

        /// Pauses save up no more than a burst.
        #[test]
        fn a_pause_saves_up_a_burst_and_no_more(pause in 0_u64..100_000, bits in 1_000_000_u64..1_000_000_000) {
            let begin = Instant::now();
            let mut limit = Limit::new(bits);
            limit.take(60, begin);
            let later = begin + Duration::from_millis(pause);
            let burst = usize::try_from(bits / 8 / 50).unwrap();
            prop_assert!(limit.take(burst * 3, later) >= BURST);
        }
    }
}
