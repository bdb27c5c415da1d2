//! Containers on this machine's kernel. Each test is a process of one thread, as a keeper is when it starts a container.

mod rig;

use std::io::Write;
use std::time::{Duration, Instant};

use hypercore::driver::container::{self, ContainerDriver};
use hypercore::driver::{Driver, Mount, MountSource};
use rig::{Image, Keeper, configuration, container_of, left, process, shell};
use spacecore::wire::message::{ExitStatus, TerminalSize, ToGuest};

const TESTS: &[(&str, fn())] =
    &[("a_workload_s_output_and_exit_code_arrive_whole", a_workload_s_output_and_exit_code_arrive_whole)];

fn skipped(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// Speaks as much of the usual harness as test runners ask for.
fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| words.iter().any(|given| given == word);
    if has("--list") {
        if !has("--ignored") {
            TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return;
    }
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| {
        let matches = |filter: &&String| {
            if has("--exact") { name == filter.as_str() } else { name.contains(filter.as_str()) }
        };
        filters.is_empty() || filters.iter().any(matches)
    };
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        if let Err(reason) = container::usable() {
            skipped(name, &reason.to_string());
        } else if !std::path::Path::new("/bin/busybox").exists() {
            skipped(name, "/bin/busybox isn't installed");
        } else {
            test();
        }
        println!("test {name} ... ok");
    }
}

fn a_workload_s_output_and_exit_code_arrive_whole() {
    let image = Image::new();
    let mut keeper = Keeper::run(&image.machine(), shell("echo hello; echo there >&2; exit 7"));
    assert_eq!(keeper.said(0), "hello\nthere\n");
    assert_eq!(keeper.ended[&0], ExitStatus::Code(7));
    keeper.instance.stop().unwrap();
    assert_eq!(left(&image.run()), Vec::<String>::new());
}
