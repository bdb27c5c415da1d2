//! A deployment's life, from the first apply to nothing.

use std::fs;
use std::time::{Duration, Instant};

use super::rig::Node;
use crate::support::{eventually, missing, page, skipped, text};

#[test]
fn what_is_applied_runs_is_changed_and_leaves_nothing() {
    let Some(mut node) = Node::new("what_is_applied_runs_is_changed_and_leaves_nothing") else { return };
    let said = node.apply("web", "", "", &[]);
    assert!(said.contains("web: made, revision 1") && said.contains("1 of 1 ready"), "{said}");
    let said = node.apply("web", "", "", &[]);
    assert!(said.contains("nothing changes"), "{said}");
    assert_eq!(node.does(&["logs", "web"]), "up\n");
    assert_eq!(text(&node.vimana(&["logs", "web"]).stderr), "well\n");

    let stats: serde_json::Value = serde_json::from_str(&node.does(&["stats", "web", "--json"])).unwrap();
    assert!(stats[0]["resident"].as_u64().unwrap() > 1 << 20, "a process of its own runs it: {stats}");
    let first = node.deployment("web").spacecores[0].clone();
    let said = node.apply("web", "env = { COLOUR = \"red\" }", "", &["--dry-run"]);
    assert!(
        said.contains("would be changed") && said.contains("env.COLOUR") && !said.contains("red"),
        "{said}"
    );
    assert_eq!(node.deployment("web").spacecores[0], first, "a dry run changes nothing");
    let said = node.apply("web", "env = { COLOUR = \"red\" }", "", &[]);
    assert!(said.contains("revision 2; each spacecore is replaced"), "{said}");
    assert_eq!(node.deployment("web").spacecores[0].revision, 2);

    let said = node.apply("web", "replicas = 3\nenv = { COLOUR = \"red\" }", "", &[]);
    assert!(said.contains("nothing is replaced") && said.contains("3 of 3 ready"), "{said}");
    let names: Vec<String> = node.deployment("web").spacecores.into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["web", "web-1", "web-2"]);
    assert_eq!(node.keepers().len(), 3);
    assert!(node.does(&["scale", "web", "1"]).contains("1 of 1 ready"));
    eventually("the surplus is gone", 20, || (node.keepers().len() == 1).then_some(()));

    assert!(node.does(&["stop", "web"]).contains("stopped"));
    assert!(node.keepers().is_empty());
    assert!(node.does(&["start", "web"]).contains("1 of 1 ready"));
    let before = node.deployment("web").spacecores[0].attempts;
    node.does(&["restart", "web"]);
    eventually("it was started again", 20, || {
        let one = node.deployment("web").spacecores[0].clone();
        (one.attempts > before && one.phase == "ready").then_some(())
    });
    assert!(node.does(&["rm", "web"]).contains("gone"));
    assert!(node.deployments().is_empty());
    let old = node.does(&["logs", "web"]);
    assert!(old.starts_with("up\nup\n"), "the log is kept");
    assert!(node.refuses(&["logs", "web", "--before"]).contains("before"));
    node.apply("web", "replicas = 2", "", &[]);
    assert_eq!(node.does(&["logs", "web"]), "up\n", "one that is made anew has a clean log");
    assert_eq!(node.does(&["logs", "web", "--before"]), old);
    node.does(&["rm", "web", "--logs"]);
    for log in [&["logs", "web"][..], &["logs", "web", "--before"], &["logs", "web-1"]] {
        node.refuses(log);
    }
    assert!(node.refuses(&["rm", "web", "--logs"]).contains("no deployment"));
    node.apply("web", "", "", &[]);
    node.does(&["rm", "web"]);
    node.does(&["rm", "web", "--logs"]);
    node.refuses(&["logs", "web"]);
    let events = node.does(&["events"]);
    for word in ["applied", "ready", "stopped", "removed"] {
        assert!(events.contains(word), "{word}: {events}");
    }
    node.clear();
}

#[test]
fn a_workload_that_ends_is_treated_as_the_manifest_says() {
    let Some(mut node) = Node::new("a_workload_that_ends_is_treated_as_the_manifest_says") else { return };
    node.apply("task", "args = [\"0\"]", "", &["-d"]);
    node.does(&["wait", "task", "--for", "ended"]);
    let task = node.deployment("task");
    assert_eq!((task.state.as_str(), task.spacecores[0].exit_code), ("completed", Some(0)));

    node.apply("bad", "args = [\"7\"]", "", &["-d"]);
    let waited = node.vimana(&["wait", "bad", "--for", "ended"]);
    assert_eq!(waited.status.code(), Some(7));
    let bad = node.deployment("bad");
    assert_eq!((bad.state.as_str(), bad.spacecores[0].last_end.as_deref()), ("failed", Some("exit code 7")));

    // The deadline is kept by a daemon that knew nothing of the workload's beginning either.
    node.apply("slow", "", "[spec.task]\ndeadline = \"3s\"", &["-d"]);
    node.does(&["wait", "slow", "--for", "ready"]);
    node.end(libc::SIGKILL);
    node.start();
    assert_eq!(node.vimana(&["wait", "slow", "--for", "ended"]).status.code(), Some(124));
    let slow: serde_json::Value = serde_json::from_str(&node.does(&["inspect", "slow"])).unwrap();
    let slow = &slow["spacecores"][0];
    assert_eq!(slow["last_end"], "took longer than its deadline, 3s");
    assert!(slow["ran_ms"].as_u64().unwrap() >= 3000 && slow["output"][0] == "up", "{slow}");

    let restart = "[spec.restart]\npolicy = \"on-failure\"\nbackoff = \"10ms\"\nmax_attempts = 3";
    node.apply("again", "args = [\"9\"]", restart, &["-d"]);
    assert_eq!(node.vimana(&["wait", "again", "--for", "ended"]).status.code(), Some(9));
    let again = node.deployment("again").spacecores[0].clone();
    assert_eq!((again.phase.as_str(), again.restarts, again.attempts), ("failed", 3, 4));
    node.clear();
}

#[test]
fn what_can_t_be_done_is_refused_with_what_would_be_right() {
    let Some(mut node) = Node::new("what_can_t_be_done_is_refused_with_what_would_be_right") else { return };
    node.apply("web", "", "", &[]);
    assert!(node.refuses(&["stop", "wbe"]).contains("did you mean \"web\""));
    assert!(node.refuses(&["logs", "nobody"]).contains("no spacecore"));
    assert!(node.refuses(&["exec", "nobody", "--", "true"]).contains("no spacecore"));
    assert!(node.refuses(&["scale", "web", "100000"]).contains("1000"));
    assert!(node.refuses(&["inspect", "../web"]).contains("no name"));
    let begun = std::time::Instant::now();
    assert!(!node.vimana(&["wait", "web", "--for", "ended", "--timeout", "1"]).status.success());
    assert!((1..5).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    node.does(&["stop", "web"]);
    assert!(node.refuses(&["restart", "web"]).contains("vimana start web"));
    node.does(&["start", "web"]);
    let precious = node.home.path().join("precious");
    fs::write(&precious, "kept").unwrap();
    let other = node.home.path().join("other");
    let elsewhere = ["node", "--data-dir", other.to_str().unwrap(), "--listen", precious.to_str().unwrap()];
    assert!(!node.vimana(&elsewhere).status.success());
    assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
    // The second replica of one would have the name of the other.
    node.apply("web-1", "", "", &[]);
    assert!(node.refuses(&["scale", "web", "2"]).contains("web-1"));
    let long = node.manifest(&"n".repeat(62), "replicas = 2", "");
    let said = node.refuses(&["apply", "-f", long.to_str().unwrap()]);
    assert!(said.contains("a name of 64 characters") && said.contains("with at most"), "{said}");
    let second = node.vimana(&["node"]);
    assert!(
        !second.status.success() && text(&second.stderr).contains("runs already"),
        "{}",
        text(&second.stderr)
    );
    node.end(libc::SIGTERM);
    assert!(node.refuses(&["ps"]).contains("start one with: vimana node"));
    node.start();
    node.clear();
}

#[test]
fn a_microvm_serves_is_looked_into_and_comes_back_when_its_monitor_is_killed() {
    let test = "a_microvm_serves_is_looked_into_and_comes_back_when_its_monitor_is_killed";
    let Some(mut node) = Node::new(test) else { return };
    let path = node.home.path().join("site.toml");
    let image = &node.home.image;
    let script = "echo serving; echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp";
    fs::write(
        &path,
        format!(
            "[metadata]\nname = \"site\"\n[spec.deployment]\nimage = \"{image}\"\nargs = [\"sh\", \"-c\", \"{script}\"]\n\
             [spec.resources]\nmemory = \"96Mi\"\n[spec.virtualization]\naccel = \"tcg\"\n\
             [[spec.checks]]\ntype = \"http\"\nport = 80\npath = \"/index.html\"\ninterval = \"1s\"\ntimeout = \"1s\"\ngrace_period = \"30s\"\n\
             [spec.restart]\npolicy = \"always\"\nbackoff = \"100ms\"\n"
        ),
    )
    .unwrap();
    node.does(&["apply", "-f", path.to_str().unwrap()]);
    assert_eq!(node.does(&["exec", "site", "--", "cat", "/tmp/index.html"]), "hello\n");
    let ended = node.vimana(&["exec", "site", "--", "sh", "-c", "exit 5"]);
    assert_eq!(ended.status.code(), Some(5));
    let nowhere = node.vimana(&["exec", "-w", "/none", "site", "--", "true"]);
    assert!(text(&nowhere.stderr).contains("the working directory \"/none\""), "{}", text(&nowhere.stderr));
    assert!(!nowhere.status.success());
    assert!(!node.vimana(&["exec", "site", "--", "ls", "/none"]).status.success(), "it was made");
    let stats: serde_json::Value = serde_json::from_str(&node.does(&["stats", "site", "--json"])).unwrap();
    assert!(stats[0]["guest_memory_total"].as_u64().unwrap() > 32 << 20, "{stats}");
    assert!(stats[0]["resident"].as_u64().unwrap() > 16 << 20, "{stats}");

    let before = node.deployment("site").spacecores[0].attempts;
    let monitor = node.home.processes().into_iter().find(|(_, name)| name.starts_with("qemu")).unwrap().0;
    crate::support::kill(u32::try_from(monitor).unwrap(), libc::SIGKILL);
    eventually("it was started again", 60, || {
        let one = node.deployment("site").spacecores[0].clone();
        (one.attempts > before && one.phase == "ready").then_some(())
    });
    node.clear();
}

#[test]
fn a_container_publishes_its_port_and_outlives_the_daemon() {
    let test = "a_container_publishes_its_port_and_outlives_the_daemon";
    if let Some(reason) = missing("Container") {
        return skipped(test, &reason);
    }
    let Some(mut node) = Node::new(test) else { return };
    let path = node.home.path().join("site.toml");
    let image = &node.home.image;
    let script = "echo hello > /tmp/index.html; exec httpd -f -p 18474 -h /tmp";
    fs::write(
        &path,
        format!(
            "[metadata]\nname = \"site\"\n[spec.deployment]\nimage = \"{image}\"\nargs = [\"sh\", \"-c\", \"{script}\"]\n\
             [spec.resources]\nmemory = \"32Mi\"\n[spec.virtualization]\ntype = \"Container\"\n\
             [spec.networking.inbound_ports]\nweb = 18474\n\
             [[spec.checks]]\ntype = \"tcp\"\nport = 18474\ninterval = \"1s\"\ntimeout = \"1s\"\ngrace_period = \"10s\"\n"
        ),
    )
    .unwrap();
    let said = node.does(&["apply", "-f", path.to_str().unwrap()]);
    assert!(said.contains("127.0.0.1:18474"), "{said}");
    let answers = || page(18_474, Duration::from_secs(5)).is_some_and(|page| page.contains("hello"));
    eventually("the page is there", 10, || answers().then_some(()));
    let keepers = node.keepers();
    let begun = Instant::now();
    node.end(libc::SIGKILL);
    assert!(answers(), "a killed daemon takes no spacecore along");
    node.start();
    assert!(begun.elapsed() < Duration::from_secs(10));
    eventually("the node knows of it", 10, || (node.deployment("site").ready == 1).then_some(()));
    assert_eq!(node.keepers(), keepers);
    assert!(answers());
    node.does(&["rm", "site"]);
    assert!(!answers());
    node.clear();
}

#[test]
fn a_deployment_under_load_gets_as_many_spacecores_as_it_may_have() {
    let test = "a_deployment_under_load_gets_as_many_spacecores_as_it_may_have";
    if let Some(reason) = missing("Container") {
        return skipped(test, &reason);
    }
    let Some(mut node) = Node::new(test) else { return };
    let path = node.home.path().join("busy.toml");
    let image = &node.home.image;
    let manifest = |metric: &str| {
        format!(
            "[metadata]\nname = \"busy\"\n[spec.deployment]\nimage = \"{image}\"\nargs = [\"sh\", \"-c\", \"while :; do :; done\"]\n\
             [spec.resources]\ncpu = \"100m\"\nmemory = \"16Mi\"\n[spec.virtualization]\ntype = \"Container\"\n\
             [spec.networking]\nnetwork_type = \"none\"\n[spec.scaling]\nmin = 1\nmax = 3\nmetric = \"{metric}\"\ntarget = 50\n"
        )
    };
    fs::write(&path, manifest("requests")).unwrap();
    assert!(node.refuses(&["apply", "-f", path.to_str().unwrap()]).contains("memory and workload can"));
    fs::write(&path, manifest("cpu")).unwrap();
    node.does(&["apply", "-f", path.to_str().unwrap()]);
    eventually("there are three", 60, || {
        let busy = node.deployment("busy");
        (busy.replicas == 3 && busy.ready == 3).then_some(())
    });
    let said = node.does(&["apply", "-f", path.to_str().unwrap()]);
    assert!(said.contains("nothing changes") && said.contains("3 of 3 ready"), "{said}");
    let events = node.does(&["events"]);
    assert!(events.contains("from 1 to ") && events.contains(": cpu at "), "{events}");
    node.clear();
}

#[test]
fn an_image_beside_the_manifest_is_found_by_a_node_in_another_folder() {
    let test = "an_image_beside_the_manifest_is_found_by_a_node_in_another_folder";
    let Some(mut node) = Node::new(test) else { return };
    fs::rename(node.manifest("web", "", ""), node.home.path().join("hac.toml")).unwrap();
    let applied = node.home.vimana(&["apply"]).current_dir(node.home.path()).output().unwrap();
    assert!(applied.status.success(), "{applied:?}");
    let image = node.deployment("web").image;
    assert!(image.starts_with("wasm:/"), "{image}");
    node.clear();
}

#[test]
fn a_manifest_that_was_moved_changes_nothing() {
    let Some(mut node) = Node::new("a_manifest_that_was_moved_changes_nothing") else { return };
    let path = node.manifest("web", "", "");
    node.does(&["apply", "-f", path.to_str().unwrap()]);
    let folder = node.home.path().join("elsewhere");
    fs::create_dir(&folder).unwrap();
    let moved = folder.join("renamed.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&moved, text.replace("wasm:sleeper.wasm", "wasm:../sleeper.wasm")).unwrap();
    let said = node.does(&["apply", "-f", moved.to_str().unwrap()]);
    assert!(said.contains("nothing changes"), "{said}");
    node.clear();
}
