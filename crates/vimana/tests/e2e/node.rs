//! The node: what is applied runs, is changed, and goes on whatever happens to the daemon.

mod anew;
mod api;
mod balance;
mod capacity;
mod contention;
mod copy;
mod crashes;
mod damaged;
mod full;
mod life;
mod metrics;
mod observed;
pub mod rig;
mod telemetry;
mod top;
mod upgrade;
