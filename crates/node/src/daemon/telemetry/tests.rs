use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};

use super::*;
use crate::daemon::metrics::{Kind, Recorded};
use crate::log::Stream;

const PATIENCE: Duration = Duration::from_secs(20);

fn text(attribute: &KeyValue) -> (&str, &str) {
    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => (&attribute.key, text),
        other => panic!("{other:?}"),
    }
}

fn recorded(name: &str, kind: Kind, unit: Option<&str>, samples: &[(&str, &str)]) -> Recorded {
    let samples = samples.iter().map(|(name, value)| crate::daemon::metrics::Sample {
        name: (*name).to_owned(),
        labels: vec![("spacecore".to_owned(), "web \"1\"".to_owned())],
        value: (*value).to_owned(),
    });
    Recorded {
        name: name.to_owned(),
        kind,
        unit: unit.map(str::to_owned),
        help: "What it is.".to_owned(),
        samples: samples.collect(),
    }
}

#[test]
fn metrics_are_read_by_others_as_they_were_meant() {
    let families = [
        recorded("cpu_seconds", Kind::Counter, Some("seconds"), &[("cpu_seconds_total", "1.500")]),
        recorded(
            "memory_bytes",
            Kind::Gauge,
            Some("bytes"),
            &[("memory_bytes", "7"), ("memory_bytes", "NaN")],
        ),
        recorded(
            "latency",
            Kind::Histogram,
            None,
            &[("latency_bucket", "3"), ("latency_sum", "0.5"), ("latency_count", "3")],
        ),
    ];
    let (body, count) = encode::metrics(&Resource::node("1.2.3"), &families, 5, u64::MAX);
    assert_eq!(count, 5);
    let request: ExportMetricsServiceRequest = serde_json::from_slice(&body).unwrap();
    let resource = request.resource_metrics[0].resource.as_ref().unwrap();
    let about: Vec<_> = resource.attributes.iter().map(text).collect();
    assert_eq!(about[..2], [("service.name", "vimana"), ("service.version", "1.2.3")]);
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    let names: Vec<(&str, &str)> = metrics.iter().map(|one| (one.name.as_str(), one.unit.as_str())).collect();
    assert_eq!(
        names,
        [
            ("cpu_seconds_total", "s"),
            ("memory_bytes", "By"),
            ("latency_bucket", ""),
            ("latency_count", ""),
            ("latency_sum", "")
        ]
    );
    let Some(metric::Data::Sum(sum)) = &metrics[0].data else { panic!("{:?}", metrics[0]) };
    assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
    let point = &sum.data_points[0];
    assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (5, u64::MAX));
    assert_eq!(point.value, Some(number_data_point::Value::AsDouble(1.5)));
    assert_eq!(text(&point.attributes[0]), ("spacecore", "web \"1\""));
    let Some(metric::Data::Gauge(gauge)) = &metrics[1].data else { panic!("{:?}", metrics[1]) };
    assert_eq!(gauge.data_points.len(), 1, "what is no number is left out");
}

#[test]
fn logs_are_read_by_others_as_they_were_meant() {
    let line = |text: &str, stream| tail::Record {
        unix_ns: 1_700_000_000_123_456_789,
        stream,
        text: text.to_owned(),
    };
    let lines = [line("a \"quote\" and \u{1b}[31m", Stream::Stdout), line("", Stream::Stderr)];
    let body = encode::logs(&Resource::spacecore("1", "web", "web-1"), &lines, 9);
    let request: ExportLogsServiceRequest = serde_json::from_slice(&body).unwrap();
    let about: Vec<_> =
        request.resource_logs[0].resource.as_ref().unwrap().attributes.iter().map(text).collect();
    assert_eq!(about[..2], [("service.name", "web"), ("service.instance.id", "web-1")]);
    let records = &request.resource_logs[0].scope_logs[0].log_records;
    assert_eq!(
        (records[0].time_unix_nano, records[0].observed_time_unix_nano),
        (1_700_000_000_123_456_789, 9)
    );
    let body = records[0].body.as_ref().and_then(|body| body.value.clone());
    assert_eq!(body, Some(any_value::Value::StringValue("a \"quote\" and \u{1b}[31m".to_owned())));
    assert_eq!(text(&records[1].attributes[0]), ("log.iostream", "stderr"));
}

fn write_log(folder: &Path, lines: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(folder.join("log")).unwrap();
    file.write_all(lines.as_bytes()).unwrap();
}

/// What a collector was asked: the head, and the body.
type Asked = (String, String);

/// A collector that answers its requests one after another, the last answer again and again.
fn collector(answers: Vec<&'static str>) -> (String, Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/logs", listener.local_addr().unwrap());
    let (tell, asked) = channel();
    thread::spawn(move || {
        let mut answers = answers.into_iter().peekable();
        let mut last = "";
        for stream in listener.incoming().flatten() {
            last = answers.next().unwrap_or(last);
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut line) = (String::new(), String::new());
            while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                head.push_str(&std::mem::take(&mut line));
            }
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            if reader.read_exact(&mut body).is_err()
                || tell.send((head, String::from_utf8(body).unwrap())).is_err()
            {
                return;
            }
            let mut stream = stream;
            let _ = stream.write_all(last.as_bytes());
        }
    });
    (url, asked)
}

const TAKEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";

struct Rig {
    poster: Poster,
    counts: Arc<Counts>,
}

impl Rig {
    fn new(url: String, headers: Option<&Path>) -> Self {
        let counts = Arc::new(Counts::default());
        let backoff = Backoff::new(Duration::from_millis(10));
        let poster = Poster::start(url, Headers::of(headers), Arc::clone(&counts), backoff).unwrap();
        Self { poster, counts }
    }

    fn push(&self, body: &str, patience: Option<Duration>) -> oneshot::Receiver<()> {
        let (done, over) = oneshot::channel();
        self.poster.push(Job { body: body.as_bytes().to_vec(), count: 10, patience, done: Some(done) });
        over
    }

    fn counts(&self) -> (u64, u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.counts.sent), of(&self.counts.dropped), of(&self.counts.retries))
    }
}

#[test]
fn a_collector_that_is_busy_gets_the_same_again_in_order() {
    let (url, asked) = collector(vec![
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        // Breaks off.
        "HTTP/1.1 200 OK\r\nContent-Length: 20\r\nConnection: close\r\n\r\n{",
        TAKEN,
    ]);
    let rig = Rig::new(url, None);
    let begun = Instant::now();
    rig.push("one", None).blocking_recv().unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "it waits as long as it is asked to");
    rig.push("two", None).blocking_recv().unwrap();
    let bodies: Vec<String> = (0..5).map(|_| asked.recv_timeout(PATIENCE).unwrap().1).collect();
    assert_eq!(bodies, ["one", "one", "one", "one", "two"]);
    assert_eq!(rig.counts(), (20, 0, 3));
}

#[test]
fn what_a_collector_refuses_for_good_is_counted_and_the_next_goes_on() {
    let (url, asked) = collector(vec![
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 45\r\nConnection: close\r\n\r\n{\"partialSuccess\":{\"rejectedLogRecords\":\"3\"}}",
    ]);
    let rig = Rig::new(url, None);
    for body in ["one", "two", "three"] {
        rig.push(body, None).blocking_recv().unwrap();
    }
    assert_eq!(asked.try_iter().map(|(_, body)| body).collect::<Vec<_>>(), ["one", "two", "three"]);
    assert_eq!(rig.counts(), (7, 23, 0));
}

#[test]
fn a_collector_that_is_dead_costs_nobody_anything_but_what_is_dropped() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let rig = Rig::new(format!("http://{address}/v1/logs"), None);
    rig.push("old", Some(Duration::from_millis(100))).blocking_recv().unwrap();
    assert_eq!((rig.counts().0, rig.counts().1), (0, 10));
    // More than the queue has room for; whoever pushes never waits.
    let begun = Instant::now();
    (0..100).for_each(|_| rig.poster.push(Job { body: vec![0; 1000], count: 1, patience: None, done: None }));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(rig.counts().1 >= 10 + 83, "{:?}", rig.counts());
    // It comes to life.
    let listener = TcpListener::bind(address).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut first = String::new();
    BufReader::new(stream).read_line(&mut first).unwrap();
    assert_eq!(first, "POST /v1/logs HTTP/1.1\r\n");
}

#[test]
fn headers_come_from_a_file_that_nobody_else_reads_and_may_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("headers");
    let write = |text: &str, mode: u32| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let headers = Headers::of(Some(&path));
    assert!(matches!(headers.read(), Err(TelemetryError::HeadersFile { .. })));
    write("Authorization: Bearer secret-1\n", 0o644);
    assert!(headers.read().unwrap_err().to_string().contains("chmod 600"));
    write("# Of the collector.\nAuthorization: Bearer secret-1\n\nnonsense secret-2\n", 0o600);
    let error = headers.read().unwrap_err().to_string();
    assert!(error.contains("line 4") && !error.contains("secret-2"), "{error}");
    write("Authorization: Bearer secret-1\nX-Scope-OrgID: tenant", 0o600);
    let (url, asked) = collector(vec![TAKEN]);
    let rig = Rig::new(url, Some(&path));
    rig.push("one", None).blocking_recv().unwrap();
    let head = asked.recv_timeout(PATIENCE).unwrap().0.to_ascii_lowercase();
    assert!(
        head.contains("authorization: bearer secret-1\r\n") && head.contains("x-scope-orgid: tenant\r\n"),
        "{head}"
    );
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    write("Authorization: Bearer secret-3", 0o600);
    rig.push("two", None).blocking_recv().unwrap();
    assert!(asked.recv_timeout(PATIENCE).unwrap().0.contains("secret-3"));
}

#[test]
fn a_log_is_sent_once_over_restarts_and_its_parts_are_put_together() {
    let folder = tempfile::tempdir().unwrap();
    let texts = |lines: Option<Vec<tail::Record>>| -> Vec<String> {
        lines.unwrap_or_default().into_iter().map(|line| line.text).collect()
    };
    let mut tail = Tail::open(folder.path(), None).unwrap();
    assert_eq!(tail.next().unwrap(), None);
    // Three lines of the same moment, the last of which is torn in two.
    write_log(
        folder.path(),
        "2026-11-28T14:00:00.000000001Z stdout F one\n2026-11-28T14:00:00.000000001Z stdout F two\n\
        2026-11-28T14:00:00.000000001Z stdout P th\n2026-11-28T14:00:00.000000001Z stderr F err\n",
    );
    assert_eq!(texts(tail.next().unwrap()), ["one", "two", "err"]);
    assert_eq!(tail.cursor(), Cursor::default(), "nothing is delivered yet");
    tail.delivered();
    let cursor: Cursor = serde_json::from_str(&serde_json::to_string(&tail.cursor()).unwrap()).unwrap();
    write_log(
        folder.path(),
        "2026-11-28T14:00:00.000000001Z stdout F ree\n2026-11-28T14:00:01.000000000Z stdout F four\n",
    );
    assert_eq!(texts(tail.next().unwrap()), ["three", "four"]);
    // The next node begins behind what was delivered.
    let mut again = Tail::open(folder.path(), Some(cursor)).unwrap();
    assert_eq!(texts(again.next().unwrap()), ["ree", "four"]);
    assert_eq!(again.take_gaps(), 0);
}
