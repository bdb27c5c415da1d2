//! What doesn't fit is refused, before anything of it is done.

use std::fs;

use node::daemon::view::NodeView;
use serde_json::Value;

use super::rig::{Node, curl};

fn shown(node: &Node) -> NodeView {
    serde_json::from_str(&node.does(&["inventory", "--json"])).unwrap()
}

/// Has the node start again with these settings.
fn settings(node: &mut Node, text: &str) {
    fs::write(node.home.path().join("node.toml"), text).unwrap();
    node.end(libc::SIGTERM);
    node.start();
}

#[test]
fn what_does_not_fit_is_refused_with_the_numbers_and_changes_nothing() {
    let Some(mut node) = Node::new("what_does_not_fit_is_refused_with_the_numbers_and_changes_nothing")
    else {
        return;
    };
    let machine = shown(&node);
    assert!(machine.inventory.memory.total > machine.offer.memory && machine.offer.cpu_millis >= 1000);
    settings(&mut node, "[offer]\ncpu = 1\nmemory = \"64MiB\"\noversell = 100\n");
    assert_eq!((shown(&node).offer.memory, shown(&node).offer.cpu_millis), (64 << 20, 1000));

    // Each asks for 16 MiB: four are all that there is.
    node.apply("db", "replicas = 2", "", &[]);
    let said = node.refuses(&["scale", "db", "5"]);
    for part in [
        "no room for 5 replicas of db",
        "80 MiB of burstable memory",
        "64 MiB is left",
        "4 replicas would fit",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(node.deployment("db").replicas, 2);
    let path = node.manifest("web", "replicas = 3", "");
    let web = path.to_str().unwrap();
    let said = node.refuses(&["apply", "-f", web]);
    assert!(
        said.contains("others have 32 MiB (db 32 MiB)") && said.contains("2 replicas would fit"),
        "{said}"
    );
    assert!(node.refuses(&["apply", "-f", web, "--dry-run"]).contains("no room"), "a dry run says it too");
    let put = ["-X", "PUT", "-H", "Content-Type: application/toml", "--data-binary", &format!("@{web}")];
    let text = fs::read_to_string(web)
        .unwrap()
        .replace("wasm:sleeper", &format!("wasm:{}/sleeper", node.home.path().display()));
    fs::write(web, text).unwrap();
    let (status, body) = curl(&node, &put, "/v1/deployments/web");
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, problem["type"].as_str()), (409, Some("no-room")), "{body}");
    assert_eq!(node.deployments().len(), 1, "nothing of it is there");

    // What is stopped gives its memory to others, and is asked for it again when it starts.
    node.does(&["scale", "db", "4"]);
    assert_eq!(shown(&node).allocation.total.memory_burstable, 64 << 20);
    node.does(&["stop", "db"]);
    assert_eq!(shown(&node).allocation.total.memory_burstable, 0);
    node.apply("web", "", "", &[]);
    assert!(node.refuses(&["start", "db"]).contains("3 replicas would fit"));
    node.does(&["rm", "web"]);
    node.does(&["start", "db"]);

    // A node that offers less by now ends nobody, and lets grow nobody.
    settings(&mut node, "[offer]\nmemory = \"16MiB\"\n");
    assert_eq!(node.deployment("db").ready, 4);
    assert!(node.refuses(&["scale", "db", "5"]).contains("no room"));
    node.does(&["scale", "db", "3"]);
    node.clear();
}

#[test]
fn guaranteed_cpu_is_reserved_and_a_task_that_has_ended_holds_nothing() {
    let Some(mut node) = Node::new("guaranteed_cpu_is_reserved_and_a_task_that_has_ended_holds_nothing")
    else {
        return;
    };
    settings(&mut node, "[offer]\ncpu = 1\n");
    let guaranteed = |node: &Node, name: &str, deployment: &str| {
        let path = node.manifest(name, deployment, "");
        let text = fs::read_to_string(&path).unwrap();
        let text =
            text.replace("memory = \"16Mi\"", "memory = \"16Mi\"\ncpu = \"600m\"\nclass = \"guaranteed\"");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let task = guaranteed(&node, "task", "args = [\"0\"]");
    node.does(&["apply", "-f", &task, "-d"]);
    node.does(&["wait", "task", "--for", "ended"]);
    assert_eq!(shown(&node).allocation.total.cpu_guaranteed, 0);
    node.does(&["apply", "-f", &guaranteed(&node, "first", "")]);
    let said = node.refuses(&["apply", "-f", &guaranteed(&node, "second", "")]);
    assert!(said.contains("600m CPU of guaranteed CPU, and 400m CPU is left of 1 CPU"), "{said}");
    assert!(node.refuses(&["restart", "task"]).contains("no room"), "it would need it again");
    // Burstable CPU is a share, however many share it.
    node.apply("shares", "replicas = 3", "", &[]);
    // The new revision takes the old one's place: both together need no more than the larger.
    node.does(&["apply", "-f", &guaranteed(&node, "first", "env = { A = \"b\" }")]);
    node.clear();
}

#[test]
fn a_node_with_mistakes_in_its_settings_says_where_and_does_not_run() {
    let Some(mut node) = Node::new("a_node_with_mistakes_in_its_settings_says_where_and_does_not_run") else {
        return;
    };
    node.clear();
    let refused = |node: &Node, text: &str| {
        fs::write(node.home.path().join("node.toml"), text).unwrap();
        node.refuses(&["node"])
    };
    let said = refused(&node, "[offer]\nmemroy = \"1GiB\"\n");
    assert!(said.contains("node.toml:2:1") && said.contains("did you mean `memory`?"), "{said}");
    let said = refused(&node, "[offer]\nmemory = \"1000TiB\"\n");
    assert!(said.contains("`offer.memory` offers 1024000 GiB, and this machine has"), "{said}");
}
