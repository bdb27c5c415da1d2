//! YAML into the tree.
//!
//! In a manifest anchors, aliases, tags and several documents are refused: it needs none, and the first two are how a
//! small file becomes a huge one. Files of other tools use anchors, aliases and merge keys (`<<`, as YAML 1.1 describes
//! them) all the time: [`Dialect::Foreign`] expands them, and counts what it copies against the same limits.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use super::{Bounds, Budget, Entry, Node, SyntaxError, Value};

/// Turns the parser's character offsets into byte offsets.
struct Offsets<'a> {
    source: &'a str,
    /// Where each character starts; `None` for pure ASCII, where the two are the same.
    starts: Option<Vec<usize>>,
}

impl<'a> Offsets<'a> {
    fn new(source: &'a str) -> Self {
        let starts = || source.char_indices().map(|(at, _)| at).chain([source.len()]).collect();
        Self { source, starts: (!source.is_ascii()).then(starts) }
    }

    fn byte(&self, character: usize) -> usize {
        match &self.starts {
            None => character.min(self.source.len()),
            Some(starts) => starts.get(character).copied().unwrap_or(self.source.len()),
        }
    }

    fn bounds(&self, span: saphyr_parser::Span) -> Bounds {
        let (start, end) = (self.byte(span.start.index()), self.byte(span.end.index()));
        // A plain scalar's span may take in the blanks after it.
        let text = self.source.get(start..end).unwrap_or_default();
        Bounds { start, end: start + text.trim_end().len() }
    }
}

/// Which of YAML's features are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// A manifest's: nothing stands for something that is written elsewhere.
    Manifest,
    /// Another tool's: anchors, aliases, merge keys and the tags of the core schema too.
    Foreign,
}

/// A collection whose end hasn't been read yet, with the anchor that it has (0 is none).
enum Open {
    List(Bounds, Vec<Node>, usize),
    Table(Bounds, Vec<Entry>, Option<(String, Bounds)>, usize),
}

/// What the anchors of a document stand for.
#[derive(Default)]
struct Anchors {
    nodes: BTreeMap<usize, Node>,
    /// Where the nodes start that an alias stands for.
    aliased: BTreeSet<usize>,
    /// The bytes of the texts that were copied.
    copied: usize,
}

impl Anchors {
    fn set(&mut self, anchor: usize, node: &Node) {
        if anchor != 0 {
            self.nodes.insert(anchor, node.clone());
        }
    }

    /// Copies what an alias stands for, which counts as if it were written out.
    fn copy(
        &mut self,
        anchor: usize,
        depth: usize,
        bounds: Bounds,
        budget: &mut Budget,
    ) -> Result<Node, SyntaxError> {
        let Some(node) = self.nodes.get(&anchor) else {
            return Err(SyntaxError::new("this alias stands for something that contains it", bounds)
                .help("write the value out"));
        };
        count(node, depth, bounds, budget, &mut self.copied)?;
        self.aliased.insert(node.bounds.start);
        Ok(node.clone())
    }
}

/// Counts a node that is about to be copied to a depth, before it is.
fn count(
    node: &Node,
    depth: usize,
    bounds: Bounds,
    budget: &mut Budget,
    copied: &mut usize,
) -> Result<(), SyntaxError> {
    budget.take(depth, bounds)?;
    let mut text = |length: usize| {
        *copied = copied.saturating_add(length);
        match *copied > super::MOST_BYTES {
            true => Err(SyntaxError::new("the aliases of this file make it too large", bounds)
                .help("the text that they copy may have 1 MiB in all")),
            false => Ok(()),
        }
    };
    match &node.value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(value) | Value::String(value) => text(value.len()),
        Value::List(items) => {
            items.iter().try_for_each(|item| count(item, depth + 1, bounds, budget, copied))
        }
        Value::Table(entries) => {
            entries.iter().try_for_each(|entry| text(entry.key.len()))?;
            entries.iter().try_for_each(|entry| count(&entry.node, depth + 1, bounds, budget, copied))
        }
    }
}

/// Replaces the merge key of a table by what it names: what the table itself says goes before, and of several tables the
/// first.
fn merge(entries: Vec<Entry>) -> Result<Vec<Entry>, SyntaxError> {
    if !entries.iter().any(|entry| entry.key == "<<") {
        return Ok(entries);
    }
    let own: BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    let mut merged = Vec::with_capacity(entries.len());
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for entry in entries {
        if entry.key != "<<" {
            merged.push(entry);
            continue;
        }
        let bounds = entry.node.bounds;
        let tables = match entry.node.value {
            Value::List(items) => items,
            _ => vec![entry.node],
        };
        for table in tables {
            let Value::Table(entries) = table.value else {
                return Err(SyntaxError::new("a merge key (`<<`) takes a table, or a list of them", bounds)
                    .help("for example: `<<: *defaults`, where `&defaults` stands before a table"));
            };
            for entry in entries {
                if !own.contains(&entry.key) && taken.insert(entry.key.clone()) {
                    merged.push(entry);
                }
            }
        }
    }
    Ok(merged)
}

/// Reads a YAML document of a dialect, and says where the nodes start that aliases stand for.
pub(super) fn read(source: &str, dialect: Dialect) -> Result<(Node, BTreeSet<usize>), SyntaxError> {
    let foreign = dialect == Dialect::Foreign;
    let offsets = Offsets::new(source);
    let mut parser = Parser::new_from_str(source);
    let mut budget = Budget::new();
    let mut anchors = Anchors::default();
    let mut open: Vec<Open> = Vec::new();
    let mut root: Option<Node> = None;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax_error(source, &offsets, &error))?;
        let bounds = offsets.bounds(span);
        let done = match event {
            Event::Alias(anchor) if foreign => anchors.copy(anchor, open.len(), bounds, &mut budget)?,
            Event::Alias(_) => return Err(anchored(bounds)),
            Event::Scalar(text, style, anchor, tag) => {
                refuse_extras(dialect, anchor, tag.as_deref(), bounds)?;
                budget.take(open.len(), bounds)?;
                let is_string = tag.is_some_and(|tag| tag.suffix == "str");
                let style = if is_string { ScalarStyle::DoubleQuoted } else { style };
                let node = Node { bounds, value: scalar(text, style) };
                anchors.set(anchor, &node);
                node
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_extras(dialect, anchor, tag.as_deref(), bounds)?;
                budget.take(open.len(), bounds)?;
                open.push(Open::List(bounds, Vec::new(), anchor));
                continue;
            }
            Event::MappingStart(anchor, tag) => {
                refuse_extras(dialect, anchor, tag.as_deref(), bounds)?;
                budget.take(open.len(), bounds)?;
                open.push(Open::Table(bounds, Vec::new(), None, anchor));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (node, anchor) = match open.pop() {
                    Some(Open::List(bounds, items, anchor)) => {
                        (Node { bounds, value: Value::List(items) }, anchor)
                    }
                    Some(Open::Table(bounds, entries, _, anchor)) => {
                        let entries = if foreign { merge(entries)? } else { entries };
                        (Node { bounds, value: Value::Table(entries) }, anchor)
                    }
                    None => continue,
                };
                anchors.set(anchor, &node);
                node
            }
            Event::DocumentStart(_) if root.is_some() => {
                let help = match dialect {
                    Dialect::Manifest => "one file holds one manifest: split it at the `---`",
                    Dialect::Foreign => "split the file at the `---`",
                };
                return Err(SyntaxError::new("a second document starts here", bounds).help(help));
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {
                continue;
            }
        };
        match open.last_mut() {
            None => root = Some(done),
            Some(Open::List(_, items, _)) => items.push(done),
            Some(Open::Table(_, entries, pending, _)) => match pending.take() {
                Some((key, key_bounds)) => entries.push(Entry { key, key_bounds, node: done }),
                None => *pending = Some(key(source, done, entries)?),
            },
        }
    }
    Ok((root.unwrap_or(Node { bounds: Bounds::default(), value: Value::Null }), anchors.aliased))
}

/// Takes a node as a key of a table that already has `entries`.
fn key(source: &str, node: Node, entries: &[Entry]) -> Result<(String, Bounds), SyntaxError> {
    let key = match node.value {
        Value::String(text) | Value::Number(text) => text,
        Value::Bool(_) | Value::Null => {
            source.get(node.bounds.start..node.bounds.end).unwrap_or_default().to_owned()
        }
        Value::List(_) | Value::Table(_) => {
            return Err(SyntaxError::new("a key must be a word, not a list or a table", node.bounds));
        }
    };
    match entries.iter().find(|entry| entry.key == key) {
        None => Ok((key, node.bounds)),
        Some(first) => {
            let mut error = SyntaxError::new(format!("the key `{key}` is here a second time"), node.bounds);
            error.related = Some(("it is here first".to_owned(), first.key_bounds));
            Err(error)
        }
    }
}

fn refuse_extras(
    dialect: Dialect,
    anchor: usize,
    tag: Option<&Tag>,
    bounds: Bounds,
) -> Result<(), SyntaxError> {
    match (dialect, tag) {
        (Dialect::Manifest, _) if anchor != 0 => Err(anchored(bounds)),
        (Dialect::Manifest, Some(_)) => {
            Err(SyntaxError::new("tags (`!name`) aren't accepted in a manifest", bounds)
                .help("put a string into quotes; everything else is recognised by itself"))
        }
        (Dialect::Foreign, Some(tag)) if !tag.is_yaml_core_schema() => {
            let message = format!("the tag `{tag}` isn't understood");
            Err(SyntaxError::new(message, bounds)
                .help("remove it, and write out what it would give (`!reset` and `!override` are for files that are merged)"))
        }
        _ => Ok(()),
    }
}

fn anchored(bounds: Bounds) -> SyntaxError {
    SyntaxError::new("anchors (`&name`) and aliases (`*name`) aren't accepted in a manifest", bounds)
        .help("write the value out where it is needed; put a string that starts with `&` or `*` into quotes")
}

/// Recognises plain scalars as YAML's core schema does; quoted ones are strings.
fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.into_owned());
    }
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        plain if is_number(plain) => Value::Number(plain.to_owned()),
        _ => Value::String(text.into_owned()),
    }
}

/// Tells whether a plain scalar is a number: decimal, with a sign, fraction or exponent.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let has_digit = !(whole.is_empty() && fraction.is_empty());
    let exponent_ok = exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent));
    has_digit && digits(whole) && digits(fraction) && exponent_ok
}

/// Explains why the text isn't YAML; tabs in the indentation are the commonest reason, and the parser's own words for
/// them are about something else.
fn syntax_error(source: &str, offsets: &Offsets<'_>, error: &ScanError) -> SyntaxError {
    if let Some(error) = tab_in_indentation(source, error.marker().line()) {
        return error;
    }
    let start = offsets.byte(error.marker().index());
    if error.info().contains("recursion limit") {
        return SyntaxError::too_deep(Bounds { start, end: start });
    }
    SyntaxError::new(format!("this isn't YAML: {}", error.info()), Bounds { start, end: start })
}

fn tab_in_indentation(source: &str, last_line: usize) -> Option<SyntaxError> {
    let mut start = 0;
    let mut found: Option<(usize, Bounds)> = None;
    let mut more = 0usize;
    for (index, line) in source.split('\n').enumerate() {
        let indentation = line.len() - line.trim_start_matches([' ', '\t']).len();
        let says_something =
            !line[indentation..].trim_end().is_empty() && !line[indentation..].starts_with('#');
        if let Some(at) = line[..indentation].find('\t')
            && says_something
        {
            match found {
                // A tab further down than the error isn't its cause.
                None if index + 1 > last_line + 1 => return None,
                None => {
                    let tabs =
                        line[at..indentation].len() - line[at..indentation].trim_start_matches('\t').len();
                    found = Some((index + 1, Bounds { start: start + at, end: start + at + tabs }));
                }
                Some(_) => more += 1,
            }
        }
        start += line.len() + 1;
    }
    let (line, bounds) = found?;
    let others = match more {
        0 => String::new(),
        1 => ", and one more line has one".to_owned(),
        more => format!(", and {more} more lines have one"),
    };
    Some(
        SyntaxError::new(format!("line {line} is indented with a tab, which YAML forbids{others}"), bounds)
            .help("indent with spaces: two for each tab"),
    )
}
