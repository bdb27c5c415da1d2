//! A program: what its bytes are, and how they become something that can be started.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use sha2::{Digest, Sha256};
use spacecore::wire::message::Refusal;
use wasmparser::{Parser, Payload};
use wasmtime::component::Component;
use wasmtime::{Engine, InstancePre, Linker, Module};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::CommandPre;

use super::cache::Place;
use super::engine::Shared;
use super::names;
use super::state::State;
use super::{questions, runner};

/// The largest program that is read, in bytes.
pub const PROGRAM_MAX: u64 = 64 << 20;

/// The interface of WASI 0.2 that a component must export to be run.
const RUN: &str = "wasi:cli/run@0.2";

/// Why a file isn't a program that can be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// It can't be read.
    #[error("can't read the Wasm program {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is larger than [`PROGRAM_MAX`].
    #[error("the Wasm program {} has {bytes} bytes; at most {PROGRAM_MAX} are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is something else than Wasm in its binary form.
    #[error("{} is {found}, not a Wasm module or component in binary form", path.display())]
    NotWasm {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: &'static str,
    },
    /// It isn't the file that was meant.
    #[error("the Wasm program {} isn't the one with the SHA-256 digest {wanted}; it has {found}", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// The digest that was asked for.
        wanted: String,
        /// The digest that it has.
        found: String,
    },
    /// It is Wasm that this engine can't load or link.
    #[error("the Wasm program {} can't be run: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why, in the engine's words.
        reason: String,
    },
    /// What the process that compiles said of it.
    #[error("{0}")]
    Told(String),
    /// It is Wasm that isn't a program.
    #[error("{} is {found}; what can be run is {wanted}", path.display())]
    NotCommand {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
}

/// The two forms of Wasm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Module,
    Component,
}

/// What a file looks like that doesn't begin as Wasm does.
fn form(bytes: &[u8]) -> Result<Form, &'static str> {
    match bytes {
        [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(Form::Module),
        [b'\0', b'a', b's', b'm', _, 0, 1, 0, ..] => Ok(Form::Component),
        [b'\0', b'a', b's', b'm', _, _, _, _, ..] => Err("Wasm of a version that isn't known here"),
        [] => Err("empty"),
        [0x7f, b'E', b'L', b'F', ..] => Err("a native program (ELF)"),
        [b'#', b'!', ..] => Err("a script"),
        [0x1f, 0x8b, ..] => Err("compressed with gzip"),
        [b'\0', ..] if b"\0asm\x01\0\0\0".starts_with(bytes) => Err("the first bytes of a Wasm module"),
        bytes => {
            let text = bytes.trim_ascii_start();
            let is_text =
                ["(module", "(component", ";;"].iter().any(|begin| text.starts_with(begin.as_bytes()));
            Err(if is_text {
                "Wasm in text form (assemble it with wat2wasm or wasm-tools)"
            } else {
                "something else"
            })
        }
    }
}

/// A program that is ready to be started, any number of times.
#[derive(Clone)]
pub(super) enum Program {
    /// A core module that exports `_start` and imports WASI preview 1.
    Module(InstancePre<State>),
    /// A component that exports `wasi:cli/run`.
    Component(CommandPre<State>, bool),
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Module(_) => "a module",
            Self::Component(..) => "a component",
        })
    }
}

/// How a program was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// It was loaded in this process before.
    Process,
    /// Its compiled code was on disk.
    Cache,
    /// It was compiled now.
    Compiled,
}

impl Source {
    /// A few words for the list of steps.
    pub(super) fn step(self) -> &'static str {
        match self {
            Self::Process => "find the program, which is loaded already",
            Self::Cache => "load the program's compiled code",
            Self::Compiled => "compile the program",
        }
    }
}

impl Program {
    /// Finds the program in this process, else its compiled code on disk, else compiles it.
    pub(super) fn load(
        shared: &Shared,
        path: &Path,
        digest: &str,
        cache: &Path,
    ) -> Result<(Self, Source), ProgramError> {
        let slot = shared.slot(digest);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = &*slot {
            return Ok((program.clone(), Source::Process));
        }
        let invalid = |reason: String| ProgramError::Invalid { path: path.to_owned(), reason };
        let runtime = shared.runtime().map_err(invalid)?;
        let place = Place::find(cache, digest, &runtime.fingerprint);
        if let Some(program) = place.as_ref().and_then(|place| Self::cached(&runtime.engine, place, path)) {
            *slot = Some(program.clone());
            return Ok((program, Source::Cache));
        }
        let program = match shared.compiler() {
            Some(compiler) => {
                let code = compiler.run(path, digest)?;
                if let Some(place) = place {
                    let _ = place.keep(&code);
                }
                Self::of_code(&runtime.engine, path, &code)?
            }
            None => {
                let bytes = read(path)?;
                check_digest(path, &bytes, digest)?;
                let (program, code) = Self::compile(&runtime.engine, path, &bytes)?;
                if let (Some(place), Some(code)) = (place, code) {
                    let _ = place.keep(&code);
                }
                program
            }
        };
        *slot = Some(program.clone());
        Ok((program, Source::Compiled))
    }

    /// Finds the program in this process, else asks the keeper for its code.
    pub(super) fn ask(
        shared: &Shared,
        path: &Path,
        digest: &str,
        keeper: &OwnedFd,
    ) -> Result<(Self, Source), Refusal> {
        let slot = shared.slot(digest);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = &*slot {
            return Ok((program.clone(), Source::Process));
        }
        let invalid = |reason: String| {
            super::run::refuse_program(&ProgramError::Invalid { path: path.to_owned(), reason })
        };
        let (file, source) = questions::ask_for_code(keeper)?;
        let runtime = shared.runtime().map_err(invalid)?;
        let program = Self::of_file(&runtime.engine, file, path).map_err(invalid)?;
        *slot = Some(program.clone());
        Ok((program, source))
    }

    /// Finds a program's compiled code on disk, else has it compiled.
    pub(super) fn find_code(
        shared: &Shared,
        path: &Path,
        digest: &str,
        cache: &Path,
    ) -> Result<(File, Source), ProgramError> {
        let invalid = |reason: String| ProgramError::Invalid { path: path.to_owned(), reason };
        // Others who want the same wait, and find it on disk then.
        let slot = shared.slot(digest);
        let _one_at_a_time = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = shared.runtime().map_err(invalid)?;
        let place = Place::find(cache, digest, &runtime.fingerprint);
        if let Some(compiled) = place.as_ref().and_then(Place::open) {
            return Ok((compiled.file(), Source::Cache));
        }
        let code = match shared.compiler() {
            Some(compiler) => compiler.run(path, digest)?,
            None => {
                let read = |source| ProgramError::Read { path: path.to_owned(), source };
                Self::code(shared, path, File::open(path).map_err(read)?, digest)?
            }
        };
        if let Some(place) = place {
            let _ = place.keep(&code);
        }
        let file = runner::in_memory(&code).map_err(|error| invalid(format!("its code: {error}")))?;
        Ok((file, Source::Compiled))
    }

    /// Compiles a program; what comes back is for [`Program::of_code`] of an engine like this.
    pub(super) fn code(
        shared: &Shared,
        path: &Path,
        module: File,
        digest: &str,
    ) -> Result<Vec<u8>, ProgramError> {
        let invalid = |reason: String| ProgramError::Invalid { path: path.to_owned(), reason };
        let runtime = shared.runtime().map_err(invalid)?;
        let bytes = read_file(path, module)?;
        check_digest(path, &bytes, digest)?;
        let (_, code) = Self::compile(&runtime.engine, path, &bytes)?;
        code.ok_or_else(|| invalid("its code can't be written down".to_owned()))
    }

    #[allow(unsafe_code)]
    fn of_code(engine: &Engine, path: &Path, code: &[u8]) -> Result<Self, ProgramError> {
        let invalid =
            |error: wasmtime::Error| ProgramError::Invalid { path: path.to_owned(), reason: words(&error) };
        match Engine::detect_precompiled(code) {
            Some(wasmtime::Precompiled::Module) => {
                // SAFETY: this is what a child of this process, the same program, has compiled with the same engine.
                let module = unsafe { Module::deserialize(engine, code) }.map_err(invalid)?;
                link_module(engine, path, &module)
            }
            Some(wasmtime::Precompiled::Component) => {
                // SAFETY: as above.
                let component = unsafe { Component::deserialize(engine, code) }.map_err(invalid)?;
                link_component(engine, path, &component)
            }
            None => {
                let reason = "its compiler gave something that isn't code".to_owned();
                Err(ProgramError::Invalid { path: path.to_owned(), reason })
            }
        }
    }

    #[allow(unsafe_code)]
    /// Loads code from an open file: a process in a jail can't open it by a path.
    fn of_file(engine: &Engine, mut file: File, path: &Path) -> Result<Self, String> {
        let text = |error: wasmtime::Error| words(&error);
        let shared = file.try_clone().map_err(|error| error.to_string())?;
        // SAFETY: this is the very code that `Place::keep` was given, or that the compiler gave: the file is this user's alone, in
        // a folder that is this user's alone, and its digest matches; or the keeper, for whom that holds, has handed it over.
        // Nobody else can have written or can change it. What is a component's is refused.
        let error = match unsafe { Module::deserialize_open_file(engine, shared) } {
            Ok(module) => return link_module(engine, path, &module).map_err(|error| error.to_string()),
            Err(error) => error,
        };
        let mut code = Vec::new();
        file.read_to_end(&mut code).map_err(|error| error.to_string())?;
        if Engine::detect_precompiled(&code) != Some(wasmtime::Precompiled::Component) {
            return Err(text(error));
        }
        // SAFETY: as above.
        let component = unsafe { Component::deserialize(engine, &code) }.map_err(text)?;
        link_component(engine, path, &component).map_err(|error| error.to_string())
    }

    fn cached(engine: &Engine, place: &Place, path: &Path) -> Option<Self> {
        Self::of_file(engine, place.open()?.file(), path).ok()
    }

    fn compile(engine: &Engine, path: &Path, bytes: &[u8]) -> Result<(Self, Option<Vec<u8>>), ProgramError> {
        let invalid =
            |error: wasmtime::Error| ProgramError::Invalid { path: path.to_owned(), reason: words(&error) };
        let not_wasm = |found| ProgramError::NotWasm { path: path.to_owned(), found };
        match form(bytes).map_err(not_wasm)? {
            Form::Module => {
                let module = Module::from_binary(engine, bytes).map_err(invalid)?;
                Ok((link_module(engine, path, &module)?, module.serialize().ok()))
            }
            Form::Component => {
                let component = Component::from_binary(engine, bytes).map_err(invalid)?;
                Ok((link_component(engine, path, &component)?, component.serialize().ok()))
            }
        }
    }

    /// Whether it imports sockets.
    pub(super) fn imports_sockets(&self) -> bool {
        matches!(self, Self::Component(_, true))
    }
}

fn link_module(engine: &Engine, path: &Path, module: &Module) -> Result<Program, ProgramError> {
    let invalid =
        |error: wasmtime::Error| ProgramError::Invalid { path: path.to_owned(), reason: words(&error) };
    let not_command = |found| ProgramError::NotCommand {
        path: path.to_owned(),
        found,
        wanted: "a module that exports a function _start without parameters or results, as compilers for \
                 wasm32-wasi make of a program with a main function",
    };
    let start = module.get_export("_start");
    if start.is_none() && module.get_export("_initialize").is_some() {
        return Err(not_command("a core module without _start, made to be a library (it has _initialize)"));
    }
    let start = start.ok_or_else(|| not_command("a core module without _start"))?;
    if start.func().is_none_or(|f| f.params().len() + f.results().len() > 0) {
        return Err(not_command("a core module whose _start isn't such a function"));
    }
    let mut linker = Linker::<State>::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state| &mut state.wasi).map_err(invalid)?;
    // WASI's own refuses codes of 126 and above, which programs of other systems use.
    linker.allow_shadowing(true);
    linker
        .func_wrap("wasi_snapshot_preview1", "proc_exit", |code: i32| -> wasmtime::Result<()> {
            Err(I32Exit(code).into())
        })
        .map_err(invalid)?;
    linker.instantiate_pre(module).map(Program::Module).map_err(invalid)
}

fn link_component(engine: &Engine, path: &Path, component: &Component) -> Result<Program, ProgramError> {
    let invalid =
        |error: wasmtime::Error| ProgramError::Invalid { path: path.to_owned(), reason: words(&error) };
    let kind = component.component_type();
    if !kind.exports(engine).any(|(name, _)| name.starts_with(RUN)) {
        return Err(ProgramError::NotCommand {
            path: path.to_owned(),
            found: "a component that doesn't export wasi:cli/run of WASI 0.2",
            wanted: "a component that does, as compilers for wasm32-wasip2 make of a program with a main function",
        });
    }
    let sockets = kind.imports(engine).any(|(name, _)| is_socket(name));
    let mut linker = wasmtime::component::Linker::<State>::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(invalid)?;
    if sockets {
        names::add_to_linker(&mut linker).map_err(invalid)?;
    }
    let pre = linker.instantiate_pre(component).map_err(invalid)?;
    CommandPre::new(pre).map(|pre| Program::Component(pre, sockets)).map_err(invalid)
}

/// An error's causes in one line, without the list of frames that wasmtime puts before them.
pub(super) fn words(error: &wasmtime::Error) -> String {
    let causes =
        error.chain().map(ToString::to_string).filter(|cause| !cause.starts_with("error while executing"));
    let mut line = causes.collect::<Vec<_>>().join(": ").replace('\n', " ");
    let cut = line.char_indices().nth(700).map_or(line.len(), |(at, _)| at);
    line.truncate(cut);
    line
}

fn is_socket(import: &str) -> bool {
    import.starts_with("wasi:sockets/")
}

fn read(path: &Path) -> Result<Vec<u8>, ProgramError> {
    let error = |source| ProgramError::Read { path: path.to_owned(), source };
    read_file(path, File::open(path).map_err(error)?)
}

fn read_file(path: &Path, file: File) -> Result<Vec<u8>, ProgramError> {
    let error = |source| ProgramError::Read { path: path.to_owned(), source };
    let bytes = file.metadata().map_err(error)?.len();
    if bytes > PROGRAM_MAX {
        return Err(ProgramError::TooLarge { path: path.to_owned(), bytes });
    }
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    file.take(PROGRAM_MAX).read_to_end(&mut content).map_err(error)?;
    Ok(content)
}

fn check_digest(path: &Path, bytes: &[u8], wanted: &str) -> Result<(), ProgramError> {
    let found: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found == wanted {
        return Ok(());
    }
    Err(ProgramError::Digest { path: path.to_owned(), wanted: wanted.to_owned(), found })
}

/// Whether a program imports sockets, so that it needs a network if it is granted one.
///
/// Only components can: WASI preview 1 has no function that makes a socket.
///
/// # Errors
/// The file can't be read, or isn't Wasm in its binary form.
pub fn wants_network(path: &Path) -> Result<bool, ProgramError> {
    imports_sockets(path, &read(path)?)
}

/// Reads bytes as a program, whatever they are.
#[cfg(any(test, fuzzing))]
pub fn read_anything(bytes: &[u8]) {
    if let Err(error) = imports_sockets(Path::new("program"), bytes) {
        assert!(!error.to_string().is_empty());
    }
}

fn imports_sockets(path: &Path, bytes: &[u8]) -> Result<bool, ProgramError> {
    let not_wasm = |found| ProgramError::NotWasm { path: path.to_owned(), found };
    if form(bytes).map_err(not_wasm)? == Form::Module {
        return Ok(false);
    }
    let invalid = |error: wasmparser::BinaryReaderError| ProgramError::Invalid {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    // A component's own imports, not those of the modules and components inside it.
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    if is_socket(import.map_err(invalid)?.name.name) {
                        return Ok(true);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::fuzzing::{FOLDER, mutated};

    #[test]
    fn programs_stand_any_change() {
        let component =
            "(component (import \"wasi:sockets/tcp@0.2.0\" (instance)) (core module (func)) (component))";
        let module =
            "(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func)) (func (export \"_start\")))";
        let seeds = [component, module].map(|text| wat::parse_str(text).unwrap());
        mutated::stands(FOLDER, "program", &seeds, read_anything);
    }

    #[test]
    fn a_file_that_isnt_wasm_is_named_for_what_it_is() {
        let said = |bytes: &[u8]| form(bytes).unwrap_err();
        assert_eq!(said(b""), "empty");
        assert_eq!(said(b"\0as"), "the first bytes of a Wasm module");
        assert_eq!(said(b"\0asm\x09\0\0\0"), "Wasm of a version that isn't known here");
        assert!(said(b"  (module)").contains("text form"));
        assert_eq!(said(b"\x7fELF\x02"), "a native program (ELF)");
        assert_eq!(said(b"#!/bin/sh"), "a script");
        assert_eq!(said(b"hello"), "something else");
        assert_eq!(form(b"\0asm\x01\0\0\0"), Ok(Form::Module));
        assert_eq!(form(b"\0asm\x0d\0\x01\0"), Ok(Form::Component));
    }
}
