//! A plan for people's eyes.

use std::fmt;

use hac::model::Class;
use hac::units::{Bytes, MilliCpu};
use hypercore::driver::qemu::overhead_mib;
use hypercore::network::Carrier;
use serde::Serializer;
use serde::ser::SerializeStruct;
use spacecore::wire::message::Process;

use super::{Body, Plan, Virtual};

/// Shows a process without its variables' values, which may be secret.
pub(super) fn process<S: Serializer>(process: &Process, serializer: S) -> Result<S::Ok, S::Error> {
    let mut shown = serializer.serialize_struct("Process", 4)?;
    shown.serialize_field("args", &process.args)?;
    shown.serialize_field("env", &variable_names(process))?;
    shown.serialize_field("user", &process.user)?;
    shown.serialize_field("working_directory", &process.working_directory)?;
    shown.end()
}

fn variable_names(process: &Process) -> Vec<&str> {
    process.env.iter().filter_map(|pair| pair.split('=').next()).collect()
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, value: &dyn fmt::Display) -> fmt::Result {
    // Names, users and commands are an image author's words.
    writeln!(f, "{name:<12} {}", hac::text::printable(&value.to_string(), 4096))
}

/// Where writes to the root go; `elsewhere` if there is no disk for them.
fn writes(f: &mut fmt::Formatter<'_>, readonly: bool, disk: Option<u64>, elsewhere: &str) -> fmt::Result {
    match (readonly, disk) {
        (true, _) => row(f, "writes", &"none: the root is read-only"),
        (false, Some(bytes)) => row(f, "writes", &format_args!("to a disk of {} MiB", bytes / 1_048_576)),
        (false, None) => row(f, "writes", &elsewhere),
    }
}

impl Plan {
    fn show_virtual(&self, f: &mut fmt::Formatter<'_>, machine: &Virtual) -> fmt::Result {
        let enforced = if machine.verity { "enforced by the guest" } else { "not enforced by the guest" };
        for (index, layer) in machine.layers.iter().enumerate() {
            let what = format_args!("{} ({} KiB)", layer.digest, layer.bytes / 1024);
            row(f, &format!("layer {index}"), &what)?;
            row(f, "", &format_args!("verity root {}, {enforced}", layer.verity_root))?;
        }
        let elsewhere = format!("to memory, {} MiB at most", self.memory_mib / 2);
        writes(f, machine.readonly_root, machine.scratch_bytes, &elsewhere)?;
        if let Some(operations) = machine.rates.operations {
            row(f, "disks", &format_args!("{operations} reads and writes a second at most"))?;
        }
        if let Some(bytes) = machine.rates.bytes {
            row(f, "disks", &format_args!("{} a second at most", Bytes(bytes)))?;
        }
        row(f, "processes", &format_args!("{} at most", machine.pids))?;
        row(f, "kernel", &format_args!("Linux {}", machine.kernel.release))?;
        row(f, "", &format_args!("sha256:{}", machine.kernel.digest))?;
        row(f, "modules", &machine.modules.join(" "))?;
        machine.jail.map_or(Ok(()), |jail| row(f, "jail", &jail.describe()))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, "spacecore", &self.name)?;
        match &self.body {
            Body::Virtual(machine) => {
                let what =
                    format_args!("{} by {}, accel {}", self.isolation, self.driver, machine.accelerator);
                row(f, "isolation", &what)?;
                row(f, "cpu, memory", &format_args!("{} vCPU, {} MiB", machine.vcpus, self.memory_mib))?;
                if machine.limited {
                    let overhead = overhead_mib(machine.accelerator, machine.vcpus, self.memory_mib);
                    let cpu = MilliCpu(self.cpu_milli);
                    let what = format_args!(
                        "{cpu} CPU and {} MiB at most, with its monitor",
                        self.memory_mib + overhead
                    );
                    row(f, "", &what)?;
                }
            }
            Body::Container(_) | Body::Wasm(_) => {
                row(f, "isolation", &format_args!("{} by {}", self.isolation, self.driver))?;
                let cpu = MilliCpu(self.cpu_milli);
                row(f, "cpu, memory", &format_args!("{cpu} CPU, {} MiB at most", self.memory_mib))?;
            }
        }
        if self.class == Class::Guaranteed {
            row(f, "", &"guaranteed: before whoever has a share of them")?;
        }
        row(f, "image", &self.image)?;
        row(f, "", &self.image_digest)?;
        match &self.body {
            Body::Virtual(machine) => self.show_virtual(f, machine)?,
            Body::Container(container) => {
                for (index, tree) in container.trees.iter().enumerate() {
                    row(f, &format!("layer {index}"), &tree.display())?;
                }
                let elsewhere = "to this machine's disk, without a limit";
                writes(f, container.readonly_root, container.upper_bytes, elsewhere)?;
                row(f, "processes", &format_args!("{} at most", container.pids))?;
            }
            Body::Wasm(wasm) => {
                row(
                    f,
                    "module",
                    &format_args!("sha256:{} ({} KiB)", wasm.module.digest, wasm.module.bytes / 1024),
                )?;
                row(f, "tables", &format_args!("{} elements at most", wasm.table_elements))?;
                row(f, "keeper", &"one for all Wasm spacecores of this user: what ends it ends them all")?;
            }
        }
        row(
            f,
            "network",
            &match (self.network, self.carrier) {
                (false, _) => "none".to_owned(),
                (true, Carrier::Routed) => "the kernel's, through a gateway of its own".to_owned(),
                (true, Carrier::Passt) => {
                    let why = self.not_routed.as_deref().unwrap_or_default();
                    format!("through passt, user mode ({why})")
                }
            },
        )?;
        if let (true, Some(network)) = (self.network, &self.private_network) {
            row(f, "private", &format_args!("{network}, with the spacecores that name the same"))?;
        }
        if self.network {
            row(f, "reaches", &self.reach.describe_to())?;
            if let Some(rates) = self.reach.describe_rates() {
                row(f, "rates", &rates)?;
            }
        }
        for port in &self.publish {
            row(f, "publish", port)?;
        }
        if !self.publish.is_empty() {
            row(f, "reached by", &self.reach.describe_from())?;
        }
        for share in &self.shares {
            let mode = if share.readonly { "read-only" } else { "read-write" };
            row(f, "folder", &format_args!("{} -> {} ({mode})", share.source.display(), share.destination))?;
        }
        for (destination, bytes) in &self.memory_mounts {
            row(f, "memory", &format_args!("{destination}, {} MiB at most", bytes / 1_048_576))?;
        }
        if !self.secrets.is_empty() {
            row(f, "secrets", &self.secrets.join(" "))?;
        }
        for volume in &self.volumes {
            let mode = if volume.readonly { "read-only" } else { "read-write" };
            let how = if volume.encrypted { ", encrypted" } else { "" };
            let what = format_args!("{} -> {} ({mode}{how})", volume.name, volume.destination);
            match volume.bytes {
                Some(bytes) => row(f, "volume", &format_args!("{what}, a disk of {}", Bytes(bytes)))?,
                None => row(f, "volume", &format_args!("{what}, plain files without a limit"))?,
            }
        }
        row(f, "command", &format_args!("{:?}", self.process.args))?;
        if !self.process.user.is_empty() {
            row(f, "user", &self.process.user)?;
        }
        if !self.process.env.is_empty() {
            row(f, "environment", &variable_names(&self.process).join(" "))?;
        }
        row(f, "confined by", &self.confined)?;
        match &self.body {
            Body::Virtual(_) => {}
            Body::Container(_) => row(f, "jail", &"the container itself")?,
            Body::Wasm(wasm) => row(f, "jail", &wasm.describe_jail(self.network))?,
        }
        for change in &self.by_image {
            row(f, "by image", change)?;
        }
        for notice in &self.notices {
            row(f, "note", notice)?;
        }
        Ok(())
    }
}
