//! Keeps one spacecore running: decides what follows from what happened, free of I/O and clocks.
//!
//! ```text
//!           Run              Started             every check has passed
//!   Idle --------> Starting ---------> Running -------------------------> Ready
//!                   ^    |                |                                 |
//!     back-off over |    |                +----------------+----------------+
//!     or Restart    |    | Ended                           | Ended
//!                   |    v                                 v
//!                Waiting <---- what the restart policy says of the end ----> Completed, Failed
//!                                               ^
//!                              Ended, unhealthy | or overdue, or evicted
//!                                               |
//!   Starting, Running, Ready ---------------> Stopping --> Halted    Ended after Halt
//!   Halt, Restart, Evict, unhealthy, overdue          `--> Starting  Ended after Restart
//! ```
//!
//! - **Idle**: nobody has asked for it yet.
//! - **Starting**: an attempt was begun; `Started` or `Ended` is awaited. No timer: an image may be on its way, and the
//!   keeper has its own patience with the machine.
//! - **Running**: the workload runs; some check hasn't passed yet.
//! - **Ready**: every check has passed once. A failure or two don't change that; enough of them end the attempt.
//! - **Waiting**: the last attempt ended and the next one follows when the back-off is over.
//! - **Stopping**: the attempt was told to stop; its `Ended` is awaited, and a kill follows if it doesn't come.
//! - **Completed**: the workload ended well and isn't started again; [`State::last_end`] keeps the result.
//! - **Failed**: it ended otherwise and isn't started again.
//! - **Halted**: it stands still because somebody asked for that.
//!
//! What counts:
//!
//! - **One attempt at a time.** Attempts are numbered from 1; an input about another than the present one is ignored.
//! - **The first cause decides**: an attempt that was stopped for being unhealthy has failed, whatever it exits with.
//! - **Back-off**: the first wait is `backoff_ms`; each restart in a row doubles it, up to [`BACKOFF_CAP_MS`]. A row ends
//!   with an attempt that was ready for that long (for `backoff_ms`, if that is longer), and when somebody starts it anew.
//! - **Giving up**: after `max_attempts` restarts in a row the next end is final.
//! - **Eviction** is nobody's fault: it counts in no row, and the next attempt follows whatever the policy says.
//! - **Commands**: `Run` is a wish that may be repeated: it starts what is idle or halted, and changes nothing else, so
//!   that a result isn't overwritten. `Halt` is kept until `Run` or `Restart`, and forgets neither attempt nor result.
//!   `Restart` starts anew from everywhere, without a wait.
//! - **Timers** don't survive the daemon, and attempts may: see [`State::recovered`].

mod end;
mod event;
mod health;
#[cfg(test)]
mod histories;
mod rules;
mod stopping;
#[cfg(test)]
mod tests;
mod timers;
#[cfg(test)]
mod twin;

use serde::{Deserialize, Serialize};

pub use end::End;
pub use event::Event;
use health::Health;
use rules::Verdict;
pub use rules::{BACKOFF_CAP_MS, CheckRule, GRACE_MS, Rules};
pub use timers::Timer;
use timers::Timers;

/// How long after the grace period the end of an attempt that was told to stop is awaited.
///
/// It is more than a keeper's own patience, so that a kill meets only a keeper that is stuck.
pub const STOP_PATIENCE_MS: u64 = 15_000;

/// How long the end of an attempt is awaited whose keeper was told to end it at once, which takes no time, and again after each
/// [`Effect::Destroy`].
pub const KILL_PATIENCE_MS: u64 = 5_000;

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// It shall run.
    Run,
    /// It shall stand still; what it has written is kept.
    Halt,
    /// It shall start anew.
    Restart,
    /// The workload of an attempt runs. Also the answer to [`Effect::Find`] that the attempt is alive.
    Started {
        /// The attempt.
        attempt: u64,
    },
    /// An attempt is over, and nothing of it runs any more.
    Ended {
        /// The attempt.
        attempt: u64,
        /// How.
        end: End,
    },
    /// The answer to [`Effect::RunCheck`].
    Checked {
        /// The attempt.
        attempt: u64,
        /// The check's place in [`Rules::checks`].
        check: usize,
        /// Nothing, or why the check failed.
        result: Result<(), String>,
    },
    /// It has to go for now, because the machine can't keep it.
    Evict {
        /// Why.
        reason: String,
    },
    /// A timer that was set has run out.
    Timer(Timer),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Begins an attempt; answered by [`Input::Started`], then [`Input::Ended`], or by [`Input::Ended`] alone.
    Start {
        /// Its number.
        attempt: u64,
    },
    /// Tells an attempt to end in order. One that hasn't got a keeper yet is abandoned and ends as [`End::Stopped`].
    Stop {
        /// Its number.
        attempt: u64,
        /// Milliseconds that those whom it serves have to come to their end before it is told; nobody new comes to it meanwhile.
        drain_ms: u64,
        /// Milliseconds between stop signal and kill.
        grace_ms: u64,
    },
    /// Has an attempt's keeper end it at once.
    Kill {
        /// Its number.
        attempt: u64,
    },
    /// Kills the keeper of an attempt itself, which hasn't done as it was told. It may come more than once.
    Destroy {
        /// Its number.
        attempt: u64,
    },
    /// Finds out whether an attempt from before the daemon's death is alive; answered by [`Input::Started`] if its
    /// workload runs, by [`Input::Ended`] if it doesn't. If it is still on its way, `Started` comes when it is there.
    Find {
        /// Its number.
        attempt: u64,
    },
    /// Sets a timer, in place of the one of the same name if there is one.
    SetTimer {
        /// Its name.
        timer: Timer,
        /// When it runs out, in milliseconds from now.
        after_ms: u64,
    },
    /// Removes a timer.
    ClearTimer(Timer),
    /// Runs a check; answered by [`Input::Checked`] within the timeout.
    RunCheck {
        /// The attempt.
        attempt: u64,
        /// The check's place in [`Rules::checks`].
        check: usize,
        /// How long the answer may take.
        timeout_ms: u64,
    },
    /// Says what happened, for logs and people.
    Tell(Event),
}

/// Where a spacecore stands; see the module's diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nobody has asked for it yet.
    Idle,
    /// An attempt was begun.
    Starting,
    /// The workload runs; some check hasn't passed yet.
    Running,
    /// The workload runs and every check has passed.
    Ready,
    /// The next attempt follows after the back-off.
    Waiting,
    /// The attempt was told to stop.
    Stopping,
    /// It ended well and isn't started again.
    Completed,
    /// It ended otherwise and isn't started again.
    Failed,
    /// It stands still because somebody asked for that.
    Halted,
}

impl Phase {
    /// Tells whether an attempt is under way, so that its [`Input::Ended`] is awaited.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Ready | Self::Stopping)
    }

    /// Tells whether nothing happens any more until somebody asks for it.
    pub fn is_restful(self) -> bool {
        matches!(self, Self::Idle | Self::Completed | Self::Failed | Self::Halted)
    }
}

/// What follows when the attempt that is being stopped has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum After {
    /// It stands still.
    Halt,
    /// The next attempt.
    Start,
    /// What the policy says of this end, which is the reason for the stop.
    Judge(End),
}

/// The effects of one step, and its moment.
struct Turn {
    now_ms: u64,
    effects: Vec<Effect>,
}

impl Turn {
    fn at(now_ms: u64) -> Self {
        Self { now_ms, effects: Vec::new() }
    }

    fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn tell(&mut self, event: Event) {
        self.push(Effect::Tell(event));
    }
}

/// The state of one spacecore under supervision. It is what is written down, after each step and before its effects are
/// performed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct State {
    rules: Rules,
    phase: Phase,
    attempt: u64,
    /// Something while the phase is `Stopping`.
    after: Option<After>,
    /// When the present attempt's workload began to run.
    started_ms: Option<u64>,
    /// When the present attempt became ready.
    ready_ms: Option<u64>,
    /// One for each check, in the order of the rules, while the workload runs.
    health: Vec<Health>,
    timers: Timers,
    /// Restarts since the row began.
    row: u32,
    restarts: u32,
    last_end: Option<End>,
    /// How long the workload of the attempt ran that ended last; nothing where it never ran.
    #[serde(default)]
    ran_ms: Option<u64>,
    /// Whether the attempt's start was overtaken by the daemon's death, so that it may never have begun.
    doubtful: bool,
    /// How often the attempt was killed, and didn't end.
    #[serde(default)]
    kills: u32,
}

impl State {
    /// Makes the state of a spacecore that nobody has asked for yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            phase: Phase::Idle,
            attempt: 0,
            after: None,
            started_ms: None,
            ready_ms: None,
            health: Vec::new(),
            timers: Timers::default(),
            row: 0,
            restarts: 0,
            last_end: None,
            ran_ms: None,
            doubtful: false,
            kills: 0,
        }
    }

    /// Goes on after the daemon's death with the state that was written down.
    ///
    /// The effects set every timer anew, with what is left of its time, and ask for the attempt that was under way
    /// ([`Effect::Find`]); a stop that was under way is repeated. If the clock has begun anew since, which a machine's
    /// restart does, what is left counts from the beginning.
    pub fn recovered(mut self, now_ms: u64) -> (Self, Vec<Effect>) {
        let mut turn = Turn::at(now_ms);
        for moment in [&mut self.started_ms, &mut self.ready_ms].into_iter().flatten() {
            *moment = now_ms.min(*moment);
        }
        self.timers.set_anew(&mut turn);
        for health in &mut self.health {
            // The answer is lost with the daemon that awaited it; that isn't the workload's failure.
            health.asked_ms = None;
        }
        let attempt = self.attempt;
        if self.phase.is_alive() {
            self.doubtful = self.phase == Phase::Starting;
            turn.push(Effect::Find { attempt });
        }
        if self.phase == Phase::Stopping {
            turn.push(self.stop_effect());
        }
        (self, turn.effects)
    }

    /// Decides what follows from an input; `now_ms` is a clock that doesn't go back while the daemon lives.
    pub fn step(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        let mut turn = Turn::at(now_ms);
        match input {
            Input::Run => self.run(&mut turn),
            Input::Halt => self.halt(&mut turn),
            Input::Restart => self.restart(&mut turn),
            Input::Started { attempt } if attempt == self.attempt => self.started(&mut turn),
            Input::Ended { attempt, end } if attempt == self.attempt => self.ended(end, &mut turn),
            Input::Checked { attempt, check, result } if attempt == self.attempt => {
                self.checked(check, result, &mut turn);
            }
            Input::Started { .. } | Input::Ended { .. } | Input::Checked { .. } => {}
            Input::Evict { reason } => self.evict(reason, &mut turn),
            Input::Timer(timer) => self.ran_out(timer, &mut turn),
        }
        turn.effects
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The number of the last attempt that was begun; 0 before the first.
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// How often it was started again without anybody asking.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// How many restarts in a row there were; none after somebody has started it anew.
    pub fn restarts_in_a_row(&self) -> u32 {
        // The one that is waited for hasn't been yet.
        self.row.saturating_sub(u32::from(self.phase == Phase::Waiting))
    }

    /// How the last attempt that is over ended: the result of what has completed.
    pub fn last_end(&self) -> Option<&End> {
        self.last_end.as_ref()
    }

    /// How long the workload of the last attempt that is over ran, in milliseconds; nothing where it never came to run.
    pub fn ran_ms(&self) -> Option<u64> {
        self.ran_ms
    }

    /// When the present attempt's workload began to run, on the clock of [`State::step`].
    pub fn started_ms(&self) -> Option<u64> {
        self.started_ms
    }

    /// The rules it is kept by.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Has other rules decide from now on. The checks stay as they are: those of an attempt that is under way are being counted.
    pub fn set_policy(&mut self, rules: Rules) {
        let checks = std::mem::take(&mut self.rules.checks);
        self.rules = Rules { checks, ..rules };
    }

    fn run(&mut self, turn: &mut Turn) {
        match self.phase {
            Phase::Idle | Phase::Halted => self.begin_row(turn),
            Phase::Stopping if self.after == Some(After::Halt) => self.after = Some(After::Start),
            Phase::Starting | Phase::Running | Phase::Ready | Phase::Waiting | Phase::Stopping => {}
            Phase::Completed | Phase::Failed => {}
        }
    }

    fn halt(&mut self, turn: &mut Turn) {
        match self.phase {
            Phase::Starting | Phase::Running | Phase::Ready => self.stop(After::Halt, turn),
            Phase::Stopping => self.after = Some(After::Halt),
            Phase::Idle | Phase::Waiting | Phase::Completed | Phase::Failed => self.rest(Phase::Halted, turn),
            Phase::Halted => {}
        }
    }

    fn restart(&mut self, turn: &mut Turn) {
        match self.phase {
            Phase::Starting | Phase::Running | Phase::Ready => self.stop(After::Start, turn),
            Phase::Stopping => self.after = Some(After::Start),
            Phase::Idle | Phase::Waiting | Phase::Completed | Phase::Failed | Phase::Halted => {
                self.begin_row(turn);
            }
        }
    }

    fn evict(&mut self, reason: String, turn: &mut Turn) {
        match self.phase {
            Phase::Starting | Phase::Running | Phase::Ready => {
                self.stop(After::Judge(End::Evicted(reason)), turn);
            }
            Phase::Idle | Phase::Waiting | Phase::Stopping => {}
            Phase::Completed | Phase::Failed | Phase::Halted => {}
        }
    }

    fn started(&mut self, turn: &mut Turn) {
        if self.phase != Phase::Starting {
            return;
        }
        self.doubtful = false;
        self.started_ms = Some(turn.now_ms);
        self.phase = Phase::Running;
        turn.tell(Event::Running { attempt: self.attempt });
        if let Some(deadline_ms) = self.rules.deadline_ms {
            self.timers.set(Timer::Deadline, deadline_ms, turn);
        }
        self.watch(turn);
    }

    fn ended(&mut self, end: End, turn: &mut Turn) {
        if !self.phase.is_alive() {
            return;
        }
        self.timers.clear_all(turn);
        self.ran_ms = self.started_ms.map(|started| turn.now_ms.saturating_sub(started));
        turn.tell(Event::Ended { attempt: self.attempt, end: end.clone() });
        match self.after.take() {
            Some(After::Halt) => {
                self.last_end = Some(end);
                self.rest(Phase::Halted, turn);
            }
            Some(After::Start) => {
                self.last_end = Some(end);
                self.begin_row(turn);
            }
            Some(After::Judge(cause)) => self.judge(cause, turn),
            // Nothing ran, so nothing was tried: that is neither the workload's failure nor a restart.
            None if self.doubtful && end == End::NeverBegun => self.start(turn),
            None => self.judge(end, turn),
        }
    }

    /// Lets the policy say what follows from an end.
    fn judge(&mut self, end: End, turn: &mut Turn) {
        let verdict = self.rules.verdict(&end);
        if matches!(end, End::Evicted(_)) {
            // It has done nothing wrong.
            self.row = 0;
        }
        self.last_end = Some(end);
        match verdict {
            Verdict::Completed => self.rest(Phase::Completed, turn),
            Verdict::Failed => self.rest(Phase::Failed, turn),
            Verdict::Again => self.wait(turn),
        }
    }

    fn wait(&mut self, turn: &mut Turn) {
        let ready_for_ms = self.ready_ms.map_or(0, |ready| turn.now_ms.saturating_sub(ready));
        if ready_for_ms >= self.rules.row_ends_after_ms() {
            self.row = 0;
        }
        if self.rules.max_attempts != 0 && self.row >= self.rules.max_attempts {
            turn.tell(Event::GaveUp { restarts: self.row });
            return self.rest(Phase::Failed, turn);
        }
        let after_ms = self.rules.backoff_ms(self.row);
        self.row = self.row.saturating_add(1);
        self.forget_attempt();
        self.phase = Phase::Waiting;
        turn.tell(Event::Waiting { after_ms, in_a_row: self.row });
        self.timers.set(Timer::Backoff, after_ms, turn);
    }

    /// Starts because somebody asked for it, which lets no earlier failure count.
    fn begin_row(&mut self, turn: &mut Turn) {
        self.row = 0;
        self.start(turn);
    }

    fn start(&mut self, turn: &mut Turn) {
        self.timers.clear_all(turn);
        self.forget_attempt();
        self.attempt = self.attempt.saturating_add(1);
        self.phase = Phase::Starting;
        turn.tell(Event::Starting { attempt: self.attempt });
        turn.push(Effect::Start { attempt: self.attempt });
    }

    fn rest(&mut self, phase: Phase, turn: &mut Turn) {
        self.timers.clear_all(turn);
        self.forget_attempt();
        self.phase = phase;
        turn.tell(Event::Rests { phase });
    }

    fn forget_attempt(&mut self) {
        self.started_ms = None;
        self.ready_ms = None;
        self.health.clear();
        self.doubtful = false;
        self.kills = 0;
    }

    fn ran_out(&mut self, timer: Timer, turn: &mut Turn) {
        if !self.timers.ran_out(timer, turn) {
            return;
        }
        match timer {
            Timer::Backoff => {
                self.restarts = self.restarts.saturating_add(1);
                self.start(turn);
            }
            Timer::Stop => self.kill(turn),
            Timer::Deadline => {
                let after_ms = self.rules.deadline_ms.unwrap_or_default();
                turn.tell(Event::Overdue { attempt: self.attempt, after_ms });
                self.stop(After::Judge(End::Overdue { after_ms }), turn);
            }
            Timer::Check(check) => self.check_due(check, turn),
        }
    }
}
