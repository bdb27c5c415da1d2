//! What is kept when others want all that the machine has.

use std::fs;
use std::time::{Duration, Instant};

use super::rig::Node;
use crate::support::{eventually, missing, skipped};

/// Computes for ever.
const COMPUTES: &str = "while :; do :; done";
/// Burns processors, memory, disk and network at once, and gives back what it takes of memory, to take it again.
const BURNS: &str = "for i in 1 2 3 4; do while :; do :; done & done; \
    while :; do dd if=/dev/zero of=/dev/null bs=48M count=20; done 2>/dev/null & \
    while :; do dd if=/dev/zero of=/tmp/full bs=1M count=32 conv=fsync; done 2>/dev/null & \
    while :; do dd if=/dev/zero bs=1400 count=5000 | nc -u -w 1 192.0.2.1 9; done 2>/dev/null & \
    wait";
/// For how long it is measured.
const WINDOW: Duration = Duration::from_secs(3);

/// Applies a container that runs a script.
fn apply(node: &Node, name: &str, class: &str, cpu: usize, network: &str, script: &str) {
    let path = node.home.path().join(format!("{name}.toml"));
    let image = &node.home.image;
    let text = format!(
        "[metadata]\nname = \"{name}\"\n[spec.deployment]\nimage = \"{image}\"\nargs = [\"sh\", \"-c\", \"{script}\"]\n\
         [spec.resources]\ncpu = {cpu}\nmemory = \"128Mi\"\nclass = \"{class}\"\n\
         [spec.virtualization]\ntype = \"Container\"\n[spec.networking]\nnetwork_type = \"{network}\"\n"
    );
    fs::write(&path, text).unwrap();
    node.does(&["apply", "-f", path.to_str().unwrap()]);
}

/// What part of one processor a spacecore has, as the machine sees it.
fn share(node: &Node, name: &str) -> f64 {
    let used = || {
        let stats: serde_json::Value = serde_json::from_str(&node.does(&["stats", name, "--json"])).unwrap();
        (stats[0]["cpu_us"].as_u64().unwrap(), Instant::now())
    };
    let (before, begun) = used();
    std::thread::sleep(WINDOW);
    let (after, ended) = used();
    Duration::from_micros(after - before).as_secs_f64() / (ended - begun).as_secs_f64()
}

#[test]
fn what_is_guaranteed_keeps_nine_tenths_of_its_share_beside_one_that_burns_everything() {
    let test = "what_is_guaranteed_keeps_nine_tenths_of_its_share_beside_one_that_burns_everything";
    let reason = missing("Container").or_else(|| hypercore::cgroup::usable().err().map(|no| no.to_string()));
    if let Some(reason) = reason {
        return skipped(test, &reason);
    }
    let Some(mut node) = Node::new(test) else { return };
    let processors = std::thread::available_parallelism().unwrap().get();
    apply(&node, "burner", "burstable", processors, "public", BURNS);
    // Whether it takes what it could is shown by what it takes away.
    eventually("it burns", 20, || (share(&node, "burner") > 0.1).then_some(()));
    apply(&node, "sharing", "burstable", 1, "none", COMPUTES);
    let sharing = share(&node, "sharing");
    node.does(&["rm", "sharing"]);
    apply(&node, "guaranteed", "guaranteed", 1, "none", COMPUTES);
    let guaranteed = share(&node, "guaranteed");
    eprintln!("beside the burner: guaranteed {guaranteed:.2}, sharing {sharing:.2} of a processor");
    assert!(guaranteed >= 0.9, "it had {guaranteed:.2} of a processor");
    assert!(sharing < 0.9, "the burner takes nothing away, so that nothing was shown: {sharing:.2}");
    node.clear();
}

#[test]
fn short_of_memory_the_node_evicts_who_is_burstable_and_lets_it_come_back() {
    let test = "short_of_memory_the_node_evicts_who_is_burstable_and_lets_it_come_back";
    let Some(mut node) = Node::new(test) else { return };
    // More than can ever be available.
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = meminfo.split_whitespace().nth(1).unwrap().parse().unwrap();
    fs::write(node.home.path().join("node.toml"), format!("[offer]\nevict_below = \"{total}Ki\"\n")).unwrap();
    node.end(libc::SIGTERM);
    node.start();
    let path = node.manifest("firm", "", "");
    let text = fs::read_to_string(&path).unwrap().replace("memory =", "class = \"guaranteed\"\nmemory =");
    fs::write(&path, text).unwrap();
    node.does(&["apply", "-f", path.to_str().unwrap()]);
    node.apply("loose", "", "[spec.restart]\npolicy = \"never\"\nbackoff = \"100ms\"", &[]);
    let evicted = eventually("it is evicted", 30, || {
        let events = node.does(&["events"]);
        events
            .lines()
            .find(|line| line.contains("evicted") && line.contains("short of memory"))
            .map(str::to_owned)
    });
    assert!(evicted.contains("loose") && evicted.contains("it used most"), "{evicted}");
    eventually("it comes back", 20, || (node.deployment("loose").spacecores[0].attempts > 1).then_some(()));
    let firm = node.deployment("firm").spacecores[0].clone();
    assert_eq!((firm.phase.as_str(), firm.attempts), ("ready", 1));
    node.clear();
}
