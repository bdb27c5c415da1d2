//! `vimana keeper`: the process that owns one running spacecore. Other commands start it. `vimana compile`: the process that compiles
//! a Wasm program for it. `vimana balance`: the process that owns a deployment's ports.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use hypercore::driver::wasm;

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

/// Owns a deployment's ports, as the node says.
pub fn balance(folder: &Path) -> ExitCode {
    match node::balance::balance_main(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::complain(&anyhow::Error::new(error).context("the balancer gave up"));
            ExitCode::FAILURE
        }
    }
}

/// Runs what a keeper hands it of Wasm programs, in a jail.
pub fn run_wasm() -> ExitCode {
    match wasm::run_inside() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Compiles a Wasm program to standard output; says on standard error why not.
pub fn compile(module: &Path, digest: &str) -> ExitCode {
    compiled(wasm::compile(module, digest, std::io::stdout().lock()))
}

/// The same in a jail, where module and code are open descriptors.
pub fn compile_inside(module: &Path, digest: &str) -> ExitCode {
    compiled(wasm::compile_inside(module, digest))
}

fn compiled(result: Result<(), wasm::ProgramError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // As one message: the keeper passes it on.
            let _ = writeln!(std::io::stderr(), "{:#}", anyhow::Error::new(error));
            ExitCode::FAILURE
        }
    }
}
