//! A plan for people's eyes.

use std::fmt;

use serde::Serializer;
use serde::ser::SerializeStruct;
use spacecore::wire::message::Process;

use super::Plan;

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

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: &dyn fmt::Display| {
            // Names, users and commands are an image author's words.
            writeln!(f, "{name:<12} {}", hac::text::printable(&value.to_string(), 4096))
        };
        row(f, "spacecore", &self.name)?;
        row(
            f,
            "isolation",
            &format_args!("{} by {}, accel {}", self.isolation, self.driver, self.accelerator),
        )?;
        row(f, "cpu, memory", &format_args!("{} vCPU, {} MiB", self.vcpus, self.memory_mib))?;
        row(f, "image", &self.image)?;
        row(f, "", &self.image_digest)?;
        let enforced = if self.verity { "enforced by the guest" } else { "not enforced by the guest" };
        for (index, layer) in self.layers.iter().enumerate() {
            row(
                f,
                &format!("layer {index}"),
                &format_args!("{} ({} KiB)", layer.digest, layer.bytes / 1024),
            )?;
            row(f, "", &format_args!("verity root {}, {enforced}", layer.verity_root))?;
        }
        match self.scratch_bytes {
            Some(bytes) => row(f, "writes", &format_args!("to a disk of {} MiB", bytes / 1_048_576))?,
            None => row(f, "writes", &format_args!("to memory, {} MiB at most", self.memory_mib / 2))?,
        }
        row(f, "kernel", &format_args!("Linux {}", self.kernel.release))?;
        row(f, "", &format_args!("sha256:{}", self.kernel.digest))?;
        row(f, "modules", &self.modules.join(" "))?;
        row(f, "network", &if self.network { "through passt, user mode" } else { "none" })?;
        for port in &self.publish {
            row(f, "publish", port)?;
        }
        for share in &self.shares {
            let mode = if share.readonly { "read-only" } else { "read-write" };
            row(f, "folder", &format_args!("{} -> {} ({mode})", share.source.display(), share.destination))?;
        }
        for (destination, bytes) in &self.memory_mounts {
            row(f, "memory", &format_args!("{destination}, {} MiB at most", bytes / 1_048_576))?;
        }
        row(f, "command", &format_args!("{:?}", self.process.args))?;
        if !self.process.user.is_empty() {
            row(f, "user", &self.process.user)?;
        }
        if !self.process.env.is_empty() {
            row(f, "environment", &variable_names(&self.process).join(" "))?;
        }
        row(f, "jail", &"none around the virtual machine yet, and no egress policy on its network")?;
        for notice in &self.notices {
            row(f, "note", notice)?;
        }
        Ok(())
    }
}
