//! Which of two versions is the newer one, as each packaging system has it.
//!
//! Every order here is total: any two texts compare, the proper ones as their system compares them, and what isn't a
//! version of the system in some fixed place. So a version of a stranger can't make a search go astray.

mod apk;
mod composer;
mod dpkg;
mod gem;
mod pep440;
mod rpm;
mod semver;

use std::cmp::Ordering;

/// The longest version that is looked at, in bytes; what stands behind is left out.
const LONGEST: usize = 1024;

/// How a packaging system orders versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Debian and what derives from it (Debian Policy, section 5.6.12; `deb-version(7)`).
    Dpkg,
    /// Alpine and what derives from it (apk-tools, `apk-package(5)`).
    Apk,
    /// RPM: epoch, version, release (`rpm-version(7)`).
    Rpm,
    /// Semantic Versioning 2.0, read leniently: npm, crates.io, Go.
    SemVer,
    /// Python's (PEP 440).
    Pep440,
    /// RubyGems' (`Gem::Version`).
    Gem,
    /// Composer's, for PHP.
    Composer,
}

impl Scheme {
    /// Every scheme.
    pub const ALL: [Scheme; 7] = [
        Scheme::Dpkg,
        Scheme::Apk,
        Scheme::Rpm,
        Scheme::SemVer,
        Scheme::Pep440,
        Scheme::Gem,
        Scheme::Composer,
    ];

    /// Compares two versions.
    #[must_use]
    pub fn compare(self, left: &str, right: &str) -> Ordering {
        let (left, right) = (shortened(left), shortened(right));
        match self {
            Scheme::Dpkg => dpkg::compare(left, right),
            Scheme::Apk => apk::compare(left, right),
            Scheme::Rpm => rpm::compare(left, right),
            Scheme::SemVer => semver::compare(left, right),
            Scheme::Pep440 => pep440::compare(left, right),
            Scheme::Gem => gem::compare(left, right),
            Scheme::Composer => composer::compare(left, right),
        }
    }
}

fn shortened(version: &str) -> &str {
    let version = version.trim();
    if version.len() <= LONGEST {
        return version;
    }
    let end = (0..=LONGEST).rev().find(|end| version.is_char_boundary(*end)).unwrap_or(0);
    &version[..end]
}

/// Compares whole numbers of any length, written in digits.
fn numbers(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

/// Cuts off what consists of the characters that `is` says.
fn take_while<'t>(text: &mut &'t str, is: impl Fn(char) -> bool) -> &'t str {
    let end = text.find(|c| !is(c)).unwrap_or(text.len());
    let (taken, rest) = text.split_at(end);
    *text = rest;
    taken
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// Compares two lists, where what is missing counts as `nothing`.
fn padded<T>(left: &[T], right: &[T], nothing: &T, compare: impl Fn(&T, &T) -> Ordering) -> Ordering {
    (0..left.len().max(right.len()))
        .map(|index| compare(left.get(index).unwrap_or(nothing), right.get(index).unwrap_or(nothing)))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests;
