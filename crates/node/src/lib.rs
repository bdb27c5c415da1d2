//! Joins manifest, image, driver and guest into running spacecores.
//!
//! - [`plan`]: a manifest and what this machine can do become an exact plan.
//! - [`prepare`]: image, kernel and plan are made ready for a start.
//! - [`keeper`]: the small process that owns one running spacecore.
//! - [`daemon`]: `vimana node`, which keeps many of them running.
//! - [`supervisor`]: what keeps one spacecore running, decided without I/O.
//! - [`rollout`]: what brings a deployment to another revision or number, decided without I/O.
//! - [`inventory`]: what this machine has.
//! - [`capacity`]: what of it is offered, what is allocated, and whether more fits.
//! - [`autoscale`]: how many replicas a measured load asks for.
//! - [`balance`]: the process that owns a deployment's published ports.
//! - [`session`]: the process that starts a keeper and speaks to it.
//! - [`log`](mod@log): what workloads print, kept on disk longer than they run.
//! - [`folder`]: folders of the host, served to a guest as FUSE messages.
//! - [`volume`]: named volumes, which outlive spacecores.
//! - [`secret`]: values that workloads read and nobody else.
//! - [`policy`]: what an operator allows to run, and whether an image may.
//! - [`home`], [`run_folder`]: where things lie on disk.

mod again;
pub mod anomaly;
pub mod autoscale;
pub mod balance;
pub mod capacity;
pub mod clock;
pub mod daemon;
pub mod eviction;
pub mod exposition;
pub mod folder;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gather;
pub mod home;
pub mod inventory;
pub mod keeper;
pub mod log;
pub mod plan;
pub mod policy;
pub mod prepare;
mod replace;
pub mod rollout;
pub mod run_folder;
pub mod secret;
pub mod session;
pub mod signals;
pub mod supervisor;
pub mod volume;
