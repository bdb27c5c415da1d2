//! The program `nft`, which is given rules on its standard input.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::spawn;

/// Its package on Debian and Ubuntu has the same name as its project.
pub(super) const PACKAGE: &str = "nftables";

pub(super) fn find() -> Option<PathBuf> {
    spawn::find("nft")
}

/// Gives it rules, all of which hold afterwards, or none, in the calling thread's network namespace.
///
/// # Errors
/// It isn't there, or refuses them; with what it said.
pub(super) fn apply(rules: &str) -> io::Result<()> {
    let program = find().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "nft isn't installed"))?;
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // One that has ended early has said why.
        let _ = input.write_all(rules.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "nft refuses the rules: {}",
        said.lines().next().unwrap_or("it says nothing")
    )))
}
