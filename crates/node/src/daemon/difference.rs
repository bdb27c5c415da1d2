//! What applying a manifest changes, key by key, and how much of the deployment that concerns.

use hac::Manifest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Keys that concern the node alone: what runs needn't be replaced for them.
const IN_PLACE: [&str; 7] = [
    "metadata.labels",
    "spec.deployment.replicas",
    "spec.restart",
    "spec.failover",
    "spec.update",
    "spec.scaling",
    "spec.observability",
];

/// Keys whose values nobody should find in a terminal's history.
const SECRET: [&str; 2] = ["spec.deployment.env", "spec.sidecars"];

/// One key that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Difference {
    /// Its path, such as `spec.deployment.image`.
    pub key: String,
    /// What it is now; nothing where it isn't set, or may be a secret.
    pub from: Option<String>,
    /// What it becomes; nothing where it isn't set any more, or may be a secret.
    pub to: Option<String>,
    /// Whether each spacecore is replaced for it.
    pub replaces: bool,
}

/// The keys in which two manifests differ, in their order.
#[must_use]
pub fn differences(old: &Manifest, new: &Manifest) -> Vec<Difference> {
    let mut found = Vec::new();
    let tree = |manifest| serde_json::to_value(manifest).unwrap_or(Value::Null);
    compare("", &tree(old), &tree(new), &mut found);
    found
}

fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<Difference>) {
    if old == new {
        return;
    }
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    if let (Value::Object(old), Value::Object(new)) = (old, new) {
        let mut keys: Vec<&String> =
            old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))).collect();
        keys.sort();
        for key in keys {
            let there =
                |table: &serde_json::Map<String, Value>| table.get(key).cloned().unwrap_or(Value::Null);
            compare(&below(key), &there(old), &there(new), found);
        }
        return;
    }
    let within = |keys: &[&str]| {
        keys.iter()
            .any(|key| path == *key || path.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    };
    let is_secret = within(&SECRET);
    let shown = |value: &Value| match value {
        Value::Null => None,
        _ if is_secret => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    found.push(Difference {
        key: path.to_owned(),
        from: shown(old),
        to: shown(new),
        replaces: !within(&IN_PLACE),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Manifest {
        hac::parse(&format!("[spec.deployment]\nimage = \"a\"\n{text}"), hac::Format::Toml).unwrap()
    }

    fn keys(old: &str, new: &str) -> Vec<(String, bool)> {
        differences(&manifest(old), &manifest(new))
            .into_iter()
            .map(|found| (found.key, found.replaces))
            .collect()
    }

    #[test]
    fn the_same_manifest_changes_nothing() {
        assert_eq!(keys("args = [\"x\"]", "args = [\"x\"]"), []);
    }

    #[test]
    fn what_concerns_the_node_alone_replaces_nothing() {
        assert_eq!(keys("", "replicas = 3"), [("spec.deployment.replicas".to_owned(), false)]);
        let restart = keys("", "[spec.restart]\npolicy = \"always\"");
        assert!(!restart.is_empty() && restart.iter().all(|(_, replaces)| !replaces), "{restart:?}");
        assert_eq!(keys("", "args = [\"x\"]"), [("spec.deployment.args".to_owned(), true)]);
    }

    #[test]
    fn a_variable_s_value_is_never_shown() {
        let found = differences(&manifest(""), &manifest("env = { TOKEN = \"hunter2\" }"));
        assert_eq!(found.len(), 1);
        assert!(found[0].key.ends_with("env.TOKEN") && found[0].replaces, "{found:?}");
        assert!(!serde_json::to_string(&found).unwrap().contains("hunter2"));
    }
}
