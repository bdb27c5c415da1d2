//! The JSON of OSV. Unknown keys are left alone, and what isn't needed isn't read.

use serde::Deserialize;
use serde_json::Value;

use super::{Advisory, Affected, Event, Level, Range, Rating, scheme};

/// The most packages that one advisory may be about.
const MOST_AFFECTED: usize = 65_536;
/// The most characters of a summary that are kept.
const LONGEST_SUMMARY: usize = 200;
/// The longest name, in bytes: of an advisory, an ecosystem or a package.
const LONGEST_NAME: usize = 512;

/// A file that isn't an advisory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OsvError {
    /// It isn't the JSON that OSV describes.
    #[error("this isn't an advisory in OSV's format")]
    Json(#[source] serde_json::Error),
    /// It has no name, or one that is too long.
    #[error("the advisory's \"id\" is empty or longer than {LONGEST_NAME} bytes")]
    Id,
    /// It is about too much.
    #[error("the advisory {id} is about {count} packages; at most {MOST_AFFECTED} are read")]
    TooMany {
        /// Its name.
        id: String,
        /// How many there are.
        count: usize,
    },
}

#[derive(Deserialize)]
struct Raw {
    id: String,
    withdrawn: Option<String>,
    aliases: Option<Vec<String>>,
    upstream: Option<Vec<String>>,
    summary: Option<String>,
    details: Option<String>,
    severity: Option<Vec<RawSeverity>>,
    affected: Option<Vec<RawAffected>>,
    database_specific: Option<Value>,
}

#[derive(Deserialize)]
struct RawSeverity {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    score: String,
}

#[derive(Deserialize)]
struct RawAffected {
    package: Option<RawPackage>,
    severity: Option<Vec<RawSeverity>>,
    ranges: Option<Vec<RawRange>>,
    versions: Option<Vec<String>>,
    ecosystem_specific: Option<Value>,
    database_specific: Option<Value>,
}

#[derive(Deserialize)]
struct RawPackage {
    ecosystem: String,
    name: String,
}

#[derive(Deserialize)]
struct RawRange {
    #[serde(rename = "type")]
    kind: String,
    events: Option<Vec<RawEvent>>,
}

#[derive(Deserialize)]
struct RawEvent {
    introduced: Option<String>,
    fixed: Option<String>,
    last_affected: Option<String>,
    limit: Option<String>,
}

impl Advisory {
    /// Reads an advisory; `None` if it is withdrawn. Packages of ecosystems whose versions aren't understood here are
    /// left out, and so are ranges of Git's commits.
    ///
    /// # Errors
    /// [`OsvError`] for anything that isn't an advisory.
    pub fn parse(bytes: &[u8]) -> Result<Option<Advisory>, OsvError> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(OsvError::Json)?;
        if raw.withdrawn.is_some() {
            return Ok(None);
        }
        if raw.id.is_empty() || raw.id.len() > LONGEST_NAME {
            return Err(OsvError::Id);
        }
        let affected = raw.affected.unwrap_or_default();
        if affected.len() > MOST_AFFECTED {
            return Err(OsvError::TooMany { id: raw.id, count: affected.len() });
        }
        let rating = severities(raw.severity.as_deref()).or_else(|| worded(raw.database_specific.as_ref()));
        // A package that was made to do harm; those who list them don't rate them.
        let malicious =
            Some(Rating { level: Level::Critical, score: None }).filter(|_| raw.id.starts_with("MAL-"));
        let rating = rating.or(malicious);
        let summary = raw.summary.filter(|summary| !summary.is_empty()).or(raw.details).unwrap_or_default();
        let summary = summary.lines().next().unwrap_or_default().chars().take(LONGEST_SUMMARY).collect();
        let names = |names: Option<Vec<String>>| {
            let names = names.unwrap_or_default().into_iter();
            names.filter(|name| name.len() <= LONGEST_NAME && *name != raw.id).collect()
        };
        Ok(Some(Advisory {
            aliases: names(raw.aliases),
            upstream: names(raw.upstream),
            affected: affected.into_iter().filter_map(package).collect(),
            id: raw.id,
            summary,
            rating,
        }))
    }
}

fn package(raw: RawAffected) -> Option<Affected> {
    let RawPackage { ecosystem, name } = raw.package?;
    let scheme = scheme(&ecosystem)?;
    if name.is_empty() || name.len() > LONGEST_NAME || ecosystem.len() > LONGEST_NAME {
        return None;
    }
    let ranges = raw.ranges.unwrap_or_default().into_iter().filter_map(range).collect();
    let specific =
        || worded(raw.ecosystem_specific.as_ref()).or_else(|| worded(raw.database_specific.as_ref()));
    let rating = severities(raw.severity.as_deref()).or_else(specific);
    let versions = raw.versions.unwrap_or_default();
    Some(Affected { ecosystem, name, rating, ranges, versions }.without_repeats(scheme))
}

fn range(raw: RawRange) -> Option<Range> {
    let semver = match raw.kind.as_str() {
        "SEMVER" => true,
        "ECOSYSTEM" => false,
        _ => return None,
    };
    let events = raw.events.unwrap_or_default().into_iter().flat_map(|event| {
        [
            event.introduced.map(Event::Introduced),
            event.fixed.map(Event::Fixed),
            event.last_affected.map(Event::LastAffected),
            event.limit.map(Event::Limit),
        ]
    });
    Some(Range { semver, events: events.flatten().collect() })
}

/// The worst that the vectors say; where there are none, the worst word.
fn severities(given: Option<&[RawSeverity]>) -> Option<Rating> {
    let given = given.unwrap_or_default();
    let vectors = given.iter().filter(|severity| severity.kind.starts_with("CVSS_V"));
    let words = given.iter().filter(|severity| !severity.kind.starts_with("CVSS_V"));
    vectors
        .filter_map(|severity| Rating::vector(&severity.score))
        .max()
        .or_else(|| words.filter_map(|severity| Rating::word(&severity.score)).max())
}

/// What a database says in its own place.
fn worded(specific: Option<&Value>) -> Option<Rating> {
    let specific = specific?;
    ["severity", "urgency"].iter().find_map(|key| Rating::word(specific.get(key)?.as_str()?))
}
