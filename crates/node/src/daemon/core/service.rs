//! What a deployment serves under its published ports, and how a spacecore is taken out of it before it is stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use hypercore::network::{Protocol, Publish};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{Core, Happening, Leaving, Spacecore};
use crate::balance::{self, Service, shared_ports};
use crate::daemon::attempt::PROGRAM;
use crate::daemon::balancer::{self, Balancer, Order, Said, Wanted};
use crate::daemon::call::Refusal;
use crate::daemon::port;
use crate::keeper::report::ToKeeper;
use crate::run_folder::{self, Left};
use crate::supervisor::Phase;

/// The core's hold on a balancer.
pub(super) struct Hold {
    orders: UnboundedSender<Order>,
    /// What it was told last.
    told: Option<Service>,
    is_ending: bool,
}

/// A spacecore that is to be stopped, once those whom it serves have come to their end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draining {
    grace_ms: u64,
    /// Which of its drains it is.
    turn: u64,
}

impl Core {
    /// Tells a deployment's balancer what is to be served now; starts it where there has to be one, ends it where there hasn't.
    pub(super) fn serve(&mut self, name: &str, bound: Vec<(u16, TcpListener)>) {
        let service = self.service(name);
        let is_alive = self.of(name).any(|spacecore| !spacecore.is_at_rest());
        let is_wanted = !service.ports.is_empty();
        if !self.balancers.contains_key(name) {
            if !is_wanted {
                return;
            }
            self.begin_balancer(name);
        }
        let Some(hold) = self.balancers.get_mut(name).filter(|hold| !hold.is_ending) else { return };
        if !is_wanted && !is_alive {
            hold.is_ending = true;
            // A task that is gone has nothing to end.
            let _ = hold.orders.send(Order::End);
        } else if hold.told.as_ref() != Some(&service) || !bound.is_empty() {
            hold.told = Some(service.clone());
            let _ = hold.orders.send(Order::Serve(service, bound));
        }
    }

    fn begin_balancer(&mut self, name: &str) {
        let (orders, hears) = unbounded_channel();
        let balancer = Balancer {
            program: PathBuf::from(PROGRAM),
            deployment: name.to_owned(),
            folder: balance::folder(&self.home.run(), name),
            tell: self.tell.clone(),
            orders: hears,
            wanted: Wanted::default(),
        };
        tokio::spawn(balancer.keep());
        self.balancers.insert(name.to_owned(), Hold { orders, told: None, is_ending: false });
    }

    /// Takes up the balancers that a node before this one has left, also where they have only to be ended.
    pub(super) fn find_balancers(&mut self) {
        let names: Vec<String> = self.deployments.keys().cloned().collect();
        for name in names {
            let folder = balance::folder(&self.home.run(), &name);
            if !matches!(run_folder::look(&folder), Ok(Left::Nothing)) {
                self.begin_balancer(&name);
            }
        }
    }

    fn service(&self, name: &str) -> Service {
        let Some(deployment) = self.deployments.get(name) else { return Service::default() };
        let record = &deployment.record;
        let runs = record.running && !record.removing;
        let ready = self.of(name).filter(|found| found.record.state.phase() == Phase::Ready);
        let backends =
            ready.filter_map(|found| Some((found.record.keeper.clone()?, found.record.published.clone())));
        let leaving = self.of(name).filter(|found| found.draining.is_some());
        // Who is about to be replaced comes again, and in the place of who is removed somebody may.
        let mut staying = self.of(name).filter(|found| found.leaving != Some(Leaving::Remove)).peekable();
        let rests = |found: &Spacecore| found.leaving.is_none() && found.record.state.phase().is_restful();
        let is_over = record.replicas == 0 || (staying.peek().is_some() && staying.all(rests));
        Service {
            // What stands still, or goes, is nobody to call any more; who is connected already stays so.
            ports: if runs { self.ports(name) } else { BTreeSet::new() },
            backends: backends.collect(),
            leaving: leaving.filter_map(|found| found.record.keeper.clone()).collect(),
            holds: runs && !is_over,
        }
    }

    /// The ports of a deployment: those of the revision that it is brought to, and of each that is still there.
    pub(super) fn ports(&self, name: &str) -> BTreeSet<u16> {
        let Some(deployment) = self.deployments.get(name) else { return BTreeSet::new() };
        let rollout = &deployment.record.rollout;
        let newest = Some(deployment.newest().0).filter(|newest| !rollout.has_given_up(*newest));
        let aimed_at = newest.or(rollout.target());
        let there = self.of(name).map(|found| found.record.revision);
        let revisions = aimed_at.into_iter().chain(there);
        revisions.filter_map(|number| deployment.manifests.get(&number)).flat_map(shared_ports).collect()
    }

    /// Binds what a manifest publishes and its deployment doesn't have yet.
    ///
    /// # Errors
    /// A port can't be had; then none is.
    pub(super) fn bind(&self, manifest: &hac::Manifest) -> Result<Vec<(u16, TcpListener)>, Refusal> {
        let name = &manifest.metadata.name;
        // One that stands still has no ports, unless it is just letting go of them.
        let runs = self.deployments.get(name).is_none_or(|found| found.record.running);
        let its_own = if self.deployments.contains_key(name) && (runs || self.balancers.contains_key(name)) {
            self.ports(name)
        } else {
            BTreeSet::new()
        };
        let wanted = if runs { shared_ports(manifest) } else { BTreeSet::new() };
        wanted.difference(&its_own).copied().map(|port| self.bind_one(port)).collect()
    }

    /// Binds what a deployment that stands still is about to publish again. One that is just letting go of its ports gets them
    /// once it has.
    ///
    /// # Errors
    /// A port can't be had; then none is.
    pub(super) fn bind_again(&self, name: &str) -> Result<Vec<(u16, TcpListener)>, Refusal> {
        let ports = if self.balancers.contains_key(name) { BTreeSet::new() } else { self.ports(name) };
        ports.into_iter().map(|port| self.bind_one(port)).collect()
    }

    fn bind_one(&self, port: u16) -> Result<(u16, TcpListener), Refusal> {
        port::bind(port).map(|bound| (port, bound)).map_err(|error| self.taken(port, &error))
    }

    fn taken(&self, port: u16, error: &io::Error) -> Refusal {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Refusal::Port { port, reason: error.to_string() };
        }
        let publishes =
            |name: &&String| self.balancers.contains_key(*name) && self.ports(name).contains(&port);
        let other = self.deployments.keys().find(publishes).map(|name| format!("the deployment {name}"));
        let reason = match other.or_else(|| port::holder(port)) {
            Some(holder) => format!("{holder} has it"),
            None => "it is in use".to_owned(),
        };
        Refusal::Port { port, reason }
    }

    /// Where a spacecore's ports are.
    pub(super) fn published(&mut self, name: &str, published: &[Publish]) {
        let Some(spacecore) = self.spacecores.get_mut(name) else { return };
        let tcp = published.iter().filter(|port| port.protocol == Protocol::Tcp);
        let addresses: BTreeMap<u16, SocketAddr> =
            tcp.map(|port| (port.guest, SocketAddr::new(port.address, port.host))).collect();
        spacecore.record.published = addresses;
        self.keep(name);
        let Some(spacecore) = self.spacecores.get(name) else { return };
        let deployment = spacecore.record.deployment.clone();
        self.mark(&deployment);
    }

    /// Has a spacecore's keeper end it, after those whom it serves have had their time. Its phase says already that nobody new comes.
    pub(super) fn drain(&mut self, name: &str, drain_ms: u64, grace_ms: u64) {
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn;
        let Some(spacecore) = self.spacecores.get_mut(name) else { return };
        let deployment = spacecore.record.deployment.clone();
        let is_served = self.balancers.contains_key(&deployment) && spacecore.record.keeper.is_some();
        if drain_ms == 0 || !is_served {
            spacecore.order(ToKeeper::Stop { grace_ms });
            return;
        }
        spacecore.draining = Some(Draining { grace_ms, turn });
        self.mark(&deployment);
        let (tell, spacecore) = (self.tell.clone(), name.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(drain_ms)).await;
            // Where nobody hears it the node is ending.
            let _ = tell.send(Happening::DrainOver { spacecore, turn });
        });
    }

    pub(super) fn drain_over(&mut self, name: &str, turn: u64) {
        if let Some(spacecore) = self.spacecores.get_mut(name)
            && spacecore.draining.is_some_and(|draining| draining.turn == turn)
        {
            spacecore.stop_drained();
        }
    }

    pub(super) fn balancer_said(&mut self, deployment: &str, said: Said) {
        match said {
            Said::Drained(backend) => {
                let is_meant = |found: &&mut Spacecore| found.record.keeper.as_ref() == Some(&backend);
                if let Some(spacecore) = self.spacecores.values_mut().find(is_meant) {
                    spacecore.stop_drained();
                }
            }
            Said::Trouble(text) => self.events.note("ports", Some(deployment), None, text),
            Said::Gone => {
                self.balancers.remove(deployment);
                self.finish_removal(deployment);
                self.mark(deployment);
            }
        }
    }

    /// Ends a balancer of a deployment that isn't there any more.
    pub(super) fn end_stray(folder: PathBuf) {
        tokio::spawn(balancer::end(folder));
    }
}

impl Spacecore {
    fn stop_drained(&mut self) {
        if let Some(Draining { grace_ms, .. }) = self.draining.take() {
            self.order(ToKeeper::Stop { grace_ms });
        }
    }
}
