//! The rates of networks.

use std::fmt;
use std::str::FromStr;

use super::{UnitError, fit, split, textual};

const BITS: [(&str, u64); 5] =
    [("Tbps", 1_000_000_000_000), ("Gbps", 1_000_000_000), ("Mbps", 1_000_000), ("kbps", 1_000), ("bps", 1)];

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
            return Err(UnitError::BytesForBits { text: text.to_owned() });
        }
        let unknown = || UnitError::UnknownUnit {
            unit: unit.to_owned(),
            what: "bandwidth",
            known: "bps, kbps, Mbps, Gbps and Tbps (a bare number is in Gbps)",
        };
        let factor = if unit.is_empty() {
            1_000_000_000
        } else {
            let prefix =
                unit.strip_suffix("bps").or_else(|| unit.strip_suffix("bit/s")).ok_or_else(unknown)?;
            let canonical = format!("{prefix}bps");
            BITS.iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(&canonical))
                .map(|(_, factor)| *factor)
                .ok_or_else(unknown)?
        };
        let value = match number.times(factor.into()) {
            Some((_, false)) => {
                return Err(UnitError::TooFine { text: text.to_owned(), smallest: "1bps" });
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
