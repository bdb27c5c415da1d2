//! A root without an overlay: the layers, merged into one tree of the spacecore's own.
//!
//! A root that nobody can write to is made of hard links to the image's files, shown with the container's owners; one that
//! can be written is a copy, since a write to a link would reach the image. Files of a file system that can share
//! blocks (btrfs, xfs) share them. Extended attributes aren't carried over: file capabilities mean nothing to processes
//! that can't gain privileges.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use super::config::IDS;
use super::ids::Ids;
use super::mapping::{self, Use};

/// The tree's name in its folder.
pub(super) const TREE: &str = "tree";

/// `FICLONE` of `linux/fs.h`.
const FICLONE: libc::Ioctl = 0x4004_9409;

/// How files get from a layer into the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// As the same file, with its owner.
    Link,
    /// As a file of its own, with its owner moved up by so much: to the container's ids, where the maker isn't root of these.
    Copy(u32),
}

/// Merges the layers, lowest first, into a tree in this folder, and takes it as a mount that hangs nowhere yet.
pub(super) fn merge(
    layers: &[PathBuf],
    folder: &Path,
    readonly: bool,
    namespace: Option<&OwnedFd>,
    ids: Ids,
) -> io::Result<OwnedFd> {
    let tree = folder.join(TREE);
    fs::create_dir(&tree)?;
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755))?;
    if readonly && let Ok(mount) = mapping::take(&tree, namespace, Use::Write) {
        fill(layers, &tree, How::Link)?;
        return Ok(mount);
    }
    fill(layers, &tree, How::Copy(ids.base()))?;
    mapping::take(&tree, None, Use::Write)
}

fn fill(layers: &[PathBuf], tree: &Path, how: How) -> io::Result<()> {
    for layer in layers {
        fill_folder(layer, tree, how)?;
    }
    Ok(())
}

fn owner(status: &fs::Metadata, how: How) -> (Option<u32>, Option<u32>) {
    // An owner that the container has no id for is nobody there.
    let own = |id: u32| if id < IDS { id } else { 65_534 };
    let shift = if let How::Copy(shift) = how { shift } else { 0 };
    (Some(own(status.uid()).saturating_add(shift)), Some(own(status.gid()).saturating_add(shift)))
}

/// Merges one folder of a layer. Every folder above `to` is one of the tree's own, and no link.
fn fill_folder(from: &Path, to: &Path, how: How) -> io::Result<()> {
    let status = fs::symlink_metadata(from)?;
    let (user, group) = owner(&status, how);
    lchown(to, user, group)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let status = entry.metadata()?;
        let there = fs::symlink_metadata(&target).ok();
        let is_folder = status.is_dir();
        let stays = is_folder && there.as_ref().is_some_and(fs::Metadata::is_dir) && !is_opaque(&source);
        match there {
            Some(there) if there.is_dir() && !stays => fs::remove_dir_all(&target)?,
            Some(_) if !stays => fs::remove_file(&target)?,
            _ => {}
        }
        if is_folder {
            if !stays {
                fs::create_dir(&target)?;
            }
            fill_folder(&source, &target, how)?;
            fs::set_permissions(&target, status.permissions())?;
        } else if !(status.file_type().is_char_device() && status.rdev() == 0) {
            place(&source, &target, &status, how)?;
        }
    }
    Ok(())
}

fn place(source: &Path, target: &Path, status: &fs::Metadata, how: How) -> io::Result<()> {
    if how == How::Link && fs::hard_link(source, target).is_ok() {
        return Ok(());
    }
    let kind = status.file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(source)?, target)?;
    } else if kind.is_file() {
        copy_file(source, target)?;
    } else {
        // Sockets mean nothing without their process, and devices aren't a container's to open; pipes are rare.
        return Ok(());
    }
    let (user, group) = owner(status, how);
    lchown(target, user, group)?;
    // After the owner, whose change takes the set-user-id bits.
    if kind.is_file() { fs::set_permissions(target, status.permissions()) } else { Ok(()) }
}

#[allow(unsafe_code)]
fn copy_file(source: &Path, target: &Path) -> io::Result<()> {
    let mut from = fs::File::open(source)?;
    let mut to = fs::OpenOptions::new().write(true).create_new(true).open(target)?;
    // SAFETY: the request takes a descriptor as a number.
    if unsafe { libc::ioctl(to.as_raw_fd(), FICLONE, from.as_raw_fd()) } == 0 {
        return Ok(());
    }
    io::copy(&mut from, &mut to).map(drop)
}

fn is_opaque(folder: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"].into_iter().any(|name| {
        let mut value = [0_u8; 2];
        let path = std::ffi::OsStr::from_bytes(folder.as_os_str().as_bytes());
        rustix::fs::lgetxattr(path, name, &mut value[..]).is_ok_and(|length| length == 1 && value[0] == b'y')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_layers_cover_lower_ones_and_links_share_the_image_s_files() {
        let folder = tempfile::tempdir().unwrap();
        let (low, high, tree) =
            (folder.path().join("low"), folder.path().join("high"), folder.path().join(TREE));
        for path in ["low/etc", "low/gone", "high/etc/deep", "tree"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        fs::write(low.join("etc/a"), "low").unwrap();
        fs::write(low.join("etc/b"), "low").unwrap();
        fs::write(low.join("gone/c"), "low").unwrap();
        fs::write(high.join("etc/b"), "high").unwrap();
        symlink("/etc", high.join("gone")).unwrap();
        fill(&[low.clone(), high.clone()], &tree, How::Link).unwrap();
        assert_eq!(fs::read_to_string(tree.join("etc/a")).unwrap(), "low");
        assert_eq!(fs::read_to_string(tree.join("etc/b")).unwrap(), "high");
        assert_eq!(fs::read_link(tree.join("gone")).unwrap(), Path::new("/etc"));
        assert!(tree.join("etc/deep").is_dir());
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(tree.join("etc/b")), inode(high.join("etc/b")));
    }
}
