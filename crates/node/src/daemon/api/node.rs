//! `GET /v1/node`: the node itself.

use axum::extract::State;
use tokio::task::spawn_blocking;

use super::Api;
use super::problem::{Json, Problem};
use crate::daemon::call::{Call, Refusal};
use crate::daemon::view::NodeView;
use crate::inventory::Inventory;

/// What of a node stays the same as long as it runs.
#[derive(Debug, Clone)]
pub(in crate::daemon) struct Identity {
    /// The version of the program.
    pub(in crate::daemon) version: String,
    /// Its process.
    pub(in crate::daemon) pid: u32,
    /// Since when it runs, in milliseconds since 1970.
    pub(in crate::daemon) since_unix_ms: u64,
    /// Where it keeps everything.
    pub(in crate::daemon) home: String,
}

pub(super) async fn show(State(api): State<Api>) -> Result<Json<NodeView>, Problem> {
    let (offer, allocation) = api.ask(|reply| Call::Capacity { reply }).await?;
    let root = api.home.root().to_owned();
    let read = spawn_blocking(move || Inventory::of_this_machine(&root)).await;
    let inventory = read.map_err(|_| Refusal::Ending)?;
    let Identity { version, pid, since_unix_ms, home } = api.node;
    Ok(Json(NodeView { version, pid, since_unix_ms, home, offer, allocation, inventory }))
}
