//! What Node.js and Composer write, which is JSON.

use serde_json::{Map, Value};

use super::Record;

const NO_JSON: &str = "it isn't JSON, or is nested too deep";
const TOO_DEEP: &str = "its dependencies are nested too deep";

/// How deep the dependencies of an old lock file may be nested.
const MOST_DEPTH: usize = 64;

fn read(bytes: &[u8]) -> Result<Value, &'static str> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice(bytes).map_err(|_| NO_JSON)
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key)?.as_str()
}

/// An installed package's own `package.json`; one without name or version is no package.
pub(super) fn node_package(bytes: &[u8]) -> Result<Vec<Record>, &'static str> {
    let value = read(bytes)?;
    let package = text(&value, "name").zip(text(&value, "version"));
    Ok(package.map(|(name, version)| Record::new(name, version)).into_iter().collect())
}

/// `package-lock.json` of any version: "packages" by their folder, or "dependencies" within one another.
pub(super) fn node_lock(bytes: &[u8]) -> Result<Vec<Record>, &'static str> {
    let value = read(bytes)?;
    let mut records = Vec::new();
    if let Some(Value::Object(packages)) = value.get("packages") {
        for (folder, package) in packages {
            let Some((_, name)) = folder.rsplit_once("node_modules/") else { continue };
            // An alias has its real name inside.
            let name = text(package, "name").unwrap_or(name);
            records.extend(text(package, "version").map(|version| Record::new(name, version)));
        }
    } else if let Some(Value::Object(dependencies)) = value.get("dependencies") {
        node_dependencies(dependencies, MOST_DEPTH, &mut records)?;
    }
    Ok(records)
}

fn node_dependencies(
    dependencies: &Map<String, Value>,
    depth: usize,
    to: &mut Vec<Record>,
) -> Result<(), &'static str> {
    for (name, package) in dependencies {
        let version = text(package, "version").unwrap_or_default();
        match version.strip_prefix("npm:").and_then(|alias| alias.rsplit_once('@')) {
            Some((name, version)) => to.push(Record::new(name, version)),
            // What comes from elsewhere has an address here.
            None if version.starts_with(|c: char| c.is_ascii_digit()) => to.push(Record::new(name, version)),
            None => {}
        }
        if let Some(Value::Object(inner)) = package.get("dependencies") {
            node_dependencies(inner, depth.checked_sub(1).ok_or(TOO_DEEP)?, to)?;
        }
    }
    Ok(())
}

/// `composer.lock`, and `installed.json` of both of Composer's generations.
pub(super) fn composer(bytes: &[u8]) -> Result<Vec<Record>, &'static str> {
    let value = read(bytes)?;
    let lists = match &value {
        Value::Array(_) => vec![&value],
        _ => ["packages", "packages-dev"].iter().filter_map(|key| value.get(key)).collect(),
    };
    let packages = lists.into_iter().filter_map(Value::as_array).flatten();
    let record = |package: &Value| {
        let (name, version) = text(package, "name").zip(text(package, "version"))?;
        Some(Record::new(name.to_ascii_lowercase(), version))
    };
    Ok(packages.filter_map(record).collect())
}
