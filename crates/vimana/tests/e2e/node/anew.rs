//! What a person asks for is tried again, and what is waited for is what was asked for.

use std::fs;
use std::process::Stdio;

use super::rig::Node;
use crate::support::{eventually, kill, text};

/// Tried once more after a failure, and then no more.
const ONCE_MORE: &str = "[spec.restart]\npolicy = \"on-failure\"\nbackoff = \"10ms\"\nmax_attempts = 1";

#[test]
fn what_failed_for_good_begins_anew_when_somebody_asks() {
    let Some(mut node) = Node::new("what_failed_for_good_begins_anew_when_somebody_asks") else { return };
    // The image comes late.
    let (image, kept) = (node.home.path().join("sleeper.wasm"), node.home.path().join("kept"));
    fs::rename(&image, &kept).unwrap();
    for name in ["started", "applied"] {
        node.apply(name, "", ONCE_MORE, &["-d"]);
        eventually("it has failed", 20, || (node.deployment(name).state == "failed").then_some(()));
    }
    fs::rename(&kept, &image).unwrap();
    assert!(node.does(&["start", "started"]).contains("running, 1 of 1 ready"));
    assert_eq!(node.deployment("started").revision, 1);
    let said = node.apply("applied", "", ONCE_MORE, &["--dry-run"]);
    assert!(said.contains("would be tried once more, as revision 2"), "{said}");
    let said = node.apply("applied", "", ONCE_MORE, &[]);
    assert!(said.contains("tried once more, as revision 2") && said.contains("1 of 1 ready"), "{said}");

    // One that had been well for a time.
    let fails = "[spec.restart]\npolicy = \"never\"\n[spec.failover]\nstrategy = \"none\"";
    node.apply("web", "", fails, &[]);
    let fail = |node: &Node| {
        let keepers = node.keepers();
        let its = |pid: &&i32| {
            let environment = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            environment
                .filter_map(|fd| fs::read_link(fd.path()).ok())
                .any(|path| path.to_string_lossy().contains("/run/web-"))
        };
        let keeper = *keepers.iter().find(its).unwrap();
        kill(u32::try_from(keeper).unwrap(), libc::SIGKILL);
        eventually("it has failed", 20, || (node.deployment("web").state == "failed").then_some(()));
    };
    fail(&node);
    let said = node.apply("web", "", fails, &[]);
    assert!(said.contains("web had failed for good and begins anew"), "{said}");
    assert!(said.contains("nothing changes, revision 1") && said.contains("1 of 1 ready"), "{said}");
    fail(&node);
    assert!(node.does(&["start", "web"]).contains("1 of 1 ready"));
    assert!(node.does(&["stop", "web"]).contains("stopped"));
    node.clear();
}

#[test]
fn who_waits_for_an_apply_that_another_one_superseded_is_told_so() {
    let Some(mut node) = Node::new("who_waits_for_an_apply_that_another_one_superseded_is_told_so") else {
        return;
    };
    let never = node.manifest("web", "", "[spec.restart]\npolicy = \"always\"\nbackoff = \"60s\"");
    let text_of = fs::read_to_string(&never).unwrap().replace("sleeper.wasm", "nothing.wasm");
    let first = node.home.path().join("first.toml");
    fs::write(&first, text_of).unwrap();
    let args = ["apply", "-f", first.to_str().unwrap()];
    let waits = node.home.vimana(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the first is there", 20, || {
        node.deployments().iter().any(|found| found.name == "web" && found.state != "running").then_some(())
    });
    let said = node.apply("web", "", "", &[]);
    assert!(said.contains("revision 2") && said.contains("1 of 1 ready"), "{said}");
    let first = waits.wait_with_output().unwrap();
    let said = text(&first.stdout);
    assert_eq!(first.status.code(), Some(3), "{said}{}", text(&first.stderr));
    assert!(said.contains("revision 1 is superseded, somebody has applied 2"), "{said}");
    node.clear();
}

#[test]
fn an_update_that_was_taken_back_is_no_failure_of_what_comes_after_it() {
    let Some(mut node) = Node::new("an_update_that_was_taken_back_is_no_failure_of_what_comes_after_it")
    else {
        return;
    };
    let update = "[spec.restart]\npolicy = \"never\"\n[spec.failover]\nstrategy = \"none\"\n[spec.update]\nauto_revert = true";
    node.apply("web", "", update, &[]);
    let bad = node.manifest("web", "", update);
    fs::write(&bad, fs::read_to_string(&bad).unwrap().replace("sleeper.wasm", "nothing.wasm")).unwrap();
    let said = node.refuses(&["apply", "-f", bad.to_str().unwrap(), "--json"]);
    assert_eq!(said, "", "what came of it is in what is printed");
    eventually("the old revision is back", 20, || {
        let web = node.deployment("web");
        (web.wanted_revision == 1 && web.state == "running").then_some(())
    });
    assert!(node.does(&["scale", "web", "2"]).contains("2 of 2 ready"));
    node.does(&["wait", "web"]);
    assert_eq!(node.vimana(&["wait", "web", "--revision", "2"]).status.code(), Some(1));

    for args in [&["stop", "web-1"][..], &["rm", "web-1"], &["scale", "web-1", "2"], &["start", "web-1"]] {
        let said = node.refuses(args);
        assert!(
            said.contains("a spacecore of the deployment web") && said.contains("vimana restart web-1"),
            "{said}"
        );
    }
    assert!(node.refuses(&["exec", "-e", "COLOUR", "web", "--", "true"]).contains("COLOUR=VALUE"));
    node.clear();
}
