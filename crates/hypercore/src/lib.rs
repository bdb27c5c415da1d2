//! One interface over every hypervisor driver.
//!
//! A driver gives one isolation on this machine. What it speaks is workloads ([`driver::Driver::prepare`],
//! [`driver::Driver::start`], pause, resume, observe, stop), never registers or one backend's options.

pub mod doctor;
pub mod driver;
pub mod guest;
pub mod initramfs;
pub mod kernel;
pub mod kvm;
pub mod passt;
pub mod scratch;
mod spawn;
