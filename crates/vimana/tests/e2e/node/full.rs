//! A disk without any space left: what was acknowledged stays, what ends can end, and what needs space is refused.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use super::rig::Node;
use crate::support::{Home, skipped};

/// A small file system, which is unmounted when this is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Result<Self, String> {
        let mounted = mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(c"size=16m"));
        mounted
            .map(|()| Self(at.to_owned()))
            .map_err(|error| format!("no file system can be mounted: {error}"))
    }

    /// Takes all of its space, down to the last page.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).unwrap();
        for size in [1 << 20, 4096] {
            let block = vec![1; size];
            while file.write_all(&block).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn on_a_full_disk_what_was_acknowledged_stays_and_can_be_ended() {
    let test = "on_a_full_disk_what_was_acknowledged_stays_and_can_be_ended";
    let outside = TempDir::new().unwrap();
    let disk = match Disk::mount(outside.path()) {
        Ok(disk) => disk,
        Err(reason) => return skipped(test, &reason),
    };
    let Some(home) = Home::inside(test, outside.path()) else { return };
    let mut node = Node::of(home);
    let volume = "[[spec.mounts]]\nsource = \"data\"\ndestination = \"/data\"";
    node.apply("kept", "", "", &[]);
    node.apply("stopped", "", "", &[]);
    node.apply("gone", "", volume, &[]);
    let before = node.deployment("kept");
    let path = node.manifest("new", "", "");
    let changed = node.manifest("kept", "env = { COLOUR = \"red\" }", "");
    let ballast = disk.fill();

    for manifest in [&path, &changed] {
        let said = node.refuses(&["apply", "-f", manifest.to_str().unwrap()]);
        assert!(said.contains("can't keep what was asked") && said.contains("No space left"), "{said}");
    }
    assert_eq!(node.deployments().len(), 3);
    assert_eq!(node.deployment("kept"), before);
    assert!(node.does(&["stop", "stopped"]).contains("stopped"));
    assert!(node.does(&["rm", "gone"]).contains("gone"));
    node.does(&["volume", "rm", "gone/data"]);

    // What was acknowledged holds for the next node too, which finds the disk as full.
    disk.fill();
    let there = |node: &Node| -> Vec<(String, String)> {
        node.deployments().into_iter().map(|found| (found.name, found.state)).collect()
    };
    let expected = [("kept", "running"), ("stopped", "stopped")]
        .map(|(name, state)| (name.to_owned(), state.to_owned()));
    node.end(libc::SIGKILL);
    node.start();
    crate::support::eventually("all is as it was acknowledged", 20, || {
        (there(&node) == expected).then_some(())
    });
    assert_eq!(node.keepers().len(), 1, "{}", node.does(&["events"]));
    assert_eq!(node.deployment("kept").spacecores[0].attempts, before.spacecores[0].attempts);

    fs::remove_file(ballast).unwrap();
    assert!(node.does(&["apply", "-f", path.to_str().unwrap()]).contains("1 of 1 ready"));
    assert!(node.does(&["apply", "-f", changed.to_str().unwrap()]).contains("revision 2"));
    assert!(node.does(&["start", "stopped"]).contains("1 of 1 ready"));
    node.clear();
}
