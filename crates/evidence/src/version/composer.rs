//! Composer's versions: PHP's `version_compare` over four numbers and a stability.

use std::cmp::Ordering;

use super::{is_digit, numbers, take_while};

/// A piece of a version, in the order in which they compare.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Token {
    Word(String),
    Dev,
    Alpha,
    Beta,
    Candidate,
    End,
    Number(Number),
    Patch,
}

#[derive(Debug)]
struct Number(String);

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        numbers(&self.0, &other.0)
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

/// How many numbers every version has, once Composer has filled it up.
const NUMBERS: usize = 4;

pub(super) fn compare(left: &str, right: &str) -> Ordering {
    tokens(left).cmp(&tokens(right))
}

fn tokens(version: &str) -> Vec<Token> {
    let lower = version.to_ascii_lowercase();
    let lower = lower.strip_prefix('v').unwrap_or(&lower);
    let mut rest = lower.split('+').next().unwrap_or_default();
    let mut tokens = Vec::new();
    let fill = |tokens: &mut Vec<Token>| {
        while tokens.len() < NUMBERS {
            tokens.push(Token::Number(Number("0".to_owned())));
        }
    };
    let mut filled = false;
    while let Some(first) = rest.chars().next() {
        if is_digit(first) {
            tokens.push(Token::Number(Number(take_while(&mut rest, is_digit).to_owned())));
        } else if first.is_ascii_alphabetic() {
            if !filled {
                fill(&mut tokens);
                filled = true;
            }
            tokens.push(match take_while(&mut rest, |c| c.is_ascii_alphabetic()) {
                "dev" => Token::Dev,
                "alpha" | "a" => Token::Alpha,
                "beta" | "b" => Token::Beta,
                "rc" | "c" => Token::Candidate,
                "stable" => continue,
                "pl" | "p" | "patch" => Token::Patch,
                word => Token::Word(word.to_owned()),
            });
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    if !filled {
        fill(&mut tokens);
    }
    tokens.push(Token::End);
    tokens
}
