//! Single spacecores.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;

use super::Api;
use super::problem::{Json, Name, Problem};
use crate::daemon::call::Call;
use crate::daemon::view::{SpacecoreView, StatsView};

/// How long a guest may take to say what it uses.
const PATIENCE: Duration = Duration::from_secs(5);

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
