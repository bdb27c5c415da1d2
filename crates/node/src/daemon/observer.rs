//! Observes spacecores: reads the pages that their workloads serve, and watches whether they behave unlike themselves.
//!
//! ```text
//!  every second: core --which are to be observed--> observer --Stats, Fetch--> core --> keepers --> guests
//!                                                      |
//!                    findings --> core: events, actions   pages, alarms --> Observed --> GET /metrics
//! ```
//!
//! It is a task of its own, and waits for no guest longer than [`PATIENCE`]: one that says nothing has no figures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hac::node::AnomalySettings;
use spacecore::wire::message::Fetched;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::call::Call;
use super::core::Happening;
use super::sampler::ask_all;
use super::view::StatsView;
use crate::anomaly::{Limits, Rule, Sample, Settings, Usage, Watch};
use crate::exposition::{self, Page};

/// How often is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// The longest from one measurement to the next, for rounds that are longer.
const MEASURE: Duration = Duration::from_secs(10);
/// How long the guests may take to answer, all together.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a workload may take to serve its page.
const PAGE: Duration = Duration::from_secs(5);

/// A spacecore that is to be observed.
#[derive(Debug, Clone)]
pub(super) struct Observable {
    pub(super) deployment: String,
    pub(super) spacecore: String,
    /// Whether its log is to be sent to a collector.
    pub(super) sends_log: bool,
    pub(super) attempt: u64,
    pub(super) runs: bool,
    /// Whether anomalies are looked for.
    pub(super) watches: bool,
    /// How the guest of its last attempt that has ended broke the protocol, with that attempt's number.
    pub(super) breach: Option<(u64, String)>,
    pub(super) page: Option<MetricsPage>,
    pub(super) limits: Limits,
}

/// Where a workload serves its metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MetricsPage {
    pub(super) port: u16,
    pub(super) path: String,
    pub(super) interval: Duration,
}

/// What is known of a spacecore.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Whether its workload is asked for a page.
    pub(super) is_asked: bool,
    /// What it said last, unless it couldn't be read.
    pub(super) page: Option<Arc<Page>>,
    /// Why not, where it couldn't.
    pub(super) failure: Option<String>,
    /// How many rounds are known of what is usual; nothing where nobody looks.
    pub(super) rounds: Option<usize>,
    /// What is found at this moment.
    pub(super) active: BTreeSet<Rule>,
    /// How often something was found.
    pub(super) found: BTreeMap<Rule, u64>,
}

/// What the observer knows, for everybody who asks.
#[derive(Debug, Clone, Default)]
pub(super) struct Observed(Arc<Mutex<BTreeMap<String, Seen>>>);

impl Observed {
    /// All of it, by the spacecore's name.
    pub(super) fn seen(&self) -> BTreeMap<String, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Seen>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// How long things take, as the node's settings say.
pub(super) fn rounds(settings: &AnomalySettings) -> Settings {
    let warm_up = usize::try_from(settings.warm_up).unwrap_or(usize::MAX);
    Settings { round_ms: settings.round.as_millis(), warm_up }
}

/// What is kept of a spacecore from one tick to the next.
#[derive(Debug, Default)]
struct Kept {
    watch: Watch,
    /// The attempt whose breach was told.
    breach: Option<u64>,
    /// When its page is read next.
    page_due: Option<Instant>,
    /// The task that reads it.
    reading: Option<JoinHandle<()>>,
}

struct Observer {
    tell: UnboundedSender<Happening>,
    observed: Observed,
    settings: Settings,
    begun: Instant,
    kept: BTreeMap<String, Kept>,
    measure_due: Instant,
}

/// Observes until the node ends.
pub(super) async fn run(tell: UnboundedSender<Happening>, observed: Observed, settings: Settings) {
    let begun = Instant::now();
    let mut observer =
        Observer { tell, observed, settings, begun, kept: BTreeMap::new(), measure_due: begun };
    loop {
        tokio::time::sleep(TICK).await;
        let (reply, wanted) = oneshot::channel();
        if observer.tell.send(Happening::ToObserve(reply)).is_err() {
            return;
        }
        let Ok(wanted) = wanted.await else { return };
        observer.turn(&wanted).await;
    }
}

impl Observer {
    async fn turn(&mut self, wanted: &[Observable]) {
        let names: BTreeSet<&str> = wanted.iter().map(|one| one.spacecore.as_str()).collect();
        self.kept.retain(|name, _| names.contains(name.as_str()));
        self.observed.change(|seen| {
            seen.retain(|name, _| names.contains(name.as_str()));
            for one in wanted {
                let entry = seen.entry(one.spacecore.clone()).or_default();
                entry.is_asked = one.page.is_some() && one.runs;
                if !entry.is_asked {
                    entry.page = None;
                }
            }
        });
        // First what is used: it says whether a keeper knows what pages are.
        if self.measure_due <= Instant::now() {
            let round = Duration::from_millis(self.settings.round_ms);
            self.measure_due = Instant::now() + MEASURE.min(round).max(TICK) - TICK / 2;
            self.measure(wanted).await;
        }
        self.read_pages(wanted);
    }

    async fn measure(&mut self, wanted: &[Observable]) {
        let running: Vec<String> =
            wanted.iter().filter(|one| one.runs).map(|one| one.spacecore.clone()).collect();
        let stats = ask_all(&self.tell, &running, Instant::now() + PATIENCE).await;
        let at_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        for one in wanted.iter().filter(|one| one.watches) {
            let kept = self.kept.entry(one.spacecore.clone()).or_default();
            let breach =
                one.breach.clone().filter(|(attempt, _)| kept.breach.replace(*attempt) != Some(*attempt));
            let sample = Sample {
                at_ms,
                attempt: one.attempt,
                breach: breach.map(|(_, breach)| breach),
                usage: stats.get(&one.spacecore).map(usage),
            };
            let findings = kept.watch.step(self.settings, one.limits, &sample);
            let active: BTreeSet<Rule> = kept.watch.active().collect();
            let rounds = Some(kept.watch.rounds());
            self.observed.change(|seen| {
                let entry = seen.entry(one.spacecore.clone()).or_default();
                (entry.active, entry.rounds) = (active, rounds);
                for finding in findings.iter().filter(|finding| finding.begins) {
                    let count = entry.found.entry(finding.rule).or_default();
                    *count = count.saturating_add(1);
                }
            });
            for finding in findings {
                let spacecore = one.spacecore.clone();
                // Where nobody hears it the node is ending.
                let _ = self.tell.send(Happening::Found { spacecore, finding });
            }
        }
    }

    /// Begins to read the pages that are due, each in a task of its own: a slow one keeps nobody waiting.
    fn read_pages(&mut self, wanted: &[Observable]) {
        let now = Instant::now();
        for one in wanted.iter().filter(|one| one.runs) {
            let Some(page) = &one.page else { continue };
            let kept = self.kept.entry(one.spacecore.clone()).or_default();
            let is_due = kept.page_due.is_none_or(|due| due <= now);
            if is_due && kept.reading.as_ref().is_none_or(JoinHandle::is_finished) {
                kept.page_due = Some(now + page.interval);
                let (tell, observed) = (self.tell.clone(), self.observed.clone());
                kept.reading =
                    Some(tokio::spawn(read_page(tell, observed, one.spacecore.clone(), page.clone())));
            }
        }
    }
}

/// Asks a workload for its page; one that can't be read is no page.
async fn read_page(tell: UnboundedSender<Happening>, observed: Observed, name: String, page: MetricsPage) {
    let (reply, answer) = oneshot::channel();
    let timeout_ms = u64::try_from(PAGE.as_millis()).unwrap_or(u64::MAX);
    let MetricsPage { port, path, .. } = page;
    let call = Call::Fetch { name: name.clone(), port, path, timeout_ms, reply };
    if tell.send(Happening::Call(call)).is_err() {
        return;
    }
    // The keeper answers a second later at the latest.
    let answer = timeout_at(Instant::now() + PAGE + PATIENCE, answer).await;
    let page = match answer {
        Ok(Ok(Ok(Fetched::Page(text)))) => exposition::read(&text).map_err(|error| error.to_string()),
        Ok(Ok(Ok(Fetched::Failure(failure)))) => Err(failure),
        Ok(Ok(Err(refusal))) => Err(refusal.to_string()),
        Ok(Err(_)) | Err(_) => Err("its keeper doesn't answer".to_owned()),
    };
    observed.change(|seen| {
        if let Some(entry) = seen.get_mut(&name) {
            (entry.page, entry.failure) = match page {
                Ok(page) => (Some(Arc::new(page)), None),
                Err(failure) => (None, Some(failure)),
            };
        }
    });
}

fn usage(stats: &StatsView) -> Usage {
    Usage {
        cpu_us: stats.cpu_us,
        guest_cpu_us: stats.guest_cpu_us,
        resident: stats.resident,
        guest_memory: stats.guest_memory_total,
        traffic: stats.seen_received.zip(stats.seen_sent),
        guest_traffic: (stats.network_received, stats.network_sent),
        refused: stats.refused.unwrap_or_default(),
    }
}
