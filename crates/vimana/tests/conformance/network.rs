//! What reaches a spacecore, and what it reaches.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::rig::{Ran, Rig, Running, eventually, kill};
use crate::survey::survey;
use crate::{Behaviour, behaviours};

pub const BEHAVIOURS: &[Behaviour] = behaviours![
    without_a_network_there_is_only_loopback,
    a_published_port_answers,
    a_published_port_is_on_loopback_alone,
    the_host_s_loopback_cant_be_reached,
    a_name_server_answers,
];

fn without_a_network_there_is_only_loopback(rig: &Rig) {
    let said = survey(rig).part("interfaces");
    // The kernel's own tunnels, which lead nowhere, are there in every new network namespace of some machines.
    let own =
        ["lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"];
    assert!(said.lines().any(|name| name == "lo"), "{said}");
    assert!(said.lines().all(|name| own.contains(&name)), "{said}");
}

/// One run with a network: it tries the host, asks for a name, and then echoes at a published port. The standard error ends
/// with what the port answered, where it listened, and whether the host was reached.
fn networked(rig: &Rig) -> Ran {
    rig.shared("network", || {
        let service = TcpListener::bind("127.0.0.1:0").unwrap();
        service.set_nonblocking(true).unwrap();
        let closed = service.local_addr().unwrap().port().to_string();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let publish = format!("{port}:8080");
        let probe = [
            "connect-gateway",
            &closed,
            ",",
            "connect",
            "127.0.0.1",
            &closed,
            ",",
            "connect",
            "10.0.2.2",
            &closed,
            ",",
            "interfaces",
            ",",
            "resolve",
            "vimana.example",
            ",",
            "serve",
            "8080",
        ];
        let lines = "[spec.networking]\nnetwork_type = \"public\"\n";
        let mut running = Running::start(&mut rig.run_manifest(lines, &["-p", &publish], &probe));
        let mut seen = String::new();
        loop {
            let line = running.line();
            if line == "ready" || line.is_empty() {
                break;
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        let answer = eventually("the port answers", 15, || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            stream.write_all(b"hello").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            (!answer.is_empty()).then_some(answer)
        });
        let sockets =
            ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
        let marker = format!(":{port:04X} ");
        let listening: Vec<String> = sockets
            .iter()
            .flat_map(|text| text.lines())
            .filter_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let local = fields.get(1)?;
                (fields.get(3) == Some(&"0A") && format!("{local} ").contains(&marker))
                    .then(|| (*local).to_owned())
            })
            .collect();
        let knocked = service.accept().is_ok();
        kill(running.pid(), libc::SIGINT);
        let mut ran = running.end();
        ran.out = seen.into_bytes();
        ran.err.push_str(&format!("\n{answer}|{}|{knocked}", listening.join(" ")));
        ran
    })
}

fn from_outside(ran: &Ran) -> Vec<String> {
    ran.err.lines().last().unwrap_or_default().split('|').map(str::to_owned).collect()
}

fn a_published_port_answers(rig: &Rig) {
    let ran = networked(rig);
    assert_eq!((ran.code, from_outside(&ran)[0].as_str()), (130, "echo hello"), "{ran:?}");
}

fn a_published_port_is_on_loopback_alone(rig: &Rig) {
    let ran = networked(rig);
    let listening = &from_outside(&ran)[1];
    assert!(
        !listening.is_empty() && listening.split(' ').all(|local| local.starts_with("0100007F:")),
        "{ran:?}"
    );
}

fn the_host_s_loopback_cant_be_reached(rig: &Rig) {
    let ran = networked(rig);
    let parts = ran.parts();
    // There was a network to try it on.
    assert!(ran.part("interfaces").lines().count() > 1, "{ran:?}");
    assert_eq!(from_outside(&ran)[2], "false", "{ran:?}");
    let tries = parts.iter().filter(|(name, _)| name.starts_with("connect"));
    assert!(tries.clone().count() == 3 && tries.clone().all(|(_, said)| said.starts_with("fail")), "{ran:?}");
}

/// Whether the host's own name server says anything at all.
fn host_resolves() -> Option<()> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    let server = text.lines().find_map(|line| line.strip_prefix("nameserver "))?.trim().to_owned();
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    question.extend(b"\x06vimana\x07example\0\0\x01\0\x01");
    for _ in 0..3 {
        socket.send_to(&question, (server.as_str(), 53)).ok()?;
        if socket.recv(&mut [0; 512]).is_ok() {
            return Some(());
        }
    }
    None
}

fn a_name_server_answers(rig: &Rig) {
    if host_resolves().is_none() {
        let test = format!("{}::a_name_server_answers", rig.isolation.module());
        eprintln!("SKIPPED: {test}: the host's own name server doesn't answer");
        return;
    }
    let ran = networked(rig);
    assert_eq!(ran.part("resolve"), "ok\n", "{ran:?}");
}
