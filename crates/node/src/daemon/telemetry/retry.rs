//! Whether something is sent again, and when: pure.

use std::time::Duration;

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest wait that a collector can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// What a collector answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The status, and how many seconds it asks to wait.
    Status(u16, Option<u64>),
    /// Nothing, or nothing in time.
    None,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It was taken.
    Taken,
    /// It is sent again after this wait.
    Again(Duration),
    /// It won't be taken.
    GiveUp,
}

/// Waits that grow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    first: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration) -> Self {
        Self { first, failures: 0 }
    }

    /// Decides by an answer.
    pub(super) fn after(&mut self, answer: Answer) -> Next {
        let asked = match answer {
            Answer::Status(200..=299, _) => {
                self.failures = 0;
                return Next::Taken;
            }
            Answer::Status(429 | 502 | 503 | 504, asked) => asked,
            Answer::None => None,
            Answer::Status(..) => {
                self.failures = 0;
                return Next::GiveUp;
            }
        };
        let grown = self.first.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        Next::Again(asked.map_or(grown, |seconds| Duration::from_secs(seconds).min(LONGEST_ASKED)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_minute_and_begin_anew_after_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        let waits: Vec<u64> = (0..9)
            .map(|_| match backoff.after(Answer::None) {
                Next::Again(wait) => wait.as_secs(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff.after(Answer::Status(200, None)), Next::Taken);
        assert_eq!(backoff.after(Answer::Status(503, None)), Next::Again(Duration::from_secs(1)));
    }

    #[test]
    fn a_collector_says_how_long_to_wait_within_reason_and_what_is_in_vain() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        assert_eq!(backoff.after(Answer::Status(429, Some(7))), Next::Again(Duration::from_secs(7)));
        assert_eq!(backoff.after(Answer::Status(429, Some(u64::MAX))), Next::Again(Duration::from_secs(300)));
        for status in [301, 400, 401, 404, 413, 500, 501] {
            assert_eq!(backoff.after(Answer::Status(status, Some(1))), Next::GiveUp, "{status}");
        }
    }
}
