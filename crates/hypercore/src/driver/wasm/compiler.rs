//! Compiling in a process of its own.
//!
//! A keeper holds many programs, and what a compiler makes of a stranger's program is bounded by nothing but the program:
//! some megabytes of nested code take gigabytes of memory. So a process of its own compiles, held to memory and time, and hands the
//! code back; what it can't do the keeper doesn't try.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use super::engine::Shared;
use super::program::{Program, ProgramError};
use super::runner;
use crate::jail::{self, Calls, Device, Ids, Jail};
use crate::spawn;

/// The most memory that the compiling of one program may take, in bytes.
pub const COMPILE_BYTES: u64 = 1 << 30;
/// The most processor time that it may take, in seconds.
pub const COMPILE_SECONDS: u64 = 120;
/// The name of the command that compiles: `COMPILE MODULE DIGEST`.
pub const COMPILE: &str = "compile";
/// The same in a jail, which has the module and the place for the code as descriptors.
pub const COMPILE_INSIDE: &str = "compile-inside";

/// The most compiled code that is taken, in bytes: four times the largest program.
const CODE_MAX: u64 = 256 << 20;

/// A program that compiles when it is executed with [`COMPILE`].
#[derive(Debug)]
pub(super) struct Compiler {
    program: PathBuf,
    /// The same at its own path, and the folder that remembers its libraries, where it compiles in a jail.
    jail: OnceLock<(PathBuf, Option<PathBuf>)>,
}

impl Compiler {
    pub(super) fn new(program: PathBuf) -> Self {
        Self { program, jail: OnceLock::new() }
    }

    /// Has programs compiled in a jail from now on; root alone can.
    pub(super) fn jail(&self, program: &Path, cache: Option<&Path>) {
        self.jail.get_or_init(|| (program.to_owned(), cache.map(Path::to_owned)));
    }

    /// Has a program compiled; the code is as [`compile`] gives it.
    pub(super) fn run(&self, path: &Path, digest: &str) -> Result<Vec<u8>, ProgramError> {
        match self.jail.get() {
            Some((program, cache)) => jailed(program, cache.as_deref(), path, digest),
            None => self.beside(path, digest),
        }
    }

    /// Has it compiled by a process of the same user.
    fn beside(&self, path: &Path, digest: &str) -> Result<Vec<u8>, ProgramError> {
        let read = |source| ProgramError::Read { path: path.to_owned(), source };
        // What isn't there is told as such.
        File::open(path).map_err(read)?;
        let mut command = Command::new(&self.program);
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
        let code = if is_too_much { Err(too_much()) } else { Ok(code) };
        judge(path, status.code(), spawn::stderr_of(&words), code)
    }
}

/// Has a program compiled in a jail: what turns a stranger's bytes into machine code may be talked into more than that.
fn jailed(program: &Path, cache: Option<&Path>, path: &Path, digest: &str) -> Result<Vec<u8>, ProgramError> {
    let module = File::open(path).map_err(|source| ProgramError::Read { path: path.to_owned(), source })?;
    let compiled = || {
        let mut code = runner::in_memory(&[])?;
        let jail = Jail {
            shown: jail::closure(program, cache)?,
            devices: vec![Device::Null, Device::Urandom],
            calls: Calls::Wasm,
            file_bytes: CODE_MAX,
            open_files: 64,
            threads: 64,
            ids: Some(Ids::take()?),
            group: None,
            class: crate::driver::Class::default(),
            profile: None,
            without: Vec::new(),
        };
        let args: [OsString; 3] = [COMPILE_INSIDE.into(), path.into(), digest.into()];
        let mut child = jail.start(program, &args, vec![module.into(), code.try_clone()?.into()])?;
        let status = child.wait()?;
        let mut bytes = Vec::new();
        io::Seek::rewind(&mut code)?;
        code.read_to_end(&mut bytes)?;
        Ok((status, child.stderr(), bytes))
    };
    let (status, words, code) = compiled().map_err(|error: io::Error| ProgramError::Invalid {
        path: path.to_owned(),
        reason: format!("its compiler can't be started: {error}"),
    })?;
    let code = if status.signal == Some(libc::SIGXFSZ) { Err(too_much()) } else { Ok(code) };
    judge(path, status.code, words, code)
}

fn too_much() -> String {
    format!("it compiles to more than {} MiB of code", CODE_MAX >> 20)
}

/// What came of a compiler that ended so; `None` is a signal.
fn judge(
    path: &Path,
    exit: Option<i32>,
    words: String,
    code: Result<Vec<u8>, String>,
) -> Result<Vec<u8>, ProgramError> {
    let failed = |reason: String| ProgramError::Invalid { path: path.to_owned(), reason };
    let code = code.map_err(failed)?;
    match exit {
        Some(0) => Ok(code),
        Some(1) => Err(ProgramError::Told(words)),
        Some(exit) => Err(failed(format!("its compiler has failed (exit code {exit})"))),
        // It was killed, or has aborted where memory was refused.
        None => Err(failed(format!(
            "compiling it takes more than {} MiB of memory or {COMPILE_SECONDS} s",
            COMPILE_BYTES >> 20
        ))),
    }
}

/// As [`compile`], in the jail that a keeper has made: the module and the place for the code are open already. `path` is the
/// module's name, for people.
///
/// # Errors
/// As [`compile`]; or the process was started otherwise.
#[allow(unsafe_code)]
pub fn compile_inside(path: &Path, digest: &str) -> Result<(), ProgramError> {
    let taken = |number: i32| {
        // SAFETY: fcntl only asks; a number that isn't open is refused before it is owned.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            let source = io::Error::other("this is started by keepers only");
            return Err(ProgramError::Read { path: path.to_owned(), source });
        }
        // SAFETY: the keeper put an open descriptor here for this process, and nothing else in it uses the number.
        Ok(unsafe { File::from_raw_fd(number) })
    };
    let (module, to) = (taken(spawn::FIRST)?, taken(spawn::FIRST + 1)?);
    compile_file(path, module, digest, to)
}

/// Compiles a program within [`COMPILE_BYTES`] and [`COMPILE_SECONDS`], which hold for the whole process from here on, and writes
/// the code. What is at its limit aborts or is killed.
///
/// # Errors
/// The program can't be read, isn't the one with this digest, or isn't one that can be run; or the code can't be written.
pub fn compile(path: &Path, digest: &str, to: impl Write) -> Result<(), ProgramError> {
    let module = File::open(path).map_err(|source| ProgramError::Read { path: path.to_owned(), source })?;
    compile_file(path, module, digest, to)
}

fn compile_file(path: &Path, module: File, digest: &str, mut to: impl Write) -> Result<(), ProgramError> {
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
    let code = Program::code(&Shared::default(), path, module, digest)?;
    to.write_all(&code)
        .and_then(|()| to.flush())
        .map_err(|error| failed(format!("its code has no reader: {error}")))
}
