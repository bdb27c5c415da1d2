//! Layers: tar to squashfs, read back by this crate, by `unsquashfs` and by the kernel.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

#[path = "layer/against_tar.rs"]
mod against_tar;
#[path = "layer/archive.rs"]
mod archive;
#[path = "layer/big.rs"]
mod big;
#[path = "layer/damage.rs"]
mod damage;
#[path = "layer/meaning.rs"]
mod meaning;
#[path = "layer/merging.rs"]
mod merging;
#[path = "layer/properties.rs"]
mod properties;
#[path = "layer/refusals.rs"]
mod refusals;

/// Says on standard error that a test couldn't do its work here.
fn skipped(test: &str, reason: &str) {
    eprintln!("SKIPPED: {test}: {reason}");
}
