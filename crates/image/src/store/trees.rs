//! Unpacked trees, for isolations that mount folders.
//!
//! A layer's tree lies in the layer's own folder, as `tree-v1-BOOT/root` made by root, as `tree-USERS-GROUPS-v1-BOOT/root` made
//! by another user who has ids to give away ([`Owners`]), and as `tree-user-v1-BOOT/root` made by one who hasn't, with the number of bytes that it takes beside it. It is made once, from the stored layer, by one rename;
//! it lives and goes with the layer. All of the store's folders are closed to others, so that a set-uid file in a tree
//! can't be reached.
//!
//! **Why the boot is part of the name.** To be sure that thousands of files are on the disk takes longer than to write
//! them, and nobody can wait for it in a start. So nobody does: a tree counts for as long as the kernel runs that has it in
//! its memory or has written it, and after the next boot, which may have come by a power failure, it is made again.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use rustix::io::Errno;
use thiserror::Error;

use super::disk::{BlobLock, Scratch};
use super::{Image, ImageLayer, Owners, Store, StoreError, full_disk, is_full};
use crate::digest::Digest;
use crate::layer::extract::{self, ExtractError, Form};
use crate::whole::whole;

const PARALLEL: usize = 3;

/// An image's layers that can't be had as trees.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The store can't take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer can't be unpacked.
    #[error("layer {layer} can't be unpacked")]
    Layer {
        /// The layer's diff_id.
        layer: Digest,
        /// Why.
        #[source]
        source: Box<ExtractError>,
    },
    /// A layer can't be unpacked with its owners.
    #[error("layer {layer} can't be unpacked: {reason}")]
    Inside {
        /// The layer's diff_id.
        layer: Digest,
        /// Why, as the process that did it says.
        reason: String,
    },
}

impl Store {
    /// Returns the image's layers as folders, lowest first, in the form that overlayfs takes as lower folders: whiteouts
    /// are character devices 0:0, opaque folders are marked by an xattr, `trusted.` for root and `user.` for others, who
    /// mount with `userxattr`. What isn't there yet is unpacked first, which takes about as long as copying it; what is
    /// there costs one look per layer. The folders may be used, and must not be changed, as long as `image` lives.
    ///
    /// Root gets owners, modes, times, hard links, device nodes, `user.` xattrs and file capabilities as the image has
    /// them. Anybody else gets no device nodes and no file capabilities; with [`StoreOptions::owners`] the owners as far as
    /// there are ids for them, otherwise everything is their own and readable by them. Sockets are left out always.
    pub fn trees(&self, image: &Image) -> Result<Vec<PathBuf>, TreeError> {
        let boot = boot().map_err(|source| self.failed("read the boot's number for", &self.root, source))?;
        let form = self.form();
        let paths: Vec<PathBuf> =
            image.layers.iter().map(|layer| self.place(layer, form, boot).join("root")).collect();
        let missing: Vec<&ImageLayer> = image
            .layers
            .iter()
            .zip(&paths)
            .filter(|(_, path)| !is_there(path))
            .map(|(layer, _)| layer)
            .collect();
        if missing.is_empty() {
            return Ok(paths);
        }
        let next = AtomicUsize::new(0);
        let first_error = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..missing.len().min(PARALLEL) {
                scope.spawn(|| {
                    while let Some(layer) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.unpack(layer, form, boot) {
                            next.store(missing.len(), Ordering::Relaxed);
                            let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                            first.get_or_insert(error);
                        }
                    }
                });
            }
        });
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(paths),
        }
    }

    fn form(&self) -> Form {
        match (rustix::process::geteuid().is_root(), self.options.owners) {
            (true, _) => Form::Root,
            (false, Some(owners)) => Form::Mapped(owners.count),
            (false, None) => Form::User,
        }
    }

    fn unpack(&self, layer: &ImageLayer, form: Form, boot: &str) -> Result<(), TreeError> {
        let target = self.place(layer, form, boot);
        let failed = |source| self.failed("store", &target, source);
        let lock = self.root.join("locks").join(lock_name(&target));
        let _lock =
            BlobLock::take(lock.clone(), &|| {}).map_err(|source| self.failed("lock", &lock, source))?;
        if is_there(&target.join("root")) {
            return Ok(());
        }
        let scratch = Scratch::new(&self.tmp()).map_err(failed)?.with_owners(self.options.owners);
        self.discard_old(layer, form, &scratch)?;
        // What it will take is nearly known before it is written.
        let expected = layer.unpacked_bytes.saturating_add(layer.entries.saturating_mul(512));
        self.make_room(expected)?;
        let folder = scratch.path("tree");
        let root = folder.join("root");
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&root).map_err(failed)?;
        let opened = OwnedFd::from(fs::File::open(&root).map_err(failed)?);
        let bytes = match (form, self.options.owners) {
            (Form::Mapped(_), Some(owners)) => self.extract_inside(layer, &opened, form, owners, &folder)?,
            _ => extract::extract(&layer.file, &opened, form).map_err(|error| match full_disk(&error) {
                true => TreeError::Store(StoreError::Full { root: self.root.clone() }),
                false => TreeError::Layer { layer: layer.digest.clone(), source: Box::new(error) },
            })?,
        };
        fs::write(folder.join("bytes"), format!("{bytes}\n")).map_err(failed)?;
        drop(opened);
        fs::rename(&folder, &target).map_err(failed)?;
        Ok(())
    }

    /// Extracts where the owners can be given. What happens there comes back through a file beside the tree.
    fn extract_inside(
        &self,
        layer: &ImageLayer,
        root: &OwnedFd,
        form: Form,
        owners: Owners,
        folder: &Path,
    ) -> Result<u64, TreeError> {
        let said = folder.join("said");
        let done = (owners.inside)(&mut || {
            let (text, result) = match extract::extract(&layer.file, root, form) {
                Ok(bytes) => (bytes.to_string(), Ok(())),
                Err(error) if full_disk(&error) => (String::new(), Err(Errno::NOSPC.into())),
                Err(error) => (whole(&error), Err(Errno::IO.into())),
            };
            fs::write(&said, text)?;
            result
        });
        let text = fs::read_to_string(&said).unwrap_or_default();
        // The rename makes all of the folder visible.
        let _ = fs::remove_file(&said);
        match (done, text.trim().parse()) {
            (Ok(()), Ok(bytes)) => Ok(bytes),
            (Err(error), _) if is_full(&error) => {
                Err(TreeError::Store(StoreError::Full { root: self.root.clone() }))
            }
            (Err(source), _) if text.is_empty() => {
                Err(TreeError::Store(self.failed("give owners to the files in", folder, source)))
            }
            _ => Err(TreeError::Inside { layer: layer.digest.clone(), reason: text }),
        }
    }

    fn prefix(&self, form: Form) -> String {
        match (form, self.options.owners) {
            (Form::Root, _) => "tree-v1-".to_owned(),
            (Form::Mapped(_), Some(Owners { first: (users, groups), .. })) => {
                format!("tree-{users}-{groups}-v1-")
            }
            (Form::Mapped(_) | Form::User, _) => "tree-user-v1-".to_owned(),
        }
    }

    fn place(&self, layer: &ImageLayer, form: Form, boot: &str) -> PathBuf {
        layer.path.with_file_name(format!("{}{boot}", self.prefix(form)))
    }

    /// Removes the trees of earlier boots. No process that used them is left.
    fn discard_old(&self, layer: &ImageLayer, form: Form, scratch: &Scratch) -> Result<(), StoreError> {
        let Some(folder) = layer.path.parent() else { return Ok(()) };
        let failed = |source| self.failed("remove the old trees in", folder, source);
        let prefix = self.prefix(form);
        for name in trees_in(folder).map_err(failed)?.iter().filter(|name| name.starts_with(&prefix)) {
            fs::rename(folder.join(name), scratch.path(name)).map_err(failed)?;
        }
        Ok(())
    }
}

/// The bytes that the trees in a layer's folder take.
pub(super) fn bytes_in(layer: &Path) -> u64 {
    trees_in(layer)
        .unwrap_or_default()
        .iter()
        .filter_map(|name| fs::read_to_string(layer.join(name).join("bytes")).ok())
        .filter_map(|text| text.trim().parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

/// The names of the trees in a layer's folder.
fn trees_in(layer: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(layer)? {
        if let Ok(name) = entry?.file_name().into_string()
            && name.starts_with("tree-")
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// The kernel's name for the time since it started (proc_sys_kernel(5), `random/boot_id`).
fn boot() -> io::Result<&'static str> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(boot);
    }
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let boot = text.trim();
    if boot.is_empty() || !boot.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Err(io::Error::other("the kernel's boot_id isn't one"));
    }
    Ok(BOOT.get_or_init(|| boot.to_owned()))
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Of a path in the store, the last three parts say all.
fn lock_name(target: &Path) -> String {
    let parts: Vec<_> = target.iter().rev().take(3).map(|part| part.to_string_lossy()).collect();
    parts.join("-")
}
