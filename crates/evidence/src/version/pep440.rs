//! `[N!]N(.N)*[{a|b|rc}N][.postN][.devN][+local]` (PEP 440), in all the spellings that it takes. What isn't such a version
//! comes before all that are, in the order of its bytes.

use std::cmp::Ordering;

use super::{is_digit, numbers, padded, take_while};

#[derive(Debug, PartialEq, Eq)]
struct Version {
    epoch: String,
    release: Vec<String>,
    /// Which of alpha, beta and candidate, and its number.
    before: Option<(u8, String)>,
    post: Option<String>,
    dev: Option<String>,
    local: Vec<String>,
}

pub(super) fn compare(left: &str, right: &str) -> Ordering {
    match (parse(left), parse(right)) {
        (Some(left), Some(right)) => versions(&left, &right),
        (None, None) => left.cmp(right),
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
    }
}

fn versions(left: &Version, right: &Version) -> Ordering {
    let zero = "0".to_owned();
    numbers(&left.epoch, &right.epoch)
        .then_with(|| padded(&left.release, &right.release, &zero, |left, right| numbers(left, right)))
        .then_with(|| stage(left, right))
        .then_with(|| option(left.post.as_ref(), right.post.as_ref()))
        // Development comes before what it leads to.
        .then_with(|| dev(left, right))
        .then_with(|| local(&left.local, &right.local))
}

/// A development release of a release comes first, then alpha, beta and candidate, then the release.
fn stage(left: &Version, right: &Version) -> Ordering {
    let rank = |version: &Version| match (&version.before, &version.post, &version.dev) {
        (Some((letter, _)), _, _) => *letter,
        (None, None, Some(_)) => 0,
        (None, _, _) => 9,
    };
    rank(left).cmp(&rank(right)).then_with(|| match (&left.before, &right.before) {
        (Some((_, left)), Some((_, right))) => numbers(left, right),
        _ => Ordering::Equal,
    })
}

/// Development comes before what it leads to.
fn dev(left: &Version, right: &Version) -> Ordering {
    match (&left.dev, &right.dev) {
        (Some(left), Some(right)) => numbers(left, right),
        (left, right) => left.is_none().cmp(&right.is_none()),
    }
}

/// Nothing comes before a number.
fn option(left: Option<&String>, right: Option<&String>) -> Ordering {
    match (left, right) {
        (Some(left), Some(right)) => numbers(left, right),
        (left, right) => left.is_some().cmp(&right.is_some()),
    }
}

/// Words come before numbers, and a list before what goes on behind it.
fn local(left: &[String], right: &[String]) -> Ordering {
    let is_number = |text: &String| text.chars().all(is_digit);
    left.iter()
        .zip(right)
        .map(|(left, right)| match (is_number(left), is_number(right)) {
            (true, true) => numbers(left, right),
            (false, false) => left.cmp(right),
            (left, right) => left.cmp(&right),
        })
        .find(|order| order.is_ne())
        .unwrap_or_else(|| left.len().cmp(&right.len()))
}

fn parse(text: &str) -> Option<Version> {
    let lower = text.trim().to_ascii_lowercase();
    let mut rest = lower.strip_prefix('v').unwrap_or(&lower);
    let mut epoch = "0".to_owned();
    if let Some((before, behind)) = rest.split_once('!') {
        epoch = digits(before)?.to_owned();
        rest = behind;
    }
    let mut release = vec![digits(take_while(&mut rest, is_digit))?.to_owned()];
    while let Some(mut behind) = rest.strip_prefix('.') {
        let number = take_while(&mut behind, is_digit);
        if number.is_empty() {
            break;
        }
        release.push(number.to_owned());
        rest = behind;
    }
    let letters =
        [("alpha", 1), ("a", 1), ("beta", 2), ("b", 2), ("preview", 3), ("pre", 3), ("rc", 3), ("c", 3)];
    let before = letters.iter().find_map(|(word, letter)| Some((*letter, labelled(&mut rest, word)?)));
    let mut post = ["post", "rev", "r"].iter().find_map(|word| labelled(&mut rest, word));
    if post.is_none()
        && let Some(mut behind) = rest.strip_prefix('-')
    {
        let number = take_while(&mut behind, is_digit);
        if !number.is_empty() {
            post = Some(number.to_owned());
            rest = behind;
        }
    }
    let dev = labelled(&mut rest, "dev");
    let local = match rest.strip_prefix('+') {
        Some(local) => local.split(['.', '-', '_']).map(str::to_owned).collect(),
        None if rest.is_empty() => Vec::new(),
        None => return None,
    };
    let is_word = |word: &String| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric());
    local.iter().all(is_word).then_some(Version { epoch, release, before, post, dev, local })
}

fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.chars().all(is_digit)).then_some(text)
}

/// Reads a word with its number, each perhaps behind a separator; without a number it is 0.
fn labelled(rest: &mut &str, word: &str) -> Option<String> {
    let separators = ['.', '-', '_'];
    let behind = rest.strip_prefix(separators).unwrap_or(rest).strip_prefix(word)?;
    let mut number_at = behind.strip_prefix(separators).unwrap_or(behind);
    let number = take_while(&mut number_at, is_digit);
    if number.is_empty() {
        // A letter behind it makes it another word.
        if behind.starts_with(|c: char| c.is_ascii_alphabetic())
            && !behind.starts_with("dev")
            && !behind.starts_with("post")
        {
            return None;
        }
        *rest = behind;
        return Some("0".to_owned());
    }
    *rest = number_at;
    Some(number.to_owned())
}
