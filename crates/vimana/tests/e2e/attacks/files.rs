//! By files: out of folders of the host that a guest may use, by links, by `..`, by names that change while they are looked up,
//! and by devices.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{INSIDE, Table, done, guests, said, shown, tries};
use crate::support::{Home, text};

/// What no guest may ever see.
const SECRET: &str = "a-secret-of-the-host";

/// How it is found out whether an attack has succeeded.
enum Judge {
    /// The attacker has seen the secret.
    Seen,
    /// This file, beside the folders, has the attack's word in it.
    Written(&'static str),
    /// This file is there.
    Exists(&'static str),
    /// This file is a device.
    Device(&'static str),
}
use Judge::{Device, Exists, Seen, Written};

/// `{rw}` and `{ro}` are the folders as the attacker finds them, `{host}` is the one that both lie in, as the host does.
static ATTACKS: &[(&str, &str, Judge)] = &[
    ("read beside a folder by ..", "read {rw}/../secret SECRET", Seen),
    ("read by a link that leads out of it", "read {rw}/relative SECRET", Seen),
    ("read by a link with an absolute path", "read {rw}/absolute SECRET", Seen),
    ("plant such a link, and read by it", "plant ../secret {rw}/planted SECRET", Seen),
    ("plant a link by /proc/self/root", "plant /proc/self/root{host}/secret {rw}/rooted SECRET", Seen),
    ("read by the root of a process of the host", "read /proc/{pid}/root{host}/secret SECRET", Seen),
    ("swap a folder with a link while it is looked up", "race {rw} .. SECRET", Seen),
    ("write by a link that leads out", "write {rw}/victim", Written("victim")),
    ("write by an absolute link", "write {rw}/absolute-victim", Written("victim-too")),
    ("write into a folder that is only read", "write {ro}/written", Exists("ro/written")),
    ("move a file out of its folder", "rename {rw}/own {rw}/../moved", Exists("moved")),
    ("link to a file beside its folder", "link {rw}/../secret {rw}/linked", Exists("rw/linked")),
    ("leave a device for the host in a folder", "device {rw}/device DISK SECRET", Device("rw/device")),
];

/// The folders on the host, and what lies beside them.
struct Rig {
    folder: PathBuf,
}

impl Rig {
    fn new(folder: PathBuf) -> Self {
        for name in ["rw", "ro"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        for name in ["victim", "victim-too", "rw/own"] {
            fs::write(folder.join(name), "untouched").unwrap();
        }
        fs::write(folder.join("secret"), SECRET).unwrap();
        let links = [("relative", "../secret"), ("victim", "../victim")];
        links.iter().for_each(|(name, to)| symlink(to, folder.join("rw").join(name)).unwrap());
        for (name, to) in [("absolute", "secret"), ("absolute-victim", "victim-too")] {
            symlink(folder.join(to), folder.join("rw").join(name)).unwrap();
        }
        Self { folder }
    }

    fn tries(&self, rw: &str, ro: &str, disk: &Disk) -> Vec<String> {
        let (host, pid) = (self.folder.display().to_string(), std::process::id().to_string());
        let command = |command: &str| {
            let words = [
                ("{rw}", rw),
                ("{ro}", ro),
                ("{host}", &host),
                ("{pid}", &pid),
                ("SECRET", SECRET),
                ("DISK", &disk.number),
            ];
            words.iter().fold(command.to_owned(), |text, (from, to)| text.replace(from, to))
        };
        let all =
            ATTACKS.iter().enumerate().map(|(place, (_, text, _))| (format!("try-{place}"), command(text)));
        tries(&all.collect::<Vec<_>>())
    }

    fn judge(&self, place: usize, output: &str) -> bool {
        let word = format!("try-{place}");
        match ATTACKS[place].2 {
            Seen => done(output, &word),
            Written(name) => fs::read_to_string(self.folder.join(name)).unwrap().contains(&word),
            Exists(name) => self.folder.join(name).symlink_metadata().is_ok(),
            Device(name) => self
                .folder
                .join(name)
                .symlink_metadata()
                .is_ok_and(|found| found.file_type().is_block_device()),
        }
    }
}

/// A disk of the host that has the secret on it.
pub struct Disk {
    path: String,
    pub number: String,
}

impl Disk {
    pub fn new(folder: &Path) -> Self {
        let file = folder.join("disk.img");
        fs::write(&file, SECRET.repeat(1000)).unwrap();
        let made = Command::new("losetup").args(["--find", "--show"]).arg(&file).output().unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        let path = text(&made.stdout).trim().to_owned();
        let number = std::os::unix::fs::MetadataExt::rdev(&fs::metadata(&path).unwrap()).to_string();
        Self { path, number }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.path]).status();
    }
}

#[test]
fn a_folder_of_the_host_is_all_that_a_guest_has_of_its_files() {
    let test = "a_folder_of_the_host_is_all_that_a_guest_has_of_its_files";
    let (Some(program), Some(home)) = (super::can(test), Home::new(test)) else { return };
    let disk = Disk::new(home.path());
    let mut table = Table::new();
    for (from, flags) in guests(test) {
        let (rig, bare) =
            (Rig::new(home.path().join(from)), Rig::new(home.path().join(format!("{from}-bare"))));
        let at = |name: &str| rig.folder.join(name).display().to_string();
        let (rw, ro) = (format!("{}:/rw", at("rw")), format!("{}:/ro:ro", at("ro")));
        let args = ["run", "--network", "none", "-m", "128Mi", "-v", &rw, "-v", &ro, "-v", &shown(&program)];
        let mut command = home.vimana(&[&args, flags, &[&home.image, "--", INSIDE]].concat());
        let output = command.args(rig.tries("/rw", "/ro", &disk)).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let guarded = text(&output.stdout);
        let at = |name: &str| bare.folder.join(name).display().to_string();
        let free = Command::new(&program).args(bare.tries(&at("rw"), &at("ro"), &disk)).output().unwrap();
        let free = text(&free.stdout);
        for (place, (name, _, _)) in ATTACKS.iter().enumerate() {
            let words = said(&guarded, &format!("try-{place}"));
            table.row(name, from, rig.judge(place, &guarded), bare.judge(place, &free), words);
        }
    }
    table.judge();
    home.assert_nothing_is_left();
}
