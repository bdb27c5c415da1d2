//! What words mean: the manifest, units, identifiers, diagnostics.
//!
//! The crate is pure: no files, sockets, clocks, threads, randomness or hash-ordered iteration. The same source text
//! gives the same manifest, or the same diagnostics, on every machine.

pub mod model;
pub mod units;
pub mod words;

pub use model::Manifest;
