//! Single spacecores.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::time::Instant;

use super::Api;
use super::problem::{Json, Name, Problem};
use crate::daemon::call::Call;
use crate::daemon::sampler::ask_all;
use crate::daemon::view::{SpacecoreView, StatsView};

/// How long a guest may take to say what it uses.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long all guests together may take.
const ALL_PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn one(State(api): State<Api>, Name(name): Name) -> Result<Json<SpacecoreView>, Problem> {
    api.ask(|reply| Call::Spacecore { name, reply }).await.map(Json)
}

pub(super) async fn restart(
    State(api): State<Api>,
    Name(name): Name,
) -> Result<Json<Vec<SpacecoreView>>, Problem> {
    api.ask(|reply| Call::Restart { name, reply }).await.map(Json)
}

pub(super) async fn stats(State(api): State<Api>, Name(name): Name) -> Result<Json<StatsView>, Problem> {
    let silent = format!("{name} didn't say within {} s what it uses", PATIENCE.as_secs());
    let answer = tokio::time::timeout(PATIENCE, api.ask(|reply| Call::Stats { name, reply })).await;
    answer.map_err(|_| Problem::new(StatusCode::GATEWAY_TIMEOUT, "silent", silent))?.map(Json)
}

pub(super) async fn all_stats(State(api): State<Api>) -> Result<Json<Vec<StatsView>>, Problem> {
    let until = Instant::now() + ALL_PATIENCE;
    let deployments = api.ask(|reply| Call::Deployments { reply }).await?;
    let all = deployments.iter().flat_map(|deployment| &deployment.spacecores);
    let running: Vec<String> = all
        .filter(|one| one.phase == "ready" || one.phase == "running")
        .map(|one| one.name.clone())
        .collect();
    Ok(Json(ask_all(&api.tell, &running, until).await.into_values().collect()))
}
