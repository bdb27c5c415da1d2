//! One file per command.

pub mod bench;
pub mod doctor;
pub mod hac;
pub mod image;
pub mod keeper;
pub mod kernel;
pub mod plan;
pub mod run;
