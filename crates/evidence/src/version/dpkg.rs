//! `[epoch:]upstream[-revision]` (Debian Policy, section 5.6.12).

use std::cmp::Ordering;

use super::{is_digit, numbers, take_while};

pub(super) fn compare(left: &str, right: &str) -> Ordering {
    let ((left_epoch, left), (right_epoch, right)) = (epoch(left), epoch(right));
    let ((left, left_revision), (right, right_revision)) = (revision(left), revision(right));
    numbers(left_epoch, right_epoch)
        .then_with(|| part(left, right))
        .then_with(|| part(left_revision, right_revision))
}

fn epoch(version: &str) -> (&str, &str) {
    match version.split_once(':') {
        Some((epoch, rest)) if !epoch.is_empty() && epoch.chars().all(is_digit) => (epoch, rest),
        _ => ("0", version),
    }
}

/// A missing revision is the same as "0".
fn revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

/// Compares by turns what isn't digits, by character, and what is, as a number.
fn part(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let no_digit = |c: char| !is_digit(c);
        let (left_words, right_words) = (take_while(&mut left, no_digit), take_while(&mut right, no_digit));
        let order = words(left_words, right_words);
        if order.is_ne() {
            return order;
        }
        let order = numbers(take_while(&mut left, is_digit), take_while(&mut right, is_digit));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// The tilde comes before the end, letters come behind it, and everything else behind them.
fn words(left: &str, right: &str) -> Ordering {
    let rank = |byte: Option<&u8>| match byte {
        Some(b'~') => 0,
        None => 1,
        Some(letter) if letter.is_ascii_alphabetic() => u16::from(*letter) + 1,
        Some(other) => u16::from(*other) + 512,
    };
    let (left, right) = (left.as_bytes(), right.as_bytes());
    (0..left.len().max(right.len()))
        .map(|at| rank(left.get(at)).cmp(&rank(right.get(at))))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}
