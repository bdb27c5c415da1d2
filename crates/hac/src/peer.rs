//! Who may be reached, or may reach: `public`, `10.0.0.0/8:5432`, `api.example.org:443`.

mod both;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// One entry of a list of those that a spacecore may reach, or that may reach it.
///
/// Reads `any`, `public`, an address, a network (`10.0.0.0/8`), a name, or `*.` and a name; then perhaps `:PORT` or
/// `:FIRST-LAST`, then perhaps `/tcp` or `/udp`. An IPv6 address before a port stands in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Who it is.
    pub who: Who,
    /// The first and the last port; none for all.
    pub ports: Option<(u16, u16)>,
    /// The protocol; none for TCP and UDP, and where there are no ports for all.
    pub protocol: Option<Transport>,
}

/// Who a [`Peer`] is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// Every address but those of the node itself.
    Any,
    /// Every address of the public internet.
    Public,
    /// The addresses whose first bits are these, so many of them.
    Network(IpAddr, u8),
    /// The public addresses that a name has when the workload asks for it. In lower case, without the last dot; `*.` before it
    /// stands for one or more labels.
    Name(String),
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Why an entry couldn't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It is neither a word, an address, a network nor a name.
    #[error("{0:?} is neither \"any\", \"public\", an address, a network such as 10.0.0.0/8, nor a name")]
    Who(String),
    /// The number behind the slash isn't one that the address can have.
    #[error("{text:?} isn't a network: the number behind / goes from 0 to {most}")]
    Prefix {
        /// What was given.
        text: String,
        /// The bits of such an address.
        most: u8,
    },
    /// Bits are set that don't belong to the network.
    #[error("{text:?} has bits beyond its first {bits}; the network is {network}")]
    Bits {
        /// What was given.
        text: String,
        /// The bits that count.
        bits: u8,
        /// What was meant.
        network: String,
    },
    /// The ports aren't a port, or a first and a last one.
    #[error("{0:?} is neither a port from 1 to 65535 nor two of them, such as 8000-8099")]
    Ports(String),
}

impl Peer {
    /// What the manifest expects here, for errors.
    pub const EXPECTED: &'static str = "\"any\", \"public\", an address, a network or a name, perhaps with :PORT and /tcp or /udp, such as \
         \"api.example.org:443\"";

    /// The public internet, on every port.
    pub const PUBLIC: Self = Self { who: Who::Public, ports: None, protocol: None };

    /// Everybody, on every port.
    pub const ANY: Self = Self { who: Who::Any, ports: None, protocol: None };
}

impl FromStr for Peer {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let (rest, protocol) = match text.strip_suffix("/tcp") {
            Some(rest) => (rest, Some(Transport::Tcp)),
            None => match text.strip_suffix("/udp") {
                Some(rest) => (rest, Some(Transport::Udp)),
                None => (text, None),
            },
        };
        let (who, ports) = split_ports(rest);
        Ok(Self { who: who_of(who)?, ports: ports.map(ports_of).transpose()?, protocol })
    }
}

/// Splits off what stands behind the last colon, unless that is a part of an IPv6 address.
fn split_ports(text: &str) -> (&str, Option<&str>) {
    if let Some(rest) = text.strip_prefix('[')
        && let Some((address, behind)) = rest.split_once(']')
    {
        // A network of IPv6 has its length behind the bracket: [2001:db8::]/32:443 isn't written; 2001:db8::/32 is.
        return match behind.strip_prefix(':') {
            Some(ports) => (address, Some(ports)),
            None if behind.is_empty() => (address, None),
            None => (text, None),
        };
    }
    match text.rsplit_once(':') {
        Some((who, _)) if who.contains(':') => (text, None),
        Some((who, ports)) => (who, Some(ports)),
        None => (text, None),
    }
}

fn ports_of(text: &str) -> Result<(u16, u16), PeerError> {
    let wrong = || PeerError::Ports(text.to_owned());
    let port = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| plain && *port > 0).ok_or_else(wrong)
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if first > last { Err(wrong()) } else { Ok((first, last)) }
}

fn who_of(text: &str) -> Result<Who, PeerError> {
    match text {
        "any" => return Ok(Who::Any),
        "public" => return Ok(Who::Public),
        _ => {}
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Who::Network(address, bits(address)));
    }
    if let Some((address, prefix)) = text.split_once('/') {
        let address: IpAddr = address.parse().map_err(|_| PeerError::Who(text.to_owned()))?;
        let most = bits(address);
        let plain = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = prefix.parse::<u8>().ok().filter(|prefix| plain && *prefix <= most);
        let prefix = prefix.ok_or_else(|| PeerError::Prefix { text: text.to_owned(), most })?;
        let network = masked(address, prefix);
        return match network == address {
            true => Ok(Who::Network(address, prefix)),
            false => Err(PeerError::Bits {
                text: text.to_owned(),
                bits: prefix,
                network: format!("{network}/{prefix}"),
            }),
        };
    }
    name_of(text).map(Who::Name).ok_or_else(|| PeerError::Who(text.to_owned()))
}

/// A host name in its usual form (RFC 1123, section 2.1), with two labels at least; `*` may stand for the first ones.
fn name_of(text: &str) -> Option<String> {
    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let plain = lower.strip_prefix("*.").unwrap_or(&lower);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let labels: Vec<&str> = plain.split('.').collect();
    // The last label of a name is never a number: 10.0.0 is a mistyped address.
    let last_is_number = labels.last()?.bytes().all(|byte| byte.is_ascii_digit());
    let fits = lower.len() <= 253 && labels.len() >= 2 && labels.iter().all(|label| is_label(label));
    (fits && !last_is_number).then_some(lower)
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all but its first bits cleared.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv4Addr::from(u32::from(address) & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv6Addr::from(u128::from(address) & mask).into()
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.who, self.ports) {
            (Who::Network(address @ IpAddr::V6(_), 128), Some(_)) => write!(f, "[{address}]")?,
            (who, _) => write!(f, "{who}")?,
        }
        match self.ports {
            Some((first, last)) if first == last => write!(f, ":{first}")?,
            Some((first, last)) => write!(f, ":{first}-{last}")?,
            None => {}
        }
        f.write_str(match self.protocol {
            Some(Transport::Tcp) => "/tcp",
            Some(Transport::Udp) => "/udp",
            None => "",
        })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Public => f.write_str("public"),
            Self::Network(address, prefix) if *prefix == bits(*address) => write!(f, "{address}"),
            Self::Network(address, prefix) => write!(f, "{address}/{prefix}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl serde::Serialize for Peer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl schemars::JsonSchema for Peer {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Peer".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "examples": ["public", "10.0.0.0/8:5432", "api.example.org:443/tcp"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Peer, PeerError> {
        text.parse()
    }

    #[test]
    fn what_people_write_is_read() {
        let network = |text: &str, prefix| Who::Network(text.parse().unwrap(), prefix);
        let name = |text: &str| Who::Name(text.to_owned());
        for (text, who, ports, protocol) in [
            ("public", Who::Public, None, None),
            ("any:53/udp", Who::Any, Some((53, 53)), Some(Transport::Udp)),
            ("192.0.2.7", network("192.0.2.7", 32), None, None),
            ("10.0.0.0/8:8000-8099", network("10.0.0.0", 8), Some((8000, 8099)), None),
            ("0.0.0.0/0", network("0.0.0.0", 0), None, None),
            ("2001:db8::/32", network("2001:db8::", 32), None, None),
            ("[2001:db8::1]:443/tcp", network("2001:db8::1", 128), Some((443, 443)), Some(Transport::Tcp)),
            ("API.example.org.:443", name("api.example.org"), Some((443, 443)), None),
            ("*.example.org", name("*.example.org"), None, None),
        ] {
            assert_eq!(read(text).unwrap(), Peer { who, ports, protocol }, "{text}");
        }
    }

    #[test]
    fn what_could_mean_something_else_is_refused() {
        for text in [
            "",
            "*",
            "localhost",
            "10.0.0",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "a b.org",
            "-a.org",
            "public:0",
            "public:80-79",
            "public:x",
            "public:+80",
            "public:65536",
            "[::1]443",
            "a..org",
            "*.*.org",
            "public/icmp",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        let error = read("10.1.0.0/8").unwrap_err().to_string();
        assert!(error.contains("the network is 10.0.0.0/8"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            address: IpAddr, prefix in 0_u8..=128, ports in proptest::option::of((1_u16.., 0_u16..500)),
            protocol in proptest::option::of(prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)]),
        ) {
            let prefix = prefix.min(bits(address));
            // Behind a network of IPv6 no port can be written.
            let ports = ports.filter(|_| address.is_ipv4() || prefix == 128);
            let ports = ports.map(|(first, more)| (first, first.saturating_add(more)));
            let peer = Peer { who: Who::Network(masked(address, prefix), prefix), ports, protocol };
            prop_assert_eq!(read(&peer.to_string()), Ok(peer));
        }

        #[test]
        fn any_text_is_read_or_refused_and_reads_back(text in "[a-z0-9:./*\\[\\]-]{0,30}") {
            if let Ok(peer) = read(&text) {
                prop_assert_eq!(read(&peer.to_string()), Ok(peer));
            }
        }
    }
}
