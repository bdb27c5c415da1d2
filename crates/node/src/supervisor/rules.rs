//! What a spacecore is kept by.

use hac::model::{Check, FailoverStrategy, Manifest, RestartPolicy};
use serde::{Deserialize, Deserializer, Serialize};

use super::End;

/// The longest wait that doubling leads to: 5 minutes.
pub const BACKOFF_CAP_MS: u64 = 300_000;

/// Milliseconds between stop signal and kill where nobody says otherwise: 10 seconds.
pub const GRACE_MS: u64 = 10_000;

/// What a spacecore is kept by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rules {
    /// When it is started again.
    #[serde(deserialize_with = "word")]
    pub restart: RestartPolicy,
    /// The wait before the first restart in a row; 0 is as 1.
    pub backoff_ms: u64,
    /// How many restarts in a row are tried before it has failed; 0 is without bound.
    pub max_attempts: u32,
    /// Whether it is started again when the workload didn't end by itself, even if the policy is `never`: the machine or
    /// the keeper died, it could not be started, it was ended by somebody else, or it became unhealthy. An end of the
    /// workload's own, and a deadline that passed, are the policy's matter alone. The other policies do all of this anyway.
    pub recovers: bool,
    /// How long the workload of one attempt may run; one that runs longer is stopped and has failed.
    pub deadline_ms: Option<u64>,
    /// Milliseconds between stop signal and kill.
    pub grace_ms: u64,
    /// Milliseconds that those whom it serves have to come to their end before the stop signal.
    #[serde(default)]
    pub drain_ms: u64,
    /// The health checks.
    pub checks: Vec<CheckRule>,
}

/// When a check is asked, and what its failures mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckRule {
    /// From one question to the next.
    pub interval_ms: u64,
    /// How long an answer may take.
    pub timeout_ms: u64,
    /// How long after the workload's start failures don't count.
    pub grace_ms: u64,
    /// How many failures in a row make the spacecore unhealthy; 0 is as 1.
    pub retries: u32,
}

/// What the rules say of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Completed,
    Failed,
    Again,
}

impl Rules {
    /// Reads a manifest's rules. A manifest says nothing of the time to stop: it is [`GRACE_MS`], once more for connections to what
    /// it publishes.
    pub fn of(manifest: &Manifest) -> Self {
        let spec = &manifest.spec;
        let publishes = !crate::balance::shared_ports(manifest).is_empty();
        Self {
            restart: spec.restart.policy,
            backoff_ms: spec.restart.backoff.as_millis(),
            max_attempts: spec.restart.max_attempts,
            recovers: spec.failover.strategy == FailoverStrategy::AutoRecovery,
            deadline_ms: spec.task.deadline.map(hac::units::Duration::as_millis),
            grace_ms: GRACE_MS,
            drain_ms: if publishes { GRACE_MS } else { 0 },
            checks: spec.checks.iter().map(CheckRule::of).collect(),
        }
    }

    pub(super) fn verdict(&self, end: &End) -> Verdict {
        let by_policy = match self.restart {
            RestartPolicy::Never => Verdict::Failed,
            RestartPolicy::OnFailure | RestartPolicy::Always => Verdict::Again,
        };
        match end {
            End::Exited(_) if end.is_success() && self.restart != RestartPolicy::Always => Verdict::Completed,
            End::Exited(_) | End::Overdue { .. } => by_policy,
            End::Refused(_) => Verdict::Failed,
            End::Evicted(_) => Verdict::Again,
            End::Stopped | End::NotStarted(_) | End::Lost(_) | End::NeverBegun | End::Unhealthy(_) => {
                if self.recovers { Verdict::Again } else { by_policy }
            }
        }
    }

    /// The wait after so many restarts in a row.
    pub(super) fn backoff_ms(&self, row: u32) -> u64 {
        let base_ms = self.backoff_ms.max(1);
        let doubled_ms = 1u64.checked_shl(row).map_or(u64::MAX, |factor| base_ms.saturating_mul(factor));
        doubled_ms.min(self.row_ends_after_ms())
    }

    /// How long an attempt has to be ready for a row of restarts to end; also the longest wait.
    pub(super) fn row_ends_after_ms(&self) -> u64 {
        BACKOFF_CAP_MS.max(self.backoff_ms)
    }
}

impl CheckRule {
    /// Reads a manifest's check.
    pub fn of(check: &Check) -> Self {
        Self {
            interval_ms: check.interval.as_millis(),
            timeout_ms: check.timeout.as_millis(),
            grace_ms: check.grace_period.as_millis(),
            retries: check.retries,
        }
    }
}

/// Reads back a policy, which is written as its word.
fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RestartPolicy, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}
