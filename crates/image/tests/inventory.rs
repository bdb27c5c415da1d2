//! What is installed in an image, as the workload would see it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use image::inventory::Inventory;
use image::sbom;

mod support;
use support::Shelf;
use support::layout::{Files, write_image};

fn installed(layers: &[Files<'_>]) -> Inventory {
    let folder = tempfile::tempdir().unwrap();
    let (reference, _) = write_image(&folder.path().join("layout"), "one", layers);
    Shelf::new().pull(&reference).unwrap().inventory().unwrap()
}

fn names(inventory: &Inventory) -> Vec<String> {
    inventory.packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect()
}

const DEBIAN: &[u8] = b"ID=debian\nVERSION_ID=\"12\"\n";
const STATUS: &[u8] = b"Package: libssl3\nStatus: install ok installed\nSource: openssl\nVersion: 3.0.11-1\n";

#[test]
fn the_upper_layer_s_database_is_what_counts() {
    let newer = b"Package: libssl3\nStatus: install ok installed\nSource: openssl\nVersion: 3.0.13-1\n";
    let found = installed(&[
        &[("etc/os-release", DEBIAN), ("var/lib/dpkg/status", STATUS)],
        &[("var/lib/dpkg/status", newer)],
    ]);
    assert_eq!(names(&found), ["libssl3 3.0.13-1"]);
    let package = &found.packages[0];
    assert_eq!(package.ecosystem.as_deref(), Some("Debian:12"));
    assert_eq!((package.advised_name.as_str(), package.advised_version.as_str()), ("openssl", "3.0.13-1"));
    assert!(found.unread.is_empty(), "{:?}", found.unread);
}

#[test]
fn what_a_whiteout_or_a_file_hides_isn_t_installed() {
    let package = br#"{"name":"left-pad","version":"1.0.0"}"#;
    let below: Files<'_> = &[("app/node_modules/left-pad/package.json", package), ("etc/os-release", DEBIAN)];
    assert_eq!(names(&installed(&[below])), ["left-pad 1.0.0"]);
    let hiding: [Files<'_>; 5] = [
        &[("app/.wh.node_modules", b"")],
        &[(".wh.app", b"")],
        &[("app/node_modules/.wh..wh..opq", b"")],
        &[("app", b"a file in the folder's place")],
        &[("app/node_modules/left-pad/.wh.package.json", b"")],
    ];
    for above in hiding {
        assert_eq!(names(&installed(&[below, above])), [""; 0], "{above:?}");
        let again = installed(&[below, above, below]);
        assert_eq!(names(&again), ["left-pad 1.0.0"], "what comes back counts: {above:?}");
    }
    let beside: Files<'_> = &[("app/.wh.node", b""), ("app2/.wh.node_modules", b"")];
    assert_eq!(names(&installed(&[below, beside])), ["left-pad 1.0.0"]);
}

#[test]
fn the_same_package_in_two_places_is_listed_once_with_both() {
    let package = br#"{"name":"a","version":"1.0.0"}"#;
    let found = installed(&[
        &[("x/node_modules/a/package.json", package)],
        &[("y/node_modules/a/package.json", package)],
    ]);
    assert_eq!(names(&found), ["a 1.0.0"]);
    let places: Vec<&str> = found.packages[0].locations.iter().map(|place| place.path.as_str()).collect();
    assert_eq!(places, ["/x/node_modules/a/package.json", "/y/node_modules/a/package.json"]);
    assert_ne!(found.packages[0].locations[0].layer, found.packages[0].locations[1].layer);
}

#[test]
fn what_can_t_be_read_is_said() {
    let found = installed(&[&[
        ("etc/os-release", b"ID=fedora\nVERSION_ID=39\n"),
        ("var/lib/rpm/Packages", b"\x00"),
        ("var/lib/rpm/rpmdb.sqlite", b"SQLite format 3\0 and then nothing"),
        ("app/package-lock.json", b"{"),
        ("var/lib/dpkg/status", b"Package: a\x1b[2J\nVersion: 1\n\nPackage: b\nVersion: 1\n"),
    ]]);
    let said: Vec<String> =
        found.unread.iter().map(|unread| format!("{}: {}", unread.path, unread.reason)).collect();
    for part in [
        "/var/lib/rpm/Packages: an RPM database of Berkeley DB",
        "rpmdb.sqlite",
        "package-lock.json",
        "dpkg/status: 1 of its packages",
        "no advisories for packages of fedora",
    ] {
        assert!(said.iter().any(|line| line.contains(part)), "{part}: {said:#?}");
    }
    assert_eq!(names(&found), ["b 1"]);
}

#[test]
fn the_bill_of_materials_is_the_same_in_every_store() {
    let folder = tempfile::tempdir().unwrap();
    let layers: [Files<'_>; 1] = [&[("etc/os-release", DEBIAN), ("var/lib/dpkg/status", STATUS)]];
    let (reference, digest) = write_image(&folder.path().join("layout"), "one", &layers);
    let written = || {
        let shelf = Shelf::new();
        let image = shelf.pull(&reference).unwrap();
        sbom(&image, &image.inventory().unwrap()).to_string()
    };
    assert_eq!(written(), written());
    assert!(written().contains(digest.hex()));
}

#[test]
fn a_database_behind_a_link_is_never_missed_in_silence() {
    let unread = |layers: &[Files<'_>]| -> Vec<String> {
        installed(layers).unread.iter().map(|unread| format!("{}: {}", unread.path, unread.reason)).collect()
    };
    let hiding: Files<'_> =
        &[("@var/lib/dpkg", b"/opt/dpkg"), ("opt/dpkg/status", STATUS), ("etc/os-release", DEBIAN)];
    assert_eq!(
        unread(&[hiding]),
        ["/var/lib/dpkg: it is a link to /opt/dpkg, where no packages are looked for"]
    );
    // A later layer may put the database back, or replace the link.
    let plain: Files<'_> = &[("var/lib/dpkg/status", STATUS), ("etc/os-release", DEBIAN)];
    assert_eq!(unread(&[hiding, plain]), Vec::<String>::new());
    let merged: Files<'_> =
        &[("@lib", b"usr/lib"), ("@var/lib/rpm", b"../../usr/lib/sysimage/rpm"), ("etc/os-release", DEBIAN)];
    assert_eq!(unread(&[merged]), Vec::<String>::new());
}

#[test]
fn what_can_t_be_read_whole_is_said() {
    let long =
        format!("Metadata-Version: 2.1\n{}Name: late\nVersion: 1\n\n", "Classifier: x\n".repeat(100_000));
    let deep = format!(
        "{{\"dependencies\":{}{}}}",
        "{\"a\":{\"version\":\"1\",\"dependencies\":".repeat(70),
        "{}".to_owned() + &"}}".repeat(70)
    );
    let found = installed(&[&[
        ("srv/late.dist-info/METADATA", long.as_bytes()),
        ("srv/bare.egg-info/PKG-INFO", b"Metadata-Version: 2.1\n\nName: below\nVersion: 1\n"),
        ("app/package-lock.json", deep.as_bytes()),
    ]]);
    let unread: Vec<&str> = found.unread.iter().map(|unread| unread.path.as_str()).collect();
    let expected = ["/app/package-lock.json", "/srv/bare.egg-info/PKG-INFO", "/srv/late.dist-info/METADATA"];
    assert_eq!(unread, expected, "{:?}", found.unread);
    assert!(found.packages.is_empty());
}
