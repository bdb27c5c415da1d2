//! By the network: other machines, the host, its services, and neighbours, by every way that frames can take.
//!
//! ```text
//!  bare 10.99.0.2 --- 10.99.0.1 machine 203.0.113.2 ----- 203.0.113.1 world: public, private and metadata addresses
//!  (a wire without             the guests are here
//!   any defence)
//! ```
//!
//! Everybody who may be attacked writes down what he hears. An attack has succeeded if its word was heard, whatever the attacker
//! believes.

use std::collections::HashMap;
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::{INSIDE, Table, done, said, shown, tries};
use crate::support::{Home, Killed, eventually, page_of, skipped, text};
use crate::world::{self, Holder, World};

const PORT: u16 = 7000;
/// The rate that the flood is held to, and for how long it flows.
const RATE: usize = 2_000_000;
const SECONDS: usize = 3;
/// Addresses of the world that nobody but the attacks asks for.
const OTHERS: [&str; 5] =
    ["198.51.100.53", "100.100.100.200", "fd00:ec2::254", "64:ff9b::a14:1", "2002:a14:1::1"];

/// Where an attack is tried without its defence.
#[derive(Clone, Copy, PartialEq)]
enum Bare {
    /// On a wire to the machine, which forwards everything.
    Wire,
    /// By a process of the machine itself.
    Machine,
}
use Bare::{Machine, Wire};

/// How it is found out whether it succeeded.
#[derive(Clone, Copy, PartialEq)]
enum Judge {
    /// Somebody has heard its word.
    Heard,
    /// The attacker has got an answer that nobody else could give.
    Answered,
    /// Somebody has heard its word from this address.
    HeardFrom(&'static str),
    /// The machine itself has heard its word.
    HeardHere,
    /// The machine knows the attacker's false hardware address.
    KnownNeighbour,
    /// The machine has an address of the attacker's network.
    NewAddress,
}
use Judge::{Answered, Heard, HeardFrom, HeardHere, KnownNeighbour, NewAddress};

struct Attack {
    name: &'static str,
    command: &'static str,
    bare: Bare,
    judge: Judge,
}

const fn heard(name: &'static str, command: &'static str) -> Attack {
    Attack { name, command, bare: Wire, judge: Heard }
}

const fn answered(name: &'static str, command: &'static str) -> Attack {
    Attack { name, command, bare: Wire, judge: Answered }
}

/// Under the policy that everybody has who doesn't ask for another.
static ATTACKS: &[Attack] = &[
    heard("connect to the machine's address", "tcp 203.0.113.2 7000"),
    heard("connect to the machine's IPv6 address", "tcp 2001:db8:1::2 7000"),
    heard("send a datagram to the machine", "udp 203.0.113.2 7000"),
    heard("send a datagram to the machine over IPv6", "udp 2001:db8:1::2 7000"),
    // Where the guest shares the machine's address its gateway is the machine's, whom it may reach.
    Attack {
        name: "connect to the machine as its gateway",
        command: "gateway 7000",
        bare: Wire,
        judge: HeardHere,
    },
    answered("find an open port of the machine", "scan 203.0.113.2 6000 8000"),
    Attack {
        name: "connect to the machine's loopback",
        command: "tcp 127.0.0.1 7000",
        bare: Machine,
        judge: Heard,
    },
    Attack {
        name: "connect to the machine's IPv6 loopback",
        command: "tcp ::1 7000",
        bare: Machine,
        judge: Heard,
    },
    answered("connect to a neighbour's published port", "tcp 203.0.113.2 8088"),
    heard("send to everybody on the wire", "udp 255.255.255.255 7000"),
    heard("send to all IPv6 nodes on the wire", "udp ff02::1 7000"),
    heard("connect to a private network, 10/8", "tcp 10.20.0.1 7000"),
    heard("connect to a private network, 192.168/16", "tcp 192.168.7.7 7000"),
    heard("connect to a private network, 100.64/10", "tcp 100.64.1.1 7000"),
    heard("connect to a private network, fc00::/7", "tcp fd12::1 7000"),
    heard("send a datagram to a private network", "udp 10.20.0.1 7000"),
    answered("ping a private network", "ping 10.20.0.1"),
    answered("ping a private network over IPv6", "ping fd12::1"),
    heard("connect to a private address inside NAT64", "tcp 64:ff9b::a14:1 7000"),
    heard("connect to a private address inside 6to4", "tcp 2002:a14:1::1 7000"),
    heard("connect to a cloud's metadata", "tcp 169.254.169.254 7000"),
    heard("connect to a cloud's metadata, another's address", "tcp 100.100.100.200 7000"),
    heard("connect to a cloud's metadata over IPv6", "tcp fd00:ec2::254 7000"),
    heard("reach a private network by a name", "rebind rebind.test 7000"),
    heard("reach a private network in fragments", "fragment 10.20.0.1 7000"),
    heard("reach a private network by a source route", "route 10.20.0.1 198.51.100.10 7001"),
    heard("reach a private network in a connection never opened", "segment 10.20.0.1 7000"),
    heard("speak a protocol that nobody judges", "protocol 253 198.51.100.10"),
    Attack {
        name: "send from an address of others",
        command: "forge 198.51.100.77 198.51.100.10 7000",
        bare: Wire,
        judge: HeardFrom("198.51.100.77"),
    },
    Attack {
        name: "have an address of others (ARP)",
        command: "arp 10.99.0.77",
        bare: Wire,
        judge: KnownNeighbour,
    },
    heard("send from a hardware address of others", "mac 255.255.255.255 7000"),
    Attack {
        name: "be the machine's router (RA)",
        command: "router 2001:db8:bad::",
        bare: Wire,
        judge: NewAddress,
    },
    heard("be the machine's DHCP server", "dhcp"),
];

/// Under a list of names and a rate.
static LISTED: &[Attack] = &[
    heard("reach a private network by a name that is allowed", "rebind rebind.test 7000"),
    heard("tell a name server something in a name", "name evil.test"),
    heard("connect to a public address that isn't listed", "tcp 198.51.100.10 7000"),
];

/// A port on which the world listens at a private address alone.
const PRIVATE_PORT: u16 = 7001;

/// Who has said which word to whom, and how many bytes came with it.
type Notes = Arc<Mutex<HashMap<String, (Vec<(String, &'static str)>, usize)>>>;

fn note(notes: &Notes, bytes: &[u8], from: &str, to: &'static str) {
    let text = String::from_utf8_lossy(bytes);
    let Some(begin) = text.find("try-") else { return };
    let word: String = text[begin..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let mut notes = notes.lock().unwrap();
    let (who, count) = notes.entry(word).or_default();
    let pair = (from.to_owned(), to);
    if !who.contains(&pair) {
        who.push(pair);
    }
    *count += bytes.len();
}

/// Listens to everything on one machine.
fn listen(holder: &Holder, notes: &Notes, here: &'static str, at: &[(IpAddr, u16)]) {
    for address in at.iter().copied() {
        let tcp = holder.make(move || TcpListener::bind(address).unwrap());
        let (notes, of_datagrams) = (Arc::clone(notes), Arc::clone(notes));
        thread::spawn(move || {
            while let Ok((mut stream, from)) = tcp.accept() {
                let notes = Arc::clone(&notes);
                thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                    let mut all = Vec::new();
                    // What was heard until then counts.
                    let _ = stream.read_to_end(&mut all);
                    note(&notes, &all, &from.ip().to_canonical().to_string(), here);
                });
            }
        });
        let udp = holder.make(move || UdpSocket::bind(address).unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 2000];
            while let Ok((count, from)) = udp.recv_from(&mut buffer) {
                note(&of_datagrams, &buffer[..count], &from.ip().to_canonical().to_string(), here);
            }
        });
    }
}

/// Hears every packet of these protocols.
fn overhear(holder: &Holder, notes: &Notes) {
    for protocol in [6, 253] {
        let socket: OwnedFd = holder.make(move || {
            use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
            let protocol = Protocol::from_raw(std::num::NonZeroU32::new(protocol).unwrap());
            socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)).unwrap()
        });
        let notes = Arc::clone(notes);
        thread::spawn(move || {
            let mut buffer = [0; 2000];
            while let Ok((count, _)) =
                rustix::net::recv(&socket, &mut buffer[..], rustix::net::RecvFlags::empty())
            {
                note(&notes, &buffer[..count], "raw", "world");
            }
        });
    }
}

/// A name server of the world: every name leads to a private address.
fn resolve(holder: &Holder, notes: &Notes) {
    let socket = holder.make(|| UdpSocket::bind("198.51.100.53:53").unwrap());
    let notes = Arc::clone(notes);
    thread::spawn(move || {
        let mut buffer = [0; 1000];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let mut answer = buffer[..count].to_vec();
            note(&notes, &answer, "dns", "world");
            // One answer, an address, whatever was asked for; what came behind the question is left out.
            let end = 12 + answer[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            answer.truncate(end);
            (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
            answer[8..12].fill(0);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 10, 20, 0, 1]);
            let _ = socket.send_to(&answer, from);
        }
    });
}

/// The worlds, everybody who listens in them, and a neighbour that serves.
struct Stage {
    _neighbour: Killed,
    world: World,
    bare: Holder,
    notes: Notes,
    home: Home,
    program: std::path::PathBuf,
    resolv: std::path::PathBuf,
}

impl Stage {
    fn new(test: &str) -> Option<Self> {
        let program = super::can(test)?;
        let home = Home::new(test)?;
        if !world::can(test) {
            return None;
        }
        if Command::new("nft").arg("--version").output().is_err() {
            skipped(test, "nft isn't installed");
            return None;
        }
        let (world, bare, notes) = (World::new(), Holder::new(), Notes::default());
        for address in OTHERS {
            world.world.run(&format!("ip addr add {address} dev lo"));
        }
        let machine = &world.machine;
        machine.run(&format!("ip link add b0 type veth peer name eth0 netns {}", bare.id()));
        for (holder, card, four, six) in
            [(machine, "b0", "10.99.0.1/24", "fd99::1/64"), (&bare, "eth0", "10.99.0.2/24", "fd99::2/64")]
        {
            holder.run("ip link set lo up");
            holder.run(&format!("ip link set {card} up"));
            holder.run(&format!("ip addr add {four} dev {card}"));
            holder.run(&format!("ip addr add {six} dev {card} nodad"));
        }
        bare.run("ip route add default via 10.99.0.1");
        bare.run("ip -6 route add default via fd99::1");
        // Nothing of the machine's own shall be what holds an attack back: it forwards everything, believes every router,
        // and lets senders choose their ways.
        for (holder, setting) in [
            (machine, "net.ipv4.ip_forward=1"),
            (machine, "net.ipv6.conf.all.forwarding=1"),
            (machine, "net.ipv6.conf.all.accept_ra=2"),
            (machine, "net.ipv6.conf.default.accept_ra=2"),
            (machine, "net.ipv6.conf.b0.accept_ra=2"),
            (machine, "net.ipv4.conf.all.accept_source_route=1"),
            (machine, "net.ipv4.conf.b0.accept_source_route=1"),
            (machine, "net.ipv4.conf.v0.accept_source_route=1"),
            (&world.world, "net.ipv4.conf.all.accept_source_route=1"),
            (&world.world, "net.ipv4.conf.v1.accept_source_route=1"),
            (&world.world, "net.ipv4.ip_forward=1"),
        ] {
            holder.run(&format!("sysctl -qw {setting}"));
        }
        machine.run("nft add table inet bare");
        machine.run("nft add chain inet bare out { type nat hook postrouting priority srcnat ; }");
        machine.run("nft add rule inet bare out ip saddr 10.99.0.0/24 oifname v0 masquerade");
        machine.run("nft add rule inet bare out ip6 saddr fd99::/64 oifname v0 masquerade");
        let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
        listen(machine, &notes, "machine", &[(any, PORT), (any, 68)]);
        let private = IpAddr::from([10, 20, 0, 1]);
        listen(&world.world, &notes, "world", &[(any, PORT), (private, PRIVATE_PORT)]);
        overhear(&world.world, &notes);
        resolve(&world.world, &notes);
        let resolv = home.path().join("resolv.conf");
        std::fs::write(&resolv, "nameserver 198.51.100.53\n").unwrap();
        let neighbour = serve(&world, &home);
        Some(Self { world, bare, notes, home, program, resolv, _neighbour: neighbour })
    }

    /// A program, in a network namespace, with the world's name server.
    fn command(&self, holder: &Holder, program: &str, args: &[String]) -> Command {
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", holder.path())).args(["unshare", "--mount", "sh", "-c", script]);
        command.arg(&self.resolv).arg(program).args(args);
        command.env("VIMANA_HOME", self.home.path()).stdin(Stdio::null());
        command
    }

    /// What the attacker says of these, where nothing holds them back.
    fn bare(&self, holder: &Holder, all: &[(String, String)]) -> String {
        let program = self.program.display().to_string();
        text(&self.command(holder, &program, &tries(all)).output().unwrap().stdout)
    }

    /// What it says of them in a guest with a manifest of these lines.
    fn guest(&self, flags: &[&str], lines: &str, all: &[(String, String)]) -> String {
        let manifest = self.home.path().join("attack.toml");
        let image = &self.home.image;
        let text_of =
            format!("[spec.deployment]\nimage = {image:?}\n[spec.resources]\nmemory = \"128Mi\"\n{lines}");
        std::fs::write(&manifest, text_of).unwrap();
        let own = ["run", "--name", "attacker", "-v"].map(str::to_owned).into_iter();
        let mut args: Vec<String> = own.chain([shown(&self.program)]).collect();
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        args.extend([manifest.display().to_string(), "--".to_owned(), INSIDE.to_owned()]);
        args.extend(tries(all));
        let output = self.command(&self.world.machine, crate::vimana::VIMANA, &args).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Whether the machine serves what its neighbours publish.
    fn neighbour_serves(&self) -> bool {
        let stream = self.world.world.make(|| std::net::TcpStream::connect("203.0.113.2:8088").unwrap());
        page_of(stream, Duration::from_secs(10)).is_some_and(|page| page.contains("still here"))
    }

    fn judge(&self, judge: Judge, word: &str, output: &str) -> bool {
        // What was sent last may be on its way.
        let heard = |fits: &dyn Fn(&str, &str) -> bool| {
            let notes = self.notes.lock().unwrap();
            notes.get(word).is_some_and(|(who, _)| who.iter().any(|(from, to)| fits(from, to)))
        };
        let shows = |command: &str, what: &str| {
            let mut looks = Command::new("nsenter");
            looks.arg(format!("--net={}", self.world.machine.path())).args(command.split(' '));
            text(&looks.output().unwrap().stdout).contains(what)
        };
        match judge {
            Heard => heard(&|_, _| true),
            HeardFrom(wanted) => heard(&|from, _| from == wanted),
            HeardHere => heard(&|_, to| to == "machine"),
            Answered => done(output, word),
            KnownNeighbour => shows("ip neighbour", "02:00:00:ba:d0:01"),
            NewAddress => shows("ip -6 address", "2001:db8:bad:"),
        }
    }

    /// Tries attacks in a guest and where nothing holds them back.
    fn attack(&self, table: &mut Table, from: &'static str, flags: &[&str], lines: &str, attacks: &[Attack]) {
        let numbered = |kind: &str, of: Option<Bare>| -> Vec<(String, String)> {
            let fits = |attack: &&Attack| of.is_none_or(|bare| attack.bare == bare);
            let words = |attack: &Attack| {
                let number =
                    ATTACKS.iter().chain(LISTED).position(|other| other.name == attack.name).unwrap();
                (format!("try-{kind}-{number}"), attack.command.to_owned())
            };
            attacks.iter().filter(fits).map(words).collect()
        };
        let in_guest = numbered(from, None);
        let output = self.guest(flags, lines, &in_guest);
        thread::sleep(Duration::from_millis(300));
        let guarded: Vec<bool> = attacks
            .iter()
            .zip(&in_guest)
            .map(|(attack, (word, _))| self.judge(attack.judge, word, &output))
            .collect();
        assert!(self.neighbour_serves(), "an attack from a {from} has ended the neighbour");
        let kind = format!("{from}-bare");
        let bare_output = [
            self.bare(&self.bare, &numbered(&kind, Some(Wire))),
            self.bare(&self.world.machine, &numbered(&kind, Some(Machine))),
        ]
        .concat();
        thread::sleep(Duration::from_millis(300));
        for (place, attack) in attacks.iter().enumerate() {
            let (word, _) = &in_guest[place];
            let bare_word = word.replacen(from, &kind, 1);
            let bare = self.judge(attack.judge, &bare_word, &bare_output);
            table.row(attack.name, from, guarded[place], bare, said(&output, word));
        }
        // What the bare attacks have left must not count for the next guest.
        self.world.machine.run("ip neighbour flush dev b0");
        self.world.machine.run("ip -6 route flush proto ra");
        self.world.machine.run("ip -6 address flush dev b0 scope global");
        self.world.machine.run("ip address add fd99::1/64 dev b0 nodad");
    }

    /// How many times its rate a flood has brought to the world.
    fn flood(&self, word: &str) -> f64 {
        let bytes = self.notes.lock().unwrap().get(word).map_or(0, |(_, bytes)| *bytes);
        (bytes * 8) as f64 / (RATE * SECONDS) as f64
    }
}

/// A neighbour on the machine whose page says that it is there.
fn serve(world: &World, home: &Home) -> Killed {
    let script = "echo still here > /www/index.html; httpd -f -p 80 -h /www";
    let args = ["run", "--isolation", "Container", "--name", "neighbour", "-p", "203.0.113.2:8088:80"];
    let wanted = home.vimana(&[&args[..], &[&home.image, "--", "sh", "-c", script]].concat());
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", world.machine.path())).arg(wanted.get_program()).args(wanted.get_args());
    command.env("VIMANA_HOME", home.path()).stdin(Stdio::null()).stdout(Stdio::null());
    let neighbour = Killed(command.spawn().unwrap());
    eventually("the neighbour serves", 30, || {
        let stream = world.world.make(|| std::net::TcpStream::connect("203.0.113.2:8088").ok())?;
        page_of(stream, Duration::from_secs(5)).filter(|page| page.contains("still here"))
    });
    neighbour
}

#[test]
fn nobody_is_reached_who_isn_t_meant_to_be() {
    let test = "nobody_is_reached_who_isn_t_meant_to_be";
    let Some(stage) = Stage::new(test) else { return };
    let mut table = Table::new();
    // Whom the kernel carries, and beside them one whom passt does.
    let through_passt: &[&str] = &["--isolation", "Container", "--carrier", "passt"];
    for (from, flags) in super::guests(test).chain([("passt", through_passt)]) {
        stage.attack(&mut table, from, flags, "", ATTACKS);
    }
    table.judge();
}

#[test]
fn a_list_of_names_and_a_rate_are_all_there_is() {
    let test = "a_list_of_names_and_a_rate_are_all_there_is";
    let Some(stage) = Stage::new(test) else { return };
    let mut table = Table::new();
    for (from, flags) in super::guests(test) {
        let lines = "[spec.networking]\nallow_to = [\"rebind.test\", \"198.51.100.10:7000/udp\"]\n";
        stage.attack(&mut table, from, flags, lines, LISTED);
        let flood = |word: &str| vec![(word.to_owned(), format!("flood 198.51.100.10 {PORT} {SECONDS}"))];
        let (held, free) = (format!("try-{from}-flood"), format!("try-{from}-bare-flood"));
        let limited = format!("{lines}egress = \"2Mbps\"\n");
        stage.guest(flags, &limited, &flood(&held));
        stage.guest(flags, lines, &flood(&free));
        thread::sleep(Duration::from_millis(300));
        let (rate, without) = (stage.flood(&held), stage.flood(&free));
        let words = format!("{rate:.2} of its rate, and {without:.1} without one");
        // A burst and the queues on its way are little beside three seconds.
        table.row("send more than its rate", from, rate > 1.2, without > 1.5, &words);
    }
    table.judge();
}
