//! The Wasm driver with real programs: what they see, how they end, and what they can't do to their neighbours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

#[path = "wasm/c.rs"]
mod c;
#[path = "wasm/components.rs"]
mod components;
#[path = "wasm/limits.rs"]
mod limits;
#[path = "wasm/lives.rs"]
mod lives;
#[path = "wasm/programs.rs"]
mod programs;
#[path = "wasm/refusals.rs"]
mod refusals;
#[path = "wasm/rig.rs"]
mod rig;
