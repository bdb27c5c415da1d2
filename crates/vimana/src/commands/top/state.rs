//! What is shown, and what keys change: pure.

use std::cmp::Ordering;
use std::time::Duration;

use node::daemon::view::StatsView;
use serde::Serialize;

use super::reading::Reading;

/// Lines that aren't spacecores.
pub const HEAD: usize = 5;

/// By what is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// CPU time, the most first.
    Cpu,
    /// Memory, the most first.
    Memory,
    /// Traffic, the most first.
    Network,
    /// Restarts, the most first.
    Restarts,
    /// The phase.
    State,
    /// The name.
    Name,
}

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// One that writes something.
    Char(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// Ctrl-C, or a signal that asks the process to end.
    Interrupt,
}

/// What follows from a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It goes on.
    Stay,
    /// It ends.
    Quit,
}

/// A spacecore's line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    pub name: String,
    pub deployment: String,
    pub isolation: String,
    pub state: String,
    /// For how long, in milliseconds.
    pub since_ms: u64,
    pub restarts: u32,
    /// In thousandths of a processor; nothing before there are two measurements.
    pub cpu_milli: Option<u64>,
    /// Memory in bytes that the machine spends on it.
    pub memory: Option<u64>,
    /// Bytes a second that it is sent, by the machine's count, or else by the guest's word.
    pub received: Option<u64>,
    /// Bytes a second that it sends.
    pub sent: Option<u64>,
}

/// All that is shown, for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    pub version: String,
    pub unix_ms: u64,
    pub total: Total,
    pub spacecores: Vec<Row>,
}

/// The node as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Total {
    pub spacecores: usize,
    pub ready: usize,
    pub cpu_milli: u64,
    pub cpu_offered_milli: u64,
    pub memory: u64,
    pub memory_promised: u64,
    pub memory_offered: u64,
    pub received: u64,
    pub sent: u64,
}

/// What is shown.
#[derive(Debug, Clone)]
pub struct State {
    pub sort: Sort,
    pub reversed: bool,
    pub filter: String,
    /// Whether keys go into the filter.
    pub typing: bool,
    pub held: bool,
    /// Why there is nothing newer.
    pub trouble: Option<String>,
    /// How many lines are above the first one that is shown.
    pub offset: usize,
    rows: usize,
    last: Option<Reading>,
    all: Vec<Row>,
    total: Total,
}

impl State {
    /// Nothing yet.
    pub fn new(sort: Sort, filter: &str) -> Self {
        Self {
            sort,
            reversed: false,
            filter: filter.to_owned(),
            typing: false,
            held: false,
            trouble: None,
            offset: 0,
            rows: usize::MAX,
            last: None,
            all: Vec::new(),
            total: Total::default(),
        }
    }

    /// Takes what was read; while everything is held still, nothing.
    pub fn take(&mut self, reading: Reading) {
        self.trouble = None;
        if self.held {
            return;
        }
        let before = self.last.as_ref();
        let took = before.map(|before| reading.at.saturating_duration_since(before.at));
        let of = |reading: &Reading, name: &str| reading.stats.get(name).cloned();
        self.all = reading
            .deployments
            .iter()
            .flat_map(|deployment| deployment.spacecores.iter().map(move |one| (deployment, one)))
            .map(|(deployment, one)| {
                let now = of(&reading, &one.name);
                let then = before.and_then(|before| of(before, &one.name));
                let between = now.clone().zip(then).zip(took);
                let rate = |count: fn(&StatsView) -> u64| {
                    let ((now, then), took) = between.as_ref()?;
                    each_second(count(now).checked_sub(count(then))?, *took)
                };
                Row {
                    name: one.name.clone(),
                    deployment: deployment.name.clone(),
                    isolation: deployment.isolation.clone(),
                    state: one.phase.clone(),
                    since_ms: reading.unix_ms.saturating_sub(one.since_unix_ms),
                    restarts: one.restarts,
                    cpu_milli: rate(|stats| stats.cpu_us).map(|us| us / 1000),
                    memory: now.as_ref().map(|stats| stats.resident),
                    received: rate(|stats| stats.seen_received.unwrap_or(stats.network_received)),
                    sent: rate(|stats| stats.seen_sent.unwrap_or(stats.network_sent)),
                }
            })
            .collect();
        self.total = total(&reading, &self.all);
        self.last = Some(reading);
    }

    /// Notes why nothing was read.
    pub fn trouble(&mut self, trouble: String) {
        self.trouble = Some(trouble);
    }

    /// The terminal has so many lines now.
    pub fn resized(&mut self, rows: usize) {
        self.rows = rows.saturating_sub(HEAD).max(1);
        self.scroll(0);
    }

    /// The lines of spacecores, in order.
    pub fn rows(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.all.iter().filter(|row| row.name.contains(&self.filter)).collect();
        rows.sort_by(|one, other| {
            let order = self.compare(one, other);
            let order = if self.reversed { order.reverse() } else { order };
            order.then_with(|| one.name.cmp(&other.name))
        });
        rows
    }

    fn compare(&self, one: &Row, other: &Row) -> Ordering {
        let traffic = |row: &Row| row.received.unwrap_or(0).saturating_add(row.sent.unwrap_or(0));
        match self.sort {
            Sort::Cpu => other.cpu_milli.cmp(&one.cpu_milli),
            Sort::Memory => other.memory.cmp(&one.memory),
            Sort::Network => traffic(other).cmp(&traffic(one)),
            Sort::Restarts => other.restarts.cmp(&one.restarts),
            Sort::State => one.state.cmp(&other.state),
            Sort::Name => one.name.cmp(&other.name),
        }
    }

    /// The node as a whole.
    pub fn total(&self) -> &Total {
        &self.total
    }

    /// The reading that is shown.
    pub fn reading(&self) -> Option<&Reading> {
        self.last.as_ref()
    }

    /// All of it, for programs.
    pub fn snapshot(&self) -> Snapshot {
        let (version, unix_ms) = self
            .last
            .as_ref()
            .map_or((String::new(), 0), |reading| (reading.node.version.clone(), reading.unix_ms));
        let spacecores = self.rows().into_iter().cloned().collect();
        Snapshot { version, unix_ms, total: self.total.clone(), spacecores }
    }

    /// Does what a key asks for.
    pub fn press(&mut self, key: Key) -> Action {
        match (self.typing, key) {
            (_, Key::Interrupt) | (false, Key::Char('q')) => return Action::Quit,
            (true, Key::Char(letter)) => self.filter.push(letter),
            (true, Key::Backspace) => _ = self.filter.pop(),
            (true, Key::Enter) => self.typing = false,
            (_, Key::Escape) => {
                self.typing = false;
                self.filter.clear();
            }
            (false, Key::Char('/')) => self.typing = true,
            (false, Key::Char(' ' | 'p')) => self.held = !self.held,
            (false, Key::Char('c')) => self.sort_by(Sort::Cpu),
            (false, Key::Char('m')) => self.sort_by(Sort::Memory),
            (false, Key::Char('n')) => self.sort_by(Sort::Network),
            (false, Key::Char('r')) => self.sort_by(Sort::Restarts),
            (false, Key::Char('s')) => self.sort_by(Sort::State),
            (false, Key::Char('a')) => self.sort_by(Sort::Name),
            (_, Key::Up) => self.scroll(-1),
            (_, Key::Down) => self.scroll(1),
            (_, Key::PageUp) => self.scroll(-self.page()),
            (_, Key::PageDown) => self.scroll(self.page()),
            (_, Key::Home) => self.offset = 0,
            (_, Key::End) => self.scroll(isize::MAX),
            (false, Key::Char(_) | Key::Backspace | Key::Enter) => {}
        }
        self.scroll(0);
        Action::Stay
    }

    fn sort_by(&mut self, sort: Sort) {
        self.reversed = self.sort == sort && !self.reversed;
        self.sort = sort;
    }

    fn page(&self) -> isize {
        isize::try_from(self.rows).unwrap_or(isize::MAX)
    }

    /// Scrolls as far as there are lines.
    fn scroll(&mut self, by: isize) {
        let last = self.rows().len().saturating_sub(self.rows);
        self.offset = self.offset.saturating_add_signed(by).min(last);
    }
}

fn each_second(count: u64, took: Duration) -> Option<u64> {
    let rate = u128::from(count).saturating_mul(1_000_000).checked_div(took.as_micros())?;
    u64::try_from(rate).ok()
}

fn total(reading: &Reading, rows: &[Row]) -> Total {
    let sum =
        |value: &dyn Fn(&Row) -> Option<u64>| rows.iter().filter_map(value).fold(0, u64::saturating_add);
    let claim = &reading.node.allocation.total;
    Total {
        spacecores: rows.len(),
        ready: rows.iter().filter(|row| row.state == "ready").count(),
        cpu_milli: sum(&|row| row.cpu_milli),
        cpu_offered_milli: reading.node.offer.cpu_millis,
        memory: sum(&|row| row.memory),
        memory_promised: claim.memory_guaranteed.saturating_add(claim.memory_burstable),
        memory_offered: reading.node.offer.memory,
        received: sum(&|row| row.received),
        sent: sum(&|row| row.sent),
    }
}
