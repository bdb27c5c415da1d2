//! `GET /v1/deployments/{name}/wait`: an answer once something is so, or can't become so.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::Api;
use super::problem::{Json, Name, Problem, Query};
use crate::daemon::call::Call;
use crate::daemon::view::{DeploymentView, Outcome, WaitView};

/// What is waited for, and how long.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Until {
    /// `ready` (each spacecore is ready or has completed; the default), `ended` (each has completed or failed), `stopped` or `gone`.
    #[serde(rename = "for")]
    what: Option<String>,
    /// The revision that must be so, and not one that came after it or that was gone back to; any, where nothing is said.
    revision: Option<u64>,
    /// The longest wait in seconds; 60 where nothing is said, at most 3600.
    timeout_s: Option<u32>,
}

/// How long somebody waits who doesn't say.
const PATIENCE_S: u32 = 60;
const LONGEST_S: u32 = 3600;

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Ready,
    Ended,
    Stopped,
    Gone,
}

pub(super) async fn wait(
    State(api): State<Api>,
    Name(name): Name,
    Query(until): Query<Until>,
) -> Result<Json<WaitView>, Problem> {
    let what = What::read(until.what.as_deref())?;
    let patience_s = until.timeout_s.unwrap_or(PATIENCE_S);
    if patience_s > LONGEST_S {
        let detail = format!("timeout_s is {patience_s}; at most {LONGEST_S} can be waited for at a time");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "query", detail));
    }
    let end = Instant::now() + Duration::from_secs(patience_s.into());
    let mut changes = api.changes.clone();
    let mut was_there = false;
    loop {
        changes.mark_unchanged();
        let shown = api.ask(|reply| Call::Deployment { name: name.clone(), reply }).await;
        let deployment = match shown {
            Ok(deployment) => deployment,
            Err(problem) if problem.status == 404 && (was_there || what == What::Gone) => {
                let outcome = if what == What::Gone { Outcome::Reached } else { Outcome::Gone };
                return Ok(Json(WaitView::of(outcome, None)));
            }
            Err(problem) => return Err(problem),
        };
        was_there = true;
        if let Some(outcome) = judge(what, until.revision, &deployment) {
            return Ok(Json(WaitView::of(outcome, Some(deployment))));
        }
        if Instant::now() >= end {
            return Ok(Json(WaitView::of(Outcome::Late, Some(deployment))));
        }
        // The node tells of every change until it ends; whether it was the one, the next round sees.
        let _ = timeout_at(end, changes.changed()).await;
    }
}

/// What has come of it, if anything has.
fn judge(what: What, revision: Option<u64>, deployment: &DeploymentView) -> Option<Outcome> {
    if revision.is_some_and(|asked| asked < deployment.revision) {
        return Some(Outcome::Superseded);
    }
    let is_taken_back = revision.is_some() && deployment.wanted_revision != deployment.revision;
    let can_not_become_so = match what {
        What::Ready => {
            ["failed", "stopped", "removing", "damaged"].contains(&deployment.state.as_str())
                || (is_taken_back && deployment.state == "running")
        }
        What::Ended | What::Stopped | What::Gone => false,
    };
    match () {
        () if can_not_become_so => Some(Outcome::Failed),
        () if what.is_so(deployment) => Some(Outcome::Reached),
        () => None,
    }
}

impl What {
    fn read(word: Option<&str>) -> Result<Self, Problem> {
        match word.unwrap_or("ready") {
            "ready" => Ok(Self::Ready),
            "ended" => Ok(Self::Ended),
            "stopped" => Ok(Self::Stopped),
            "gone" => Ok(Self::Gone),
            other => {
                let detail = format!("{other:?} can't be waited for; ready, ended, stopped and gone can");
                Err(Problem::new(StatusCode::BAD_REQUEST, "query", detail))
            }
        }
    }

    /// Whether a deployment that is there is as it is waited for.
    fn is_so(self, deployment: &DeploymentView) -> bool {
        let are =
            |phases: &[&str]| deployment.spacecores.iter().all(|one| phases.contains(&one.phase.as_str()));
        let is_whole =
            usize::try_from(deployment.replicas).is_ok_and(|wanted| wanted == deployment.spacecores.len());
        let is_current = deployment.spacecores.iter().all(|one| one.revision == deployment.wanted_revision);
        match self {
            Self::Ready => is_whole && is_current && are(&["ready", "completed"]),
            Self::Ended => is_whole && is_current && are(&["completed", "failed"]),
            Self::Stopped => deployment.state == "stopped" && are(&["halted", "idle", "completed", "failed"]),
            Self::Gone => false,
        }
    }
}

impl WaitView {
    fn of(outcome: Outcome, deployment: Option<DeploymentView>) -> Self {
        Self { reached: outcome == Outcome::Reached, outcome, deployment }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::view::SpacecoreView;

    /// A deployment of this revision that is brought to another, with one spacecore.
    fn deployment(revision: u64, wanted_revision: u64, state: &str, phase: &str) -> DeploymentView {
        DeploymentView {
            name: "web".to_owned(),
            image: String::new(),
            isolation: "Wasm".to_owned(),
            revision,
            wanted_revision,
            replicas: 1,
            ready: u32::from(phase == "ready"),
            state: state.to_owned(),
            trouble: None,
            ports: Vec::new(),
            spacecores: vec![SpacecoreView {
                name: "web".to_owned(),
                deployment: "web".to_owned(),
                index: 0,
                revision: wanted_revision,
                phase: phase.to_owned(),
                since_unix_ms: 0,
                attempts: 1,
                restarts: 0,
                last_end: None,
                exit_code: None,
                ran_ms: None,
                unhealthy: None,
                image_digest: None,
                ports: Vec::new(),
                notice: None,
            }],
        }
    }

    #[test]
    fn who_waits_for_a_revision_doesn_t_take_another_one_for_it() {
        use Outcome::{Failed, Reached, Superseded};
        let table = [
            (Some(1), deployment(1, 1, "running", "ready"), Some(Reached)),
            (Some(1), deployment(1, 1, "starting", "starting"), None),
            (Some(1), deployment(2, 2, "running", "ready"), Some(Superseded)),
            (Some(1), deployment(2, 1, "running", "ready"), Some(Superseded)),
            (Some(2), deployment(2, 1, "updating", "starting"), None),
            (Some(2), deployment(2, 1, "running", "ready"), Some(Failed)),
            (Some(2), deployment(2, 2, "failed", "failed"), Some(Failed)),
            (Some(2), deployment(2, 2, "stopped", "halted"), Some(Failed)),
        ];
        for (revision, deployment, outcome) in table {
            assert_eq!(judge(What::Ready, revision, &deployment), outcome, "{revision:?} of {deployment:?}");
        }
    }

    #[test]
    fn who_names_no_revision_takes_the_one_that_was_gone_back_to() {
        let taken_back = deployment(2, 1, "running", "ready");
        assert_eq!(judge(What::Ready, None, &taken_back), Some(Outcome::Reached));
        assert_eq!(judge(What::Ready, None, &deployment(1, 1, "failed", "failed")), Some(Outcome::Failed));
    }
}
