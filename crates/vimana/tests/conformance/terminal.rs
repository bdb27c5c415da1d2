//! The terminal that a workload gets.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::rig::{Ran, Rig, code, kill};
use crate::survey::survey;
use crate::{Behaviour, behaviours};

pub const BEHAVIOURS: &[Behaviour] = behaviours![
    there_is_no_terminal_unless_asked_for,
    the_terminal_is_one,
    the_terminal_has_the_person_s_size,
    ctrl_c_ends_what_doesnt_expect_it,
];

/// A workload with a terminal of 31 lines and 101 columns, which is ended by Ctrl-C.
pub fn at_a_terminal(rig: &Rig) -> Ran {
    rig.shared("terminal", || {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: 31, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut command = rig.run(&["-it"], &["terminal", ",", "spin"]);
        let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        drop((command, slave));
        let mut master = File::from(master);
        let (mut seen, mut chunk, mut asked) = (Vec::new(), [0; 4096], false);
        let mut deadline = Instant::now() + Duration::from_secs(40);
        loop {
            let step = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            if poll(&mut [PollFd::new(&master, PollFlags::IN)], Some(&step)) == Ok(1) {
                // Reading a terminal that nobody has open any more is an error.
                let Ok(got @ 1..) = master.read(&mut chunk) else { break };
                seen.extend_from_slice(&chunk[..got]);
            }
            if !asked && String::from_utf8_lossy(&seen).contains("ready") {
                asked = true;
                master.write_all(b"\x03").unwrap();
                deadline = Instant::now() + Duration::from_secs(10);
            }
            if Instant::now() > deadline {
                // What it has said so far is worth a look also where it doesn't end.
                kill(child.id(), libc::SIGKILL);
                break;
            }
        }
        Ran { code: code(child.wait().unwrap()), out: seen, err: String::new() }
    })
}

fn there_is_no_terminal_unless_asked_for(rig: &Rig) {
    assert_eq!(survey(rig).part("terminal"), "0 0 0\n");
}

fn the_terminal_is_one(rig: &Rig) {
    let text = at_a_terminal(rig).text();
    assert!(text.contains("1 1 1"), "{text}");
}

fn the_terminal_has_the_person_s_size(rig: &Rig) {
    let text = at_a_terminal(rig).text();
    assert!(text.contains("31 101"), "{text}");
}

fn ctrl_c_ends_what_doesnt_expect_it(rig: &Rig) {
    let ran = at_a_terminal(rig);
    assert_eq!(ran.code, 128 + libc::SIGINT, "{}", ran.text());
}
