//! What was found, each flaw once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Rating;

/// A package that has a flaw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The package's name in its ecosystem: for Debian and Alpine, its source's.
    pub package: String,
    /// The version that is installed.
    pub version: String,
    /// What is installed of it, by name.
    pub installed: Vec<String>,
    /// The ecosystem, with its release.
    pub ecosystem: String,
    /// The advisory, by the name that people know best: a CVE's if there is one.
    pub advisory: String,
    /// Its other names.
    pub aliases: Vec<String>,
    /// One line about it.
    pub summary: String,
    /// How bad it is, if that is said.
    pub rating: Option<Rating>,
    /// The first version without the flaw, if there is one.
    pub fixed: Option<String>,
}

impl Finding {
    /// Every name of the advisory.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.advisory.as_str()).chain(self.aliases.iter().map(String::as_str))
    }
}

/// Puts together what several advisories say of the same flaw in the same package: those that share a name. The result
/// is sorted: the worst first, then by package, version and advisory.
#[must_use]
pub fn merge(findings: Vec<Finding>) -> Vec<Finding> {
    type Of = (String, String, String);
    let mut groups: BTreeMap<Of, Vec<Finding>> = BTreeMap::new();
    for finding in findings {
        let of = (finding.ecosystem.clone(), finding.package.clone(), finding.version.clone());
        groups.entry(of).or_default().push(finding);
    }
    let mut merged: Vec<Finding> = groups.into_values().flat_map(merge_package).collect();
    merged.sort_by(|left, right| {
        let key =
            |finding: &Finding| (finding.package.clone(), finding.version.clone(), finding.advisory.clone());
        right.rating.cmp(&left.rating).then_with(|| key(left).cmp(&key(right)))
    });
    merged
}

fn merge_package(findings: Vec<Finding>) -> Vec<Finding> {
    // Which group a name belongs to; groups that meet become one.
    let mut of_name: BTreeMap<String, usize> = BTreeMap::new();
    let mut groups: Vec<Vec<Finding>> = Vec::new();
    for finding in findings {
        let mut met: Vec<usize> = finding.names().filter_map(|name| of_name.get(name).copied()).collect();
        met.sort_unstable();
        met.dedup();
        let group = met.first().copied().unwrap_or(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        for other in met.into_iter().skip(1) {
            let moved = std::mem::take(&mut groups[other]);
            groups[group].extend(moved);
            of_name.values_mut().filter(|of| **of == other).for_each(|of| *of = group);
        }
        for name in finding.names() {
            of_name.insert(name.to_owned(), group);
        }
        groups[group].push(finding);
    }
    groups.into_iter().filter_map(merge_group).collect()
}

fn merge_group(mut group: Vec<Finding>) -> Option<Finding> {
    group.sort_by(|left, right| left.advisory.cmp(&right.advisory));
    let mut names: Vec<String> = group.iter().flat_map(Finding::names).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    let rating = group.iter().filter_map(|finding| finding.rating.clone()).max();
    let fixed = group.iter().find_map(|finding| finding.fixed.clone());
    let summary = group.iter().map(|finding| &finding.summary).find(|summary| !summary.is_empty()).cloned();
    let first = group.into_iter().next()?;
    // One flaw has one CVE; an advisory about several keeps its own name.
    let mut known = names.iter().filter(|name| name.starts_with("CVE-"));
    let advisory = match (known.next(), known.next()) {
        (Some(only), None) => only.clone(),
        _ => first.advisory.clone(),
    };
    names.retain(|name| *name != advisory);
    Some(Finding { advisory, aliases: names, rating, fixed, summary: summary.unwrap_or_default(), ..first })
}
