//! What every key means: the one place from which `explain`, the schema's descriptions, the suggestions in errors and
//! the printed reference come. The texts are in `reference/keys.txt`; the allowed words come from the types.

mod markdown;

use std::fmt;

use serde::Serialize;

use crate::decode::nearest_word;
use crate::schema;

pub use markdown::markdown;

const KEYS: &str = include_str!("reference/keys.txt");

/// Names under which people coming from elsewhere look for a key.
const ELSEWHERE: [(&str, &str); 26] = [
    ("ports", "spec.networking.inbound_ports"),
    ("expose", "spec.networking.inbound_ports"),
    ("volumes", "spec.mounts"),
    ("mount", "spec.mounts"),
    ("environment", "spec.deployment.env"),
    ("entrypoint", "spec.deployment.command"),
    ("cmd", "spec.deployment.args"),
    ("working_dir", "spec.deployment.workdir"),
    ("cwd", "spec.deployment.workdir"),
    ("count", "spec.deployment.replicas"),
    ("healthcheck", "spec.checks"),
    ("health", "spec.checks"),
    ("ram", "spec.resources.memory"),
    ("mem", "spec.resources.memory"),
    ("disk", "spec.resources.storage"),
    ("cpus", "spec.resources.cpu"),
    ("vcpus", "spec.resources.cpu"),
    ("cores", "spec.resources.cpu"),
    ("isolation", "spec.virtualization.type"),
    ("driver", "spec.virtualization.provider"),
    ("hypervisor", "spec.virtualization.provider"),
    ("region", "spec.placement.dvci"),
    ("constraints", "spec.placement.attributes"),
    ("price", "spec.pricing.max_per_hour"),
    ("autoscaling", "spec.scaling"),
    ("rollback", "spec.update.auto_revert"),
];

/// What one key means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The path, where `[]` stands for any item of a list.
    pub path: &'static str,
    /// The type, in words.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The default, in words.
    pub default: &'static str,
    /// The allowed words, in their canonical spelling; empty if it isn't a word.
    pub values: Vec<String>,
    /// What it says and what it changes.
    pub effect: &'static str,
    /// A line or several in TOML.
    pub example: Vec<&'static str>,
    /// The keys directly below, for a table.
    pub keys: Vec<&'static str>,
}

/// A key that isn't known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKey {
    /// What was asked for.
    pub key: String,
    /// What was probably meant; perhaps empty.
    pub similar: Vec<&'static str>,
}

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all_end_so = self.similar.iter().all(|known| known.ends_with(&format!(".{}", self.key)));
        if self.similar.len() > 1 && all_end_so {
            return write!(f, "{:?} is the end of several keys: {}", self.key, self.similar.join(", "));
        }
        write!(f, "there is no key {:?} in a manifest", self.key)?;
        match self.similar.as_slice() {
            [] => Ok(()),
            similar => write!(f, "; did you mean {}?", similar.join(" or ")),
        }
    }
}

impl std::error::Error for UnknownKey {}

/// One block of the text.
struct Block {
    path: &'static str,
    kind: &'static str,
    default: &'static str,
    effect: &'static str,
    example: Vec<&'static str>,
}

/// Iterates over the blocks, in the reference's order.
fn blocks() -> impl Iterator<Item = Block> {
    KEYS.split("## ").skip(1).map(|text| {
        let mut block = Block { path: "", kind: "", default: "", effect: "", example: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            if index == 0 {
                block.path = line;
            } else if let Some(kind) = line.strip_prefix("type: ") {
                block.kind = kind;
            } else if let Some(default) = line.strip_prefix("default: ") {
                block.default = default;
            } else if let Some(example) = line.strip_prefix("example: ") {
                block.example.push(example);
            } else if !line.is_empty() {
                block.effect = line;
            }
        }
        block
    })
}

/// Gives the path of every key, in the reference's order.
pub fn paths() -> Vec<&'static str> {
    blocks().map(|block| block.path).collect()
}

/// Explains a key: a path such as `spec.resources.memory`, with or without the `[]` of lists, or the end of one, such as
/// `memory`, if it is the only one outside of lists.
pub fn explain(key: &str) -> Result<Explanation, UnknownKey> {
    let wanted = without_indices(key.trim().trim_matches('.'));
    let all = paths();
    let matching_by = |is_meant: &dyn Fn(&str) -> bool| -> Vec<&'static str> {
        all.iter().copied().filter(|path| is_meant(path)).collect()
    };
    let mut matching = matching_by(&|path| path == wanted);
    if matching.is_empty() {
        let whole = without_lists(&wanted);
        matching = matching_by(&|path| without_lists(path) == whole);
    }
    if matching.is_empty() {
        matching = matching_by(&|path| ends_with_key(path, &wanted));
    }
    // What everybody means by `memory` is not a sidecar's.
    if matching.len() > 1 {
        let outside: Vec<&'static str> =
            matching.iter().copied().filter(|path| !path.contains('[')).collect();
        if let [only] = outside.as_slice() {
            matching = vec![only];
        }
    }
    // An entry of a table with free keys is explained by the table.
    if matching.is_empty()
        && let Some((table, _)) = wanted.rsplit_once('.')
    {
        matching = blocks()
            .filter(|block| block.path == table && is_free(block.kind))
            .map(|block| block.path)
            .collect();
    }
    match matching.as_slice() {
        [path] => blocks()
            .find(|block| block.path == *path)
            .map(explanation)
            .ok_or_else(|| UnknownKey { key: key.to_owned(), similar: Vec::new() }),
        [] => Err(UnknownKey { key: key.to_owned(), similar: similar(&wanted) }),
        several => Err(UnknownKey { key: key.to_owned(), similar: several.to_vec() }),
    }
}

/// Explains every key, in the reference's order.
pub fn all() -> Vec<Explanation> {
    blocks().map(explanation).collect()
}

fn explanation(block: Block) -> Explanation {
    let below = |path: &str| {
        let rest = path.strip_prefix(block.path)?;
        let rest = rest.strip_prefix("[]").unwrap_or(rest).strip_prefix('.')?;
        (!rest.contains(['.', '['])).then_some(())
    };
    Explanation {
        path: block.path,
        kind: block.kind,
        default: block.default,
        values: schema::words_at(block.path),
        effect: block.effect,
        example: block.example,
        keys: paths().into_iter().filter(|path| below(path).is_some()).collect(),
    }
}

fn is_free(kind: &str) -> bool {
    kind.starts_with("table of")
}

/// Tells whether a path ends with a whole key, or keys.
fn ends_with_key(path: &str, key: &str) -> bool {
    !key.is_empty()
        && without_lists(path).strip_suffix(&without_lists(key)).is_some_and(|rest| rest.ends_with('.'))
}

/// Leaves out what marks a list: `spec.mounts.size` is meant for `spec.mounts[].size`.
fn without_lists(path: &str) -> String {
    path.replace("[]", "")
}

/// Replaces `[3]` by `[]`.
fn without_indices(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut within = false;
    for c in path.chars() {
        match c {
            '[' => within = true,
            ']' => within = false,
            _ if within => continue,
            _ => {}
        }
        out.push(c);
    }
    out
}

fn similar(wanted: &str) -> Vec<&'static str> {
    if let Some(other) = other_place(wanted) {
        return vec![other];
    }
    let all = paths();
    if let Some(path) = nearest_word(wanted, all.iter().copied()) {
        return vec![path];
    }
    let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    let wanted_last = wanted.rsplit('.').next().unwrap_or(wanted);
    match nearest_word(wanted_last, all.iter().map(|path| last(path))) {
        Some(name) => all.into_iter().filter(|path| last(path) == name).collect(),
        None => Vec::new(),
    }
}

/// Finds the full path of a key that stands in the wrong table, or has another name here.
pub(crate) fn other_place(key: &str) -> Option<&'static str> {
    let synonym = ELSEWHERE.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, path)| *path);
    synonym.or_else(|| {
        let mut matching = paths().into_iter().filter(|path| !path.contains('[') && ends_with_key(path, key));
        let first = matching.next()?;
        matching.next().is_none().then_some(first)
    })
}

/// Gives an example of a key, for an error about it.
pub(crate) fn example_of(path: &str) -> Option<String> {
    let wanted = without_indices(path);
    let block = blocks().find(|block| block.path == wanted)?;
    (!block.example.is_empty()).then(|| block.example.join("; "))
}

/// Gives the meaning of a key, for the schema.
pub(crate) fn effect_of(path: &str) -> Option<&'static str> {
    blocks().find(|block| block.path == path).map(|block| block.effect)
}
