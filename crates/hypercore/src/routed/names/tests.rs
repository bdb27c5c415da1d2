use std::io::{Read, Write};
use std::net::TcpStream;

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};

use super::*;
use crate::network::{Rule, Who};
use crate::routed::space::{made, within};

const GATEWAY: &str = "10.213.0.5";
const SILENT: &str = "127.0.0.2";
const RESOLVER: &str = "127.0.0.3";

fn question(name: &str) -> Vec<u8> {
    let mut packet = Packet::new_query(7);
    let name = Name::new_unchecked(name).into_owned();
    packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().unwrap()
}

/// What a resolver answers that knows everybody by one address.
fn answer(question: &[u8]) -> Vec<u8> {
    let asked = Packet::parse(question).unwrap();
    let mut packet = Packet::new_reply(asked.id());
    let asked = asked.questions[0].clone();
    let data = RData::A(A { address: u32::from(Ipv4Addr::new(198, 51, 100, 10)) });
    packet.answers.push(ResourceRecord::new(asked.qname.clone(), CLASS::IN, 300, data));
    packet.questions.push(asked);
    packet.build_bytes_vec().unwrap()
}

/// A machine whose first resolver never answers; the second answers everything, at first with what it wasn't asked for.
struct World {
    machine: OwnedFd,
    gateway: OwnedFd,
    learned: Arc<Mutex<Vec<(usize, IpAddr)>>>,
    /// How many questions the second resolver has got over UDP.
    asked: Arc<std::sync::atomic::AtomicU32>,
}

impl World {
    fn new(test: &str) -> Option<Self> {
        let (machine, gateway) = (made(test, &[])?, made(test, &["10.213.0.5/32"])?);
        let (silent, udp, tcp) = within(&machine, || {
            let tcp = TcpListener::bind((RESOLVER, PORT)).unwrap();
            (UdpSocket::bind((SILENT, PORT)).unwrap(), UdpSocket::bind((RESOLVER, PORT)).unwrap(), tcp)
        });
        let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = Arc::clone(&asked);
        thread::spawn(move || {
            let _silent = silent;
            let mut buffer = [0; 1000];
            while let Ok((count, from)) = udp.recv_from(&mut buffer) {
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let right = answer(&buffer[..count]);
                let mut wrong = right.clone();
                wrong[0] ^= 0xff;
                let of_another = [&buffer[..2], &answer(&question("other.example"))[2..]].concat();
                for answer in [wrong, of_another, b"x".to_vec(), right] {
                    udp.send_to(&answer, from).unwrap();
                }
            }
        });
        thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut asked = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut asked).unwrap();
                let answer = answer(&asked);
                stream.write_all(&[&(answer.len() as u16).to_be_bytes()[..], &answer].concat()).unwrap();
            }
        });
        Some(Self { machine, gateway, learned: Arc::default(), asked })
    }

    fn names(&self, policy: Policy) -> Names {
        let learned = Arc::clone(&self.learned);
        let directory = Directory {
            policy,
            siblings: Box::new(|name| if name == "db" { vec![[10, 213, 0, 14].into()] } else { Vec::new() }),
            learn: Box::new(move |new| {
                learned.lock().unwrap().extend(new.iter().map(|(rule, address, _)| (*rule, *address)))
            }),
            begun: Mutex::default(),
            resolvers: || {
                [SILENT, RESOLVER].map(|address| (address.parse::<IpAddr>().unwrap(), PORT).into()).to_vec()
            },
        };
        within(&self.machine, || Names::start(&[GATEWAY.parse().unwrap()], directory, &self.gateway)).unwrap()
    }

    fn asks(&self, question: &[u8]) -> Vec<u8> {
        let socket = within(&self.gateway, || UdpSocket::bind((GATEWAY, 0)).unwrap());
        socket.connect((GATEWAY, PORT)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.send(question).unwrap();
        let mut buffer = vec![0; 1000];
        let count = socket.recv(&mut buffer).unwrap();
        buffer.truncate(count);
        buffer
    }
}

fn told(answer: &[u8]) -> (u16, RCODE, usize) {
    let answer = Packet::parse(answer).unwrap();
    (answer.id(), answer.rcode(), answer.answers.len())
}

fn only(name: &str) -> Policy {
    let rule = Rule { who: Who::Name(name.to_owned()), ports: None, protocol: None };
    Policy { to: vec![rule], ..Policy::default() }
}

#[test]
fn the_host_s_resolvers_answer_the_next_one_where_one_is_silent() {
    let Some(world) = World::new("the_host_s_resolvers_answer_the_next_one_where_one_is_silent") else {
        return;
    };
    let _names = world.names(Policy::default());
    let answered = world.asks(&question("example.com"));
    assert_eq!(told(&answered), (7, RCODE::NoError, 1));
    assert!(question::is_answer(&answered, &question("example.com")), "not what it was asked");
    // No rule is about a name.
    assert_eq!(*world.learned.lock().unwrap(), []);
}

#[test]
fn what_a_rule_names_is_learnt_before_the_guest_knows_it_and_nothing_else_is_asked() {
    let Some(world) =
        World::new("what_a_rule_names_is_learnt_before_the_guest_knows_it_and_nothing_else_is_asked")
    else {
        return;
    };
    let _names = world.names(only("example.com"));
    assert_eq!(told(&world.asks(&question("example.com"))), (7, RCODE::NoError, 1));
    assert_eq!(*world.learned.lock().unwrap(), [(0, "198.51.100.10".parse().unwrap())]);
    assert_eq!(told(&world.asks(&question("example.org"))), (7, RCODE::Refused, 0));
    assert_eq!(told(&world.asks(&question("db.internal"))), (7, RCODE::NoError, 1));
}

#[test]
fn a_question_over_tcp_is_judged_the_same() {
    let Some(world) = World::new("a_question_over_tcp_is_judged_the_same") else { return };
    let names = world.names(only("example.com"));
    let mut stream = within(&world.gateway, || TcpStream::connect((GATEWAY, PORT)).unwrap());
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for (name, code, count) in [("example.com", RCODE::NoError, 1), ("example.org", RCODE::Refused, 0)] {
        let asked = question(name);
        stream.write_all(&[&(asked.len() as u16).to_be_bytes()[..], &asked].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answered = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answered).unwrap();
        assert_eq!(told(&answered), (7, code, count), "{name}");
    }
    assert_eq!(*world.learned.lock().unwrap(), [(0, "198.51.100.10".parse().unwrap())]);
    drop(names);
    assert!(matches!(stream.read(&mut [0; 2]), Ok(0) | Err(_)), "it is served after the end");
}

#[test]
fn equal_questions_are_one_question_to_a_resolver() {
    let Some(world) = World::new("equal_questions_are_one_question_to_a_resolver") else { return };
    let _names = world.names(Policy::default());
    let sockets = [(); 20].map(|()| {
        let socket = within(&world.gateway, || UdpSocket::bind((GATEWAY, 0)).unwrap());
        socket.connect((GATEWAY, PORT)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    });
    // The first resolver is silent for a while, in which all of them come.
    sockets.iter().for_each(|socket| _ = socket.send(&question("example.com")).unwrap());
    for socket in &sockets {
        let mut buffer = vec![0; 1000];
        let count = socket.recv(&mut buffer).unwrap();
        assert_eq!(told(&buffer[..count]), (7, RCODE::NoError, 1));
    }
    assert_eq!(world.asked.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn where_no_resolver_answers_the_guest_is_told_so() {
    let Some(world) = World::new("where_no_resolver_answers_the_guest_is_told_so") else { return };
    let directory = Directory {
        policy: Policy::default(),
        siblings: Box::new(|_| Vec::new()),
        learn: Box::new(|_| {}),
        begun: Mutex::default(),
        // Where nobody listens the kernel says so at once.
        resolvers: || vec![(Ipv4Addr::new(127, 0, 0, 4), PORT).into()],
    };
    let _names =
        within(&world.machine, || Names::start(&[GATEWAY.parse().unwrap()], directory, &world.gateway))
            .unwrap();
    assert_eq!(told(&world.asks(&question("example.com"))), (7, RCODE::ServerFailure, 0));
}

#[test]
fn resolvers_are_those_of_the_file_and_this_machine_where_it_names_none() {
    let found =
        parse("# one\nnameserver 192.0.2.53\nsearch x\nnameserver fe80::1%eth0\nnameserver 2001:db8::53 \n");
    let wanted: Vec<SocketAddr> =
        vec!["192.0.2.53:53".parse().unwrap(), "[2001:db8::53]:53".parse().unwrap()];
    assert_eq!(found, wanted);
    assert_eq!(parse("options edns0\n"), ["127.0.0.1:53".parse().unwrap()]);
}
