//! How it is said that something doesn't fit.

use std::fmt;

use hac::model::Class;
use schemars::JsonSchema;
use serde::Serialize;

/// What can run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// Guaranteed CPU.
    Cpu,
    /// Memory.
    Memory,
    /// Disk.
    Disk,
}

/// That a deployment doesn't fit, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoom {
    /// The deployment.
    pub name: String,
    /// How many replicas it is to have.
    pub replicas: u32,
    /// How many would fit.
    pub fit: u32,
    /// What there isn't enough of; at least one.
    pub lacks: Vec<Lack>,
}

/// A resource of which there isn't enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// Which.
    pub resource: Resource,
    /// The class that is asked in.
    pub class: Class,
    /// What all replicas ask for together, in bytes or thousandths of a core.
    pub asked: u64,
    /// What the node offers.
    pub offered: u64,
    /// How far memory may be oversold, in percent.
    pub oversell: u32,
    /// What others have of it, in both classes.
    pub allocated: u64,
    /// Those who have most of it, at most three.
    pub by: Vec<(String, u64)>,
    /// What the asking deployment could have, in its class.
    pub left: u64,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Disk];
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, replicas, fit, lacks } = self;
        let count =
            |count: u32| if count == 1 { "1 replica".to_owned() } else { format!("{count} replicas") };
        write!(f, "there is no room for {} of {name}: ", count(*replicas))?;
        for (index, lack) in lacks.iter().enumerate() {
            write!(f, "{}{lack}", if index == 0 { "" } else { "; " })?;
        }
        match (fit, replicas) {
            (0, 0 | 1) => Ok(()),
            (0, _) => f.write_str(". Not even one would fit"),
            (fit, _) => write!(f, ". {} would fit", count(*fit)),
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value| amount(self.resource, value);
        let (what, oversold) = match (self.resource, self.class) {
            (Resource::Cpu, _) => ("guaranteed CPU", String::new()),
            (Resource::Disk, _) => ("disk", String::new()),
            (Resource::Memory, Class::Guaranteed) => ("guaranteed memory", String::new()),
            (Resource::Memory, Class::Burstable) => {
                ("burstable memory", format!(" (oversold up to {} %)", self.oversell))
            }
        };
        let (asked, left, offered) = (show(self.asked), show(self.left), show(self.offered));
        write!(f, "it asks for {asked} of {what}, and {left} is left of {offered}{oversold}, ")?;
        if self.by.is_empty() {
            return f.write_str("of which nobody else has any");
        }
        let shown = self.by.iter().map(|(name, value)| format!("{name} {}", show(*value)));
        let listed: u64 = self.by.iter().map(|(_, value)| value).fold(0, |sum, one| sum.saturating_add(*one));
        let more = if listed < self.allocated { ", ..." } else { "" };
        let by = shown.collect::<Vec<_>>().join(", ");
        write!(f, "of which others have {} ({by}{more})", show(self.allocated))
    }
}

/// An amount for people: cores, or bytes rounded to what can be read.
pub fn amount(resource: Resource, value: u64) -> String {
    const MIB: u64 = 1 << 20;
    let tenths = |unit: u64| {
        let tenths = u128::from(value) * 10 / u128::from(unit);
        if tenths.is_multiple_of(10) {
            format!("{}", tenths / 10)
        } else {
            format!("{}.{}", tenths / 10, tenths % 10)
        }
    };
    match resource {
        Resource::Cpu if value.is_multiple_of(1000) => format!("{} CPU", value / 1000),
        Resource::Cpu => format!("{value}m CPU"),
        Resource::Memory | Resource::Disk if value >= MIB * 1024 => format!("{} GiB", tenths(MIB * 1024)),
        Resource::Memory | Resource::Disk => format!("{} MiB", tenths(MIB)),
    }
}
