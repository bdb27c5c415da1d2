//! One file per command.

pub(crate) mod doctor;
pub(crate) mod hac;
pub(crate) mod image;
pub(crate) mod keeper;
pub(crate) mod kernel;
pub(crate) mod plan;
pub(crate) mod run;
