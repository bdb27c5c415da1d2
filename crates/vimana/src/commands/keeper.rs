//! `vimana keeper`: the process that owns one running spacecore. Other commands start it.

use std::process::ExitCode;

/// Keeps what the parent says.
pub fn run() -> ExitCode {
    match node::session::keeper_main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::complain(&anyhow::Error::new(error).context("the keeper gave up"));
            ExitCode::FAILURE
        }
    }
}
