//! Is this claim true? Merkle trees over what is mounted.
//!
//! The crate belongs to the pure ring: bytes in, a verdict out, the same on every machine. It has no files, sockets,
//! clocks, threads, floats, randomness or hash-ordered iteration; `clippy.toml` bans them.

pub mod verity;
