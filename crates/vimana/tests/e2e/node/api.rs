//! The local API, as somebody meets it who doesn't use our command line.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::rig::{Node, curl};
use crate::support::eventually;

#[test]
fn errors_are_problem_documents_whatever_is_sent() {
    let Some(mut node) = Node::new("errors_are_problem_documents_whatever_is_sent") else { return };
    let toml = ["-X", "PUT", "-H", "Content-Type: application/toml", "--data-binary"];
    let put = |body: &str, path: &str| curl(&node, &[&toml[..], &[body]].concat(), path);
    let cases = [
        (curl(&node, &[], "/nowhere"), 404, "no-such-path"),
        (curl(&node, &["-X", "POST"], "/v1/deployments"), 405, "no-such-method"),
        (curl(&node, &[], "/v1/deployments/none"), 404, "unknown"),
        (curl(&node, &[], "/v1/deployments/..%2f..%2fetc"), 400, "name"),
        (curl(&node, &[], "/v1/spacecores/..%2fx/logs"), 400, "name"),
        (put("not toml", "/v1/deployments/web"), 422, "manifest"),
        (put("[spec.deployment]\nimage = \"a\"\nbogus = 1", "/v1/deployments/a"), 422, "manifest"),
        (put("[spec.deployment]\nimage = \"alpine\"", "/v1/deployments/web"), 422, "name"),
        (
            put(
                "[spec.deployment]\nimage = \"alpine\"\n[spec.virtualization]\nprovider = \"Firecracker\"",
                "/v1/deployments/alpine",
            ),
            422,
            "plan",
        ),
        (curl(&node, &["-X", "POST", "-d", "{}"], "/v1/deployments/web/scale"), 415, "body"),
        (
            curl(
                &node,
                &["-X", "POST", "-H", "Content-Type: application/json", "-d", "{\"replicas\": -1}"],
                "/v1/deployments/web/scale",
            ),
            422,
            "body",
        ),
        (curl(&node, &[], "/v1/events?after=x"), 400, "query"),
        (curl(&node, &[], "/v1/deployments/web/wait?for=godot"), 400, "query"),
        (curl(&node, &["-X", "POST"], "/v1/spacecores/web/keeper"), 426, "upgrade"),
    ];
    for ((status, body), wanted, kind) in cases {
        let problem: Value =
            serde_json::from_str(&body).unwrap_or_else(|_| panic!("{wanted} {kind}: {body:?}"));
        assert_eq!((status, problem["type"].as_str()), (wanted, Some(kind)), "{body}");
        assert_eq!(problem["status"], wanted);
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    }
    let large = node.home.path().join("large");
    std::fs::write(&large, vec![b'#'; 2 << 20]).unwrap();
    let (status, _) = put(&format!("@{}", large.display()), "/v1/deployments/web");
    assert_eq!(status, 413);
    node.clear();
}

#[test]
fn slow_and_half_open_clients_hold_nobody_up() {
    let Some(mut node) = Node::new("slow_and_half_open_clients_hold_nobody_up") else { return };
    let socket = node.home.path().join("node/node.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    // More than have a place, as many followers who never read, and as many who say nothing at all.
    let follow = b"GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut crowd: Vec<UnixStream> = (0..1100).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    // One that has made room can't be written to.
    crowd[..550].iter_mut().for_each(|one| _ = one.write_all(follow));
    node.does(&["ps"]);
    let mut clients: Vec<UnixStream> = (0..200).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let words: &[u8] = match number % 4 {
            0 => b"",
            1 => b"GET /v1/deploy",
            2 => b"\x16\x03\x01\x02\x00garbage\r\n\r\n",
            _ => b"PUT /v1/deployments/web HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n[spec",
        };
        client.write_all(words).unwrap();
    }
    let begun = Instant::now();
    node.does(&["ps"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let mut garbage = Vec::new();
    clients[2].set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = clients[2].read_to_end(&mut garbage);
    assert!(garbage.starts_with(b"HTTP/1.1 400"), "{garbage:?}");
    drop(clients);
    node.does(&["ps"]);
    node.clear();
}

#[test]
fn every_endpoint_is_described_and_logs_and_events_stream() {
    let Some(mut node) = Node::new("every_endpoint_is_described_and_logs_and_events_stream") else { return };
    let (status, body) = curl(&node, &[], "/v1/openapi.json");
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, document["openapi"].as_str()), (200, Some("3.1.0")));
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 12 && paths.contains_key("/v1/deployments/{name}"), "{paths:?}");

    node.apply("web", "", "", &[]);
    let log = node.home.path().join("followed");
    let file = std::fs::File::create(&log).unwrap();
    let mut follower = node.home.vimana(&["logs", "-f", "web"]).stdout(file).spawn().unwrap();
    node.does(&["restart", "web"]);
    eventually("the log is followed over a restart", 20, || {
        (std::fs::read_to_string(&log).unwrap() == "up\nup\n").then_some(())
    });
    node.does(&["rm", "web"]);
    assert!(follower.wait().unwrap().success(), "the log ends with the spacecore");
    let events = node.does(&["events", "--json"]);
    let numbers: Vec<u64> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["number"].as_u64().unwrap())
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    node.clear();
}
