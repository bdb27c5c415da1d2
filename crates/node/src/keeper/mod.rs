//! The keeper: the small process that owns one running spacecore.
//!
//! It is `vimana` executed again, with a single thread at its start. It owns the machine (a VMM, a container or a Wasm
//! program), the guest channel, the folders that it serves to a virtual machine's guest, and the exit status.
//!
//! ```text
//!   vimana run ----control socket---- keeper ----guest channel---- guest: PID 1, or a thread for Wasm
//!     streams, signals                  |  \
//!                                       |   passt
//!                                      machine
//! ```
//!
//! - [`assignment`]: what a keeper is told to keep.
//! - [`report`]: what keeper and clients say to each other; the framing is that of the guest channel.
//! - [`state`]: every decision, as `step(state, input) -> effects`, without I/O.
//! - [`host`]: the poll loop that performs the effects and feeds their results back.
//! - [`shared`]: one process that keeps many Wasm spacecores, each by a `host` in a thread of its own.
//! - [`checks`]: whether the workload is well, asked of the guest.
//! - [`relay`]: bytes of a stream on their way between guest and client, with credit on both sides.
//!
//! There are two ways of ending, chosen by [`assignment::Lifetime`]: a `Bound` keeper ends with the process that started
//! it, however that one dies, because its end of the control socket closes; an `Independent` keeper goes on, listens on
//! `keeper.sock` in its run folder, and is adopted by whoever connects. It keeps the workload's output in a [log](crate::log)
//! and leaves its outcome in the run folder, of which [`crate::run_folder`] says whose it is at which moment.

pub mod assignment;
pub mod checks;
mod driver;
pub mod host;
pub mod processes;
pub mod relay;
pub mod report;
pub mod shared;
pub mod shares;
pub mod state;
pub mod wire_socket;

pub use driver::{UnknownDriver, driver};
