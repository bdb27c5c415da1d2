//! Advisories in the format of OSV (schema 1.7), and whether one speaks of a version of a package.
//!
//! [`Advisory::parse`] reads one, [`Affected::judge`] says whether it is about a version, [`merge`] shows what several
//! advisories say of the same flaw once.

mod finding;
mod osv;
mod range;
mod rating;

use serde::{Deserialize, Serialize};

use crate::version::Scheme;

pub use finding::{Finding, merge};
pub use osv::OsvError;
pub use range::{Event, Range, Verdict};
pub use rating::{Level, Rating, UnknownLevel};

/// One advisory. What is withdrawn never becomes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advisory {
    /// Its name in its database.
    pub id: String,
    /// Its names in other databases.
    pub aliases: Vec<String>,
    /// The advisories that it was made from: a distribution's has those of the software.
    pub upstream: Vec<String>,
    /// One line.
    pub summary: String,
    /// How bad it is, if it says so.
    pub rating: Option<Rating>,
    /// What it is about.
    pub affected: Vec<Affected>,
}

/// A package that an advisory is about, and which versions of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affected {
    /// The ecosystem, with its release if it has one: "Debian:12".
    pub ecosystem: String,
    /// The package's name there.
    pub name: String,
    /// How bad it is for this package, if that is said apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating: Option<Rating>,
    /// From which version to which.
    pub ranges: Vec<Range>,
    /// Single versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
}

/// Splits an ecosystem's name into the ecosystem and the release that it speaks of.
#[must_use]
pub fn split_ecosystem(ecosystem: &str) -> (&str, Option<&str>) {
    match ecosystem.split_once(':') {
        Some((family, release)) => (family, Some(release)),
        None => (ecosystem, None),
    }
}

/// The order of an ecosystem's versions; `None` for one that isn't known here.
#[must_use]
pub fn scheme(ecosystem: &str) -> Option<Scheme> {
    Some(match split_ecosystem(ecosystem).0 {
        "Debian" | "Ubuntu" | "Echo" => Scheme::Dpkg,
        "Alpine" | "Wolfi" | "Chainguard" | "Alpaquita" | "BellSoft Hardened Containers" | "MinimOS" => {
            Scheme::Apk
        }
        "Red Hat" | "Rocky Linux" | "AlmaLinux" | "SUSE" | "openSUSE" | "openEuler" | "Mageia"
        | "Photon OS" | "Azure Linux" => Scheme::Rpm,
        "npm" | "crates.io" | "Go" => Scheme::SemVer,
        "PyPI" => Scheme::Pep440,
        "RubyGems" => Scheme::Gem,
        "Packagist" => Scheme::Composer,
        _ => return None,
    })
}

/// Tells whether what an advisory says of one ecosystem holds in another: "Debian" speaks of all of "Debian:12", and
/// "Red Hat:enterprise_linux:9::baseos" of a part of "Red Hat:enterprise_linux:9".
#[must_use]
pub fn covers(advisory: &str, package: &str) -> bool {
    if advisory == package {
        return true;
    }
    let (family, release) = split_ecosystem(advisory);
    let (of, installed) = split_ecosystem(package);
    family == of
        && match (release, installed) {
            (None, _) => true,
            (Some(release), Some(installed)) => {
                family == "Red Hat"
                    && release.strip_prefix(installed).is_some_and(|rest| rest.starts_with(':'))
            }
            (Some(_), None) => false,
        }
}

#[cfg(test)]
mod tests;
