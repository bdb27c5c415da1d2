//! The thread that makes requests.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use zeroize::Zeroizing;

use super::queue::{Job, Queue};
use super::retry::{Answer, Backoff, Next};
use super::{Counts, TelemetryError};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a collector may take for one request, from its beginning to the answer's end.
const WHOLE: Duration = Duration::from_secs(30);
/// The most bytes of an answer that are read.
const ANSWER_MAX: u64 = 64 * 1024;
/// The most bytes of the file with headers.
const HEADERS_MAX: u64 = 64 * 1024;

/// Headers in a file, which is read for each request: whoever renews a token needn't start the node again.
#[derive(Debug, Clone, Default)]
pub(super) struct Headers(Option<PathBuf>);

impl Headers {
    pub(super) fn of(path: Option<&Path>) -> Self {
        Self(path.map(Path::to_owned))
    }

    /// Reads them; empty lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// The file can't be read, others can read it, or it has something else than headers.
    pub(super) fn read(&self) -> Result<Vec<(String, Zeroizing<String>)>, TelemetryError> {
        let Some(path) = &self.0 else { return Ok(Vec::new()) };
        let failed = |source| TelemetryError::HeadersFile { path: path.clone(), source };
        let file = fs::File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            return Err(TelemetryError::HeadersOpen { path: path.clone() });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(HEADERS_MAX).read_to_string(&mut text).map_err(failed)?;
        let mut headers = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let header = line.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
            let fits = |(name, value): &(&str, &str)| {
                let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
                !name.is_empty()
                    && name.bytes().all(is_token)
                    && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            };
            let (name, value) = header.filter(fits).ok_or_else(|| TelemetryError::Header {
                path: path.clone(),
                line: index.saturating_add(1),
            })?;
            headers.push((name.to_owned(), Zeroizing::new(value.to_owned())));
        }
        Ok(headers)
    }
}

/// Sends batches of one signal, one after another.
#[derive(Debug, Clone)]
pub(super) struct Poster {
    queue: Arc<Queue>,
    counts: Arc<Counts>,
}

impl Poster {
    /// Starts the thread. It ends with the process.
    ///
    /// # Errors
    /// The kernel has no thread to give.
    pub(super) fn start(
        url: String,
        headers: Headers,
        counts: Arc<Counts>,
        backoff: Backoff,
    ) -> io::Result<Self> {
        let poster = Self { queue: Arc::default(), counts };
        let sender = Sender { agent: agent(&url), url, headers, counts: Arc::clone(&poster.counts), backoff };
        let queue = Arc::clone(&poster.queue);
        thread::Builder::new().name("telemetry".to_owned()).spawn(move || sender.run(&queue))?;
        Ok(poster)
    }

    /// Has a batch be sent after those before it.
    pub(super) fn push(&self, job: Job) {
        Counts::add(&self.counts.dropped, self.queue.push(job));
    }
}

struct Sender {
    agent: Agent,
    url: String,
    headers: Headers,
    counts: Arc<Counts>,
    backoff: Backoff,
}

impl Sender {
    fn run(mut self, queue: &Queue) {
        loop {
            let job = queue.pop();
            let rejected = self.deliver(&job).min(job.count);
            Counts::add(&self.counts.dropped, rejected);
            Counts::add(&self.counts.sent, job.count.saturating_sub(rejected));
            if let Some(done) = job.done {
                // Who waited may be gone.
                let _ = done.send(());
            }
        }
    }

    /// Sends a batch until it is taken or given up; says how much of it wasn't taken.
    fn deliver(&mut self, job: &Job) -> u64 {
        let begun = Instant::now();
        loop {
            let (answer, rejected) = self.post(&job.body);
            match self.backoff.after(answer) {
                Next::Taken => return rejected,
                Next::GiveUp => return job.count,
                Next::Again(wait) => {
                    if job.patience.is_some_and(|patience| begun.elapsed().saturating_add(wait) > patience) {
                        return job.count;
                    }
                    thread::sleep(wait);
                    Counts::add(&self.counts.retries, 1);
                }
            }
        }
    }

    /// One request: the answer, and how much the collector has rejected of what it took.
    fn post(&self, body: &[u8]) -> (Answer, u64) {
        // Headers that can't be read now may be readable later: they may just be replaced.
        let Ok(headers) = self.headers.read() else { return (Answer::None, 0) };
        let mut request = self.agent.post(&self.url).header("Content-Type", "application/json");
        for (name, value) in &headers {
            request = request.header(name.as_str(), value.as_str());
        }
        let Ok(mut response) = request.send(body) else { return (Answer::None, 0) };
        let status = response.status().as_u16();
        let asked =
            response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let text = response.body_mut().with_config().limit(ANSWER_MAX).read_to_string();
        // An answer without an end is none.
        let answer = if text.is_ok() || status >= 300 { Answer::Status(status, asked) } else { Answer::None };
        (answer, text.map_or(0, |text| rejected(&text)))
    }
}

/// What a collector says that it has rejected (`partialSuccess`).
fn rejected(answer: &str) -> u64 {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    let partial = &answer["partialSuccess"];
    let number = |value: &serde_json::Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    number(&partial["rejectedDataPoints"]).or_else(|| number(&partial["rejectedLogRecords"])).unwrap_or(0)
}

fn agent(url: &str) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("vimana/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(WHOLE));
    if url.starts_with("https://") {
        let native = rustls_native_certs::load_native_certs().certs;
        let roots: Vec<Certificate<'static>> =
            native.iter().map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned()).collect();
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        config = config.tls_config(tls);
    }
    config.build().into()
}
