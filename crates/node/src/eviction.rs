//! Who has to go when the machine is short of memory: pure.
//!
//! Burstable spacecores may have been promised more memory than there is. Where they all use it, somebody has to end, and who that is
//! shouldn't be left to the kernel, which knows of no classes and takes a moment of standing still for its decision:
//!
//! - The machine is **short** when less of its memory can still be given away than the operator says
//!   ([`Offer::evict_below`](crate::capacity::Offer::evict_below)), in [`IN_A_ROW`] measurements in a row.
//! - Then **one** goes: of the burstable ones that run, the one that uses most; of those that use the same, the one that has run
//!   for the shortest time, which loses least.
//! - For [`PAUSE_MS`] after that nobody goes, so that what it gives back is seen before the next.
//! - Guaranteed ones never go.

/// How many measurements in a row have to find the machine short.
pub const IN_A_ROW: u32 = 2;
/// Milliseconds after an eviction in which there is no other.
pub const PAUSE_MS: u64 = 5000;

/// A burstable spacecore that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// The memory that it uses, in bytes.
    pub used: u64,
    /// Milliseconds that it has run for.
    pub running_ms: u64,
}

/// What was measured before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pressure {
    in_a_row: u32,
    quiet_until_ms: u64,
}

impl Pressure {
    /// Takes a measurement: so many bytes are available, and it shouldn't be fewer than so many. Tells whether somebody has to go;
    /// `now_ms` is a clock that doesn't go back.
    pub fn measured(&mut self, now_ms: u64, available: u64, least: u64) -> bool {
        self.in_a_row = if available < least { self.in_a_row.saturating_add(1) } else { 0 };
        self.in_a_row >= IN_A_ROW && now_ms >= self.quiet_until_ms
    }

    /// Takes note that somebody goes.
    pub fn evicted(&mut self, now_ms: u64) {
        *self = Self { in_a_row: 0, quiet_until_ms: now_ms.saturating_add(PAUSE_MS) };
    }
}

/// Who goes, if anybody can.
pub fn choose(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().max_by_key(|one| (one.used, std::cmp::Reverse(one.running_ms), &one.name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(name: &str, used: u64, running_ms: u64) -> Candidate {
        Candidate { name: name.to_owned(), used, running_ms }
    }

    #[test]
    fn who_uses_most_goes_and_of_equals_the_youngest() {
        let all = [candidate("old", 50, 900), candidate("young", 50, 10), candidate("small", 5, 1)];
        assert_eq!(choose(&all).unwrap().name, "young");
        let all = [candidate("big", 51, 900), candidate("young", 50, 10)];
        assert_eq!(choose(&all).unwrap().name, "big");
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn one_low_measurement_means_nothing_and_after_an_eviction_there_is_a_pause() {
        let mut pressure = Pressure::default();
        assert!(!pressure.measured(0, 10, 20));
        assert!(!pressure.measured(1, 20, 20));
        assert!(!pressure.measured(2, 19, 20));
        assert!(pressure.measured(3, 19, 20));
        assert!(pressure.measured(4, 19, 20), "nobody could go, so it is asked again");
        pressure.evicted(4);
        assert!(!pressure.measured(5, 0, 20));
        assert!(!pressure.measured(4 + PAUSE_MS - 1, 0, 20));
        assert!(pressure.measured(4 + PAUSE_MS, 0, 20));
    }

    proptest! {
        #[test]
        fn nobody_goes_while_there_is_enough_and_never_two_within_the_pause(
            measured in prop::collection::vec((0u64..3000, 0u64..200), 0..200),
        ) {
            const LEAST: u64 = 100;
            let (mut pressure, mut now_ms, mut last, mut low) = (Pressure::default(), 0, None, 0);
            for (passed_ms, available) in measured {
                now_ms += passed_ms;
                low = if available < LEAST { low + 1 } else { 0 };
                if pressure.measured(now_ms, available, LEAST) {
                    prop_assert!(low >= IN_A_ROW);
                    if let Some(last) = last {
                        prop_assert!(now_ms - last >= PAUSE_MS);
                    }
                    pressure.evicted(now_ms);
                    (last, low) = (Some(now_ms), 0);
                }
            }
        }
    }
}
