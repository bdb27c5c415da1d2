//! Ranges of versions, and whether a version lies in them (OSV schema, "Evaluation").

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::Affected;
use crate::version::Scheme;

/// The most pairs of versions and events that are compared to leave versions out that needn't be listed.
const MOST_COMPARED: usize = 1 << 20;

/// Versions between events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Whether its versions compare as Semantic Versioning has it, whatever the ecosystem.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub semver: bool,
    /// In any order.
    pub events: Vec<Event>,
}

/// Where a range begins or ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The first version that has the flaw; "0" comes before all.
    Introduced(String),
    /// The first one that has it no more.
    Fixed(String),
    /// The last one that has it.
    LastAffected(String),
    /// Versions from here on aren't spoken of.
    Limit(String),
}

/// What an advisory says of a version that has the flaw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The first version behind it that doesn't have it, if there is one.
    pub fixed: Option<String>,
}

impl Range {
    /// Tells whether a version has the flaw.
    #[must_use]
    pub fn contains(&self, scheme: Scheme, version: &str) -> bool {
        let scheme = if self.semver { Scheme::SemVer } else { scheme };
        let mut limits = self.events.iter().filter_map(|event| match event {
            Event::Limit(limit) => Some(limit),
            _ => None,
        });
        let unlimited = |limit: &String| limit == "*" || scheme.compare(version, limit).is_lt();
        if limits.clone().next().is_some() && !limits.any(unlimited) {
            return false;
        }
        let mut events: Vec<&Event> = self.events.iter().collect();
        events.sort_by(|left, right| order(scheme, left, right));
        events.iter().fold(false, |affected, event| match event {
            Event::Introduced(from) => affected || from == "0" || scheme.compare(version, from).is_ge(),
            Event::Fixed(fixed) => affected && scheme.compare(version, fixed).is_lt(),
            Event::LastAffected(last) => affected && scheme.compare(version, last).is_le(),
            Event::Limit(_) => affected,
        })
    }

    /// The first fixed version behind this one.
    fn fixed_after(&self, scheme: Scheme, version: &str) -> Option<&str> {
        let scheme = if self.semver { Scheme::SemVer } else { scheme };
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Fixed(fixed) if scheme.compare(fixed, version).is_gt() => Some(fixed.as_str()),
                _ => None,
            })
            .min_by(|left, right| scheme.compare(left, right))
    }
}

fn order(scheme: Scheme, left: &Event, right: &Event) -> Ordering {
    let version = |event: &Event| match event {
        Event::Introduced(from) if from == "0" => None,
        Event::Introduced(version)
        | Event::Fixed(version)
        | Event::LastAffected(version)
        | Event::Limit(version) => Some(version.clone()),
    };
    match (version(left), version(right)) {
        (Some(left), Some(right)) => scheme.compare(&left, &right),
        (left, right) => left.is_some().cmp(&right.is_some()),
    }
}

impl Affected {
    /// Says whether a version of the package has the flaw.
    #[must_use]
    pub fn judge(&self, scheme: Scheme, version: &str) -> Option<Verdict> {
        let in_range = self.ranges.iter().find(|range| range.contains(scheme, version));
        let listed = || self.versions.iter().any(|listed| scheme.compare(listed, version).is_eq());
        if in_range.is_none() && !listed() {
            return None;
        }
        let ranges: &[Range] = in_range.map_or(&self.ranges, std::slice::from_ref);
        let fixes = ranges.iter().filter_map(|range| range.fixed_after(scheme, version));
        let fixed = fixes.min_by(|left, right| scheme.compare(left, right)).map(str::to_owned);
        Some(Verdict { fixed })
    }

    /// Leaves out the listed versions that lie in a range anyway.
    pub(super) fn without_repeats(mut self, scheme: Scheme) -> Self {
        let events: usize = self.ranges.iter().map(|range| range.events.len()).sum();
        if self.versions.len().saturating_mul(events) > MOST_COMPARED {
            return self;
        }
        let ranges = std::mem::take(&mut self.ranges);
        self.versions.retain(|version| !ranges.iter().any(|range| range.contains(scheme, version)));
        self.ranges = ranges;
        self
    }
}
