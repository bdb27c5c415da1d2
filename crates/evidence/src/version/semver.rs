//! Semantic Versioning 2.0.0, section 11; with what is found in the wild: a `v` before it, fewer or more than three
//! numbers.

use std::cmp::Ordering;

use super::{is_digit, numbers, padded};

pub(super) fn compare(left: &str, right: &str) -> Ordering {
    let ((left, left_before), (right, right_before)) = (parts(left), parts(right));
    let identifiers = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    let zero = "0".to_owned();
    padded(&identifiers(left), &identifiers(right), &zero, |left, right| identifier(left, right)).then_with(
        || match (left_before, right_before) {
            (None, None) => Ordering::Equal,
            // What comes before a release has one more part than it.
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => {
                let (left, right) = (identifiers(left), identifiers(right));
                let pairs = left.iter().zip(&right);
                pairs
                    .map(|(left, right)| identifier(left, right))
                    .find(|order| order.is_ne())
                    .unwrap_or_else(|| left.len().cmp(&right.len()))
            }
        },
    )
}

/// The numbers, and what comes before the release. What names the build doesn't count.
fn parts(version: &str) -> (&str, Option<&str>) {
    let version = version.strip_prefix(['v', 'V', '=']).unwrap_or(version);
    let version = version.split('+').next().unwrap_or_default();
    match version.split_once('-') {
        Some((core, before)) => (core, Some(before)),
        None => (version, None),
    }
}

/// Numbers come before words.
fn identifier(left: &str, right: &str) -> Ordering {
    let is_number = |text: &str| text.chars().all(is_digit);
    match (is_number(left), is_number(right)) {
        (true, true) => numbers(left, right),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => left.cmp(right),
    }
}
