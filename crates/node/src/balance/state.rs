//! Which replica gets a caller, and who waits: decided without I/O and clocks.
//!
//! ```text
//!   came --> held --choose--> open --ended--> gone
//!             ^                |
//!             +---- failed ----+   the replica didn't answer; nothing was sent
//! ```
//!
//! - **In service** are the backends that the node named last. Another gets nobody new, and is forgotten with its last connection.
//! - **Chosen** is the one with the fewest open connections, of several the one that was chosen longest ago.
//! - **Held** is who finds nobody in service while somebody may come: at most [`MOST_HELD`], and then nobody is taken any more.
//! - **Trusted** is a backend that is known to answer at its address. What publishes a port may take a caller before its workload
//!   listens there, so that whoever isn't trusted gets a moment to say no before anything is sent.
//! - **Resting** is one that said no, for [`REST_MS`].

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::message::Service;

/// The most callers that are held.
pub(crate) const MOST_HELD: usize = 1024;
/// The most connections at a time, with those that are held.
pub(crate) const MOST: usize = 4096;
/// How long a backend that didn't answer is left alone, in milliseconds.
pub(crate) const REST_MS: u64 = 100;

/// What becomes of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// It counts for this backend from now on.
    Go {
        /// Whose it is.
        backend: String,
        /// Where that is.
        address: SocketAddr,
        /// Whether it is known to answer there.
        is_trusted: bool,
    },
    /// Until something changes, and no longer than until then, where a moment is given.
    Wait {
        /// The moment, on the clock of [`State::choose`].
        until_ms: Option<u64>,
    },
    /// Nobody is there, and nobody will be.
    Refuse,
}

/// A replica.
#[derive(Debug, Default)]
struct Backend {
    addresses: BTreeMap<u16, SocketAddr>,
    in_service: bool,
    open: usize,
    /// When it was chosen last, as a number that rises.
    chosen: u64,
    is_trusted: bool,
    rests_until_ms: u64,
}

/// What a balancer knows.
#[derive(Debug, Default)]
pub(crate) struct State {
    backends: BTreeMap<String, Backend>,
    /// Those whose end isn't told yet.
    leaving: BTreeSet<String>,
    holds: bool,
    held: usize,
    open: usize,
    turn: u64,
}

impl State {
    /// Takes what the node says of the deployment.
    pub(crate) fn serve(&mut self, service: &Service) {
        self.holds = service.holds;
        self.leaving.clone_from(&service.leaving);
        for (name, backend) in &mut self.backends {
            backend.in_service = service.backends.contains_key(name);
        }
        for (name, addresses) in &service.backends {
            let backend = self.backends.entry(name.clone()).or_default();
            backend.in_service = true;
            if !addresses.is_empty() && backend.addresses != *addresses {
                backend.addresses.clone_from(addresses);
                backend.is_trusted = false;
            }
        }
        self.backends.retain(|_, backend| backend.in_service || backend.open > 0);
    }

    /// Whether one more caller can be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.held < MOST_HELD && self.held.saturating_add(self.open) < MOST
    }

    /// A caller has come, and is held.
    pub(crate) fn came(&mut self) {
        self.held = self.held.saturating_add(1);
    }

    /// Decides on a caller that is held.
    pub(crate) fn choose(&mut self, port: u16, now_ms: u64) -> Choice {
        let mut until_ms: Option<u64> = None;
        let mut best: Option<(&String, &mut Backend, SocketAddr)> = None;
        for (name, backend) in &mut self.backends {
            let Some(address) = backend.addresses.get(&port).copied().filter(|_| backend.in_service) else {
                continue;
            };
            if backend.rests_until_ms > now_ms {
                let rest_ms = backend.rests_until_ms;
                until_ms = Some(until_ms.map_or(rest_ms, |until_ms| until_ms.min(rest_ms)));
                continue;
            }
            let load = (backend.open, backend.chosen);
            if best.as_ref().is_none_or(|(_, other, _)| load < (other.open, other.chosen)) {
                best = Some((name, backend, address));
            }
        }
        let Some((name, backend, address)) = best else {
            let is_worth_it = self.holds || until_ms.is_some();
            return if is_worth_it { Choice::Wait { until_ms } } else { Choice::Refuse };
        };
        self.turn = self.turn.saturating_add(1);
        backend.chosen = self.turn;
        backend.open = backend.open.saturating_add(1);
        self.open = self.open.saturating_add(1);
        self.held = self.held.saturating_sub(1);
        Choice::Go { backend: name.clone(), address, is_trusted: backend.is_trusted }
    }

    /// A caller that was held is gone, or was sent away.
    pub(crate) fn gave_up(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    /// A backend has answered.
    pub(crate) fn answered(&mut self, name: &str) {
        if let Some(backend) = self.backends.get_mut(name) {
            backend.is_trusted = true;
        }
    }

    /// A backend didn't answer a caller, who is held again.
    pub(crate) fn failed(&mut self, name: &str, now_ms: u64) {
        self.ended(name, true);
        self.held = self.held.saturating_add(1);
        if let Some(backend) = self.backends.get_mut(name) {
            backend.rests_until_ms = now_ms.saturating_add(REST_MS);
        }
    }

    /// A connection has ended; `broke` where the backend broke it off before it said a word.
    pub(crate) fn ended(&mut self, name: &str, broke: bool) {
        self.open = self.open.saturating_sub(1);
        let Some(backend) = self.backends.get_mut(name) else { return };
        backend.open = backend.open.saturating_sub(1);
        backend.is_trusted &= !broke;
        if !backend.in_service && backend.open == 0 {
            self.backends.remove(name);
        }
    }

    /// Those of whom it is to be told, and of whom it wasn't yet, that they have no connection any more.
    pub(crate) fn drained(&mut self) -> Vec<String> {
        let is_free = |name: &String| self.backends.get(name).is_none_or(|backend| backend.open == 0);
        let free: Vec<String> = self.leaving.iter().filter(|name| is_free(name)).cloned().collect();
        self.leaving.retain(|name| !free.contains(name));
        free
    }

    /// Whether the end of a connection is news for somebody.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.leaving.is_empty() || !self.has_room()
    }
}
