//! Amounts of CPU.

use std::fmt;
use std::str::FromStr;

use super::{UnitError, split, textual};

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
            Some((_, false)) => Err(UnitError::TooFine { text: text.to_owned(), smallest: "1m" }),
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
