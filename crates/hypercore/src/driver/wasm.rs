//! The Wasm driver: WebAssembly programs run by wasmtime, inside the calling process or in jails.
//!
//! A keeper of root's runs none itself: all of its programs without a network are in one process in a jail, and each with a
//! network in one of its own, see `runner.rs`. What stands here holds in every one of these processes.
//!
//! ```text
//!  keeper --channel--> guest thread   speaks the protocol (guest.rs), as PID 1 does in a microVM
//!                          |          starts, stops, pauses (control.rs)
//!                          v
//!                      program thread loads (program.rs, cache.rs), is granted what was configured (grants.rs),
//!                                     runs (run.rs), writes straight to the channel (stdio.rs)
//! ```
//!
//! **Programs** are core modules with `_start` over WASI preview 1, and components that export `wasi:cli/run` of WASI 0.2.
//!
//! **What a program sees**: its arguments (the module's file name where there are none), the variables that were
//! configured and no others, the folders of [`Wasm::mounts`](super::Wasm::mounts), clocks and random numbers. User and host name have no
//! meaning to it. Relative paths lead to the working directory where that lies in one of its folders, to a folder mounted at `/`
//! where it is `/`, and else nowhere.
//!
//! **Signals**: WASI knows none, so a program can't handle them. Each does at once what it does to a process that says nothing
//! about it (signal(7)): TERM, INT, HUP, QUIT, KILL and most others end it with that signal as its status; STOP and CONT
//! pause it and let it go on; CHLD, URG and WINCH do nothing.
//!
//! **Sockets** are there for a program that imports `wasi:sockets` (a component: WASI preview 1 can't make any), and only where
//! the machine has a network: it then has a network namespace of its own with that one interface, and names are looked up at
//! the name servers that were configured, see [`wants_network`]. In a jail that is the jail's, and the keeper sets it up from outside;
//! else it is the program's thread's, and the caller needs the right to make network namespaces (`network.rs`).
//!
//! **Status**: the exit code's low 8 bits; 0 on return; 1 where `wasi:cli/run` returns an error. A trap is signal 6 (SIGABRT), or
//! 11 (SIGSEGV) where the stack was exhausted, or 9 (SIGKILL) with `out_of_memory` where the program had just been refused
//! memory; what happened, and in which function, is the last line of its standard error, after `vimana: `.
//!
//! **Limits**: all memories of a program together have at most [`Machine::memory_mib`]; growth beyond fails as the
//! specification has it (`memory.grow` returns -1). Processor time below one CPU is held by making the program sleep.
//! Stopping and pausing take effect at the program's next loop or call; within a call to the host's files, after it.

mod cache;
mod channel;
mod compiler;
mod control;
mod engine;
mod grants;
mod guest;
mod inside;
mod instance;
mod limits;
mod line_discipline;
mod memory;
mod names;
mod network;
mod program;
mod questions;
mod run;
mod runner;
mod state;
mod stdio;

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread::Builder;

use rustix::event::{EventfdFlags, eventfd};
use spacecore::wire::message::{Refusal, RefusalKind, ToHost};

pub use compiler::{COMPILE, COMPILE_BYTES, COMPILE_INSIDE, COMPILE_SECONDS, compile, compile_inside};
pub use inside::run_inside;
#[cfg(any(test, fuzzing))]
pub use program::read_anything;
pub use program::{PROGRAM_MAX, ProgramError, wants_network};
pub use runner::RUN;

use super::{
    Body, Driver, Execution, Instance, Machine, MountSource, PrepareError, Prepared, StartError, Wiring,
};
use crate::cgroup::Limits;
use channel::Channel;
use compiler::Compiler;
use control::Control;
use engine::Shared;
use guest::Guest;
use instance::Running;
use network::{Card, Way};
use run::{Job, Load};
use runner::{Order, Runner};

/// The driver's name.
const NAME: &str = "wasm";

/// The stack of a program's thread: calls into the host run on the program's own, see `engine.rs`.
const THREAD_STACK: usize = 1 << 20;

/// Runs WebAssembly programs inside this process, or in jails. All programs of one process share an engine and loaded code.
#[derive(Clone, Debug, Default)]
pub struct Wasm {
    shared: Arc<Shared>,
    /// What runs programs in jails, where this process doesn't run them.
    jails: Arc<OnceLock<Jails>>,
}

/// What runs programs in jails.
#[derive(Debug)]
struct Jails {
    program: PathBuf,
    cache: Option<PathBuf>,
    /// The process that runs all programs that have none of their own.
    for_all: OnceLock<Result<Arc<Runner>, String>>,
}

/// A program that is to be started in this process.
struct Start {
    wasm: super::Wasm,
    memory_bytes: u64,
    cpu_milli: u32,
    channel: OwnedFd,
    network: Option<Way>,
    load: Load,
    /// What must stay open as long as it runs.
    held: Vec<OwnedFd>,
}

/// Starts a program on threads of its own. What is wrong with the program itself is told over the channel.
fn begin(shared: &Arc<Shared>, start: Start) -> io::Result<Running> {
    let done = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let control = Arc::new(Control::default());
    let ends = Arc::new(Channel::new(start.channel)?);
    ends.say(&ToHost::Hello {
        version: spacecore::wire::VERSION,
        release: "wasmtime 48".to_owned(),
        uptime_us: 0,
    });
    let memory_bytes = start.memory_bytes;
    let job = Job {
        load: start.load,
        _held: start.held,
        shared: Arc::clone(shared),
        wasm: start.wasm,
        memory_bytes,
        cpu_milli: start.cpu_milli,
        channel: Arc::clone(&ends),
        control: Arc::clone(&control),
        network: start.network.into(),
    };
    let (configure, configuration) = channel();
    let (running, finished) = channel();
    let program = Builder::new().name("wasm-program".to_owned()).stack_size(THREAD_STACK);
    let program = program.spawn(move || {
        let _running = running;
        if catch_unwind(AssertUnwindSafe(|| job.run(&configuration))).is_err() {
            let message = "the Wasm runtime failed; this is a fault of Vimana's".to_owned();
            job.channel.refuse(Refusal { kind: RefusalKind::Other, message });
        }
    })?;
    let guest = Guest::new(
        Arc::clone(&ends),
        Arc::clone(&control),
        configure,
        (program, finished),
        memory_bytes,
        Arc::clone(&done),
    );
    let thread = Builder::new().name("wasm-guest".to_owned()).stack_size(256 * 1024);
    let thread = thread.spawn(move || guest.run())?;
    Ok(Running { channel: ends, control, done, guest: Some(thread) })
}

impl Wasm {
    /// The driver. Costs nothing until a program is started.
    pub fn new() -> Self {
        Self::default()
    }

    /// The driver, where programs are compiled by a process of their own: `program`, executed with the arguments [`COMPILE`], the
    /// module's path and its digest, writes what [`compile`] gives.
    pub fn compiled_by(program: PathBuf) -> Self {
        Self { shared: Arc::new(Shared::compiled_by(Compiler::new(program))), jails: Arc::default() }
    }

    /// Has all programs run in jails from now on: `program`, executed with the argument [`RUN`], calls
    /// [`run_inside`]; and compiled in jails of their own: executed with [`COMPILE_INSIDE`] it calls [`compile_inside`]. A program
    /// with a network, or with a folder, has its process from its start, which must be made by a thread that lives as long: the
    /// process ends with it. Root alone can have jails; nothing happens where there are some already.
    pub fn jail(&self, program: &Path, cache: Option<&Path>) {
        if let Some(compiler) = self.shared.compiler() {
            compiler.jail(program, cache);
        }
        let (program, cache) = (program.to_owned(), cache.map(Path::to_owned));
        self.jails.get_or_init(|| Jails { program, cache, for_all: OnceLock::new() });
    }

    /// Starts the process for programs with neither network nor folder, which ends with the thread that calls this. Nothing happens
    /// where there are no jails, or where it runs. Where it can't be had every start of such a program fails with the reason.
    pub fn run_for_all(&self) {
        let Some(jails) = self.jails.get() else { return };
        jails.for_all.get_or_init(|| match Runner::for_all(&jails.program, jails.cache.as_deref()) {
            Ok(runner) => Ok(Arc::new(runner)),
            Err(error) => Err(format!("a jail for Wasm programs: {error}")),
        });
    }
}

impl Jails {
    /// The process for a program.
    fn runner(&self, has_network: bool, group: Option<&(PathBuf, Limits)>) -> io::Result<Arc<Runner>> {
        if has_network || group.is_some() {
            let runner = Runner::for_one(&self.program, self.cache.as_deref(), group, has_network);
            return runner
                .map(Arc::new)
                .map_err(|error| io::Error::new(error.kind(), format!("a jail for the program: {error}")));
        }
        match self.for_all.get() {
            Some(Ok(runner)) => Ok(Arc::clone(runner)),
            Some(Err(reason)) => Err(io::Error::other(reason.clone())),
            None => Err(io::Error::other("no jail for all programs was made")),
        }
    }
}

impl Driver for Wasm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, machine: &Machine) -> Result<Prepared, PrepareError> {
        let Body::Wasm(wasm) = &machine.body else {
            return Err(PrepareError::Body { driver: NAME, body: machine.body.kind() });
        };
        let value =
            |what: &str, found: String, wanted| PrepareError::Value { what: what.to_owned(), found, wanted };
        let is_digest = wasm.digest.len() == 64
            && wasm.digest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if !is_digest {
            return Err(value(
                "the module's digest",
                wasm.digest.clone(),
                "64 hexadecimal digits in lower case",
            ));
        }
        if machine.cpu_milli == 0 {
            return Err(value("the processor time", "0".to_owned(), "at least 1 thousandth of a CPU"));
        }
        let memory_bytes = machine.memory_mib.checked_mul(1 << 20).filter(|bytes| *bytes > 0);
        let memory_bytes = memory_bytes.ok_or_else(|| {
            value("the memory in MiB", machine.memory_mib.to_string(), "at least 1 and less than 2^44")
        })?;
        for mount in &wasm.mounts {
            let what = format!("the mount at {}", mount.destination);
            if !mount.destination.starts_with('/') {
                return Err(value("a mount's place", mount.destination.clone(), "an absolute path"));
            }
            let found = match mount.source {
                MountSource::Folder(_) => continue,
                // A jail's is made for its user; nobody else can have one.
                MountSource::Memory(_) if self.jails.get().is_some() => continue,
                MountSource::File(_) => "a single file",
                MountSource::Memory(_) => "a folder in memory",
                MountSource::Disk(_) => "a disk",
            };
            return Err(PrepareError::Value {
                what,
                found: found.to_owned(),
                wanted: "a folder of the host: a Wasm program can be given no others",
            });
        }
        let group = wasm
            .folder
            .clone()
            .map(|folder| (folder, runner::limits(wasm, memory_bytes, machine.cpu_milli, machine.class)));
        Ok(Prepared {
            driver: NAME,
            network: machine.network.is_some(),
            console: false,
            execution: Execution::Wasm {
                wasm: wasm.clone(),
                memory_bytes,
                cpu_milli: machine.cpu_milli,
                network: machine.network,
                group,
            },
        })
    }

    /// Starts the program on threads of its own, or in a jail. What is wrong with the program itself is told over the channel.
    fn start(&self, prepared: &Prepared, wiring: Wiring) -> Result<Box<dyn Instance>, StartError> {
        let Execution::Wasm { wasm, memory_bytes, cpu_milli, network, group } = &prepared.execution else {
            return Err(StartError::Prepared { driver: NAME, other: prepared.driver });
        };
        let with = |wanted| if wanted { "with" } else { "without" };
        if wiring.console.is_some() {
            return Err(StartError::Wiring { wire: "a console", prepared: with(false) });
        }
        if wiring.network.is_some() && !prepared.network {
            return Err(StartError::Wiring { wire: "a network", prepared: with(false) });
        }
        let failed = |source| StartError::Execute { program: wasm.module.clone(), source };
        let network = wiring.network.zip(*network).map(|(wire, card)| Card { wire, card });
        let (memory_bytes, cpu_milli) = (*memory_bytes, *cpu_milli);
        if let Some(jails) = self.jails.get() {
            let has_network = network.is_some();
            let runner = jails.runner(has_network, group.as_ref()).map_err(failed)?;
            let wasm = super::Wasm { folder: None, ..wasm.clone() };
            let order = Order { wasm, memory_bytes, cpu_milli, has_network };
            let jailed = runner.run(&order, wiring.channel, &self.shared, network).map_err(failed)?;
            return Ok(Box::new(jailed));
        }
        let (wasm, channel, network) = (wasm.clone(), wiring.channel, network.map(Way::Made));
        let start =
            Start { wasm, memory_bytes, cpu_milli, channel, network, load: Load::Here, held: Vec::new() };
        Ok(Box::new(begin(&self.shared, start).map_err(failed)?))
    }
}
