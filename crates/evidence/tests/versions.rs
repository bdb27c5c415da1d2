//! Versions against the programs whose order they are in.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stderr)]

use std::cmp::Ordering;
use std::process::Command;

use evidence::version::Scheme;

#[test]
fn debian_s_own_program_agrees() {
    if Command::new("dpkg").arg("--version").output().is_err() {
        eprintln!("SKIPPED: debian_s_own_program_agrees: dpkg isn't installed");
        return;
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut version = || {
        let alphabet = b"0019abz.+~-";
        let mut text = String::from(["", "", "1:", "0:"][draw(4) as usize]);
        text.push(char::from(b'0' + draw(3) as u8));
        for _ in 0..draw(7) {
            text.push(char::from(alphabet[draw(alphabet.len() as u64) as usize]));
        }
        // An empty revision is no version.
        if text.ends_with('-') { text + "1" } else { text }
    };
    for _ in 0..400 {
        let (left, right) = (version(), version());
        let asked = |relation: &str| {
            let answer = Command::new("dpkg").args(["--compare-versions", &left, relation, &right]).output();
            answer.unwrap().status.success()
        };
        let expected = match (asked("lt"), asked("gt")) {
            (true, _) => Ordering::Less,
            (_, true) => Ordering::Greater,
            _ => Ordering::Equal,
        };
        assert_eq!(Scheme::Dpkg.compare(&left, &right), expected, "{left} against {right}");
    }
}
