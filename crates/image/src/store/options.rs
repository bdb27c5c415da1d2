//! How much a store takes and accepts.

use std::io;

use thiserror::Error;

use crate::layer::Limits;
use crate::platform::Platform;

/// A store's limits. `Default` is what a person with a laptop would want.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The most bytes that the store keeps, counting layers' files.
    pub quota: u64,
    /// The most bytes that one layer may unpack to.
    pub unpacked_bytes: u64,
    /// The most entries that one layer may have.
    pub entries: u64,
    /// The platform that images are chosen for.
    pub platform: Platform,
    /// How a user that isn't root gives unpacked files owners, where the user can.
    pub owners: Option<Owners>,
}

/// How a user that isn't root makes files of other owners: by ids that are the user's to give away.
#[derive(Debug, Clone, Copy)]
pub struct Owners {
    /// The first user id and the first group id that stand for an image's 1. Trees are kept apart by them.
    pub first: (u32, u32),
    /// How many ids an image may name; whoever has another becomes the last but one.
    pub count: u32,
    /// Does something in another process, where these ids are an image's and the user is root over them. Memory that it
    /// changes stays as it was for the caller; of an error only the number comes back.
    pub inside: fn(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            quota: 64 << 30,
            unpacked_bytes: 32 << 30,
            entries: 4_000_000,
            platform: Platform::host(),
            owners: None,
        }
    }
}

impl StoreOptions {
    /// Reads `VIMANA_IMAGE_QUOTA` (bytes, or a number with `K`, `M`, `G`, `T`, `Ki`, `Mi`, `Gi`, `Ti`).
    pub fn from_env() -> Result<StoreOptions, OptionsError> {
        let mut options = StoreOptions::default();
        if let Some(value) = std::env::var_os("VIMANA_IMAGE_QUOTA") {
            let text = value.to_string_lossy();
            options.quota = parse_bytes(&text).ok_or_else(|| OptionsError { value: text.into_owned() })?;
        }
        Ok(options)
    }

    /// Returns what a layer of so many compressed bytes may unpack to: beyond 1 GiB, at most 200 times its size.
    pub(crate) fn limits(&self, compressed: u64) -> Limits {
        let plausible = compressed.saturating_mul(200).max(1 << 30);
        Limits { entries: self.entries, unpacked_bytes: plausible.min(self.unpacked_bytes) }
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text.strip_suffix('B').unwrap_or(text);
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text.get(digits.len()..)? {
        "" => 1,
        "K" | "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(factor)
}

/// A quota that isn't a size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("VIMANA_IMAGE_QUOTA is \"{value}\"; write a size such as 20Gi")]
pub struct OptionsError {
    value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_number_with_a_unit() {
        let table = [
            ("0", Some(0)),
            ("20Gi", Some(20 << 30)),
            ("20GiB", Some(20 << 30)),
            ("5 GB", Some(5_000_000_000)),
            ("1k", Some(1000)),
            ("x", None),
            ("-1", None),
            ("1.5G", None),
            ("99999999999T", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn a_small_blob_may_not_become_a_huge_layer() {
        let options = StoreOptions::default();
        assert_eq!(options.limits(1000).unpacked_bytes, 1 << 30);
        assert_eq!(options.limits(100 << 20).unpacked_bytes, 200 * (100 << 20));
        assert_eq!(options.limits(u64::MAX).unpacked_bytes, options.unpacked_bytes);
    }
}
