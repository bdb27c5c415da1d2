//! Named volumes: what a workload wrote, kept when its spacecore ends.
//!
//! A volume belongs to the spacecore's name and lies under `VIMANA_HOME/volumes/SPACECORE/VOLUME/`:
//!
//! | | |
//! |---|---|
//! | `volume.json` | what it is ([`Record`]); written last, so that a volume without it was never used |
//! | `disk.img` | an ext4 file system of the volume's size, for virtual machines and containers; of an encrypted volume what its guest makes of it |
//! | `key` | the key of an encrypted volume, sealed: see [`key`] |
//! | `files/` | plain files, for Wasm programs and for containers without root |
//! | `lock` | held by the keeper that uses it |
//! | `snapshots/` | what was kept of it, see [`shelf`] |
//!
//! **Who wrote it decides who may mount it.** A guest kernel can leave any bytes on its disk, and a container's disk is
//! mounted by this machine's own kernel. A disk that a virtual machine has written to is therefore never given to a
//! container.

pub mod key;
pub mod shelf;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hac::model::Isolation;
use hac::units::Bytes;
use hypercore::driver::container;
use hypercore::scratch::{self, ScratchError};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::keeper::assignment::VolumeUse;
use crate::replace::{Durable, replace};

/// The size of a volume for which none is asked: 10 GiB, of which only what is written takes room.
pub const DEFAULT_BYTES: u64 = 10 * 1024 * 1024 * 1024;

/// The version of [`Record`].
const VERSION: u32 = 1;
/// How long somebody else's look at a volume is waited for.
const PATIENCE: (u32, Duration) = (40, Duration::from_millis(25));

/// In what form a spacecore uses a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A disk that a guest's kernel reads and writes.
    GuestDisk,
    /// A disk that this machine's kernel reads and writes.
    HostDisk,
    /// Plain files, of programs that have no users.
    Folder,
    /// Plain files with their owners, of a user's containers.
    OwnedFolder,
}

impl Form {
    /// In what form an isolation uses volumes. Without root no container has a disk, which only root can mount.
    pub fn of(isolation: Isolation, rootless: bool) -> Self {
        match isolation {
            Isolation::MicroVM | Isolation::Unikernel | Isolation::TEE => Self::GuestDisk,
            Isolation::Container if rootless => Self::OwnedFolder,
            Isolation::Container => Self::HostDisk,
            Isolation::Wasm => Self::Folder,
        }
    }
}

/// What is known of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    content: Content,
}

/// What a volume holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Content {
    /// A disk.
    Disk {
        /// Its size.
        bytes: u64,
        /// Whether a guest's kernel has had it for writing.
        guest_written: bool,
        /// Whether it is encrypted by its guests.
        #[serde(default)]
        encrypted: bool,
    },
    /// Plain files.
    Folder,
}

/// A volume in use. It is free for others when this is dropped.
#[derive(Debug)]
pub struct Held {
    _lock: File,
}

/// What of a volume that is there isn't as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// A virtual machine wrote it.
    #[error(
        "the volume {name} was written by a microVM; in a container this machine's kernel would have to trust what that wrote. Run it as MicroVM, or give the container's spacecore or volume another name, and carry the files over through a folder of this machine"
    )]
    GuestWritten {
        /// The volume.
        name: String,
    },
    /// It is kept in a form that this isolation can't use.
    #[error(
        "the volume {name} is kept as {there}, and this isolation needs {wanted}; give the spacecore or the volume another name"
    )]
    Form {
        /// The volume.
        name: String,
        /// How it is kept.
        there: &'static str,
        /// How it would have to be kept.
        wanted: &'static str,
    },
    /// It is encrypted, and that isn't asked for.
    #[error(
        "the volume {name} is encrypted; write encrypted = true, or give the spacecore or the volume another name"
    )]
    Encrypted {
        /// The volume.
        name: String,
    },
    /// It isn't encrypted, and that is asked for.
    #[error(
        "the volume {name} was made without encryption, and what was written so stays readable; give the volume another name, and carry the files over"
    )]
    Clear {
        /// The volume.
        name: String,
    },
    /// It has another size.
    #[error(
        "the volume {name} has a size of {}, and {} is asked for; resizing isn't there yet: write size = \"{}\", or leave it out",
        Bytes(*there), Bytes(*wanted), Bytes(*there)
    )]
    Size {
        /// The volume.
        name: String,
        /// Its size.
        there: u64,
        /// The size asked for.
        wanted: u64,
    },
}

/// Why a volume can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// Another spacecore writes to it.
    #[error("the volume {name} is in use by another spacecore of this name; end that one first")]
    InUse {
        /// The volume.
        name: String,
    },
    /// It isn't what is asked for.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// A newer Vimana made it.
    #[error("the volume {name} has version {found}; this Vimana reads version {VERSION}")]
    Version {
        /// The volume.
        name: String,
        /// Its version.
        found: u32,
    },
    /// It can't be made.
    #[error("can't make the volume {name}")]
    Make {
        /// The volume.
        name: String,
        /// Why.
        source: ScratchError,
    },
    /// It can't be read or written.
    #[error("can't use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The disk of the volume in this folder.
pub fn disk(folder: &Path) -> PathBuf {
    folder.join("disk.img")
}

/// The files of the volume in this folder.
pub fn files(folder: &Path) -> PathBuf {
    folder.join("files")
}

/// Whether the volume in this folder has ever been used.
pub fn exists(folder: &Path) -> bool {
    folder.join("volume.json").exists()
}

/// Takes a volume into use; makes it if there is none.
///
/// # Errors
/// It is in use, isn't what is asked for, or can't be made; what was begun is no volume yet, and the next try begins anew.
pub fn hold(wanted: &VolumeUse) -> Result<Held, VolumeError> {
    let folder = &wanted.folder;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| VolumeError::Io { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
    let path = folder.join("lock");
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = open.map_err(failed(&path))?;
    // Readers of a volume that is there disturb nobody; whoever may change something is alone.
    let only_reads = wanted.readonly && exists(folder);
    let how = if only_reads {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    take(&lock, how, &wanted.name)?;
    let content = match content(folder, &wanted.name)? {
        Some(content) => content,
        None => make(wanted)?,
    };
    check(&wanted.name, wanted.form, wanted.bytes, wanted.encrypted, content)?;
    if let (Form::GuestDisk, Content::Disk { bytes, guest_written: false, encrypted }, false) =
        (wanted.form, content, wanted.readonly)
    {
        // Before the guest can write anything.
        write(folder, Content::Disk { bytes, guest_written: true, encrypted })?;
    }
    if wanted.readonly && !only_reads {
        flock(&lock, FlockOperation::LockShared).map_err(|error| failed(&path)(error.into()))?;
    }
    Ok(Held { _lock: lock })
}

fn take(lock: &File, how: FlockOperation, name: &str) -> Result<(), VolumeError> {
    let (tries, pause) = PATIENCE;
    for _ in 0..tries {
        if flock(lock, how).is_ok() {
            return Ok(());
        }
        std::thread::sleep(pause);
    }
    Err(VolumeError::InUse { name: name.to_owned() })
}

/// Tells whether a volume that is there can be used in a form, encrypted or not, and with a size if one is asked for.
///
/// # Errors
/// It can't; the error says what would be right.
pub fn check(
    name: &str,
    form: Form,
    asked: Option<u64>,
    encrypted: bool,
    content: Content,
) -> Result<(), Conflict> {
    let there = matches!(content, Content::Disk { encrypted: true, .. });
    match (encrypted, there) {
        (false, true) => return Err(Conflict::Encrypted { name: name.to_owned() }),
        (true, false) => return Err(Conflict::Clear { name: name.to_owned() }),
        (true, true) | (false, false) => {}
    }
    let other = |there, wanted| Conflict::Form { name: name.to_owned(), there, wanted };
    match (form, content) {
        (Form::HostDisk, Content::Disk { guest_written: true, .. }) => {
            return Err(Conflict::GuestWritten { name: name.to_owned() });
        }
        (Form::GuestDisk | Form::HostDisk, Content::Disk { .. })
        | (Form::Folder | Form::OwnedFolder, Content::Folder) => {}
        (Form::Folder | Form::OwnedFolder, Content::Disk { .. }) => {
            return Err(other("a disk", "plain files"));
        }
        (Form::GuestDisk | Form::HostDisk, Content::Folder) => return Err(other("plain files", "a disk")),
    }
    match (asked, content) {
        (Some(wanted), Content::Disk { bytes, .. }) if wanted != bytes => {
            Err(Conflict::Size { name: name.to_owned(), there: bytes, wanted })
        }
        _ => Ok(()),
    }
}

/// What the volume in this folder holds; nothing if it has never been used. `name` is for people.
///
/// # Errors
/// It can't be read, or a newer Vimana made it.
pub fn content(folder: &Path, name: &str) -> Result<Option<Content>, VolumeError> {
    let path = folder.join("volume.json");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(VolumeError::Io { path, source }),
    };
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let broken = |error: serde_json::Error| VolumeError::Io { path: path.clone(), source: error.into() };
    let Versioned { version } = serde_json::from_slice(&bytes).map_err(broken)?;
    if version != VERSION {
        return Err(VolumeError::Version { name: name.to_owned(), found: version });
    }
    serde_json::from_slice(&bytes).map(|record: Record| Some(record.content)).map_err(broken)
}

fn make(wanted: &VolumeUse) -> Result<Content, VolumeError> {
    let content = match wanted.form {
        Form::GuestDisk | Form::HostDisk => {
            let path = disk(&wanted.folder);
            // Without a record nobody has ever written to it.
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(VolumeError::Io { path, source });
                }
                Ok(()) | Err(_) => {}
            }
            let bytes = wanted.bytes.unwrap_or(DEFAULT_BYTES);
            let made = match wanted.encrypted {
                true => scratch::create_encrypted(&path, bytes),
                false => scratch::create_volume(&path, bytes, wanted.owner.unwrap_or_default()),
            };
            made.map_err(|source| VolumeError::Make { name: wanted.name.clone(), source })?;
            Content::Disk { bytes, guest_written: false, encrypted: wanted.encrypted }
        }
        Form::Folder | Form::OwnedFolder => {
            let path = files(&wanted.folder);
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(VolumeError::Io { path, source });
                }
                Ok(()) | Err(_) => {}
            }
            if wanted.form == Form::OwnedFolder {
                let owner = wanted.owner.unwrap_or_default();
                container::give(&path, owner).map_err(|source| VolumeError::Io { path, source })?;
            }
            Content::Folder
        }
    };
    write(&wanted.folder, content)?;
    Ok(content)
}

fn write(folder: &Path, content: Content) -> Result<(), VolumeError> {
    let path = folder.join("volume.json");
    let failed = |source: io::Error| VolumeError::Io { path: path.clone(), source };
    let record = Record { version: VERSION, content };
    let temporary = folder.join("volume.json.new");
    let bytes = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
    replace(&path, &temporary, &bytes, Durable::Yes).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(folder: &Path, form: Form) -> VolumeUse {
        let folder = folder.join("chain");
        VolumeUse {
            folder,
            name: "chain".into(),
            form,
            bytes: None,
            readonly: false,
            encrypted: false,
            owner: None,
        }
    }

    #[test]
    fn a_volume_is_made_once_and_found_again() {
        let home = tempfile::tempdir().unwrap();
        let wanted = used(home.path(), Form::GuestDisk);
        drop(hold(&wanted).unwrap());
        fs::write(disk(&wanted.folder), "what a workload wrote").unwrap();
        drop(hold(&wanted).unwrap());
        assert_eq!(fs::read(disk(&wanted.folder)).unwrap(), b"what a workload wrote");
    }

    #[test]
    fn a_volume_has_one_writer_or_many_readers() {
        let home = tempfile::tempdir().unwrap();
        let wanted = used(home.path(), Form::HostDisk);
        let writer = hold(&wanted).unwrap();
        let error = hold(&wanted).unwrap_err();
        assert!(matches!(error, VolumeError::InUse { .. }), "{error}");
        drop(writer);
        let reader = VolumeUse { readonly: true, ..wanted.clone() };
        let (first, second) = (hold(&reader).unwrap(), hold(&reader).unwrap());
        assert!(matches!(hold(&wanted), Err(VolumeError::InUse { .. })));
        drop((first, second));
        hold(&wanted).unwrap();
    }

    #[test]
    fn this_machine_s_kernel_never_mounts_what_a_guest_has_written() {
        let home = tempfile::tempdir().unwrap();
        let guest = used(home.path(), Form::GuestDisk);
        let host = used(home.path(), Form::HostDisk);
        drop(hold(&host).unwrap());
        drop(hold(&VolumeUse { readonly: true, ..guest.clone() }).unwrap());
        drop(hold(&host).unwrap());
        drop(hold(&guest).unwrap());
        assert!(matches!(hold(&host), Err(VolumeError::Conflict(Conflict::GuestWritten { .. }))));
        drop(hold(&guest).unwrap());
    }

    #[test]
    fn what_is_no_volume_yet_is_begun_anew() {
        let home = tempfile::tempdir().unwrap();
        let wanted = used(home.path(), Form::HostDisk);
        fs::create_dir_all(&wanted.folder).unwrap();
        fs::write(disk(&wanted.folder), "half").unwrap();
        hold(&wanted).unwrap();
        assert_eq!(fs::metadata(disk(&wanted.folder)).unwrap().len(), DEFAULT_BYTES);
    }

    #[test]
    fn another_form_size_or_version_is_refused_with_what_would_be_right() {
        let home = tempfile::tempdir().unwrap();
        let wanted = used(home.path(), Form::HostDisk);
        drop(hold(&wanted).unwrap());
        let folder = used(home.path(), Form::Folder);
        assert!(hold(&folder).unwrap_err().to_string().contains("is kept as a disk"));
        let larger = VolumeUse { bytes: Some(1 << 30), ..wanted.clone() };
        assert!(hold(&larger).unwrap_err().to_string().contains("size = \"10Gi\""));
        fs::write(wanted.folder.join("volume.json"), r#"{"version":9,"content":"x"}"#).unwrap();
        assert!(matches!(hold(&wanted), Err(VolumeError::Version { found: 9, .. })));
        fs::write(wanted.folder.join("volume.json"), "{").unwrap();
        assert!(matches!(hold(&wanted), Err(VolumeError::Io { .. })));
    }
}
