//! Is this claim true? Merkle trees over what is mounted, advisories against what is installed, signatures over images.
//!
//! The crate belongs to the pure ring: bytes in, a verdict out, the same on every machine. It has no files, sockets,
//! clocks, threads, floats, randomness or hash-ordered iteration; `clippy.toml` bans them.

pub mod advisory;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod signature;
#[cfg(test)]
#[path = "../tests/sigstore/mod.rs"]
mod sigstore;
pub mod verity;
pub mod version;
