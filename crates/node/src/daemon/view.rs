//! What the node shows of itself.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::capacity::{Claim, Holder, Offer};
use crate::inventory::Inventory;

/// A deployment, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentView {
    /// Its name.
    pub name: String,
    /// The image's name.
    pub image: String,
    /// The isolation of its spacecores.
    pub isolation: String,
    /// The newest revision.
    pub revision: u64,
    /// The revision that its spacecores are to have; an older one after an update was reverted.
    pub wanted_revision: u64,
    /// How many spacecores there shall be.
    pub replicas: u32,
    /// How many are ready.
    pub ready: u32,
    /// In a word: `starting`, `running`, `updating`, `stopped`, `completed`, `failed`, `removing`, `gone`, or `damaged` where one of its files
    /// can't be read.
    pub state: String,
    /// Why the last update was taken back or stopped, if it was; or what can't be read.
    pub trouble: Option<String>,
    /// Where its ports are published, for all its spacecores together.
    pub ports: Vec<String>,
    /// Its spacecores, in the order of their numbers.
    pub spacecores: Vec<SpacecoreView>,
}

/// A spacecore, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SpacecoreView {
    /// Its name.
    pub name: String,
    /// Its deployment's.
    pub deployment: String,
    /// Its number in the deployment, from 0.
    pub index: u32,
    /// The revision that it runs.
    pub revision: u64,
    /// Where it stands: `idle`, `starting`, `running`, `ready`, `waiting`, `stopping`, `completed`, `failed` or `halted`; `damaged` where
    /// that can't be told, as a file of its deployment can't be read.
    pub phase: String,
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// How often it was started.
    pub attempts: u64,
    /// How often it was started again after a failure.
    pub restarts: u32,
    /// How its last attempt ended, if one has.
    pub last_end: Option<String>,
    /// The exit code that a shell would see of its last attempt, if its workload ended by itself; 124 if it took longer than its
    /// deadline.
    pub exit_code: Option<u8>,
    /// How long the workload of its last attempt ran, in milliseconds, if it ran at all.
    #[serde(default)]
    pub ran_ms: Option<u64>,
    /// What its checks say, where one doesn't pass.
    pub unhealthy: Option<String>,
    /// The digest of the image that it runs, or ran last.
    pub image_digest: Option<String>,
    /// Where its ports are published, together with those of its deployment's others.
    pub ports: Vec<String>,
    /// What else there is to know of it, for people.
    #[serde(default)]
    pub notice: Option<String>,
}

/// What waiting for a deployment has given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitView {
    /// Whether the deployment is as it was waited for.
    pub reached: bool,
    /// What came of it.
    pub outcome: Outcome,
    /// The deployment as it is now; nothing where it is gone.
    pub deployment: Option<DeploymentView>,
}

/// What came of waiting for a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is as it was waited for.
    Reached,
    /// It can't become so any more, unless somebody does something.
    Failed,
    /// It isn't so yet.
    Late,
    /// The revision that was waited for isn't wanted any more: another one was applied meanwhile.
    Superseded,
    /// The deployment was removed meanwhile.
    Gone,
}

/// What a spacecore uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatsView {
    /// The spacecore's name.
    pub name: String,
    /// Memory of the guest in bytes, by its own word.
    pub guest_memory_total: u64,
    /// What of it is free for use, by its own word.
    pub guest_memory_available: u64,
    /// Time that its processes have computed, in microseconds, by its own word.
    pub guest_cpu_us: u64,
    /// Its processes, by its own word.
    pub guest_processes: u32,
    /// Bytes that it has received, by its own word.
    pub network_received: u64,
    /// Bytes that it has sent, by its own word.
    pub network_sent: u64,
    /// Memory in bytes that this machine spends on it: that of its monitor's process, of its control group, or of the process that
    /// runs it if it is a Wasm program. 0 where that can't be told.
    pub resident: u64,
    /// Time that this machine has computed for it, in microseconds.
    pub cpu_us: u64,
    /// Bytes that it was sent, as this machine has counted them; nothing where it has no network.
    #[serde(default)]
    pub seen_received: Option<u64>,
    /// Bytes that it has sent, as this machine has counted them.
    #[serde(default)]
    pub seen_sent: Option<u64>,
    /// Packets of it that its network policy has refused.
    #[serde(default)]
    pub refused: Option<u64>,
}

/// Something that has happened on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Counts from 1, without a gap.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What kind of thing: a word such as `started`, `ended`, `applied`.
    pub kind: String,
    /// The deployment that it concerns.
    pub deployment: Option<String>,
    /// The spacecore that it concerns.
    pub spacecore: Option<String>,
    /// What happened, for people.
    pub text: String,
    /// The numbers behind it, by what they are, where there are any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub evidence: BTreeMap<String, u64>,
}

/// The node itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeView {
    /// The version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since when it runs, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Where it keeps everything.
    pub home: String,
    /// What of the machine it offers to spacecores.
    pub offer: Offer,
    /// Who holds how much of that.
    pub allocation: Allocation,
    /// What the machine has.
    pub inventory: Inventory,
}

/// Who holds how much of what a node offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Allocation {
    /// All together.
    pub total: Claim,
    /// Each deployment, in the order of their names.
    pub deployments: Vec<Holder>,
}
