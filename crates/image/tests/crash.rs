//! What a killed pull leaves: nothing that counts, and nothing that the next one doesn't remove.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use image::{PullOptions, Reference, Store, StoreOptions};

mod support;
use support::registry::Server;
use support::wire::Counter;
use support::*;

const ROLE: &str = "IMAGE_TEST_PULL";

/// Not a test of its own: the process that the others start, and kill.
#[test]
fn the_pulling_process() {
    let Ok(task) = std::env::var(ROLE) else { return };
    let (root, reference) = task.split_once(' ').unwrap();
    let store = Store::open(root.as_ref(), StoreOptions::default()).unwrap();
    let image = store.pull(&reference.parse().unwrap(), &options(), &|_| {}).unwrap();
    assert!(!image.layers.is_empty());
}

fn options() -> PullOptions {
    PullOptions {
        docker_config: Some(PathBuf::from("/nonexistent")),
        plain_http: true,
        ..PullOptions::default()
    }
}

fn puller(shelf: &Shelf, reference: &Reference) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_pulling_process"])
        .env(ROLE, format!("{} {reference}", text(shelf.store.root())))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn seed() -> u64 {
    let given = std::env::var("IMAGE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    println!("IMAGE_TEST_SEED={seed}");
    seed
}

#[test]
fn a_pull_killed_at_any_moment_leaves_nothing_and_the_next_one_succeeds() {
    if !has("a_pull_killed_at_any_moment", &["umoci"]) {
        return;
    }
    let packer = Packer::new();
    packer.image("big");
    for number in 0..4u64 {
        packer.layer("big", |root| {
            std::fs::write(root.join(format!("{number}")), noise(number + 1, 3_000_000)).unwrap();
        });
    }
    let reference = packer.reference("big");
    let whole = Shelf::new();
    let begun = Instant::now();
    assert!(puller(&whole, &reference).wait().unwrap().success());
    let span = u64::try_from(begun.elapsed().as_micros()).unwrap().max(1000);
    let expected: Vec<_> =
        whole.pull(&reference).unwrap().layers.iter().map(|layer| layer.verity_root).collect();
    let mut random = noise(seed(), 8 * 60)
        .chunks_exact(8)
        .map(|c| u64::from_le_bytes(c.try_into().unwrap()))
        .collect::<Vec<_>>();
    let shelf = Shelf::new();
    for round in 0..20 {
        let mut child = puller(&shelf, &reference);
        std::thread::sleep(Duration::from_micros(random.pop().unwrap() % (span + span / 5)));
        let _ = child.kill();
        child.wait().unwrap();
        let store = Store::open(shelf.store.root(), StoreOptions::default()).unwrap();
        for folder in ["tmp", "locks"] {
            let left = names(&store.root().join(folder));
            assert!(left.is_empty(), "round {round} left {left:?} in {folder}");
        }
        if let Some(image) = store.get(&reference).unwrap() {
            let roots: Vec<_> = image.layers.iter().map(|layer| layer.verity_root).collect();
            assert_eq!(roots, expected, "round {round}: what is there is whole");
        }
        if round % 4 == 3 {
            let image = store.pull(&reference, &options(), &|_| {}).unwrap();
            let roots: Vec<_> = image.layers.iter().map(|layer| layer.verity_root).collect();
            assert_eq!(roots, expected, "round {round}");
            for layer in &image.layers {
                assert_eq!(layer.file.metadata().unwrap().len(), layer.total_bytes);
            }
            drop(image);
            store.prune(true).unwrap();
            assert_eq!(store.usage().unwrap().bytes, 0);
        }
    }
}

#[test]
fn processes_that_pull_the_same_image_fetch_each_blob_once() {
    if !has("processes_that_pull_the_same_image", &["umoci", "skopeo", "docker-registry"]) {
        return;
    }
    let packer = Packer::new();
    packer.image("one");
    for number in 0..3u64 {
        packer.layer("one", |root| {
            std::fs::write(root.join(format!("{number}")), noise(number + 1, 2_000_000)).unwrap();
        });
    }
    let server = Server::plain();
    server.push(&format!("oci:{}", packer.name("one")), "app", &[]);
    let counter = Counter::before(server.port);
    let reference: Reference = format!("{}/app", counter.address).parse().unwrap();
    let shelf = Shelf::new();
    let children: Vec<Child> = (0..3).map(|_| puller(&shelf, &reference)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let blobs = counter.blobs();
    assert_eq!(blobs.len(), 4, "{blobs:?}");
    assert!(blobs.values().all(|count| *count == 1), "{blobs:?}");
    shelf.assert_clean();
    assert_eq!(names(&shelf.store.root().join("layers")).len(), 3);
}

#[test]
fn an_image_that_another_process_holds_survives_every_collector() {
    if !has("an_image_that_another_process_holds", &["umoci"]) {
        return;
    }
    let packer = Packer::new();
    small_image(&packer, "one", 2);
    let shelf = Shelf::new();
    let image = shelf.pull(&packer.reference("one")).unwrap();
    // The descriptors are handed to a child, and the image is dropped here.
    let files: Vec<_> = image.layers.iter().map(|layer| layer.file.try_clone().unwrap()).collect();
    let mut child = Command::new("sleep");
    child.arg("60").stdin(Stdio::null());
    for file in &files {
        rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty()).unwrap();
    }
    let mut child = child.spawn().unwrap();
    drop((files, image));
    let before = names(&shelf.store.root().join("layers"));
    shelf.store.prune(true).unwrap();
    let during = names(&shelf.store.root().join("layers"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(during, before, "the child still has the layers' files");
    shelf.store.prune(true).unwrap();
    shelf.assert_empty();
}
