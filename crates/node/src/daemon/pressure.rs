//! Watches how much of the machine's memory is available, and has somebody go when it gets short: see [`eviction`].

use std::fs;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::core::Happening;
use super::sampler::ask_all;
use crate::capacity::{Resource, amount};
use crate::clock::now_ns;
use crate::eviction::{self, Candidate, Pressure};

/// From one measurement to the next.
const PERIOD: Duration = Duration::from_secs(2);
/// How long guests may take to say what they use, all together.
const PATIENCE: Duration = Duration::from_secs(2);

/// A burstable spacecore that runs, with the memory that it may use.
#[derive(Debug)]
pub(super) struct Evictable {
    pub(super) name: String,
    pub(super) promised: u64,
    pub(super) running_ms: u64,
}

/// Watches until the node ends; there should be `least` bytes available always.
pub(super) async fn run(tell: UnboundedSender<Happening>, least: u64) {
    let mut pressure = Pressure::default();
    loop {
        tokio::time::sleep(PERIOD).await;
        // Without a word of the kernel's nothing is done.
        let Some(available) = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text))
        else {
            continue;
        };
        if !pressure.measured(now_ms(), available, least) {
            continue;
        }
        let (reply, evictable) = oneshot::channel();
        if tell.send(Happening::ToEvict(reply)).is_err() {
            return;
        }
        let Ok(evictable) = evictable.await else { return };
        let candidates = measure(&tell, evictable).await;
        let Some(chosen) = eviction::choose(&candidates) else { continue };
        let memory = |bytes| amount(Resource::Memory, bytes);
        let reason = format!(
            "the machine was short of memory: {} was left, less than {}, and of {} burstable spacecores it used most, {}",
            memory(available),
            memory(least),
            candidates.len(),
            memory(chosen.used),
        );
        let _ = tell.send(Happening::Evict { spacecore: chosen.name.clone(), reason });
        pressure.evicted(now_ms());
    }
}

/// What each of them uses. One that doesn't say so in time counts with all that it may use.
async fn measure(tell: &UnboundedSender<Happening>, evictable: Vec<Evictable>) -> Vec<Candidate> {
    let names: Vec<String> = evictable.iter().map(|one| one.name.clone()).collect();
    let answers = ask_all(tell, &names, Instant::now() + PATIENCE).await;
    let candidate = |one: Evictable| {
        let said = answers.get(&one.name).map(|stats| {
            let inside = stats.guest_memory_total.saturating_sub(stats.guest_memory_available);
            // What a guest says of itself doesn't make it smaller.
            stats.resident.max(inside.min(one.promised))
        });
        Candidate { used: said.unwrap_or(one.promised), name: one.name, running_ms: one.running_ms }
    };
    evictable.into_iter().map(candidate).collect()
}

/// `MemAvailable` of `/proc/meminfo` (proc(5)), in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_available_is_read_from_the_kernel_s_words() {
        assert_eq!(available("MemTotal: 8 kB\nMemAvailable:   1234 kB\n"), Some(1234 * 1024));
        assert_eq!(available("MemAvailable: many kB"), None);
        assert_eq!(available(""), None);
        assert!(available(&fs::read_to_string("/proc/meminfo").unwrap()).is_some());
    }
}
