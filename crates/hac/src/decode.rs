//! The tree into the model: one decoder for both formats, which finds everything that is wrong at once.

mod scalars;
mod tables;

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Code, Diagnostic, Diagnostics, LineIndex, Related};
use crate::reference;
use crate::tree::{Bounds, Entry, Node, Value};

/// Where a key and its value stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) key: Bounds,
    pub(crate) value: Bounds,
}

/// What is known while a manifest is decoded and checked.
pub(crate) struct Context<'a> {
    lines: Option<LineIndex<'a>>,
    /// Every key that is in the source, by its path.
    places: BTreeMap<String, Place>,
    /// Keys whose value couldn't be read; what depends on them isn't judged.
    failed: BTreeSet<String>,
    diagnostics: Vec<Diagnostic>,
    /// How many more there are than are reported.
    unreported: usize,
    /// Where else a key might belong that isn't known where it stands.
    elsewhere: fn(&str) -> Option<&'static str>,
    /// What the source is called, in errors about it as a whole.
    name: &'static str,
}

/// The most diagnostics that are reported: beyond that, it is another kind of file.
const MOST_REPORTED: usize = 100;

/// Something that is read from one node.
pub(crate) trait Decode: Sized {
    /// Reads it; says what is wrong to the context and gives `None` if it can't.
    fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self>;
}

impl<'a> Context<'a> {
    pub(crate) fn new(source: Option<&'a str>) -> Self {
        Self::of("the manifest", source, reference::other_place)
    }

    /// For a file of another kind, with the places of its keys.
    pub(crate) fn of(
        name: &'static str,
        source: Option<&'a str>,
        elsewhere: fn(&str) -> Option<&'static str>,
    ) -> Self {
        Self {
            name,
            elsewhere,
            lines: source.map(LineIndex::new),
            places: BTreeMap::new(),
            failed: BTreeSet::new(),
            diagnostics: Vec::new(),
            unreported: 0,
        }
    }

    /// Tells whether a key is in the source (with a value).
    pub(crate) fn is_set(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// Gives everything that was found wrong, in the source's order.
    pub(crate) fn finish(self) -> Result<(), Diagnostics> {
        if self.diagnostics.is_empty() {
            return Ok(());
        }
        let mut diagnostics = Diagnostics(self.diagnostics);
        diagnostics.sort();
        if self.unreported > 0 {
            let message = format!("{} more errors aren't shown", self.unreported);
            diagnostics.0.push(Diagnostic {
                code: Code::Value,
                message,
                help: None,
                key: None,
                span: diagnostics.0.last().and_then(|last| last.span),
                related: Vec::new(),
            });
        }
        Err(diagnostics)
    }

    /// Tells whether enough is reported, and counts what isn't.
    fn is_full(&mut self) -> bool {
        let is_full = self.diagnostics.len() >= MOST_REPORTED;
        self.unreported += usize::from(is_full);
        is_full
    }

    fn span(&self, bounds: Bounds) -> Option<crate::diagnostic::Span> {
        self.lines.as_ref().map(|lines| lines.span(bounds.start, bounds.end))
    }

    /// Reports what is wrong with one value, which then counts as unreadable.
    pub(crate) fn wrong(&mut self, path: &str, bounds: Bounds, message: String, help: Option<String>) {
        self.unreadable(Code::Value, path, bounds, message, help);
    }

    fn unreadable(&mut self, code: Code, path: &str, bounds: Bounds, message: String, help: Option<String>) {
        self.failed.insert(path.to_owned());
        if self.is_full() {
            return;
        }
        let span = self.span(bounds);
        let key = (!path.is_empty()).then(|| path.to_owned());
        self.diagnostics.push(Diagnostic { code, message, help, key, span, related: Vec::new() });
    }

    /// Reports what is wrong between values: the first path is where it is, the others are shown beside it if the
    /// source has them. Says nothing if one of them couldn't be read, because then the finding may be an echo.
    pub(crate) fn conflict(
        &mut self,
        paths: &[&str],
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        let unreadable = |path: &&str| {
            self.failed.iter().any(|failed| {
                *path == failed
                    || path.strip_prefix(failed.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']))
            })
        };
        if paths.iter().any(unreadable) || self.is_full() {
            return;
        }
        let mut places = paths.iter().filter_map(|path| self.places.get(*path).map(|place| (*path, *place)));
        let first = places.next();
        let related: Vec<Related> = places
            .filter_map(|(path, place)| {
                Some(Related { label: format!("`{path}` is here"), span: self.span(place.value)? })
            })
            .collect();
        let span = match first {
            Some((_, place)) => self.span(place.value),
            // What isn't in the source is shown at the nearest table that is.
            None => paths.first().and_then(|path| self.nearest(path)).and_then(|bounds| self.span(bounds)),
        };
        self.diagnostics.push(Diagnostic {
            code: Code::Conflict,
            message: message.into(),
            help: help.into(),
            key: paths.first().map(|path| (*path).to_owned()),
            span,
            related,
        });
    }

    /// Finds the key of the innermost table of the source that would hold `path`.
    fn nearest(&self, path: &str) -> Option<Bounds> {
        let mut path = path;
        while let Some(end) = path.rfind(['.', '[']) {
            path = &path[..end];
            if let Some(place) = self.places.get(path) {
                return Some(place.key);
            }
        }
        Some(Bounds::default())
    }

    /// Opens a table: refuses other values and unknown keys, and gives the entries that have a value.
    pub(crate) fn entries<'n>(
        &mut self,
        node: &'n Node,
        path: &str,
        known: &[&str],
    ) -> Option<Vec<&'n Entry>> {
        let Value::Table(entries) = &node.value else {
            let help = known.first().map(|key| format!("it holds keys such as `{key}`"));
            self.expected(node, path, "a table", help);
            return None;
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = join(path, &entry.key);
            if !known.contains(&entry.key.as_str()) {
                if self.is_full() {
                    continue;
                }
                let (message, help) = unknown_key(&entry.key, &path, known, (self.elsewhere)(&entry.key));
                self.unreadable(Code::UnknownKey, &path, entry.key_bounds, message, Some(help));
            } else if !matches!(entry.node.value, Value::Null) {
                self.places.insert(path, Place { key: entry.key_bounds, value: entry.node.bounds });
                found.push(entry);
            }
        }
        Some(found)
    }

    /// Reports a value of the wrong kind.
    pub(crate) fn expected(&mut self, node: &Node, path: &str, what: &str, help: Option<String>) {
        let name = if path.is_empty() { self.name.to_owned() } else { format!("`{path}`") };
        let message = format!("{name} expects {what}, and this is {}", node.kind());
        let example = reference::example_of(path).map(|example| format!("for example: {example}"));
        self.wrong(path, node.bounds, message, help.or(example));
    }
}

/// Says what an unknown key might have been meant to be.
fn unknown_key(key: &str, path: &str, known: &[&str], elsewhere: Option<&str>) -> (String, String) {
    let parent = path.strip_suffix(&segment(key)).unwrap_or_default().trim_end_matches('.');
    let place = if parent.is_empty() { "at the top".to_owned() } else { format!("in `{parent}`") };
    let message = format!("there is no key `{key}` {place}");
    let help = match (nearest_word(key, known.iter().copied()), elsewhere) {
        (Some(similar), _) => format!("did you mean `{similar}`?"),
        (None, Some(other)) => format!("did you mean `{other}`?"),
        (None, None) => format!("known here: {}", known.join(", ")),
    };
    (message, help)
}

/// Finds the word that was most likely meant; `None` if none is near.
pub(crate) fn nearest_word<'w>(given: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let plain = |text: &str| -> String {
        text.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).map(|c| c.to_ascii_lowercase()).collect()
    };
    // Nothing that long resembles a word, and the comparison would take its time.
    if given.len() > 100 {
        return None;
    }
    let given = plain(given);
    let (distance, word) = words
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&given, &plain(word)), word))
        .min_by_key(|(distance, _)| *distance)?;
    let allowed = match given.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        6..=8 => 2,
        _ => 3,
    };
    (distance <= allowed).then_some(word)
}

/// Extends a path by a key.
pub(crate) fn join(path: &str, key: &str) -> String {
    let segment = segment(key);
    if path.is_empty() { segment } else { format!("{path}.{segment}") }
}

/// Writes one key of a path: in quotes unless it is a plain word.
fn segment(key: &str) -> String {
    let plain = !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if plain { key.to_owned() } else { format!("{key:?}") }
}
