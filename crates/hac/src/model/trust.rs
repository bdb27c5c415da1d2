//! What others may rely on: security, placement, price, verification, conditions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::units::Amount;
use crate::words::{UnknownWord, words};

words! {
    /// The scheme with which the workload's results are signed.
    pub enum Attestation {
        /// Nothing is signed.
        None = "none",
        /// BLS signatures on BLS12-381, which add up to one.
        Bls = "BLS",
        /// ECDSA on secp256k1.
        Ecdsa = "ECDSA",
        /// Ed25519.
        Ed25519 = "Ed25519",
    }
}

words! {
    /// A mechanism of the host's kernel that confines a process.
    pub enum SecurityModule {
        /// SELinux.
        SELinux = "SELinux",
        /// AppArmor.
        AppArmor = "AppArmor",
        /// A seccomp filter on system calls.
        Seccomp = "seccomp",
    }
}

/// The mechanisms that confine what runs on the host, as in `"enforced via SELinux/AppArmor/seccomp"`.
///
/// Every one that is named is used where the host has it; seccomp is always used, and a host without it is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement(pub BTreeSet<SecurityModule>);

impl Confinement {
    const PREFIX: &str = "enforced via ";

    /// Makes a confinement of these mechanisms and seccomp.
    pub fn new(modules: impl IntoIterator<Item = SecurityModule>) -> Self {
        Self(modules.into_iter().chain([SecurityModule::Seccomp]).collect())
    }
}

impl Default for Confinement {
    fn default() -> Self {
        Self::new([SecurityModule::SELinux, SecurityModule::AppArmor])
    }
}

impl FromStr for Confinement {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let trimmed = text.trim();
        let prefix = trimmed.get(..Self::PREFIX.len());
        let list = match prefix {
            Some(prefix) if prefix.eq_ignore_ascii_case(Self::PREFIX) => &trimmed[Self::PREFIX.len()..],
            _ => trimmed,
        };
        list.split('/').map(|word| word.trim().parse()).collect::<Result<Vec<_>, _>>().map(Self::new)
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(|word| word.as_str()).collect();
        f.pad(&format!("{}{}", Self::PREFIX, words.join("/")))
    }
}

impl Serialize for Confinement {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Confinement {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Confinement".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": generator.subschema_for::<SecurityModule>() },
            ],
        })
    }
}

/// Signature scheme and confinement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Security {
    /// The signature scheme.
    pub attestation: Attestation,
    /// The confinement of what runs on the host.
    pub isolation: Confinement,
}

impl Default for Security {
    fn default() -> Self {
        Self { attestation: Attestation::None, isolation: Confinement::default() }
    }
}

/// Where a spacecore may run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Placement {
    /// The DVCI (region); `None` is the nearest.
    pub dvci: Option<String>,
    /// Attributes that a node must have.
    pub attributes: BTreeMap<String, String>,
    /// The operators that may run it; empty is any.
    pub operators: Vec<String>,
}

/// What a spacecore may cost.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Pricing {
    /// The most that one hour of one replica may cost; `None` is any price.
    pub max_per_hour: Option<Amount>,
}

words! {
    /// A way in which others check what a spacecore did.
    pub enum VerificationMode {
        /// Signed measurements of what was started where.
        Attest = "attest",
        /// Several nodes run it; their results are compared.
        Redundant = "redundant",
        /// A committee of nodes agrees on each result.
        Consensus = "consensus",
        /// Anybody runs it again and gets the same bytes.
        Replay = "replay",
        /// A zero-knowledge proof of the computation.
        Zk = "zk",
        /// Several nodes compute on inputs that none of them sees.
        Mpc = "mpc",
    }
}

/// How others check what a spacecore did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Verification {
    /// The ways that are used.
    pub modes: BTreeSet<VerificationMode>,
    /// How many nodes compute each result.
    pub replicas: u32,
    /// How many of them must agree, at most `replicas`.
    pub quorum: u32,
}

impl Default for Verification {
    fn default() -> Self {
        Self { modes: BTreeSet::new(), replicas: 1, quorum: 1 }
    }
}

words! {
    /// What a condition waits for.
    pub enum ConditionKind {
        /// A time has come.
        Time = "time",
        /// The chain has reached a height.
        Height = "height",
        /// Another environment is active.
        Environment = "environment",
        /// An account holds at least an amount.
        Balance = "balance",
        /// A zApp has given an answer.
        Zapp = "zapp",
    }
}

/// What must hold before a spacecore is provisioned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Condition {
    /// What is waited for.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// For `time`: RFC 3339 in UTC, as in `2026-12-01T00:00:00Z`.
    pub after: Option<String>,
    /// For `height`: the height.
    pub height: Option<u64>,
    /// For `environment`: its name.
    pub environment: Option<String>,
    /// For `balance`: the account.
    pub account: Option<String>,
    /// For `balance`: the amount.
    pub at_least: Option<Amount>,
    /// For `zapp`: its name.
    pub zapp: Option<String>,
    /// For `zapp`: the answer.
    pub answer: Option<String>,
}

impl Default for Condition {
    fn default() -> Self {
        Self {
            kind: ConditionKind::Time,
            after: None,
            height: None,
            environment: None,
            account: None,
            at_least: None,
            zapp: None,
            answer: None,
        }
    }
}
