//! Deployments: looked at, scaled, stopped, started, waited for, removed.

use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Api;
use super::problem::{Json, Name, Problem, Query};
use crate::daemon::call::Call;
use crate::daemon::view::DeploymentView;

type Shown = Result<Json<DeploymentView>, Problem>;

pub(super) async fn list(State(api): State<Api>) -> Result<Json<Vec<DeploymentView>>, Problem> {
    api.ask(|reply| Call::Deployments { reply }).await.map(Json)
}

pub(super) async fn one(State(api): State<Api>, Name(name): Name) -> Shown {
    api.ask(|reply| Call::Deployment { name, reply }).await.map(Json)
}

/// What goes with a deployment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct What {
    /// Its logs too; also those of a deployment that is gone already.
    #[serde(default)]
    logs: bool,
}

pub(super) async fn remove(State(api): State<Api>, Name(name): Name, Query(what): Query<What>) -> Shown {
    api.ask(|reply| Call::Remove { name, logs: what.logs, reply }).await.map(Json)
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
