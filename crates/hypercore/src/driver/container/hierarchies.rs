//! What the maker of a container shows the runtime of control groups.

use std::fs;
use std::io;
use std::path::Path;

use super::mapping::{self, Use};
use crate::cgroup::{NEEDED, ROOT, is_unified};

/// Takes the hierarchies of version 1 that nothing here needs out of the calling process' own mount namespace: `libcontainer`
/// moves a container into each that it finds, and shows it there, which takes the kernel longest of all.
///
/// On version 2 it shows the group in which the container's is to lie as the root, which is what `libcontainer` works from.
pub(super) fn show_only(parent: &Path) -> io::Result<()> {
    if is_unified() {
        if parent == Path::new(ROOT) {
            return Ok(());
        }
        let tree = mapping::take(parent, None, Use::Write)?;
        return mapping::hang(&tree, Path::new(ROOT));
    }
    for hierarchy in fs::read_dir(ROOT).into_iter().flatten().flatten() {
        let name = hierarchy.file_name().to_string_lossy().into_owned();
        let is_link = hierarchy.file_type().is_ok_and(|kind| kind.is_symlink());
        if !is_link && !name.split(',').any(|controller| NEEDED.contains(&controller)) {
            // What can't be hidden is used.
            let _ = rustix::mount::unmount(hierarchy.path(), rustix::mount::UnmountFlags::DETACH);
        }
    }
    Ok(())
}
