//! What the node measures, as OpenMetrics text.
//!
//! There is one group of series for each spacecore, and at most [`SPACECORES_MAX`] groups: the rest is counted. What a guest says of
//! itself is marked as such by its name, for a guest may lie; what it doesn't say in time has no sample.

mod watched;
mod writer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(test)]
pub(super) use self::writer::Sample;
pub(super) use self::writer::{Exposition, Form, Kind, Recorded};
use super::observer::Seen;
use super::telemetry::{Counts, Sent};
use super::view::{Allocation, DeploymentView, SpacecoreView, StatsView};
use crate::capacity::Offer;

/// The form's content type.
///
/// Source: the OpenMetrics specification 1.0.0, section 3.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The older form's.
const OLDER_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Form {
    /// The one that somebody accepts: the older one only where nothing else is.
    pub(super) fn accepted(header: Option<&str>) -> Self {
        match header {
            Some(header) if header.contains("text/plain") && !header.contains("openmetrics") => {
                Self::Prometheus
            }
            _ => Self::OpenMetrics,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => CONTENT_TYPE,
            Self::Prometheus => OLDER_CONTENT_TYPE,
        }
    }
}

/// The most spacecores that have series of their own.
pub(super) const SPACECORES_MAX: usize = 2000;

/// Every phase, so that one in which nobody is shows 0.
const PHASES: [&str; 9] =
    ["idle", "starting", "running", "ready", "waiting", "stopping", "completed", "failed", "halted"];

/// Everything that is measured at one moment.
pub(super) struct Measured<'a> {
    pub(super) version: &'a str,
    pub(super) since_unix_ms: u64,
    pub(super) offer: Offer,
    pub(super) allocation: &'a Allocation,
    pub(super) deployments: &'a [DeploymentView],
    /// How many events of each kind there were since the node started.
    pub(super) events: &'a BTreeMap<String, u64>,
    /// What those guests said that answered, by the spacecore's name.
    pub(super) stats: &'a BTreeMap<String, StatsView>,
    /// How many guests didn't answer in time.
    pub(super) silent: usize,
    /// What the observer knows of each, by the spacecore's name.
    pub(super) seen: &'a BTreeMap<String, Seen>,
    /// What was sent to a collector, if there is one.
    pub(super) sent: Option<&'a Sent>,
}

/// Those of all spacecores that have series of their own.
pub(super) fn listed(deployments: &[DeploymentView]) -> impl Iterator<Item = &SpacecoreView> {
    deployments.iter().flat_map(|deployment| &deployment.spacecores).take(SPACECORES_MAX)
}

/// All families.
pub(super) fn families(measured: &Measured<'_>) -> Exposition {
    let mut out = Exposition::default();
    node(&mut out, measured);
    offer(&mut out, measured);
    let all = || measured.deployments.iter().flat_map(|deployment| &deployment.spacecores);
    let mut phases =
        out.family("vimana_spacecores", Kind::Gauge, None, "Spacecores by the phase that they are in.");
    for phase in PHASES {
        phases.sample(&[("phase", phase)], all().filter(|one| one.phase == phase).count());
    }
    let left_out = all().count().saturating_sub(SPACECORES_MAX);
    out.family(
        "vimana_spacecores_left_out",
        Kind::Gauge,
        None,
        "Spacecores that have no series of their own.",
    )
    .sample(&[], left_out);
    out.family(
        "vimana_spacecores_silent",
        Kind::Gauge,
        None,
        "Guests that didn't say in time what they use.",
    )
    .sample(&[], measured.silent);
    spacecores(&mut out, measured);
    usage(&mut out, measured);
    let mut events =
        out.family("vimana_events", Kind::Counter, None, "Events since the node started, by kind.");
    for (kind, count) in measured.events {
        events.sample(&[("kind", kind)], count);
    }
    watched::anomalies(&mut out, measured);
    watched::pages(&mut out, measured);
    telemetry(&mut out, measured);
    out
}

/// What was sent, where anything is to be.
fn telemetry(out: &mut Exposition, measured: &Measured<'_>) {
    let Some(sent) = measured.sent else { return };
    let mut each = |name, help, value: &dyn Fn(&Counts) -> &AtomicU64| {
        let mut family = out.family(name, Kind::Counter, None, help);
        for (signal, counts) in [("metrics", &sent.metrics), ("logs", &sent.logs)] {
            family.sample(&[("signal", signal)], value(counts).load(Ordering::Relaxed));
        }
    };
    each("vimana_telemetry_sent", "Numbers and lines that a collector has taken.", &|counts| &counts.sent);
    let dropped = "Numbers and lines that no collector has taken, and logs' files that were gone before.";
    each("vimana_telemetry_dropped", dropped, &|counts| &counts.dropped);
    each("vimana_telemetry_retries", "How often something was sent again.", &|counts| &counts.retries);
}

fn node(out: &mut Exposition, measured: &Measured<'_>) {
    out.family("vimana_node", Kind::Info, None, "The node's version.")
        .sample(&[("version", measured.version)], 1);
    out.family("vimana_node_up", Kind::Gauge, None, "Whether the node serves.").sample(&[], 1);
    out.family(
        "vimana_node_start_time_seconds",
        Kind::Gauge,
        Some("seconds"),
        "When the node started, in seconds since 1970.",
    )
    .sample(&[], thousandths(measured.since_unix_ms));
}

fn offer(out: &mut Exposition, measured: &Measured<'_>) {
    let (offer, total) = (&measured.offer, &measured.allocation.total);
    out.family("vimana_offered_cpu_cores", Kind::Gauge, Some("cores"), "CPU that spacecores may have.")
        .sample(&[], thousandths(offer.cpu_millis));
    out.family("vimana_offered_memory_bytes", Kind::Gauge, Some("bytes"), "Memory that spacecores may have.")
        .sample(&[], offer.memory);
    out.family("vimana_offered_disk_bytes", Kind::Gauge, Some("bytes"), "Disk that spacecores may have.")
        .sample(&[], offer.disk);
    let mut cpu = out.family(
        "vimana_allocated_cpu_cores",
        Kind::Gauge,
        Some("cores"),
        "CPU that spacecores were promised.",
    );
    cpu.sample(&[("class", "guaranteed")], thousandths(total.cpu_guaranteed));
    cpu.sample(&[("class", "burstable")], thousandths(total.cpu_burstable));
    let mut memory = out.family(
        "vimana_allocated_memory_bytes",
        Kind::Gauge,
        Some("bytes"),
        "Memory that spacecores were promised.",
    );
    memory.sample(&[("class", "guaranteed")], total.memory_guaranteed);
    memory.sample(&[("class", "burstable")], total.memory_burstable);
    out.family(
        "vimana_allocated_disk_bytes",
        Kind::Gauge,
        Some("bytes"),
        "Disk that spacecores were promised.",
    )
    .sample(&[], total.disk);
}

fn spacecores(out: &mut Exposition, measured: &Measured<'_>) {
    let mut each = |name, kind, help, value: &dyn Fn(&SpacecoreView) -> u64| {
        let mut family = out.family(name, kind, None, help);
        for one in listed(measured.deployments) {
            family.sample(&labels(one), value(one));
        }
    };
    let is_ready = |one: &SpacecoreView| u64::from(one.phase == "ready");
    each("vimana_spacecore_ready", Kind::Gauge, "Whether the spacecore is ready.", &is_ready);
    each("vimana_spacecore_attempts", Kind::Counter, "How often its revision was started.", &|one| {
        one.attempts
    });
    let restarts = |one: &SpacecoreView| one.restarts.into();
    each(
        "vimana_spacecore_restarts",
        Kind::Counter,
        "How often it was started again after a failure.",
        &restarts,
    );
}

fn usage(out: &mut Exposition, measured: &Measured<'_>) {
    let said: Vec<_> = listed(measured.deployments)
        .filter_map(|one| Some((labels(one), measured.stats.get(&one.name)?)))
        .collect();
    let mut bytes = |name, kind, help, value: &dyn Fn(&StatsView) -> u64| {
        let mut family = out.family(name, kind, Some("bytes"), help);
        for (labels, stats) in &said {
            family.sample(labels, value(stats));
        }
    };
    let (gauge, counter) = (Kind::Gauge, Kind::Counter);
    bytes("vimana_spacecore_memory_bytes", gauge, "Memory that this machine spends on it.", &|one| {
        one.resident
    });
    bytes("vimana_spacecore_guest_memory_bytes", gauge, "Memory of the guest, by its own word.", &|one| {
        one.guest_memory_total
    });
    bytes(
        "vimana_spacecore_guest_memory_available_bytes",
        gauge,
        "Memory that is free for use, by the guest's word.",
        &|one| one.guest_memory_available,
    );
    bytes(
        "vimana_spacecore_guest_network_received_bytes",
        counter,
        "Received, by the guest's word.",
        &|one| one.network_received,
    );
    bytes("vimana_spacecore_guest_network_sent_bytes", counter, "Sent, by the guest's word.", &|one| {
        one.network_sent
    });
    let mut counted = |name, unit, help, value: &dyn Fn(&StatsView) -> Option<u64>| {
        let mut family = out.family(name, counter, unit, help);
        for (labels, stats) in &said {
            value(stats).into_iter().for_each(|value| family.sample(labels, value));
        }
    };
    let (bytes, received) = (Some("bytes"), "Received, as this machine has counted on its wire.");
    counted("vimana_spacecore_network_received_bytes", bytes, received, &|one| one.seen_received);
    let sent = "Sent, as this machine has counted on its wire, with what was refused.";
    counted("vimana_spacecore_network_sent_bytes", bytes, sent, &|one| one.seen_sent);
    let refused = "Packets of it that its network policy has refused.";
    counted("vimana_spacecore_network_refused_packets", Some("packets"), refused, &|one| one.refused);
    let mut seconds = |name, help, value: &dyn Fn(&StatsView) -> u64| {
        let mut family = out.family(name, Kind::Counter, Some("seconds"), help);
        for (labels, stats) in &said {
            family.sample(labels, millionths(value(stats)));
        }
    };
    seconds("vimana_spacecore_cpu_seconds", "Time that this machine has computed for it.", &|one| one.cpu_us);
    seconds("vimana_spacecore_guest_cpu_seconds", "Time computed, by the guest's word.", &|one| {
        one.guest_cpu_us
    });
}

fn labels(one: &SpacecoreView) -> [(&'static str, &str); 2] {
    [("deployment", &one.deployment), ("spacecore", &one.name)]
}

fn thousandths(value: u64) -> String {
    format!("{}.{:03}", value / 1000, value % 1000)
}

fn millionths(value: u64) -> String {
    format!("{}.{:06}", value / 1_000_000, value % 1_000_000)
}

#[cfg(test)]
mod tests;
