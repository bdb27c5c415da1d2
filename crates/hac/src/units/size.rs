//! Sizes, and the rates of disks.

use std::fmt;
use std::str::FromStr;

use super::{UnitError, fit, split, textual};

const BINARY: [(&str, u64); 6] =
    [("Ei", 1 << 60), ("Pi", 1 << 50), ("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
const DECIMAL: [(&str, u64); 6] = [
    ("EB", 1_000_000_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
];

/// A size in bytes.
///
/// Reads `512Mi` and `512MiB` (2^20), `512M`, `512MB` and `512mb` (10^6; the `i` makes the difference, case doesn't),
/// the same for K, G, T, P and E, and a bare number of bytes. A fraction is taken down to whole bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Makes a size of so many MiB, or the largest size if that is more.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << 20))
    }

    /// Makes a size of so many GiB, or the largest size if that is more.
    pub const fn from_gib(gib: u64) -> Self {
        Self(gib.saturating_mul(1 << 30))
    }

    /// Gives the number of bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Gives the number of whole MiB, rounded up.
    pub const fn as_mib_ceil(self) -> u64 {
        self.0.div_ceil(1 << 20)
    }
}

textual!(
    Bytes,
    r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgGtTpPeE][iI]?)?[bB]?\s*$",
    "8Gi",
    "a size, such as \"8Gi\", \"512MiB\" or \"100MB\""
);

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text, "a size such as \"8Gi\" or \"512MB\"")?;
        let lower = unit.to_ascii_lowercase();
        let prefix = lower.strip_suffix('b').unwrap_or(&lower);
        let factor = if prefix.is_empty() {
            1
        } else {
            BINARY
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(prefix))
                .or_else(|| DECIMAL.iter().find(|(name, _)| name[..1].eq_ignore_ascii_case(prefix)))
                .map(|(_, factor)| *factor)
                .ok_or_else(|| UnitError::UnknownUnit {
                    unit: unit.to_owned(),
                    what: "size",
                    known: "Ki, Mi, Gi, Ti (powers of 1024) and KB, MB, GB, TB (powers of 1000)",
                })?
        };
        let value = number.times(u128::from(factor)).map(|(value, _)| value);
        fit(value, text, "size", u64::MAX).map(Self)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |table: &'static [(&'static str, u64)]| {
            table
                .iter()
                .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
                .map(|(name, factor)| (self.0 / factor, *name))
        };
        let shown = match (exact(&BINARY), exact(&DECIMAL)) {
            (Some(binary), Some(decimal)) if decimal.0 < binary.0 => Some(decimal),
            (Some(binary), _) => Some(binary),
            (None, decimal) => decimal,
        };
        match shown {
            Some((count, unit)) => f.pad(&format!("{count}{unit}")),
            None => f.pad(&self.0.to_string()),
        }
    }
}

/// A rate in bytes a second, as disks have it: a size, with or without `/s` after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteRate(pub u64);

textual!(
    ByteRate,
    r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgGtTpPeE][iI]?)?[bB]?(/s)?\s*$",
    "200MB/s",
    "a rate in bytes a second, such as \"200MB/s\""
);

impl FromStr for ByteRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let trimmed = text.trim();
        let size: Bytes = trimmed.strip_suffix("/s").unwrap_or(trimmed).parse()?;
        Ok(Self(size.0))
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/s", Bytes(self.0)))
    }
}
