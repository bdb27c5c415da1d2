//! Quantities as people write them: sizes, rates, CPU, time, amounts of the token.
//!
//! Every type keeps a whole number of its smallest unit, is read by [`std::str::FromStr`], and prints a canonical
//! form that reads back as the same value. Arithmetic is done in whole numbers, and what doesn't fit is refused.

use std::fmt;
use std::str::FromStr;

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
    let no_number = || UnitError::NoNumber {
        text: text.to_owned(),
        example,
    };
    let trimmed = text.trim();
    let end = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
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
        return Err(UnitError::TooManyDigits {
            text: text.to_owned(),
        });
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
    value
        .and_then(|value| u64::try_from(value).ok())
        .ok_or_else(|| UnitError::TooLarge {
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

const BINARY: [(&str, u64); 6] = [
    ("Ei", 1 << 60),
    ("Pi", 1 << 50),
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
];
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
                .or_else(|| {
                    DECIMAL
                        .iter()
                        .find(|(name, _)| name[..1].eq_ignore_ascii_case(prefix))
                })
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

const BITS: [(&str, u64); 5] = [
    ("Tbps", 1_000_000_000_000),
    ("Gbps", 1_000_000_000),
    ("Mbps", 1_000_000),
    ("kbps", 1_000),
    ("bps", 1),
];

/// A rate in bits a second, as networks have it.
///
/// Reads `1Gbps`, `100Mbps`, `64kbps`, `9600bps`; a bare number is in Gbps. `MBps` is refused, because it could mean
/// either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BitRate(pub u64);

impl BitRate {
    /// Gives the number of bits a second.
    pub const fn as_bits_per_second(self) -> u64 {
        self.0
    }
}

textual!(
    BitRate,
    r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgGtT]?(bps|bit/s))?\s*$",
    "1Gbps",
    "a rate in bits a second, such as \"1Gbps\" or \"100Mbps\" (a bare number is in Gbps)"
);

impl FromStr for BitRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text, "a rate such as \"1Gbps\" or \"100Mbps\"")?;
        if unit.contains('B') {
            return Err(UnitError::BytesForBits {
                text: text.to_owned(),
            });
        }
        let unknown = || UnitError::UnknownUnit {
            unit: unit.to_owned(),
            what: "bandwidth",
            known: "bps, kbps, Mbps, Gbps and Tbps (a bare number is in Gbps)",
        };
        let factor = if unit.is_empty() {
            1_000_000_000
        } else {
            let prefix = unit
                .strip_suffix("bps")
                .or_else(|| unit.strip_suffix("bit/s"))
                .ok_or_else(unknown)?;
            let canonical = format!("{prefix}bps");
            BITS.iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(&canonical))
                .map(|(_, factor)| *factor)
                .ok_or_else(unknown)?
        };
        let value = match number.times(factor.into()) {
            Some((_, false)) => {
                return Err(UnitError::TooFine {
                    text: text.to_owned(),
                    smallest: "1bps",
                });
            }
            Some((value, true)) => Some(value),
            None => None,
        };
        fit(value, text, "rate", Self(u64::MAX)).map(Self)
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = BITS
            .iter()
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
            .unwrap_or(&("bps", 1));
        f.pad(&format!("{}{name}", self.0 / factor))
    }
}

/// An amount of CPU in thousandths of one core: `"4"`, `4`, `0.5` and `"500m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MilliCpu(pub u32);

impl MilliCpu {
    /// Makes an amount of so many whole cores, or the largest amount if that is more.
    pub const fn from_cores(cores: u32) -> Self {
        Self(cores.saturating_mul(1000))
    }

    /// Gives the thousandths of a core.
    pub const fn as_millis(self) -> u32 {
        self.0
    }

    /// Gives the whole vCPUs that a virtual machine needs to hold this amount: at least one.
    pub const fn vcpus(self) -> u32 {
        let cores = self.0.div_ceil(1000);
        if cores == 0 { 1 } else { cores }
    }
}

textual!(
    MilliCpu,
    r"^\s*[0-9]+((\.[0-9]+)?|\s*m)\s*$",
    "500m",
    "an amount of CPU, such as \"4\", 0.5 or \"500m\""
);

impl FromStr for MilliCpu {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text, "cores such as \"4\", or thousandths such as \"500m\"")?;
        let factor = match unit {
            "" => 1000,
            "m" => 1,
            _ => {
                return Err(UnitError::UnknownUnit {
                    unit: unit.to_owned(),
                    what: "CPU",
                    known: "m (thousandths of a core); a bare number is in cores",
                });
            }
        };
        let too_large = || UnitError::TooLarge {
            text: text.to_owned(),
            what: "CPU",
            largest: Self(u32::MAX).to_string(),
        };
        match number.times(factor) {
            Some((_, false)) => Err(UnitError::TooFine {
                text: text.to_owned(),
                smallest: "1m",
            }),
            Some((value, true)) => u32::try_from(value).map(Self).map_err(|_| too_large()),
            None => Err(too_large()),
        }
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            f.pad(&(self.0 / 1000).to_string())
        } else {
            f.pad(&format!("{}m", self.0))
        }
    }
}

const TIMES: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

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
            let end = after
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(after.len());
            let (unit, following) = after.split_at(end);
            let factor = match unit {
                "" if first && following.is_empty() => 1000,
                _ => TIMES
                    .iter()
                    .find(|(name, _)| *name == unit)
                    .map(|(_, factor)| *factor)
                    .ok_or_else(|| UnitError::UnknownUnit {
                        unit: unit.to_owned(),
                        what: "time",
                        known: "ms, s, m, h and d",
                    })?,
            };
            let part = match number.times(factor.into()) {
                Some((_, false)) => {
                    return Err(UnitError::TooFine {
                        text: text.to_owned(),
                        smallest: "1ms",
                    });
                }
                Some((value, true)) => Some(value),
                None => None,
            };
            total = u128::from(fit(
                part.and_then(|part| part.checked_add(total)),
                text,
                "time",
                Self(u64::MAX),
            )?);
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

textual!(
    Amount,
    r"^\s*[0-9]+(\.[0-9]{1,9})?\s*$",
    "0.25",
    "an amount of the token, such as \"0.25\""
);

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
                return Err(UnitError::TooFine {
                    text: text.to_owned(),
                    smallest: "0.000000001",
                });
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
