//! Quantities as people write them: sizes, rates, CPU, time, amounts of the token.
//!
//! Every type keeps a whole number of its smallest unit, is read by [`std::str::FromStr`], and prints a canonical
//! form that reads back as the same value. Arithmetic is done in whole numbers, and what doesn't fit is refused.

mod amount;
mod cpu;
mod rate;
mod size;
mod time;

use std::fmt;

pub use amount::Amount;
pub use cpu::MilliCpu;
pub use rate::BitRate;
pub use size::{ByteRate, Bytes};
pub use time::Duration;

/// Why a quantity couldn't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// There is no number at the start.
    #[error("{text:?} doesn't start with a number; write {example}")]
    NoNumber {
        /// What was given.
        text: String,
        /// What is right.
        example: &'static str,
    },
    /// The number has more digits than any value needs.
    #[error("{text:?} has too many digits")]
    TooManyDigits {
        /// What was given.
        text: String,
    },
    /// The unit after the number isn't known.
    #[error("{unit:?} isn't a unit of {what}; known are {known}")]
    UnknownUnit {
        /// The unit that was given.
        unit: String,
        /// What is measured.
        what: &'static str,
        /// The units that are known.
        known: &'static str,
    },
    /// The value doesn't fit.
    #[error("{text:?} is larger than the largest {what}, {largest}")]
    TooLarge {
        /// What was given.
        text: String,
        /// What is measured.
        what: &'static str,
        /// The largest value, in its canonical form.
        largest: String,
    },
    /// More digits than are kept.
    #[error("{text:?} is finer than {smallest}, the smallest step")]
    TooFine {
        /// What was given.
        text: String,
        /// The smallest step.
        smallest: &'static str,
    },
    /// A rate in bytes where bits are meant.
    #[error("{text:?} is a rate in bytes; this one is in bits: write Mbps, not MBps (1 MBps = 8 Mbps)")]
    BytesForBits {
        /// What was given.
        text: String,
    },
}

/// A decimal number without a sign: `digits * 10^-scale`.
struct Decimal {
    digits: u128,
    scale: u32,
}

impl Decimal {
    /// Multiplies by `factor`; `None` if it overflows, `Some(Err)` with what is left over if the result isn't whole.
    fn times(&self, factor: u128) -> Option<(u128, bool)> {
        let product = self.digits.checked_mul(factor)?;
        let divisor = 10u128.checked_pow(self.scale)?;
        Some((product / divisor, product % divisor == 0))
    }
}

/// Splits `12.5Gi` into the number and what follows it, without blanks around.
fn split<'a>(text: &'a str, example: &'static str) -> Result<(Decimal, &'a str), UnitError> {
    let no_number = || UnitError::NoNumber { text: text.to_owned(), example };
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() && !fraction.contains('.') => (whole, fraction),
        Some(_) => return Err(no_number()),
        None => (number, ""),
    };
    if whole.is_empty() {
        return Err(no_number());
    }
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    // 30 digits hold every value that fits in any unit, and u128 holds 30 digits.
    if whole.len() + fraction.len() > 30 {
        return Err(UnitError::TooManyDigits { text: text.to_owned() });
    }
    let digits = format!("0{whole}{fraction}").parse().map_err(|_| no_number())?;
    let scale = u32::try_from(fraction.len()).map_err(|_| no_number())?;
    Ok((Decimal { digits, scale }, unit.trim_start()))
}

/// Narrows to `u64`, or says that the value is too large.
fn fit(
    value: Option<u128>,
    text: &str,
    what: &'static str,
    largest: impl fmt::Display,
) -> Result<u64, UnitError> {
    value.and_then(|value| u64::try_from(value).ok()).ok_or_else(|| UnitError::TooLarge {
        text: text.to_owned(),
        what,
        largest: largest.to_string(),
    })
}

/// Gives serde and JSON Schema the textual form of a quantity.
macro_rules! textual {
    ($name:ident, $pattern:literal, $example:literal, $description:literal) => {
        impl $name {
            /// What the manifest expects here, for errors.
            pub const EXPECTED: &'static str = $description;
            /// A value as one writes it.
            pub const EXAMPLE: &'static str = $example;
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "anyOf": [
                        { "type": "string", "pattern": $pattern },
                        { "type": "number", "minimum": 0 },
                    ],
                    "examples": [$example],
                })
            }
        }
    };
}

use textual;
