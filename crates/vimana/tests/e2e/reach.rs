//! Whom a spacecore reaches, on a machine and in a world that the test makes of network namespaces.
//!
//! ```text
//!  machine 203.0.113.2 ----- 203.0.113.1 world: 198.51.100.10, 2a00:1::10 (public)
//!  vimana runs here                             10.20.0.1, 192.168.7.7, 100.64.1.1, fd12::1 (private)
//!                                               169.254.169.254 (metadata)
//! ```

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Home, Killed, eventually, missing, skipped, text};

const PUBLIC: [&str; 3] = ["198.51.100.10", "2a00:1::10", "203.0.113.1"];
const PRIVATE: [&str; 4] = ["10.20.0.1", "192.168.7.7", "100.64.1.1", "fd12::1"];
/// Never reached, whatever is allowed: metadata, the machine's own addresses, its loopback.
const NEVER: [&str; 4] = ["169.254.169.254", "203.0.113.2", "127.0.0.1", "2001:db8:1::2"];

/// A process that holds a network namespace.
pub struct Holder(Child);

impl Holder {
    pub fn new() -> Self {
        let child = Command::new("unshare")
            .args(["--net", "--", "sleep", "600"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let there = format!("/proc/{}/ns/net", child.id());
        eventually("the namespace is made", 10, || {
            std::fs::read_link(&there).ok().filter(|name| *name != own).map(drop)
        });
        Self(child)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    pub fn run(&self, words: &str) {
        let net = format!("--net={}", self.path());
        let status = Command::new("nsenter").arg(net).args(words.split_whitespace()).status().unwrap();
        assert!(status.success(), "{words}");
    }

    /// Answers each connection to port 80 with one word, from a thread that is in the namespace.
    fn serve(&self) {
        let listener =
            self.make(|| TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 80))).unwrap());
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // Whoever has gone needs no answer.
                let _ = stream.write_all(b"reached\n");
            }
        });
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct World {
    pub machine: Holder,
    pub world: Holder,
}

impl World {
    pub fn new() -> Self {
        let (machine, world) = (Holder::new(), Holder::new());
        machine.run(&format!("ip link add v0 type veth peer name v1 netns {}", world.id()));
        for (holder, card, four, six) in [
            (&machine, "v0", "203.0.113.2/24", "2001:db8:1::2/64"),
            (&world, "v1", "203.0.113.1/24", "2001:db8:1::1/64"),
        ] {
            holder.run("ip link set lo up");
            holder.run(&format!("ip link set {card} up"));
            holder.run(&format!("ip addr add {four} dev {card}"));
            holder.run(&format!("ip addr add {six} dev {card} nodad"));
        }
        machine.run("ip route add default via 203.0.113.1");
        machine.run("ip -6 route add default via 2001:db8:1::1");
        for address in PUBLIC[..2].iter().chain(&PRIVATE).chain(&NEVER[..1]) {
            world.run(&format!("ip addr add {} dev lo", address));
        }
        machine.serve();
        world.serve();
        Self { machine, world }
    }

    /// `vimana run` of the image on the machine.
    fn run(&self, home: &Home, flags: &[&str], script: &str) -> Output {
        self.command(home, &[flags, &[home.image.as_str()]].concat(), script).output().unwrap()
    }

    /// `vimana run` on the machine, with what runs behind the flags.
    fn command(&self, home: &Home, flags: &[&str], script: &str) -> Command {
        let mut args = vec!["run", "--isolation", "Container"];
        args.extend(flags);
        args.extend(["--", "sh", "-c", script]);
        let wanted = home.vimana(&args);
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.machine.path()))
            .arg(wanted.get_program())
            .args(wanted.get_args());
        for (name, value) in wanted.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null());
        command
    }

    /// Which of the addresses answer.
    fn reached(&self, home: &Home, flags: &[&str]) -> Vec<String> {
        let all: Vec<&str> = PUBLIC.into_iter().chain(PRIVATE).chain(NEVER).collect();
        let script = format!(
            "for a in {}; do sleep 1 | timeout 3 nc -w 2 $a 80 2>/dev/null | grep -q reached && echo $a; done; echo tried",
            all.join(" ")
        );
        let output = self.run(home, flags, &script);
        let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
        assert_eq!(lines.pop().as_deref(), Some("tried"), "{}", text(&output.stderr));
        lines
    }
}

pub fn can(test: &str) -> bool {
    let lacks = ["nsenter", "unshare", "ip", "passt"].into_iter().find(|program| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    });
    let reason = lacks.map(|program| format!("{program} isn't installed")).or_else(|| missing("Container"));
    let reason = reason.or_else(|| (!rustix::process::geteuid().is_root()).then(|| "needs root".to_owned()));
    reason.inspect(|reason| skipped(test, reason)).is_none()
}

#[test]
fn a_spacecore_reaches_whom_its_manifest_allows_and_never_its_machine() {
    let test = "a_spacecore_reaches_whom_its_manifest_allows_and_never_its_machine";
    let Some(home) = Home::new(test) else { return };
    if !can(test) {
        return;
    }
    let world = World::new();
    assert_eq!(world.reached(&home, &[]), PUBLIC);
    // The same with nothing but the machine refused: the addresses are there to be reached.
    let all: Vec<&str> = PUBLIC.into_iter().chain(PRIVATE).collect();
    assert_eq!(world.reached(&home, &["--allow-to", "any"]), all);
    let two = ["--allow-to", "10.20.0.1:80/tcp", "--allow-to", "fd12::/16", "--allow-to", "192.168.7.7:81"];
    assert_eq!(world.reached(&home, &two), ["10.20.0.1", "fd12::1"]);
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
    let output = world.run(&home, &[], script);
    assert_eq!(text(&output.stdout), "soon\n", "{}", text(&output.stderr));
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

impl Holder {
    /// A socket that is made in the namespace.
    pub fn make<T: Send + 'static>(&self, make: impl FnOnce() -> T + Send + 'static) -> T {
        let path = self.path();
        let made = thread::spawn(move || {
            let namespace = std::fs::File::open(path).unwrap();
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            make()
        });
        made.join().unwrap()
    }
}

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
    let test = "rates_hold_within_five_percent_in_both_directions";
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
        let mut command = world.command(&home, &[flags, &[manifest]].concat(), script);
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
