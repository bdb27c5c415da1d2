//! The balancer: the process that owns a deployment's published ports and relays each caller to one of its replicas.
//!
//! ```text
//!   caller --> [ 127.0.0.1:PORT  balancer ] --> [ 127.0.0.1:FREE  keeper ] --> replica
//!                                   ^
//!                     node ---------+  balance.sock: the sockets to listen on, who is in service
//! ```
//!
//! - There is one for each deployment that publishes ports. Like a keeper it outlives the node: it goes on with what it was told last,
//!   and the next node finds it by the run folder whose lock it holds.
//! - The node binds the ports and hands over the sockets, so that it knows at once what can't be had, and a balancer that is killed
//!   takes no socket along.
//! - [`state`] decides who gets whom, without I/O; [`relay`] is one caller's life.

mod lines;
mod message;
mod relay;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hac::Manifest;
use hac::model::NetworkType;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) use self::lines::Lines;
pub(crate) use self::message::{FromBalancer, Service, ToBalancer, VERSION};
use self::state::State;
use crate::again;
use crate::keeper::shared::allow_many_files;
use crate::run_folder::RunFolder;

/// The hidden command that is a balancer's process.
pub const COMMAND: &str = "balance";
/// The socket in its run folder.
pub(crate) const SOCKET: &str = "balance.sock";
/// How long nobody new is taken where there is no descriptor left.
const NAP: Duration = Duration::from_millis(100);

/// The ports of this machine on which a deployment's replicas answer together.
pub(crate) fn shared_ports(manifest: &Manifest) -> BTreeSet<u16> {
    let networking = &manifest.spec.networking;
    match networking.network_type {
        NetworkType::Public => networking.inbound_ports.values().copied().collect(),
        NetworkType::Private | NetworkType::None => BTreeSet::new(),
    }
}

/// The run folder of a deployment's balancer. No spacecore's has a dot in its name.
pub(crate) fn folder(run: &Path, deployment: &str) -> PathBuf {
    run.join(format!("{deployment}{ENDING}"))
}

const ENDING: &str = ".ports";

/// Whether this is the name of a balancer's run folder.
pub(crate) fn is_folder(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == ENDING.trim_start_matches('.'))
}

/// Starts a balancer: `program` (the running `vimana`) executed again. Its run folder is made and locked here, and it inherits the lock.
///
/// # Errors
/// The folder is there already, or the program can't be executed.
pub(crate) fn start(program: &Path, folder: &Path) -> io::Result<Child> {
    let held = RunFolder::create(folder)?;
    let mut command = Command::new(program);
    command.arg(COMMAND).arg(folder).stderr(Stdio::null());
    let started = again::execute(&mut command, &[held.lock().as_fd()]);
    if started.is_err() {
        // There is nobody else to do it; the reason that it wasn't started says more.
        let _ = held.remove();
    }
    started
}

/// The life of a balancer's process.
///
/// # Errors
/// The process wasn't started by a node, or lacks what it needs.
pub fn balance_main(folder: &Path) -> io::Result<()> {
    let folder = RunFolder::take_over(folder, again::take(0)?)?;
    allow_many_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(serve(folder.path()));
    drop(runtime);
    folder.remove().and(served)
}

/// What all callers have in common.
struct Shared {
    state: Mutex<State>,
    /// Rises with everything that somebody may wait for.
    changes: watch::Sender<u64>,
}

impl Shared {
    fn decide<T>(&self, decide: impl FnOnce(&mut State) -> T) -> T {
        decide(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes the end of something, and tells those who wait for it.
    fn ended(&self, note: impl FnOnce(&mut State)) {
        let is_awaited = self.decide(|state| {
            let was_awaited = state.is_awaited();
            note(state);
            was_awaited || state.is_awaited()
        });
        if is_awaited {
            self.has_changed();
        }
    }

    fn has_changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// The balancer's work: listens to the node, whichever that is at the moment.
struct Balancer {
    shared: Arc<Shared>,
    /// Who takes the callers of each port.
    takers: BTreeMap<u16, JoinHandle<()>>,
    node: Option<Lines>,
}

async fn serve(folder: &Path) -> io::Result<()> {
    // Who has gone away is an error of its connection and not this process' end.
    let _pipe = signal(SignalKind::pipe())?;
    let listener = UnixListener::bind(folder.join(SOCKET))?;
    let shared = Arc::new(Shared { state: Mutex::default(), changes: watch::Sender::new(0) });
    let mut changes = shared.changes();
    let mut balancer = Balancer { shared, takers: BTreeMap::new(), node: None };
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => balancer.hello(stream).await,
                Err(_) => tokio::time::sleep(NAP).await,
            },
            message = next(&mut balancer.node) => match message {
                Some(ToBalancer::End) => return Ok(()),
                Some(message) => balancer.told(message),
                // It is gone, and another will come.
                None => balancer.node = None,
            },
            _ = changes.changed() => {}
        }
        balancer.tell_drained().await;
    }
}

/// What the node says next; nothing once it is gone, or speaks something else.
async fn next(node: &mut Option<Lines>) -> Option<ToBalancer> {
    match node {
        Some(node) => node.next().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

impl Balancer {
    async fn hello(&mut self, stream: UnixStream) {
        let peer = rustix::net::sockopt::socket_peercred(stream.as_fd());
        if !peer.is_ok_and(|peer| peer.uid == rustix::process::geteuid()) {
            return;
        }
        let node = Lines::new(stream);
        let ports = self.takers.keys().copied().collect();
        if node.send(&FromBalancer::Hello { version: VERSION, ports }, None).await.is_ok() {
            self.node = Some(node);
        }
    }

    fn told(&mut self, message: ToBalancer) {
        match message {
            ToBalancer::Listen { port } => {
                let file = self.node.as_mut().and_then(Lines::file);
                let listener = file.and_then(|file| take(file).ok());
                // The node asks which there are when it comes the next time.
                let Some(listener) = listener else { return };
                let taker = tokio::spawn(take_callers(port, listener, self.shared.clone()));
                if let Some(before) = self.takers.insert(port, taker) {
                    before.abort();
                }
            }
            ToBalancer::Serve(service) => {
                self.takers.retain(|port, taker| {
                    let stays = service.ports.contains(port);
                    if !stays {
                        taker.abort();
                    }
                    stays
                });
                self.shared.decide(|state| state.serve(&service));
                self.shared.has_changed();
            }
            ToBalancer::End => {}
        }
    }

    async fn tell_drained(&mut self) {
        let Some(node) = &self.node else { return };
        for backend in self.shared.decide(State::drained) {
            // A node that is gone asks the next one to be told.
            let _ = node.send(&FromBalancer::Drained { backend }, None).await;
        }
    }
}

fn take(file: OwnedFd) -> io::Result<tokio::net::TcpListener> {
    let listener = TcpListener::from(file);
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// Takes a port's callers, as long as there is room for them; the others wait in the kernel's queue.
async fn take_callers(port: u16, listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    let mut changes = shared.changes();
    loop {
        changes.mark_unchanged();
        if !shared.decide(|state| state.has_room()) {
            // Whoever says what changes lives as long as this process.
            let _ = changes.changed().await;
            continue;
        }
        match listener.accept().await {
            Ok((caller, _)) => {
                shared.decide(State::came);
                let shared = shared.clone();
                tokio::spawn(async move { relay::carry(port, caller, &shared).await });
            }
            Err(_) => tokio::time::sleep(NAP).await,
        }
    }
}
