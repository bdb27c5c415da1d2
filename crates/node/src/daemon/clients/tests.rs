use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::routing::{get, post};
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::*;

/// Longer than anything takes on a machine that has much else to do.
const PATIENT: Duration = Duration::from_secs(60);

fn limits() -> Limits {
    Limits { all: 6, of_one: 4, long: 2, headers: PATIENT, body: PATIENT, stalled: PATIENT }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENT, future).await.unwrap() })
}

/// Answers on `/short`, never ends on `/logs`, and says so when it has: `ended`.
fn router(ended: Arc<AtomicBool>) -> Router {
    struct Ends(Arc<AtomicBool>);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let endless = move || {
        let ends = Ends(ended.clone());
        let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
        let chunks = stream::unfold(ends, move |ends| {
            let chunk = chunk.clone();
            async move { Some((Ok::<_, Infallible>(chunk), ends)) }
        });
        async move { Body::from_stream(chunks) }
    };
    Router::new()
        .route("/short", get(|| async { "well" }))
        .route("/takes", post(|body: Bytes| async move { body }))
        .route("/logs", get(endless))
}

/// Connects as this user; nothing where there is no place.
fn connect(clients: &Clients, user: u32, router: &Router) -> Option<UnixStream> {
    let place = clients.admit(user)?;
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (clients, router) = (clients.clone(), router.clone());
    tokio::spawn(async move { clients.serve(theirs, place, router).await });
    Some(ours)
}

async fn ask(stream: &mut UnixStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

async fn has_ended(stream: &mut UnixStream) {
    let mut rest = Vec::new();
    // Whether what was sent was read to its end doesn't matter.
    let _ = stream.read_to_end(&mut rest).await;
}

#[test]
fn idle_connections_make_room_for_who_comes() {
    block_on(async {
        let (clients, router) = (Clients::new(limits()), router(Arc::default()));
        let mut idle: Vec<UnixStream> = (0..4).map(|_| connect(&clients, 1, &router).unwrap()).collect();
        // One that has asked and been answered is as idle, but not for as long.
        assert!(ask(&mut idle[0], "/short").await.starts_with("HTTP/1.1 200"));
        let mut newer = Vec::new();
        for _ in 0..3 {
            let mut new = connect(&clients, 1, &router).unwrap();
            assert!(ask(&mut new, "/short").await.starts_with("HTTP/1.1 200"));
            newer.push(new);
        }
        for one in &mut idle[1..] {
            has_ended(one).await;
        }
        assert!(ask(&mut idle[0], "/short").await.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn requests_that_last_leave_room_for_those_that_do_not() {
    block_on(async {
        let (clients, router) = (Clients::new(limits()), router(Arc::default()));
        let mut following = Vec::new();
        for _ in 0..2 {
            let mut one = connect(&clients, 1, &router).unwrap();
            assert!(ask(&mut one, "/logs").await.starts_with("HTTP/1.1 200"));
            following.push(one);
        }
        let mut another = connect(&clients, 1, &router).unwrap();
        assert!(ask(&mut another, "/logs").await.starts_with("HTTP/1.1 503"));
        let mut command = connect(&clients, 1, &router).unwrap();
        assert!(ask(&mut command, "/short").await.starts_with("HTTP/1.1 200"));
        let mut of_root = connect(&clients, 0, &router).unwrap();
        assert!(ask(&mut of_root, "/logs").await.starts_with("HTTP/1.1 200"), "another user's are apart");
        following.clear();
        loop {
            let mut again = connect(&clients, 1, &router).unwrap();
            if ask(&mut again, "/logs").await.starts_with("HTTP/1.1 200") {
                break;
            }
        }
    });
}

#[test]
fn one_user_leaves_places_for_another() {
    let clients = Clients::new(limits());
    let busy = |user| {
        let place = clients.admit(user)?;
        assert!(place.does(Doing::Request));
        Some(place)
    };
    let of_one: Vec<_> = (0..10).filter_map(|_| busy(1)).collect();
    assert_eq!(of_one.len(), 4);
    let of_root: Vec<_> = (0..10).filter_map(|_| busy(0)).collect();
    assert_eq!(of_root.len(), 2);
    drop(of_one);
    assert!(busy(1).is_some());
}

#[test]
fn who_takes_nothing_is_disconnected() {
    block_on(async {
        let ended = Arc::new(AtomicBool::new(false));
        let limits = Limits { stalled: Duration::from_millis(50), ..limits() };
        let (clients, router) = (Clients::new(limits), router(ended.clone()));
        let mut follower = connect(&clients, 1, &router).unwrap();
        follower.write_all(b"GET /logs HTTP/1.1\r\nHost: node\r\n\r\n").await.unwrap();
        while !ended.load(Ordering::SeqCst) || !clients.lock().connections.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        has_ended(&mut follower).await;
    });
}

#[test]
fn who_says_nothing_or_not_all_of_it_is_disconnected() {
    block_on(async {
        let short = Duration::from_millis(50);
        let limits = Limits { headers: short, body: short, ..limits() };
        let (clients, router) = (Clients::new(limits), router(Arc::default()));
        for said in ["", "GET /sho", "POST /takes HTTP/1.1\r\nHost: node\r\nContent-Length: 9\r\n\r\nabc"] {
            let mut client = connect(&clients, 1, &router).unwrap();
            client.write_all(said.as_bytes()).await.unwrap();
            has_ended(&mut client).await;
        }
    });
}
