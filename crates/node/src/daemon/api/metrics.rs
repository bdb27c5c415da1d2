//! `GET /metrics`: what the node measures.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use super::Api;
use super::problem::Problem;
use crate::daemon::call::Call;
use crate::daemon::metrics::{self, Exposition, Form, Measured};
use crate::daemon::sampler::ask_all;

/// How long all guests together may take to say what they use: a scraper waits for some seconds.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn show(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    let form = Form::accepted(headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()));
    let text = families(&api).await?.text(form);
    Ok(([(header::CONTENT_TYPE, form.content_type())], text).into_response())
}

/// Everything that is measured, at this moment; nothing where the node is ending.
pub(in crate::daemon) async fn now(api: &Api) -> Option<Exposition> {
    families(api).await.ok()
}

async fn families(api: &Api) -> Result<Exposition, Problem> {
    let until = Instant::now() + PATIENCE;
    let (offer, allocation) = api.ask(|reply| Call::Capacity { reply }).await?;
    let deployments = api.ask(|reply| Call::Deployments { reply }).await?;
    let events = api.ask(|reply| Call::EventCounts { reply }).await?;
    let running: Vec<String> = metrics::listed(&deployments)
        .filter(|one| one.phase == "ready" || one.phase == "running")
        .map(|one| one.name.clone())
        .collect();
    let stats = ask_all(&api.tell, &running, until).await;
    Ok(metrics::families(&Measured {
        version: &api.node.version,
        since_unix_ms: api.node.since_unix_ms,
        offer,
        allocation: &allocation,
        deployments: &deployments,
        events: &events,
        silent: running.len().saturating_sub(stats.len()),
        stats: &stats,
        seen: &api.observed.seen(),
        sent: api.sent.as_deref(),
    }))
}
