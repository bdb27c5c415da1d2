//! Replicas share a port, and whoever calls it gets an answer, whatever is done to them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::rig::Node;
use crate::leaks::Random;
use crate::support::{eventually, kill, missing, page, skipped};

/// Somebody who calls again and again, each time over a new connection.
struct Caller {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// What a caller got.
#[derive(Debug, Default)]
struct Seen {
    answers: BTreeMap<String, u64>,
    failures: Vec<String>,
    longest: Duration,
}

impl Caller {
    fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !told.load(Ordering::Relaxed) {
                let begun = Instant::now();
                match call(port) {
                    Ok(word) => *seen.answers.entry(word).or_default() += 1,
                    Err(reason) => seen.failures.push(format!("{reason} after {:?}", begun.elapsed())),
                }
                seen.longest = seen.longest.max(begun.elapsed());
            }
            seen
        });
        Self { stop, thread }
    }

    fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// One request; the word on the page.
fn call(port: u16) -> Result<String, String> {
    call_for("/", port)
}

fn call_for(path: &str, port: u16) -> Result<String, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(70))).unwrap();
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| format!("write: {error}"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| format!("read: {error}"))?;
    match answer.strip_prefix("HTTP/1.0 200").or_else(|| answer.strip_prefix("HTTP/1.1 200")) {
        Some(page) => Ok(page.lines().last().unwrap_or_default().to_owned()),
        None => Err(format!("the answer {answer:?}")),
    }
}

/// A web server in containers; `word` is on its page, and it listens on `listens`.
fn apply(node: &Node, port: u16, replicas: u32, word: &str, listens: u16) -> std::process::Output {
    let path = node.home.path().join("site.toml");
    let image = &node.home.image;
    let slow = "mkdir /tmp/cgi-bin; (echo '#!/bin/sh'; echo 'echo; sleep 2; echo slow') > /tmp/cgi-bin/slow; \
                chmod +x /tmp/cgi-bin/slow";
    let script = format!("{slow}; echo {word} > /tmp/index.html; exec httpd -f -p {listens} -h /tmp");
    let manifest = format!(
        "[metadata]\nname = \"site\"\n[spec.deployment]\nimage = \"{image}\"\nreplicas = {replicas}\n\
         args = [\"sh\", \"-c\", \"{script}\"]\n[spec.resources]\nmemory = \"32Mi\"\n\
         [spec.virtualization]\ntype = \"Container\"\n[spec.networking.inbound_ports]\nweb = {port}\n\
         [spec.update]\nauto_revert = true\n\
         [spec.restart]\npolicy = \"on-failure\"\nbackoff = \"10ms\"\nmax_attempts = 1\n\
         [[spec.checks]]\ntype = \"tcp\"\nport = {port}\ninterval = \"500ms\"\ntimeout = \"500ms\"\n\
         grace_period = \"3s\"\nretries = 2\n"
    );
    std::fs::write(&path, manifest).unwrap();
    node.vimana(&["apply", "-f", path.to_str().unwrap()])
}

fn applied(node: &Node, port: u16, replicas: u32, word: &str) -> String {
    let output = apply(node, port, replicas, word, port);
    let said = format!("{}{}", crate::support::text(&output.stdout), crate::support::text(&output.stderr));
    assert!(output.status.success(), "{said}\n{}", node.complaints());
    said
}

fn all_ready(node: &Node, replicas: u32) {
    eventually("all are ready", 60, || {
        let site = node.deployment("site");
        (site.ready == replicas && site.spacecores.len() == replicas as usize).then_some(())
    });
}

/// A node, where containers can run here.
fn node(test: &str) -> Option<Node> {
    if let Some(reason) = missing("Container") {
        skipped(test, &reason);
        return None;
    }
    Node::new(test)
}

/// Everything that may be done to a deployment, while others call it.
fn changed_under_calls(node: &mut Node, port: u16, replicas: u32) {
    let said = applied(node, port, replicas, "one");
    assert_eq!(said.matches(&format!("127.0.0.1:{port}")).count(), 1, "{said}");
    let callers = [Caller::start(port), Caller::start(port)];
    std::thread::sleep(Duration::from_millis(500));

    applied(node, port, replicas, "two");
    assert_eq!(call(port).as_deref(), Ok("two"), "the answers change");
    node.does(&["restart", "site"]);
    all_ready(node, replicas);

    // A revision whose server listens elsewhere, so that its check never passes.
    apply(node, port, replicas, "bad", 81);
    let trouble = eventually("it is reverted", 60, || {
        let site = node.deployment("site");
        site.trouble.filter(|_| site.ready == replicas)
    });
    assert!(trouble.contains("failed") || trouble.contains("restarted"), "{trouble}");
    all_ready(node, replicas);

    for count in [if replicas == 1 { 3 } else { 1 }, replicas] {
        // It says that the last update was taken back, which is as true as before.
        node.vimana(&["scale", "site", &count.to_string()]);
        all_ready(node, count);
    }
    let keepers = node.keepers();
    node.end(libc::SIGKILL);
    std::thread::sleep(Duration::from_millis(300));
    node.start();
    all_ready(node, replicas);
    assert_eq!(node.keepers(), keepers);
    std::thread::sleep(Duration::from_millis(300));
    let seen: Vec<Seen> = callers.into_iter().map(Caller::stop).collect();
    eprintln!("{replicas} replicas: {seen:?}");
    for seen in &seen {
        assert!(seen.failures.is_empty(), "{seen:?}");
        assert!(seen.answers["one"] > 0 && seen.answers["two"] > 0, "{seen:?}");
        assert_eq!(seen.answers.len(), 2, "{seen:?}");
    }
}

/// Removes it, and sees that nobody listens any more.
fn removed(mut node: Node, port: u16) {
    node.does(&["rm", "site"]);
    eventually("nobody listens", 2, || TcpStream::connect(("127.0.0.1", port)).is_err().then_some(()));
    eventually("the balancer is gone", 2, || node.balancers().is_empty().then_some(()));
    node.clear();
}

#[test]
fn no_call_fails_while_three_replicas_are_changed() {
    let Some(mut node) = node("no_call_fails_while_three_replicas_are_changed") else { return };
    changed_under_calls(&mut node, 18_481, 3);
    removed(node, 18_481);
}

#[test]
fn no_call_fails_while_the_only_replica_is_changed() {
    let Some(mut node) = node("no_call_fails_while_the_only_replica_is_changed") else { return };
    changed_under_calls(&mut node, 18_482, 1);
    removed(node, 18_482);
}

#[test]
fn a_killed_replica_takes_its_own_calls_along_and_a_killed_balancer_is_replaced() {
    let test = "a_killed_replica_takes_its_own_calls_along_and_a_killed_balancer_is_replaced";
    let Some(mut node) = node(test) else { return };
    let port = 18_483;
    applied(&node, port, 3, "one");
    let callers = [Caller::start(port), Caller::start(port)];
    std::thread::sleep(Duration::from_millis(300));
    kill(u32::try_from(node.keepers()[0]).unwrap(), libc::SIGKILL);
    eventually("it is noticed", 20, || {
        node.deployment("site").spacecores.iter().any(|one| one.restarts > 0).then_some(())
    });
    all_ready(&node, 3);
    let failures: usize = callers.into_iter().map(|caller| caller.stop().failures.len()).sum();
    assert!(failures <= 2, "{failures} failed, of which two can have been on their way");

    for round in 0..3 {
        if round == 2 {
            // The next node hasn't bound the port itself.
            node.end(libc::SIGKILL);
            node.start();
            all_ready(&node, 3);
        }
        let before = node.balancers();
        assert_eq!(before.len(), 1);
        kill(u32::try_from(before[0]).unwrap(), libc::SIGKILL);
        let begun = Instant::now();
        eventually("another one answers", 1, || {
            let is_other = node.balancers().iter().any(|pid| !before.contains(pid));
            (is_other && page(port, Duration::from_secs(1)).is_some_and(|page| page.contains("one")))
                .then_some(())
        });
        eprintln!("{test}: answered again {:?} after the balancer was killed", begun.elapsed());
    }
    eprintln!("{test}: the balancer's memory: {}", memory(node.balancers()[0]));
    removed(node, port);
}

/// What a process has in memory, of which what it shares with nobody is its own.
fn memory(pid: i32) -> String {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let wanted = ["Rss:", "Pss:", "Private_Dirty:"];
    let lines = rollup.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_port_that_can_t_be_had_is_refused_with_who_has_it() {
    let Some(mut node) = Node::new("a_port_that_can_t_be_had_is_refused_with_who_has_it") else { return };
    let port = 18_484;
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let output = apply(&node, port, 2, "one", port);
    let said = crate::support::text(&output.stderr);
    assert!(!output.status.success() && said.contains("18484"), "{said}");
    assert!(said.contains(&format!("(process {})", std::process::id())), "{said}");
    assert!(node.deployments().is_empty() && node.balancers().is_empty(), "nothing is half done");
    drop(taken);
    node.clear();
}

#[test]
fn a_call_on_its_way_is_answered_before_its_replica_stops() {
    let Some(mut node) = node("a_call_on_its_way_is_answered_before_its_replica_stops") else { return };
    let port = 18_485;
    applied(&node, port, 1, "one");
    let begun = Instant::now();
    let slow = std::thread::spawn(move || call_for("/cgi-bin/slow", port));
    std::thread::sleep(Duration::from_millis(500));
    node.does(&["restart", "site"]);
    std::thread::sleep(Duration::from_millis(200));
    // The drain is taken up again by the next node.
    node.end(libc::SIGKILL);
    node.start();
    assert_eq!(slow.join().unwrap().as_deref(), Ok("slow"));
    assert_eq!(call(port).as_deref(), Ok("one"), "it was held until the replica was there again");
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "the stop followed the last call: {:?}",
        begun.elapsed()
    );
    removed(node, port);
}

#[test]
fn ports_are_there_while_the_deployment_runs_and_follow_its_manifest() {
    let test = "ports_are_there_while_the_deployment_runs_and_follow_its_manifest";
    let Some(node) = node(test) else { return };
    let (old, new) = (18_486, 18_487);
    let is_refused = |port: u16| TcpStream::connect(("127.0.0.1", port)).is_err();
    applied(&node, old, 2, "one");
    let said = crate::support::text(&{
        let path = node.home.path().join("other.toml");
        let manifest = std::fs::read_to_string(node.home.path().join("site.toml")).unwrap();
        std::fs::write(&path, manifest.replace("name = \"site\"", "name = \"other\"")).unwrap();
        node.vimana(&["apply", "-f", path.to_str().unwrap()]).stderr
    });
    assert!(said.contains("the deployment site has it"), "{said}");
    node.does(&["stop", "site"]);
    eventually("the port is free", 2, || is_refused(old).then_some(()));
    eventually("the balancer is gone", 2, || node.balancers().is_empty().then_some(()));
    node.does(&["start", "site"]);
    assert_eq!(call(old).as_deref(), Ok("one"));
    applied(&node, new, 2, "two");
    assert_eq!(call(new).as_deref(), Ok("two"));
    eventually("the old port is free", 2, || is_refused(old).then_some(()));
    let ports = node.deployment("site").ports;
    assert_eq!(ports, [format!("127.0.0.1:{new} -> {new}/tcp")]);
    node.does(&["scale", "site", "0"]);
    assert!(call(new).is_err(), "nobody comes any more, so that nobody is held");
    removed(node, new);
}

#[test]
fn a_deployment_has_one_balancer_whenever_the_daemon_was_killed() {
    let test = "a_deployment_has_one_balancer_whenever_the_daemon_was_killed";
    let Some(mut node) = node(test) else { return };
    let port = 18_488;
    applied(&node, port, 1, "one");
    let path = node.home.path().join("site.toml");
    let seed = 20_261_129;
    let mut random = Random(seed);
    for round in 0..30 {
        let args = match random.below(5) {
            0 => vec!["rm", "-d", "site"],
            1 => vec!["stop", "-d", "site"],
            2 => vec!["start", "-d", "site"],
            _ => vec!["apply", "-d", "-f", path.to_str().unwrap()],
        };
        let client = node.home.vimana(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let moment = Duration::from_micros(random.below(300_000));
        std::thread::sleep(moment);
        node.end(libc::SIGKILL);
        client.unwrap().wait().unwrap();
        eprintln!("{test}: seed {seed}, round {round}: {args:?} killed after {moment:?}");
        node.start();
        eventually("no two balance", 5, || (node.balancers().len() <= 1).then_some(()));
    }
    eventually("it can be applied", 20, || {
        node.vimana(&["apply", "-d", "-f", path.to_str().unwrap()]).status.success().then_some(())
    });
    node.vimana(&["start", "site"]);
    all_ready(&node, 1);
    assert_eq!(call(port).as_deref(), Ok("one"));
    assert_eq!(node.balancers().len(), 1);
    removed(node, port);
}
