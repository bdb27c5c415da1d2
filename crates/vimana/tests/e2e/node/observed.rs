//! What workloads say of themselves, and what is noticed of them.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use node::daemon::view::{Event, StatsView};

use super::rig::{Node, curl};
use crate::support::{Killed, eventually, missing, skipped, text};

/// A node for containers, or nothing where there can be none.
fn node(test: &str) -> Option<Node> {
    if let Some(reason) = missing("Container") {
        skipped(test, &reason);
        return None;
    }
    Node::new(test)
}

/// Applies a container that runs a script in busybox.
fn apply(node: &Node, name: &str, script: &str, more: &str) {
    let path = node.home.path().join(format!("{name}.toml"));
    let manifest = format!(
        "[metadata]\nname = \"{name}\"\n[spec.deployment]\nimage = \"{}\"\ncommand = [\"sh\", \"-c\", {script:?}]\n\
         [spec.virtualization]\ntype = \"Container\"\n[spec.resources]\nmemory = \"64Mi\"\ncpu = \"100m\"\n[spec.networking]\n\
         network_type = \"none\"\n{more}\n",
        node.home.image
    );
    fs::write(&path, manifest).unwrap();
    node.does(&["apply", "-f", path.to_str().unwrap()]);
}

fn events(node: &Node, kind: &str) -> Vec<Event> {
    let all = node.does(&["events", "--json"]);
    let all = all.lines().map(|line| serde_json::from_str::<Event>(line).unwrap());
    all.filter(|event| event.kind == kind).collect()
}

/// A page as a workload may serve it, and what serves it.
const SERVES: &str = "mkdir -p /tmp/www && cd /tmp/www && printf '# HELP jobs_total Jobs.\n# TYPE jobs_total counter\n\
    jobs_total{queue=\"a\",spacecore=\"liar\"} 41\n# TYPE temperature gauge\ntemperature 36.6\nvimana_node_up 0\n' > metrics \
    && exec busybox httpd -f -p 127.0.0.1:9100 -h /tmp/www";

/// Passes connections to a port of loopback on to the node's socket, as Prometheus speaks TCP alone.
fn bridge(node: &Node) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (port, socket) = (listener.local_addr().unwrap().port(), node.home.path().join("node/node.sock"));
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = UnixStream::connect(&socket) else { continue };
            thread::spawn(move || pass(client, server));
        }
    });
    port
}

fn pass(client: TcpStream, server: UnixStream) {
    let (Ok(mut from), Ok(mut to)) = (client.try_clone(), server.try_clone()) else { return };
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let (mut from, mut to) = (server, client);
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A Prometheus that scrapes a port of loopback each second.
fn prometheus(folder: PathBuf, target: u16) -> (Killed, u16) {
    let config = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n- job_name: node\n  static_configs:\n  - targets: ['127.0.0.1:{target}']\n"
    );
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("prometheus.yml"), config).unwrap();
    let port = free_port();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.join("said")).unwrap())
        .spawn()
        .unwrap();
    (Killed(child), port)
}

/// What Prometheus answers to a question: labels and value of each series.
fn query(port: u16, question: &str) -> Vec<(serde_json::Value, String)> {
    let output = Command::new("curl")
        .args(["-s", "--max-time", "5", "-G", "--data-urlencode", &format!("query={question}")])
        .arg(format!("http://127.0.0.1:{port}/api/v1/query"))
        .output()
        .unwrap();
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else { return Vec::new() };
    let all = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    all.into_iter()
        .map(|one| (one["metric"].clone(), one["value"][1].as_str().unwrap_or("").to_owned()))
        .collect()
}

#[test]
fn prometheus_reads_what_a_workload_says_of_itself_and_whose_it_is() {
    let test = "prometheus_reads_what_a_workload_says_of_itself_and_whose_it_is";
    let Some(mut node) = node(test) else { return };
    let more = "[spec.observability]\nmetrics = { port = 9100, interval = \"1s\" }\n[spec.scaling]\nmax = 2\n\
                metric = \"workload\"\nseries = \"jobs_total\"\ntarget = 30";
    apply(&node, "web", SERVES, more);
    let shown = eventually("the page is read", 30, || {
        let (_, shown) = curl(&node, &[], "/metrics");
        shown.contains("\nvimana_workload_up{deployment=\"web\",spacecore=\"web\"} 1\n").then_some(shown)
    });
    for line in [
        "# TYPE jobs counter",
        "# HELP jobs Jobs.",
        "jobs_total{deployment=\"web\",spacecore=\"web\",queue=\"a\",exported_spacecore=\"liar\"} 41",
        "temperature{deployment=\"web\",spacecore=\"web\"} 36.6",
        "workload_vimana_node_up{deployment=\"web\",spacecore=\"web\"} 0",
        "vimana_node_up 1",
        "vimana_workload_series{deployment=\"web\",spacecore=\"web\"} 3",
        "vimana_workload_dropped_series{deployment=\"web\",spacecore=\"web\"} 0",
    ] {
        assert!(shown.lines().any(|found| found == line), "{line}: {shown}");
    }

    if Command::new("promtool").arg("--version").output().is_err() {
        skipped(test, "prometheus isn't installed");
        return node.clear();
    }
    let (_, older) = curl(&node, &["-H", "Accept: text/plain"], "/metrics");
    let mut judge = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    judge.stdin.take().unwrap().write_all(older.as_bytes()).unwrap();
    let judged = judge.wait_with_output().unwrap();
    let said = format!("{}{}", text(&judged.stdout), text(&judged.stderr));
    // 3 is what it says of names that it would choose otherwise: the workload's are its own.
    let about_us = said.lines().filter(|line| line.starts_with("vimana_")).collect::<Vec<_>>();
    assert!(matches!(judged.status.code(), Some(0 | 3)) && about_us.is_empty(), "{said}\n{older}");

    let (scraper, port) = prometheus(node.home.path().join("prometheus"), bridge(&node));
    let up = eventually("Prometheus has scraped", 60, || {
        let up = query(port, "jobs_total{spacecore=\"web\"}");
        (!up.is_empty()).then_some(up)
    });
    assert_eq!(up[0].1, "41");
    assert_eq!((&up[0].0["deployment"], &up[0].0["exported_spacecore"]), (&"web".into(), &"liar".into()));
    assert_eq!(query(port, "up")[0].1, "1");
    assert!(query(port, "vimana_spacecores{phase=\"ready\"}")[0].1.parse::<u32>().unwrap() >= 1);
    drop(scraper);

    // 41 jobs are more than the 30 that one replica is to have.
    eventually("there are two", 40, || (node.deployment("web").ready == 2).then_some(()));
    let scaled = events(&node, "scaled");
    assert!(scaled[0].text.contains("from 1 to 2: jobs_total at 41"), "{scaled:?}");

    // A page that is gone is not shown as if it still were.
    node.does(&["exec", "web", "--", "rm", "/tmp/www/metrics"]);
    eventually("it is noticed", 30, || {
        let (_, shown) = curl(&node, &[], "/metrics");
        let is_down = shown.contains("vimana_workload_up{deployment=\"web\",spacecore=\"web\"} 0");
        (is_down && !shown.contains("jobs_total{deployment=\"web\",spacecore=\"web\"")).then_some(())
    });
    node.clear();
}

#[test]
fn a_workload_that_begins_to_burn_is_noticed_with_the_numbers_and_stopped_where_that_is_asked_for() {
    let Some(mut node) = node(
        "a_workload_that_begins_to_burn_is_noticed_with_the_numbers_and_stopped_where_that_is_asked_for",
    ) else {
        return;
    };
    fs::write(node.home.path().join("node.toml"), "[anomalies]\nround = \"1s\"\nwarm_up = 5\n").unwrap();
    node.end(libc::SIGTERM);
    node.start();
    let burns = "trap 'exit 0' TERM; until test -e /tmp/go; do sleep 0.2; done; while :; do :; done";
    let one = "[spec.observability]\nanomalies";
    apply(&node, "watched", burns, &format!("{one} = \"alert\""));
    apply(&node, "stopped", burns, &format!("{one} = \"stop\""));
    apply(&node, "paused", burns, &format!("{one} = \"pause\""));
    let names = ["watched", "stopped", "paused"];
    // Whatever comes before there is a usual becomes the usual: until then nobody may burn.
    eventually("what is usual is known", 60, || {
        let (_, shown) = curl(&node, &[], "/metrics");
        let rounds = shown.lines().filter_map(|line| line.strip_prefix("vimana_spacecore_baseline_rounds{"));
        let known = rounds.filter(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap() >= 5);
        (known.count() == names.len()).then_some(())
    });
    assert_eq!(events(&node, "anomaly").len(), 0);
    for name in names {
        node.does(&["exec", name, "--", "touch", "/tmp/go"]);
    }
    let found = eventually("all are noticed", 60, || {
        let found = events(&node, "anomaly");
        names
            .iter()
            .all(|name| found.iter().any(|event| event.spacecore.as_deref() == Some(name)))
            .then_some(found)
    });
    for event in &found {
        assert!(event.text.starts_with("cpu: CPU of its share: "), "{event:?}");
        assert!(event.evidence["value"] > event.evidence["alarm_above"], "{event:?}");
    }
    let (_, shown) = curl(&node, &[], "/metrics");
    let line =
        "vimana_spacecore_anomalies_total{deployment=\"watched\",spacecore=\"watched\",rule=\"cpu\"} 1";
    assert!(shown.lines().any(|found| found == line), "{shown}");
    eventually("one stands still for good", 30, || {
        (node.deployment("stopped").state == "stopped").then_some(())
    });
    // The guest of one that stands still says nothing.
    assert_eq!(events(&node, "paused").len(), 1);
    assert_eq!(node.deployment("paused").spacecores[0].phase, "ready");
    let (_, shown) = curl(&node, &[], "/metrics");
    assert!(shown.contains("\nvimana_spacecores_silent 1\n"), "{shown}");
    let stats: Vec<StatsView> = serde_json::from_str(&node.does(&["stats", "watched", "--json"])).unwrap();
    assert!(stats[0].cpu_us > 0 && stats[0].seen_sent.is_none(), "{stats:?}");
    node.clear();
}
