//! Files out of spacecores that run, and into them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Output, Stdio};

use sha2::{Digest, Sha256};

use super::rig::Node;
use crate::support::{missing, skipped, text};

fn digest(path: &Path) -> String {
    let digest = Sha256::digest(fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Copies what is given to standard input.
fn feed(node: &Node, args: &[&str], input: &[u8]) -> Output {
    let mut command = node.home.vimana(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that refuses doesn't read all.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn files_go_into_microvms_and_containers_and_come_back_as_they_were() {
    let test = "files_go_into_microvms_and_containers_and_come_back_as_they_were";
    let Some(mut node) = Node::new(test) else { return };
    node.apply("wasm", "", "", &[]);
    assert!(node.refuses(&["cp", "wasm:/etc", "."]).contains("a Wasm spacecore has no root"), "not refused");

    let from = node.home.path().join("from");
    fs::create_dir_all(from.join("sub")).unwrap();
    let noise: Vec<u8> = (0..300_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(from.join("sub/noise"), &noise).unwrap();
    fs::set_permissions(from.join("sub/noise"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("sub/noise", from.join("link")).unwrap();

    for (name, virtualization) in [("vm", "accel = \"tcg\""), ("box", "type = \"Container\"")] {
        let isolation = if name == "vm" { "MicroVM" } else { "Container" };
        if let Some(reason) = missing(isolation) {
            skipped(&format!("{test}: {isolation}"), &reason);
            continue;
        }
        let (path, image) = (node.home.path().join(format!("{name}.toml")), &node.home.image);
        let manifest = format!(
            "[metadata]\nname = \"{name}\"\n[spec.deployment]\nimage = \"{image}\"\nargs = [\"sleep\", \"3600\"]\n\
             [spec.resources]\nmemory = \"96Mi\"\n[spec.virtualization]\n{virtualization}\n"
        );
        fs::write(&path, manifest).unwrap();
        node.does(&["apply", "-f", path.to_str().unwrap()]);
        let inside = |path: &str| format!("{name}:{path}");
        let contents = format!("{}/.", from.display());

        node.does(&["cp", &contents, &inside("/new")]);
        let sum = node.does(&["exec", name, "--", "sha256sum", "/new/sub/noise"]);
        assert!(sum.starts_with(&digest(&from.join("sub/noise"))), "{isolation}: {sum}");
        // What a spacecore puts in the way leads nowhere: a link is a link.
        node.does(&["exec", name, "--", "ln", "-s", "/", "/new/sub/up"]);
        node.does(&["exec", name, "--", "ln", "-s", "../../../../../../../..", "/out"]);

        let back = node.home.path().join(format!("back-{name}"));
        node.does(&["cp", &inside("/new"), back.to_str().unwrap()]);
        let (noise, before) = (back.join("sub/noise"), from.join("sub/noise"));
        assert_eq!(digest(&noise), digest(&before), "{isolation}");
        let (after, before) = (noise.metadata().unwrap(), before.metadata().unwrap());
        assert_eq!((after.mode(), after.mtime_nsec()), (before.mode(), before.mtime_nsec()), "{isolation}");
        assert_eq!(after.uid(), rustix::process::geteuid().as_raw());
        assert_eq!(fs::read_link(back.join("link")).unwrap(), Path::new("sub/noise"));
        assert_eq!(fs::read_link(back.join("sub/up")).unwrap(), Path::new("/"));

        // Over what is there, link by link: a way out of the root ends in the root.
        node.does(&["cp", path.to_str().unwrap(), &inside("/out/tmp/manifest")]);
        assert!(node.does(&["exec", name, "--", "cat", "/tmp/manifest"]).contains("[metadata]"));
        assert!(!Path::new("/tmp/manifest").exists());

        let archive = node.vimana(&["cp", &inside("/new"), "-"]).stdout;
        let copied = feed(&node, &["cp", "-", &inside("/again")], &archive);
        assert!(copied.status.success(), "{isolation}: {}", text(&copied.stderr));
        let sum = node.does(&["exec", name, "--", "sha256sum", "/again/new/sub/noise"]);
        assert!(sum.starts_with(&digest(&noise)), "{isolation}: {sum}");
        let broken = feed(&node, &["cp", "-", &inside("/half")], &archive[..archive.len() / 2]);
        assert!(text(&broken.stderr).contains("ended early"), "{isolation}: {}", text(&broken.stderr));
        let names = node.does(&["exec", name, "--", "ls", "-a", "/"]);
        assert!(!names.contains("half") && !names.contains(".vimana-cp"), "{isolation}: {names}");

        assert!(node.refuses(&["cp", &inside("/nobody/here"), "."]).contains("No such file"));
        assert!(node.refuses(&["cp", &inside("/new"), path.to_str().unwrap()]).contains("is in the way"));
    }
    assert!(node.refuses(&["cp", "a", "b"]).contains("must be in a spacecore"));
    node.clear();
}
