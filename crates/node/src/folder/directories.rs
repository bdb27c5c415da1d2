//! Requests about the content of directories.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, RawDir, SeekFrom, openat, seek};
use rustix::io::Errno;

use super::Folder;
use super::files::LISTING;
use super::handles::Use;
use super::nodes::ROOT;
use super::protocol::Name;
use super::reply::{Body, ENTRY, directory_entry_length};

/// The most that one answer lists, in bytes.
const MOST_LISTED: usize = 64 * 1024;
/// Room for a few of the longest entries.
const LEAST_READ: usize = 1024;

impl Folder {
    pub(super) fn open_directory(&mut self, node: u64, body: &mut Body<'_>) -> Result<(), Errno> {
        self.handles.check_room()?;
        let directory = self.directory(node)?;
        let permit = self.nodes.make_room()?;
        let (flags, mode) = LISTING;
        let opened = permit.open(|| openat(directory.as_fd(), c".", flags, mode))?;
        self.nodes.add_handle(node);
        body.opened(self.handles.add(node, Use::Directory, opened), false);
        Ok(())
    }

    /// `READDIR` and `READDIRPLUS`: as many entries from `offset` on as fit. The offsets are the host's own; one that the
    /// guest made up lists from some entry or none.
    pub(super) fn list(
        &mut self,
        node: u64,
        handle: u64,
        offset: u64,
        size: usize,
        plus: bool,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        let directory = self.handles.get(node, handle)?.directory()?;
        let size = size.min(MOST_LISTED);
        seek(&directory, SeekFrom::Start(offset))?;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        // An entry takes about as many bytes from the host as it does in a plain answer. What is read and doesn't fit
        // is read again by the next request.
        scratch.reserve_exact(if plus { size / 4 } else { size }.max(LEAST_READ));
        let outcome = self.list_into(node, directory.as_fd(), &mut scratch, size, plus, body);
        self.scratch = scratch;
        outcome
    }

    fn list_into(
        &mut self,
        node: u64,
        directory: BorrowedFd<'_>,
        scratch: &mut Vec<u8>,
        size: usize,
        plus: bool,
        body: &mut Body<'_>,
    ) -> Result<(), Errno> {
        let mut entries = RawDir::new(directory, scratch.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(_) if body.len() > 0 => break,
                Err(errno) => return Err(errno),
            };
            let name = entry.file_name();
            let length = directory_entry_length(name.to_bytes()) + if plus { ENTRY } else { 0 };
            if body.len() + length > size {
                break;
            }
            let outside = node == ROOT && name.to_bytes() == b"..";
            let number = if outside { ROOT } else { entry.ino() };
            let kind = listed_kind(entry.file_type());
            if plus {
                self.list_node(node, name, body);
            }
            body.directory_entry(number, entry.next_entry_cookie(), kind, name.to_bytes());
        }
        Ok(())
    }

    /// Gives the guest the node of a listed name as if it had looked it up; one that can't be given is only listed.
    fn list_node(&mut self, parent: u64, name: &std::ffi::CStr, body: &mut Body<'_>) {
        match Name::new(name).and_then(|name| self.nodes.look_up(parent, name)) {
            Ok(found) => self.entry(found, body),
            Err(_) => body.no_entry(),
        }
    }
}

/// The `DT_` constant of a kind of file.
fn listed_kind(kind: FileType) -> u32 {
    match kind {
        FileType::Fifo => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => 4,
        FileType::BlockDevice => 6,
        FileType::RegularFile => 8,
        FileType::Symlink => 10,
        FileType::Socket => 12,
        FileType::Unknown => 0,
    }
}
