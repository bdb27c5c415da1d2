//! A foreign tree, read so that it is known which keys were carried over and which were named.

use std::collections::BTreeSet;

use super::remark::{Outcome, Remark};
use crate::decode::join;
use crate::diagnostic::{Code, Diagnostic, Diagnostics, LineIndex};
use crate::tree::{Bounds, Node, Value};

/// The most errors that are reported.
const MOST_ERRORS: usize = 100;

/// A value, its path, and where its key stands.
#[derive(Debug, Clone)]
pub(super) struct At<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
    pub(super) key: Bounds,
}

impl<'n> At<'n> {
    pub(super) fn root(node: &'n Node) -> Self {
        Self { node, path: String::new(), key: Bounds::default() }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.node.value, Value::Table(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }
}

/// The entries of a table that nobody has read yet.
pub(super) struct Fields<'n>(Vec<(String, At<'n>)>);

impl<'n> Fields<'n> {
    /// Takes an entry, whatever its value.
    pub(super) fn take_any(&mut self, key: &str) -> Option<At<'n>> {
        let index = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(index).1)
    }
}

/// A key that is known and that no manifest has: its name, why, what to do instead.
pub(super) type Unsupported = (&'static str, &'static str, &'static str);

pub(super) struct Reader<'a> {
    lines: LineIndex<'a>,
    /// Where the nodes start that aliases stand for.
    aliased: BTreeSet<usize>,
    /// The paths that are dealt with: carried over or named, with everything below.
    done: BTreeSet<String>,
    /// The paths whose value was a variable that isn't set.
    unset: BTreeSet<String>,
    remarks: Vec<Remark>,
    errors: Vec<Diagnostic>,
    /// The service that is read.
    pub(super) service: Option<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a str, aliased: BTreeSet<usize>) -> Self {
        Self {
            lines: LineIndex::new(source),
            aliased,
            done: BTreeSet::new(),
            unset: BTreeSet::new(),
            remarks: Vec::new(),
            errors: Vec::new(),
            service: None,
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    pub(super) fn into_diagnostics(self) -> Diagnostics {
        let mut diagnostics = Diagnostics(self.errors);
        diagnostics.sort();
        diagnostics
    }

    pub(super) fn into_remarks(mut self) -> Vec<Remark> {
        self.remarks.sort_by(|a, b| (a.span.start, &a.key).cmp(&(b.span.start, &b.key)));
        self.remarks
    }

    /// Says that a key is in a manifest, with everything below it.
    pub(super) fn carried(&mut self, at: &At<'_>) {
        self.done.insert(at.path.clone());
    }

    /// Tells whether a key has been dealt with.
    pub(super) fn is_done(&self, path: &str) -> bool {
        self.done.contains(path)
    }

    /// Tells whether a key, or one below it, has been dealt with.
    pub(super) fn is_partly_done(&self, path: &str) -> bool {
        self.done.contains(path) || has_below(&self.done, path)
    }

    /// Says that a key isn't in any manifest, nor is what is below it.
    pub(super) fn lost(&mut self, at: &At<'_>, why: impl Into<String>, instead: &str) {
        self.remark(Outcome::NotCarried, at, why.into(), instead);
    }

    /// Says that a key became something that a person might not expect.
    pub(super) fn changed(&mut self, at: &At<'_>, why: impl Into<String>, instead: &str) {
        self.remark(Outcome::Changed, at, why.into(), instead);
    }

    fn remark(&mut self, outcome: Outcome, at: &At<'_>, why: String, instead: &str) {
        self.done.insert(at.path.clone());
        let span = self.lines.span(at.key.start, at.key.end);
        let instead = (!instead.is_empty()).then(|| instead.to_owned());
        let key = at.path.clone();
        self.remarks.push(Remark { outcome, service: self.service.clone(), key, span, why, instead });
    }

    /// Says something of a key that is still to be read, or is read already.
    pub(super) fn noted(&mut self, outcome: Outcome, at: &At<'_>, why: impl Into<String>, instead: &str) {
        let was_done = self.done.contains(&at.path);
        self.remark(outcome, at, why.into(), instead);
        if !was_done {
            self.done.remove(&at.path);
        }
    }

    /// Says that a text holds a variable without a value, which leaves its key out.
    pub(super) fn lost_to_variable(&mut self, at: &At<'_>, why: String, instead: &str) {
        self.unset.insert(at.path.clone());
        self.lost(at, why, instead);
    }

    /// Tells whether a key has no value because a variable, here or below, has none.
    pub(super) fn is_unset(&self, path: &str) -> bool {
        self.unset.contains(path) || has_below(&self.unset, path)
    }

    pub(super) fn error(&mut self, at: &At<'_>, message: impl Into<String>, help: &str) {
        let bounds = if at.is_null() { at.key } else { at.node.bounds };
        self.error_at(&at.path, bounds, message.into(), help);
    }

    pub(super) fn error_at(&mut self, path: &str, bounds: Bounds, message: String, help: &str) {
        self.done.insert(path.to_owned());
        if self.errors.len() >= MOST_ERRORS {
            return;
        }
        self.errors.push(Diagnostic {
            code: Code::Value,
            message,
            help: (!help.is_empty()).then(|| help.to_owned()),
            key: (!path.is_empty()).then(|| path.to_owned()),
            span: Some(self.lines.span(bounds.start, bounds.end)),
            related: Vec::new(),
        });
    }

    fn expected(&mut self, at: &At<'_>, what: &str, help: &str) {
        let name = if at.path.is_empty() { "the file".to_owned() } else { format!("`{}`", at.path) };
        self.error(at, format!("{name} expects {what}, and this is {}", at.node.kind()), help);
    }

    /// Gives the entries of a table with their keys, those without a value too.
    pub(super) fn named<'n>(&mut self, at: &At<'n>) -> Vec<(String, At<'n>)> {
        self.fields(at).0
    }

    /// Opens a table; another value is an error, and nothing is an empty table.
    pub(super) fn fields<'n>(&mut self, at: &At<'n>) -> Fields<'n> {
        let entries = match &at.node.value {
            Value::Table(entries) => entries,
            Value::Null => {
                self.carried(at);
                return Fields(Vec::new());
            }
            _ => {
                self.expected(at, "a table", "it holds `key: value` lines, indented");
                return Fields(Vec::new());
            }
        };
        if entries.is_empty() {
            self.carried(at);
        }
        let field = |entry: &'n crate::tree::Entry| {
            let path = join(&at.path, &entry.key);
            (entry.key.clone(), At { node: &entry.node, path, key: entry.key_bounds })
        };
        Fields(entries.iter().map(field).collect())
    }

    /// Takes an entry that has a value.
    pub(super) fn take<'n>(&mut self, fields: &mut Fields<'n>, key: &str) -> Option<At<'n>> {
        let at = fields.take_any(key)?;
        if at.is_null() {
            self.carried(&at);
            return None;
        }
        Some(at)
    }

    /// Names what is left of a table. What is switched off or empty says nothing, and is left out.
    pub(super) fn rest(&mut self, fields: Fields<'_>, known: &[Unsupported]) {
        for (name, at) in fields.0 {
            let is_nothing = match &at.node.value {
                Value::Null | Value::Bool(false) => true,
                Value::List(items) => items.is_empty(),
                Value::Table(entries) => entries.is_empty(),
                Value::Number(_) | Value::String(_) | Value::Bool(true) => false,
            };
            match known.iter().find(|(key, ..)| *key == name) {
                Some(_) if is_nothing => self.carried(&at),
                Some((_, why, instead)) => self.lost(&at, *why, instead),
                None if name.starts_with("x-") || at.is_null() => {}
                None => self.lost(&at, "this key isn't known", "look whether it is spelled as it should be"),
            }
        }
    }

    /// Gives the items of a list; another value is an error.
    pub(super) fn items<'n>(&mut self, at: &At<'n>) -> Vec<At<'n>> {
        let items = match &at.node.value {
            Value::List(items) => items,
            Value::Null => {
                self.carried(at);
                return Vec::new();
            }
            _ => {
                self.expected(at, "a list", "write one item behind each `- `");
                return Vec::new();
            }
        };
        if items.is_empty() {
            self.carried(at);
        }
        let item = |(index, node): (usize, &'n Node)| At {
            node,
            path: format!("{}[{index}]", at.path),
            key: node.bounds,
        };
        items.iter().enumerate().map(item).collect()
    }

    /// Gives the items of a list, or the one value that stands in its place.
    pub(super) fn one_or_more<'n>(&mut self, at: At<'n>) -> Vec<At<'n>> {
        if at.is_list() { self.items(&at) } else { vec![at] }
    }

    /// Takes an entry, and reads it as text.
    pub(super) fn take_text(&mut self, fields: &mut Fields<'_>, key: &str) -> Option<String> {
        let at = self.take(fields, key)?;
        self.text(&at)
    }

    /// Reads a scalar as text, as it is written; nothing for a key without a value.
    pub(super) fn text(&mut self, at: &At<'_>) -> Option<String> {
        let text = match &at.node.value {
            Value::String(text) | Value::Number(text) => text.clone(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null => {
                self.carried(at);
                return None;
            }
            Value::List(_) | Value::Table(_) => {
                self.expected(at, "a single value", "");
                return None;
            }
        };
        self.carried(at);
        Some(text)
    }

    /// Reads a text or a list of them; nothing if one of them has no value, which is then named.
    pub(super) fn texts(&mut self, at: &At<'_>) -> Option<Vec<String>> {
        if !at.is_list() {
            return self.text(at).map(|text| vec![text]);
        }
        let items = self.items(at);
        let count = items.len();
        let texts: Vec<_> = items.iter().filter_map(|item| self.text(item)).collect();
        if texts.len() == count {
            return Some(texts);
        }
        if !self.has_errors() {
            self.lost(
                at,
                "an item of this list has no value, and a list with a gap means something else",
                "",
            );
        }
        None
    }

    /// Reads a whole number.
    pub(super) fn number(&mut self, at: &At<'_>) -> Option<u32> {
        let text = self.text(at)?;
        let number = text.trim().parse().ok();
        if number.is_none() {
            let message =
                format!("`{}` expects a whole number from 0 to {}, and this is {text:?}", at.path, u32::MAX);
            self.error(at, message, "");
        }
        number
    }

    /// Reads `true` or `false`.
    pub(super) fn flag(&mut self, at: &At<'_>) -> Option<bool> {
        match self.text(at)?.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => {
                self.expected(at, "true or false", "");
                None
            }
        }
    }

    /// Refuses NUL characters, which neither a program nor a manifest could be given.
    pub(super) fn refuse_nul(&mut self, node: &Node) {
        const MESSAGE: &str = "there is a NUL character here, which no program could be given";
        match &node.value {
            Value::String(text) if text.contains('\0') => {
                self.error_at("", node.bounds, MESSAGE.to_owned(), "remove the \\0");
            }
            Value::List(items) => items.iter().for_each(|item| self.refuse_nul(item)),
            Value::Table(entries) => {
                for entry in entries {
                    if entry.key.contains('\0') {
                        self.error_at("", entry.key_bounds, MESSAGE.to_owned(), "remove the \\0");
                    }
                    self.refuse_nul(&entry.node);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Names everything that no reader has dealt with.
    pub(super) fn sweep(&mut self, root: &Node) {
        if let Value::Table(_) = root.value {
            for at in self.fields(&At::root(root)).0 {
                self.service = None;
                if at.0 != "services" {
                    self.sweep_at(&at.1);
                    continue;
                }
                for (name, at) in match at.1.is_table() {
                    true => self.fields(&at.1).0,
                    false => Vec::new(),
                } {
                    self.service = Some(name);
                    self.sweep_at(&at);
                }
            }
        }
        self.service = None;
    }

    fn sweep_at(&mut self, at: &At<'_>) {
        let is_extension = at.path.starts_with("x-") || at.path.contains(".x-");
        // What an alias stands for is read where the alias is.
        if self.done.contains(&at.path) || (is_extension && self.aliased.contains(&at.node.bounds.start)) {
            return;
        }
        let is_partly_done =
            self.is_partly_done(&at.path) || (is_extension && self.is_partly_aliased(at.node));
        match &at.node.value {
            Value::Table(_) if is_partly_done => {
                self.fields(at).0.iter().for_each(|(_, at)| self.sweep_at(at));
            }
            Value::List(_) if is_partly_done => self.items(at).iter().for_each(|at| self.sweep_at(at)),
            _ if is_extension => {
                self.lost(at, "this is an extension field, which has no meaning of its own", "")
            }
            _ => self.lost(at, "nothing in a manifest corresponds to this", ""),
        }
    }

    fn is_partly_aliased(&self, node: &Node) -> bool {
        let is_aliased =
            |node: &Node| self.aliased.contains(&node.bounds.start) || self.is_partly_aliased(node);
        match &node.value {
            Value::Table(entries) => entries.iter().any(|entry| is_aliased(&entry.node)),
            Value::List(items) => items.iter().any(is_aliased),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }
}

/// Tells whether a set has a path below `path`.
fn has_below(paths: &BTreeSet<String>, path: &str) -> bool {
    ['.', '['].iter().any(|sign| {
        let prefix = format!("{path}{sign}");
        paths.range(prefix.clone()..).next().is_some_and(|next| next.starts_with(&prefix))
    })
}
