//! What a collector gets of a node.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::rig::{Node, curl};
use crate::support::eventually;

/// What a collector was sent: the path, whether it had the right header, and what it was.
type Sent = Arc<Mutex<Vec<(String, bool, Value)>>>;

/// A collector that first is busy, then takes everything.
fn collector() -> (u16, Sent) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (port, sent) = (listener.local_addr().unwrap().port(), Sent::default());
    let all = Arc::clone(&sent);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let mut reader = BufReader::new(stream);
            let (mut head, mut line) = (String::new(), String::new());
            while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                head.push_str(&std::mem::take(&mut line));
            }
            let lower = head.to_ascii_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            if reader.read_exact(&mut body).is_err() {
                continue;
            }
            let status = if number < 2 { "503 Service Unavailable" } else { "200 OK" };
            if number >= 2 {
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let body = serde_json::from_slice(&body).unwrap();
                all.lock().unwrap().push((path, head.contains("Bearer of-the-test"), body));
            }
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
            let _ = reader.into_inner().write_all(answer.as_bytes());
        }
    });
    (port, sent)
}

/// The lines that were sent, in their order.
fn lines(sent: &Sent) -> Vec<String> {
    let sent = sent.lock().unwrap();
    let logs = sent.iter().filter(|(path, ..)| path == "/v1/logs");
    let records = logs.flat_map(|(.., body)| {
        let of = &body["resourceLogs"][0];
        assert_eq!(of["resource"]["attributes"][0]["value"]["stringValue"], "told");
        of["scopeLogs"][0]["logRecords"].as_array().unwrap()
    });
    records.map(|record| record["body"]["stringValue"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_collector_gets_metrics_and_the_logs_that_are_asked_for_once_over_restarts() {
    let test = "a_collector_gets_metrics_and_the_logs_that_are_asked_for_once_over_restarts";
    let Some(mut node) = Node::new(test) else { return };
    let (port, sent) = collector();
    let headers = node.home.path().join("headers");
    fs::write(&headers, "Authorization: Bearer of-the-test\n").unwrap();
    fs::set_permissions(&headers, fs::Permissions::from_mode(0o600)).unwrap();
    let settings = format!(
        "[telemetry]\nendpoint = \"http://127.0.0.1:{port}\"\ninterval = \"1s\"\nheaders_file = {headers:?}\n"
    );
    fs::write(node.home.path().join("node.toml"), settings).unwrap();
    node.end(libc::SIGTERM);
    node.start();
    node.apply("told", "", "[spec.observability]\nlogging = \"Loki\"", &[]);
    node.apply("silent", "", "", &[]);
    eventually("both lines are sent", 30, || (lines(&sent).len() >= 2).then_some(()));
    let metrics = eventually("metrics of both are sent", 30, || {
        let sent = sent.lock().unwrap();
        let all = sent.iter().rev().filter(|(path, ..)| path == "/v1/metrics");
        all.map(|(.., body)| body.to_string())
            .find(|text| text.contains("\"silent\"") && text.contains("\"told\""))
    });
    assert!(metrics.contains("vimana_spacecore_cpu_seconds_total"), "{metrics}");
    let (_, shown) = curl(&node, &[], "/metrics");
    let is_counted = |line: &str| line.starts_with("vimana_telemetry_sent_total{signal=\"logs\"} 2");
    assert!(shown.lines().any(is_counted), "{shown}");

    // What was sent is not sent again; what comes after is.
    node.end(libc::SIGKILL);
    node.start();
    node.does(&["restart", "told"]);
    eventually("the next attempt's lines are sent", 30, || (lines(&sent).len() >= 4).then_some(()));
    let mut all = lines(&sent);
    all.sort();
    assert_eq!(all, ["up", "up", "well", "well"]);
    assert!(sent.lock().unwrap().iter().all(|(_, authorized, _)| *authorized));

    // Somebody else could read it: then the node doesn't start, and says why.
    node.does(&["rm", "told"]);
    node.does(&["rm", "silent"]);
    node.end(libc::SIGTERM);
    fs::set_permissions(&headers, fs::Permissions::from_mode(0o644)).unwrap();
    let said = node.refuses(&["node"]);
    assert!(said.contains("chmod 600") && !said.contains("of-the-test"), "{said}");
    node.home.assert_nothing_is_left();
}
