//! A manifest in the making, which knows where each of its keys came from.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::{At, Reader};
use super::remark::Outcome;
use super::{Imported, Options};
use crate::model::{Condition, ConditionKind, Isolation, Manifest, Mount};
use crate::tree::Bounds;
use crate::units::{Bytes, MilliCpu};

/// The most inbound ports of one service: a range of thousands is rarely meant.
pub(super) const MOST_PORTS: usize = 256;

/// One service on its way to a manifest.
pub(super) struct Draft {
    /// The service's name in the file.
    pub(super) service: String,
    /// The name that the spacecore and its folder have.
    pub(super) label: String,
    pub(super) manifest: Manifest,
    /// Where each key of the manifest came from: a path in the file, and where it stands there.
    origins: BTreeMap<String, (String, Bounds)>,
    /// Where the service stands.
    place: (String, Bounds),
    asks_for_memory: bool,
    asks_for_cpu: bool,
}

impl Draft {
    pub(super) fn new(
        service: &str,
        label: String,
        at: &At<'_>,
        options: &Options,
        reader: &mut Reader<'_>,
    ) -> Self {
        if label != service {
            let why = format!("the name became {label:?}, because a spacecore's name is a host name");
            reader.noted(Outcome::Changed, at, why, "");
        }
        let mut manifest = Manifest::default();
        manifest.metadata.name.clone_from(&label);
        if let Some(isolation) = options.isolation {
            manifest.spec.virtualization.isolation = isolation;
        }
        Self {
            service: service.to_owned(),
            label,
            manifest,
            origins: BTreeMap::new(),
            place: (at.path.clone(), at.key),
            asks_for_memory: false,
            asks_for_cpu: false,
        }
    }

    /// Remembers where a key of the manifest came from.
    pub(super) fn from(&mut self, key: impl Into<String>, at: &At<'_>) {
        self.origins.insert(key.into(), (at.path.clone(), at.key));
    }

    /// Finds where a key of the manifest, or the table that it is in, came from.
    pub(super) fn origin(&self, key: &str) -> (String, Bounds) {
        let mut key = key;
        loop {
            if let Some(origin) = self.origins.get(key) {
                return origin.clone();
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return self.place.clone(),
            }
        }
    }

    /// Adds a variable of the workload.
    pub(super) fn env(&mut self, name: &str, value: String, at: &At<'_>, reader: &mut Reader<'_>) {
        if name.is_empty() || name.contains('=') {
            reader.lost(at, format!("{name:?} can't be the name of a variable"), "");
            return;
        }
        self.from(crate::decode::join("spec.deployment.env", name), at);
        self.manifest.spec.deployment.env.insert(name.to_owned(), value);
    }

    /// Adds a port on which the workload listens; nothing if it has that one.
    pub(super) fn port(
        &mut self,
        port: u16,
        name: Option<String>,
        at: &At<'_>,
        reader: &mut Reader<'_>,
    ) -> bool {
        let ports = &mut self.manifest.spec.networking.inbound_ports;
        if ports.values().any(|known| *known == port) {
            return true;
        }
        if ports.len() >= MOST_PORTS {
            reader.lost(
                at,
                format!("a service with more than {MOST_PORTS} ports isn't carried over whole"),
                "name the ports that it needs",
            );
            return false;
        }
        let usual = match port {
            80 => "http".to_owned(),
            443 => "https".to_owned(),
            _ => format!("port-{port}"),
        };
        let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| usual.clone());
        let name = if ports.contains_key(&name) { format!("{name}-{port}") } else { name };
        ports.insert(name.clone(), port);
        self.from(crate::decode::join("spec.networking.inbound_ports", &name), at);
        true
    }

    /// Adds a mount, unless its destination can't be one; then the key is named.
    pub(super) fn mount(&mut self, mount: Mount, at: &At<'_>, reader: &mut Reader<'_>) {
        if let Some((message, help)) = crate::validate::wrong_destination(&mount.destination) {
            reader.lost(at, message, &help.unwrap_or_default());
            return;
        }
        let normal = mount.destination.trim_end_matches('/');
        let mounts = &mut self.manifest.spec.mounts;
        if mounts.iter().any(|known| known.destination.trim_end_matches('/') == normal) {
            reader.lost(
                at,
                format!("something else is mounted at {normal:?} already"),
                "remove one of the two",
            );
            return;
        }
        let index = mounts.len();
        mounts.push(mount);
        self.from(format!("spec.mounts[{index}]"), at);
    }

    /// Sets the memory: at least what the isolation needs to start, and that on top of little.
    pub(super) fn memory(&mut self, asked: Bytes, at: &At<'_>, reader: &mut Reader<'_>) {
        let isolation = self.manifest.spec.virtualization.isolation;
        let least = isolation.least_memory();
        self.asks_for_memory = true;
        self.from("spec.resources.memory", at);
        self.manifest.spec.resources.memory = asked;
        if asked.0 < least.0.saturating_mul(2) {
            let raised = Bytes::from_mib(asked.0.saturating_add(least.0).div_ceil(1 << 20));
            self.manifest.spec.resources.memory = raised;
            reader.changed(
                at,
                format!("{asked} is meant for the workload alone; a {isolation} needs {least} to start, so it became {raised}"),
                "",
            );
        }
    }

    /// Sets the CPU.
    pub(super) fn cpu(&mut self, asked: MilliCpu, at: &At<'_>) {
        self.asks_for_cpu = true;
        self.from("spec.resources.cpu", at);
        self.manifest.spec.resources.cpu = asked;
    }

    /// Sets the most processes, to which not every isolation holds a workload.
    pub(super) fn pids(&mut self, most: u32, at: &At<'_>, reader: &mut Reader<'_>) {
        self.from("spec.resources.pids", at);
        self.manifest.spec.resources.pids = most;
        let isolation = self.manifest.spec.virtualization.isolation;
        if isolation != Isolation::Container {
            let why = format!(
                "a Container is held to this number; a {isolation} by what its own memory has room for"
            );
            reader.noted(Outcome::Changed, at, why, "");
        }
    }

    /// Adds GPUs of any model.
    pub(super) fn gpus(&mut self, count: u32, at: &At<'_>) {
        self.from("spec.resources.gpu", at);
        let gpu = &mut self.manifest.spec.resources.gpu;
        *gpu = gpu.saturating_add(count);
    }

    /// Sets the number of replicas; none at all can't be said.
    pub(super) fn replicas(&mut self, count: u32, at: &At<'_>, reader: &mut Reader<'_>) {
        if count == 0 {
            reader.lost(at, "a manifest has at least one replica", "don't start the spacecore");
            return;
        }
        self.from("spec.deployment.replicas", at);
        self.manifest.spec.deployment.replicas = count;
        if count > 1 {
            let why = format!("each of the {count} replicas is a spacecore that has all of these resources");
            reader.noted(Outcome::Changed, at, why, "");
        }
    }

    /// Has it wait until the spacecore of this name is active.
    pub(super) fn waits_for(&mut self, label: String, at: &At<'_>) {
        let conditions = &mut self.manifest.spec.conditions;
        let index = conditions.len();
        conditions.push(Condition {
            kind: ConditionKind::Environment,
            environment: Some(label),
            ..Condition::default()
        });
        self.from(format!("spec.conditions[{index}]"), at);
    }

    /// Says how much a service gets that asks for nothing.
    pub(super) fn tell_defaults(&self, at: &At<'_>, reader: &mut Reader<'_>) {
        let resources = &self.manifest.spec.resources;
        let mut given = Vec::new();
        if !self.asks_for_memory {
            given.push(format!("{} of memory", resources.memory));
        }
        if !self.asks_for_cpu {
            given.push(format!("{} CPU", resources.cpu));
        }
        if !given.is_empty() {
            let what = given.join(" and ");
            reader.noted(
                Outcome::Changed,
                at,
                format!("the file sets no limit, and a spacecore has a fixed amount: {what} (the default)"),
                "set spec.resources to what the workload needs",
            );
        }
    }
}

/// Checks each manifest by reading it back, and shows what is wrong where it came from.
pub(super) fn finish(drafts: Vec<Draft>, reader: &mut Reader<'_>) -> Vec<Imported> {
    let mut imported = Vec::new();
    for draft in drafts {
        let text = crate::to_toml(&draft.manifest);
        match crate::parse(&text, crate::Format::Toml) {
            Ok(manifest) => {
                imported.push(Imported { service: draft.service, folder: draft.label, manifest });
            }
            Err(diagnostics) => {
                for diagnostic in diagnostics.0 {
                    let (path, bounds) = draft.origin(diagnostic.key.as_deref().unwrap_or_default());
                    let path = if path.is_empty() { draft.place.0.clone() } else { path };
                    reader.error_at(&path, bounds, diagnostic.message, &diagnostic.help.unwrap_or_default());
                }
            }
        }
    }
    imported
}

/// Makes DNS labels out of names, each another one.
#[derive(Default)]
pub(super) struct Labels(BTreeMap<String, String>, BTreeSet<String>);

impl Labels {
    /// Gives the label of a name: always the same for the same name, and never that of another.
    pub(super) fn of(&mut self, name: &str) -> String {
        if let Some(label) = self.0.get(name) {
            return label.clone();
        }
        let lower = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let plain: String = name.chars().map(lower).take(63).collect();
        let plain = match plain.trim_matches('-') {
            "" => "service",
            plain => plain,
        };
        let mut label = plain.to_owned();
        let mut count = 2usize;
        while self.1.contains(&label) {
            let suffix = format!("-{count}");
            let kept: String = plain.chars().take(63 - suffix.len().min(62)).collect();
            label = format!("{}{suffix}", kept.trim_end_matches('-'));
            count += 1;
        }
        self.1.insert(label.clone());
        self.0.insert(name.to_owned(), label.clone());
        label
    }

    /// Gives the labels of all names; those that are labels already keep theirs.
    pub(super) fn of_all<'n>(names: impl Iterator<Item = &'n str> + Clone) -> Self {
        let mut labels = Self::default();
        for name in names.clone().filter(|name| crate::validate::not_a_dns_label(name).is_none()) {
            labels.of(name);
        }
        for name in names {
            labels.of(name);
        }
        labels
    }
}
