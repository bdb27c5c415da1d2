//! What a node says at one moment.

use std::collections::BTreeMap;
use std::time::Instant;

use node::daemon::view::{DeploymentView, NodeView, StatsView};

use crate::client::Client;

/// A node at one moment.
#[derive(Debug, Clone)]
pub struct Reading {
    /// When it was read.
    pub at: Instant,
    /// The wall clock then, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The node.
    pub node: NodeView,
    /// What runs there.
    pub deployments: Vec<DeploymentView>,
    /// What those spacecores use that said so, by name.
    pub stats: BTreeMap<String, StatsView>,
}

/// Reads it.
///
/// # Errors
/// No node runs there.
pub fn read(client: &Client) -> anyhow::Result<Reading> {
    let node = client.get("/v1/node")?;
    let deployments = client.get("/v1/deployments")?;
    let stats: Vec<StatsView> = client.get("/v1/stats")?;
    Ok(Reading {
        // The counters are from now: guests may have taken a while to answer.
        at: Instant::now(),
        unix_ms: node::clock::unix_time_ns() / 1_000_000,
        node,
        deployments,
        stats: stats.into_iter().map(|one| (one.name.clone(), one)).collect(),
    })
}
