//! The decentralised hypervisor's command line.
fn main() {}
