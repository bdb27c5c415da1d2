//! Games that a hostile side of a copy plays, as `make attacks` plays them.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use super::place::Side;
use super::read::Reader;
use super::tests::{Scene, Sent, archive, entry, file, folder, link};
use super::{Kind, Limits};

/// What a hostile spacecore sends, and that the answer is no.
#[test]
fn a_hostile_archive_reaches_nothing_outside_of_its_folder() {
    let scene = Scene::new();
    let out = scene.at("out");
    let (outside, secret) = (out.to_str().unwrap(), scene.at("out/secret"));
    let absolute = secret.to_str().unwrap();
    let evil: Vec<(&str, Vec<Sent<'_>>)> = vec![
        ("..", vec![file("../out/secret", b"evil")]),
        (".. further down", vec![folder("a"), file("a/../../out/secret", b"evil")]),
        ("absolute", vec![file(absolute, b"evil")]),
        ("through a link of its own", vec![(entry("a", link(outside)), b""), file("a/secret", b"evil")]),
        (
            "through a relative link",
            vec![folder("d"), (entry("d/a", link("../../out")), b""), file("d/a/new", b"evil")],
        ),
        ("folder over a link", vec![(entry("a", link(outside)), b""), folder("a"), file("a/new", b"evil")]),
        (
            "link in a folder of its own",
            vec![folder("d"), (entry("d/a", link(outside)), b""), folder("d/a/new")],
        ),
        ("hard link out", vec![(entry("a", Kind::HardLink { target: absolute.into() }), b"")]),
        ("hard link up", vec![(entry("a", Kind::HardLink { target: b"../out/secret".to_vec() }), b"")]),
        (
            "hard link through a link",
            vec![
                (entry("a", link(outside)), b""),
                (entry("b", Kind::HardLink { target: b"a/secret".to_vec() }), b""),
            ],
        ),
        (
            "hard link to a link",
            vec![
                (entry("a", link(absolute)), b""),
                (entry("b", Kind::HardLink { target: b"a".to_vec() }), b""),
            ],
        ),
        ("no name", vec![file(".", b"evil")]),
        ("empty link", vec![(entry("a", link("")), b"")]),
        ("too deep", vec![folder(&"d/".repeat(300))]),
        ("too much", vec![(entry("a", Kind::File { size: 2 << 20 }), b"")]),
    ];
    for (what, entries) in evil {
        let result = scene.unpack(&archive(&entries), "in", true);
        eprintln!(
            "{what:<28} {}",
            result.as_ref().map_or_else(ToString::to_string, |()| "SUCCEEDS".to_owned())
        );
        assert!(result.is_err(), "{what} was taken");
        scene.is_unharmed();
    }
    // The same where a folder below was there, and is a link that somebody else has put there.
    symlink(outside, scene.at("in/trap")).unwrap();
    for entries in [vec![file("trap/secret", b"evil")], vec![folder("trap"), file("trap/secret", b"evil")]] {
        assert!(scene.unpack(&archive(&entries), "in", true).is_err());
        scene.is_unharmed();
    }
    // A file takes the place of a link, and leaves alone what it leads to.
    symlink(absolute, scene.at("in/file")).unwrap();
    scene.unpack(&archive(&[file("file", b"good")]), "in", true).unwrap();
    assert_eq!(fs::read(scene.at("in/file")).unwrap(), b"good");
    scene.is_unharmed();
}

#[test]
fn devices_pipes_and_unknown_kinds_are_refused() {
    for (flag, what) in [(b'3', "device"), (b'4', "device"), (b'6', "pipe"), (b'S', "sparse"), (b'Z', "kind")]
    {
        let mut bytes = archive(&[file("a", b"")]);
        bytes[156] = flag;
        let sum: u32 = bytes[..148].iter().chain(&bytes[156..512]).map(|byte| u32::from(*byte)).sum();
        bytes[148..156].copy_from_slice(format!("{:06o}\0 ", sum + 8 * 32).as_bytes());
        let error = Reader::new(&bytes[..], Limits::of_bytes(1)).next_entry().unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn a_folder_that_is_swapped_for_a_link_while_it_is_read_gives_nothing_of_what_the_link_leads_to() {
    let scene = Scene::new();
    fs::create_dir_all(scene.at("from/swapped")).unwrap();
    fs::write(scene.at("from/swapped/secret"), "mine").unwrap();
    symlink(scene.at("out"), scene.at("from/link")).unwrap();
    let done = AtomicBool::new(false);
    let (mut whole, mut swaps) = (0, 0);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let (folder, link, aside) = (scene.at("from/swapped"), scene.at("from/link"), scene.at("aside"));
            let mut swaps = 0;
            while !done.load(Ordering::Relaxed) {
                for (a, b) in [(&folder, &aside), (&link, &folder), (&folder, &link), (&aside, &folder)] {
                    fs::rename(a, b).unwrap();
                }
                swaps += 1;
            }
            swaps
        });
        for _ in 0..2000 {
            let mut bytes = Vec::new();
            let path = scene.at("from");
            let packed = Side::Here.pack(path.as_os_str().as_encoded_bytes(), &mut bytes, &mut |_, _| {});
            whole += u32::from(packed.is_ok());
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains("untouched"), "a file outside was read");
        }
        done.store(true, Ordering::Relaxed);
        swaps = swapper.join().unwrap();
    });
    assert!(whole > 0 && swaps > 0, "{whole} copies, {swaps} swaps");
}

#[test]
fn a_root_s_own_links_stay_in_it() {
    let scene = Scene::new();
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    let root = rustix::fs::open(scene.at("in"), flags, rustix::fs::Mode::empty()).unwrap();
    let side = Side::Root(root);
    symlink(scene.at("out"), scene.at("in/away")).unwrap();
    symlink("../../../../../..", scene.at("in/up")).unwrap();
    symlink("/real", scene.at("in/fine")).unwrap();
    fs::create_dir(scene.at("in/real")).unwrap();
    for path in ["/away/secret", "/away/.", "/up/etc/passwd", "/../out/secret"] {
        let mut bytes = Vec::new();
        assert!(side.pack(path.as_bytes(), &mut bytes, &mut |_, _| {}).is_err(), "{path}");
        assert!(bytes.is_empty(), "{path}");
    }
    let bytes = archive(&[file("a", b"x")]);
    for (path, lands) in [("/away/new", false), ("/up", true), ("/fine", true)] {
        let result = side.unpack(path.as_bytes(), false, &bytes[..], Limits::of_bytes(10));
        assert_eq!(result.is_ok(), lands, "{path}");
    }
    assert!(scene.at("in/a").is_file() && scene.at("in/real/a").is_file());
    scene.is_unharmed();
}
