//! Removes trees that a workload has made, however deep they are.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};
use rustix::io::Errno;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes a file, or a folder with all that is in it. Follows no links.
///
/// It holds three descriptors and no stack for each level: a folder within a folder is first moved to the top, so that a
/// workload can't make a tree that is too deep to be removed.
///
/// # Errors
/// The path doesn't exist, or something in it can't be removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    let top = openat(CWD, path, FOLDER, Mode::empty())?;
    let mut number = 0_u64;
    loop {
        let mut removed = false;
        each_entry(top.as_fd(), &mut |name| {
            removed = true;
            match unlinkat(&top, name, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => empty(&top, name, &mut number),
                result => result,
            }
        })?;
        if !removed {
            return fs::remove_dir(path);
        }
    }
}

/// Removes a folder in `top`, whose own folders are moved to `top`.
fn empty(top: &OwnedFd, name: &std::ffi::CStr, number: &mut u64) -> Result<(), Errno> {
    let folder = openat(top, name, FOLDER, Mode::empty())?;
    loop {
        let mut removed = false;
        each_entry(folder.as_fd(), &mut |inner| {
            removed = true;
            match unlinkat(&folder, inner, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => move_up(&folder, inner, top, number),
                result => result,
            }
        })?;
        if !removed {
            return unlinkat(top, name, AtFlags::REMOVEDIR);
        }
    }
}

fn move_up(folder: &OwnedFd, name: &std::ffi::CStr, top: &OwnedFd, number: &mut u64) -> Result<(), Errno> {
    loop {
        *number = number.wrapping_add(1);
        match renameat_with(folder, name, top, format!(".moved-{number}"), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            result => return result,
        }
    }
}

fn each_entry(
    folder: BorrowedFd<'_>,
    act: &mut dyn FnMut(&std::ffi::CStr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if ![c".", c".."].contains(&name) {
            act(name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_there_are_descriptors_or_stack_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let tree = home.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut folder = openat(CWD, &tree, FOLDER, Mode::empty()).unwrap();
        for level in 0..30_000 {
            rustix::fs::mkdirat(&folder, "d", Mode::from_raw_mode(0o755)).unwrap();
            folder = openat(&folder, "d", FOLDER, Mode::empty()).unwrap();
            if level % 1000 == 0 {
                rustix::fs::symlinkat("/etc", &folder, "link").unwrap();
            }
        }
        drop(folder);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && Path::new("/etc").exists());
    }

    #[test]
    fn files_links_and_names_that_are_taken_are_no_hindrance() {
        let home = tempfile::tempdir().unwrap();
        let (tree, outside) = (home.path().join("tree"), home.path().join("outside"));
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::create_dir_all(tree.join(".moved-1")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/b/link")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && outside.join("kept").exists());
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        remove_tree(&link).unwrap();
        assert!(outside.join("kept").exists());
        assert_eq!(remove_tree(&link).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
