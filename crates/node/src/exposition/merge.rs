//! The pages of many spacecores as one: families with the samples of all, each with the labels that say whose it is.

use std::collections::{BTreeMap, BTreeSet};

use super::{Kind, Page};

/// The most series of all pages together.
pub const ALL_MAX: usize = 20_000;

/// Whose a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whose<'a> {
    /// The deployment.
    pub deployment: &'a str,
    /// The spacecore.
    pub spacecore: &'a str,
}

/// All pages.
#[derive(Debug, Default)]
pub struct Merged<'a> {
    /// By the family's name.
    pub families: BTreeMap<&'a str, Together<'a>>,
    /// How many series of each page were left out, its own count with it, in the order in which they came.
    pub left_out: Vec<(Whose<'a>, u64)>,
    /// How many series there are of each page.
    pub taken: Vec<(Whose<'a>, usize)>,
}

/// One family of many pages.
#[derive(Debug)]
pub struct Together<'a> {
    /// What the numbers are.
    pub kind: Kind,
    /// What is measured, for people; as the first page has it.
    pub help: &'a str,
    /// With whose they are as the first labels.
    pub samples: Vec<Shown<'a>>,
}

/// One number.
#[derive(Debug)]
pub struct Shown<'a> {
    /// The metric's name, with its suffix.
    pub name: &'a str,
    /// Names and values.
    pub labels: Vec<(&'a str, &'a str)>,
    /// The number as it is written.
    pub value: &'a str,
}

/// Merges pages. A family of another kind than an earlier page has it, and one that has a name of another family's, is left out:
/// no reader could make anything of both.
pub fn merge<'a>(pages: impl IntoIterator<Item = (Whose<'a>, &'a Page)>) -> Merged<'a> {
    let mut merged = Merged::default();
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut all = 0usize;
    for (whose, page) in pages {
        let (mut left_out, mut taken) = (page.left_out, 0usize);
        for (name, family) in &page.families {
            let count = family.samples.len();
            let samples: BTreeSet<&str> = family.samples.iter().map(|sample| sample.name.as_str()).collect();
            let is_another_s =
                samples.iter().any(|sample| names.get(sample).is_some_and(|owner| owner != name));
            let is_other = merged.families.get(name.as_str()).is_some_and(|known| known.kind != family.kind);
            if is_another_s || is_other || all.saturating_add(count) > ALL_MAX {
                left_out = left_out.saturating_add(count as u64);
                continue;
            }
            (all, taken) = (all.saturating_add(count), taken.saturating_add(count));
            names.extend(samples.into_iter().map(|sample| (sample, name.as_str())));
            let together = merged.families.entry(name).or_insert_with(|| Together {
                kind: family.kind,
                help: &family.help,
                samples: Vec::new(),
            });
            together.samples.extend(family.samples.iter().map(|sample| {
                let own = [("deployment", whose.deployment), ("spacecore", whose.spacecore)];
                let labels = sample.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                Shown {
                    name: &sample.name,
                    labels: own.into_iter().chain(labels).collect(),
                    value: &sample.value,
                }
            }));
        }
        merged.left_out.push((whose, left_out));
        merged.taken.push((whose, taken));
    }
    merged
}
