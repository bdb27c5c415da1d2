//! The guest side of a microVM, and the channel between it and its keeper.
//!
//! The library half holds what both sides must agree on, [`wire`]; the binary half (`main.rs`) is PID 1 of the guest.

pub mod wire;
