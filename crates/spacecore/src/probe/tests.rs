use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, Timespec, poll};

use super::*;

/// Runs a probe to its end.
fn run(probe: Probe) -> Result<(), String> {
    fetch(probe).map(drop)
}

fn fetch(mut probe: Probe) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(result) = probe.turn() {
            return result;
        }
        assert!(Instant::now() < deadline, "it hangs: {probe:?}");
        let (fd, events) = probe.interest().unwrap();
        let step = Timespec { tv_sec: 1, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(fd, events)], Some(&step)).unwrap();
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A port of this machine's that nobody listens on.
fn free() -> u16 {
    TcpListener::bind(local(0)).unwrap().local_addr().unwrap().port()
}

/// What a probe for `path` makes of a server that answers in these pieces; and what it asked for.
fn page(path: &str, pieces: &[&[u8]]) -> (Result<(), String>, String) {
    let (result, asked) = answered(pieces, |address| Probe::new([address], Some(path.to_owned())));
    (result.map(drop), asked)
}

fn answered(pieces: &[&[u8]], probe: impl FnOnce(SocketAddr) -> Probe) -> (Result<Vec<u8>, String>, String) {
    let listener = TcpListener::bind(local(0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::scope(|scope| {
        let server = scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = vec![0; 4096];
            let read = stream.read(&mut asked).unwrap();
            for piece in pieces {
                // A probe that has seen enough is gone.
                let _ = stream.write_all(piece);
                std::thread::sleep(Duration::from_millis(5));
            }
            String::from_utf8(asked[..read].to_vec()).unwrap()
        });
        let result = fetch(probe(local(port)));
        (result, server.join().unwrap())
    })
}

#[test]
fn a_port_that_listens_passes_and_one_that_doesnt_fails() {
    let listener = TcpListener::bind(local(0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(run(Probe::new([local(port)], None)), Ok(()));
    let failure = run(Probe::new([local(free())], None)).unwrap_err();
    assert!(failure.contains("127.0.0.1") && failure.contains("refused"), "{failure}");
    assert!(run(Probe::new([], None)).is_err());
}

#[test]
fn the_next_address_is_tried_where_the_first_refuses() {
    let listener = TcpListener::bind(("127.0.0.2", 0)).unwrap();
    let there = listener.local_addr().unwrap();
    assert_eq!(run(Probe::new([local(there.port()), there], None)), Ok(()));
}

#[test]
fn a_page_that_is_there_passes_and_is_asked_for_politely() {
    let (result, asked) = page("/health?a=b", &[b"HTTP/1.1 20", b"4 No Content\r\n", b"X: y\r\n\r\n"]);
    assert_eq!(result, Ok(()));
    assert!(asked.starts_with("GET /health?a=b HTTP/1.1\r\nHost: 127.0.0.1:"), "{asked}");
    assert!(asked.contains("\r\nConnection: close\r\n") && asked.ends_with("\r\n\r\n"), "{asked}");
    assert_eq!(page("/", &[b"HTTP/1.0 302 Found\r\n\r\n"]).0, Ok(()));
    let endless = b"X: yyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1000);
    assert_eq!(page("/", &[b"HTTP/1.1 200 OK\r\n", &endless]).0, Ok(()));
}

#[test]
fn a_page_that_isnt_there_fails_with_what_was_answered() {
    for (answer, words) in [
        (&b"HTTP/1.1 503 Service Unavailable\r\n\r\n"[..], "503 Service Unavailable"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "100"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "isn't HTTP/1: SSH-2.0"),
        (b"", "without an answer"),
        (b"HTTP/1.1 +20 OK\r\n\r\n", "isn't HTTP/1"),
    ] {
        let failure = page("/", &[answer]).0.unwrap_err();
        assert!(failure.contains(words), "{failure}");
    }
}

#[test]
fn what_would_be_more_than_a_path_is_never_sent() {
    for path in ["", "x", "/a b", "/\r\nHost: other", "/ü"] {
        assert!(
            run(Probe::new([local(free())], Some(path.to_owned()))).unwrap_err().contains("no path"),
            "{path:?}"
        );
    }
}

#[test]
fn a_page_that_is_wanted_comes_whole_or_not_at_all() {
    let whole = |pieces: &[&[u8]]| {
        let (page, asked) = answered(pieces, |address| Probe::page([address], "/metrics".to_owned()));
        assert!(asked.starts_with("GET /metrics HTTP/1.0\r\n"), "{asked}");
        page.map(|page| String::from_utf8(page).unwrap())
    };
    assert_eq!(whole(&[b"HTTP/1.0 200 OK\r\n\r\na 1\n", b"b 2\n"]).unwrap(), "a 1\nb 2\n");
    let long = "x".repeat(20_000);
    let sized = format!("HTTP/1.1 200 OK\r\ncontent-LENGTH: 20000\r\n\r\n{long}and more");
    assert_eq!(whole(&[sized.as_bytes()]).unwrap(), long);
    let failure = |pieces: &[&[u8]]| whole(pieces).unwrap_err();
    assert!(failure(&[b"HTTP/1.1 404 Not Found\r\n\r\n"]).contains("404"));
    assert!(failure(&[b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n\r\n"]).contains("302"));
    assert!(failure(&[b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]).contains("4 of 9"));
    assert!(failure(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]).contains("chunk"));
    assert!(failure(&[b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nx"]).contains("gzip"));
    assert!(failure(&[b"HTTP/1.1 200 OK\r\nContent-Le"]).contains("head"));
    let endless = vec![b'x'; spacecore::wire::MAX_PAGE + 1];
    assert!(failure(&[b"HTTP/1.1 200 OK\r\n\r\n", &endless]).contains("524288"));
    assert!(failure(&[&vec![b'x'; 100_000]]).contains("head"));
}
