//! What this node offers, found out when it starts.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hac::node::NodeSettings;

use super::NodeError;
use crate::capacity::{Machine, Offer};
use crate::home::Home;
use crate::inventory::Inventory;

/// What `node.toml` says.
///
/// # Errors
/// The file has mistakes, or can't be read.
pub(super) fn settings(home: &Home) -> Result<NodeSettings, NodeError> {
    let path = home.node_settings();
    match fs::read_to_string(&path) {
        Ok(source) => hac::node::parse(&source).map_err(|wrong| NodeError::Settings {
            rendered: wrong.render(&path.display().to_string(), &source, false).trim_end().to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(NodeSettings::default()),
        Err(source) => Err(NodeError::SettingsFile { path, source }),
    }
}

/// What is offered of this machine by these settings.
///
/// # Errors
/// More than there is.
pub(super) fn of(home: &Home, settings: &NodeSettings) -> Result<Offer, NodeError> {
    let path = home.node_settings();
    let inventory = Inventory::of_this_machine(home.root());
    let machine = Machine {
        threads: inventory.processors.threads,
        memory: inventory.memory.total,
        disk: inventory.disk.total,
        // What spacecores have written was promised to them already.
        disk_free: inventory.disk.free.saturating_add(written(home)),
    };
    Offer::of(&settings.offer, machine).map_err(|source| NodeError::Offer { path, source })
}

/// Bytes on disk of the volumes and writable layers of the spacecores that the node knows.
fn written(home: &Home) -> u64 {
    let known = |name: &Path| {
        let mut record = super::folder(home).join("spacecores").join(name);
        record.as_mut_os_string().push(".json");
        record.exists()
    };
    let entries =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let owned =
        entries(&home.volumes()).filter(|path| path.file_name().is_some_and(|name| known(Path::new(name))));
    let folders = owned.flat_map(|path| entries(&path)).chain(entries(&home.run()));
    let files = folders.flat_map(|path| entries(&path)).filter_map(|path| fs::symlink_metadata(path).ok());
    files
        .filter(fs::Metadata::is_file)
        .map(|file| file.blocks().saturating_mul(512))
        .fold(0, u64::saturating_add)
}
