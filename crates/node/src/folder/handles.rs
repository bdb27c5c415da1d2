//! The files and directories that the guest has open.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::io::Errno;

use super::descriptors::Descriptor;

/// What a handle was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Directory,
    File { read: bool, write: bool },
}

#[derive(Debug)]
struct Handle {
    node: u64,
    purpose: Use,
    fd: Arc<Descriptor>,
}

/// All handles of one folder.
#[derive(Debug)]
pub(super) struct Handles {
    handles: HashMap<u64, Handle>,
    next: u64,
    most: usize,
}

/// An open file that a request may use.
pub(super) struct Opened {
    fd: Arc<Descriptor>,
    purpose: Use,
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Opened {
    pub(super) fn directory(self) -> Result<Self, Errno> {
        if self.purpose == Use::Directory { Ok(self) } else { Err(Errno::NOTDIR) }
    }

    pub(super) fn readable(self) -> Result<Self, Errno> {
        let allowed = matches!(self.purpose, Use::File { read: true, .. });
        self.file(allowed)
    }

    pub(super) fn writable(self) -> Result<Self, Errno> {
        let allowed = matches!(self.purpose, Use::File { write: true, .. });
        self.file(allowed)
    }

    fn file(self, allowed: bool) -> Result<Self, Errno> {
        match self.purpose {
            Use::Directory => Err(Errno::ISDIR),
            Use::File { .. } if allowed => Ok(self),
            Use::File { .. } => Err(Errno::BADF),
        }
    }
}

impl Handles {
    /// No handles, and at most so many.
    pub(super) fn new(most: usize) -> Self {
        Self { handles: HashMap::new(), next: 1, most: most.max(4) }
    }

    /// `EMFILE` where there are as many as there may be. Asked before a file is made or opened.
    pub(super) fn check_room(&self) -> Result<(), Errno> {
        if self.handles.len() < self.most { Ok(()) } else { Err(Errno::MFILE) }
    }

    /// Keeps an open file and gives it a number, which is never given again.
    pub(super) fn add(&mut self, node: u64, purpose: Use, fd: Descriptor) -> u64 {
        let number = self.next;
        self.next += 1;
        self.handles.insert(number, Handle { node, purpose, fd: Arc::new(fd) });
        number
    }

    /// The handle of this number, which must be one of this node: `EBADF` otherwise.
    pub(super) fn get(&self, node: u64, number: u64) -> Result<Opened, Errno> {
        let handle = self.handles.get(&number).filter(|handle| handle.node == node).ok_or(Errno::BADF)?;
        Ok(Opened { fd: Arc::clone(&handle.fd), purpose: handle.purpose })
    }

    /// Closes a handle of a node.
    pub(super) fn remove(&mut self, node: u64, number: u64) -> Result<(), Errno> {
        self.get(node, number)?;
        self.handles.remove(&number);
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.handles.clear();
    }
}
