//! A container's root: its layers under one that takes the writes.
//!
//! ```text
//!  stage (a tmpfs of the maker's own mount namespace, so that it ends with it)
//!    layers/N     the image's trees, read-only, with the container's owners
//!    upper        the disk that bounds what is written, where there is one
//!    mounts/N     folders, files and disks that the container mounts, with its owners
//!    root         the overlay of all
//!    bundle       config.json; state of libcontainer
//! ```
//!
//! What is written stays in `Container.folder`, owned by the container's ids of the host, and dies with the spacecore.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};

use spacecore::wire::TO_BE_WRITTEN;

use super::config::WRITTEN;
use super::copy;
use super::hierarchies;
use super::ids::Ids;
use super::mapping::{self, Use};
use super::start::Making;
use crate::driver::MountSource;
use crate::remove::remove_tree;
use crate::scratch;

/// Folders that every Linux system has: the first that holds nothing that is needed here becomes the stage.
const STAGES: [&str; 4] = ["/run", "/mnt", "/tmp", "/var"];

/// The file that bounds what is written to the root.
const UPPER_FILE: &str = "upper.img";

/// What couldn't be done, and why.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub(super) struct Failure {
    what: String,
    source: io::Error,
}

/// Says what failed.
pub(super) trait Doing<T> {
    /// The value, or a [`Failure`].
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|source| Failure { what: what(), source: source.into() })
    }
}

/// Where everything is, in the calling process' own mount namespace.
#[derive(Debug)]
pub(super) struct Stage {
    /// The root.
    pub(super) root: PathBuf,
    /// The bundle, and `libcontainer`'s own state.
    pub(super) bundle: PathBuf,
    /// What is mounted over the root, in the order of the container's mounts; none for memory.
    pub(super) mounts: Vec<Option<PathBuf>>,
    /// The files of [`WRITTEN`], where the root can't be written.
    pub(super) written: Vec<PathBuf>,
}

/// Makes it all. The calling process gets a mount namespace of its own, and must be one that ends soon: what it mounts
/// hides a folder of the host from it.
pub(super) fn make(making: &Making<'_>, namespace: &OwnedFd) -> Result<Stage, Failure> {
    let Making { container, ids, .. } = *making;
    // The namespace by which the host's owners are shown as the container's, where that is needed.
    let shown = (!ids.is_rootless()).then_some(namespace);
    own_mounts(making.parent)?;
    // Mounts are taken before the stage may hide them.
    let folder = fs::canonicalize(&container.folder).doing(|| opening(&container.folder))?;
    let mounts =
        container.mounts.iter().map(|mount| take_mount(mount, shown)).collect::<Result<Vec<_>, _>>()?;
    let upper = match container.upper_bytes {
        Some(bytes) => Some(upper(&folder, bytes, ids)?),
        None => None,
    };
    let mut needed = Vec::with_capacity(container.layers.len());
    for layer in &container.layers {
        needed.push(fs::canonicalize(layer).doing(|| opening(layer))?);
    }
    let base = stage(needed.iter().chain([&folder]))?;
    let stage = Stage {
        root: base.join("root"),
        bundle: base.join("bundle"),
        mounts: hang_all(&base, "mounts", &container.mounts, mounts)?,
        written: match container.readonly {
            true => {
                WRITTEN.iter().enumerate().map(|(number, _)| base.join(format!("written{number}"))).collect()
            }
            false => Vec::new(),
        },
    };
    for made in [&stage.root, &stage.bundle] {
        make_folder(made)?;
    }
    if let Err(failure) = overlay(&base, &needed, making, shown, upper.as_ref(), &stage.root) {
        // A kernel without it, or without it over mapped owners, and a folder that can't take its writes.
        let kind = failure.source.raw_os_error();
        if !matches!(kind, Some(libc::EINVAL | libc::ENODEV | libc::EOPNOTSUPP | libc::EPERM | libc::ENOSYS))
        {
            return Err(failure);
        }
        let into = if upper.is_some() { base.join("upper") } else { folder.clone() };
        let tree = copy::merge(&needed, &into, container.readonly, shown, ids)
            .doing(|| "copying the layers".to_owned())?;
        mapping::hang(&tree, &stage.root).doing(|| "mounting the root".to_owned())?;
    }
    for name in ["dev", "proc", "sys"] {
        // Where it is a link, a runtime that follows it would leave the root.
        let there = fs::symlink_metadata(stage.root.join(name));
        if there.is_ok_and(|there| !there.is_dir()) {
            let source = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(Failure { what: format!("looking at /{name} of the image"), source });
        }
    }
    for (at, file) in WRITTEN.iter().zip(&stage.written) {
        fs::write(file, TO_BE_WRITTEN)
            .and_then(|()| chown(file, Some(ids.base()), Some(ids.base())))
            .doing(|| opening(file))?;
        make_file(&stage.root, at).doing(|| format!("making {at} in the root"))?;
    }
    Ok(stage)
}

fn opening(path: &Path) -> String {
    format!("opening {}", path.display())
}

/// Leaves the host's mounts: nothing that is mounted from here on is seen outside, and all of it ends with this process
/// and those that it starts.
fn own_mounts(groups: &Path) -> Result<(), Failure> {
    let what = || "leaving the host's mounts".to_owned();
    // SAFETY: this process has one thread, and gives nobody its folder or root to share.
    #[allow(unsafe_code)]
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.doing(what)?;
    let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change("/", flags).doing(what)?;
    hierarchies::show_only(groups).doing(|| format!("showing the control group {} alone", groups.display()))
}

fn take_mount(mount: &crate::driver::Mount, namespace: Option<&OwnedFd>) -> Result<Option<OwnedFd>, Failure> {
    let used = if mount.readonly { Use::Read } else { Use::Write };
    match &mount.source {
        MountSource::Memory(_) => Ok(None),
        MountSource::Folder(path) | MountSource::File(path) => mapping::take(path, namespace, used)
            .map(Some)
            .doing(|| format!("showing {} with the container's owners", path.display())),
        MountSource::Disk(path) => {
            let what = || format!("mounting the disk {}", path.display());
            let disk = mapping::mount_disk(path, mount.readonly).doing(what)?;
            mapping::dress(&disk, namespace, used).doing(what)?;
            Ok(Some(disk))
        }
    }
}

/// What bounds the writes: a disk, or memory where only root could mount a disk.
fn upper(folder: &Path, bytes: u64, ids: Ids) -> Result<OwnedFd, Failure> {
    if ids.is_rootless() {
        return mapping::mount_memory(bytes).doing(|| "making room in memory for writes".to_owned());
    }
    let file = folder.join(UPPER_FILE);
    let bytes = bytes.clamp(scratch::MIN_BYTES, scratch::MAX_BYTES);
    scratch::create(&file, bytes).map_err(|error| Failure {
        what: "making the disk for writes".to_owned(),
        source: io::Error::other(error),
    })?;
    mapping::mount_disk(&file, false).doing(|| "mounting the disk for writes".to_owned())
}

/// Mounts the stage over a folder of the host. Everybody may pass through it: the container's root is no root here.
fn stage<'a>(needed: impl Iterator<Item = &'a PathBuf> + Clone) -> Result<PathBuf, Failure> {
    let hides = |stage: &Path| needed.clone().any(|path| path.starts_with(stage));
    let stages = STAGES.iter().filter_map(|path| fs::canonicalize(path).ok());
    let no_stage = || io::Error::new(io::ErrorKind::NotFound, STAGES.join(", "));
    let mut free = stages.filter(|stage| stage.is_dir() && !hides(stage));
    let base = free.next().ok_or_else(no_stage).doing(|| "finding a folder to work in".to_owned())?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", &base, "tmpfs", flags, c"mode=755,size=4m")
        .doing(|| "making a stage".to_owned())?;
    Ok(base)
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .doing(|| format!("making {}", path.display()))?;
    // Whatever the mask says.
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).doing(|| opening(path))
}

fn hang_all(
    base: &Path,
    name: &str,
    wanted: &[crate::driver::Mount],
    taken: Vec<Option<OwnedFd>>,
) -> Result<Vec<Option<PathBuf>>, Failure> {
    let mut hung = Vec::with_capacity(taken.len());
    make_folder(&base.join(name))?;
    for (number, (mount, wanted)) in taken.into_iter().zip(wanted).enumerate() {
        let Some(mount) = mount else {
            hung.push(None);
            continue;
        };
        let at = base.join(name).join(number.to_string());
        match wanted.source {
            MountSource::File(_) => fs::write(&at, "").doing(|| opening(&at))?,
            _ => make_folder(&at)?,
        }
        mapping::hang(&mount, &at).doing(|| format!("mounting {}", wanted.destination))?;
        hung.push(Some(at));
    }
    Ok(hung)
}

/// Mounts the overlay.
fn overlay(
    base: &Path,
    layers: &[PathBuf],
    making: &Making<'_>,
    namespace: Option<&OwnedFd>,
    upper: Option<&OwnedFd>,
    at: &Path,
) -> Result<(), Failure> {
    let writes = match upper {
        Some(disk) => {
            let place = base.join("upper");
            make_folder(&place)?;
            mapping::hang(disk, &place).doing(|| "mounting the disk for writes".to_owned())?;
            place
        }
        None => making.container.folder.clone(),
    };
    let mut lower = Vec::with_capacity(layers.len());
    for (number, layer) in layers.iter().enumerate() {
        let place = base.join("layers").join(number.to_string());
        make_folder(&place)?;
        mapping::take(layer, namespace, Use::Layer)
            .and_then(|layer| mapping::hang(&layer, &place))
            .doing(|| format!("showing {} with the container's owners", layer.display()))?;
        lower.push(format!("layers/{number}"));
    }
    let (upper, work) = upper_folders(&writes, making.ids)?;
    // Paths are short, relative to the stage, so that many layers fit: the kernel takes a page of options.
    rustix::process::chdir(base).doing(|| opening(base))?;
    let lower = lower.iter().rev().map(String::as_str).collect::<Vec<_>>().join(":");
    // The marks in a user's trees are ones that a user may set.
    let marks = if making.ids.is_rootless() { ",userxattr" } else { "" };
    let options = format!(
        "lowerdir={lower},upperdir={},workdir={},index=off,metacopy=off{marks}",
        upper.display(),
        work.display()
    );
    let options =
        std::ffi::CString::new(options).map_err(io::Error::from).doing(|| "naming layers".to_owned())?;
    // An image may hold nodes of devices, which are the host's.
    rustix::mount::mount("overlay", at, "overlay", MountFlags::NODEV, &*options)
        .doing(|| format!("mounting {} layers as one", layers.len()))
}

/// Makes the folders that take the writes.
fn upper_folders(writes: &Path, ids: Ids) -> Result<(PathBuf, PathBuf), Failure> {
    let (upper, work) = (writes.join("upper"), writes.join("work"));
    for folder in [&upper, &work] {
        make_folder(folder)?;
    }
    chown(&upper, Some(ids.base()), Some(ids.base())).doing(|| opening(&upper))?;
    // The host's path may hold what options give a meaning; a descriptor's doesn't.
    Ok((short(&upper)?, short(&work)?))
}

/// A path of this process that means the folder, and holds no character that mount options give a meaning.
fn short(folder: &Path) -> Result<PathBuf, Failure> {
    use std::os::fd::IntoRawFd;
    let opened = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| opening(folder))?;
    // Open until this process ends, which is soon.
    Ok(PathBuf::from(format!("/proc/self/fd/{}", opened.into_raw_fd())))
}

/// Makes an empty file in a root that may be hostile, over which another is mounted; a link that leads nowhere is replaced.
fn make_file(root: &Path, path: &str) -> io::Result<()> {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, folder, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if rustix::fs::openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).is_ok() {
        return Ok(());
    }
    let (parent, name) = path.rsplit_once('/').unwrap_or(("/", path));
    let within = match rustix::fs::openat2(&root, parent, folder, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT) => {
            rustix::fs::mkdirat(&root, parent.trim_start_matches('/'), Mode::from_raw_mode(0o755))?;
            rustix::fs::openat2(&root, parent, folder, Mode::empty(), resolve)?
        }
        result => result?,
    };
    match rustix::fs::unlinkat(&within, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&within, name, flags, Mode::from_raw_mode(0o644))?;
    Ok(())
}

/// Removes what [`make`] has left in `Container.folder`.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    gone(fs::remove_file(folder.join(UPPER_FILE)))?;
    // An overlay's own folder is closed even to its owner.
    let _ = fs::set_permissions(folder.join("work/work"), fs::Permissions::from_mode(0o700));
    let written = || -> io::Result<()> {
        for name in ["upper", "work", copy::TREE] {
            gone(remove_tree(&folder.join(name)))?;
        }
        Ok(())
    };
    match written() {
        // What other ids of a user's container have made isn't the user's to remove.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let ids = Ids::here();
            if ids.is_rootless() { ids.inside(written) } else { Err(error) }
        }
        result => result,
    }
}
