//! The root file system: layers, overlay, and where writes go. It is put together outside of it, in folders of the
//! initramfs, and moved into place by the workload's own process.

use std::ffi::CString;

use rustix::mount::MountFlags;
use spacecore::wire::message::{Refusal, RefusalKind, Root, Upper};

use crate::boot::make_folder;
use crate::disks::Disks;
use crate::verity;
use spacecore::refusal::{OrRefuse, refuse};

/// Where the overlay is mounted.
pub(crate) const ROOT: &str = "/root-fs";

/// Where the file system is mounted that takes the writes.
pub(crate) const WRITABLE: &str = "/writable";

/// Mounts each layer, lowest first, and returns their folders in the same order.
///
/// # Errors
/// A disk is missing, isn't what its tree says, or holds no squashfs.
pub(crate) fn mount_layers(root: &Root, disks: &Disks) -> Result<Vec<String>, Refusal> {
    if root.layers.is_empty() {
        return Err(refuse(RefusalKind::Protocol, "a root file system needs at least one layer"));
    }
    make_folder("/layers")?;
    let mut folders = Vec::with_capacity(root.layers.len());
    for (number, layer) in root.layers.iter().enumerate() {
        let disk = disks.node(&layer.serial, RefusalKind::Root)?;
        let node = match &layer.verity {
            Some(tree) => verity::open(&layer.serial, disk, tree)?,
            None => disk.to_owned(),
        };
        let folder = format!("/layers/{number}");
        make_folder(&folder)?;
        rustix::mount::mount(node.as_str(), folder.as_str(), "squashfs", MountFlags::RDONLY, None)
            .or_refuse(RefusalKind::Root, || {
                format!("mounting layer {number} (disk {:?}) as squashfs", layer.serial)
            })?;
        folders.push(folder);
    }
    Ok(folders)
}

/// Mounts what takes the writes, and the overlay over all.
///
/// # Errors
/// The writable disk is missing or holds no ext4, or the kernel refuses the overlay.
pub(crate) fn mount_overlay(root: &Root, layers: &[String], disks: &Disks) -> Result<(), Refusal> {
    make_folder(WRITABLE)?;
    match &root.upper {
        Upper::Memory { bytes } => {
            rustix::mount::mount(
                "tmpfs",
                WRITABLE,
                "tmpfs",
                MountFlags::empty(),
                &*memory_options(*bytes, 0o755),
            )
            .or_refuse(RefusalKind::Root, || format!("mounting {bytes} bytes of memory for writes"))?;
        }
        Upper::Disk { serial } => {
            let node = disks.node(serial, RefusalKind::Root)?;
            rustix::mount::mount(node, WRITABLE, "ext4", MountFlags::empty(), None)
                .or_refuse(RefusalKind::Root, || format!("mounting disk {serial:?} as ext4"))?;
        }
    }
    let (upper, work) = (format!("{WRITABLE}/upper"), format!("{WRITABLE}/work"));
    make_folder(&upper)?;
    make_folder(&work)?;
    make_folder(ROOT)?;
    let options = overlay_options(layers, &upper, &work)?;
    rustix::mount::mount("overlay", ROOT, "overlay", MountFlags::empty(), &*options)
        .or_refuse(RefusalKind::Root, || format!("mounting {} layers as one", layers.len()))
}

/// Options of a `tmpfs` of at most so many bytes, with an inode for each KiB.
pub(crate) fn memory_options(bytes: u64, mode: u32) -> CString {
    let inodes = (bytes / 1024).max(1024);
    CString::new(format!("mode={mode:o},size={bytes},nr_inodes={inodes}")).unwrap_or_default()
}

fn overlay_options(layers: &[String], upper: &str, work: &str) -> Result<CString, Refusal> {
    let lower = layers.iter().rev().map(String::as_str).collect::<Vec<_>>().join(":");
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work},index=off,metacopy=off");
    if options.len() > 4095 {
        return Err(refuse(
            RefusalKind::Root,
            format!("{} layers are more than one overlay can have", layers.len()),
        ));
    }
    CString::new(options).or_refuse(RefusalKind::Root, || "options of the overlay".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overlay_names_its_highest_layer_first() {
        let layers = ["/layers/0".to_owned(), "/layers/1".to_owned()];
        let options = overlay_options(&layers, "/w/upper", "/w/work").unwrap();
        assert_eq!(
            options.to_str().unwrap(),
            "lowerdir=/layers/1:/layers/0,upperdir=/w/upper,workdir=/w/work,index=off,metacopy=off"
        );
    }

    #[test]
    fn more_layers_than_a_page_of_options_holds_are_refused() {
        let layers = (0..500).map(|n| format!("/layers/{n}")).collect::<Vec<_>>();
        assert_eq!(overlay_options(&layers, "/u", "/w").unwrap_err().kind, RefusalKind::Root);
    }

    #[test]
    fn memory_is_bounded_in_bytes_and_inodes() {
        assert_eq!(memory_options(1 << 20, 0o755).to_str().unwrap(), "mode=755,size=1048576,nr_inodes=1024");
    }
}
