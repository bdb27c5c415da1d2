//! The local API: HTTP with JSON over a unix socket that its owner alone can open.
//!
//! Each endpoint is one line in [`endpoints`]: what serves it and what describes it stand together, so that the document that
//! `GET /v1/openapi.json` gives can't differ from what is served. Errors are problem documents (RFC 9457). What takes long streams.

mod apply;
mod deployments;
mod keeper;
pub(super) mod metrics;
mod node;
mod openapi;
mod problem;
mod spacecores;
mod streams;
mod wait;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, delete, get, post, put};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{oneshot, watch};

pub use self::keeper::PROTOCOL_HEADER;
pub(super) use self::node::Identity;
use self::openapi::Endpoint;
use self::problem::{Json, Problem};
pub(super) use self::problem::{no_place, too_many};
use super::call::{Applied, Call, Refusal, Reply};
use super::core::Happening;
use super::metrics::CONTENT_TYPE;
use super::observer::Observed;
use super::record::Records;
use super::telemetry::Sent;
use super::view::{DeploymentView, Event, NodeView, SpacecoreView, StatsView, WaitView};
use crate::home::Home;

/// What every endpoint can use.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) home: Home,
    pub(super) records: Records,
    pub(super) tell: UnboundedSender<Happening>,
    pub(super) changes: watch::Receiver<u64>,
    pub(super) node: Identity,
    pub(super) observed: Observed,
    /// What was sent to a collector, if there is one.
    pub(super) sent: Option<Arc<Sent>>,
}

impl Api {
    /// Asks the node.
    async fn ask<T>(&self, call: impl FnOnce(Reply<T>) -> Call) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        let asked = self.tell.send(Happening::Call(call(reply)));
        asked.map_err(|_| Refusal::Ending)?;
        Ok(answer.await.map_err(|_| Refusal::Ending)??)
    }
}

/// Every endpoint, with what describes it.
fn endpoints() -> Vec<Endpoint> {
    let of = |method, path, router: MethodRouter<Api>| Endpoint::new(method, path, router);
    vec![
        of("get", "/v1/node", get(node::show))
            .says("Says which node this is, what its machine has, what it offers and who holds how much of it")
            .gives::<NodeView>(),
        of("get", "/v1/deployments", get(deployments::list))
            .says("Lists all deployments")
            .gives::<Vec<DeploymentView>>(),
        of("get", "/v1/deployments/{name}", get(deployments::one))
            .says("Shows one deployment")
            .gives::<DeploymentView>(),
        of("put", "/v1/deployments/{name}", put(apply::apply))
            .says("Makes a deployment be as a manifest says; answers once that is kept")
            .asks::<apply::How>()
            .takes_manifest()
            .gives::<Applied>(),
        of("delete", "/v1/deployments/{name}", delete(deployments::remove))
            .says("Ends a deployment in order and forgets it; its volumes are kept, and its logs unless they are to go too")
            .asks::<deployments::What>()
            .gives::<DeploymentView>(),
        of("post", "/v1/deployments/{name}/scale", post(deployments::scale))
            .says("Sets how many spacecores a deployment has")
            .takes::<deployments::Scale>()
            .gives::<DeploymentView>(),
        of("post", "/v1/deployments/{name}/start", post(deployments::start))
            .says("Has a deployment run that was stopped")
            .gives::<DeploymentView>(),
        of("post", "/v1/deployments/{name}/stop", post(deployments::stop))
            .says("Ends a deployment's spacecores in order and keeps them for a start")
            .gives::<DeploymentView>(),
        of("get", "/v1/deployments/{name}/wait", get(wait::wait))
            .says("Answers once a deployment is as it is waited for, or can't become it any more")
            .asks::<wait::Until>()
            .gives::<WaitView>(),
        of("get", "/v1/stats", get(spacecores::all_stats))
            .says("Says what all spacecores use that say so within 2 s")
            .gives::<Vec<StatsView>>(),
        of("get", "/v1/spacecores/{name}", get(spacecores::one))
            .says("Shows one spacecore")
            .gives::<SpacecoreView>(),
        of("post", "/v1/spacecores/{name}/restart", post(spacecores::restart))
            .says("Ends a spacecore, or all of a deployment, in order and starts it again")
            .gives::<Vec<SpacecoreView>>(),
        of("get", "/v1/spacecores/{name}/stats", get(spacecores::stats))
            .says("Says what a spacecore uses")
            .gives::<StatsView>(),
        of("get", "/v1/spacecores/{name}/logs", get(streams::logs))
            .says("Streams a spacecore's output, each line with time, stream and F (a whole line) or P (a part of one) before it")
            .asks::<streams::Which>()
            .streams("text/plain"),
        of("post", "/v1/spacecores/{name}/keeper", post(keeper::connect))
            .says("Becomes a connection to the spacecore's keeper (Upgrade: vimana-keeper)")
            .upgrades(),
        of("get", "/v1/events", get(streams::events))
            .says("Streams what has happened, one event in JSON on each line")
            .asks::<streams::Since>()
            .streams_each::<Event>("application/x-ndjson"),
        of("get", "/metrics", get(metrics::show))
            .says("Says what the node measures, as OpenMetrics text; waits at most 2 s for what guests say")
            .streams(CONTENT_TYPE),
    ]
}

/// The router of all endpoints.
pub(super) fn router(api: Api) -> Router {
    let document = openapi::document(&endpoints());
    let mut router = Router::new().route("/v1/openapi.json", get(|| async { Json(document) }));
    for endpoint in endpoints() {
        router = router.route(endpoint.path, endpoint.router);
    }
    router.fallback(problem::nothing_here).method_not_allowed_fallback(problem::not_that_way).with_state(api)
}

/// The document that describes the API.
#[must_use]
pub fn openapi() -> serde_json::Value {
    openapi::document(&endpoints())
}
