//! What an image demands of how it is run: settings that travel with it.
//!
//! They are tables of the manifest (`spec.networking.allow_to`, `spec.deployment.readonly_root` and so on), in TOML, YAML or
//! JSON, in the annotation [`KEY`] of the image's manifest or in the label of that name. They only tighten:
//! [`Settings::tighten`] gives a manifest that is never wider than the deployer's nor than the image's.
//!
//! ```
//! let settings = hac::settings::parse("[spec.networking]\nallow_to = [\"203.0.113.0/24:443\"]\n")?;
//! let manifest = hac::Manifest::from_image("ghcr.io/acme/app:1");
//! let tightened = settings.tighten(&manifest)?;
//! assert_eq!(tightened.manifest.spec.networking.allow_to, ["203.0.113.0/24:443".parse()?]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use serde::Serialize;

use crate::decode::{Context, Decode};
use crate::diagnostic::{Code, Diagnostic, Diagnostics, LineIndex, Span};
use crate::model::{ApiVersion, Confinement, Isolation, Level, Manifest, NetworkType, Networking};
use crate::peer::Peer;
use crate::tree::{self, Format};
use crate::units::BitRate;
use crate::validate;

/// The annotation or label that has an image's settings.
pub const KEY: &str = "dev.vimana.settings";
/// The longest text that is read, in bytes.
pub const LONGEST: usize = 64 << 10;
/// The most entries of a list of peers.
const MOST_PEERS: usize = 256;
/// The most entries that two lists may have in common.
const MOST_COMMON: usize = 1024;

/// What an image demands. The default demands nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Settings {
    /// The version of the manifest's language.
    #[serde(rename = "apiVersion", skip_serializing_if = "Option::is_none")]
    pub api_version: Option<ApiVersion>,
    /// The tables.
    pub spec: SettingsSpec,
}

/// The tables of an image's settings; each key means what it means in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SettingsSpec {
    /// The user, and the root file system.
    pub deployment: DeploymentSettings,
    /// The isolation.
    pub virtualization: VirtualizationSettings,
    /// Whom it reaches, who reaches it, how fast.
    pub networking: NetworkingSettings,
    /// What confines it on the host.
    pub security: SecuritySettings,
}

/// `spec.deployment` of an image's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct DeploymentSettings {
    /// Who it must run as, and never root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether the workload must not be able to write to its root.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub readonly_root: bool,
}

/// `spec.virtualization` of an image's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct VirtualizationSettings {
    /// The one isolation that it may run in.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// What is demanded of it.
    pub criteria: CriteriaSettings,
}

/// `spec.virtualization.criteria` of an image's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CriteriaSettings {
    /// The least security.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<Level>,
}

/// `spec.networking` of an image's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct NetworkingSettings {
    /// The widest network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_type: Option<NetworkType>,
    /// Whom it may reach at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_to: Option<Vec<Peer>>,
    /// Who may reach it at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_from: Option<Vec<Peer>>,
    /// The most traffic in each direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth_limit: Option<BitRate>,
    /// The most incoming traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<BitRate>,
    /// The most outgoing traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<BitRate>,
}

/// `spec.security` of an image's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SecuritySettings {
    /// What must confine it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Confinement>,
}

/// A manifest as an image's settings leave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Tightened {
    /// The manifest.
    pub manifest: Manifest,
    /// What the settings changed in it, each with its key, for people.
    pub changes: Vec<String>,
}

/// An image's demand that a manifest says the opposite of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{key}: the image demands {demanded} and {asked} is asked for; {}",
    match *key {
        USER | ISOLATION => "ask for the same, or use another image",
        _ => "the two have nothing in common",
    }
)]
pub struct Contradiction {
    /// The manifest's key.
    pub key: &'static str,
    /// What the image says.
    pub demanded: String,
    /// What the manifest says.
    pub asked: String,
}

const USER: &str = "spec.deployment.user";
const ISOLATION: &str = "spec.virtualization.type";
const ALLOW_TO: &str = "spec.networking.allow_to";
const ALLOW_FROM: &str = "spec.networking.allow_from";

/// Reads an image's settings; TOML, YAML and JSON are told apart by how the text begins.
///
/// # Errors
/// Everything that is wrong, at once. Keys of the manifest that an image can't set are wrong too.
pub fn parse(source: &str) -> Result<Settings, Diagnostics> {
    if source.len() > LONGEST {
        let message = format!("the settings have {} bytes, and at most {LONGEST} are read", source.len());
        return Err(Diagnostics(vec![Diagnostic {
            code: Code::Value,
            message,
            help: None,
            key: None,
            span: Some(Span { line: 1, column: 1, start: 0, end: 0 }),
            related: Vec::new(),
        }]));
    }
    let root = tree::read(source, Format::from_content(source))
        .map_err(|error| Diagnostics(vec![error.into_diagnostic(&LineIndex::new(source))]))?;
    let mut context = Context::of("the settings", Some(source), |_| None);
    let settings = Settings::decode(&root, "", &mut context).unwrap_or_default();
    check(&settings, &mut context);
    context.finish().map(|()| settings)
}

fn check(settings: &Settings, context: &mut Context<'_>) {
    if settings.spec.deployment.user.as_deref().is_some_and(is_root) {
        let help = "name a user that isn't root, such as user = \"1000\"".to_owned();
        context.conflict(&[USER], "settings only tighten, and root may do everything", help);
    }
    let networking = &settings.spec.networking;
    for (key, list) in [(ALLOW_TO, &networking.allow_to), (ALLOW_FROM, &networking.allow_from)] {
        let count = list.as_ref().map_or(0, Vec::len);
        if count > MOST_PEERS {
            let message = format!("`{key}` has {count} entries, and at most {MOST_PEERS} are read");
            context.conflict(&[key], message, "name networks instead of addresses".to_owned());
        }
    }
    // What must hold of them in a manifest must hold here.
    let as_manifest = Networking {
        bandwidth_limit: networking.bandwidth_limit,
        ingress: networking.ingress,
        egress: networking.egress,
        allow_from: networking.allow_from.clone().unwrap_or_default(),
        ..Networking::default()
    };
    validate::networking(&as_manifest, context);
}

/// Tells whether a user, as manifests name it, is the superuser.
fn is_root(user: &str) -> bool {
    let name = user.split(':').next().unwrap_or_default().trim();
    name.is_empty() || name == "root" || name.parse::<u64>() == Ok(0)
}

impl Settings {
    /// Gives what an author puts into an annotation or a label: JSON, in one line.
    #[must_use]
    pub fn to_line(&self) -> String {
        fn pruned(value: serde_json::Value) -> Option<serde_json::Value> {
            match value {
                serde_json::Value::Object(map) => {
                    let map: serde_json::Map<_, _> =
                        map.into_iter().filter_map(|(key, value)| Some((key, pruned(value)?))).collect();
                    (!map.is_empty()).then_some(map.into())
                }
                other => Some(other),
            }
        }
        let value = serde_json::to_value(self).unwrap_or_default();
        pruned(value).map_or_else(|| "{}".to_owned(), |value| value.to_string())
    }

    /// Gives each demand as a line for people: a key of the manifest and its value.
    #[must_use]
    pub fn demands(&self) -> Vec<String> {
        fn collect(path: &str, value: &serde_json::Value, demands: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(map) => {
                    for (key, value) in map {
                        collect(&crate::decode::join(path, key), value, demands);
                    }
                }
                value => demands.push(format!("{path} = {value}")),
            }
        }
        let mut demands = Vec::new();
        collect("", &serde_json::to_value(self).unwrap_or_default(), &mut demands);
        demands
    }

    /// Applies the settings to a manifest. What is a list or a limit becomes what both allow; what can't be both is an error.
    ///
    /// # Errors
    /// [`Contradiction`], with both sides: another user or isolation, or lists with nothing in common.
    pub fn tighten(&self, manifest: &Manifest) -> Result<Tightened, Contradiction> {
        let mut tightened = Tightened { manifest: manifest.clone(), changes: Vec::new() };
        tightened.deployment(&self.spec.deployment)?;
        tightened.virtualization(&self.spec.virtualization)?;
        tightened.networking(&self.spec.networking)?;
        if let Some(demanded) = &self.spec.security.isolation {
            let confinement = &mut tightened.manifest.spec.security.isolation;
            let both = Confinement::new(confinement.0.union(&demanded.0).copied());
            if both != *confinement {
                tightened
                    .changes
                    .push(format!("spec.security.isolation = \"{both}\" (was \"{confinement}\")"));
                *confinement = both;
            }
        }
        Ok(tightened)
    }
}

impl Tightened {
    fn deployment(&mut self, settings: &DeploymentSettings) -> Result<(), Contradiction> {
        let deployment = &mut self.manifest.spec.deployment;
        if settings.readonly_root && !deployment.readonly_root {
            deployment.readonly_root = true;
            self.changes.push("spec.deployment.readonly_root = true (was false)".to_owned());
        }
        match (&settings.user, &deployment.user) {
            (Some(demanded), Some(asked)) if demanded != asked => Err(Contradiction {
                key: USER,
                demanded: format!("{demanded:?}"),
                asked: format!("{asked:?}"),
            }),
            (Some(demanded), None) => {
                self.changes.push(format!("{USER} = {demanded:?} (was the image's)"));
                deployment.user = Some(demanded.clone());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn virtualization(&mut self, settings: &VirtualizationSettings) -> Result<(), Contradiction> {
        let virtualization = &mut self.manifest.spec.virtualization;
        if let Some(demanded) = settings.isolation
            && demanded != virtualization.isolation
        {
            return Err(Contradiction {
                key: ISOLATION,
                demanded: demanded.to_string(),
                asked: virtualization.isolation.to_string(),
            });
        }
        let security = &mut virtualization.criteria.security;
        if settings.criteria.security > Some(*security) {
            self.changes
                .push("spec.virtualization.criteria.security = \"high\" (was \"standard\")".to_owned());
            *security = Level::High;
        }
        Ok(())
    }

    fn networking(&mut self, settings: &NetworkingSettings) -> Result<(), Contradiction> {
        let networking = &mut self.manifest.spec.networking;
        if let Some(demanded) = settings.network_type.filter(|demanded| *demanded > networking.network_type) {
            let was = networking.network_type;
            self.changes.push(format!("spec.networking.network_type = \"{demanded}\" (was \"{was}\")"));
            networking.network_type = demanded;
        }
        let limit = settings.bandwidth_limit;
        // A limit for both directions holds where a direction has none of its own.
        let rates = [
            ("bandwidth_limit", networking.bandwidth_limit, limit),
            ("ingress", networking.ingress.or(networking.bandwidth_limit), settings.ingress.or(limit)),
            ("egress", networking.egress.or(networking.bandwidth_limit), settings.egress.or(limit)),
        ]
        .map(|(key, asked, demanded)| {
            let least = match (asked, demanded) {
                (Some(asked), Some(demanded)) => Some(asked.min(demanded)),
                (asked, demanded) => asked.or(demanded),
            };
            if let Some(least) = least.filter(|_| least != asked) {
                let was = asked.map_or("without limit".to_owned(), |rate| format!("\"{rate}\""));
                self.changes.push(format!("spec.networking.{key} = \"{least}\" (was {was})"));
            }
            least
        });
        [networking.bandwidth_limit, networking.ingress, networking.egress] = rates;
        let lists = [
            (ALLOW_TO, &mut networking.allow_to, &settings.allow_to),
            (ALLOW_FROM, &mut networking.allow_from, &settings.allow_from),
        ];
        for (key, asked, demanded) in lists {
            let Some(demanded) = demanded else { continue };
            let both = common(demanded, asked);
            // Who reaches nobody anyway contradicts nothing.
            if (both.is_empty() && !asked.is_empty() && !demanded.is_empty()) || both.len() > MOST_COMMON {
                return Err(Contradiction { key, demanded: listed(demanded), asked: listed(asked) });
            }
            if both != *asked {
                self.changes.push(format!("{key} = {} (was {})", listed(&both), listed(asked)));
                *asked = both;
            }
        }
        Ok(())
    }
}

/// What two lists both allow, in the first one's order, each once.
fn common(first: &[Peer], second: &[Peer]) -> Vec<Peer> {
    let mut both: Vec<Peer> = Vec::new();
    for peer in first {
        for peer in second.iter().flat_map(|other| peer.both(other)) {
            if both.len() <= MOST_COMMON && !both.contains(&peer) {
                both.push(peer);
            }
        }
    }
    both
}

fn listed(peers: &[Peer]) -> String {
    let shown: Vec<String> = peers.iter().take(8).map(ToString::to_string).collect();
    let more = if peers.len() > shown.len() { ", ..." } else { "" };
    format!("[{}{more}]", shown.join(", "))
}

#[cfg(test)]
mod tests;
