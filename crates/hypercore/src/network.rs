//! What every guest's network has in common: what is asked for, and what the guest is told.
//!
//! Two ways lead to the world. [`crate::passt`] needs no root; [`crate::routed`] is the kernel's, for root.

pub(crate) mod limit;
mod policy;
pub(crate) mod questions;
pub(crate) mod route;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

pub(crate) use self::policy::{METADATA4, METADATA6, inside, is_in, is_public, is_special, names};
pub use self::policy::{Policy, Rule, Who};
use crate::driver::Mac;

/// The hardware address of every guest: each has a wire of its own, on which nobody else is.
pub const MAC: Mac = Mac([0x52, 0x54, 0x00, 0x76, 0x69, 0x6d]);

/// What a network is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkPlan {
    /// The ports of the guest that the host answers on.
    pub published: Vec<Publish>,
    /// Whom the guest may reach, and who may reach it.
    pub policy: Policy,
    /// How the guest is joined to the machine's network.
    pub carrier: Carrier,
    /// What spacecores of the same private network find it by.
    pub name: String,
    /// The private network that it is in, if any; of [`Carrier::Routed`] alone.
    pub private_network: Option<String>,
}

/// What this machine has seen pass between a guest and its network since that began: frames as the guest's interface has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Traffic {
    /// Bytes that the guest was sent.
    pub received: u64,
    /// Bytes that the guest has sent, with those that weren't let through.
    pub sent: u64,
    /// Packets of the guest's that the policy has refused.
    pub refused: u64,
}

/// How a guest is joined to the machine's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// By a process without privileges, see [`crate::passt`].
    #[default]
    Passt,
    /// By the kernel, see [`crate::routed`].
    Routed,
}

/// One published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The host's address to listen on.
    pub address: IpAddr,
    /// The host's port; 0 takes a free one, which is known once the spacecore runs.
    pub host: u16,
    /// The guest's port.
    pub guest: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What the guest must be told about its network; nothing of it comes by DHCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GuestNetwork {
    /// Its IPv4 address, the length of its prefix, and the gateway.
    pub ipv4: Option<(Ipv4Addr, u8, Ipv4Addr)>,
    /// Its IPv6 address, the length of its prefix, and the gateway.
    pub ipv6: Option<(Ipv6Addr, u8, Ipv6Addr)>,
    /// Its name servers.
    pub dns: Vec<IpAddr>,
    /// Its largest packet in bytes.
    pub mtu: u16,
}

impl std::fmt::Display for Publish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = SocketAddr::new(self.address, self.host);
        write!(f, "{host} -> {}/{}", self.guest, protocol_name(self.protocol))
    }
}

/// Why a port can't be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// A port is in use.
    #[error("the port {port}/{} of {address} is in use; publish another: -p OTHER:{guest}", protocol_name(*protocol))]
    InUse {
        /// The host's address.
        address: IpAddr,
        /// The host's port.
        port: u16,
        /// The guest's port.
        guest: u16,
        /// TCP or UDP.
        protocol: Protocol,
    },
    /// A port can't be listened on.
    #[error("can't listen on the port {port} of {address}{}", privileged(*port, source))]
    Refused {
        /// The host's address.
        address: IpAddr,
        /// The host's port.
        port: u16,
        /// Why.
        source: io::Error,
    },
}

impl PortError {
    pub(crate) fn new(publish: &Publish, error: io::Error) -> Self {
        let Publish { address, host: port, guest, protocol } = *publish;
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address, port, guest, protocol },
            _ => Self::Refused { address, port, source: error },
        }
    }
}

/// What a person needs to know of a port that only root may listen on.
fn privileged(port: u16, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::PermissionDenied if port < 1024 => {
            format!(
                "; ports below 1024 need root: publish it elsewhere, with -p {}:{port}",
                u32::from(port) + 8000
            )
        }
        _ => String::new(),
    }
}

/// `tcp` or `udp`.
fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}
