//! Folders, files, memory and volumes inside a spacecore.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use crate::rig::{Ran, Rig, Running, finish};
use crate::{Behaviour, behaviours};

pub const BEHAVIOURS: &[Behaviour] = behaviours![
    a_folder_of_the_host_is_read_and_written,
    a_read_only_folder_is_only_read,
    a_folder_may_lie_in_another,
    no_way_leads_out_of_a_folder,
    a_single_file_can_be_mounted,
    a_memory_folder_has_its_size,
    a_read_only_root_cant_be_written,
    a_volume_survives_its_spacecore,
    a_volume_has_one_writer,
];

const SECRET: &str = "a secret of the host's";

/// One run with folders: `/rw`, `/a/ro` (read-only), and one inside the first, `/rw/inner`. The run's standard error ends with
/// what the host found afterwards.
fn folders(rig: &Rig) -> Ran {
    rig.shared("folders", || {
        let (rw, ro, inner) = (rig.folder("rw"), rig.folder("ro"), rig.folder("inner"));
        fs::write(rig.path().join("secret"), SECRET).unwrap();
        fs::write(rw.join("in"), "from outside\n").unwrap();
        fs::write(ro.join("in"), "only read\n").unwrap();
        fs::write(inner.join("in"), "from within\n").unwrap();
        fs::create_dir(rw.join("inner")).unwrap();
        symlink("../secret", rw.join("up")).unwrap();
        symlink(rig.path().join("secret"), rw.join("absolute")).unwrap();
        symlink("..", rw.join("above")).unwrap();
        let flags = [
            format!("{}:/rw", rw.display()),
            format!("{}:/a/ro:ro", ro.display()),
            format!("{}:/rw/inner", inner.display()),
        ];
        let secret = rig.path().join("secret").display().to_string();
        let probe = [
            // Read and written: 0 to 10.
            "read",
            "/rw/in",
            ",",
            "write",
            "/rw/new",
            "one ",
            ",",
            "append",
            "/rw/new",
            "two",
            ",",
            "read",
            "/rw/new",
            ",",
            "folder",
            "/rw/sub",
            ",",
            "move",
            "/rw/new",
            "/rw/sub/moved",
            ",",
            "drop",
            "/rw/in",
            ",",
            "read",
            "/rw/in",
            ",",
            "size",
            "/rw/sub/moved",
            ",",
            "list",
            "/rw/sub",
            ",",
            "fill",
            "/rw/big",
            "3000000",
            ",",
            // Read-only: 11 to 17.
            "read",
            "/a/ro/in",
            ",",
            "write",
            "/a/ro/in",
            "x",
            ",",
            "write",
            "/a/ro/new",
            "x",
            ",",
            "drop",
            "/a/ro/in",
            ",",
            "folder",
            "/a/ro/sub",
            ",",
            "move",
            "/a/ro/in",
            "/a/ro/out",
            ",",
            "list",
            "/a/ro",
            ",",
            // One in the other: 18 to 20.
            "read",
            "/rw/inner/in",
            ",",
            "write",
            "/rw/inner/out",
            "deep",
            ",",
            "list",
            "/rw/inner",
            ",",
            // The ways out: 21 to 27.
            "read",
            "/rw/up",
            ",",
            "read",
            "/rw/absolute",
            ",",
            "read",
            "/rw/../secret",
            ",",
            "read",
            "/rw/above/secret",
            ",",
            "read",
            &secret,
            ",",
            "link",
            "../secret",
            "/rw/made",
            ",",
            "read",
            "/rw/made",
        ];
        let mut ran = rig.output(&["-v", &flags[0], "-v", &flags[1], "-v", &flags[2]], &probe);
        let show =
            |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_else(|_| "nothing".to_owned());
        let big = fs::metadata(rw.join("big")).map_or(0, |found| found.len());
        let found = [
            show(rw.join("sub/moved")),
            show(rw.join("in")),
            show(inner.join("out")),
            show(ro.join("in")),
            big.to_string(),
        ];
        ran.err.push_str(&format!("\n{}", found.map(|text| text.trim().to_owned()).join("|")));
        ran
    })
}

fn on_the_host(ran: &Ran) -> Vec<String> {
    ran.err.lines().last().unwrap_or_default().split('|').map(str::to_owned).collect()
}

fn a_folder_of_the_host_is_read_and_written(rig: &Rig) {
    let ran = folders(rig);
    let said = ran.said();
    assert_eq!((ran.code, said.len()), (0, 28), "{ran:?}");
    let wanted = [
        "from outside",
        "ok",
        "ok",
        "one two",
        "ok",
        "ok",
        "ok",
        "fail ENOENT",
        "7",
        "moved ok",
        "3014656 ok",
    ];
    assert_eq!(said[..11], wanted, "{ran:?}");
    let host = on_the_host(&ran);
    assert_eq!((host[0].as_str(), host[1].as_str(), host[4].as_str()), ("one two", "nothing", "3014656"));
}

fn a_read_only_folder_is_only_read(rig: &Rig) {
    let ran = folders(rig);
    let said = ran.said();
    assert_eq!((said[11].as_str(), said[17].as_str()), ("only read", "in ok"), "{ran:?}");
    assert!(said[12..17].iter().all(|said| said.starts_with("fail")), "{ran:?}");
    assert_eq!(on_the_host(&ran)[3], "only read");
}

fn a_folder_may_lie_in_another(rig: &Rig) {
    let ran = folders(rig);
    assert_eq!(ran.said()[18..21], ["from within", "ok", "in out ok"], "{ran:?}");
    assert_eq!(on_the_host(&ran)[2], "deep");
}

fn no_way_leads_out_of_a_folder(rig: &Rig) {
    let ran = folders(rig);
    let said = ran.said();
    assert!(!ran.text().contains(SECRET), "{ran:?}");
    assert!(said[21..26].iter().all(|said| said.starts_with("fail")), "{ran:?}");
    assert!(said[27].starts_with("fail"), "{ran:?}");
}

/// One run with a read-only root, a folder in memory, and a single file.
fn readonly(rig: &Rig) -> Ran {
    rig.shared("readonly", || {
        let file = rig.path().join("config");
        fs::write(&file, "key = 1\n").unwrap();
        let lines = "[spec.deployment]\nreadonly_root = true\n[spec.networking]\nnetwork_type = \"none\"\n\
                     [[spec.mounts]]\ndestination = \"/memory\"\nsize = \"4Mi\"\n";
        let flag = format!("{}:/etc/app/config:ro", file.display());
        let probe = [
            "write",
            "/x",
            "y",
            ",",
            "folder",
            "/etc/new",
            ",",
            "drop",
            "/etc/plain",
            ",",
            "list",
            "/memory",
            ",",
            "fill",
            "/memory/full",
            ",",
            "read",
            "/etc/app/config",
            ",",
            "list",
            "/etc/app",
            ",",
            "write",
            "/etc/app/config",
            "z",
        ];
        finish(&mut rig.run_manifest(lines, &["-v", &flag], &probe))
    })
}

fn a_single_file_can_be_mounted(rig: &Rig) {
    let ran = readonly(rig);
    let said = ran.said();
    assert_eq!((ran.code, said.len()), (0, 8), "{ran:?}");
    assert_eq!(said[5..7], ["key = 1", "config ok"], "{ran:?}");
    assert!(said[7].starts_with("fail"), "{ran:?}");
}

fn a_memory_folder_has_its_size(rig: &Rig) {
    let ran = readonly(rig);
    let said = ran.said();
    assert_eq!(said[3], "ok", "it is empty: {ran:?}");
    assert_eq!(said[4], format!("{} fail ENOSPC", 4 << 20), "{ran:?}");
}

fn a_read_only_root_cant_be_written(rig: &Rig) {
    let ran = readonly(rig);
    assert_eq!(ran.said()[..3], ["fail EROFS", "fail EROFS", "fail EROFS"], "{ran:?}");
}

/// A run with a volume of 16 MiB at `/data`.
fn with_a_volume(rig: &Rig, flags: &[&str], probe: &[&str]) -> std::process::Command {
    let lines = "[spec.networking]\nnetwork_type = \"none\"\n[[spec.mounts]]\nsource = \"kept\"\ndestination = \"/data\"\nsize = \"16Mi\"\n";
    rig.run_manifest(lines, flags, probe)
}

fn a_volume_survives_its_spacecore(rig: &Rig) {
    let first = finish(&mut with_a_volume(rig, &[], &["write", "/data/x", "kept", ",", "read", "/data/x"]));
    assert_eq!((first.code, first.said()), (0, vec!["ok".to_owned(), "kept".to_owned()]), "{first:?}");
    let second = finish(&mut with_a_volume(rig, &[], &["read", "/data/x"]));
    assert_eq!((second.code, second.text()), (0, "kept\n".to_owned()), "{second:?}");
}

fn a_volume_has_one_writer(rig: &Rig) {
    let mut command = with_a_volume(
        rig,
        &["-i"],
        &["write", "/data/x", "mine", ",", "say", "ready\n", ",", "cat", ",", "read", "/data/x"],
    );
    let mut first = Running::ready(command.stdin(Stdio::piped()));
    let second = finish(&mut with_a_volume(rig, &[], &["write", "/data/x", "theirs"]));
    assert_eq!(second.code, 125, "{second:?}");
    assert!(second.err.contains("kept"), "it names the volume: {second:?}");
    drop(first.child.stdin.take());
    let ran = first.end();
    assert!(ran.code == 0 && ran.text().ends_with("mine\n"), "{ran:?}");
}
