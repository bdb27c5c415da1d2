//! What can be asked of the node, and why it may say no. The local API is one who asks; a gatekeeper will be another.

use std::collections::BTreeMap;
use std::path::PathBuf;

use spacecore::wire::message::Fetched;
use tokio::sync::oneshot;

use super::difference::Difference;
use super::view::{Allocation, DeploymentView, SpacecoreView, StatsView};
use crate::capacity::{NoRoom, Offer};

/// Whether this can be the name of a deployment or spacecore: small letters, digits and hyphens, at most 80.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=80).contains(&name.len()) && name.bytes().all(is_plain)
}

/// A question with the way for its answer.
pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// Everything that can be asked. An answer means that what was asked is kept, whatever happens to the node afterwards.
#[derive(Debug)]
pub enum Call {
    /// Makes a deployment be as a manifest says: makes it, updates it, or does nothing.
    Apply {
        /// The manifest.
        manifest: Box<hac::Manifest>,
        /// Whether it was said which isolation there is to be.
        names_isolation: bool,
        /// Whether only the answer is wanted.
        dry_run: bool,
        /// Answers with what changes.
        reply: Reply<Applied>,
    },
    /// All deployments.
    Deployments {
        /// Answers in the order of their names.
        reply: Reply<Vec<DeploymentView>>,
    },
    /// One deployment.
    Deployment {
        /// Its name.
        name: String,
        /// Answers with its state.
        reply: Reply<DeploymentView>,
    },
    /// Sets how many spacecores a deployment has.
    Scale {
        /// Its name.
        name: String,
        /// How many; 0 to 1000.
        replicas: u32,
        /// Answers with its state.
        reply: Reply<DeploymentView>,
    },
    /// Has a deployment's spacecores run, or stand still.
    SetRunning {
        /// Its name.
        name: String,
        /// Which of both.
        running: bool,
        /// Answers with its state.
        reply: Reply<DeploymentView>,
    },
    /// Ends spacecores in order and starts them again.
    Restart {
        /// A deployment, or a spacecore.
        name: String,
        /// Answers with the state of each.
        reply: Reply<Vec<SpacecoreView>>,
    },
    /// Ends a deployment and forgets it. Its volumes are kept.
    Remove {
        /// Its name.
        name: String,
        /// Whether its logs are removed too; those of one that is gone already then as well.
        logs: bool,
        /// Answers with its state.
        reply: Reply<DeploymentView>,
    },
    /// One spacecore.
    Spacecore {
        /// Its name.
        name: String,
        /// Answers with its state.
        reply: Reply<SpacecoreView>,
    },
    /// What a spacecore uses.
    Stats {
        /// Its name.
        name: String,
        /// Answers once the guest has.
        reply: Reply<StatsView>,
    },
    /// A page that a spacecore's workload serves about itself.
    Fetch {
        /// The spacecore's name.
        name: String,
        /// The port inside.
        port: u16,
        /// The page's path.
        path: String,
        /// How long it may take, in milliseconds.
        timeout_ms: u64,
        /// Answers once the guest has, or was to.
        reply: Reply<Fetched>,
    },
    /// What the node offers, and who holds how much of it.
    Capacity {
        /// Answers with both.
        reply: Reply<(Offer, Allocation)>,
    },
    /// How many events there were since the node started.
    EventCounts {
        /// Answers with the number of each kind.
        reply: Reply<BTreeMap<String, u64>>,
    },
    /// Where a spacecore's keeper listens.
    Keeper {
        /// The spacecore's name.
        name: String,
        /// Answers with the run folder.
        reply: Reply<PathBuf>,
    },
}

/// What applying a manifest does.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Applied {
    /// The deployment's name.
    pub name: String,
    /// The revision that it has afterwards.
    pub revision: u64,
    /// Whether there was none of this name.
    pub created: bool,
    /// What changes; nothing where it is as the manifest says already.
    pub changes: Vec<Difference>,
    /// Whether this manifest's update has failed before, and is tried once more.
    #[serde(default)]
    pub another_try: bool,
    /// The spacecores that had failed for good and begin anew as they are.
    #[serde(default)]
    pub begun_anew: Vec<String>,
}

/// Why the node doesn't do what is asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such deployment or spacecore.
    #[error("there is no {what} {name:?} on this node{}", near.as_ref().map(|near| format!("; did you mean {near:?}?")).unwrap_or_default())]
    Unknown {
        /// Deployment or spacecore.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// What may have been meant.
        near: Option<String>,
    },
    /// It is a spacecore, and what was asked for is done with all of a deployment.
    #[error(
        "{name} is a spacecore of the deployment {deployment}, and this is done with a whole deployment: name {deployment}, or have this one alone begin anew with: vimana restart {name}"
    )]
    PartOf {
        /// The spacecore.
        name: String,
        /// Its deployment.
        deployment: String,
    },
    /// Its spacecores would have names that others have already.
    #[error(
        "the spacecore {spacecore} of {name} would have the name of a spacecore of {other}; choose another name for one of both"
    )]
    NameTaken {
        /// The deployment that is applied.
        name: String,
        /// The name that is taken.
        spacecore: String,
        /// By whom.
        other: String,
    },
    /// With its number the last of its spacecores would have a name that is too long here.
    #[error(
        "its spacecore {spacecore} would have a name of {} characters, and {longest} are possible under this node's folder; with as many replicas name the deployment {name} with at most {most}",
        spacecore.len()
    )]
    NameTooLong {
        /// The deployment.
        name: String,
        /// The longest name of its spacecores.
        spacecore: String,
        /// How long that may be.
        longest: usize,
        /// How long the deployment's name may be.
        most: usize,
    },
    /// One of its files can't be read.
    #[error(
        "{name} is damaged, and its spacecores are left alone: {reason}. Mend the file and start the node again, or end and forget it with: vimana rm {name}"
    )]
    Damaged {
        /// The deployment.
        name: String,
        /// Which files, and why.
        reason: String,
    },
    /// It is about to be gone.
    #[error("{name} is being removed; try again once it is gone")]
    Removing {
        /// The deployment.
        name: String,
    },
    /// A port of this machine can't be published.
    #[error(
        "the port {port} of this machine can't be published: {reason}; name another in spec.networking.inbound_ports, or free it"
    )]
    Port {
        /// The port.
        port: u16,
        /// Why, and who has it, if that is known.
        reason: String,
    },
    /// What can't be measured can't decide.
    #[error("spec.scaling.metric {metric} can't be measured by this version; cpu, memory and workload can")]
    Metric {
        /// What was asked for.
        metric: hac::model::ScalingMetric,
    },
    /// More than a node holds.
    #[error("{replicas} replicas are more than {most}, the most that a deployment can have on one node")]
    TooMany {
        /// What was asked for.
        replicas: u32,
        /// What can be had.
        most: u32,
    },
    /// What stands still is started, not restarted.
    #[error("{name} is stopped; start it with: vimana start {name}")]
    Stopped {
        /// The deployment.
        name: String,
    },
    /// It doesn't fit into what the node offers.
    #[error("{0}")]
    NoRoom(Box<NoRoom>),
    /// Its keeper is another version's.
    #[error("{name} can't be asked, nor entered: {}", super::notice_of(*protocol))]
    Foreign {
        /// The spacecore.
        name: String,
        /// What version its keeper speaks.
        protocol: u32,
    },
    /// What is asked of it needs it to run.
    #[error("the spacecore {name} isn't running: {phase}")]
    NotRunning {
        /// Its name.
        name: String,
        /// What it does instead.
        phase: String,
    },
    /// It couldn't be kept, so it isn't done.
    #[error("the node can't keep what was asked, so it doesn't do it: {0}")]
    NotKept(String),
    /// The node is ending.
    #[error("the node is ending")]
    Ending,
}
