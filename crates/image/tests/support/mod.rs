//! What the tests of pulling share: images packed by umoci, and what a store's folder holds.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) mod layout;
pub(crate) mod registry;
pub(crate) mod wire;

use image::{Image, PullError, PullOptions, Reference, Store, StoreOptions};
use tempfile::TempDir;

/// Tells whether all programs are there; says on stderr which test is skipped for want of one.
pub(crate) fn has(test: &str, programs: &[&str]) -> bool {
    for program in programs {
        let there = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
        if !there {
            eprintln!("SKIPPED: {test}: {program} isn't installed");
            return false;
        }
    }
    true
}

/// Tells whether this process may make device nodes and give files away.
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: {test}: packing device nodes and owners needs root");
    }
    root
}

/// Runs a program to its end and panics with its words if it fails.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An OCI layout that umoci packs, one layer after the other.
pub(crate) struct Packer {
    pub(crate) folder: TempDir,
    pub(crate) layout: PathBuf,
}

impl Packer {
    pub(crate) fn new() -> Packer {
        let folder = tempfile::tempdir().unwrap();
        let layout = folder.path().join("layout");
        run("umoci", &["init", "--layout", text(&layout)]);
        Packer { folder, layout }
    }

    /// Begins an empty image.
    pub(crate) fn image(&self, tag: &str) {
        run("umoci", &["new", "--image", &self.name(tag)]);
    }

    /// Unpacks the image, lets `change` work on its tree, and packs what changed as a layer.
    pub(crate) fn layer(&self, tag: &str, change: impl FnOnce(&Path)) {
        let bundle = tempfile::tempdir_in(self.folder.path()).unwrap();
        let bundle = bundle.path().join("bundle");
        let mut unpack = vec!["unpack", "--image"];
        let name = self.name(tag);
        unpack.extend([name.as_str(), text(&bundle)]);
        let mut repack = vec!["repack", "--image", name.as_str()];
        if !rustix::process::geteuid().is_root() {
            unpack.insert(1, "--rootless");
        }
        run("umoci", &unpack);
        change(&bundle.join("rootfs"));
        repack.push(text(&bundle));
        run("umoci", &repack);
    }

    pub(crate) fn config(&self, tag: &str, arguments: &[&str]) {
        let name = self.name(tag);
        let mut all = vec!["config", "--image", &name];
        all.extend(arguments);
        run("umoci", &all);
    }

    pub(crate) fn name(&self, tag: &str) -> String {
        format!("{}:{tag}", text(&self.layout))
    }

    pub(crate) fn reference(&self, tag: &str) -> Reference {
        format!("oci:{}:{tag}", text(&self.layout)).parse().unwrap()
    }
}

/// Packs an image of `layers` small layers, the first of which has a program.
pub(crate) fn small_image(packer: &Packer, tag: &str, layers: usize) {
    packer.image(tag);
    for number in 0..layers {
        packer.layer(tag, |root| {
            if number == 0 {
                fs::create_dir_all(root.join("bin")).unwrap();
                fs::write(root.join("bin/hello"), "#!/bin/sh\necho hello\n").unwrap();
                fs::set_permissions(root.join("bin/hello"), fs::Permissions::from_mode(0o755)).unwrap();
            }
            fs::write(root.join(format!("file-{number}")), noise(number as u64, 40_000 + number * 1000))
                .unwrap();
        });
    }
    packer.config(
        tag,
        &["--config.entrypoint", "/bin/hello", "--config.env", "A=b", "--config.user", "1000:1000"],
    );
}

/// Returns bytes that don't compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A store in a folder of its own.
pub(crate) struct Shelf {
    pub(crate) folder: TempDir,
    pub(crate) store: Store,
}

impl Shelf {
    pub(crate) fn new() -> Shelf {
        Shelf::with(StoreOptions::default())
    }

    pub(crate) fn with(options: StoreOptions) -> Shelf {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store"), options).unwrap();
        Shelf { folder, store }
    }

    pub(crate) fn pull(&self, reference: &Reference) -> Result<Image, PullError> {
        self.store.pull(reference, &PullOptions::default(), &|_| {})
    }

    /// Asserts that nothing incomplete lies in the store.
    pub(crate) fn assert_clean(&self) {
        for folder in ["tmp", "locks"] {
            let left: Vec<_> = names(&self.store.root().join(folder));
            assert!(left.is_empty(), "{folder} holds {left:?}");
        }
    }

    /// Asserts that there are no layers and nothing incomplete.
    pub(crate) fn assert_empty(&self) {
        self.assert_clean();
        for folder in ["layers", "merged", "images"] {
            let left = names(&self.store.root().join(folder));
            assert!(left.is_empty(), "{folder} holds {left:?}");
        }
    }
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Returns an error and everything below it as one text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Lists a layer's file system by `unsquashfs -lls`, for a look from outside.
pub(crate) fn listing(path: &Path) -> String {
    let output = Command::new("unsquashfs").args(["-lls", "-d", "", text(path)]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
