//! The guest side of a microVM, and the channel between it and its keeper.
//!
//! The library half holds what both sides must agree on, [`wire`], and what a keeper that is its own guest (a Wasm program's)
//! needs as well; the binary half (`main.rs`) is PID 1 of the guest.

pub mod archive;
pub mod crypt;
pub mod ext4;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod refusal;
pub mod rtnetlink;
pub mod wire;
