//! Whom a spacecore reaches, whoever carries its network.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Home, Killed, skipped, text};
use crate::world::{CARRIERS, PRIVATE, PUBLIC, World, can};

#[test]
fn a_spacecore_reaches_whom_its_manifest_allows_and_never_its_machine() {
    let test = "a_spacecore_reaches_whom_its_manifest_allows_and_never_its_machine";
    let Some(home) = Home::new(test) else { return };
    if !can(test) {
        return;
    }
    let world = World::new();
    for carrier in CARRIERS {
        let reached = |flags: &[&str]| world.reached(&home, &[&["--carrier", carrier], flags].concat());
        assert_eq!(reached(&[]), PUBLIC, "{carrier}");
        // The same with nothing but the machine refused: the addresses are there to be reached.
        let all: Vec<&str> = PUBLIC.into_iter().chain(PRIVATE).collect();
        assert_eq!(reached(&["--allow-to", "any"]), all, "{carrier}");
        let two =
            ["--allow-to", "10.20.0.1:80/tcp", "--allow-to", "fd12::/16", "--allow-to", "192.168.7.7:81"];
        assert_eq!(reached(&two), ["10.20.0.1", "fd12::1"], "{carrier}");
    }
    home.assert_nothing_is_left();
}

#[test]
fn who_is_held_back_is_told_at_once() {
    let test = "who_is_held_back_is_told_at_once";
    let Some(home) = Home::new(test) else { return };
    if !can(test) {
        return;
    }
    let world = World::new();
    let script = "begin=$(date +%s); for a in 10.20.0.1 fd12::1 169.254.169.254; do nc -w 20 $a 80 </dev/null; done; \
                  [ $(($(date +%s) - begin)) -lt 5 ] && echo soon";
    for carrier in CARRIERS {
        let output = world.run(&home, &["--carrier", carrier], script);
        assert_eq!(text(&output.stdout), "soon\n", "{carrier}: {}", text(&output.stderr));
    }
    home.assert_nothing_is_left();
}

/// What a sender has put into 10 s, and the rate at which it came out, in bits a second.
#[derive(Debug)]
struct Measured {
    what: &'static str,
    bits: f64,
    wanted: f64,
}

/// How long traffic is measured, after what a burst lets through.
const MEASURED: Duration = Duration::from_secs(10);
const SETTLES: Duration = Duration::from_secs(1);
const OUT: f64 = 20e6;
const IN: f64 = 40e6;
/// Beside the bytes that are counted, the headers that the limit counts: of a datagram of 1400 bytes.
const DATAGRAM: f64 = 1428.0 / 1400.0;

/// Counts what comes for as long as it is measured.
fn count(mut receive: impl FnMut() -> usize) -> f64 {
    let begin = Instant::now();
    while begin.elapsed() < SETTLES {
        receive();
    }
    let (begin, mut bytes) = (Instant::now(), 0);
    while begin.elapsed() < MEASURED {
        bytes += receive();
    }
    bytes as f64 * 8.0 / begin.elapsed().as_secs_f64()
}

#[test]
fn rates_hold_within_five_percent_in_both_directions() {
    rates_hold("rates_hold_within_five_percent_in_both_directions", "routed");
}

#[test]
fn rates_hold_within_five_percent_in_both_directions_through_passt() {
    rates_hold("rates_hold_within_five_percent_in_both_directions_through_passt", "passt");
}

fn rates_hold(test: &str, carrier: &str) {
    let Some(home) = Home::new(test) else { return };
    if !can(test) {
        return;
    }
    if Command::new("perl").arg("-v").output().is_err() {
        return skipped(test, "perl isn't installed");
    }
    let world = World::new();
    let manifest = home.path().join("rates.toml");
    let image = &home.image;
    let words = "[spec.networking]\negress = \"20Mbps\"\ningress = \"40Mbps\"\n";
    std::fs::write(&manifest, format!("[spec.deployment]\nimage = \"{image}\"\n{words}")).unwrap();
    let manifest = manifest.to_str().unwrap();
    let begin = |flags: &[&str], script: &str| {
        let flags = [&["--carrier", carrier], flags, &[manifest]].concat();
        let mut command = world.command(&home, &flags, script);
        Killed(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    };
    // The image has no program that sends datagrams; every Debian has perl.
    let folders =
        ["-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro", "-e", "PATH=/bin:/usr/bin"];
    let tcp = || world.world.make(|| TcpListener::bind("198.51.100.10:9000").unwrap());
    let mut measured = Vec::new();

    let listener = tcp();
    let sender = begin(&[], "nc 198.51.100.10 9000 </dev/zero");
    let (mut stream, _) = listener.accept().unwrap();
    let mut buffer = vec![0; 65_536];
    let bits = count(|| stream.read(&mut buffer).unwrap());
    measured.push(Measured { what: "TCP out", bits, wanted: OUT });
    drop((sender, stream, listener));

    let listener = tcp();
    let mut receiver = begin(&[], "nc 198.51.100.10 9000 </dev/null");
    let (mut stream, _) = listener.accept().unwrap();
    let flood = thread::spawn(move || while stream.write_all(&[0; 65_536]).is_ok() {});
    let mut output = receiver.0.stdout.take().unwrap();
    let bits = count(|| output.read(&mut buffer).unwrap());
    measured.push(Measured { what: "TCP in", bits, wanted: IN });
    drop((output, receiver, listener));
    flood.join().unwrap();

    let socket = world.world.make(|| UdpSocket::bind("198.51.100.10:9000").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let send = "perl -MSocket -e 'socket(S, PF_INET, SOCK_DGRAM, 0); $to = sockaddr_in(9000, inet_aton(\"198.51.100.10\")); \
                while (1) { send(S, \"x\" x 1400, 0, $to) }'";
    let sender = begin(&folders, send);
    let bits = count(|| socket.recv(&mut buffer).unwrap());
    measured.push(Measured { what: "UDP out", bits: bits * DATAGRAM, wanted: OUT });
    drop((sender, socket));

    let receive = "perl -MSocket -e '$| = 1; socket(S, PF_INET, SOCK_DGRAM, 0); bind(S, sockaddr_in(9000, INADDR_ANY)); \
                   print \"ready\\n\"; while (1) { recv(S, $b, 65536, 0); print $b }'";
    let mut receiver = begin(&[&folders[..], &["-p", "203.0.113.2:9000:9000/udp"]].concat(), receive);
    let mut output = receiver.0.stdout.take().unwrap();
    output.read_exact(&mut [0; 6]).unwrap();
    let socket = world.world.make(|| UdpSocket::bind("203.0.113.1:0").unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let flood = thread::spawn(move || {
        // Some 90 Mbit/s.
        while !stopped.load(Ordering::Relaxed) {
            for _ in 0..8 {
                let _ = socket.send_to(&[0; 1400], "203.0.113.2:9000");
            }
            thread::sleep(Duration::from_millis(1));
        }
    });
    let bits = count(|| output.read(&mut buffer).unwrap());
    measured.push(Measured { what: "UDP in", bits: bits * DATAGRAM, wanted: IN });
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    drop((output, receiver));

    for Measured { what, bits, wanted } in &measured {
        assert!((bits / wanted - 1.0).abs() <= 0.05, "{what}: {measured:#?}");
    }
    home.assert_nothing_is_left();
}
