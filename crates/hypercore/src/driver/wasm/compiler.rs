//! Compiling in a process of its own.
//!
//! A keeper holds many programs, and what a compiler makes of a stranger's program is bounded by nothing but the program:
//! some megabytes of nested code take gigabytes of memory. So a process of its own compiles, held to memory and time, and hands the
//! code back; what it can't do the keeper doesn't try.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use super::engine::Shared;
use super::program::{Program, ProgramError};
use crate::spawn;

/// The most memory that the compiling of one program may take, in bytes.
pub const COMPILE_BYTES: u64 = 1 << 30;
/// The most processor time that it may take, in seconds.
pub const COMPILE_SECONDS: u64 = 120;
/// The name of the command that compiles: `COMPILE MODULE DIGEST`.
pub const COMPILE: &str = "compile";

/// The most compiled code that is taken, in bytes: four times the largest program.
const CODE_MAX: u64 = 256 << 20;

/// A program that compiles when it is executed with [`COMPILE`].
#[derive(Clone, Debug)]
pub(super) struct Compiler(pub(super) PathBuf);

impl Compiler {
    /// Has a program compiled; the code is as [`compile`] gives it.
    pub(super) fn run(&self, path: &Path, digest: &str) -> Result<Vec<u8>, ProgramError> {
        let read = |source| ProgramError::Read { path: path.to_owned(), source };
        // What isn't there is told as such.
        File::open(path).map_err(read)?;
        let mut command = Command::new(&self.0);
        command.arg0("vimana").arg(COMPILE).arg(path).arg(digest);
        let failed = |reason: String| ProgramError::Invalid { path: path.to_owned(), reason };
        let broken = |error: io::Error| failed(format!("its compiler can't be started: {error}"));
        // Not a pipe: nobody reads it while there is code to be read.
        let words = spawn::bounded_memory().map_err(broken)?;
        let stderr = words.try_clone().map_err(broken)?;
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        // SAFETY: between fork and exec the closure makes one system call on a plain number.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let mut child = command.spawn().map_err(broken)?;
        let mut code = Vec::new();
        let heard = match child.stdout.take() {
            Some(stdout) => stdout.take(CODE_MAX + 1).read_to_end(&mut code),
            None => Ok(0),
        };
        let is_too_much = code.len() as u64 > CODE_MAX;
        if heard.is_err() || is_too_much {
            // What it would say now nobody hears.
            let _ = child.kill();
        }
        let status = child.wait().and_then(|status| heard.map(|_| status)).map_err(broken)?;
        if is_too_much {
            return Err(failed(format!("it compiles to more than {} MiB of code", CODE_MAX >> 20)));
        }
        match status.code() {
            Some(0) => Ok(code),
            Some(1) => Err(ProgramError::Told(spawn::stderr_of(&words))),
            Some(code) => Err(failed(format!("its compiler has failed (exit code {code})"))),
            // It was killed, or has aborted where memory was refused.
            None => Err(failed(format!(
                "compiling it takes more than {} MiB of memory or {COMPILE_SECONDS} s",
                COMPILE_BYTES >> 20
            ))),
        }
    }
}

/// Compiles a program within [`COMPILE_BYTES`] and [`COMPILE_SECONDS`], which hold for the whole process from here on, and writes
/// the code. What is at its limit aborts or is killed.
///
/// # Errors
/// The program can't be read, isn't the one with this digest, or isn't one that can be run; or the code can't be written.
pub fn compile(path: &Path, digest: &str, mut to: impl Write) -> Result<(), ProgramError> {
    let limit = |resource, most: u64| {
        // Whoever started this may have set a lower one.
        let most = getrlimit(resource).maximum.map_or(most, |there| there.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
    };
    let limited = limit(Resource::Data, COMPILE_BYTES)
        .and_then(|()| limit(Resource::Cpu, COMPILE_SECONDS))
        .and_then(|()| limit(Resource::Core, 0));
    let failed = |reason: String| ProgramError::Invalid { path: path.to_owned(), reason };
    limited.map_err(|error| failed(format!("its compiler can't be limited: {error}")))?;
    let code = Program::code(&Shared::default(), path, digest)?;
    to.write_all(&code)
        .and_then(|()| to.flush())
        .map_err(|error| failed(format!("its code has no reader: {error}")))
}
