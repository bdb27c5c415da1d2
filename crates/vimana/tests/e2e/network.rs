//! The network of a spacecore: what reaches it, and what it reaches.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Home, Killed, code, eventually, kill, missing, page, skipped, text};

fn has_passt(test: &str) -> bool {
    let there = std::process::Command::new("passt").arg("--version").output().is_ok();
    if !there {
        skipped(test, "passt isn't installed");
    }
    there
}

/// Who can carry a network here.
pub fn carriers(test: &str) -> Vec<&'static str> {
    let routed = rustix::process::geteuid().is_root().then_some("routed");
    routed.into_iter().chain(has_passt(test).then_some("passt")).collect()
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `vimana run` of the image with a network, and this shell command.
fn run(home: &Home, flags: &[&str], script: &str) -> std::process::Command {
    let manifest = home.path().join("net.toml");
    let text_of = format!(
        "[spec.deployment]\nimage = \"{}\"\n[spec.resources]\nmemory = \"96Mi\"\n[spec.networking]\nnetwork_type = \"public\"\n",
        home.image
    );
    std::fs::write(&manifest, text_of).unwrap();
    let mut args = vec!["run", "--accel", "tcg"];
    args.extend(flags);
    args.extend([manifest.to_str().unwrap(), "--", "sh", "-c", script]);
    home.vimana(&args)
}

#[test]
fn a_published_port_answers_from_inside_and_only_on_loopback() {
    let test = "a_published_port_answers_from_inside_and_only_on_loopback";
    let Some(home) = Home::new(test) else { return };
    for carrier in carriers(test) {
        answers_on_loopback(&home, carrier);
    }
}

fn answers_on_loopback(home: &Home, carrier: &str) {
    let port = free_port();
    let script = "echo hello from $(uname -n) > /www/index.html; httpd -f -p 8080 -h /www & echo ready; wait";
    let mut child = Killed(
        run(home, &["--carrier", carrier, "-p", &format!("{port}:8080")], script)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    // passt gives up a connection after 10 s that the guest doesn't hear of: it must hear of the first one.
    let answer = eventually("the server answers", 8, || {
        let answer = page(port, Duration::from_secs(5))?;
        answer.contains("hello from").then_some(answer)
    });
    assert!(answer.contains("200 OK"), "{answer}");
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let listening: Vec<&str> =
        sockets.lines().filter(|line| line.contains(&format!(":{port:04X} 00000000:0000 0A"))).collect();
    assert!(
        !listening.is_empty() && listening.iter().all(|line| line.contains("0100007F:")),
        "{listening:?}"
    );
}

#[test]
fn services_of_the_host_s_loopback_cant_be_reached() {
    let test = "services_of_the_host_s_loopback_cant_be_reached";
    let Some(home) = Home::new(test) else { return };
    for carrier in carriers(test) {
        knocks_in_vain(&home, carrier);
    }
}

fn knocks_in_vain(home: &Home, carrier: &str) {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    service.set_nonblocking(true).unwrap();
    let port = service.local_addr().unwrap().port();
    let script = format!(
        "for a in 127.0.0.1 $(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p') 10.0.2.2 169.254.169.254 \
         $(sed -n 's/nameserver //p' /etc/resolv.conf); do echo knock | timeout 2 nc $a {port}; done; \
         ip route | grep -c '^default'; echo tried"
    );
    let output = run(home, &["--carrier", carrier], &script).output().unwrap();
    // The second-last line shows that there was a network to try it on.
    assert!(text(&output.stdout).ends_with("1\ntried\n"), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(service.accept().is_err(), "the guest reached a service of the host's loopback");
    home.assert_nothing_is_left();
}

#[test]
fn a_port_in_use_is_named_before_the_machine_boots() {
    let test = "a_port_in_use_is_named_before_the_machine_boots";
    let Some(home) = Home::new(test) else { return };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for carrier in carriers(test) {
        let publish = format!("{port}:80");
        let output = run(&home, &["--carrier", carrier, "-p", &publish], "true").output().unwrap();
        assert_eq!(code(output.status), 125, "{carrier}");
        assert!(text(&output.stderr).contains(&port.to_string()), "{}", text(&output.stderr));
    }
    home.assert_nothing_is_left();
}

#[test]
fn a_spacecore_whose_network_dies_doesnt_go_on_as_if_nothing_were_wrong() {
    let test = "a_spacecore_whose_network_dies_doesnt_go_on_as_if_nothing_were_wrong";
    let Some(home) = Home::new(test) else { return };
    if !has_passt(test) {
        return;
    }
    let mut child = Killed(
        run(&home, &["--carrier", "passt"], "echo ready; exec sleep 1000")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let keeper = home.processes().into_iter().map(|(pid, _)| pid).find(|pid| passt_of(*pid).is_some());
    kill(passt_of(keeper.unwrap()).unwrap(), libc::SIGKILL);
    let mut said = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(code(child.0.wait().unwrap()), 125, "{said}");
    assert!(said.contains("passt"), "{said}");
    home.assert_nothing_is_left();
}

/// The passt that is a child of this process.
fn passt_of(parent: i32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let mut pids = children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
    pids.find(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("passt"))
    })
}

#[test]
fn a_server_that_speaks_first_is_heard_by_a_client_that_says_nothing() {
    let test = "a_server_that_speaks_first_is_heard_by_a_client_that_says_nothing";
    let Some(home) = Home::new(test) else { return };
    if let Some(reason) = missing("Container") {
        return skipped(test, &reason);
    }
    let script = "while :; do echo 220 ready | nc -l -p 25; done";
    let port = free_port();
    let publish = format!("{port}:25");
    let args = ["run", "--isolation", "Container", "-p", &publish, &home.image, "--", "sh", "-c", script];
    let mut child = Killed(home.vimana(&args).stderr(Stdio::null()).spawn().unwrap());
    let greeting = eventually("the server greets", 30, || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).ok()?;
        let mut bytes = [0; 64];
        let count = stream.read(&mut bytes).ok().filter(|count| *count > 0)?;
        Some(text(&bytes[..count]))
    });
    assert_eq!(greeting, "220 ready\n");
    kill(child.0.id(), libc::SIGTERM);
    child.0.wait().unwrap();
    home.assert_nothing_is_left();
}
