//! Compose files, as the compose specification describes them (<https://github.com/compose-spec/compose-spec>).

mod deploy;
mod health;
mod ports;
mod service;
mod storage;
mod unsupported;

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, Labels};
use super::reader::{At, Fields, Reader};
use super::{Options, mentions};
use crate::tree::{Node, Value};
use crate::validate::not_a_dns_label;

/// What the services of a file have in common.
struct Shared<'n, 'o> {
    options: &'o Options,
    /// The names that the services get.
    labels: Labels,
    services: Vec<String>,
    volumes: BTreeMap<String, At<'n>>,
    secrets: BTreeMap<String, At<'n>>,
    configs: BTreeMap<String, At<'n>>,
    volume_labels: Labels,
    /// The services that mount each volume, and the first place where one does.
    volume_users: BTreeMap<String, (Vec<String>, At<'n>)>,
    /// The secrets and configs that a service names.
    used: BTreeSet<String>,
}

/// Reads the services of a compose file.
pub(super) fn read(root: &Node, options: &Options, reader: &mut Reader<'_>) -> Vec<Draft> {
    let mut fields = reader.fields(&At::root(root));
    let services = match reader.take(&mut fields, "services") {
        Some(at) => reader.named(&at),
        None => Vec::new(),
    };
    let services: Vec<_> = services.into_iter().filter(|(name, _)| !name.starts_with("x-")).collect();
    let names: Vec<String> = services.iter().map(|(name, _)| name.clone()).collect();
    let networks = top(&mut fields, "networks", reader);
    let volumes = top(&mut fields, "volumes", reader);
    let mut shared = Shared {
        options,
        labels: Labels::of_all(names.iter().map(String::as_str)),
        services: names,
        volume_labels: Labels::of_all(volumes.keys().map(String::as_str)),
        volumes,
        secrets: top(&mut fields, "secrets", reader),
        configs: top(&mut fields, "configs", reader),
        volume_users: BTreeMap::new(),
        used: BTreeSet::new(),
    };
    let mut drafts = Vec::new();
    for (name, at) in &services {
        reader.service = Some(name.clone());
        drafts.push(service::read(name, at, &mut shared, reader));
    }
    reader.service = None;
    storage::declared_volumes(&mut shared, reader);
    let (why, instead) = unsupported::NETWORKS;
    networks.values().for_each(|at| reader.lost(at, why, instead));
    secrets_and_configs(&shared, reader);
    if let Some(at) = reader.take(&mut fields, "version") {
        // It has no meaning for compose either.
        reader.carried(&at);
    }
    project(&mut fields, &mut drafts, reader);
    reader.rest(fields, unsupported::TOP);
    mentions::tell(&drafts, reader);
    drafts
}

/// Reads the project's name: its services share a private network of that name.
fn project(fields: &mut Fields<'_>, drafts: &mut [Draft], reader: &mut Reader<'_>) {
    let Some(at) = reader.take(fields, "name") else { return };
    let Some(name) = reader.text(&at) else { return };
    if let Some(reason) = not_a_dns_label(&name) {
        let why = format!(
            "the services share a private network of the project's name, and this one can't be such: {reason}"
        );
        return reader.lost(&at, why, "write `spec.networking.private_network`, the same for all");
    }
    for draft in drafts {
        draft.from("spec.networking.private_network", &at);
        draft.manifest.spec.networking.private_network = Some(name.clone());
    }
    reader.carried(&at);
}

/// Takes a table of declarations from the top of the file.
fn top<'n>(fields: &mut Fields<'n>, key: &str, reader: &mut Reader<'_>) -> BTreeMap<String, At<'n>> {
    let Some(at) = reader.take(fields, key) else { return BTreeMap::new() };
    let declared = reader.named(&at);
    declared.into_iter().filter(|(name, _)| !name.starts_with("x-")).collect()
}

/// Names what isn't carried over of the secrets and configs at the top.
fn secrets_and_configs(shared: &Shared<'_, '_>, reader: &mut Reader<'_>) {
    for (name, at) in &shared.secrets {
        let why = match shared.used.contains(&format!("secret {name}")) {
            true => "a secret's value never stands in a manifest, only its name does",
            false => "no service uses this secret",
        };
        reader.lost(at, why, "until a node has a store of secrets: remove the name, and pass the value as a variable (`vimana run -e`) or mount the file");
    }
    for (name, at) in &shared.configs {
        if !shared.used.contains(&format!("config {name}")) {
            reader.lost(at, "no service uses this config, or none that could be carried over", "");
            continue;
        }
        let mut fields = reader.fields(at);
        if let Some(file) = reader.take(&mut fields, "file") {
            reader.carried(&file);
        }
        reader.rest(fields, unsupported::CONFIG);
    }
}

/// Gives the names of all `env_file`s.
pub(super) fn env_files(root: &Node) -> Vec<String> {
    let Some(Value::Table(services)) = root.get("services").map(|node| &node.value) else {
        return Vec::new();
    };
    let mut names = Vec::new();
    for node in services.iter().filter_map(|service| service.node.get("env_file")) {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        for item in items {
            let path = item.get("path").unwrap_or(item);
            if let Value::String(name) | Value::Number(name) = &path.value
                && !names.contains(name)
            {
                names.push(name.clone());
            }
        }
    }
    names
}

/// Reads a map, or a list of `NAME=VALUE`: each name with its value, if it has one, and its place.
fn pairs<'n>(at: &At<'n>, reader: &mut Reader<'_>) -> Vec<(String, Option<String>, At<'n>)> {
    let mut pairs = Vec::new();
    if at.is_list() {
        for item in reader.items(at) {
            let Some(text) = reader.text(&item) else { continue };
            match text.split_once('=') {
                Some((name, value)) => pairs.push((name.to_owned(), Some(value.to_owned()), item)),
                None => pairs.push((text, None, item)),
            }
        }
        return pairs;
    }
    for (name, entry) in reader.named(at) {
        let is_unset = reader.is_unset(&entry.path);
        let value = reader.text(&entry);
        if value.is_some() || (entry.is_null() && !is_unset) {
            pairs.push((name, value, entry));
        }
    }
    pairs
}

/// Reads what a service is granted of the file's secrets or configs: its name, and where the service wants it. `owner` says
/// why nobody chooses whose it is.
fn granted<'n>(
    at: &At<'n>,
    owner: &'static str,
    reader: &mut Reader<'_>,
) -> (Option<String>, Option<At<'n>>) {
    if !at.is_table() {
        return (reader.text(at), None);
    }
    let mut fields = reader.fields(at);
    let name = reader.take_text(&mut fields, "source");
    let target = reader.take(&mut fields, "target");
    reader.rest(fields, &[("uid", owner, ""), ("gid", owner, ""), ("mode", owner, "")]);
    (name, target)
}

/// Gives a path of the host as it is seen from a manifest's folder, if it is relative.
fn rebased(path: &str, base: &str) -> String {
    if path.starts_with(['/', '~']) {
        return path.to_owned();
    }
    let rest = path.strip_prefix("./").unwrap_or(path).trim_start_matches('/');
    let rest = if rest == "." { "" } else { rest };
    let base = base.trim_end_matches('/');
    let base = if base.is_empty() { "." } else { base };
    let joined = match (base, rest) {
        (base, "") => base.to_owned(),
        (".", rest) if rest == ".." || rest.starts_with("../") => rest.to_owned(),
        (base, rest) => format!("{base}/{rest}"),
    };
    let is_path = joined.starts_with(['/', '~'])
        || joined == "."
        || joined == ".."
        || joined.starts_with("./")
        || joined.starts_with("../");
    if is_path { joined } else { format!("./{joined}") }
}

#[cfg(test)]
mod tests {
    use super::rebased;

    #[test]
    fn a_relative_path_is_the_same_folder_from_elsewhere() {
        for (path, base, expected) in [
            ("./data", "..", "../data"),
            ("../x", "..", "../../x"),
            (".", "..", ".."),
            ("./data", "", "./data"),
            ("../x", "", "../x"),
            ("./", "", "."),
            ("./data", "../a/b", "../a/b/data"),
            ("data/x", "", "./data/x"),
            ("/abs", "..", "/abs"),
            ("~/x", "..", "~/x"),
            ("./a", "/srv/app", "/srv/app/a"),
        ] {
            assert_eq!(rebased(path, base), expected, "{path} {base}");
        }
    }
}
