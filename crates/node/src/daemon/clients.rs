//! Who is served at a time, and for how long somebody may say or take nothing.
//!
//! - A connection on which nothing is asked makes room when another comes and there is none: the one that has been idle for longest.
//!   So idle ones shut nobody out.
//! - One user has at most [`Limits::of_one`] connections; what is left of [`Limits::all`] is for the others who may connect.
//! - Of these at most [`Limits::long`] have requests that last (logs, events, waiting, a connection to a keeper), so that those who
//!   follow something leave room for commands.
//! - Who takes nothing of an answer for [`Limits::stalled`] is disconnected.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use self::line::Line;
use super::api::too_many;

mod line;
#[cfg(test)]
mod tests;

/// How many are served at a time, and how long they may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at a time.
    pub(super) all: usize,
    /// Connections of one user.
    pub(super) of_one: usize,
    /// Requests of one user that last.
    pub(super) long: usize,
    /// How long a client may take to say what it wants.
    pub(super) headers: Duration,
    /// How long what it sends along may take to arrive. A manifest's own time is less.
    pub(super) body: Duration,
    /// How long it may take nothing of what it is told.
    pub(super) stalled: Duration,
}

/// The limits of a node.
pub(super) const LIMITS: Limits = Limits {
    all: 512,
    of_one: 384,
    long: 256,
    headers: Duration::from_secs(10),
    body: Duration::from_secs(40),
    stalled: Duration::from_secs(300),
};

/// Those who are connected.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    limits: Limits,
    all: Arc<Mutex<All>>,
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    connections: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    user: u32,
    doing: Doing,
    since: Instant,
    make_room: Arc<Notify>,
}

/// What a connection is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    Request,
    Long,
}

/// A connection's place among those who are served. It is free when the last who holds it lets go.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    user: u32,
    make_room: Arc<Notify>,
    clients: Clients,
}

impl Clients {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, all: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        // Nothing is left half done under it.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of this user; none where all are in use.
    pub(super) fn admit(&self, user: u32) -> Option<Arc<Place>> {
        let mut all = self.lock();
        let of_user = all.connections.values().filter(|one| one.user == user).count();
        if of_user >= self.limits.of_one {
            all.make_room(|one| one.user == user)?;
        } else if all.connections.len() >= self.limits.all {
            all.make_room(|_| true)?;
        }
        let number = all.next;
        all.next = number.wrapping_add(1);
        let make_room = Arc::new(Notify::new());
        let connection =
            Connection { user, doing: Doing::Nothing, since: Instant::now(), make_room: make_room.clone() };
        all.connections.insert(number, connection);
        Some(Arc::new(Place { number, user, make_room, clients: self.clone() }))
    }

    /// Serves a connection to its end.
    pub(super) async fn serve<S>(&self, stream: S, place: Arc<Place>, router: Router)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (limits, make_room) = (self.limits, place.make_room.clone());
        let line = TokioIo::new(Line::new(stream, limits.stalled, place.clone()));
        let router = TowerToHyperService::new(router);
        let service = service_fn(move |request| answer(limits, place.clone(), router.clone(), request));
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limits.headers);
        let served = http.serve_connection(line, service).with_upgrades();
        tokio::select! {
            // A client that breaks off, or speaks something else, is its own affair.
            _ = served => {}
            () = make_room.notified() => {}
        }
    }
}

impl All {
    /// Ends the connection that has been idle for longest; nothing where none is.
    fn make_room(&mut self, is_meant: impl Fn(&Connection) -> bool) -> Option<()> {
        let idle = self.connections.iter().filter(|(_, one)| one.doing == Doing::Nothing && is_meant(one));
        let number = *idle.min_by_key(|(_, one)| one.since)?.0;
        self.connections.remove(&number)?.make_room.notify_one();
        Some(())
    }
}

impl Place {
    /// Notes what the connection is used for from now on; `false` where its user has enough of those that last.
    fn does(&self, doing: Doing) -> bool {
        let mut all = self.clients.lock();
        let lasting =
            all.connections.values().filter(|one| one.user == self.user && one.doing == Doing::Long);
        if doing == Doing::Long && lasting.count() >= self.clients.limits.long {
            return false;
        }
        if let Some(connection) = all.connections.get_mut(&self.number) {
            (connection.doing, connection.since) = (doing, Instant::now());
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.lock().connections.remove(&self.number);
    }
}

/// Whether a request lasts as long as whoever asks wants.
fn is_long(path: &str) -> bool {
    ["/wait", "/logs", "/events", "/keeper"].iter().any(|end| path.ends_with(end))
}

async fn answer(
    limits: Limits,
    place: Arc<Place>,
    router: TowerToHyperService<Router>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let doing = if is_long(request.uri().path()) { Doing::Long } else { Doing::Request };
    let deadline = Box::pin(tokio::time::sleep(limits.body));
    let response = match place.does(doing) {
        true => router.call(request.map(|body| Body::new(Timely { body, deadline }))).await?,
        false => {
            place.does(Doing::Request);
            too_many(limits.long).into_response()
        }
    };
    // What has become a connection to somebody else stays one.
    let busy = (response.status() != StatusCode::SWITCHING_PROTOCOLS).then_some(Busy(place));
    Ok(response.map(|body| Answer { body, _busy: busy }))
}

/// What somebody sends along, in time.
struct Timely {
    body: Incoming,
    deadline: Pin<Box<tokio::time::Sleep>>,
}

impl hyper::body::Body for Timely {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        let late = || axum::Error::new(std::io::Error::from(std::io::ErrorKind::TimedOut));
        self.deadline.as_mut().poll(context).map(|()| Some(Err(late())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer; once it is out, or nobody wants it any more, its connection is idle.
struct Answer {
    body: Body,
    _busy: Option<Busy>,
}

struct Busy(Arc<Place>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.does(Doing::Nothing);
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
