//! YAML into the tree.
//!
//! Anchors, aliases, tags and several documents are refused: a manifest needs none, and the first two are how a small
//! file becomes a huge one.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

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

/// A collection whose end hasn't been read yet.
enum Open {
    List(Bounds, Vec<Node>),
    Table(Bounds, Vec<Entry>, Option<(String, Bounds)>),
}

/// Reads a YAML document.
pub(super) fn read(source: &str) -> Result<Node, SyntaxError> {
    let offsets = Offsets::new(source);
    let mut parser = Parser::new_from_str(source);
    let mut budget = Budget::new();
    let mut open: Vec<Open> = Vec::new();
    let mut root: Option<Node> = None;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax_error(source, &offsets, &error))?;
        let bounds = offsets.bounds(span);
        let done = match event {
            Event::Alias(_) => return Err(anchored(bounds)),
            Event::Scalar(text, style, anchor, tag) => {
                refuse_extras(anchor, tag.is_some(), bounds)?;
                budget.take(open.len(), bounds)?;
                Node { bounds, value: scalar(text, style) }
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_extras(anchor, tag.is_some(), bounds)?;
                budget.take(open.len(), bounds)?;
                open.push(Open::List(bounds, Vec::new()));
                continue;
            }
            Event::MappingStart(anchor, tag) => {
                refuse_extras(anchor, tag.is_some(), bounds)?;
                budget.take(open.len(), bounds)?;
                open.push(Open::Table(bounds, Vec::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(bounds, items)) => Node { bounds, value: Value::List(items) },
                Some(Open::Table(bounds, entries, _)) => Node { bounds, value: Value::Table(entries) },
                None => continue,
            },
            Event::DocumentStart(_) if root.is_some() => {
                return Err(SyntaxError::new("a second document starts here", bounds)
                    .help("one file holds one manifest: split it at the `---`"));
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
            Some(Open::List(_, items)) => items.push(done),
            Some(Open::Table(_, entries, pending)) => match pending.take() {
                Some((key, key_bounds)) => entries.push(Entry { key, key_bounds, node: done }),
                None => *pending = Some(key(source, done, entries)?),
            },
        }
    }
    Ok(root.unwrap_or(Node { bounds: Bounds::default(), value: Value::Null }))
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

fn refuse_extras(anchor: usize, tagged: bool, bounds: Bounds) -> Result<(), SyntaxError> {
    if anchor != 0 {
        return Err(anchored(bounds));
    }
    if tagged {
        return Err(SyntaxError::new("tags (`!name`) aren't accepted in a manifest", bounds)
            .help("put a string into quotes; everything else is recognised by itself"));
    }
    Ok(())
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
