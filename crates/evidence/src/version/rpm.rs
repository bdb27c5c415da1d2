//! `[epoch:]version[-release]` (`rpm-version(7)`).

use std::cmp::Ordering;

use super::{is_digit, numbers, take_while};

pub(super) fn compare(left: &str, right: &str) -> Ordering {
    let ((left_epoch, left), (right_epoch, right)) = (epoch(left), epoch(right));
    let split = |version| str::rsplit_once(version, '-').unwrap_or((version, ""));
    let ((left, left_release), (right, right_release)) = (split(left), split(right));
    numbers(left_epoch, right_epoch)
        .then_with(|| tokens(left).cmp(&tokens(right)))
        .then_with(|| tokens(left_release).cmp(&tokens(right_release)))
}

fn epoch(version: &str) -> (&str, &str) {
    match version.split_once(':') {
        Some((epoch, rest)) if epoch.chars().all(is_digit) => (epoch, rest),
        _ => ("0", version),
    }
}

/// A piece of a version; what separates pieces doesn't count. In the order in which they compare.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Token<'v> {
    Tilde,
    End,
    Caret,
    Word(&'v str),
    Number(Number<'v>),
}

#[derive(Debug)]
struct Number<'v>(&'v str);

impl Ord for Number<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        numbers(self.0, other.0)
    }
}

impl PartialOrd for Number<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number<'_> {}

fn tokens(mut version: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    while let Some(first) = version.chars().next() {
        tokens.push(match first {
            '~' => Token::Tilde,
            '^' => Token::Caret,
            digit if is_digit(digit) => {
                tokens.push(Token::Number(Number(take_while(&mut version, is_digit))));
                continue;
            }
            letter if letter.is_ascii_alphabetic() => {
                tokens.push(Token::Word(take_while(&mut version, |c| c.is_ascii_alphabetic())));
                continue;
            }
            separator => {
                version = &version[separator.len_utf8()..];
                continue;
            }
        });
        version = &version[1..];
    }
    tokens.push(Token::End);
    tokens
}
