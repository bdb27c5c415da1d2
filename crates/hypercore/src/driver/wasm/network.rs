//! A program's network: a namespace that only its thread is in, with loopback and one interface, whose other end is the
//! keeper's stream of frames.
//!
//! Source: the Linux kernel's `include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h`.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use spacecore::wire::message::{self, Refusal, RefusalKind};

use crate::driver;
use crate::tap::{self, Pump};

/// The card as the machine has it.
#[derive(Debug)]
pub(super) struct Card {
    /// The stream of frames.
    pub(super) wire: OwnedFd,
    pub(super) card: driver::Network,
}

fn refuse(message: String) -> Refusal {
    Refusal { kind: RefusalKind::Network, message }
}

/// Moves the calling thread into a network namespace of its own and sets it up.
///
/// # Errors
/// The process may make no namespace or tap, or the kernel refuses an address.
#[allow(unsafe_code)]
pub(super) fn attach(card: Card, wanted: Option<&message::Network>) -> Result<Pump, Refusal> {
    // SAFETY: a network namespace says which interfaces sockets find; it concerns neither memory nor descriptors.
    let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
    unshared.map_err(|error| {
        refuse(format!(
            "a network namespace for the program (root, or a user namespace, may make one): {error}"
        ))
    })?;
    let driver::Network { mac, mtu } = card.card;
    let device = tap::open_here(tap::NAME, mac, mtu)
        .map_err(|error| refuse(format!("an interface for the program (/dev/net/tun): {error}")))?;
    let index = rustix::net::netdevice::name_to_index(
        rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)
            .map_err(|error| refuse(format!("a socket: {error}")))?,
        tap::NAME,
    );
    let index = index.map_err(|error| refuse(format!("the program's interface: {error}")))?;
    let mut requests = vec![link_up(1), link_up(index)];
    for address in wanted.iter().flat_map(|network| &network.addresses) {
        requests.push(new_address(index, address)?);
    }
    for gateway in wanted.iter().flat_map(|network| &network.gateways) {
        requests.push(default_route(index, gateway)?);
    }
    perform(&requests)?;
    Pump::start(device, card.wire).map_err(|error| refuse(format!("the program's interface: {error}")))
}

/// One request to rtnetlink, and what it is about.
struct Request {
    what: String,
    kind: u16,
    body: Vec<u8>,
}

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
    body.extend_from_slice(&length.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Family and bytes of an address.
fn parts(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (2, address.octets().to_vec()),
        IpAddr::V6(address) => (10, address.octets().to_vec()),
    }
}

fn link_up(index: u32) -> Request {
    const UP: u32 = 1;
    let mut body = vec![0; 4];
    for word in [index, UP, UP] {
        body.extend_from_slice(&word.to_ne_bytes());
    }
    Request { what: format!("interface {index}"), kind: NEW_LINK, body }
}

fn new_address(index: u32, text: &str) -> Result<Request, Refusal> {
    const LOCAL: u16 = 2;
    const ADDRESS: u16 = 1;
    const NO_DUPLICATE_DETECTION: u8 = 2;
    let parse = || {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        Some((address, prefix.parse::<u8>().ok().filter(|prefix| *prefix <= longest)?))
    };
    let (address, prefix) =
        parse().ok_or_else(|| refuse(format!("{text:?} is no address with prefix length")))?;
    let (family, octets) = parts(address);
    let flags = if family == 2 { 0 } else { NO_DUPLICATE_DETECTION };
    let mut body = vec![family, prefix, flags, 0];
    body.extend_from_slice(&index.to_ne_bytes());
    attribute(&mut body, LOCAL, &octets);
    attribute(&mut body, ADDRESS, &octets);
    Ok(Request { what: format!("the address {text}"), kind: NEW_ADDRESS, body })
}

fn default_route(index: u32, text: &str) -> Result<Request, Refusal> {
    const MAIN_TABLE: u8 = 254;
    const FROM_BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    const ON_LINK: u32 = 4;
    const GATEWAY: u16 = 5;
    const INTERFACE: u16 = 4;
    let gateway: IpAddr = text.parse().map_err(|_| refuse(format!("{text:?} is no gateway's address")))?;
    let (family, octets) = parts(gateway);
    let mut body = vec![family, 0, 0, 0, MAIN_TABLE, FROM_BOOT, 0, UNICAST];
    body.extend_from_slice(&ON_LINK.to_ne_bytes());
    attribute(&mut body, GATEWAY, &octets);
    attribute(&mut body, INTERFACE, &index.to_ne_bytes());
    Ok(Request { what: format!("the gateway {text}"), kind: NEW_ROUTE, body })
}

/// Makes the requests one by one; each is answered.
fn perform(requests: &[Request]) -> Result<(), Refusal> {
    const REQUEST_ACKNOWLEDGE: u16 = 1 | 4;
    const CREATE_REPLACE: u16 = 0x400 | 0x100;
    let broken = |error: rustix::io::Errno| refuse(format!("speaking rtnetlink: {error}"));
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map_err(broken)?;
    for request in requests {
        let flags = match request.kind {
            NEW_LINK => REQUEST_ACKNOWLEDGE,
            _ => REQUEST_ACKNOWLEDGE | CREATE_REPLACE,
        };
        let length = u32::try_from(request.body.len().saturating_add(16)).unwrap_or(u32::MAX);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&request.kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&request.body);
        rustix::net::send(&socket, &bytes, SendFlags::empty()).map_err(broken)?;
        let mut answer = [0; 4096];
        let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty()).map_err(broken)?;
        // The answer's header of 16 bytes, then an error number that is 0 where it worked.
        let errno = answer.get(..length).and_then(|answer| answer.get(16..20)?.first_chunk().copied());
        match errno.map(i32::from_ne_bytes) {
            Some(0) => {}
            Some(errno) => {
                let error = std::io::Error::from_raw_os_error(errno.saturating_neg());
                return Err(refuse(format!("{}: {error}", request.what)));
            }
            None => return Err(refuse(format!("{}: no answer", request.what))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_laid_out_as_the_kernel_reads_them() {
        let address = new_address(2, "10.0.2.15/24").unwrap();
        assert_eq!(address.body[..8], [2, 24, 0, 0, 2, 0, 0, 0]);
        assert_eq!(address.body[8..16], [8, 0, 2, 0, 10, 0, 2, 15]);
        assert_eq!(new_address(2, "fd00::2/64").unwrap().body[..4], [10, 64, 2, 0]);
        assert_eq!(default_route(2, "fe80::1").unwrap().body.len(), 12 + 20 + 8);
        assert_eq!(link_up(1).body.len(), 16);
        assert!(new_address(2, "10.0.0.1/33").is_err() && new_address(2, "10.0.0.1").is_err());
        assert!(default_route(2, "router").is_err());
    }

    #[test]
    fn a_program_s_packets_and_questions_stay_in_its_own_network() {
        use std::io::{Read, Write};
        use std::net::UdpSocket;
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
            let card = driver::Network { mac: driver::Mac([0x52, 0x54, 0, 1, 2, 3]), mtu: 1400 };
            let _pump = attach(Card { wire: theirs.into(), card }, Some(&wanted))?;
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
