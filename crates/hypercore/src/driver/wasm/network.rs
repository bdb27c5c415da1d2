//! A program's network: a namespace that only its thread, or its process in the jail, is in, with loopback and one interface, whose
//! other end is in its gateway or is the keeper's stream of frames.
//!
//! A process in a jail has its namespace from the jail and no right over it. Its keeper enters that and sets up both, the addresses
//! when it is asked to. What is asked may come from a process that was taken over: it chooses addresses for its own interface, of
//! which the gateway lets none through but those that the keeper chose, as passt's filter does.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use spacecore::refusal::{OrRefuse, refuse};
use spacecore::rtnetlink;
use spacecore::wire::message::{self, Refusal, RefusalKind};

use crate::driver::{self, Wire};
use crate::tap::{self, Pump};

const KIND: RefusalKind = RefusalKind::Network;
/// The most addresses, and gateways, that a process in a jail may ask for: a spacecore has one of each family.
const ASKED_MAX: usize = 8;

/// The card as the machine has it.
#[derive(Debug)]
pub(super) struct Card {
    /// Where it leads.
    pub(super) wire: Wire,
    pub(super) card: driver::Network,
}

/// How a program comes to its network.
#[derive(Debug)]
pub(super) enum Way {
    /// Its thread makes a namespace of its own, with this card.
    Made(Card),
    /// Its process is in its namespace already, and asks the keeper for addresses over this socket.
    Asked(OwnedFd),
}

/// An interface that is there, without addresses.
#[derive(Debug)]
struct Interface {
    index: u32,
    /// The tap behind it and the stream that frames are moved to, where that isn't the kernel's work.
    pumped: Option<(OwnedFd, OwnedFd)>,
}

fn interface() -> String {
    "the program's interface".to_owned()
}

/// Moves the calling thread into a network namespace of its own and sets it up.
///
/// # Errors
/// The process may make no namespace or tap, or the kernel refuses an address.
#[allow(unsafe_code)]
pub(super) fn attach(card: Card, wanted: Option<&message::Network>) -> Result<Option<Pump>, Refusal> {
    // SAFETY: a network namespace says which interfaces sockets find; it concerns neither memory nor descriptors.
    let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
    unshared.or_refuse(KIND, || {
        "a network namespace for the program (root, or a user namespace, may make one)".to_owned()
    })?;
    let mut made = make(card)?;
    set_up(made.index, wanted)?;
    made.pump()
}

/// Makes the interface in the calling thread's network namespace.
fn make(card: Card) -> Result<Interface, Refusal> {
    let driver::Network { mac, mtu, .. } = card.card;
    let pumped = match card.wire {
        Wire::Stream(stream) => {
            let device = tap::open_here(tap::NAME, mac, mtu)
                .or_refuse(KIND, || "an interface for the program (/dev/net/tun)".to_owned())?;
            Some((device, stream))
        }
        Wire::Pair(pair) => {
            let own = fs::File::open("/proc/thread-self/ns/net").or_refuse(KIND, interface)?;
            pair.join(own.as_fd(), tap::NAME, mac).or_refuse(KIND, interface)?;
            None
        }
        Wire::Tap(_) => return Err(refuse(KIND, "a tap is for virtual machines")),
    };
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None);
    let socket = socket.or_refuse(KIND, || "a socket".to_owned())?;
    let index = rustix::net::netdevice::name_to_index(socket, tap::NAME).or_refuse(KIND, interface)?;
    Ok(Interface { index, pumped })
}

/// Sets up loopback and the interface in the calling thread's network namespace.
fn set_up(index: u32, wanted: Option<&message::Network>) -> Result<(), Refusal> {
    rtnetlink::set_up_loopback()?;
    match wanted {
        Some(network) => rtnetlink::set_up(index, network),
        None => rtnetlink::bring_up(index, &interface()),
    }
}

impl Interface {
    /// Moves its frames from now on, where the kernel doesn't.
    fn pump(&mut self) -> Result<Option<Pump>, Refusal> {
        let start = |(device, stream)| Pump::start(device, stream).or_refuse(KIND, interface);
        self.pumped.take().map(start).transpose()
    }
}

/// The network of a process in a jail, as its keeper sees it. Frames are moved until this is dropped.
#[derive(Debug)]
pub(super) struct Seen {
    namespace: OwnedFd,
    interface: Interface,
    pump: Option<Pump>,
}

impl Seen {
    /// Makes the interface in that process' namespace.
    ///
    /// # Errors
    /// The caller may not enter it, or make a tap.
    pub(super) fn make(namespace: OwnedFd, card: Card) -> Result<Self, Refusal> {
        let interface = inside(namespace.as_fd(), || make(card))?;
        Ok(Self { namespace, interface, pump: None })
    }

    /// Sets it up as the process asks.
    ///
    /// # Errors
    /// That is nothing that a program is configured with, or the kernel refuses it.
    pub(super) fn set_up(&mut self, wanted: Option<&message::Network>) -> Result<(), Refusal> {
        if let Some(wanted) = wanted {
            check(wanted)?;
        }
        let index = self.interface.index;
        inside(self.namespace.as_fd(), || set_up(index, wanted))?;
        if let Some(pump) = self.interface.pump()? {
            self.pump = Some(pump);
        }
        Ok(())
    }
}

/// Refuses what no keeper configures a program with.
fn check(wanted: &message::Network) -> Result<(), Refusal> {
    let refused =
        |what: &str| Err(refuse(RefusalKind::Protocol, format!("the program's network has {what}")));
    if wanted.addresses.len() > ASKED_MAX || wanted.gateways.len() > ASKED_MAX {
        return refused("too many addresses");
    }
    let given = wanted.addresses.iter().map(|text| text.split_once('/').map_or("", |(address, _)| address));
    let mut all = given.chain(wanted.gateways.iter().map(String::as_str));
    let is_one = |text: &str| {
        let address = text.parse::<IpAddr>();
        address.is_ok_and(|at| !at.is_unspecified() && !at.is_loopback() && !at.is_multicast())
    };
    if !all.all(is_one) {
        return refused("an address that no interface can have");
    }
    Ok(())
}

/// Does something in another network namespace, in a thread that ends with it.
fn inside<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, Refusal> + Send,
) -> Result<T, Refusal> {
    let entered = || {
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
            .or_refuse(KIND, || "entering the program's network namespace".to_owned())?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("wasm-network".to_owned());
        let thread = thread.spawn_scoped(scope, entered).or_refuse(KIND, || "a thread".to_owned())?;
        thread.join().unwrap_or_else(|_| Err(refuse(RefusalKind::Other, "setting up a network failed")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_in_a_jail_asks_for_is_checked() {
        let network = |addresses: &[&str], gateways: &[&str]| message::Network {
            addresses: addresses.iter().map(|text| (*text).to_owned()).collect(),
            gateways: gateways.iter().map(|text| (*text).to_owned()).collect(),
            dns: Vec::new(),
            search: Vec::new(),
            mtu: 1400,
        };
        assert_eq!(check(&network(&["10.213.0.6/30", "fd00::2/126"], &["10.213.0.5", "fd00::1"])), Ok(()));
        assert_eq!(check(&network(&[], &[])), Ok(()));
        for addresses in [["127.0.0.1/8"], ["0.0.0.0/0"], ["224.0.0.1/4"], ["::1/128"], ["10.0.0.1"], ["x/1"]]
        {
            assert!(check(&network(&addresses, &[])).is_err(), "{addresses:?}");
        }
        assert!(check(&network(&[], &["127.0.0.1"])).is_err());
        assert!(check(&network(&[], &["10.0.0.1/8"])).is_err());
        assert!(check(&network(&["10.0.0.1/8"; ASKED_MAX + 1], &[])).is_err());
    }

    #[test]
    fn a_program_s_packets_and_questions_stay_in_its_own_network() {
        use std::io::{Read, Write};
        use std::net::{IpAddr, UdpSocket};
        use std::os::unix::net::UnixStream;
        use std::sync::Arc;

        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let (enough, wait) = std::sync::mpsc::channel::<()>();
        let wanted = message::Network {
            addresses: vec!["10.0.2.15/24".to_owned(), "fd00::2/64".to_owned()],
            gateways: vec!["10.0.2.2".to_owned()],
            dns: vec!["127.0.0.1".to_owned()],
            search: vec!["example".to_owned()],
            mtu: 1400,
        };
        let thread = std::thread::spawn(move || {
            let card = driver::Network {
                mac: driver::Mac([0x52, 0x54, 0, 1, 2, 3]),
                mtu: 1400,
                carrier: crate::network::Carrier::Passt,
            };
            let _pump = attach(Card { wire: Wire::Stream(theirs.into()), card }, Some(&wanted))?;
            let outside = UdpSocket::bind("10.0.2.15:0").unwrap();
            outside.send_to(b"x", "192.0.2.9:9").unwrap();
            // The name server that was configured, which nobody outside this namespace can be.
            let server = UdpSocket::bind("127.0.0.1:53").unwrap();
            let serving = std::thread::spawn(move || {
                let mut asked = Vec::new();
                for _ in 0..2 {
                    let mut packet = [0; 512];
                    let (length, from) = server.recv_from(&mut packet).unwrap();
                    let mut answer = packet[..length].to_vec();
                    asked.push(answer[12..length - 5].to_vec());
                    (answer[2], answer[3]) = (0x81, 0x80);
                    if answer[length - 3] == 1 {
                        answer[7] = 1;
                        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]);
                    }
                    server.send_to(&answer, from).unwrap();
                }
                asked
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let resolver = Arc::new(super::super::names::Resolver::new(Some(&wanted)));
            let found = runtime.block_on(resolver.look_up("host"));
            assert_eq!(found, Ok(vec![IpAddr::from([192, 0, 2, 7])]));
            assert_eq!(serving.join().unwrap()[0], b"\x04host\x07example".to_vec());
            // The pump goes on until the frame was seen.
            let _ = wait.recv();
            Ok::<(), Refusal>(())
        });
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        // Who has 10.0.2.2? Tell 10.0.2.15.
        let question = [10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2];
        let mut asked = false;
        while !asked && let Ok(length @ 1..) = ours.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..length]);
            asked = seen.windows(question.len()).any(|window| window == question);
        }
        drop(enough);
        if let Err(refusal) = thread.join().unwrap() {
            let test = "a_program_s_packets_and_questions_stay_in_its_own_network";
            let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {}", refusal.message);
            return;
        }
        assert!(asked, "no frame asks for the gateway");
    }
}
