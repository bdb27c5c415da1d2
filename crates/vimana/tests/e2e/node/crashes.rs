//! The daemon is killed at random moments while deployments are made, changed, scaled and removed.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::rig::Node;
use crate::leaks::Random;
use crate::support::{eventually, kill};

/// Kills of the daemon with Wasm programs, and with microVMs; `NODE_CRASHES` and `NODE_VM_CRASHES` say otherwise.
const ROUNDS: u64 = 200;
const VM_ROUNDS: u64 = 20;

/// What decides on moments and changes; `NODE_CRASHES_SEED` says otherwise.
const SEED: u64 = 20_261_128;

/// A number from the environment, where it has one.
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// What was acknowledged of a deployment.
#[derive(Debug, Clone, Default, PartialEq)]
struct Promised {
    replicas: u32,
    colour: u64,
}

#[test]
fn what_was_acknowledged_survives_every_kill_of_the_daemon_and_nothing_runs_twice() {
    let test = "what_was_acknowledged_survives_every_kill_of_the_daemon_and_nothing_runs_twice";
    let Some(mut node) = Node::new(test) else { return };
    let (rounds, seed) = (number("NODE_CRASHES", ROUNDS), number("NODE_CRASHES_SEED", SEED));
    let mut random = Random(seed);
    let mut promised: BTreeMap<String, Promised> = BTreeMap::new();
    for round in 0..rounds {
        let name = format!("d{}", random.below(3));
        let asked =
            Promised { replicas: u32::try_from(1 + random.below(3)).unwrap(), colour: random.below(3) };
        let known = promised.get(&name).cloned();
        let removes = known.is_some() && random.below(4) == 0;
        let deployment = format!("replicas = {}\nenv = {{ COLOUR = \"{}\" }}", asked.replicas, asked.colour);
        let path = node.manifest(&name, &deployment, "");
        let args = match removes {
            true => vec!["rm", "-d", &name],
            false => vec!["apply", "-d", "-f", path.to_str().unwrap()],
        };
        let client = node.home.vimana(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let moment = Duration::from_micros(random.below(60_000));
        std::thread::sleep(moment);
        node.end(libc::SIGKILL);
        let acknowledged = client.unwrap().wait().unwrap().success();
        eprintln!(
            "{test}: seed {seed}, round {round}: {args:?} killed after {moment:?}, acknowledged: {acknowledged}"
        );
        node.start();
        let there =
            node.deployments().into_iter().find(|found| found.name == name && found.state != "removing");
        match (acknowledged, removes) {
            (true, true) => assert!(there.is_none(), "round {round}: a removal was forgotten"),
            (true, false) => {
                let there = there.as_ref().unwrap_or_else(|| panic!("round {round}: {name} was forgotten"));
                assert_eq!(there.replicas, asked.replicas, "round {round}");
            }
            // What wasn't acknowledged may have been done or not.
            (false, _) => {}
        }
        match there {
            Some(there) if !removes && there.replicas == asked.replicas => _ = promised.insert(name, asked),
            Some(_) => {}
            None => _ = promised.remove(&name),
        }
        // Every name of a spacecore has one run folder at most, and each is somebody's.
        let mut folders: Vec<String> =
            node.home.run_folders().iter().map(|path| spacecore_of(path)).collect();
        folders.sort();
        let count = folders.len();
        folders.dedup();
        assert!(folders.len() == count || round % 10 != 9 || settled(&node), "round {round}: {folders:?}");
    }
    let are_ready = |node: &Node| {
        node.deployments().iter().all(|found| found.ready == found.replicas && found.state == "running")
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !are_ready(&node) {
        let standing = || format!("{}\n{}", node.does(&["ps", "--json"]), node.does(&["events"]));
        assert!(Instant::now() < deadline, "not all are ready: {}", standing());
        std::thread::sleep(Duration::from_millis(50));
    }
    let wanted: u32 = node.deployments().iter().map(|found| found.replicas).sum();
    assert_eq!(node.keepers().len(), usize::try_from(wanted).unwrap(), "one keeper for each spacecore");
    node.clear();
}

/// Whether each spacecore has one keeper after a while.
fn settled(node: &Node) -> bool {
    eventually("each spacecore has one run folder", 20, || {
        let mut folders: Vec<String> =
            node.home.run_folders().iter().map(|path| spacecore_of(path)).collect();
        let count = folders.len();
        folders.sort();
        folders.dedup();
        (folders.len() == count).then_some(true)
    })
}

fn spacecore_of(run_folder: &std::path::Path) -> String {
    let name = run_folder.file_name().unwrap().to_string_lossy().into_owned();
    name.rsplit_once('-').map_or(name.clone(), |(spacecore, _)| spacecore.to_owned())
}

/// Writes a manifest of microVMs without a network, and gives its path.
fn microvm(node: &Node, name: &str, replicas: u32, colour: u64) -> String {
    let path = node.home.path().join("vm.toml");
    let image = &node.home.image;
    let text = format!(
        "[metadata]\nname = \"{name}\"\n[spec.deployment]\nimage = \"{image}\"\nargs = [\"sleep\", \"100000\"]\n\
         replicas = {replicas}\nenv = {{ COLOUR = \"{colour}\" }}\n[spec.resources]\nmemory = \"96Mi\"\n\
         [spec.virtualization]\naccel = \"tcg\"\n[spec.networking]\nnetwork_type = \"none\"\n"
    );
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn microvms_outlive_every_kill_of_the_daemon_and_change_as_was_acknowledged() {
    let test = "microvms_outlive_every_kill_of_the_daemon_and_change_as_was_acknowledged";
    let Some(mut node) = Node::new(test) else { return };
    let (rounds, seed) = (number("NODE_VM_CRASHES", VM_ROUNDS), number("NODE_CRASHES_SEED", SEED));
    let mut random = Random(seed);
    node.does(&["apply", "-f", &microvm(&node, "still", 1, 0)]);
    let still = node.deployment("still");
    let keeper = node.keepers();
    let mut promised: Option<Promised> = None;
    for round in 0..rounds {
        let wanted =
            Promised { replicas: u32::try_from(1 + random.below(2)).unwrap(), colour: random.below(2) };
        let (removes, scales) = (promised.is_some() && random.below(4) == 0, random.below(3) == 0);
        let file = microvm(&node, "moves", wanted.replicas, wanted.colour);
        let replicas = wanted.replicas.to_string();
        let args = match &promised {
            Some(_) if removes => vec!["rm", "-d", "moves"],
            Some(_) if scales => vec!["scale", "-d", "moves", &replicas],
            Some(_) | None => vec!["apply", "-d", "-f", &file],
        };
        let client = node.home.vimana(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let moment = Duration::from_millis(random.below(600));
        std::thread::sleep(moment);
        node.end(libc::SIGKILL);
        let acknowledged = client.unwrap().wait().unwrap().success();
        eprintln!(
            "{test}: seed {seed}, round {round}: {args:?} killed after {moment:?}, acknowledged: {acknowledged}"
        );
        node.start();
        let there = node.deployments().into_iter().find(|one| one.name == "moves" && one.state != "removing");
        if acknowledged {
            assert_eq!(there.is_none(), removes, "round {round}");
            let is_so = there.as_ref().is_none_or(|there| there.replicas == wanted.replicas);
            assert!(is_so, "round {round}: {there:?}");
        }
        promised = there.map(|there| Promised { replicas: there.replicas, colour: wanted.colour });
        let now = node.deployment("still");
        assert_eq!(
            now.spacecores[0].attempts, still.spacecores[0].attempts,
            "round {round}: it was restarted"
        );
        assert!(node.keepers().contains(&keeper[0]), "round {round}");
    }
    let replicas = promised.map_or(0, |promised| promised.replicas);
    eventually("all are ready", 100, || {
        let moves = node.deployments().into_iter().find(|one| one.name == "moves");
        let are_ready = moves.is_none_or(|moves| moves.ready == moves.replicas && moves.state == "running");
        let monitors = node.home.processes().into_iter().filter(|(_, name)| name.starts_with("qemu")).count();
        let wanted = usize::try_from(1 + replicas).unwrap();
        let is_alone = node.keepers().len() == wanted && monitors == wanted;
        (are_ready && is_alone).then_some(())
    });
    assert_eq!(node.deployment("still").spacecores, still.spacecores);
    node.clear();
}

#[test]
fn a_keeper_that_hangs_is_killed_in_the_end_and_nothing_of_it_is_left() {
    let test = "a_keeper_that_hangs_is_killed_in_the_end_and_nothing_of_it_is_left";
    let Some(mut node) = Node::new(test) else { return };
    let file = microvm(&node, "web", 1, 0);
    node.does(&["apply", "-f", &file]);
    let keeper = u32::try_from(node.keepers()[0]).unwrap();
    kill(keeper, libc::SIGSTOP);
    // A node that comes after the one which has started it has only the run folder to go by.
    node.end(libc::SIGKILL);
    node.start();
    assert!(node.does(&["rm", "web"]).contains("gone"));
    let events = node.does(&["events"]);
    assert_eq!(events.matches("its process is killed").count(), 1, "{events}");
    node.clear();
}

#[test]
fn a_keeper_that_is_killed_is_noticed_and_its_spacecore_comes_back() {
    let test = "a_keeper_that_is_killed_is_noticed_and_its_spacecore_comes_back";
    let Some(mut node) = Node::new(test) else { return };
    node.apply("web", "", "[spec.restart]\npolicy = \"always\"\nbackoff = \"10ms\"", &[]);
    for _ in 0..5 {
        let before = node.deployment("web").spacecores[0].attempts;
        for keeper in node.keepers() {
            kill(u32::try_from(keeper).unwrap(), libc::SIGKILL);
        }
        eventually("it was started again", 20, || {
            let one = node.deployment("web").spacecores[0].clone();
            (one.attempts > before && one.phase == "ready").then_some(())
        });
    }
    // The same while nobody looks.
    node.end(libc::SIGKILL);
    for keeper in node.keepers() {
        kill(u32::try_from(keeper).unwrap(), libc::SIGKILL);
    }
    node.start();
    eventually("it was started again", 20, || (node.deployment("web").ready == 1).then_some(()));
    assert_eq!(node.keepers().len(), 1);
    node.clear();
}
