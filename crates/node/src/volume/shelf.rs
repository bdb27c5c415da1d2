//! The volumes of a machine: listed, removed, kept as they were at a moment, and put back.
//!
//! A snapshot lies in the volume's own folder, as `snapshots/NAME/` with the same content and record. It is made under a temporary
//! name and renamed; a volume is put back by exchanging what it holds for a copy. So whatever dies in between, there is the one or
//! the other. Copies share their blocks with the original where the file system can do that, and keep holes.
//!
//! A volume that a spacecore writes to isn't copied: its file system would be caught in the middle of something.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

use hypercore::remove::remove_tree;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Content, VolumeError, content, disk, files, take, write};
use crate::home::Home;

/// A volume, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VolumeView {
    /// The spacecore that it belongs to.
    pub spacecore: String,
    /// Its name.
    pub name: String,
    /// `disk` or `files`.
    pub kind: String,
    /// The size of its disk in bytes; nothing for plain files.
    pub bytes: Option<u64>,
    /// Whether it is encrypted by the guests that use it.
    #[serde(default)]
    pub encrypted: bool,
    /// What it takes of this machine's disk in bytes, without its snapshots.
    pub used: u64,
    /// Whether a spacecore uses it now.
    pub in_use: bool,
    /// What is kept of it.
    pub snapshots: Vec<SnapshotView>,
}

/// What was kept of a volume at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotView {
    /// Its name.
    pub name: String,
    /// When it was made, in milliseconds since 1970.
    pub unix_ms: u64,
}

/// Why that can't be done with a volume.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShelfError {
    /// There is none.
    #[error("there is no volume {name} of {spacecore}; vimana volume ls lists those that there are")]
    Unknown {
        /// The spacecore.
        spacecore: String,
        /// The volume.
        name: String,
    },
    /// There is no such snapshot.
    #[error("the volume {volume} has no snapshot {snapshot}")]
    NoSnapshot {
        /// The volume.
        volume: String,
        /// What was asked for.
        snapshot: String,
    },
    /// There is one of this name.
    #[error("the volume {volume} has a snapshot {snapshot} already; remove it first, or choose another name")]
    Taken {
        /// The volume.
        volume: String,
        /// The name.
        snapshot: String,
    },
    /// A name that can't be part of a path.
    #[error(
        "{0:?} is no name: small letters, digits, hyphens, underscores and dots, with a letter or digit first, at most 63"
    )]
    Name(String),
    /// A spacecore uses it.
    #[error("the volume {name} of {spacecore} is in use; stop that spacecore first")]
    InUse {
        /// The spacecore.
        spacecore: String,
        /// The volume.
        name: String,
    },
    /// The volume can't be used.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// It can't be copied.
    #[error("can't copy {}: {reason}", path.display())]
    Copy {
        /// What.
        path: PathBuf,
        /// What `cp` said.
        reason: String,
    },
    /// The machine's disk fails.
    #[error("can't use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> ShelfError {
    let path = path.to_owned();
    move |source| ShelfError::Io { path: path.clone(), source }
}

/// All volumes, by spacecore and name.
///
/// # Errors
/// The machine's disk fails.
pub fn list(home: &Home) -> Result<Vec<VolumeView>, ShelfError> {
    let mut all = Vec::new();
    for spacecore in names(&home.volumes())? {
        for name in names(&home.volumes().join(&spacecore))? {
            let folder = home.volume(&spacecore, &name);
            let Some(content) = content(&folder, &name)? else { continue };
            let (kind, bytes, path) = match content {
                Content::Disk { bytes, .. } => ("disk", Some(bytes), disk(&folder)),
                Content::Folder => ("files", None, files(&folder)),
            };
            all.push(VolumeView {
                kind: kind.to_owned(),
                bytes,
                encrypted: matches!(content, Content::Disk { encrypted: true, .. }),
                used: used(&path),
                in_use: is_in_use(&folder)?,
                snapshots: snapshots(&folder)?,
                spacecore: spacecore.clone(),
                name,
            });
        }
    }
    Ok(all)
}

/// Removes a volume with its snapshots. What it held can't be had back.
///
/// # Errors
/// There is none, it is in use, or the disk fails.
pub fn remove(home: &Home, spacecore: &str, name: &str) -> Result<(), ShelfError> {
    let folder = find(home, spacecore, name)?;
    let _held = hold(&folder, FlockOperation::NonBlockingLockExclusive, spacecore, name)?;
    // First: whatever dies next, nobody reads what it held.
    super::key::destroy(&folder).map_err(at(&folder))?;
    // Gone at once, whatever dies while its files are removed; a name with a dot first is nobody's volume.
    let gone = folder.with_file_name(format!(".{name}.removed"));
    remove_tree(&gone).or_else(absent).map_err(at(&gone))?;
    fs::rename(&folder, &gone).map_err(at(&folder))?;
    remove_tree(&gone).map_err(at(&gone))?;
    // The last one's folder goes with it.
    let _ = fs::remove_dir(home.volumes().join(spacecore));
    Ok(())
}

/// Keeps a volume as it is now.
///
/// # Errors
/// There is none, a spacecore writes to it, there is a snapshot of this name, or the disk fails.
pub fn snapshot(home: &Home, spacecore: &str, name: &str, snapshot: &str) -> Result<(), ShelfError> {
    check_name(snapshot)?;
    let folder = find(home, spacecore, name)?;
    let _held = hold(&folder, FlockOperation::NonBlockingLockShared, spacecore, name)?;
    let Some(held) = content(&folder, name)? else { return Err(unknown(spacecore, name)) };
    let all = folder.join("snapshots");
    let (kept, new) = (all.join(snapshot), all.join(format!(".{snapshot}.new")));
    if kept.exists() {
        return Err(ShelfError::Taken { volume: name.to_owned(), snapshot: snapshot.to_owned() });
    }
    remove_tree(&new).or_else(absent).map_err(at(&new))?;
    DirBuilder::new().recursive(true).mode(0o700).create(&new).map_err(at(&new))?;
    copy(&what(&folder, held), &what(&new, held))?;
    write(&new, held)?;
    fs::rename(&new, &kept).map_err(at(&kept))?;
    sync(&all)
}

/// Puts a volume back to what a snapshot has kept. The snapshot stays.
///
/// # Errors
/// There is no such volume or snapshot, a spacecore uses it, or the disk fails; the volume is as it was then.
pub fn restore(home: &Home, spacecore: &str, name: &str, snapshot: &str) -> Result<(), ShelfError> {
    let (folder, kept) = find_snapshot(home, spacecore, name, snapshot)?;
    let _held = hold(&folder, FlockOperation::NonBlockingLockExclusive, spacecore, name)?;
    let (Some(now), Some(then)) = (content(&folder, name)?, content(&kept, name)?) else {
        return Err(unknown(spacecore, name));
    };
    let (current, new) = (what(&folder, then), folder.join(".restored"));
    remove_tree(&new).or_else(absent).map_err(at(&new))?;
    copy(&what(&kept, then), &new)?;
    // What a guest has written since is known to have been there.
    write(&folder, with_guest(then, now))?;
    renameat_with(CWD, &new, CWD, &current, RenameFlags::EXCHANGE)
        .map_err(|error| at(&current)(error.into()))?;
    sync(&folder)?;
    remove_tree(&new).map_err(at(&new))
}

/// Forgets a snapshot.
///
/// # Errors
/// There is none, or the disk fails.
pub fn remove_snapshot(home: &Home, spacecore: &str, name: &str, snapshot: &str) -> Result<(), ShelfError> {
    let (_, kept) = find_snapshot(home, spacecore, name, snapshot)?;
    let gone = kept.with_file_name(format!(".{snapshot}.removed"));
    remove_tree(&gone).or_else(absent).map_err(at(&gone))?;
    fs::rename(&kept, &gone).map_err(at(&kept))?;
    remove_tree(&gone).map_err(at(&gone))
}

fn unknown(spacecore: &str, name: &str) -> ShelfError {
    ShelfError::Unknown { spacecore: spacecore.to_owned(), name: name.to_owned() }
}

fn find(home: &Home, spacecore: &str, name: &str) -> Result<PathBuf, ShelfError> {
    check_name(spacecore)?;
    check_name(name)?;
    let folder = home.volume(spacecore, name);
    if super::exists(&folder) { Ok(folder) } else { Err(unknown(spacecore, name)) }
}

fn find_snapshot(
    home: &Home,
    spacecore: &str,
    name: &str,
    snapshot: &str,
) -> Result<(PathBuf, PathBuf), ShelfError> {
    check_name(snapshot)?;
    let folder = find(home, spacecore, name)?;
    let kept = folder.join("snapshots").join(snapshot);
    match super::exists(&kept) {
        true => Ok((folder, kept)),
        false => Err(ShelfError::NoSnapshot { volume: name.to_owned(), snapshot: snapshot.to_owned() }),
    }
}

/// Refuses what isn't a name: it becomes part of a path.
fn check_name(name: &str) -> Result<(), ShelfError> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let is_name = (1..=63).contains(&name.len())
        && name.bytes().all(is_plain)
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if is_name { Ok(()) } else { Err(ShelfError::Name(name.to_owned())) }
}

/// What a volume or a snapshot holds, as a path.
fn what(folder: &Path, content: Content) -> PathBuf {
    match content {
        Content::Disk { .. } => disk(folder),
        Content::Folder => files(folder),
    }
}

fn with_guest(then: Content, now: Content) -> Content {
    match (then, now) {
        (Content::Disk { bytes, guest_written, encrypted }, Content::Disk { guest_written: since, .. }) => {
            Content::Disk { bytes, guest_written: guest_written || since, encrypted }
        }
        (then, _) => then,
    }
}

/// Takes the volume's lock, as a spacecore would.
fn hold(folder: &Path, how: FlockOperation, spacecore: &str, name: &str) -> Result<File, ShelfError> {
    let path = folder.join("lock");
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = open.map_err(at(&path))?;
    take(&lock, how, name)
        .map_err(|_| ShelfError::InUse { spacecore: spacecore.to_owned(), name: name.to_owned() })?;
    Ok(lock)
}

/// Whether somebody has the volume's lock now. Who wants it meanwhile waits for longer than this takes.
fn is_in_use(folder: &Path) -> Result<bool, ShelfError> {
    let path = folder.join("lock");
    match File::open(&path) {
        Ok(lock) => Ok(flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at(&path)(error)),
    }
}

/// Copies with owners, times, links and holes, and follows no link.
fn copy(from: &Path, to: &Path) -> Result<(), ShelfError> {
    let failed = |reason: String| ShelfError::Copy { path: from.to_owned(), reason };
    let copied = Command::new("cp")
        .args(["--archive", "--no-target-directory", "--reflink=auto", "--sparse=always", "--"])
        .args([from, to])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if copied.status.success() {
        return sync(to);
    }
    // Half a copy is nobody's.
    let _ = remove_tree(to);
    Err(failed(String::from_utf8_lossy(&copied.stderr).trim().to_owned()))
}

fn sync(path: &Path) -> Result<(), ShelfError> {
    File::open(path).and_then(|file| rustix::fs::syncfs(file).map_err(Into::into)).map_err(at(path))
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// The names in a folder that are somebody's, in order; none where there is no folder.
fn names(folder: &Path) -> Result<Vec<String>, ShelfError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(at(folder))?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn snapshots(folder: &Path) -> Result<Vec<SnapshotView>, ShelfError> {
    let all = folder.join("snapshots");
    let view = |name: String| {
        let made = fs::metadata(all.join(&name).join("volume.json")).and_then(|found| found.modified());
        let since = made.ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        SnapshotView { name, unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    };
    Ok(names(&all)?.into_iter().map(view).collect())
}

/// What a file, or a folder with all that is in it, takes of the disk.
fn used(path: &Path) -> u64 {
    let Ok(found) = path.symlink_metadata() else { return 0 };
    let mut bytes = found.blocks().saturating_mul(512);
    if found.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        bytes = entries.fold(bytes, |sum, entry| sum.saturating_add(used(&entry.path())));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::assignment::VolumeUse;
    use crate::volume::{self, Form};

    fn made(form: Form) -> (tempfile::TempDir, Home, VolumeUse) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let wanted = VolumeUse {
            folder: home.volume("db", "data"),
            name: "data".into(),
            form,
            bytes: None,
            readonly: false,
            encrypted: false,
            owner: None,
        };
        drop(volume::hold(&wanted).unwrap());
        (folder, home, wanted)
    }

    #[test]
    fn a_volume_goes_back_to_what_was_kept_of_it() {
        let (_folder, home, wanted) = made(Form::Folder);
        let file = files(&wanted.folder).join("rows");
        fs::write(&file, "one").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", files(&wanted.folder).join("link")).unwrap();
        snapshot(&home, "db", "data", "before").unwrap();
        fs::write(&file, "two").unwrap();
        for _ in 0..2 {
            restore(&home, "db", "data", "before").unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), "one");
            fs::write(&file, "three").unwrap();
        }
        assert!(files(&wanted.folder).join("link").is_symlink());
        let listed = list(&home).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].kind.as_str(), listed[0].in_use), ("files", false));
        assert_eq!(listed[0].snapshots.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["before"]);
        remove_snapshot(&home, "db", "data", "before").unwrap();
        assert!(matches!(restore(&home, "db", "data", "before"), Err(ShelfError::NoSnapshot { .. })));
    }

    #[test]
    fn a_disk_s_copy_takes_no_more_room_than_was_written_and_stays_the_guest_s() {
        let (_folder, home, wanted) = made(Form::HostDisk);
        snapshot(&home, "db", "data", "clean").unwrap();
        let kept = disk(&wanted.folder.join("snapshots/clean"));
        assert_eq!(fs::metadata(&kept).unwrap().len(), volume::DEFAULT_BYTES);
        assert!(used(&kept) < 64 << 20, "{}", used(&kept));
        drop(volume::hold(&VolumeUse { form: Form::GuestDisk, ..wanted.clone() }).unwrap());
        restore(&home, "db", "data", "clean").unwrap();
        assert!(volume::hold(&wanted).is_err(), "a guest had it in between");
    }

    #[test]
    fn what_is_in_use_is_neither_copied_nor_removed() {
        let (_folder, home, wanted) = made(Form::Folder);
        snapshot(&home, "db", "data", "kept").unwrap();
        let held = volume::hold(&wanted).unwrap();
        assert!(list(&home).unwrap()[0].in_use);
        let refused = [
            snapshot(&home, "db", "data", "now"),
            restore(&home, "db", "data", "kept"),
            remove(&home, "db", "data"),
        ];
        assert!(refused.iter().all(|one| matches!(one, Err(ShelfError::InUse { .. }))), "{refused:?}");
        drop(held);
        remove(&home, "db", "data").unwrap();
        assert!(list(&home).unwrap().is_empty() && !home.volumes().join("db").exists());
    }

    #[test]
    fn names_never_lead_out_of_the_shelf() {
        let (_folder, home, _) = made(Form::Folder);
        for wrong in ["", "..", ".x", "a/b", "../../x", "A", &"x".repeat(64)] {
            assert!(matches!(snapshot(&home, "db", "data", wrong), Err(ShelfError::Name(_))), "{wrong}");
            assert!(matches!(remove(&home, wrong, "data"), Err(ShelfError::Name(_))), "{wrong}");
        }
        assert!(matches!(remove(&home, "db", "other"), Err(ShelfError::Unknown { .. })));
    }
}
