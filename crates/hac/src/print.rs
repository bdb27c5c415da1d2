//! The model as text again, in the newest version, without what equals its default.

mod toml;
mod yaml;

use serde_json::{Map, Value};

use crate::model::{Accelerator, Check, Condition, Manifest, Mount, Sidecar};
use crate::preset;

/// Prints a manifest as TOML. Reading it back gives an equal manifest.
pub fn to_toml(manifest: &Manifest) -> String {
    toml::print(&essence(manifest))
}

/// Prints a manifest as YAML. Reading it back gives an equal manifest.
pub fn to_yaml(manifest: &Manifest) -> String {
    yaml::print(&essence(manifest))
}

/// Keys that are written even if they are at their default: what a reader looks for first.
const ALWAYS: [&str; 6] =
    [".apiVersion", ".kind", ".metadata", ".metadata.name", ".spec.deployment", ".spec.deployment.image"];

/// Gives what a manifest says beyond the defaults, in the order of the model.
fn essence(manifest: &Manifest) -> Map<String, Value> {
    let full = tree(manifest);
    let defaults = tree(preset::defaults_beside(manifest));
    match beyond(&full, &defaults, "") {
        Some(Value::Object(table)) => table,
        _ => Map::new(),
    }
}

/// Serialises to a tree. The model's types can't fail to.
fn tree(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// Gives what `value` says beyond `default`; `None` if that is nothing.
fn beyond(value: &Value, default: &Value, path: &str) -> Option<Value> {
    if value.is_null() {
        return None;
    }
    match value {
        Value::Object(table) => {
            let mut kept = Map::new();
            for (key, value) in table {
                let default = default.get(key).unwrap_or(&Value::Null);
                if let Some(value) = beyond(value, default, &format!("{path}.{key}")) {
                    kept.insert(key.clone(), value);
                }
            }
            // An empty `spec.scaling` says that there is scaling.
            let says_something = !kept.is_empty() || path == ".spec.scaling" || ALWAYS.contains(&path);
            says_something.then_some(Value::Object(kept))
        }
        Value::Array(items) if value != default => {
            let element = element_default(path);
            let items = items.iter().map(|item| match (&element, item) {
                (Some(default), Value::Object(_)) => {
                    beyond(item, default, "[]").unwrap_or_else(|| Value::Object(Map::new()))
                }
                _ => item.clone(),
            });
            Some(Value::Array(items.collect()))
        }
        _ => (value != default || ALWAYS.contains(&path)).then(|| value.clone()),
    }
}

/// Gives the default of the items of a list of tables, without the key that says what an item is.
fn element_default(path: &str) -> Option<Value> {
    let mut default = match path {
        ".spec.mounts" => tree(Mount::default()),
        ".spec.checks" => tree(Check::default()),
        ".spec.sidecars" => tree(Sidecar::default()),
        ".spec.conditions" => tree(Condition::default()),
        ".spec.resources.accelerators" => tree(Accelerator::default()),
        _ => return None,
    };
    if let Value::Object(table) = &mut default {
        for key in ["type", "kind", "name", "destination", "image"] {
            table.shift_remove(key);
        }
    }
    Some(default)
}
