//! `vimana node`: the daemon that keeps spacecores running.
//!
//! ```text
//!  vimana apply, ps, ... --HTTP over node.sock--> api --Call--> core  decides, one thing after another
//!                                                                |      supervisor: one spacecore
//!                                                                |      rollout: one deployment
//!                                                                v
//!                            record: what is wanted and begun    attempt: prepares, starts a keeper, speaks with it (line)
//! ```
//!
//! - A **deployment** is an applied manifest. It has revisions, and as many spacecores as it has replicas.
//! - A **spacecore** is run by one keeper after another, each an *attempt*. Keepers outlive the node: one that is killed finds them
//!   again by what it has kept (`record`), and who holds the lock of a run folder tells whether a keeper is there (`run_folder`).
//! - What publishes ports has a **balancer** ([`balance`](crate::balance)), found again in the same way.
//! - What is asked for is on the disk before it is answered.
//!
//! Work arrives as [`call::Call`]s, whoever sends them; the API is the first who does.

mod api;
mod attempt;
mod balancer;
pub mod call;
mod clients;
mod core;
pub mod difference;
mod events;
mod line;
mod logs;
mod metrics;
mod notify;
mod observer;
mod offer;
mod port;
mod pressure;
pub mod record;
mod reserve;
mod sampler;
mod telemetry;
pub mod view;

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustix::fs::{FlockOperation, flock};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use self::api::{Api, Identity};
use self::clients::{Clients, LIMITS};
use self::core::Core;
use self::events::Events;
use self::observer::Observed;
use self::record::{RecordError, Records};
use crate::capacity::TooMuch;
use crate::clock::unix_time_ns;
use crate::home::Home;

pub use self::api::{PROTOCOL_HEADER, openapi};

/// Why the node doesn't run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// There is one already.
    #[error("a node runs already in {}{}", home.display(), pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Running {
        /// Its home.
        home: PathBuf,
        /// Its process.
        pid: Option<String>,
    },
    /// What it keeps can't be used.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// What the operator says of the node has mistakes, which are shown.
    #[error("the node's settings have mistakes, so it doesn't run\n\n{rendered}")]
    Settings {
        /// Every mistake with its line.
        rendered: String,
    },
    /// What the operator says of the node can't be read.
    #[error("can't read the node's settings {}", path.display())]
    SettingsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More is offered than there is.
    #[error("can't offer what {} says", path.display())]
    Offer {
        /// The file.
        path: PathBuf,
        /// Of what.
        source: TooMuch,
    },
    /// It can't send what it is to send.
    #[error("can't send metrics and logs as node.toml says")]
    Telemetry(#[from] telemetry::TelemetryError),
    /// It can't listen.
    #[error("can't listen on {}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The machine doesn't let it run.
    #[error("the node can't run")]
    Machine(#[source] io::Error),
}

use self::core::notice_of;

/// Where a node's API listens, unless it is told otherwise.
pub fn socket(home: &Home) -> PathBuf {
    folder(home).join("node.sock")
}

fn folder(home: &Home) -> PathBuf {
    home.root().join("node")
}

/// Runs the node until it is told to end (SIGTERM or SIGINT); its spacecores go on. `ready` is called once it serves, with what of its files
/// can't be read.
///
/// # Errors
/// There is one already, or the machine lacks what it needs.
pub fn run(home: &Home, socket: &Path, ready: impl FnOnce(&Path, &[String])) -> Result<(), NodeError> {
    let records = Records::open(&folder(home))?;
    let _lock = lock(home)?;
    crate::keeper::shared::allow_many_files();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(NodeError::Machine)?;
    let result = runtime.block_on(serve(home, records, socket, ready));
    // What is being prepared is begun anew by the next node.
    runtime.shutdown_background();
    result
}

async fn serve(
    home: &Home,
    records: Records,
    socket: &Path,
    ready: impl FnOnce(&Path, &[String]),
) -> Result<(), NodeError> {
    // A client that has gone away is an error of its connection and not this process' end.
    let _pipe = signal(SignalKind::pipe()).map_err(NodeError::Machine)?;
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let events = Events::open(&folder(home)).map_err(NodeError::Machine)?;
    let settings = offer::settings(home)?;
    let offer = offer::of(home, &settings)?;
    let mut core = Core::open(home.clone(), records.clone(), events, offer)?;
    let node = Identity {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        since_unix_ms: unix_time_ns() / 1_000_000,
        home: home.root().display().to_string(),
    };
    let observed = Observed::default();
    let api = Api {
        home: home.clone(),
        records,
        tell: core.teller(),
        changes: core.changes(),
        node,
        observed: observed.clone(),
        sent: settings.telemetry.endpoint.is_some().then(Arc::default),
    };
    telemetry::start(&settings.telemetry, &api, folder(home).join("telemetry.json"))?;
    let listener = listen(socket).map_err(|source| NodeError::Listen { path: socket.to_owned(), source })?;
    tokio::spawn(sampler::run(core.teller(), observed.clone()));
    tokio::spawn(pressure::run(core.teller(), offer.evict_below));
    tokio::spawn(observer::run(core.teller(), observed, observer::rounds(&settings.anomalies)));
    tokio::spawn(accept(listener, api::router(api)));
    ready(socket, &core.complaints());
    notify::ready();
    let [terminate, interrupt, hangup] = &mut ends;
    let [terminate, interrupt, hangup] = [terminate, interrupt, hangup].map(|end| async {
        match end {
            Ok(signal) => _ = signal.recv().await,
            // What can't be listened for never comes.
            Err(_) => std::future::pending().await,
        }
    });
    tokio::pin!(terminate, interrupt, hangup);
    loop {
        tokio::select! {
            () = core.turn() => {}
            () = &mut terminate => break,
            () = &mut interrupt => break,
            () = &mut hangup => break,
        }
    }
    notify::stopping();
    // A socket that nobody listens on would only be in the way.
    let _ = std::fs::remove_file(socket);
    Ok(())
}

/// Holds the home as its only node.
fn lock(home: &Home) -> Result<File, NodeError> {
    let path = folder(home).join("lock");
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let mut file = open.map_err(NodeError::Machine)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        let pid = file.read_to_string(&mut pid).ok().map(|_| pid.trim().to_owned());
        return Err(NodeError::Running {
            home: home.root().to_owned(),
            pid: pid.filter(|pid| !pid.is_empty()),
        });
    }
    // It is for people to read: a full disk is no reason not to run.
    let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

/// Listens where its owner alone can connect. A socket that a killed node has left there makes room; nothing else does.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let is_socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    let deserted = std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if is_socket && deserted {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, router: Router) {
    let clients = Clients::new(LIMITS);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Without a descriptor to spare: somebody has to go first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(user) = allowed(&stream) else { continue };
        let Some(place) = clients.admit(user) else {
            // It may not have asked yet, and needn't.
            let _ = stream.try_write(&api::no_place());
            continue;
        };
        let (clients, router) = (clients.clone(), router.clone());
        tokio::spawn(async move { clients.serve(stream, place, router).await });
    }
}

/// Who the other side is, if it is this node's own user, or root.
fn allowed(stream: &UnixStream) -> Option<u32> {
    let peer = rustix::net::sockopt::socket_peercred(stream.as_fd()).ok()?;
    (peer.uid == rustix::process::geteuid() || peer.uid.is_root()).then(|| peer.uid.as_raw())
}
