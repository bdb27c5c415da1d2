//! Amounts of the token.

use std::fmt;
use std::str::FromStr;

use super::{UnitError, fit, split, textual};

const NANOS_PER_TOKEN: u64 = 1_000_000_000;

/// An amount of the network's token in thousand-millionths: `"0.25"`, `3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(pub u64);

impl Amount {
    /// Gives the thousand-millionths of a token.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
}

textual!(Amount, r"^\s*[0-9]+(\.[0-9]{1,9})?\s*$", "0.25", "an amount of the token, such as \"0.25\"");

impl FromStr for Amount {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text, "an amount of the token such as \"0.25\"")?;
        if !unit.is_empty() {
            return Err(UnitError::UnknownUnit {
                unit: unit.to_owned(),
                what: "price",
                known: "none: it is a bare number of tokens",
            });
        }
        let value = match number.times(NANOS_PER_TOKEN.into()) {
            Some((_, false)) => {
                return Err(UnitError::TooFine { text: text.to_owned(), smallest: "0.000000001" });
            }
            Some((value, true)) => Some(value),
            None => None,
        };
        fit(value, text, "amount", Self(u64::MAX)).map(Self)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, nanos) = (self.0 / NANOS_PER_TOKEN, self.0 % NANOS_PER_TOKEN);
        if nanos == 0 {
            return f.pad(&whole.to_string());
        }
        let fraction = format!("{nanos:09}");
        f.pad(&format!("{whole}.{}", fraction.trim_end_matches('0')))
    }
}
