//! A document as text says it, with the place of every part: what TOML and YAML have in common.

mod toml;
mod yaml;

use std::collections::BTreeSet;

use crate::diagnostic::{Diagnostic, LineIndex};

/// The largest source that is read.
pub(crate) const MOST_BYTES: usize = 1 << 20;
/// The deepest nesting; the manifest itself needs 6.
const MOST_DEPTH: usize = 32;
/// The most values in one document.
const MOST_NODES: usize = 10_000;

/// The language of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.1, which takes in 1.0.
    Toml,
    /// YAML 1.2, and so JSON too.
    Yaml,
}

impl Format {
    /// Recognises a format by a file's name; `None` if the ending says nothing.
    pub fn from_file_name(name: &str) -> Option<Self> {
        let (_, ending) = name.rsplit_once('.')?;
        match ending.to_ascii_lowercase().as_str() {
            "toml" => Some(Self::Toml),
            "yaml" | "yml" | "json" => Some(Self::Yaml),
            _ => None,
        }
    }

    /// Recognises a format by content: TOML has `key = value` or `[table]` in its first line that says something.
    pub fn from_content(source: &str) -> Self {
        let mut lines = source.trim_start_matches('\u{feff}').lines().map(str::trim);
        let Some(first) = lines.find(|line| !line.is_empty() && !line.starts_with('#')) else {
            return Self::Toml;
        };
        let before_value = |sign: char| first.find(sign).unwrap_or(usize::MAX);
        if first.starts_with('[') || before_value('=') < before_value(':') { Self::Toml } else { Self::Yaml }
    }

    /// Recognises a format by a file's name, else by content.
    pub fn detect(name: &str, source: &str) -> Self {
        Self::from_file_name(name).unwrap_or_else(|| Self::from_content(source))
    }
}

/// Byte offsets into the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bounds {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) bounds: Bounds,
    pub(crate) value: Value,
}

/// A value as the text has it.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// A key without a value.
    Null,
    Bool(bool),
    /// A number, as it is written in decimal.
    Number(String),
    String(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key, its place, its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_bounds: Bounds,
    pub(crate) node: Node,
}

impl Node {
    /// Finds the value of a table's key.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            _ => None,
        }
    }

    /// Names the kind of value, for errors.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// What makes a source no document at all.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    pub(crate) bounds: Bounds,
    /// Another place, with what is there.
    pub(crate) related: Option<(String, Bounds)>,
}

impl SyntaxError {
    fn new(message: impl Into<String>, bounds: Bounds) -> Self {
        Self { message: message.into(), help: None, bounds, related: None }
    }

    fn too_deep(bounds: Bounds) -> Self {
        Self::new(format!("this is nested more than {MOST_DEPTH} deep"), bounds)
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn into_diagnostic(self, lines: &LineIndex<'_>) -> Diagnostic {
        let related = self
            .related
            .map(|(label, at)| crate::diagnostic::Related { label, span: lines.span(at.start, at.end) });
        Diagnostic {
            code: crate::diagnostic::Code::Syntax,
            message: self.message,
            help: self.help,
            key: None,
            span: Some(lines.span(self.bounds.start, self.bounds.end)),
            related: related.into_iter().collect(),
        }
    }
}

/// Counts what has been read against the limits.
struct Budget {
    nodes: usize,
}

impl Budget {
    fn new() -> Self {
        Self { nodes: 0 }
    }

    fn take(&mut self, depth: usize, bounds: Bounds) -> Result<(), SyntaxError> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err(SyntaxError::new(format!("this has more than {MOST_NODES} values"), bounds));
        }
        if depth > MOST_DEPTH {
            return Err(SyntaxError::too_deep(bounds));
        }
        Ok(())
    }
}

/// Reads a source into a tree whose root is a table.
pub(crate) fn read(source: &str, format: Format) -> Result<Node, SyntaxError> {
    if source.len() > MOST_BYTES {
        let message = format!("the manifest has {} bytes; at most {MOST_BYTES} are read", source.len());
        return Err(SyntaxError::new(message, Bounds::default())
            .help("a manifest describes hardware; put data into the image or a mount"));
    }
    let root = match format {
        Format::Toml => toml::read(source),
        Format::Yaml => yaml::read(source, yaml::Dialect::Manifest).map(|(root, _)| root),
    }?;
    match root.value {
        Value::Table(_) => Ok(root),
        Value::Null => Ok(Node { bounds: root.bounds, value: Value::Table(Vec::new()) }),
        _ => {
            let message = format!("the manifest is {}, where it must be a table", root.kind());
            Err(SyntaxError::new(message, root.bounds).help("start with `spec:` and the keys below it"))
        }
    }
}

/// Reads a YAML file of another tool, where anchors, aliases and merge keys are expanded. Gives its root, whatever that is,
/// and where the nodes start that aliases stand for.
pub(crate) fn read_foreign(source: &str) -> Result<(Node, BTreeSet<usize>), SyntaxError> {
    if source.len() > MOST_BYTES {
        let message = format!("the file has {} bytes; at most {MOST_BYTES} are read", source.len());
        return Err(SyntaxError::new(message, Bounds::default()));
    }
    yaml::read(source, yaml::Dialect::Foreign)
}
