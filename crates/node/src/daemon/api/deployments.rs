//! Deployments: looked at, scaled, stopped, started, waited for, removed.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Api;
use super::problem::{Json, Name, Problem, Query};
use crate::daemon::call::Call;
use crate::daemon::view::{DeploymentView, WaitView};

type Shown = Result<Json<DeploymentView>, Problem>;

pub(super) async fn list(State(api): State<Api>) -> Result<Json<Vec<DeploymentView>>, Problem> {
    api.ask(|reply| Call::Deployments { reply }).await.map(Json)
}

pub(super) async fn one(State(api): State<Api>, Name(name): Name) -> Shown {
    api.ask(|reply| Call::Deployment { name, reply }).await.map(Json)
}

pub(super) async fn remove(State(api): State<Api>, Name(name): Name) -> Shown {
    api.ask(|reply| Call::Remove { name, reply }).await.map(Json)
}

/// How many spacecores.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Scale {
    /// How many there shall be, 0 to 1000.
    replicas: u32,
}

pub(super) async fn scale(State(api): State<Api>, Name(name): Name, Json(scale): Json<Scale>) -> Shown {
    api.ask(|reply| Call::Scale { name, replicas: scale.replicas, reply }).await.map(Json)
}

pub(super) async fn start(State(api): State<Api>, Name(name): Name) -> Shown {
    api.ask(|reply| Call::SetRunning { name, running: true, reply }).await.map(Json)
}

pub(super) async fn stop(State(api): State<Api>, Name(name): Name) -> Shown {
    api.ask(|reply| Call::SetRunning { name, running: false, reply }).await.map(Json)
}

/// What is waited for, and how long.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Until {
    /// `ready` (each spacecore is ready or has completed; the default), `ended` (each has completed or failed), `stopped` or `gone`.
    #[serde(rename = "for")]
    what: Option<String>,
    /// The longest wait in seconds; 60 where nothing is said, at most 3600.
    timeout_s: Option<u32>,
}

/// How long somebody waits who doesn't say.
const PATIENCE_S: u32 = 60;
const LONGEST_S: u32 = 3600;

pub(super) async fn wait(
    State(api): State<Api>,
    Name(name): Name,
    Query(until): Query<Until>,
) -> Result<Json<WaitView>, Problem> {
    let what = until.what.as_deref().unwrap_or("ready");
    let is_there = reached(what).ok_or_else(|| {
        let detail = format!("{what:?} can't be waited for; ready, ended, stopped and gone can");
        Problem::new(StatusCode::BAD_REQUEST, "query", detail)
    })?;
    let patience = Duration::from_secs(until.timeout_s.unwrap_or(PATIENCE_S).min(LONGEST_S).into());
    let end = tokio::time::Instant::now() + patience;
    let mut changes = api.changes.clone();
    loop {
        changes.mark_unchanged();
        let shown = api.ask(|reply| Call::Deployment { name: name.clone(), reply }).await;
        let deployment = match shown {
            Ok(deployment) => deployment,
            Err(problem) if what == "gone" && problem.status == 404 => {
                return Ok(Json(WaitView { reached: true, deployment: None }));
            }
            Err(problem) => return Err(problem),
        };
        let reached = is_there(&deployment);
        let is_taken_back = deployment.wanted_revision != deployment.revision;
        let is_hopeless = what == "ready"
            && (deployment.state == "failed" || (is_taken_back && deployment.state == "running"));
        let reached = reached && !is_hopeless;
        let is_late = tokio::time::Instant::now() >= end;
        if reached || is_hopeless || is_late {
            return Ok(Json(WaitView { reached, deployment: Some(deployment) }));
        }
        // The node tells of every change until it ends; whether it was the one, the next round sees.
        let _ = tokio::time::timeout_at(end, changes.changed()).await;
    }
}

/// Whether a deployment is as it is waited for.
fn reached(what: &str) -> Option<fn(&DeploymentView) -> bool> {
    fn all(deployment: &DeploymentView, phases: &[&str]) -> bool {
        let is_whole =
            usize::try_from(deployment.replicas).is_ok_and(|wanted| wanted == deployment.spacecores.len());
        let is_current = deployment.spacecores.iter().all(|one| one.revision == deployment.wanted_revision);
        is_whole && is_current && deployment.spacecores.iter().all(|one| phases.contains(&one.phase.as_str()))
    }
    match what {
        "ready" => Some(|deployment| all(deployment, &["ready", "completed"])),
        "ended" => Some(|deployment| all(deployment, &["completed", "failed"])),
        "stopped" => Some(|deployment| {
            deployment.state == "stopped"
                && deployment
                    .spacecores
                    .iter()
                    .all(|one| ["halted", "idle", "completed", "failed"].contains(&one.phase.as_str()))
        }),
        "gone" => Some(|_| false),
        _ => None,
    }
}
