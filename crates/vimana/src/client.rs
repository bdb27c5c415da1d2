//! The command line's side of a node's local API.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use node::daemon::PROTOCOL_HEADER;
use node::daemon::view::{Outcome, WaitView};
use node::home::Home;
use node::session::Session;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

/// The largest answer that is read whole, in bytes.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// The longest wait in seconds that a node is asked for at a time.
const WAIT_S: f64 = 3600.0;

/// Which node is meant.
#[derive(clap::Args, Clone, Default)]
pub struct At {
    /// The node's socket [default: that of VIMANA_HOME]
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,
}

/// A way to a node.
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

/// An error that a node has answered.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

/// A node's refusal.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Refused {
    /// The status of the answer.
    pub status: u16,
    /// What was wrong.
    pub detail: String,
}

/// What is sent along.
pub type Payload = Option<(&'static str, Vec<u8>)>;

impl Client {
    /// The way to a node, which isn't tried yet.
    ///
    /// # Errors
    /// The home can't be told.
    pub fn new(at: &At) -> anyhow::Result<Self> {
        let socket = match &at.socket {
            Some(socket) => socket.clone(),
            None => node::daemon::socket(&Home::find()?),
        };
        Ok(Self { socket, runtime: Builder::new_current_thread().enable_all().build()? })
    }

    /// Asks for something.
    ///
    /// # Errors
    /// No node runs there, or it refuses.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.send(Method::GET, path, None)
    }

    /// Has something done.
    ///
    /// # Errors
    /// No node runs there, or it refuses.
    pub fn send<T: DeserializeOwned>(&self, method: Method, path: &str, body: Payload) -> anyhow::Result<T> {
        self.runtime.block_on(async {
            let response = self.ask(method, path, body).await?;
            let bytes = whole(response).await?;
            serde_json::from_slice(&bytes)
                .context("the node answered something that this version doesn't know")
        })
    }

    /// Waits until a deployment is as `what` says, at most so many seconds, however many. With a revision, until that one is so.
    ///
    /// # Errors
    /// No node runs there, or it refuses.
    pub fn wait(
        &self,
        name: &str,
        what: &str,
        revision: Option<u64>,
        timeout_s: u32,
    ) -> anyhow::Result<WaitView> {
        let revision = revision.map_or(String::new(), |revision| format!("&revision={revision}"));
        let end = Instant::now() + Duration::from_secs(timeout_s.into());
        loop {
            let left_s = end.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
            let slice_s = left_s.min(WAIT_S);
            let path = format!("/v1/deployments/{name}/wait?for={what}&timeout_s={slice_s}{revision}");
            let waited: WaitView = self.get(&path)?;
            if waited.outcome != Outcome::Late || left_s <= WAIT_S {
                return Ok(waited);
            }
        }
    }

    /// Reads a stream, piece by piece, until it or the reader ends.
    ///
    /// # Errors
    /// No node runs there, it refuses, or the reader fails.
    pub fn stream(&self, path: &str, mut read: impl FnMut(&[u8]) -> io::Result<bool>) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let mut body = self.ask(Method::GET, path, None).await?.into_body();
            while let Some(frame) = body.frame().await {
                let frame = frame.context("the node broke off; its log may say why")?;
                if let Some(bytes) = frame.data_ref()
                    && !read(bytes)?
                {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Connects to the keeper of a spacecore.
    ///
    /// # Errors
    /// No node runs there, or the spacecore doesn't run.
    pub fn keeper(&self, spacecore: &str) -> anyhow::Result<Session> {
        let (socket, read, protocol) = self.runtime.block_on(async {
            let request = request(Method::POST, &format!("/v1/spacecores/{spacecore}/keeper"), None)?;
            let (mut parts, body) = request.into_parts();
            parts.headers.insert(CONNECTION, "upgrade".parse()?);
            parts.headers.insert(UPGRADE, "vimana-keeper".parse()?);
            let response = self.exchange(Request::from_parts(parts, body)).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(refusal(response).await);
            }
            // A node of before doesn't say; its keepers are of the first version.
            let said = response.headers().get(PROTOCOL_HEADER).and_then(|said| said.to_str().ok());
            let protocol = said.and_then(|said| said.parse().ok()).unwrap_or(1);
            let upgraded = hyper::upgrade::on(response).await?;
            let parts = upgraded
                .downcast::<TokioIo<UnixStream>>()
                .map_err(|_| anyhow!("the node's connection isn't the one that was made"))?;
            Ok((OwnedFd::from(parts.io.into_inner().into_std()?), parts.read_buf, protocol))
        })?;
        Ok(Session::over(socket, &read, protocol)?)
    }

    async fn ask(&self, method: Method, path: &str, body: Payload) -> anyhow::Result<Response<Incoming>> {
        let response = self.exchange(request(method, path, body)?).await?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| unreachable(&self.socket, error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // What goes wrong is told to who waits for the answer.
            let _ = connection.with_upgrades().await;
        });
        sender.send_request(request).await.context("the node doesn't answer")
    }
}

fn request(method: Method, path: &str, body: Payload) -> anyhow::Result<Request<Full<Bytes>>> {
    let mut request = Request::builder().method(method).uri(path).header(HOST, "node");
    let mut bytes = Bytes::new();
    if let Some((kind, body)) = body {
        request = request.header(CONTENT_TYPE, kind);
        bytes = body.into();
    }
    Ok(request.body(Full::new(bytes))?)
}

async fn whole(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    let limited = http_body_util::Limited::new(response.into_body(), ANSWER_MAX);
    let collected = limited.collect().await.map_err(|error| anyhow!("the node broke off: {error}"))?;
    Ok(collected.to_bytes())
}

async fn refusal(response: Response<Incoming>) -> anyhow::Error {
    let status = response.status();
    let bytes = whole(response).await.unwrap_or_default();
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(Problem { detail }) => Refused { status: status.as_u16(), detail }.into(),
        Err(_) => anyhow!("the node answered {status}"),
    }
}

fn unreachable(socket: &Path, error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            anyhow!("no node runs here ({}); start one with: vimana node", socket.display())
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("the node at {} belongs to another user", socket.display())
        }
        _ => anyhow::Error::from(error).context(format!("can't connect to the node at {}", socket.display())),
    }
}

/// The exit code that says what came of waiting.
pub fn code_of(outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Reached => ExitCode::SUCCESS,
        Outcome::Failed | Outcome::Late => ExitCode::FAILURE,
        Outcome::Superseded | Outcome::Gone => ExitCode::from(3),
    }
}

/// How long ago something was, in a word.
pub fn ago(unix_ms: u64) -> String {
    let now = node::clock::unix_time_ns() / 1_000_000;
    let seconds = Duration::from_millis(now.saturating_sub(unix_ms)).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Refuses what can't be part of a path.
///
/// # Errors
/// It isn't a name.
pub fn check_name(name: &str) -> anyhow::Result<&str> {
    match node::daemon::call::is_name(name) {
        true => Ok(name),
        false => bail!("{name:?} is no name; vimana ps lists those that there are"),
    }
}
