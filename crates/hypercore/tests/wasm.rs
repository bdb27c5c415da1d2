//! The Wasm driver with real programs: what they see, how they end, and what they can't do to their neighbours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

#[path = "wasm/rig.rs"]
mod rig;

#[path = "wasm/programs.rs"]
mod programs;
