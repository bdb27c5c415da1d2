//! Images out of a real containerd, started for the test, with nothing but its content store and image names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use image::{PullOptions, Reference};
use tempfile::TempDir;

mod support;
use support::*;

struct Daemon {
    folder: TempDir,
    child: Child,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    fn start() -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| text(&folder.path().join(name)).to_owned();
        let without = [
            "io.containerd.grpc.v1.cri",
            "io.containerd.snapshotter.v1.aufs",
            "io.containerd.snapshotter.v1.btrfs",
            "io.containerd.snapshotter.v1.devmapper",
            "io.containerd.snapshotter.v1.zfs",
            "io.containerd.snapshotter.v1.overlayfs",
            "io.containerd.internal.v1.opt",
            "io.containerd.internal.v1.restart",
            "io.containerd.internal.v1.tracing",
            "io.containerd.monitor.v1.cgroups",
        ];
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = {without:?}\n[grpc]\n  address = {:?}\n[ttrpc]\n  \
             address = {:?}\n",
            at("root"),
            at("state"),
            at("containerd.sock"),
            at("ttrpc.sock")
        );
        fs::write(folder.path().join("config.toml"), config).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("containerd")
            .args(["--config", &at("config.toml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Daemon { folder, child };
        let begun = Instant::now();
        while UnixStream::connect(daemon.socket()).is_err() {
            let log = || fs::read_to_string(daemon.folder.path().join("log")).unwrap();
            assert!(begun.elapsed() < Duration::from_secs(30), "containerd doesn't start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("containerd.sock")
    }

    /// Brings an image in, by containerd's own client, under the name `docker.io/library/test:TAG`.
    fn import(&self, namespace: &str, packer: &Packer, tag: &str) {
        let archive = self.folder.path().join(format!("{tag}.tar"));
        run(
            "skopeo",
            &[
                "copy",
                "-q",
                &format!("oci:{}", packer.name(tag)),
                &format!("oci-archive:{}:{tag}", text(&archive)),
            ],
        );
        let socket = self.socket();
        let base = "docker.io/library/test";
        let client = ["--address", text(&socket), "--namespace", namespace];
        let import = ["images", "import", "--no-unpack", "--base-name", base, text(&archive)];
        run("ctr", &[client.as_slice(), import.as_slice()].concat());
    }

    fn options(&self, namespace: &str) -> PullOptions {
        PullOptions {
            containerd_address: Some(self.socket()),
            containerd_namespace: Some(namespace.to_owned()),
            ..PullOptions::default()
        }
    }
}

fn reference(name: &str) -> Reference {
    format!("containerd:{name}").parse().unwrap()
}

#[test]
fn an_image_comes_from_containerd_as_from_its_layout() {
    let test = "an_image_comes_from_containerd";
    if !has(test, &["containerd", "ctr", "umoci", "skopeo"]) || !is_root(test) {
        return;
    }
    let packer = Packer::new();
    small_image(&packer, "one", 3);
    packer.layer("one", |root| fs::write(root.join("large"), noise(8, 5_000_000)).unwrap());
    let daemon = Daemon::start();
    daemon.import("default", &packer, "one");
    let shelf = Shelf::new();
    let options = daemon.options("default");
    let pull = |name: &str, options: &PullOptions| shelf.store.pull(&reference(name), options, &|_| {});
    let image =
        pull("docker.io/library/test:one", &options).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let other = Shelf::new();
    let expected = other.pull(&packer.reference("one")).unwrap();
    let roots = |image: &image::Image| image.layers.iter().map(|layer| layer.verity_root).collect::<Vec<_>>();
    assert_eq!(roots(&image), roots(&expected));
    assert_eq!((&image.digest, &image.config), (&expected.digest, &expected.config));
    assert_eq!(pull("test:one", &options).unwrap().digest, image.digest, "a short name does as well");
    drop(image);
    assert!(shelf.store.get(&reference("test:one")).unwrap().is_some());

    let error = chain(&pull("other", &options).unwrap_err());
    assert!(
        error.contains("holds no image named \"other\"; it holds: docker.io/library/test:one"),
        "{error}"
    );
    let error = chain(&pull("test:one", &daemon.options("elsewhere")).unwrap_err());
    assert!(error.contains("namespace \"elsewhere\"") && error.contains("no names"), "{error}");

    // What containerd lost, or what was changed under it, is noticed.
    let fresh = Shelf::new();
    let blobs = daemon.folder.path().join("root/io.containerd.content.v1.content/blobs/sha256");
    let large = fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path());
    let large = large.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let length = fs::metadata(&large).unwrap().len();
    fs::set_permissions(&large, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&large, noise(9, usize::try_from(length).unwrap())).unwrap();
    let error = fresh.store.pull(&reference("test:one"), &options, &|_| {}).unwrap_err();
    assert!(chain(&error).contains("was refused: "), "{}", chain(&error));
    fs::remove_file(&large).unwrap();
    let error = fresh.store.pull(&reference("test:one"), &options, &|_| {}).unwrap_err();
    assert!(chain(&error).contains("containerd doesn't hold sha256:"), "{}", chain(&error));
    fresh.assert_clean();
}

#[test]
fn without_a_containerd_that_answers_the_error_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Shelf::new();
    let pull = |socket: &str| {
        let options =
            PullOptions { containerd_address: Some(folder.path().join(socket)), ..PullOptions::default() };
        chain(&shelf.store.pull(&reference("x"), &options, &|_| {}).unwrap_err())
    };
    let error = pull("none");
    assert!(error.contains("there is no socket at") && error.contains("is containerd running?"), "{error}");
    drop(UnixListener::bind(folder.path().join("stale")).unwrap());
    let error = pull("stale");
    assert!(error.contains("nobody listens at"), "{error}");
    // Somebody who accepts and then is silent.
    let _hung = UnixListener::bind(folder.path().join("hung")).unwrap();
    let begun = Instant::now();
    let error = pull("hung");
    assert!(error.contains("didn't give") && error.contains("within 20 seconds"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(60));
    shelf.assert_empty();
}
