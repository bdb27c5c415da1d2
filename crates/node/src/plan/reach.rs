//! Whom a spacecore reaches over its network, and who reaches it.

use hac::model::{NetworkType, Networking};
use hac::peer::{Peer, Transport, Who};
use hac::units::BitRate;
use hypercore::network::{self, Policy, Protocol, Rule};
use serde::Serialize;

/// What the manifest says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Whom it may reach.
    pub to: Vec<Peer>,
    /// Who may reach its published ports.
    pub from: Vec<Peer>,
    /// The most that it may send.
    pub egress: Option<BitRate>,
    /// The most that it may receive.
    pub ingress: Option<BitRate>,
}

impl Reach {
    pub(super) fn decide(networking: &Networking) -> Self {
        Self {
            to: match networking.network_type {
                NetworkType::Public | NetworkType::None => networking.allow_to.clone(),
                NetworkType::Private => Vec::new(),
            },
            from: networking.allow_from.clone(),
            egress: networking.egress.or(networking.bandwidth_limit),
            ingress: networking.ingress.or(networking.bandwidth_limit),
        }
    }

    /// The same for the filter.
    pub(super) fn policy(&self) -> Policy {
        let networks = |peer: &Peer| match peer.who {
            Who::Network(address, prefix) => Some((address, prefix)),
            Who::Any | Who::Public | Who::Name(_) => None,
        };
        let everybody = self.from.iter().any(|peer| peer.who == Who::Any);
        Policy {
            to: self.to.iter().map(rule).collect(),
            from: (!everybody).then(|| self.from.iter().filter_map(networks).collect()),
            out_bits: self.egress.map(BitRate::as_bits_per_second),
            in_bits: self.ingress.map(BitRate::as_bits_per_second),
        }
    }

    /// Whom it reaches, for people.
    pub(super) fn describe_to(&self) -> String {
        match self.to.is_empty() {
            true => "nobody, but for answers".to_owned(),
            false => list(&self.to),
        }
    }

    /// Who reaches it, for people.
    pub(super) fn describe_from(&self) -> String {
        match self.from.is_empty() {
            true => "nobody".to_owned(),
            false => list(&self.from),
        }
    }

    /// Its rates, for people; nothing where there are none.
    pub(super) fn describe_rates(&self) -> Option<String> {
        let rate = |rate: Option<BitRate>| rate.map_or("without limit".to_owned(), |rate| rate.to_string());
        let limited = self.egress.is_some() || self.ingress.is_some();
        limited.then(|| format!("out {}, in {}", rate(self.egress), rate(self.ingress)))
    }
}

fn list(peers: &[Peer]) -> String {
    peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn rule(peer: &Peer) -> Rule {
    Rule {
        who: match &peer.who {
            Who::Any => network::Who::Any,
            Who::Public => network::Who::Public,
            Who::Network(address, prefix) => network::Who::Network(*address, *prefix),
            Who::Name(name) => network::Who::Name(name.clone()),
        },
        ports: peer.ports,
        protocol: peer.protocol.map(|protocol| match protocol {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        }),
    }
}
