//! One interface over every hypervisor driver.
//!
//! A driver gives one isolation on this machine. What it speaks is workloads ([`driver::Driver::prepare`],
//! [`driver::Driver::start`], pause, resume, observe, stop), never registers or one backend's options.

pub mod driver;
pub mod initramfs;
pub mod kernel;
mod spawn;
