use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use super::*;
use crate::routed::space::{ip, made, within};

/// The machine's and the guest's address; the guest is its gateway's own namespace here.
const MACHINE: &str = "203.0.113.2";
const GUEST: &str = "10.213.0.6";

struct World {
    machine: OwnedFd,
    gateway: OwnedFd,
}

impl World {
    fn new(test: &str) -> Option<Self> {
        let machine = made(test, &["203.0.113.2/24", "203.0.113.3/24", "2001:db8::2/64"])?;
        let gateway = made(test, &["10.213.0.6/32", "fd00::6/128"])?;
        // What is answered to the machine's addresses comes to the relay.
        ip(&gateway, "route add local 203.0.113.0/24 dev lo");
        ip(&gateway, "-6 route add local 2001:db8::/64 dev lo");
        Some(Self { machine, gateway })
    }

    fn relay(&self, published: &[Publish], change: impl FnOnce(&mut Guest)) -> Result<Relay, RoutedError> {
        let addresses = Addresses { ipv4: GUEST.parse().ok(), ipv6: "fd00::6".parse().ok() };
        let mut guest = Guest { addresses, from: None, out_bits: None };
        change(&mut guest);
        let gateway = self.gateway.try_clone().unwrap();
        within(&self.machine, || Relay::start(published, guest, gateway))
    }

    fn call(&self, from: &str, to: SocketAddr) -> TcpStream {
        let from = SocketAddr::new(from.parse().unwrap(), 0);
        within(&self.machine, || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
            socket.bind(&from.into()).unwrap();
            socket.connect(&to.into()).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket.into()
        })
    }

    /// A server in the guest that answers each connection by this.
    fn serve(&self, answer: impl Fn(TcpStream, SocketAddr) + Send + Sync + Copy + 'static) -> u16 {
        let listener = within(&self.gateway, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap());
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            while let Ok((stream, caller)) = listener.accept() {
                thread::spawn(move || answer(stream, caller));
            }
        });
        port
    }
}

fn publish(address: &str, guest: u16, protocol: Protocol) -> Publish {
    Publish { address: address.parse().unwrap(), host: 0, guest, protocol }
}

fn at(relay: &Relay, address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), relay.published()[0].host)
}

fn echo(mut stream: TcpStream, _: SocketAddr) {
    let mut copy = stream.try_clone().unwrap();
    // A client that goes away is no failure of the server's.
    let _ = std::io::copy(&mut stream, &mut copy);
    let _ = stream.shutdown(Shutdown::Write);
}

#[test]
fn what_is_sent_comes_back_whole_after_one_side_has_said_all() {
    let Some(world) = World::new("what_is_sent_comes_back_whole_after_one_side_has_said_all") else { return };
    let port = world.serve(echo);
    let relay = world.relay(&[publish("0.0.0.0", port, Protocol::Tcp)], |_| {}).unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = world.call(MACHINE, at(&relay, MACHINE));
            let sent = sent.clone();
            thread::spawn(move || {
                let mut out = stream.try_clone().unwrap();
                let writer = thread::spawn(move || {
                    out.write_all(&sent).unwrap();
                    out.shutdown(Shutdown::Write).unwrap();
                });
                let mut back = Vec::new();
                stream.read_to_end(&mut back).unwrap();
                writer.join().unwrap();
                back
            })
        })
        .collect();
    for caller in callers {
        assert!(caller.join().unwrap() == sent);
    }
}

#[test]
fn the_guest_sees_who_calls_and_the_gateway_for_the_machine_s_loopback() {
    let Some(world) = World::new("the_guest_sees_who_calls_and_the_gateway_for_the_machine_s_loopback")
    else {
        return;
    };
    let port = world.serve(|mut stream, caller| {
        stream.write_all(caller.ip().to_canonical().to_string().as_bytes()).unwrap()
    });
    let seen = |stream: TcpStream| {
        let mut said = String::new();
        { stream }.read_to_string(&mut said).unwrap();
        said
    };
    let relay = world.relay(&[publish("::", port, Protocol::Tcp)], |_| {}).unwrap();
    assert_eq!(seen(world.call("203.0.113.3", at(&relay, MACHINE))), "203.0.113.3");
    assert_eq!(seen(world.call("2001:db8::2", at(&relay, "2001:db8::2"))), "2001:db8::2");
    assert_eq!(seen(world.call("127.0.0.1", at(&relay, "127.0.0.1"))), GUEST);
}

#[test]
fn only_who_may_call_is_let_in() {
    let Some(world) = World::new("only_who_may_call_is_let_in") else { return };
    let port = world.serve(|mut stream, _| stream.write_all(b"welcome").unwrap());
    let only = vec![("203.0.113.3".parse().unwrap(), 32)];
    let relay =
        world.relay(&[publish("0.0.0.0", port, Protocol::Tcp)], |guest| guest.from = Some(only)).unwrap();
    let mut said = String::new();
    world.call("203.0.113.3", at(&relay, MACHINE)).read_to_string(&mut said).unwrap();
    assert_eq!(said, "welcome");
    let refused = world.call(MACHINE, at(&relay, MACHINE)).read(&mut [0; 8]);
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_port_where_nobody_listens_in_the_guest_is_reset() {
    let Some(world) = World::new("a_port_where_nobody_listens_in_the_guest_is_reset") else { return };
    let relay = world.relay(&[publish("127.0.0.1", 9, Protocol::Tcp)], |_| {}).unwrap();
    let refused = world.call("127.0.0.1", at(&relay, "127.0.0.1")).read(&mut [0; 8]);
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn datagrams_go_to_the_guest_and_back_to_the_one_who_asked() {
    let Some(world) = World::new("datagrams_go_to_the_guest_and_back_to_the_one_who_asked") else { return };
    let server = within(&world.gateway, || UdpSocket::bind((GUEST, 0)).unwrap());
    let port = server.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((count, from)) = server.recv_from(&mut buffer) {
            let answer = [&buffer[..count], format!(" of {}", from.ip()).as_bytes()].concat();
            server.send_to(&answer, from).unwrap();
        }
    });
    let relay = world.relay(&[publish("0.0.0.0", port, Protocol::Udp)], |_| {}).unwrap();
    let callers = ["203.0.113.3", MACHINE, "127.0.0.1"].map(|from| {
        let socket = within(&world.machine, || UdpSocket::bind((from, 0)).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let to = if from == "127.0.0.1" { from } else { MACHINE };
        socket.connect(at(&relay, to)).unwrap();
        (from, socket)
    });
    for round in 0..3 {
        for (from, socket) in &callers {
            socket.send(format!("{round} {from}").as_bytes()).unwrap();
        }
        for (from, socket) in &callers {
            let mut buffer = [0; 2000];
            let count = socket.recv(&mut buffer).unwrap();
            let seen = if *from == "127.0.0.1" { GUEST } else { from };
            assert_eq!(String::from_utf8_lossy(&buffer[..count]), format!("{round} {from} of {seen}"));
        }
    }
}

#[test]
fn a_port_in_use_is_named_and_a_free_one_is_found_for_0() {
    let Some(world) = World::new("a_port_in_use_is_named_and_a_free_one_is_found_for_0") else { return };
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let first = world.relay(&[publish("127.0.0.1", 80, protocol)], |_| {}).unwrap();
        let taken = first.published()[0];
        assert_ne!(taken.host, 0);
        let error = world.relay(&[taken], |_| {}).unwrap_err();
        assert!(
            matches!(error, RoutedError::Port(PortError::InUse { port, .. }) if port == taken.host),
            "{error}"
        );
        drop(first);
        world.relay(&[taken], |_| {}).unwrap();
    }
}

#[test]
fn a_guest_answers_no_faster_than_its_rate() {
    let Some(world) = World::new("a_guest_answers_no_faster_than_its_rate") else { return };
    let port = world.serve(|mut stream, _| stream.write_all(&vec![7; 1_000_000]).unwrap());
    let published = [publish("0.0.0.0", port, Protocol::Tcp)];
    let relay = world.relay(&published, |guest| guest.out_bits = Some(16_000_000)).unwrap();
    let begin = Instant::now();
    // Two at once share it.
    let callers = [(); 2].map(|()| world.call(MACHINE, at(&relay, MACHINE)));
    let readers = callers.map(|mut stream| {
        thread::spawn(move || {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all.len()
        })
    });
    assert_eq!(readers.map(|reader| reader.join().unwrap()), [1_000_000; 2]);
    assert!(begin.elapsed() > Duration::from_millis(950), "{:?}", begin.elapsed());
}

#[test]
fn its_end_is_everybody_s_end() {
    let Some(world) = World::new("its_end_is_everybody_s_end") else { return };
    let port =
        world.serve(|stream, _| thread::sleep(Duration::from_secs(stream.nodelay().map_or(60, |_| 60))));
    let relay = world.relay(&[publish("0.0.0.0", port, Protocol::Tcp)], |_| {}).unwrap();
    let to = at(&relay, MACHINE);
    let mut stream = world.call(MACHINE, to);
    drop(relay);
    assert!(matches!(stream.read(&mut [0; 8]), Ok(0) | Err(_)));
    assert!(within(&world.machine, || TcpStream::connect(to)).is_err());
}

#[test]
fn many_at_once_are_all_served() {
    let Some(world) = World::new("many_at_once_are_all_served") else { return };
    let port = world.serve(echo);
    let relay = world.relay(&[publish("0.0.0.0", port, Protocol::Tcp)], |_| {}).unwrap();
    let mut callers: Vec<TcpStream> = (0..200).map(|_| world.call(MACHINE, at(&relay, MACHINE))).collect();
    for (number, caller) in callers.iter_mut().enumerate() {
        caller.write_all(number.to_string().as_bytes()).unwrap();
        caller.shutdown(Shutdown::Write).unwrap();
    }
    for (number, caller) in callers.iter_mut().enumerate() {
        let mut said = String::new();
        caller.read_to_string(&mut said).unwrap();
        assert_eq!(said, number.to_string());
    }
}
