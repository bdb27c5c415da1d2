//! What of a machine is offered.

use hac::node::OfferSettings;

use super::{Offer, Resource, amount};

/// The most memory in bytes that a machine keeps for itself where its operator says nothing.
const KEPT_MAX: u64 = 512 << 20;

/// What a machine has that could be offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Threads that can run at a time.
    pub threads: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// The size in bytes of the file system in which the node's home lies.
    pub disk: u64,
    /// What of it is free, or written by the node's spacecores.
    pub disk_free: u64,
}

/// More is offered than there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{key}` offers {}, and this machine has {}; remove the line to offer what is there",
    amount(*resource, *offered),
    amount(*resource, *has)
)]
pub struct TooMuch {
    /// The key.
    pub key: &'static str,
    /// Of what.
    pub resource: Resource,
    /// What the operator offers.
    pub offered: u64,
    /// What there is.
    pub has: u64,
}

impl Offer {
    /// What an operator's settings offer of a machine.
    ///
    /// # Errors
    /// It is more than there is.
    pub fn of(settings: &OfferSettings, machine: Machine) -> Result<Self, TooMuch> {
        let bounded = |key, resource, asked: Option<u64>, has: u64, default: u64| match asked {
            Some(offered) if offered > has => Err(TooMuch { key, resource, offered, has }),
            asked => Ok(asked.unwrap_or(default)),
        };
        let cpu = u64::from(machine.threads).saturating_mul(1000);
        let kept = (machine.memory / 10).min(KEPT_MAX);
        let (asked_cpu, asked_memory) = (settings.cpu.map(|cpu| cpu.as_millis().into()), settings.memory);
        let asked_memory = asked_memory.map(|memory| memory.as_u64());
        let asked_disk = settings.disk.map(|disk| disk.as_u64());
        Ok(Self {
            cpu_millis: bounded("offer.cpu", Resource::Cpu, asked_cpu, cpu, cpu)?,
            memory: bounded(
                "offer.memory",
                Resource::Memory,
                asked_memory,
                machine.memory,
                machine.memory.saturating_sub(kept),
            )?,
            disk: bounded("offer.disk", Resource::Disk, asked_disk, machine.disk, machine.disk_free)?,
            oversell: settings.oversell,
            evict_below: settings.evict_below.map_or(kept / 2, |memory| memory.as_u64()).min(machine.memory),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { threads: 4, memory: 8 << 30, disk: 100 << 30, disk_free: 40 << 30 };

    fn offer(settings: &str) -> Result<Offer, TooMuch> {
        Offer::of(&hac::node::parse(settings).unwrap().offer, MACHINE)
    }

    #[test]
    fn a_machine_keeps_a_tenth_of_its_memory_or_512_mib_for_itself() {
        let found = offer("").unwrap();
        assert_eq!(
            (found.cpu_millis, found.memory, found.disk, found.oversell),
            (4000, 7680 << 20, 40 << 30, 150)
        );
        assert_eq!(found.evict_below, 256 << 20, "half of it");
        assert_eq!(offer("[offer]\nevict_below = \"1GiB\"").unwrap().evict_below, 1 << 30);
        let small = Machine { memory: 1000, ..MACHINE };
        assert_eq!(Offer::of(&OfferSettings::default(), small).unwrap().memory, 900);
    }

    #[test]
    fn what_the_operator_says_holds_as_far_as_the_machine_has_it() {
        let found =
            offer("[offer]\ncpu = \"500m\"\nmemory = \"8GiB\"\ndisk = \"90GiB\"\noversell = 100").unwrap();
        assert_eq!(
            found,
            Offer { cpu_millis: 500, memory: 8 << 30, disk: 90 << 30, oversell: 100, evict_below: 256 << 20 }
        );
        let said = offer("[offer]\nmemory = \"9GiB\"").unwrap_err().to_string();
        assert_eq!(
            said,
            "`offer.memory` offers 9 GiB, and this machine has 8 GiB; remove the line to offer what is there"
        );
        assert_eq!(offer("[offer]\ncpu = 5").unwrap_err().key, "offer.cpu");
    }
}
