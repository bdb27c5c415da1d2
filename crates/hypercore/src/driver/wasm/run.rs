//! The thread that a program runs in, from its loading to its status.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use spacecore::wire::message::{Configuration, ExitStatus, Refusal, RefusalKind, Step, ToHost};
use wasmtime::{Engine, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::{I32Exit, WasiView};

use super::channel::{Channel, Output, WORKLOAD};
use super::control::{Control, Quota};
use super::engine::{Shared, Ticker};
use super::grants;
use super::limits::Limits;
use super::names::Resolver;
use super::network::{self, Way};
use super::program::{Program, ProgramError, words};
use super::questions;
use super::state::State;
use crate::driver::Wasm;

/// All that a program's thread is given.
pub(super) struct Job {
    pub(super) load: Load,
    /// Open as long as the program may use their paths.
    pub(super) _held: Vec<OwnedFd>,
    pub(super) shared: Arc<Shared>,
    pub(super) wasm: Wasm,
    pub(super) memory_bytes: u64,
    pub(super) cpu_milli: u32,
    pub(super) channel: Arc<Channel>,
    pub(super) control: Arc<Control>,
    /// The way to its network, until the program takes it.
    pub(super) network: Mutex<Option<Way>>,
}

/// Where a program's code comes from.
pub(super) enum Load {
    /// This process finds it.
    Here,
    /// The keeper is asked for it, over this socket.
    Asked(OwnedFd),
}

/// Why the program's future is over.
enum Over {
    Returned(wasmtime::Result<()>),
    Stopped(i32),
}

impl Job {
    /// Loads the program while the keeper makes up its mind, then runs it as it is told.
    pub(super) fn run(&self, configuration: &Receiver<Box<Configuration>>) {
        let begun = Instant::now();
        let Wasm { module, digest, cache, .. } = &self.wasm;
        let loaded = match &self.load {
            Load::Here => {
                Program::load(&self.shared, module, digest, cache).map_err(|error| refuse_program(&error))
            }
            Load::Asked(code) => Program::ask(&self.shared, module, digest, code),
        };
        let load_us = microseconds(begun);
        let Ok(configuration) = configuration.recv() else {
            return;
        };
        let result = loaded.and_then(|(program, source)| {
            let loading = Step { name: source.step().to_owned(), us: load_us };
            self.execute(&program, &configuration, loading)
        });
        match result {
            Ok(status) => self.channel.end(status),
            Err(refusal) => self.channel.refuse(refusal),
        }
        self.control.leaves();
    }

    fn execute(
        &self,
        program: &Program,
        configuration: &Configuration,
        loading: Step,
    ) -> Result<ExitStatus, Refusal> {
        let begun = Instant::now();
        let other = |message: String| Refusal { kind: RefusalKind::Other, message };
        let runtime = self.shared.runtime().map_err(other)?;
        self.control.runs_here(&runtime.engine);
        let mut wasi =
            grants::grant(&self.wasm, &configuration.process, &configuration.secrets, &self.channel)?;
        let way = self.network.lock().unwrap_or_else(PoisonError::into_inner).take();
        let way = way.filter(|_| program.imports_sockets());
        let has_network = way.is_some();
        let wanted = configuration.network.as_ref();
        let mut resolver = Resolver::default();
        if has_network {
            resolver = Resolver::new(wanted);
            wasi.inherit_network().allow_tcp(true).allow_udp(true);
        }
        let _pump = match way {
            Some(Way::Made(card)) => network::attach(card, wanted)?,
            Some(Way::Asked(keeper)) => {
                questions::ask_for_network(&keeper, wanted)?;
                None
            }
            None => None,
        };
        let mut wasi = wasi.build_p1();
        wasi.ctx().table.set_max_capacity(grants::HANDLES_MAX);
        let limits = Limits::new(self.memory_bytes, self.wasm.table_elements, Arc::clone(&self.control));
        let mut store = self.store(&runtime.engine, State { wasi, limits, resolver: Arc::new(resolver) });
        let mut tokio = tokio::runtime::Builder::new_current_thread();
        tokio.enable_time().max_blocking_threads(4);
        if has_network {
            tokio.enable_io();
        }
        let tokio =
            tokio.build().map_err(|error| other(format!("no event loop for the program: {error}")))?;
        let granting = Step { name: "grant what was configured".to_owned(), us: microseconds(begun) };
        self.channel.say(&ToHost::Configured { steps: vec![loading, granting] });
        self.channel.say(&ToHost::Started { process: WORKLOAD });

        let over = {
            let call = pin!(call(&mut store, program));
            let is_fine = self.cpu_milli < 1000;
            let control = &*self.control;
            tokio.block_on(Watched {
                call,
                control,
                engine: &runtime.engine,
                ticker: &runtime.ticker,
                is_fine,
            })
        };
        tokio.shutdown_background();
        let (status, said) = judge(over, &self.control, &store.data().limits);
        if let Some(said) = said {
            let _ = self.channel.write(Output::Stderr, format!("vimana: {said}\n").as_bytes());
        }
        Ok(status)
    }

    fn store(&self, engine: &Engine, state: State) -> Store<State> {
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(1);
        let control = Arc::clone(&self.control);
        let mut quota = Quota::new(self.cpu_milli);
        store.epoch_deadline_callback(move |_| {
            if let Some(quota) = &mut quota {
                quota.hold(&control);
            }
            // What waits for sockets and clocks gets its turn, however busy the program is.
            Ok(if control.gate() { UpdateDeadline::Yield(1) } else { UpdateDeadline::Interrupt })
        });
        store
    }
}

fn microseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn refuse_program(error: &ProgramError) -> Refusal {
    let kind = match error {
        ProgramError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            RefusalKind::NotFound
        }
        ProgramError::Read { .. }
        | ProgramError::TooLarge { .. }
        | ProgramError::NotWasm { .. }
        | ProgramError::Digest { .. }
        | ProgramError::Invalid { .. }
        | ProgramError::Told(_)
        | ProgramError::NotCommand { .. } => RefusalKind::NotExecutable,
    };
    let mut message = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        message.push_str(&format!(": {source}"));
    }
    Refusal { kind, message }
}

async fn call(store: &mut Store<State>, program: &Program) -> wasmtime::Result<()> {
    match program {
        Program::Module(pre) => {
            let instance = pre.instantiate_async(&mut *store).await?;
            let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
            start.call_async(store, ()).await
        }
        Program::Component(pre, _) => {
            let command = pre.instantiate_async(&mut *store).await?;
            match command.wasi_cli_run().call_run(store).await? {
                Ok(()) => Ok(()),
                Err(()) => Err(I32Exit(1).into()),
            }
        }
    }
}

/// A program's call, which ends when the program is told to stop, and waits while it is told to pause.
struct Watched<'a, F> {
    call: Pin<&'a mut F>,
    control: &'a Control,
    engine: &'a Engine,
    ticker: &'a Arc<Ticker>,
    is_fine: bool,
}

impl<F: Future<Output = wasmtime::Result<()>>> Future for Watched<'_, F> {
    type Output = Over;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Over> {
        self.control.wake_by(context.waker());
        if !self.control.gate() {
            return Poll::Ready(Over::Stopped(self.control.stopped().unwrap_or(libc::SIGKILL)));
        }
        let _ticked = self.ticker.tick(self.engine, self.is_fine);
        self.call.as_mut().poll(context).map(Over::Returned)
    }
}

/// The status of a program that is over, and what is to be said of it.
fn judge(over: Over, control: &Control, limits: &Limits) -> (ExitStatus, Option<String>) {
    let signal = |signal| ExitStatus::Signal { signal, out_of_memory: false };
    let error = match over {
        Over::Stopped(number) => return (signal(number), None),
        Over::Returned(Ok(())) => return (ExitStatus::Code(0), None),
        Over::Returned(Err(error)) => error,
    };
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return (ExitStatus::Code(u8::try_from(exit.0 & 0xff).unwrap_or(0)), None);
    }
    let trap = error.downcast_ref::<Trap>();
    if let (Some(Trap::Interrupt), Some(number)) = (trap, control.stopped()) {
        return (signal(number), None);
    }
    if limits.ran_out_of_memory() {
        // The status says it, as it does of every workload.
        return (ExitStatus::Signal { signal: libc::SIGKILL, out_of_memory: true }, None);
    }
    let place = error.downcast_ref::<WasmBacktrace>().and_then(|trace| trace.frames().first()).map(|frame| {
        frame.func_name().map_or_else(
            || format!(" in function {}", frame.func_index()),
            |name| format!(" in function {name}"),
        )
    });
    let what = format!("{}{}", words(&error), place.unwrap_or_default());
    let number = if trap == Some(&Trap::StackOverflow) { libc::SIGSEGV } else { libc::SIGABRT };
    (signal(number), Some(what))
}
