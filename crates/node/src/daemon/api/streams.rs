//! What streams: logs and events.

use std::convert::Infallible;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Api;
use super::problem::{Name, Problem, Query};
use crate::daemon::call::{Call, Refusal};
use crate::daemon::core::Happening;
use crate::daemon::view::Event;
use crate::log::{Reader, Wanted};

/// How often a log that is followed is looked at.
const NAP: Duration = Duration::from_millis(100);

/// How often files are let go of that were removed while nobody took what is in them.
const LET_GO: Duration = Duration::from_secs(1);

/// Which lines of a log.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Go on with what comes, until the spacecore is forgotten.
    #[serde(default)]
    follow: bool,
    /// Only the last lines.
    tail: Option<u32>,
    /// Only what was written since then, in milliseconds since 1970.
    since_unix_ms: Option<u64>,
    /// The log of the spacecore that had this name before, in a deployment that was removed.
    #[serde(default)]
    before: bool,
}

pub(super) async fn logs(
    State(api): State<Api>,
    Name(name): Name,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    let logs = api.records.logs();
    let folder = if which.before { logs.before(&name) } else { logs.of(&name) };
    if which.before && !folder.is_dir() {
        let detail = format!("there is no log of a spacecore that was named {name:?} before");
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown", detail));
    }
    if !folder.is_dir() {
        // It may not have said anything yet; what was never there is another matter.
        api.ask(|reply| Call::Spacecore { name: name.clone(), reply }).await?;
    }
    let tail = which.tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
    let since = which.since_unix_ms.and_then(|since| UNIX_EPOCH.checked_add(Duration::from_millis(since)));
    let wanted = Wanted { tail, since, follow: which.follow };
    let reader = Reader::open(&folder, wanted).map_err(|error| {
        let detail = format!("the log of {name} can't be read: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "log", detail)
    })?;
    let (taker, taken) = mpsc::channel(1);
    // What was before says nothing more.
    let follow = which.follow && !which.before;
    tokio::spawn(pass_on(reader, follow.then_some((api, name)), taker));
    let chunks = stream::unfold(taken, |mut taken| async move {
        let chunk: io::Result<Bytes> = taken.recv().await?;
        Some((chunk, taken))
    });
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(chunks)).into_response())
}

/// Reads a log as fast as it is taken. Meanwhile no file is held that was removed.
async fn pass_on(mut reader: Reader, follow: Option<(Api, String)>, to: mpsc::Sender<io::Result<Bytes>>) {
    let mut is_gone = false;
    loop {
        let place = tokio::select! {
            place = to.reserve() => place,
            () = sleep(LET_GO) => {
                reader.let_go();
                continue;
            }
        };
        // Who has gone away needs nothing more.
        let Ok(place) = place else { return };
        let Some((read, chunk)) = next_chunk(reader).await else { return };
        reader = read;
        match chunk {
            Ok(chunk) if !chunk.is_empty() => {
                place.send(Ok(Bytes::from(chunk)));
                continue;
            }
            Ok(_) => drop(place),
            Err(error) => return place.send(Err(error)),
        }
        // What it said last was written before it was gone.
        let Some((api, name)) = follow.as_ref().filter(|_| !is_gone) else { return };
        is_gone = api.ask(|reply| Call::Spacecore { name: name.clone(), reply }).await.is_err();
        if !is_gone {
            tokio::select! {
                () = to.closed() => return,
                () = sleep(NAP) => {}
            }
        }
    }
}

/// Reads on a thread of its own: of a log that grows as fast as it is read there may be much that isn't wanted.
async fn next_chunk(mut reader: Reader) -> Option<(Reader, io::Result<Vec<u8>>)> {
    let read = spawn_blocking(move || {
        let chunk = reader.next_chunk();
        (reader, chunk)
    });
    read.await.ok()
}

/// Which events.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Since {
    /// Go on with what happens.
    #[serde(default)]
    follow: bool,
    /// Only events after the one of this number.
    #[serde(default)]
    after: u64,
}

pub(super) async fn events(State(api): State<Api>, Query(since): Query<Since>) -> Result<Response, Problem> {
    let (reply, answer) = oneshot::channel();
    api.tell.send(Happening::Listen(since.after, reply)).map_err(|_| Refusal::Ending)?;
    let (past, coming) = answer.await.map_err(|_| Refusal::Ending)?;
    let coming = since.follow.then_some(coming);
    let lines = stream::unfold((past.into_iter(), coming), |(mut past, mut coming)| async move {
        if let Some(event) = past.next() {
            return Some((Ok::<_, Infallible>(line(&event)), (past, coming)));
        }
        loop {
            match coming.as_mut()?.recv().await {
                Ok(event) => return Some((Ok(line(&event)), (past, coming))),
                // Who reads too slowly misses some; their numbers show it.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn line(event: &Event) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
