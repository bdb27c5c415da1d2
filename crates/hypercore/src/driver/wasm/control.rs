//! What a running program is told from outside: to stop, to pause, and to keep to its share of the processor.
//!
//! The program's own thread looks here at every epoch tick and every time it is polled; whoever tells it something makes
//! the epoch tick, so that a program that loops for ever notices within microseconds.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::Engine;

/// The period over which a share of the processor is held, as in the kernel's own scheduler.
const PERIOD: Duration = Duration::from_millis(100);

/// One program, as seen from outside its thread.
#[derive(Debug, Default)]
pub(super) struct Control {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether `state` says anything; read at every tick without its lock.
    is_told: AtomicBool,
    engine: OnceLock<Engine>,
    thread: AtomicI32,
    /// Processor time of a thread that has ended, in nanoseconds.
    spent_ns: AtomicU64,
    /// Bytes of linear memory in use.
    pub(super) memory: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    stopped: Option<i32>,
    paused: bool,
    waker: Option<Waker>,
}

impl Control {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the engine that the program runs in, and that it runs in this thread.
    pub(super) fn runs_here(&self, engine: &Engine) {
        let _ = self.engine.set(engine.clone());
        self.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
    }

    /// Notes that the thread is about to end.
    pub(super) fn leaves(&self) {
        self.spent_ns.store(nanoseconds(own_time()), Ordering::Release);
        self.thread.store(0, Ordering::Release);
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.state();
            change(&mut state);
            self.is_told.store(state.stopped.is_some() || state.paused, Ordering::Release);
            state.waker.take()
        };
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
        if let Some(engine) = self.engine.get() {
            engine.increment_epoch();
        }
    }

    /// Ends the program as this signal would. The first signal counts.
    pub(super) fn stop(&self, signal: i32) {
        self.tell(|state| _ = state.stopped.get_or_insert(signal));
    }

    /// Holds the program, or lets it go on.
    pub(super) fn pause(&self, paused: bool) {
        self.tell(|state| state.paused = paused);
    }

    /// The signal that ended the program.
    pub(super) fn stopped(&self) -> Option<i32> {
        if !self.is_told.load(Ordering::Acquire) {
            return None;
        }
        self.state().stopped
    }

    /// Remembers whom to wake when the program is told something.
    pub(super) fn wake_by(&self, waker: &Waker) {
        let mut state = self.state();
        if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
    }

    /// Waits while the program is paused; `false` where it is to stop.
    pub(super) fn gate(&self) -> bool {
        if !self.is_told.load(Ordering::Acquire) {
            return true;
        }
        let mut state = self.state();
        while state.paused && state.stopped.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.stopped.is_none()
    }

    /// Sleeps, unless the program is told to stop before.
    fn sleep(&self, time: Duration) {
        let end = Instant::now() + time;
        let mut state = self.state();
        while state.stopped.is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Processor time of the program's thread so far.
    #[allow(unsafe_code)]
    pub(super) fn cpu(&self) -> Duration {
        let thread = self.thread.load(Ordering::Acquire);
        if thread > 0 {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // The clock of one thread of this process: the kernel's CPUCLOCK_SCHED of a thread (posix-timers_types.h).
            let clock = (!thread << 3) | 6;
            // SAFETY: the kernel writes to `time`, which lives here, and refuses a clock that doesn't exist.
            if unsafe { libc::clock_gettime(clock, &raw mut time) } == 0 {
                let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
                return Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0));
            }
        }
        Duration::from_nanos(self.spent_ns.load(Ordering::Acquire))
    }
}

/// Processor time of the calling thread.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A share of one processor, held by sleeping.
///
/// Time is earned as it passes, kept for at most one period, and owed where a tick came late, so that the share is exact
/// in the long run however coarse the ticks are.
#[derive(Debug)]
pub(super) struct Quota {
    milli: u32,
    /// Nanoseconds that may still be used; negative is owed.
    credit: i128,
    seen: Instant,
    used: Duration,
}

impl Quota {
    /// A quota in thousandths of a processor, none where a single thread can't exceed it.
    pub(super) fn new(milli: u32) -> Option<Self> {
        (milli < 1000).then(|| Self {
            milli: milli.max(1),
            credit: Self::earned(milli.max(1), PERIOD),
            seen: Instant::now(),
            used: own_time(),
        })
    }

    fn earned(milli: u32, time: Duration) -> i128 {
        i128::from(nanoseconds(time)) * i128::from(milli) / 1000
    }

    /// Sleeps until the calling thread may use the processor again.
    pub(super) fn hold(&mut self, control: &Control) {
        if let Some(pause) = self.account(Instant::now(), own_time()) {
            control.sleep(pause);
        }
    }

    fn account(&mut self, now: Instant, used: Duration) -> Option<Duration> {
        let earned = Self::earned(self.milli, now.saturating_duration_since(self.seen));
        let spent = i128::from(nanoseconds(used.saturating_sub(self.used)));
        let most = Self::earned(self.milli, PERIOD);
        self.credit = (self.credit + earned).min(most) - spent;
        (self.seen, self.used) = (now, used);
        if self.credit > 0 {
            return None;
        }
        // Until half of a period's share is there again: a thread that is woken late then loses nothing of it.
        let pause = (most / 2 - self.credit) * 1000 / i128::from(self.milli);
        Some(Duration::from_nanos(u64::try_from(pause).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_exact_in_the_long_run_however_late_its_ticks_are() {
        for (milli, tick_us) in [(10, 1000), (100, 3700), (250, 1000), (500, 17_000), (900, 950)] {
            let start = Instant::now();
            let tick = Duration::from_micros(tick_us);
            let mut quota =
                Quota { milli, credit: Quota::earned(milli, PERIOD), seen: start, used: Duration::ZERO };
            let (mut wall, mut cpu) = (Duration::ZERO, Duration::ZERO);
            while wall < Duration::from_secs(5) {
                wall += tick;
                cpu += tick;
                wall += quota.account(start + wall, cpu).unwrap_or_default();
            }
            let share = cpu.as_secs_f64() / wall.as_secs_f64() * 1000.0 / f64::from(milli);
            assert!((0.97..1.03).contains(&share), "{milli}: {share}");
        }
    }

    #[test]
    fn a_program_that_slept_may_not_make_up_for_more_than_one_period() {
        let start = Instant::now();
        let mut quota = Quota { milli: 500, credit: 0, seen: start, used: Duration::ZERO };
        assert_eq!(quota.account(start + Duration::from_secs(60), Duration::from_millis(1)), None);
        assert_eq!(quota.credit, 49_000_000);
    }

    #[test]
    fn the_first_signal_counts_and_ends_a_pause() {
        let control = Control::default();
        assert!(control.gate());
        control.pause(true);
        control.stop(libc::SIGTERM);
        control.stop(libc::SIGKILL);
        assert!(!control.gate());
        assert_eq!(control.stopped(), Some(libc::SIGTERM));
    }
}
