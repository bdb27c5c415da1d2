//! `digits{.digits}{letter}{_suffix{digits}}{~commit}{-rdigits}` (`apk-package(5)`).
//!
//! Where two versions differ in the kind of their next piece, the kinds decide: a suffix of before a release comes
//! first, then the end, then the other kinds in the reverse of the order in which they may stand.

use std::cmp::Ordering;

use super::{is_digit, numbers, take_while};

/// Suffixes of before a release, in order.
const BEFORE: [&str; 4] = ["alpha", "beta", "pre", "rc"];
/// Suffixes of after a release, in order.
const AFTER: [&str; 5] = ["cvs", "svn", "git", "hg", "p"];

#[derive(Debug, PartialEq, Eq)]
enum Token<'v> {
    /// A suffix out of [`BEFORE`].
    Before(usize),
    /// What is no version any more.
    Rest(&'v str),
    End,
    Revision(&'v str),
    Commit(&'v str),
    SuffixNumber(&'v str),
    /// A suffix out of [`AFTER`].
    After(usize),
    Letter(u8),
    /// Behind a dot. With a zero at its start it compares as text.
    Digits(&'v str),
    First(&'v str),
}

impl Token<'_> {
    fn rank(&self) -> u8 {
        match self {
            Token::Before(_) => 0,
            Token::Rest(_) => 1,
            Token::End => 2,
            Token::Revision(_) => 3,
            Token::Commit(_) => 4,
            Token::SuffixNumber(_) => 5,
            Token::After(_) => 6,
            Token::Letter(_) => 7,
            Token::Digits(_) => 8,
            Token::First(_) => 9,
        }
    }
}

pub(super) fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (tokens(left), tokens(right));
    left.iter().zip(&right).map(|(left, right)| piece(left, right)).find(|order| order.is_ne()).unwrap_or(
        // One can't go on where the other ends: every list has its end or rest last.
        Ordering::Equal,
    )
}

fn piece(left: &Token<'_>, right: &Token<'_>) -> Ordering {
    match (left, right) {
        (Token::Digits(left), Token::Digits(right)) if left.starts_with('0') || right.starts_with('0') => {
            left.cmp(right)
        }
        (Token::First(left), Token::First(right))
        | (Token::Digits(left), Token::Digits(right))
        | (Token::SuffixNumber(left), Token::SuffixNumber(right))
        | (Token::Revision(left), Token::Revision(right)) => numbers(left, right),
        (Token::Before(left), Token::Before(right)) | (Token::After(left), Token::After(right)) => {
            left.cmp(right)
        }
        (Token::Letter(left), Token::Letter(right)) => left.cmp(right),
        (Token::Commit(left), Token::Commit(right)) | (Token::Rest(left), Token::Rest(right)) => {
            left.cmp(right)
        }
        (left, right) => left.rank().cmp(&right.rank()),
    }
}

/// The stage of a version that was read last; none comes before the one before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Digits,
    Letter,
    Suffix,
    Commit,
    Revision,
}

fn tokens(version: &str) -> Vec<Token<'_>> {
    let mut rest = version;
    let first = take_while(&mut rest, is_digit);
    if first.is_empty() {
        return vec![Token::Rest(version)];
    }
    let mut tokens = vec![Token::First(first)];
    let mut stage = Stage::Digits;
    while !rest.is_empty() {
        let here = rest;
        let Some(next) = next(&mut rest, stage, &mut tokens) else {
            tokens.push(Token::Rest(here));
            return tokens;
        };
        stage = next;
    }
    tokens.push(Token::End);
    tokens
}

/// Reads one piece; gives its stage, or nothing where there is none that may stand here.
fn next<'v>(rest: &mut &'v str, stage: Stage, tokens: &mut Vec<Token<'v>>) -> Option<Stage> {
    let mut chars = rest.chars();
    let (first, behind) = (chars.next()?, chars.as_str());
    let mut taken = behind;
    let (read, token) = match first {
        'a'..='z' if stage == Stage::Digits => (Stage::Letter, Token::Letter(first as u8)),
        '.' if stage == Stage::Digits => {
            (Stage::Digits, Token::Digits(filled(take_while(&mut taken, is_digit))?))
        }
        '_' if stage <= Stage::Suffix => {
            let word = take_while(&mut taken, |c| c.is_ascii_lowercase());
            let place = |list: &[&str]| list.iter().position(|known| *known == word);
            let token = place(&BEFORE).map(Token::Before).or_else(|| place(&AFTER).map(Token::After))?;
            (Stage::Suffix, token)
        }
        '~' if stage < Stage::Commit => {
            (Stage::Commit, Token::Commit(filled(take_while(&mut taken, |c| c.is_ascii_hexdigit()))?))
        }
        '-' if stage < Stage::Revision => {
            taken = behind.strip_prefix('r')?;
            (Stage::Revision, Token::Revision(filled(take_while(&mut taken, is_digit))?))
        }
        _ => return None,
    };
    let is_suffix = matches!(token, Token::Before(_) | Token::After(_));
    tokens.push(token);
    if is_suffix {
        let number = take_while(&mut taken, is_digit);
        if !number.is_empty() {
            tokens.push(Token::SuffixNumber(number));
        }
    }
    *rest = taken;
    Some(read)
}

fn filled(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
