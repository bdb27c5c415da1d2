//! Sends metrics and logs to a collector: OTLP over HTTP, in its JSON form.
//!
//! ```text
//!  every interval:  all families --encode--> queue (bounded, the oldest goes) --thread--> POST /v1/metrics
//!  every second:    each log that is to be sent --tail--> one batch at a time --thread--> POST /v1/logs
//! ```
//!
//! - **Nobody waits for a collector**: requests are made in threads of their own, one for each signal, which the node's end doesn't wait
//!   for. What is encoded is encoded beside the node's thread.
//! - **Order**: one request of a signal at a time; a log's next lines are read once the ones before were taken or given up. A log's files are
//!   its queue, so that a collector that is away for long costs what is rotated away meanwhile, which is counted.
//! - **Again** is tried what the specification says can be: no connection, 429, 502, 503, 504, with `Retry-After` or ever longer waits
//!   ([`retry`]). Everything else is given up and counted.
//! - **Restarts**: how far each log was sent is kept in `node/telemetry.json`.
//!
//! Source: OpenTelemetry Protocol specification 1.5, section "OTLP/HTTP".

mod encode;
mod post;
mod queue;
mod retry;
mod tail;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hac::node::TelemetrySettings;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use self::encode::Resource;
use self::post::{Headers, Poster};
use self::queue::Job;
use self::retry::Backoff;
use self::tail::{Cursor, Tail};
use super::api::{Api, metrics};
use super::core::Happening;
use crate::clock::unix_time_ns;
use crate::replace::{Durable, replace};

/// How often logs are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How many batches of one log are sent before it is another's turn.
const TURN: usize = 8;
/// The wait before something is sent again for the first time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How long metrics are tried to be sent: newer ones say more then.
const METRICS_PATIENCE: Duration = Duration::from_secs(300);

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The file with headers can't be read.
    #[error("can't read telemetry.headers_file {}", path.display())]
    HeadersFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read it.
    #[error("others can read telemetry.headers_file {}; chmod 600 keeps it secret", path.display())]
    HeadersOpen {
        /// The file.
        path: PathBuf,
    },
    /// A line of it is no header.
    #[error("line {line} of telemetry.headers_file {} is no header; write Name: value", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Counts from 1.
        line: usize,
    },
    /// A thread can't be started.
    #[error("can't start a thread")]
    Thread(#[source] io::Error),
}

/// What was sent since the node started.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// In numbers.
    pub(super) metrics: Arc<Counts>,
    /// In lines.
    pub(super) logs: Arc<Counts>,
}

/// Of one signal.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) retries: AtomicU64,
}

impl Counts {
    fn add(to: &AtomicU64, count: u64) {
        to.fetch_add(count, Ordering::Relaxed);
    }
}

/// Begins to send, if there is somebody to send to. `cursors` keeps how far each log was sent.
///
/// # Errors
/// The headers can't be used.
pub(super) fn start(settings: &TelemetrySettings, api: &Api, cursors: PathBuf) -> Result<(), TelemetryError> {
    let (Some(endpoint), Some(sent)) = (&settings.endpoint, &api.sent) else { return Ok(()) };
    let headers = Headers::of(settings.headers_file.as_deref().map(Path::new));
    headers.read()?;
    let endpoint = endpoint.trim_end_matches('/');
    let poster = |signal: &str, counts: &Arc<Counts>| {
        let url = format!("{endpoint}/v1/{signal}");
        Poster::start(url, headers.clone(), Arc::clone(counts), Backoff::new(FIRST_WAIT))
            .map_err(TelemetryError::Thread)
    };
    if settings.metrics {
        tokio::spawn(send_metrics(
            api.clone(),
            poster("metrics", &sent.metrics)?,
            settings.interval.as_std(),
        ));
    }
    if settings.logs {
        let logs = Logs {
            api: api.clone(),
            poster: poster("logs", &sent.logs)?,
            counts: Arc::clone(&sent.logs),
            cursors,
        };
        tokio::spawn(logs.send());
    }
    Ok(())
}

/// Sends metrics until the node ends.
async fn send_metrics(api: Api, poster: Poster, interval: Duration) {
    let start_ns = api.node.since_unix_ms.saturating_mul(1_000_000);
    let version = api.node.version.clone();
    let mut clock = tokio::time::interval(interval);
    loop {
        clock.tick().await;
        let Some(exposition) = metrics::now(&api).await else { return };
        let (poster, version) = (poster.clone(), version.clone());
        let encoded = spawn_blocking(move || {
            let resource = Resource::node(&version);
            let (body, count) = encode::metrics(&resource, exposition.families(), start_ns, unix_time_ns());
            poster.push(Job { body, count, patience: Some(METRICS_PATIENCE), done: None });
        });
        // One that has ended by a panic has sent nothing; the next may.
        let _ = encoded.await;
    }
}

struct Logs {
    api: Api,
    poster: Poster,
    counts: Arc<Counts>,
    cursors: PathBuf,
}

impl Logs {
    /// Sends logs until the node ends.
    async fn send(self) {
        // Without it every log is sent from its beginning.
        let kept = std::fs::read(&self.cursors).ok();
        let mut cursors: BTreeMap<String, Cursor> =
            kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let mut tails: BTreeMap<String, (Tail, Resource)> = BTreeMap::new();
        loop {
            tokio::time::sleep(LOOK).await;
            let (reply, wanted) = oneshot::channel();
            if self.api.tell.send(Happening::ToObserve(reply)).is_err() {
                return;
            }
            let Ok(mut wanted) = wanted.await else { return };
            wanted.retain(|one| one.sends_log);
            let before = cursors.clone();
            // A log outlives its spacecore, and may be gone on with by another of its name.
            cursors.retain(|name, _| self.api.records.logs().of(name).is_dir());
            for one in &wanted {
                if !tails.contains_key(&one.spacecore) {
                    let resource =
                        Resource::spacecore(&self.api.node.version, &one.deployment, &one.spacecore);
                    let folder = self.api.records.logs().of(&one.spacecore);
                    // One that can't be read is opened again.
                    if let Ok(tail) = Tail::open(&folder, cursors.get(&one.spacecore).copied()) {
                        tails.insert(one.spacecore.clone(), (tail, resource));
                    }
                }
            }
            for (name, (tail, resource)) in std::mem::take(&mut tails) {
                // Also of one that is gone since: what it said last.
                if let Some(tail) = self.send_some(tail, &resource).await {
                    cursors.insert(name.clone(), tail.cursor());
                    if wanted.iter().any(|one| one.spacecore == name) {
                        tails.insert(name, (tail, resource));
                    }
                }
            }
            if cursors != before {
                self.keep(&cursors);
            }
        }
    }

    /// Sends what a log has, for as long as it is its turn; nothing where it can't be read.
    async fn send_some(&self, mut tail: Tail, resource: &Resource) -> Option<Tail> {
        for _ in 0..TURN {
            let (resource, read) = (resource.clone(), tail);
            let step = spawn_blocking(move || {
                let mut tail = read;
                let lines = tail.next()?;
                let body = lines.as_ref().map(|lines| encode::logs(&resource, lines, unix_time_ns()));
                Ok::<_, io::Error>((tail, body, lines.map_or(0, |lines| lines.len())))
            });
            let (read, body, count) = step.await.ok()?.ok()?;
            tail = read;
            Counts::add(&self.counts.dropped, tail.take_gaps());
            let Some(body) = body else { break };
            if count > 0 {
                let (done, delivered) = oneshot::channel();
                self.poster.push(Job { body, count: count as u64, patience: None, done: Some(done) });
                // However it went, it is over.
                let _ = delivered.await;
            }
            tail.delivered();
        }
        Some(tail)
    }

    fn keep(&self, cursors: &BTreeMap<String, Cursor>) {
        let bytes = serde_json::to_vec(cursors).unwrap_or_default();
        // What isn't kept is sent a second time by the next node.
        let _ = replace(&self.cursors, &self.cursors.with_extension("new"), &bytes, Durable::No);
    }
}
