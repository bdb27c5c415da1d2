//! A package: what it is called, where it came from, and by which name advisories speak of it.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::Distribution;
use crate::digest::Digest;

/// The longest name or version, in bytes.
const LONGEST: usize = 512;

/// A kind of package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Of dpkg.
    Deb,
    /// Of apk.
    Apk,
    /// Of RPM.
    Rpm,
    /// Of Node.js.
    Npm,
    /// Of Python.
    PyPi,
    /// Of Rust.
    Cargo,
    /// Of Go.
    Go,
    /// Of Ruby.
    Gem,
    /// Of PHP.
    Composer,
}

impl Kind {
    /// The type in a package URL (purl specification, "Known purl types").
    fn purl_type(self) -> &'static str {
        match self {
            Kind::Deb => "deb",
            Kind::Apk => "apk",
            Kind::Rpm => "rpm",
            Kind::Npm => "npm",
            Kind::PyPi => "pypi",
            Kind::Cargo => "cargo",
            Kind::Go => "golang",
            Kind::Gem => "gem",
            Kind::Composer => "composer",
        }
    }
}

/// A package as its list has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, if the list says so.
    pub arch: Option<String>,
    /// The name and version of what it was built from, if that has another.
    pub source: Option<(String, String)>,
}

impl Record {
    pub(super) fn new(name: impl Into<String>, version: impl Into<String>) -> Record {
        Record { name: name.into(), version: version.into(), ..Record::default() }
    }

    /// Tells whether everything in it could be a name and a version.
    pub(super) fn is_proper(&self) -> bool {
        let proper = |text: &str| {
            !text.is_empty()
                && text.len() <= LONGEST
                && !text.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        let source = self.source.iter().flat_map(|(name, version)| [name, version]);
        [&self.name, &self.version].into_iter().chain(&self.arch).chain(source).all(|text| proper(text))
    }
}

/// Where a package was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The layer, by its diff_id (for merged layers, by a digest of theirs).
    pub layer: Digest,
    /// The file that lists it, from the image's root.
    pub path: String,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Of what kind it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, if it has one.
    pub arch: Option<String>,
    /// Its ecosystem as OSV names it, with the distribution's release: "Debian:12". `None` if OSV has none for it.
    pub ecosystem: Option<String>,
    /// The name by which advisories speak of it: that of its source for Debian and Alpine.
    pub advised_name: String,
    /// The version that advisories speak of.
    pub advised_version: String,
    /// The package URL.
    pub purl: String,
    /// Where it was found, at most 16 places.
    pub locations: Vec<Location>,
}

impl Package {
    pub(crate) fn new(
        kind: Kind,
        record: Record,
        locations: Vec<Location>,
        distribution: Option<&Distribution>,
    ) -> Package {
        let ecosystem = match kind {
            Kind::Deb | Kind::Apk | Kind::Rpm => distribution.and_then(|known| known.ecosystem(kind)),
            Kind::Npm => Some("npm".to_owned()),
            Kind::PyPi => Some("PyPI".to_owned()),
            Kind::Cargo => Some("crates.io".to_owned()),
            Kind::Go => Some("Go".to_owned()),
            Kind::Gem => Some("RubyGems".to_owned()),
            Kind::Composer => Some("Packagist".to_owned()),
        };
        let purl = purl(kind, &record, distribution);
        let Record { name, version, arch, source } = record;
        // Advisories for RPM speak of the packages that are installed.
        let advised = source.filter(|_| kind != Kind::Rpm);
        let (advised_name, advised_version) = advised.unwrap_or_else(|| (name.clone(), version.clone()));
        Package { kind, name, version, arch, ecosystem, advised_name, advised_version, purl, locations }
    }
}

/// Writes a package URL (purl specification, "Rules for each purl component").
fn purl(kind: Kind, record: &Record, distribution: Option<&Distribution>) -> String {
    let mut purl = format!("pkg:{}/", kind.purl_type());
    let namespace = match kind {
        Kind::Deb => Some(distribution.map_or("debian", |known| known.id.as_str())),
        Kind::Apk => Some(distribution.map_or("alpine", |known| known.id.as_str())),
        Kind::Rpm => distribution.map(|known| known.id.as_str()),
        _ => None,
    };
    if let Some(namespace) = namespace {
        encode(&mut purl, namespace);
        purl.push('/');
    }
    for (index, part) in record.name.split('/').enumerate() {
        if index > 0 {
            purl.push('/');
        }
        encode(&mut purl, part);
    }
    let (epoch, version) = match (kind, record.version.split_once(':')) {
        (Kind::Rpm, Some((epoch, version))) => (Some(epoch), version),
        _ => (None, record.version.as_str()),
    };
    purl.push('@');
    encode(&mut purl, version);
    let of_distribution = matches!(kind, Kind::Deb | Kind::Apk | Kind::Rpm);
    let distro = distribution.filter(|_| of_distribution).map(|known| match &known.version {
        Some(version) => format!("{}-{version}", known.id),
        None => known.id.clone(),
    });
    let upstream = record.source.as_ref().map(|(name, version)| match *version == record.version {
        true => name.clone(),
        false => format!("{name}@{version}"),
    });
    let qualifiers = [
        ("arch", record.arch.clone()),
        ("distro", distro),
        ("epoch", epoch.map(str::to_owned)),
        ("upstream", upstream),
    ];
    let mut sign = '?';
    for (name, value) in qualifiers.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        purl.push(sign);
        purl.push_str(name);
        purl.push('=');
        encode(&mut purl, &value);
        sign = '&';
    }
    purl
}

/// Percent-encodes everything but letters, digits and `.-_~:`.
fn encode(to: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                to.push(char::from(byte));
            }
            // Writing to a string can't fail.
            other => drop(write!(to, "%{other:02X}")),
        }
    }
}
