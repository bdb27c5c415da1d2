//! A program's network: a namespace that only its thread is in, with loopback and one interface, whose other end is the
//! keeper's stream of frames.

use std::fs;
use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketType};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use spacecore::refusal::{OrRefuse, refuse};
use spacecore::rtnetlink;
use spacecore::wire::message::{self, Refusal, RefusalKind};

use crate::driver::{self, Wire};
use crate::tap::{self, Pump};

/// The card as the machine has it.
#[derive(Debug)]
pub(super) struct Card {
    /// Where it leads.
    pub(super) wire: Wire,
    pub(super) card: driver::Network,
}

/// Moves the calling thread into a network namespace of its own and sets it up.
///
/// # Errors
/// The process may make no namespace or tap, or the kernel refuses an address.
#[allow(unsafe_code)]
pub(super) fn attach(card: Card, wanted: Option<&message::Network>) -> Result<Option<Pump>, Refusal> {
    const KIND: RefusalKind = RefusalKind::Network;
    let interface = || "the program's interface".to_owned();
    // SAFETY: a network namespace says which interfaces sockets find; it concerns neither memory nor descriptors.
    let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
    unshared.or_refuse(KIND, || {
        "a network namespace for the program (root, or a user namespace, may make one)".to_owned()
    })?;
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
    rtnetlink::set_up_loopback()?;
    match wanted {
        Some(network) => rtnetlink::set_up(index, network)?,
        None => rtnetlink::bring_up(index, "the program's interface")?,
    }
    let start = |(device, stream)| Pump::start(device, stream).or_refuse(KIND, interface);
    pumped.map(start).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

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
