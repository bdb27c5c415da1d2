//! Network interfaces, set up by rtnetlink in the caller's network namespace.
//!
//! Source: the Linux kernel's `include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h`.

use std::net::IpAddr;

use crate::refusal::{OrRefuse, refuse};
use crate::wire::message::{Network, Refusal, RefusalKind};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400;
const REPLACE: u16 = 0x100;

const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const UP: u32 = 1;
const LOOPBACK: u32 = 1;

/// Requests in the order in which they are to be done.
#[derive(Debug, Default)]
struct Requests {
    bytes: Vec<u8>,
    what: Vec<String>,
}

impl Requests {
    fn add(&mut self, what: String, kind: u16, flags: u16, body: &[u8], attributes: &[(u16, &[u8])]) {
        let start = self.bytes.len();
        let sequence = u32::try_from(self.what.len()).unwrap_or(0);
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(REQUEST | ACKNOWLEDGE | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(body);
        for (attribute, value) in attributes {
            let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
            self.bytes.extend_from_slice(&length.to_ne_bytes());
            self.bytes.extend_from_slice(&attribute.to_ne_bytes());
            self.bytes.extend_from_slice(value);
            self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.what.push(what);
    }

    fn link_up(&mut self, what: String, index: u32, mtu: Option<u32>) {
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8..12].copy_from_slice(&UP.to_ne_bytes());
        body[12..16].copy_from_slice(&UP.to_ne_bytes());
        match mtu {
            Some(mtu) => self.add(what, NEW_LINK, 0, &body, &[(IFLA_MTU, &mtu.to_ne_bytes())]),
            None => self.add(what, NEW_LINK, 0, &body, &[]),
        }
    }

    fn address(&mut self, index: u32, address: IpAddr, prefix: u8) {
        let mut body = [family(address), prefix, IFA_F_NODAD, 0, 0, 0, 0, 0];
        if address.is_ipv4() {
            body[2] = 0;
        }
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        let octets = octets(address);
        let attributes = [(IFA_LOCAL, &*octets), (IFA_ADDRESS, &*octets)];
        let what = format!("the address {address}/{prefix}");
        self.add(what, NEW_ADDRESS, CREATE | REPLACE, &body, &attributes);
    }

    fn default_route(&mut self, index: u32, gateway: IpAddr) {
        const MAIN_TABLE: u8 = 254;
        const FROM_BOOT: u8 = 3;
        const UNICAST: u8 = 1;
        const ON_LINK: u32 = 4;
        let mut body = [family(gateway), 0, 0, 0, MAIN_TABLE, FROM_BOOT, 0, UNICAST, 0, 0, 0, 0];
        body[8..12].copy_from_slice(&ON_LINK.to_ne_bytes());
        let octets = octets(gateway);
        let attributes = [(RTA_GATEWAY, &*octets), (RTA_OIF, &index.to_ne_bytes()[..])];
        let what = format!("the gateway {gateway}");
        self.add(what, NEW_ROUTE, CREATE | REPLACE, &body, &attributes);
    }
}

/// The number of an address' family.
pub fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

/// An address as the kernel takes it.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn parse_address(text: &str) -> Result<(IpAddr, u8), Refusal> {
    let parse = || {
        let (address, prefix) = text.split_once('/')?;
        let address = address.parse::<IpAddr>().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse::<u8>().ok().filter(|prefix| *prefix <= longest)?;
        Some((address, prefix))
    };
    parse().ok_or_else(|| {
        refuse(
            RefusalKind::Protocol,
            format!("{text:?} is no address with prefix length, such as 10.0.2.15/24"),
        )
    })
}

fn requests(network: &Network, index: u32) -> Result<Requests, Refusal> {
    let mut requests = Requests::default();
    requests.link_up(format!("the interface with an MTU of {}", network.mtu), index, Some(network.mtu));
    for address in &network.addresses {
        let (address, prefix) = parse_address(address)?;
        requests.address(index, address, prefix);
    }
    for gateway in &network.gateways {
        let what = || format!("{gateway:?} is no gateway's address");
        requests.default_route(index, gateway.parse().or_refuse(RefusalKind::Protocol, what)?);
    }
    Ok(requests)
}

/// Brings up loopback.
///
/// # Errors
/// The kernel refuses.
pub fn set_up_loopback() -> Result<(), Refusal> {
    bring_up(LOOPBACK, "the loopback interface")
}

/// Brings up the interface of this index as it is.
///
/// # Errors
/// The kernel refuses.
pub fn bring_up(index: u32, what: &str) -> Result<(), Refusal> {
    let mut requests = Requests::default();
    requests.link_up(what.to_owned(), index, None);
    perform(&requests)
}

/// Brings up the interface of this index with an MTU, addresses and gateways.
///
/// # Errors
/// An address isn't one, or the kernel refuses it.
pub fn set_up(index: u32, network: &Network) -> Result<(), Refusal> {
    perform(&requests(network, index)?)
}

fn perform(requests: &Requests) -> Result<(), Refusal> {
    let what = || "speaking rtnetlink".to_owned();
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .or_refuse(RefusalKind::Network, what)?;
    rustix::net::send(&socket, &requests.bytes, SendFlags::empty()).or_refuse(RefusalKind::Network, what)?;
    let mut answered = 0;
    let mut buffer = [0; 8192];
    while answered < requests.what.len() {
        let (length, _) = rustix::net::recv(&socket, &mut buffer, RecvFlags::empty())
            .or_refuse(RefusalKind::Network, what)?;
        answered += check_answers(&buffer[..length], &requests.what)?;
    }
    Ok(())
}

/// Counts acknowledgements; the first that is an error is refused.
fn check_answers(mut bytes: &[u8], what: &[String]) -> Result<usize, Refusal> {
    const ERROR: u16 = 2;
    let mut answered = 0;
    while let Some((head, _)) = bytes.split_first_chunk::<20>() {
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let sequence = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let errno = i32::from_ne_bytes([head[16], head[17], head[18], head[19]]);
        if u16::from_ne_bytes([head[4], head[5]]) == ERROR {
            if errno != 0 {
                let error = std::io::Error::from_raw_os_error(errno.saturating_neg());
                let what = what.get(sequence).map_or("a request", String::as_str);
                return Err(refuse(RefusalKind::Network, format!("{what}: {error}")));
            }
            answered += 1;
        }
        bytes = bytes.get(length.max(16).next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network {
            addresses: vec!["10.0.2.15/24".to_owned(), "fd00::2/64".to_owned()],
            gateways: vec!["10.0.2.2".to_owned(), "fe80::1".to_owned()],
            dns: vec![],
            search: vec![],
            mtu: 1400,
        }
    }

    #[test]
    fn requests_are_laid_out_as_the_kernel_reads_them() {
        let network = network();
        let requests = requests(&network, 2).unwrap();
        assert_eq!(requests.what.len(), 5);
        let bytes = &requests.bytes;
        assert_eq!(bytes[0..4], 40u32.to_ne_bytes(), "header, ifinfomsg and the MTU");
        assert_eq!(bytes[32..40], [8, 0, 4, 0, 0x78, 0x05, 0, 0]);
        let address = &bytes[40..];
        assert_eq!(address[0..4], 40u32.to_ne_bytes());
        assert_eq!(address[4..6], NEW_ADDRESS.to_ne_bytes());
        assert_eq!(address[16..24], [2, 24, 0, 0, 2, 0, 0, 0]);
        assert_eq!(address[24..32], [8, 0, 2, 0, 10, 0, 2, 15]);
        let v6 = &address[40..];
        assert_eq!(v6[16..20], [10, 64, IFA_F_NODAD, 0]);
    }

    #[test]
    fn answers_are_counted_and_errors_name_what_failed() {
        let answer = |sequence: u32, errno: i32| {
            let mut bytes = vec![0; 36];
            bytes[0..4].copy_from_slice(&36u32.to_ne_bytes());
            bytes[4..6].copy_from_slice(&2u16.to_ne_bytes());
            bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
            bytes[16..20].copy_from_slice(&errno.to_ne_bytes());
            bytes
        };
        let what = ["a".to_owned(), "the gateway 10.0.2.2".to_owned()];
        let both = [answer(0, 0), answer(1, 0)].concat();
        assert_eq!(check_answers(&both, &what), Ok(2));
        let refusal = check_answers(&answer(1, -libc::ENETUNREACH), &what).unwrap_err();
        assert!(refusal.message.starts_with("the gateway 10.0.2.2: "), "{}", refusal.message);
        assert_eq!(check_answers(&[1, 2, 3], &what), Ok(0));
    }

    #[test]
    fn addresses_need_a_prefix_length_that_fits() {
        assert!(parse_address("10.0.0.1/33").is_err());
        assert!(parse_address("10.0.0.1").is_err());
        assert!(parse_address("fd00::1/128").is_ok());
    }
}
