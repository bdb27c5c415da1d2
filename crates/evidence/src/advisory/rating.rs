//! How bad it is: CVSS vectors and the words of databases.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use cvss::Cvss;
use serde::{Deserialize, Serialize};

/// A level of severity, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Below 4.0 in CVSS.
    Low,
    /// From 4.0.
    Medium,
    /// From 7.0.
    High,
    /// From 9.0.
    Critical,
}

impl Level {
    /// Every level, the mildest first.
    pub const ALL: [Level; 4] = [Level::Low, Level::Medium, Level::High, Level::Critical];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Low => "low",
            Level::Medium => "medium",
            Level::High => "high",
            Level::Critical => "critical",
        }
    }

    /// Reads a database's word; `None` for one that says nothing.
    pub(super) fn from_word(word: &str) -> Option<Level> {
        Some(match word.to_ascii_lowercase().trim_end_matches('*') {
            "low" | "unimportant" | "negligible" | "minor" => Level::Low,
            "medium" | "moderate" => Level::Medium,
            "high" | "important" => Level::High,
            "critical" => Level::Critical,
            _ => return None,
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no severity; low, medium, high and critical are")]
pub struct UnknownLevel {
    /// What was given.
    pub found: String,
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Level, UnknownLevel> {
        let known = Level::ALL.into_iter().find(|level| level.as_str() == text);
        known.ok_or_else(|| UnknownLevel { found: text.to_owned() })
    }
}

/// What an advisory says of its severity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rating {
    /// How bad it is.
    pub level: Level,
    /// The CVSS score, such as "9.8"; none where the database has only a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
}

impl Ord for Rating {
    /// The milder is the less.
    fn cmp(&self, other: &Self) -> Ordering {
        // Scores have one digit behind the point, so that the longer is the greater.
        let score = |rating: &Self| rating.score.as_ref().map(|score| (score.len(), score.clone()));
        self.level.cmp(&other.level).then_with(|| score(self).cmp(&score(other)))
    }
}

impl PartialOrd for Rating {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Rating {
    pub(super) fn word(word: &str) -> Option<Rating> {
        Level::from_word(word).map(|level| Rating { level, score: None })
    }

    /// Reads a CVSS vector of version 3 or 4 and computes its score.
    pub(super) fn vector(vector: &str) -> Option<Rating> {
        if vector.len() > 512 {
            return None;
        }
        // A vector without them would score 0.
        let required: &[&str] = match vector.trim().split('/').next() {
            Some("CVSS:3.0" | "CVSS:3.1") => &["AV", "AC", "PR", "UI", "S", "C", "I", "A"],
            Some("CVSS:4.0") => &["AV", "AC", "AT", "PR", "UI", "VC", "VI", "VA", "SC", "SI", "SA"],
            _ => return None,
        };
        let has = |metric: &&str| vector.split('/').any(|part| part.split(':').next() == Some(metric));
        if !required.iter().all(has) {
            return None;
        }
        let cvss = vector.trim().parse::<Cvss>().ok()?;
        let level = match cvss.severity() {
            cvss::Severity::None | cvss::Severity::Low => Level::Low,
            cvss::Severity::Medium => Level::Medium,
            cvss::Severity::High => Level::High,
            cvss::Severity::Critical => Level::Critical,
        };
        Some(Rating { level, score: Some(format!("{:.1}", cvss.score())) })
    }
}
