use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::pass::pass;
use super::place::Side;
use super::read::Reader;
use super::unpack::TEMPORARY;
use super::write::Writer;
use super::*;

/// A folder for one test: `in` is where things land, `out` is what they mustn't reach.
pub(super) struct Scene(PathBuf);

impl Scene {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("archive-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("in")).unwrap();
        fs::create_dir_all(path.join("out")).unwrap();
        fs::write(path.join("out/secret"), "untouched").unwrap();
        Self(path)
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn pack(&self, path: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let path = self.at(path);
        Side::Here.pack(path.as_os_str().as_encoded_bytes(), &mut bytes, &mut |_, _| {}).unwrap();
        bytes
    }

    pub(super) fn unpack(&self, archive: &[u8], path: &str, contents: bool) -> Result<(), ArchiveError> {
        let path = self.at(path);
        Side::Here.unpack(path.as_os_str().as_encoded_bytes(), contents, archive, Limits::of_bytes(1 << 20))
    }

    /// Nothing was changed outside, and nothing half copied is left.
    pub(super) fn is_unharmed(&self) {
        let outside: Vec<_> =
            fs::read_dir(self.at("out")).unwrap().map(|item| item.unwrap().file_name()).collect();
        assert_eq!(outside, ["secret"]);
        assert_eq!(fs::read_to_string(self.at("out/secret")).unwrap(), "untouched");
        assert_eq!(fs::metadata(self.at("out/secret")).unwrap().nlink(), 1, "nothing else has the file");
        for name in names_below(&self.0) {
            assert!(!name.contains(TEMPORARY), "{name} is left");
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for item in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        names.push(item.path().display().to_string());
        if item.file_type().unwrap().is_dir() {
            names.extend(names_below(&item.path()));
        }
    }
    names.sort();
    names
}

pub(super) fn entry(path: &str, kind: Kind) -> Entry {
    Entry { path: path.into(), kind, mode: 0o644, modified: Time { seconds: 1_000_000_000, nanoseconds: 5 } }
}

pub(super) fn link(target: &str) -> Kind {
    Kind::Symlink { target: target.into() }
}

/// An entry, and its data.
pub(super) type Sent<'a> = (Entry, &'a [u8]);

pub(super) fn archive(entries: &[Sent<'_>]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in entries {
        writer.begin(entry).unwrap();
        writer.data(data).unwrap();
    }
    writer.finish().unwrap()
}

pub(super) fn file(path: &str, data: &'static [u8]) -> (Entry, &'static [u8]) {
    (entry(path, Kind::File { size: data.len() as u64 }), data)
}

pub(super) fn folder(path: &str) -> (Entry, &'static [u8]) {
    (Entry { mode: 0o755, ..entry(path, Kind::Folder) }, b"")
}

#[test]
fn a_folder_comes_out_as_it_went_in() {
    let scene = Scene::new();
    let long = "n".repeat(200);
    fs::create_dir_all(scene.at("from/sub/empty")).unwrap();
    fs::write(scene.at("from/sub").join(&long), vec![7; 70_000]).unwrap();
    fs::write(scene.at("from/program"), "#!").unwrap();
    fs::set_permissions(scene.at("from/program"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(scene.at("from/program"), scene.at("from/sub/again")).unwrap();
    symlink("../nowhere", scene.at("from/link")).unwrap();
    fs::set_permissions(scene.at("from/sub"), fs::Permissions::from_mode(0o511)).unwrap();

    scene.unpack(&scene.pack("from"), "in", false).unwrap();
    let to = scene.at("in/from");
    assert_eq!(fs::read(to.join("sub").join(&long)).unwrap(), vec![7; 70_000]);
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("../nowhere"));
    let (program, before) =
        (to.join("program").metadata().unwrap(), scene.at("from/program").metadata().unwrap());
    assert_eq!(program.mode() & 0o7777, 0o751, "set-user-ID doesn't travel");
    assert_eq!((program.mtime(), program.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
    assert_eq!(program.ino(), to.join("sub/again").metadata().unwrap().ino());
    let (sub, before) = (to.join("sub").metadata().unwrap(), scene.at("from/sub").metadata().unwrap());
    assert_eq!((sub.mode() & 0o7777, sub.mtime_nsec()), (0o511, before.mtime_nsec()));
    assert!(to.join("sub/empty").is_dir());
    fs::set_permissions(to.join("sub"), fs::Permissions::from_mode(0o755)).unwrap();
    scene.is_unharmed();
}

#[test]
fn a_place_that_isnt_there_is_the_new_name_and_a_folder_that_is_there_takes_things_in() {
    let scene = Scene::new();
    fs::create_dir_all(scene.at("from")).unwrap();
    fs::write(scene.at("from/a"), "one").unwrap();
    scene.unpack(&scene.pack("from"), "in/new", false).unwrap();
    assert_eq!(fs::read_to_string(scene.at("in/new/a")).unwrap(), "one");
    scene.unpack(&scene.pack("from/a"), "in/b", false).unwrap();
    assert_eq!(fs::read_to_string(scene.at("in/b")).unwrap(), "one");
    fs::write(scene.at("from/a"), "two").unwrap();
    scene.unpack(&scene.pack("from/."), "in/new", true).unwrap();
    assert_eq!(fs::read_to_string(scene.at("in/new/a")).unwrap(), "two");
    scene.unpack(&scene.pack("from/."), "in/other", true).unwrap();
    assert_eq!(fs::read_to_string(scene.at("in/other/a")).unwrap(), "two");
    // A file doesn't become a folder, nor a folder a file, and a slash asks for a folder.
    assert!(matches!(scene.unpack(&scene.pack("from"), "in/b", false), Err(ArchiveError::InTheWay { .. })));
    assert!(scene.unpack(&scene.pack("from/a"), "in/missing/", false).is_err());
    fs::create_dir(scene.at("in/new/b")).unwrap();
    let clash = archive(&[file("b", b"x")]);
    assert!(matches!(scene.unpack(&clash, "in/new", false), Err(ArchiveError::InTheWay { .. })));
    scene.is_unharmed();
}

#[test]
fn what_ends_early_leaves_nothing_under_its_name() {
    let scene = Scene::new();
    fs::write(scene.at("in/old"), "old").unwrap();
    let whole = archive(&[folder("d"), file("d/a", b"one"), file("d/b", b"two"), file("old", b"new")]);
    let second = 512 * 7 - 700;
    for end in [0, 100, 512, 1024, 1500, second] {
        assert!(matches!(scene.unpack(&whole[..end], "in", true), Err(ArchiveError::Truncated)), "{end}");
        assert_eq!(names_below(&scene.at("in")), [scene.at("in/old").display().to_string()], "{end}");
        assert_eq!(fs::read_to_string(scene.at("in/old")).unwrap(), "old");
    }
    scene.unpack(&whole, "in", true).unwrap();
    assert_eq!(fs::read_to_string(scene.at("in/old")).unwrap(), "new");
    scene.is_unharmed();
}

#[test]
fn archives_of_other_programs_are_read_and_ours_are_read_by_them() {
    let scene = Scene::new();
    fs::create_dir_all(scene.at("from/d")).unwrap();
    fs::write(scene.at("from/d").join("l".repeat(150)), "long").unwrap();
    for form in ["gnu", "posix"] {
        let output = std::process::Command::new("tar")
            .args(["-c", "--format", form, "-C"])
            .arg(scene.at("from"))
            .arg(".")
            .output()
            .unwrap();
        scene.unpack(&output.stdout, &format!("in/{form}"), true).unwrap();
        assert_eq!(fs::read(scene.at(&format!("in/{form}/d")).join("l".repeat(150))).unwrap(), b"long");
    }
    let mut tar = std::process::Command::new("tar")
        .args(["-x", "-C"])
        .arg(scene.at("in"))
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(&scene.pack("from")).unwrap();
    assert!(tar.wait().unwrap().success());
    assert_eq!(fs::read(scene.at("in/from/d").join("l".repeat(150))).unwrap(), b"long");
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        path in "[a-z/.]{1,300}",
        size in any::<u64>(),
        mode in 0u32..0o1000,
        seconds in any::<i32>(),
        nanoseconds in 0u32..1_000_000_000,
        target in "[a-z/.]{1,300}",
        kind in 0..4,
    ) {
        let kind = match kind {
            0 => Kind::File { size: size >> 12 },
            1 => Kind::Folder,
            2 => Kind::Symlink { target: target.into() },
            _ => Kind::HardLink { target: target.into() },
        };
        let modified = Time { seconds: seconds.into(), nanoseconds };
        let mut written = Entry { path: path.into(), kind, mode, modified };
        let mut writer = Writer::new(Vec::new());
        // A name that ends with a slash is a folder's.
        if written.kind != Kind::Folder {
            written.path.push(b'x');
        }
        writer.begin(&written).unwrap();
        let bytes = writer.finish().unwrap();
        let mut read = Reader::new(&bytes[..], Limits::of_bytes(u64::MAX)).next_entry().unwrap().unwrap();
        if written.kind == Kind::Folder && !written.path.ends_with(b"/") {
            read.path.pop();
        }
        prop_assert_eq!(read, written);
    }

    #[test]
    fn no_bytes_are_too_strange_to_be_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = pass(&bytes[..], std::io::sink(), Limits::of_bytes(1 << 20));
        // With a sum that is right, what is in the head is looked at.
        if bytes.len() >= 512 {
            let sum: u32 = bytes[..148].iter().chain(&bytes[156..512]).map(|byte| u32::from(*byte)).sum();
            bytes[148..156].copy_from_slice(format!("{:06o}\0 ", sum + 8 * 32).as_bytes());
            let _ = pass(&bytes[..], std::io::sink(), Limits::of_bytes(1 << 20));
        }
    }
}
