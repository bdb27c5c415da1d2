//! Which of an index's images fits a machine.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An operating system and a processor, in Go's words as OCI uses them (`linux/arm64/v8`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The processor: `amd64`, `arm64`, `arm`, `386`, `riscv64` …
    #[serde(default)]
    pub architecture: String,
    /// The operating system: `linux`.
    #[serde(default)]
    pub os: String,
    /// The processor's variant, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Returns this machine's platform.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Platform {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Returns the platform of Wasm programs that ask for WASI, whichever preview.
    pub fn wasm() -> Platform {
        Platform { architecture: "wasm".to_owned(), os: "wasi".to_owned(), variant: None }
    }

    /// Tells whether this is a Wasm program's platform: `wasi`, `wasip1` or `wasip2` on `wasm`.
    pub fn is_wasm(&self) -> bool {
        matches!(self.os.as_str(), "wasi" | "wasip1" | "wasip2")
            && matches!(self.architecture.as_str(), "wasm" | "wasm32")
    }

    /// Judges how well `offer` runs here: `None` if it can't, otherwise the lower the better.
    pub(crate) fn rank(&self, offer: &Platform) -> Option<u32> {
        if self.is_wasm() && offer.is_wasm() {
            // "wasi" stands for any preview; of two named ones, each is itself only.
            return match (self.os.as_str(), offer.os.as_str()) {
                (mine, theirs) if mine == theirs => Some(0),
                (_, "wasi") | ("wasi", "wasip1") => Some(1),
                ("wasi", _) => Some(2),
                _ => None,
            };
        }
        if self.os != offer.os || self.architecture != offer.architecture {
            return None;
        }
        let default = match self.architecture.as_str() {
            "amd64" => 1,
            "arm64" => 8,
            "arm" => 7,
            _ => 0,
        };
        let level = |variant: &Option<String>| match variant.as_deref() {
            None | Some("") => Some(default),
            Some(text) => text.strip_prefix('v').and_then(|digits| digits.parse::<u32>().ok()),
        };
        if self.variant == offer.variant {
            return Some(0);
        }
        match (level(&self.variant), level(&offer.variant)) {
            (Some(mine), Some(theirs)) if theirs <= mine => Some((mine - theirs).saturating_add(1)),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let word = |part: &str| {
            !part.is_empty()
                && part.len() <= 32
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| word(part)) {
            return Err(PlatformError { text: text.to_owned() });
        }
        match parts.as_slice() {
            [os, architecture] => {
                Ok(Platform { architecture: (*architecture).into(), os: (*os).into(), variant: None })
            }
            [os, architecture, variant] => Ok(Platform {
                architecture: (*architecture).into(),
                os: (*os).into(),
                variant: Some((*variant).into()),
            }),
            _ => Err(PlatformError { text: text.to_owned() }),
        }
    }
}

/// A text that isn't a platform.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("\"{text}\" isn't a platform; write one such as linux/amd64 or linux/arm/v7")]
pub struct PlatformError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn a_processor_runs_its_own_and_older_variants() {
        let table = [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v1", Some(1)),
            ("linux/amd64", "linux/amd64/v3", None),
            ("linux/arm64/v8", "linux/arm64", Some(1)),
            ("linux/arm64/v8", "linux/arm64/v9", None),
            ("linux/arm/v7", "linux/arm/v7", Some(0)),
            ("linux/arm/v7", "linux/arm/v6", Some(2)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/amd64", "linux/arm64", None),
        ];
        for (machine, offer, expected) in table {
            assert_eq!(platform(machine).rank(&platform(offer)), expected, "{machine} {offer}");
        }
    }

    #[test]
    fn a_platform_is_two_or_three_words() {
        for text in ["", "linux", "linux/", "linux/amd64/v1/x", "linux/../x"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        assert_eq!(platform("linux/arm/v7").to_string(), "linux/arm/v7");
    }
}
