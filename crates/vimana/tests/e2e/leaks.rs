//! Nothing is left, however a run ends.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Home, Killed, eventually, kill};

/// Runs, in all the tests of this file.
const ROUNDS: u64 = 60;

/// A generator whose numbers are the same for the same seed everywhere (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Half of the runs end by themselves; in the others one process is killed at a random moment.
fn rounds(test: &str, seed: u64, network: &str, victim_of: fn(&Home, u32) -> Option<u32>) {
    let Some(home) = Home::new(test) else { return };
    let mut random = Random(seed);
    let share = home.path().join("share");
    fs::create_dir(&share).unwrap();
    let volume = format!("{}:/share", share.display());
    for round in 0..ROUNDS / 3 {
        let is_killed = round % 2 == 1;
        // One that is to be killed lives longer than any of the moments.
        let script = format!("echo x > /share/x; cat /share/x; sleep {}", if is_killed { 5 } else { 0 });
        let mut command = home.run_on(network, &["-v", &volume], &script);
        let mut child = Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        if is_killed {
            let moment = Duration::from_millis(random.below(3000));
            std::thread::sleep(moment);
            let victim = eventually("the victim is there", 20, || victim_of(&home, child.0.id()));
            eprintln!("{test}: seed {seed}, round {round}: kill of {victim} after {moment:?}");
            assert!(child.0.try_wait().unwrap().is_none(), "it ended before it was killed");
            kill(victim, libc::SIGKILL);
        }
        let status = child.0.wait().unwrap();
        assert_eq!(status.success(), !is_killed, "round {round}");
        home.assert_nothing_is_left();
    }
}

fn pid_of(home: &Home, named: impl Fn(&str, &str) -> bool) -> Option<u32> {
    let processes = home.processes();
    let found = processes.iter().find(|(pid, name)| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        named(name, &String::from_utf8_lossy(&line).replace('\0', " "))
    });
    found.and_then(|(pid, _)| u32::try_from(*pid).ok())
}

#[test]
fn nothing_is_left_when_the_command_is_killed() {
    rounds("nothing_is_left_when_the_command_is_killed", 1, "none", |_, command| Some(command));
}

#[test]
fn nothing_is_left_when_the_keeper_is_killed() {
    let test = "nothing_is_left_when_the_keeper_is_killed";
    rounds(test, 2, network(), |home, _| pid_of(home, |_, line| line.trim() == "vimana keeper"));
}

#[test]
fn nothing_is_left_when_the_machine_is_killed() {
    let test = "nothing_is_left_when_the_machine_is_killed";
    rounds(test, 3, network(), |home, _| pid_of(home, |name, _| name.starts_with("qemu")));
}

/// A network where there is passt: one process more that could be left.
fn network() -> &'static str {
    let there = std::process::Command::new("passt").arg("--version").output().is_ok();
    if there { "public" } else { "none" }
}
