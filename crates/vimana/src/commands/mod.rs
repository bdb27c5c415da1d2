//! One file per command.

pub mod apply;
pub mod bench;
pub mod cp;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod hac;
pub mod image;
pub mod inspect;
pub mod inventory;
pub mod keeper;
pub mod kernel;
pub mod lifecycle;
pub mod logs;
pub mod node;
pub mod plan;
pub mod ps;
pub mod run;
pub mod secret;
pub mod stats;
pub mod top;
pub mod volume;
