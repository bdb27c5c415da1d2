//! Whether a spacecore behaves unlike itself: pure, one [`Watch`] for each spacecore, fed with what is measured of it.
//!
//! Counters become rates over **rounds** of a minute. The last [`WINDOW`] ordinary rounds are a spacecore's baseline: their median, and
//! the median of the distances from it (MAD), which some wild rounds don't move. The rules:
//!
//! | rule | is found when |
//! |---|---|
//! | `cpu` | it uses more than usual, by 40 % of its share at least |
//! | `memory` | it uses more than usual, by 50 % of what it may have at least |
//! | `egress` | it sends more than usual, by 1 MiB/s at least |
//! | `refused` | its policy refuses more packets than usual, by 120 a minute at least |
//! | `crash-loop` | [`CRASHES`] attempts begin within [`CRASH_WINDOW_MS`] |
//! | `protocol` | its guest breaks the protocol of its channel: at once |
//! | `disagreement` | its guest's word contradicts this machine's count: traffic that the guest doesn't know of, CPU time that it hides, more CPU time or memory than it can have had |
//!
//! **More than usual** is more than the median by six spreads (1.4826 MAD) and by the rule's least amount, and twice the median.
//! It has to last for [`SUSTAINED`] rounds, so that a burst isn't an alarm, and an alarm ends after [`CALM`] rounds without it. Rounds
//! that deviate don't become part of the baseline; but what lasts for [`NEW_NORMAL`] rounds is the new normal: the baseline begins
//! anew. Nothing is said of what is usual before [`Settings::warm_up`] rounds were seen; a new attempt keeps the baseline, as the
//! same program runs.

mod baseline;
mod disagreement;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use self::baseline::{Baseline, Usual};

/// How many ordinary rounds a baseline is made of.
pub const WINDOW: usize = 240;
/// For how many rounds something has to last.
pub const SUSTAINED: u32 = 3;
/// After how many rounds without it an alarm ends.
pub const CALM: u32 = 5;
/// What lasts for so many rounds is normal.
pub const NEW_NORMAL: u32 = 60;
/// How many attempts that begin are a crash loop.
pub const CRASHES: usize = 5;
/// Within which time.
pub const CRASH_WINDOW_MS: u64 = 10 * 60 * 1000;

/// What is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// CPU, in thousandths of its share.
    Cpu,
    /// Memory, in thousandths of what it may have.
    Memory,
    /// Bytes sent in a second.
    Egress,
    /// Packets refused in a minute.
    Refused,
    /// Attempts that begin one after another.
    CrashLoop,
    /// A breach of the channel's protocol.
    Protocol,
    /// A guest whose word isn't true.
    Disagreement,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 7] = [
        Self::Cpu,
        Self::Memory,
        Self::Egress,
        Self::Refused,
        Self::CrashLoop,
        Self::Protocol,
        Self::Disagreement,
    ];

    /// Its name in metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Egress => "egress",
            Self::Refused => "refused",
            Self::CrashLoop => "crash-loop",
            Self::Protocol => "protocol",
            Self::Disagreement => "disagreement",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How long things take to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The length of a round, in milliseconds.
    pub round_ms: u64,
    /// How many rounds are seen before anything is unusual; at most [`WINDOW`].
    pub warm_up: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { round_ms: 60_000, warm_up: 30 }
    }
}

/// What a spacecore may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// CPU, in thousandths of a processor.
    pub cpu_milli: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Whether the guest has a kernel of its own, which can say anything of its memory.
    pub own_kernel: bool,
    /// Whether the guest counts its traffic itself.
    pub counts_traffic: bool,
}

/// What is measured of a spacecore at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// When, by a clock that only goes on, in milliseconds.
    pub at_ms: u64,
    /// The number of its attempt.
    pub attempt: u64,
    /// How the guest broke the protocol since the sample before, if it did.
    pub breach: Option<String>,
    /// What it uses; nothing while it doesn't run or doesn't say.
    pub usage: Option<Usage>,
}

/// Counters since the attempt began, and amounts at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time that this machine has computed for it, in microseconds.
    pub cpu_us: u64,
    /// The same by the guest's word.
    pub guest_cpu_us: u64,
    /// Memory in bytes that this machine spends on it.
    pub resident: u64,
    /// All memory of the guest in bytes, by its word.
    pub guest_memory: u64,
    /// Bytes that it was sent and has sent, as this machine has counted, where it has a network.
    pub traffic: Option<(u64, u64)>,
    /// The same by the guest's word.
    pub guest_traffic: (u64, u64),
    /// Packets that its policy has refused.
    pub refused: u64,
}

/// Something found, or over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// By which rule.
    pub rule: Rule,
    /// Whether it begins; else it is over.
    pub begins: bool,
    /// What was seen, for people.
    pub text: String,
    /// The numbers behind it, by what they are.
    pub evidence: BTreeMap<&'static str, u64>,
}

/// What is known of one spacecore.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    baselines: BTreeMap<Rule, Baseline>,
    /// When its last attempts began.
    began_ms: VecDeque<u64>,
    attempt: Option<u64>,
    /// What the round began with.
    round: Option<(u64, Usage)>,
    /// For how many rounds the guest's word has been wrong or right in a row.
    wrong: u32,
    right: u32,
    active: BTreeMap<Rule, u64>,
}

impl Watch {
    /// What is found at this moment and isn't over.
    pub fn active(&self) -> impl Iterator<Item = Rule> {
        self.active.keys().copied()
    }

    /// How many ordinary rounds are known, at most [`WINDOW`].
    pub fn rounds(&self) -> usize {
        self.baselines.get(&Rule::Cpu).map_or(0, Baseline::rounds)
    }

    /// Takes a sample; says what begins and what ends by it.
    pub fn step(&mut self, settings: Settings, limits: Limits, sample: &Sample) -> Vec<Finding> {
        let mut findings = Vec::new();
        let is_new = self.attempt.is_some_and(|attempt| attempt != sample.attempt);
        if is_new {
            self.began_ms.push_back(sample.at_ms);
            self.round = None;
            self.end(Rule::Protocol, sample.at_ms, &mut findings);
        }
        self.attempt = Some(sample.attempt);
        self.crashes(sample.at_ms, &mut findings);
        if let Some(breach) = &sample.breach {
            // Each breach is told, as each ends an attempt.
            self.active.insert(Rule::Protocol, sample.at_ms);
            let text = format!("the guest broke the protocol of its channel: {breach}");
            let evidence = BTreeMap::from([("attempt", sample.attempt)]);
            findings.push(Finding { rule: Rule::Protocol, begins: true, text, evidence });
        }
        let Some(usage) = sample.usage else { return findings };
        let Some((began_ms, before)) = self.round else {
            self.round = Some((sample.at_ms, usage));
            return findings;
        };
        let took_ms = sample.at_ms.saturating_sub(began_ms);
        if took_ms < settings.round_ms {
            return findings;
        }
        self.round = Some((sample.at_ms, usage));
        // A counter that has fallen counts something else now.
        if usage.cpu_us < before.cpu_us || usage.refused < before.refused {
            return findings;
        }
        self.usual(settings, limits, (sample.at_ms, took_ms), (&before, &usage), &mut findings);
        self.word(limits, (sample.at_ms, took_ms), (&before, &usage), &mut findings);
        findings
    }

    fn begin(
        &mut self,
        rule: Rule,
        at_ms: u64,
        text: String,
        evidence: BTreeMap<&'static str, u64>,
    ) -> Option<Finding> {
        if self.active.contains_key(&rule) {
            return None;
        }
        self.active.insert(rule, at_ms);
        Some(Finding { rule, begins: true, text, evidence })
    }

    fn end(&mut self, rule: Rule, at_ms: u64, findings: &mut Vec<Finding>) {
        let Some(began_ms) = self.active.remove(&rule) else { return };
        let lasted = at_ms.saturating_sub(began_ms) / 1000;
        let text = format!("{rule} is as usual again, after {lasted} s");
        findings.push(Finding {
            rule,
            begins: false,
            text,
            evidence: BTreeMap::from([("lasted_s", lasted)]),
        });
    }

    fn crashes(&mut self, at_ms: u64, findings: &mut Vec<Finding>) {
        self.began_ms.retain(|began_ms| at_ms.saturating_sub(*began_ms) < CRASH_WINDOW_MS);
        while self.began_ms.len() > CRASHES.saturating_mul(4) {
            self.began_ms.pop_front();
        }
        let count = self.began_ms.len();
        if count >= CRASHES {
            let minutes = CRASH_WINDOW_MS / 60_000;
            let text = format!("{count} attempts began within {minutes} minutes");
            let evidence = BTreeMap::from([("attempts", count as u64), ("within_s", CRASH_WINDOW_MS / 1000)]);
            findings.extend(self.begin(Rule::CrashLoop, at_ms, text, evidence));
        } else if count == 0 {
            self.end(Rule::CrashLoop, at_ms, findings);
        }
    }

    /// Compares a round with what is usual.
    fn usual(
        &mut self,
        settings: Settings,
        limits: Limits,
        (at_ms, took_ms): (u64, u64),
        (before, now): (&Usage, &Usage),
        findings: &mut Vec<Finding>,
    ) {
        for (rule, value, least) in measures(limits, took_ms, before, now) {
            let baseline = self.baselines.entry(rule).or_default();
            match baseline.step(settings.warm_up, value, least) {
                Usual::Yes => {}
                Usual::Exceeded { median, spread, alarm_above } => {
                    let text = describe(rule, value, median, alarm_above);
                    let evidence = BTreeMap::from([
                        ("value", value),
                        ("median", median),
                        ("spread", spread),
                        ("alarm_above", alarm_above),
                    ]);
                    findings.extend(self.begin(rule, at_ms, text, evidence));
                }
                Usual::Again => self.end(rule, at_ms, findings),
            }
        }
    }

    /// Compares the guest's word with this machine's count.
    fn word(
        &mut self,
        limits: Limits,
        (at_ms, took_ms): (u64, u64),
        (before, now): (&Usage, &Usage),
        findings: &mut Vec<Finding>,
    ) {
        match disagreement::find(limits, took_ms, before, now) {
            Some((text, evidence)) => {
                (self.wrong, self.right) = (self.wrong.saturating_add(1), 0);
                if self.wrong >= SUSTAINED {
                    findings.extend(self.begin(Rule::Disagreement, at_ms, text, evidence));
                }
            }
            None => {
                (self.wrong, self.right) = (0, self.right.saturating_add(1));
                if self.right >= CALM {
                    self.end(Rule::Disagreement, at_ms, findings);
                }
            }
        }
    }
}

/// What is compared with a baseline: the rule, the round's value, and by how much it has to be more.
fn measures(limits: Limits, took_ms: u64, before: &Usage, now: &Usage) -> Vec<(Rule, u64, u64)> {
    let took_ms = u128::from(took_ms.max(1));
    let over = |more: u128, per: u128| u64::try_from(more / per.max(1)).unwrap_or(u64::MAX);
    let delta = |now: u64, before: u64| u128::from(now.saturating_sub(before));
    let cpu = over(
        delta(now.cpu_us, before.cpu_us).saturating_mul(1000),
        took_ms.saturating_mul(u128::from(limits.cpu_milli.max(1))),
    );
    let memory = over(u128::from(now.resident).saturating_mul(1000), u128::from(limits.memory));
    let refused = over(delta(now.refused, before.refused).saturating_mul(60_000), took_ms);
    let sent = now.traffic.zip(before.traffic).map(|(now, before)| delta(now.1, before.1));
    let egress = sent.map(|sent| (Rule::Egress, over(sent.saturating_mul(1000), took_ms), 1 << 20));
    let always = [(Rule::Cpu, cpu, 400), (Rule::Memory, memory, 500), (Rule::Refused, refused, 120)];
    always.into_iter().chain(egress).collect()
}

fn describe(rule: Rule, value: u64, median: u64, alarm_above: u64) -> String {
    let percent = |value: u64| format!("{}.{} %", value / 10, value % 10);
    let rate = |value: u64| format!("{}.{} MiB/s", value >> 20, ((value & 0xf_ffff) * 10) >> 20);
    let minute = |value: u64| format!("{value} a minute");
    let (what, show): (_, &dyn Fn(u64) -> String) = match rule {
        Rule::Cpu => ("CPU of its share", &percent),
        Rule::Memory => ("memory of what it may have", &percent),
        Rule::Egress => ("sent", &rate),
        Rule::Refused => ("packets refused", &minute),
        Rule::CrashLoop | Rule::Protocol | Rule::Disagreement => ("", &minute),
    };
    format!(
        "{what}: {} for {SUSTAINED} rounds, where {} is usual and up to {} could be",
        show(value),
        show(median),
        show(alarm_above)
    )
}

#[cfg(test)]
mod tests;
