//! The engine that all Wasm programs of one process share, and the thread that makes its epoch tick.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use wasmtime::{Config, Engine, OptLevel};

use super::cache;
use super::compiler::Compiler;
use super::program::Program;

/// A program's own stack. Deeper recursion is a trap.
const STACK: usize = 1 << 20;

/// What a call from the program into the host may use of the stack on top.
const HOST_STACK: usize = 512 * 1024;

/// How often a program looks up from its work, where nothing asks for more.
const TICK: Duration = Duration::from_millis(10);

/// The same for a program that is held to a share of the processor. What a late tick lets through is owed; ticks themselves take
/// time of a processor, some hundredths of it where there are a thousand in a second.
const FINE_TICK: Duration = Duration::from_millis(4);

/// Programs that stay ready to be started again.
const PROGRAMS_MAX: usize = 64;

/// A program, once it is loaded. Whoever loads it holds the lock, so that others who want the same wait and have it.
pub(super) type Slot = Arc<Mutex<Option<Program>>>;

/// What the programs of one process share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    engine: OnceLock<Result<Runtime, String>>,
    programs: Mutex<BTreeMap<String, Slot>>,
    compiler: Option<Compiler>,
}

/// The engine, and what goes with it.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) engine: Engine,
    pub(super) ticker: Arc<Ticker>,
    /// What compiled code depends on beside the program.
    pub(super) fingerprint: String,
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        // A stranger's program gets one processor for being compiled, not all.
        .parallel_compilation(false)
        .max_wasm_stack(STACK)
        .async_stack_size(STACK + HOST_STACK)
        // For unwinders of the system, such as debuggers'; wasmtime walks its frames without.
        .native_unwind_info(false);
    config
}

impl Shared {
    /// As by default, but programs are compiled by another process.
    pub(super) fn compiled_by(compiler: Compiler) -> Self {
        Self { compiler: Some(compiler), ..Self::default() }
    }

    /// Who compiles; nobody where this process does it itself.
    pub(super) fn compiler(&self) -> Option<&Compiler> {
        self.compiler.as_ref()
    }

    /// The engine, made when it is first needed.
    ///
    /// # Errors
    /// This processor can't run compiled code, in wasmtime's words.
    pub(super) fn runtime(&self) -> Result<&Runtime, String> {
        let made = self.engine.get_or_init(|| {
            let engine = Engine::new(&config()).map_err(|error| format!("{error:#}"))?;
            let fingerprint = cache::fingerprint(&engine);
            Ok(Runtime { ticker: Ticker::new(), engine, fingerprint })
        });
        made.as_ref().map_err(Clone::clone)
    }

    /// The place of the program with this digest.
    pub(super) fn slot(&self, digest: &str) -> Slot {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if !programs.contains_key(digest) {
            while programs.len() >= PROGRAMS_MAX && programs.pop_first().is_some() {}
        }
        Arc::clone(programs.entry(digest.to_owned()).or_default())
    }
}

/// Makes an engine's epoch tick while programs of it run.
#[derive(Debug)]
pub(super) struct Ticker {
    state: Mutex<Ticking>,
    begun: Condvar,
}

#[derive(Debug, Default)]
struct Ticking {
    running: usize,
    fine: usize,
    has_thread: bool,
    is_parked: bool,
    /// Ticks so far, for whoever wants to know whether there are any.
    ticks: u64,
}

/// A program that runs. Dropping it says that it waits or has ended.
#[derive(Debug)]
pub(super) struct Ticked<'a> {
    ticker: &'a Ticker,
    is_fine: bool,
}

impl Ticker {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), begun: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, Ticking> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a program runs.
    pub(super) fn tick(self: &Arc<Self>, engine: &Engine, is_fine: bool) -> Ticked<'_> {
        let mut state = self.state();
        state.running += 1;
        state.fine += usize::from(is_fine);
        if !state.has_thread {
            let (ticker, engine) = (Arc::clone(self), engine.weak());
            let thread = std::thread::Builder::new().name("wasm-ticker".to_owned());
            // Without it programs still stop when they are told to; only quotas need it.
            state.has_thread = thread.spawn(move || ticker.run(&engine)).is_ok();
        }
        if state.is_parked {
            state.is_parked = false;
            self.begun.notify_one();
        }
        Ticked { ticker: self, is_fine }
    }

    fn run(&self, engine: &wasmtime::EngineWeak) {
        /// How long the thread waits for another program before it ends.
        const IDLE: Duration = Duration::from_secs(5);
        loop {
            let mut state = self.state();
            while state.running == 0 {
                // Said anew before each wait: a program may have begun and ended before this thread could notice.
                state.is_parked = true;
                let (waited, result) =
                    self.begun.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
                state = waited;
                state.is_parked = false;
                if result.timed_out() && state.running == 0 {
                    state.has_thread = false;
                    return;
                }
            }
            state.ticks = state.ticks.wrapping_add(1);
            let tick = if state.fine > 0 { FINE_TICK } else { TICK };
            drop(state);
            std::thread::sleep(tick);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    }
}

impl Drop for Ticked<'_> {
    fn drop(&mut self) {
        let mut state = self.ticker.state();
        state.running = state.running.saturating_sub(1);
        state.fine = state.fine.saturating_sub(usize::from(self.is_fine));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_ticks_whenever_a_program_runs_however_shortly_others_ran_before() {
        let engine = Engine::new(&config()).unwrap();
        let ticker = Ticker::new();
        for _ in 0..50 {
            // Begins and ends before the thread can look.
            drop(ticker.tick(&engine, true));
            std::thread::sleep(Duration::from_millis(3));
            drop(ticker.tick(&engine, true));
            let _running = ticker.tick(&engine, true);
            let begin = std::time::Instant::now();
            let before = ticker.state().ticks;
            while ticker.state().ticks == before {
                assert!(begin.elapsed() < Duration::from_secs(2), "nobody ticks");
                std::thread::yield_now();
            }
        }
    }
}
