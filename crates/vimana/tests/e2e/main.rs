//! Real virtual machines, real kernels, real processes: what a person at the command line would notice.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod adoption;
mod attacks;
mod by_image;
mod command_line;
mod compiling;
mod encrypted;
mod examples;
mod folders;
mod hostile;
mod import;
mod independent;
mod leaks;
mod network;
mod node;
mod node_software;
mod policy;
mod process;
mod reach;
mod rootless;
mod routed;
mod secrets;
mod settings;
mod signals;
mod support;
#[path = "../vimana/mod.rs"]
mod vimana;
mod wasm_jail;
mod world;
