//! What node and balancer say to each other: a line of JSON for each message.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The version of the messages. [`ToBalancer::End`] means the same in each.
pub(crate) const VERSION: u32 = 1;

/// What the node tells the balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub(crate) enum ToBalancer {
    /// Take callers of this port; a socket that listens there comes along.
    Listen {
        /// The port.
        port: u16,
    },
    /// This is to be served from now on.
    Serve(Service),
    /// Every connection is cut, and the balancer ends.
    End,
}

/// What the balancer tells the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub(crate) enum FromBalancer {
    /// The first message to whoever connects.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The ports that it listens on.
        ports: BTreeSet<u16>,
    },
    /// One of [`Service::leaving`] has no connection any more.
    Drained {
        /// Which.
        backend: String,
    },
}

/// What a balancer serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Service {
    /// The ports to listen on; what listens on others is closed.
    pub(crate) ports: BTreeSet<u16>,
    /// Who is in service, by the name of its run folder, and where each port of it is. Of one without any, what was said before holds.
    pub(crate) backends: BTreeMap<String, BTreeMap<u16, SocketAddr>>,
    /// Whose end of connections is to be told.
    pub(crate) leaving: BTreeSet<String>,
    /// Whether somebody may come into service again, so that callers are worth holding.
    pub(crate) holds: bool,
}
