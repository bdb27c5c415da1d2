//! What is wrong with a manifest, where, and what would be right.

use std::fmt;

use serde::Serialize;

/// A place in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Span {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The offset of the first byte.
    pub start: usize,
    /// The offset after the last byte.
    pub end: usize,
}

/// Another place that a diagnostic speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Related {
    /// What is there.
    pub label: String,
    /// Where it is.
    #[serde(flatten)]
    pub span: Span,
}

/// What sort of thing is wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The text is no TOML or YAML, or beyond the limits.
    Syntax,
    /// A key isn't known.
    UnknownKey,
    /// A value can't be read.
    Value,
    /// Something is missing, or values that can be read don't fit together.
    Conflict,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// What sort of thing it is.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The key that it is about, as in `spec.mounts[0].size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Where it is; `None` for a manifest that was never text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// Where else to look.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
}

/// Everything that is wrong, in the order of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Renders all of them, with the source's lines, for a person.
    pub fn render(&self, file_name: &str, source: &str, color: bool) -> String {
        let rendered: Vec<String> =
            self.0.iter().map(|diagnostic| diagnostic.render(file_name, source, color)).collect();
        rendered.join("\n")
    }

    /// Iterates over the diagnostics.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// Sorts by place, which is the order in which a person mends a file.
    pub(crate) fn sort(&mut self) {
        self.0.sort_by_key(|diagnostic| diagnostic.span.map_or(0, |span| span.start));
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(span) = self.span {
            write!(f, "{}:{}: ", span.line, span.column)?;
        }
        f.write_str(&visible(&self.message))?;
        match &self.help {
            Some(help) => write!(f, " ({})", visible(help)),
            None => Ok(()),
        }
    }
}

/// The escape sequences of one rendering; all empty without colour.
struct Palette {
    error: &'static str,
    gutter: &'static str,
    bold: &'static str,
    reset: &'static str,
}

const PLAIN: Palette = Palette { error: "", gutter: "", bold: "", reset: "" };
const COLORED: Palette =
    Palette { error: "\x1b[1;31m", gutter: "\x1b[1;34m", bold: "\x1b[1m", reset: "\x1b[0m" };

/// The widest piece of a source line that is shown, in characters.
const WIDEST: usize = 140;

impl Diagnostic {
    /// Renders it for a person: place and message, the line underlined, related lines, help.
    pub fn render(&self, file_name: &str, source: &str, color: bool) -> String {
        let palette = if color { &COLORED } else { &PLAIN };
        let Palette { error, gutter, bold, reset } = palette;
        let place = match self.span {
            Some(span) => format!("{}:{}:{}", visible(file_name), span.line, span.column),
            None => visible(file_name),
        };
        let mut out = format!("{bold}{place}:{reset} {error}{}{reset}\n", visible(&self.message));
        let lines =
            self.related.iter().map(|related| related.span.line).chain(self.span.map(|span| span.line));
        let width = lines.max().unwrap_or(0).to_string().len();
        if let Some(span) = self.span {
            out.push_str(&excerpt(source, span, '^', "", width, palette));
        }
        for related in &self.related {
            out.push_str(&excerpt(source, related.span, '-', &related.label, width, palette));
        }
        if let Some(help) = &self.help {
            out.push_str(&format!("{:width$} {gutter}={reset} help: {}\n", "", visible(help)));
        }
        out
    }
}

/// Renders one line of the source with what matters underlined.
fn excerpt(source: &str, span: Span, mark: char, label: &str, width: usize, palette: &Palette) -> String {
    let Palette { error, gutter, reset, .. } = palette;
    let line = source.split('\n').nth(span.line.saturating_sub(1)).unwrap_or_default().trim_end_matches('\r');
    let characters: Vec<char> = line.chars().collect();
    let from = span.column.saturating_sub(1).min(characters.len());
    let marked = source.get(span.start..span.end).unwrap_or_default();
    let first_line = marked.split('\n').next().unwrap_or_default().trim_end_matches('\r');
    let length = first_line.chars().count().clamp(1, (characters.len() - from).max(1));

    // A long line is shown around its mark.
    let skipped = if from + length > WIDEST { from.saturating_sub(WIDEST / 4) } else { 0 };
    let shown: String = characters[skipped..].iter().take(WIDEST).collect();
    let indent = from - skipped;
    let length = length.min(WIDEST.saturating_sub(indent)).max(1);
    let color = if mark == '^' { error } else { gutter };
    let marks = mark.to_string().repeat(length);
    let label = if label.is_empty() { String::new() } else { format!(" {}", visible(label)) };
    format!(
        "{:width$} {gutter}|{reset}\n{gutter}{:<width$} |{reset} {}\n{:width$} {gutter}|{reset} {:indent$}{color}{marks}{label}{reset}\n",
        "",
        span.line,
        visible(&shown),
        "",
        "",
    )
}

/// Replaces what a terminal would obey or hide, one character for one character: a manifest may come from anybody.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
                '\u{fffd}'
            }
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Turns byte offsets into lines and columns.
pub(crate) struct LineIndex<'a> {
    source: &'a str,
    starts: Vec<usize>,
}

impl<'a> LineIndex<'a> {
    pub(crate) fn new(source: &'a str) -> Self {
        let after_breaks = source.match_indices('\n').map(|(at, _)| at + 1);
        Self { source, starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    /// Locates the bytes from `start` to `end`; offsets beyond the end or within a character are moved to the left.
    pub(crate) fn span(&self, start: usize, end: usize) -> Span {
        let floor = |offset: usize| {
            let mut offset = offset.min(self.source.len());
            while !self.source.is_char_boundary(offset) {
                offset -= 1;
            }
            offset
        };
        let start = floor(start);
        let end = floor(end).max(start);
        let line = self.starts.partition_point(|first| *first <= start);
        let first = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self.source.get(first..start).unwrap_or_default().chars().count() + 1;
        Span { line, column, start, end }
    }
}
