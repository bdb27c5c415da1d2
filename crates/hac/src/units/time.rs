//! Lengths of time.

use std::fmt;
use std::str::FromStr;

use super::{UnitError, fit, split, textual};

const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A length of time in milliseconds: `30s`, `1m30s`, `500ms`, `2h`, `1d`; a bare number is in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(pub u64);

impl Duration {
    /// Makes a duration of so many seconds, or the longest one if that is more.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Gives the number of milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Gives the standard library's type.
    pub const fn as_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

textual!(
    Duration,
    r"^\s*([0-9]+(\.[0-9]+)?|([0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)\s*)+)\s*$",
    "30s",
    "a length of time, such as \"30s\", \"1m30s\" or \"500ms\""
);

impl FromStr for Duration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        const EXAMPLE: &str = "a length of time such as \"30s\" or \"1m30s\"";
        let mut rest = text.trim();
        let mut total: u128 = 0;
        let mut first = true;
        while first || !rest.is_empty() {
            let (number, after) = split(rest, EXAMPLE)?;
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, following) = after.split_at(end);
            let factor = match unit {
                "" if first && following.is_empty() => 1000,
                _ => TIMES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or_else(
                    || UnitError::UnknownUnit {
                        unit: unit.to_owned(),
                        what: "time",
                        known: "ms, s, m, h and d",
                    },
                )?,
            };
            let part = match number.times(factor.into()) {
                Some((_, false)) => {
                    return Err(UnitError::TooFine { text: text.to_owned(), smallest: "1ms" });
                }
                Some((value, true)) => Some(value),
                None => None,
            };
            total =
                u128::from(fit(part.and_then(|part| part.checked_add(total)), text, "time", Self(u64::MAX))?);
            rest = following.trim_start();
            first = false;
        }
        fit(Some(total), text, "time", Self(u64::MAX)).map(Self)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.pad("0s");
        }
        let mut rest = self.0;
        let mut text = String::new();
        for (name, factor) in TIMES {
            let count = rest / factor;
            rest %= factor;
            if count > 0 {
                text.push_str(&format!("{count}{name}"));
            }
        }
        f.pad(&text)
    }
}
