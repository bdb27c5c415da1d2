//! Whether a guest's word can be true.
//!
//! Only what has no innocent reason counts. A guest may have interfaces within itself, so that it counts a packet twice; an emulated one
//! takes time for computed that it only waited for. But traffic on its only wire that it doesn't know of, a busy machine in
//! which nothing computes, or more time than its processors have, are untrue.

use std::collections::BTreeMap;

use super::{Limits, Usage};

/// What is found, for people, and the numbers.
type Found = (String, BTreeMap<&'static str, u64>);

/// Traffic in bytes a second of which a guest need know nothing.
const UNKNOWN: u64 = 64 * 1024;

/// How much has to be computed in microseconds a millisecond before the guest must know of it: a kernel that counts by ticks
/// overlooks what computes only between them, as something does that is held to a small share.
const LEAST_HIDDEN: u64 = 200;

/// Compares the round between two moments.
pub(super) fn find(limits: Limits, took_ms: u64, before: &Usage, now: &Usage) -> Option<Found> {
    memory(limits, now).or_else(|| cpu(limits, took_ms, before, now)).or_else(|| {
        let (seen, seen_before) = now.traffic.zip(before.traffic).filter(|_| limits.counts_traffic)?;
        let (said, said_before) = (now.guest_traffic, before.guest_traffic);
        let received = (seen.0.saturating_sub(seen_before.0), said.0.saturating_sub(said_before.0));
        let sent = (seen.1.saturating_sub(seen_before.1), said.1.saturating_sub(said_before.1));
        traffic("was sent", took_ms, received).or_else(|| traffic("has sent", took_ms, sent))
    })
}

fn traffic(what: &str, took_ms: u64, (seen, said): (u64, u64)) -> Option<Found> {
    let unknown = UNKNOWN.saturating_mul(took_ms) / 1000;
    (seen.saturating_sub(said) > unknown.saturating_add(seen / 4)).then(|| {
        let text = format!("it {what} {seen} bytes in a round, and its guest knows of {said}");
        (text, BTreeMap::from([("seen_bytes", seen), ("said_bytes", said)]))
    })
}

fn cpu(limits: Limits, took_ms: u64, before: &Usage, now: &Usage) -> Option<Found> {
    let seen = now.cpu_us.saturating_sub(before.cpu_us);
    let said = now.guest_cpu_us.saturating_sub(before.guest_cpu_us);
    let evidence = BTreeMap::from([("seen_us", seen), ("said_us", said)]);
    let share_us = took_ms.saturating_mul(u64::from(limits.cpu_milli));
    // A virtual machine has whole processors.
    let all_us =
        took_ms.saturating_mul(1000).saturating_mul(u64::from(limits.cpu_milli.div_ceil(1000).max(1)));
    if seen > share_us / 2 && seen > took_ms.saturating_mul(LEAST_HIDDEN) && said < seen / 10 {
        let text =
            format!("this machine has computed {seen} us for it in a round, and its guest says {said}");
        return Some((text, evidence));
    }
    (said > all_us.saturating_mul(3) / 2).then(|| {
        let text = format!("its guest says that it has computed {said} us in a round of {took_ms} ms");
        (text, evidence)
    })
}

fn memory(limits: Limits, now: &Usage) -> Option<Found> {
    let most = limits.memory.saturating_add(limits.memory / 20);
    (limits.own_kernel && now.guest_memory > most).then(|| {
        let (said, given) = (now.guest_memory, limits.memory);
        let text = format!("its guest says that it has {said} bytes of memory, and was given {given}");
        (text, BTreeMap::from([("said_bytes", said), ("given_bytes", given)]))
    })
}
