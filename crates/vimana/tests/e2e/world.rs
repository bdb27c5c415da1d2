//! A machine and a world, made of network namespaces, that spacecores run on and reach.
//!
//! ```text
//!  machine 203.0.113.2 ----- 203.0.113.1 world: 198.51.100.10, 2a00:1::10 (public)
//!  vimana runs here                             10.20.0.1, 192.168.7.7, 100.64.1.1, fd12::1 (private)
//!                                               169.254.169.254 (metadata)
//! ```

use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use crate::support::{Home, eventually, missing, skipped, text};

pub const PUBLIC: [&str; 2] = ["198.51.100.10", "2a00:1::10"];
/// The last two are the machine's neighbour, whose addresses look public.
pub const PRIVATE: [&str; 6] =
    ["10.20.0.1", "192.168.7.7", "100.64.1.1", "fd12::1", "203.0.113.1", "2001:db8:1::1"];
/// Never reached, whatever is allowed: metadata, the machine's own addresses, its loopback.
pub const NEVER: [&str; 4] = ["169.254.169.254", "203.0.113.2", "127.0.0.1", "2001:db8:1::2"];

/// Who can carry a network, as the command line calls them.
pub const CARRIERS: [&str; 2] = ["routed", "passt"];

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

    /// What a program in the namespace prints.
    pub fn says(&self, words: &str) -> String {
        let net = format!("--net={}", self.path());
        let output = Command::new("nsenter").arg(net).args(words.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "{words}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Answers each connection to port 80 with one word, from a thread that is in the namespace.
    pub fn serve(&self) {
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
        machine.run(&format!("ip link add v0 type veth peer name v1 netns {}", world.0.id()));
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
        for address in PUBLIC.iter().chain(&PRIVATE[..4]).chain(&NEVER[..1]) {
            world.run(&format!("ip addr add {} dev lo", address));
        }
        machine.serve();
        world.serve();
        Self { machine, world }
    }

    /// `vimana run` of the image on the machine.
    pub fn run(&self, home: &Home, flags: &[&str], script: &str) -> Output {
        self.command(home, &[flags, &[home.image.as_str()]].concat(), script).output().unwrap()
    }

    /// `vimana run` on the machine, with what runs behind the flags.
    pub fn command(&self, home: &Home, flags: &[&str], script: &str) -> Command {
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
    pub fn reached(&self, home: &Home, flags: &[&str]) -> Vec<String> {
        let all: Vec<&str> = PUBLIC.into_iter().chain(PRIVATE).chain(NEVER).collect();
        let script = format!(
            "for a in {}; do (sleep 1 | timeout 3 nc -w 2 $a 80 2>/dev/null | grep -q reached && echo $a) & done; wait; echo tried",
            all.join(" ")
        );
        let output = self.run(home, flags, &script);
        let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
        assert_eq!(lines.pop().as_deref(), Some("tried"), "{}", text(&output.stderr));
        lines.sort_by_key(|line| all.iter().position(|address| address == line));
        lines
    }
}

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

/// Whether these tests can be run here; says why not.
pub fn can(test: &str) -> bool {
    let lacks = ["nsenter", "unshare", "ip", "nft", "passt"].into_iter().find(|program| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    });
    let reason = lacks.map(|program| format!("{program} isn't installed")).or_else(|| missing("Container"));
    let reason = reason.or_else(|| (!rustix::process::geteuid().is_root()).then(|| "needs root".to_owned()));
    reason.inspect(|reason| skipped(test, reason)).is_none()
}
