//! Disks, found by the serial that the keeper gave them.

use std::collections::BTreeMap;

use spacecore::wire::message::{Refusal, RefusalKind};

use spacecore::refusal::{OrRefuse, refuse};

const BLOCK: &str = "/sys/block";

/// The virtio disks of this guest.
#[derive(Debug)]
pub(crate) struct Disks {
    nodes: BTreeMap<String, String>,
}

impl Disks {
    /// Looks once at what is there: `virtio_blk` has found its disks when its module is loaded.
    ///
    /// # Errors
    /// `/sys` can't be read.
    pub(crate) fn scan() -> Result<Self, Refusal> {
        let mut nodes = BTreeMap::new();
        let what = || format!("reading {BLOCK}");
        for entry in std::fs::read_dir(BLOCK).or_refuse(RefusalKind::Root, what)? {
            let name = entry.or_refuse(RefusalKind::Root, what)?.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with("vd")) else {
                continue;
            };
            if let Ok(serial) = std::fs::read_to_string(format!("{BLOCK}/{name}/serial")) {
                nodes.insert(serial.trim_end().to_owned(), format!("/dev/{name}"));
            }
        }
        Ok(Self { nodes })
    }

    /// The device node of the disk with this serial.
    ///
    /// # Errors
    /// There is none, said as a refusal of `kind`.
    pub(crate) fn node(&self, serial: &str, kind: RefusalKind) -> Result<&str, Refusal> {
        self.nodes.get(serial).map(String::as_str).ok_or_else(|| {
            let there = self.nodes.keys().cloned().collect::<Vec<_>>().join(", ");
            refuse(kind, format!("no disk has the serial {serial:?}; there are: {there}"))
        })
    }
}
