//! What a workload says of itself: a page of metrics in the text form that Prometheus reads.
//!
//! Read is version 0.0.4 of the form, and of OpenMetrics 1.0 what is different in it (`# EOF`, `# UNIT`, exemplars, which are left
//! out). Whoever serves the page is hostile, so it is read strictly and within bounds:
//!
//! - A line that isn't understood makes the whole page worthless: half of what somebody measures misleads.
//! - A series beyond a bound ([`SERIES_MAX`], [`LABELS_MAX`], lengths), or one that was there already, is left out and counted.
//! - Times of samples are left out: the node says when it has read the page.
//!
//! Names are kept. What begins with `vimana_` gets `workload_` before it, and a label `deployment` or `spacecore` becomes
//! `exported_deployment` or `exported_spacecore`, as with Prometheus, so that nobody speaks for the node or for another.

pub mod merge;
mod sample;

use std::collections::{BTreeMap, BTreeSet};

use self::sample::Line;

/// The most series of one page.
pub const SERIES_MAX: usize = 1000;
/// The most labels of a series.
pub const LABELS_MAX: usize = 20;
/// The longest name of a metric or a label in bytes.
pub const NAME_MAX: usize = 128;
/// The longest value of a label in bytes.
pub const VALUE_MAX: usize = 256;
/// The longest text in bytes that says what a metric is.
const HELP_MAX: usize = 256;

/// A page that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// What is measured, by name.
    pub families: BTreeMap<String, Family>,
    /// How many series were left out.
    pub left_out: u64,
}

impl Page {
    /// The sum of all samples of this name, whatever their labels; nothing where there is none.
    pub fn sum(&self, name: &str) -> Option<f64> {
        let samples = self.families.values().flat_map(|family| &family.samples);
        let values = samples
            .filter(|sample| sample.name == name)
            .filter_map(|sample| sample.value.parse::<f64>().ok());
        values.reduce(|sum, value| sum + value)
    }
}

/// Samples that belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Family {
    /// What the numbers are.
    pub kind: Kind,
    /// What is measured, for people.
    pub help: String,
    /// In the order of the page.
    pub samples: Vec<Sample>,
}

/// What a family's numbers are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// They rise, or begin anew. The family's name lacks the `_total` of its samples.
    Counter,
    /// They rise and fall.
    Gauge,
    /// Buckets, their sum and their count.
    Histogram,
    /// Quantiles, their sum and their count.
    Summary,
    /// Nobody says.
    #[default]
    Unknown,
}

/// One number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The metric's name, with the suffix that the kind demands.
    pub name: String,
    /// Names and values, in the page's order.
    pub labels: Vec<(String, String)>,
    /// The number as it is written: a decimal number, `NaN`, `+Inf` or `-Inf`.
    pub value: String,
}

/// Why a page can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the page {problem}")]
pub struct PageError {
    /// Counts from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Kind {
    fn read(word: &str) -> Option<Self> {
        Some(match word {
            "counter" => Self::Counter,
            "gauge" | "info" | "stateset" => Self::Gauge,
            "histogram" | "gaugehistogram" => Self::Histogram,
            "summary" => Self::Summary,
            "untyped" | "unknown" => Self::Unknown,
            _ => return None,
        })
    }

    /// What samples have behind the family's name.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["_total"],
            Self::Histogram => &["_bucket", "_sum", "_count"],
            Self::Summary => &["", "_sum", "_count"],
            Self::Gauge | Self::Unknown => &[""],
        }
    }
}

/// Reads a page.
///
/// # Errors
/// The first line that isn't understood.
pub fn read(text: &str) -> Result<Page, PageError> {
    let mut reader = Reader::default();
    for (index, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line).trim_matches([' ', '\t']);
        reader.line(line).map_err(|problem| PageError { line: index.saturating_add(1), problem })?;
    }
    reader.page.families.retain(|_, family| !family.samples.is_empty());
    Ok(reader.page)
}

#[derive(Default)]
struct Reader {
    page: Page,
    /// Kinds by the name that the page gives them.
    kinds: BTreeMap<String, Kind>,
    helps: BTreeMap<String, String>,
    seen: BTreeSet<(String, Vec<(String, String)>)>,
    ended: bool,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), &'static str> {
        if line.is_empty() {
            return Ok(());
        }
        if self.ended {
            return Err("stands behind the page's end");
        }
        match line.strip_prefix('#') {
            Some(comment) => self.comment(comment.trim_start_matches([' ', '\t'])),
            None => self.sample(sample::read(line)?),
        }
    }

    fn comment(&mut self, comment: &str) -> Result<(), &'static str> {
        let mut words = comment.splitn(3, [' ', '\t']);
        match (words.next(), words.next(), words.next()) {
            (Some("EOF"), None, None) => self.ended = true,
            (Some("TYPE"), Some(name), Some(kind)) => {
                let kind = Kind::read(kind.trim()).ok_or("has a type that nobody knows")?;
                if !sample::is_name(name) {
                    return Err("gives a type to what can't be a metric's name");
                }
                // More than there can be series of say nothing about any.
                if self.kinds.len() < SERIES_MAX && self.kinds.insert(name.to_owned(), kind).is_some() {
                    return Err("gives a second type to a metric");
                }
            }
            (Some("TYPE"), ..) => return Err("lacks a metric's name or type"),
            (Some("HELP"), Some(name), Some(help)) if self.helps.len() < SERIES_MAX => {
                self.helps.insert(name.to_owned(), hac::text::printable(help, HELP_MAX));
            }
            _ => {}
        }
        Ok(())
    }

    fn sample(&mut self, line: Line) -> Result<(), &'static str> {
        let names = std::iter::once(&line.name).chain(line.labels.iter().map(|(name, _)| name));
        let is_long = names.into_iter().any(|name| name.len() > NAME_MAX)
            || line.labels.iter().any(|(_, value)| value.len() > VALUE_MAX)
            || line.labels.len() > LABELS_MAX;
        let has = |name: &str| line.labels.iter().any(|(known, _)| known == name);
        let is_ambiguous =
            ["deployment", "spacecore"].iter().any(|name| has(name) && has(&format!("exported_{name}")));
        let (said, kind) = self.family_of(&line.name);
        let mut sorted = line.labels.clone();
        sorted.sort();
        if is_long
            || is_ambiguous
            || self.seen.len() >= SERIES_MAX
            || !self.seen.insert((line.name.clone(), sorted))
        {
            self.page.left_out = self.page.left_out.saturating_add(1);
            return Ok(());
        }
        let help = self.helps.get(&said).cloned().unwrap_or_default();
        let name = own(&match kind {
            Kind::Counter => said.strip_suffix("_total").unwrap_or(&said).to_owned(),
            _ => said,
        });
        let labels = line.labels.into_iter().map(|(name, value)| (exported(name), value)).collect();
        let sample = Sample { name: own(&line.name), labels, value: line.value };
        let family =
            self.page.families.entry(name).or_insert_with(|| Family { kind, help, ..Family::default() });
        if family.kind == kind {
            family.samples.push(sample);
        } else {
            self.page.left_out = self.page.left_out.saturating_add(1);
        }
        Ok(())
    }

    /// The family that a sample of this name belongs to, by the name that the page gives it.
    fn family_of(&self, name: &str) -> (String, Kind) {
        // In version 0.0.4 a counter's family has the whole name.
        if let Some(kind) = self.kinds.get(name) {
            let fits = kind.suffixes().contains(&"") || *kind == Kind::Counter && name.ends_with("_total");
            return (name.to_owned(), if fits { *kind } else { Kind::Unknown });
        }
        let with_suffix = ["_total", "_bucket", "_sum", "_count"].into_iter().find_map(|suffix| {
            let base = name.strip_suffix(suffix)?;
            let kind = self.kinds.get(base).filter(|kind| kind.suffixes().contains(&suffix))?;
            Some((base.to_owned(), *kind))
        });
        with_suffix.unwrap_or_else(|| (name.to_owned(), Kind::Unknown))
    }
}

/// A name that isn't one of the node's.
fn own(name: &str) -> String {
    if name.starts_with("vimana_") { format!("workload_{name}") } else { name.to_owned() }
}

fn exported(name: String) -> String {
    match name.as_str() {
        "deployment" | "spacecore" => format!("exported_{name}"),
        _ => name,
    }
}

#[cfg(test)]
mod tests;
