//! Signals, the terminal, and every way of ending.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Home, Killed, code, eventually, kill, text};

/// Starts a workload and waits until it has said `ready`.
fn ready(home: &Home, script: &str) -> (Killed, BufReader<std::process::ChildStdout>) {
    let mut child =
        Killed(home.run(&[], script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut out = BufReader::new(child.0.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, out)
}

#[test]
fn a_signal_reaches_the_workload_which_ends_as_it_likes() {
    let Some(home) = Home::new("a_signal_reaches_the_workload_which_ends_as_it_likes") else {
        return;
    };
    let (mut child, mut out) =
        ready(&home, "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done");
    kill(child.0.id(), libc::SIGTERM);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), code(child.0.wait().unwrap())), ("caught\n", 9));
    home.assert_nothing_is_left();
}

#[test]
fn a_workload_that_doesnt_expect_a_signal_ends_by_it_as_it_would_outside() {
    let Some(home) = Home::new("a_workload_that_doesnt_expect_a_signal_ends_by_it_as_it_would_outside")
    else {
        return;
    };
    // `yes` expects nothing, and what it says proves that it runs; a shell before it could catch the signal.
    let args = ["run", "--accel", "tcg", "-m", "96Mi", "--network", "none", &home.image, "--", "yes"];
    let mut child = Killed(home.vimana(&args).stdout(Stdio::piped()).spawn().unwrap());
    let mut out = BufReader::new(child.0.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "y\n");
    let asked = Instant::now();
    kill(child.0.id(), libc::SIGINT);
    std::io::copy(&mut out, &mut std::io::sink()).unwrap();
    assert_eq!(code(child.0.wait().unwrap()), 130);
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    home.assert_nothing_is_left();
}

#[test]
fn a_second_signal_doesnt_wait_for_a_workload_that_ignores_the_first() {
    let Some(home) = Home::new("a_second_signal_doesnt_wait_for_a_workload_that_ignores_the_first") else {
        return;
    };
    let (mut child, _out) = ready(&home, "trap '' INT; echo ready; while :; do sleep 0.1; done");
    kill(child.0.id(), libc::SIGINT);
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.0.try_wait().unwrap().is_none(), "the first signal was to be ignored");
    kill(child.0.id(), libc::SIGINT);
    assert_eq!(code(child.0.wait().unwrap()), 130);
    home.assert_nothing_is_left();
}

#[test]
fn ctrl_c_while_the_guest_boots_ends_at_once() {
    let Some(home) = Home::new("ctrl_c_while_the_guest_boots_ends_at_once") else {
        return;
    };
    let mut child =
        Killed(home.run(&[], "echo ready").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    eventually("the machine starts", 20, || {
        home.processes().iter().any(|(_, name)| name.starts_with("qemu")).then_some(())
    });
    let asked = Instant::now();
    kill(child.0.id(), libc::SIGINT);
    assert_eq!(code(child.0.wait().unwrap()), 130);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    home.assert_nothing_is_left();
}

#[test]
fn a_reader_that_goes_away_ends_an_endless_writer() {
    let Some(home) = Home::new("a_reader_that_goes_away_ends_an_endless_writer") else {
        return;
    };
    let (mut child, out) = ready(&home, "echo ready; exec yes");
    drop(out);
    let status = eventually("the command ends", 20, || child.0.try_wait().unwrap());
    assert_eq!(code(status), 128 + libc::SIGPIPE);
    home.assert_nothing_is_left();
}

#[test]
fn a_terminal_has_the_person_s_size_and_passes_keys_on() {
    let name = "a_terminal_has_the_person_s_size_and_passes_keys_on";
    let Some(home) = Home::new(name) else { return };
    // `script` would do as well, but python's pty is on every Debian that builds this.
    let program = r#"
import os, pty, sys, time, struct, fcntl, termios
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 101, 0, 0))
seen, sent, resized = b"", False, False
while True:
    try:
        data = os.read(fd, 4096)
    except OSError:
        break
    if not data:
        break
    seen += data
    if b"ready" in seen and not sent:
        sent = True
        os.write(fd, b"stty size; tty; echo done-$((40+2))\r")
    if b"done-42" in seen and not resized:
        resized = True
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 17, 66, 0, 0))
        time.sleep(1)
        os.write(fd, b"stty size; exit 5\r")
_, status = os.waitpid(pid, 0)
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(status))
"#;
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        crate::support::skipped(name, "python3 isn't installed");
        return;
    }
    let run = home.run(&["-it"], "echo ready; exec sh");
    let mut driver = std::process::Command::new("python3");
    driver.arg("-c").arg(program).arg(run.get_program()).args(run.get_args()).env("VIMANA_HOME", home.path());
    let output = driver.output().unwrap();
    let seen = text(&output.stdout);
    for part in ["31 101", "/dev/", "17 66"] {
        assert!(seen.contains(part), "{part} isn't in {seen}");
    }
    assert_eq!(code(output.status), 5, "{seen}");
    home.assert_nothing_is_left();
}

#[test]
fn a_terminal_is_asked_for_only_where_there_is_one() {
    let Some(home) = Home::new("a_terminal_is_asked_for_only_where_there_is_one") else {
        return;
    };
    let mut child = home
        .run(&["-it"], "true")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"x").ok();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(output.status), 125);
    assert!(text(&output.stderr).contains("terminal"), "{}", text(&output.stderr));
}
