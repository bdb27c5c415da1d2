//! `vimana top`, at a terminal and without one.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::rig::Node;
use crate::support::{Killed, eventually};

#[test]
fn top_draws_at_a_terminal_follows_its_size_and_leaves_it_as_it_was() {
    let test = "top_draws_at_a_terminal_follows_its_size_and_leaves_it_as_it_was";
    let Some(mut node) = Node::new(test) else { return };
    node.apply("web", "replicas = 2", "", &[]);
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let open = || File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let theirs = open();
    let sized = |rows: u16, columns: u16| {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&ours, size).unwrap();
    };
    sized(24, 90);
    let mut top = Killed(
        node.home
            .vimana(&["top", "--interval", "1"])
            .stdin(Stdio::from(open()))
            .stdout(Stdio::from(open()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut keys = File::from(ours.try_clone().unwrap());
    let said = Arc::new(Mutex::new(String::new()));
    thread::spawn({
        let (said, mut from) = (Arc::clone(&said), keys.try_clone().unwrap());
        move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                said.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        }
    });
    // What stands on the screen: what was drawn last.
    let screen = || said.lock().unwrap().rsplit("\x1b[H").next().unwrap().to_owned();
    eventually("both are there, with a rate", 20, || {
        let screen = screen();
        (screen.contains("web-1") && screen.contains("NAME") && screen.contains(" %")).then_some(())
    });
    assert!(!tcgetattr(&theirs).unwrap().local_modes.contains(LocalModes::ICANON));
    keys.write_all(b"/web-1\r").unwrap();
    eventually("the other one is gone", 20, || screen().contains("filter: web-1 (1 of 2)").then_some(()));
    sized(24, 12);
    eventually("it is drawn anew", 20, || {
        let screen = screen();
        let lines = screen.split("\r\n").filter_map(|line| line.split('\x1b').next());
        (!screen.is_empty() && lines.clone().all(|line| line.chars().count() <= 12)).then_some(())
    });
    keys.write_all(b"q").unwrap();
    let status = eventually("it ends", 20, || top.0.try_wait().unwrap());
    assert!(status.success(), "{status:?}");
    assert!(tcgetattr(&theirs).unwrap().local_modes.contains(LocalModes::ICANON));
    eventually("the first screen is back", 20, || screen().contains("\x1b[?1049l").then_some(()));

    let once = node.does(&["top"]);
    assert!(once.lines().count() == 7 && once.contains("web-1") && !once.contains('\x1b'), "{once}");
    let json: serde_json::Value =
        serde_json::from_str(&node.does(&["top", "--json", "--sort", "name"])).unwrap();
    assert_eq!((&json["spacecores"][1]["name"], &json["total"]["ready"]), (&"web-1".into(), &2.into()));
    assert!(json["spacecores"][0]["cpu_milli"].is_u64(), "{json}");
    node.clear();
}
