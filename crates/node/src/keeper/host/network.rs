//! The spacecore's network, whoever carries it: begun before its machine is started, finished after.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use hypercore::driver::{Body, Class, Wire};
use hypercore::network::{Carrier, GuestNetwork, NetworkPlan, Publish, Traffic};
use hypercore::passt::Passt;
use hypercore::routed::Routed;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use spacecore::wire::message::Network;

use crate::run_folder;

/// A network whose machine isn't started yet.
pub(super) enum Joining {
    /// One end of a stream of frames, for passt, which has threads.
    Passt(OwnedFd),
    Routed(Box<Routed>),
}

/// A network.
pub(super) struct Joined {
    carried: Carried,
    told: Network,
}

/// What holds it.
enum Carried {
    Passt(Box<Passt>),
    Routed(Box<Routed>),
}

impl Joining {
    /// Begins; the wire is for the machine.
    pub(super) fn begin(plan: Option<&NetworkPlan>, body: &Body) -> Result<Option<(Self, Wire)>, String> {
        let Some(plan) = plan else { return Ok(None) };
        match plan.carrier {
            Carrier::Passt => {
                let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
                let (passt, machine) = pair.map_err(|error| image::whole(&error))?;
                Ok(Some((Self::Passt(passt), Wire::Stream(machine))))
            }
            Carrier::Routed => {
                let has_tap = matches!(body, Body::Virtual(_));
                let (routed, wire) = Routed::prepare(plan, has_tap).map_err(|error| image::whole(&error))?;
                Ok(Some((Self::Routed(Box::new(routed)), wire)))
            }
        }
    }

    /// Finishes, once the machine is started. The run folder gets a folder for passt's control group, which is as firm as the machine.
    pub(super) fn finish(
        self,
        plan: &NetworkPlan,
        run_folder: &Path,
        class: Class,
    ) -> Result<Joined, String> {
        match self {
            Self::Passt(wire) => {
                let folder = run_folder.join(run_folder::NETWORK);
                run_folder::make(&folder).map_err(|error| image::whole(&error))?;
                let started = Passt::start_on(plan, wire, Some((&folder, class)));
                let (passt, guest) = started.map_err(|error| image::whole(&error))?;
                Ok(Joined { carried: Carried::Passt(Box::new(passt)), told: told(&guest) })
            }
            Self::Routed(mut routed) => {
                routed.open(plan).map_err(|error| image::whole(&error))?;
                let told = told(&routed.guest());
                Ok(Joined { carried: Carried::Routed(routed), told })
            }
        }
    }
}

impl Joined {
    /// What the guest is told.
    pub(super) fn told(&self) -> &Network {
        &self.told
    }

    /// What the workload learns of itself, as variables: its own addresses, those that the world sees it at, and its ports there.
    pub(super) fn variables(&self) -> [String; 3] {
        let list = |all: &[String]| all.join(",");
        let (own, outside) = match &self.carried {
            Carried::Passt(passt) => {
                let own = addresses(&passt.guest());
                (own.clone(), own)
            }
            Carried::Routed(routed) => {
                let outside = routed.machine_addresses().iter().map(ToString::to_string).collect();
                (addresses(&routed.guest()), outside)
            }
        };
        let ports: Vec<String> = self.published().iter().map(variable).collect();
        [
            format!("VIMANA_ADDRESSES={}", list(&own)),
            format!("VIMANA_PUBLIC_ADDRESSES={}", list(&outside)),
            format!("VIMANA_PUBLIC_PORTS={}", list(&ports)),
        ]
    }

    /// What has passed between it and the spacecore, if that can be told.
    pub(super) fn traffic(&self) -> Option<Traffic> {
        match &self.carried {
            Carried::Passt(passt) => Some(passt.traffic()),
            Carried::Routed(routed) => routed.traffic().ok(),
        }
    }

    /// Its published ports, with those that were chosen for 0.
    pub(super) fn published(&self) -> &[Publish] {
        match &self.carried {
            Carried::Passt(passt) => passt.published(),
            Carried::Routed(routed) => routed.published(),
        }
    }

    /// Becomes readable, for `poll`, when it has ended by itself, which only a process can.
    pub(super) fn handle(&self) -> Option<BorrowedFd<'_>> {
        match &self.carried {
            Carried::Passt(passt) => Some(passt.handle()),
            Carried::Routed(_) => None,
        }
    }

    /// Says what was said last, if it has ended by itself.
    pub(super) fn ended(&mut self) -> Option<String> {
        match &mut self.carried {
            Carried::Passt(passt) => passt.ended(),
            Carried::Routed(_) => None,
        }
    }
}

/// A published port as the workload learns of it.
fn variable(publish: &Publish) -> String {
    publish.to_string().replace(' ', "")
}

fn addresses(guest: &GuestNetwork) -> Vec<String> {
    let four = guest.ipv4.map(|(address, ..)| address.to_string());
    four.into_iter().chain(guest.ipv6.map(|(address, ..)| address.to_string())).collect()
}

/// The network as the guest is told of it.
fn told(network: &GuestNetwork) -> Network {
    let v4 =
        network.ipv4.map(|(address, prefix, gateway)| (format!("{address}/{prefix}"), gateway.to_string()));
    let v6 =
        network.ipv6.map(|(address, prefix, gateway)| (format!("{address}/{prefix}"), gateway.to_string()));
    let (addresses, gateways) = v4.into_iter().chain(v6).unzip();
    Network {
        addresses,
        gateways,
        dns: network.dns.iter().map(ToString::to_string).collect(),
        search: Vec::new(),
        mtu: u32::from(network.mtu),
    }
}
