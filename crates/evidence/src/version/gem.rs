//! `Gem::Version` of RubyGems: runs of digits and of letters; words come before numbers, and so before a release.

use std::cmp::Ordering;

use super::{is_digit, numbers, padded, take_while};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Word(String),
    Number(String),
}

impl Segment {
    fn is_zero(&self) -> bool {
        matches!(self, Segment::Number(digits) if digits.chars().all(|digit| digit == '0'))
    }
}

pub(super) fn compare(left: &str, right: &str) -> Ordering {
    let zero = Segment::Number("0".to_owned());
    padded(&segments(left), &segments(right), &zero, |left, right| match (left, right) {
        (Segment::Word(left), Segment::Word(right)) => left.cmp(right),
        (Segment::Number(left), Segment::Number(right)) => numbers(left, right),
        (Segment::Word(_), Segment::Number(_)) => Ordering::Less,
        (Segment::Number(_), Segment::Word(_)) => Ordering::Greater,
    })
}

/// The segments, without the zeros before the first word and at the end.
fn segments(version: &str) -> Vec<Segment> {
    let version = version.replace('-', ".pre.");
    let mut rest = version.as_str();
    let mut segments: Vec<Segment> = Vec::new();
    let mut worded = false;
    let trim = |segments: &mut Vec<Segment>| {
        while segments.last().is_some_and(Segment::is_zero) {
            segments.pop();
        }
    };
    while let Some(first) = rest.chars().next() {
        if is_digit(first) {
            segments.push(Segment::Number(take_while(&mut rest, is_digit).to_owned()));
        } else if first.is_ascii_alphabetic() {
            if !worded {
                trim(&mut segments);
                worded = true;
            }
            segments.push(Segment::Word(take_while(&mut rest, |c| c.is_ascii_alphabetic()).to_owned()));
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    trim(&mut segments);
    segments
}
