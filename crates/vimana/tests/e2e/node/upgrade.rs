//! A newer node takes over what an older one has begun.

use std::fs;
use std::path::PathBuf;

use super::rig::Node;
use crate::support::{VIMANA, eventually};

/// The protocol files of a deployment's run folders.
fn protocols(node: &Node, deployment: &str) -> Vec<PathBuf> {
    let is_its = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(&format!("{deployment}-"))
    };
    node.home.run_folders().into_iter().filter(is_its).map(|folder| folder.join("protocol")).collect()
}

#[test]
fn a_binary_at_another_path_takes_over_what_runs() {
    let Some(mut node) = Node::new("a_binary_at_another_path_takes_over_what_runs") else { return };
    node.apply("web", "replicas = 2", "", &[]);
    let before = (node.keepers(), node.deployment("web").spacecores);
    let next = node.home.path().join("next");
    fs::copy(VIMANA, &next).unwrap();
    node.end(libc::SIGTERM);
    node.start_as(&next);
    eventually("what runs is taken over", 20, || (node.deployment("web").ready == 2).then_some(()));
    assert_eq!((node.keepers(), node.deployment("web").spacecores), before);
    assert!(node.does(&["scale", "web", "3"]).contains("3 of 3 ready"));
    let executed = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let keepers = node.keepers();
    let new: Vec<PathBuf> = keepers.iter().filter(|pid| !before.0.contains(pid)).map(executed).collect();
    assert_eq!(new, std::slice::from_ref(&next), "a node starts keepers of its own kind");
    // Also where its file isn't there any more, as during the next upgrade.
    fs::remove_file(&next).unwrap();
    let scaled = node.does(&["scale", "-d", "web", "4"]);
    let are_ready = || (node.deployment("web").ready == 4).then_some(());
    eventually(&format!("{scaled}: {}", node.does(&["ps", "--json"])), 10, are_ready);
    node.clear();
}

#[test]
fn a_keeper_of_a_version_that_is_not_spoken_goes_on_until_its_spacecore_is_updated_or_ended() {
    let test = "a_keeper_of_a_version_that_is_not_spoken_goes_on_until_its_spacecore_is_updated_or_ended";
    let Some(mut node) = Node::new(test) else { return };
    for name in ["updated", "removed", "spoken"] {
        node.apply(name, "", "", &[]);
    }
    let before = (node.keepers(), node.deployment("updated").spacecores[0].attempts);
    node.end(libc::SIGTERM);
    for (name, version) in [("updated", "0"), ("removed", "99")] {
        for path in protocols(&node, name) {
            fs::write(path, version).unwrap();
        }
    }
    // Those of before didn't say what they speak.
    protocols(&node, "spoken").iter().for_each(|path| fs::remove_file(path).unwrap());
    node.start();
    let said = eventually("both are noticed", 20, || {
        let said = node.does(&["ps"]);
        (said.contains("updated: its keeper is of an older version (0")
            && said.contains("removed: its keeper is of a newer version (99"))
        .then_some(said)
    });
    assert!(!said.contains("spoken: its keeper"), "{said}");
    assert_eq!((node.keepers(), node.deployment("updated").spacecores[0].attempts), before);
    assert_eq!(node.deployment("updated").state, "running");
    for args in [&["exec", "updated", "--", "true"][..], &["stats", "updated"]] {
        assert!(node.refuses(args).contains("replaced at the next update"));
    }
    assert_eq!(node.does(&["logs", "updated"]), "up\n");
    node.does(&["stats", "spoken"]);

    let said = node.apply("updated", "env = { COLOUR = \"red\" }", "", &[]);
    assert!(said.contains("1 of 1 ready"), "{said}");
    assert!(node.does(&["rm", "removed"]).contains("gone"));
    let said = node.does(&["ps"]);
    assert!(!said.contains("its keeper is of"), "{said}");
    node.clear();
}
