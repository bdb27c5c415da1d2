//! The files that the guest's kernel knows, by the numbers that it knows them by.
//!
//! A node is a file's identity (device and inode number), held by an `O_PATH` descriptor: whatever happens to names on
//! the host, the node stays the file that was looked up. A guest's kernel remembers more files than a process can hold
//! descriptors, so the ones unused for longest are closed and found again through parent and name; what lies there must
//! then have the same identity, else the node is stale. No name is ever resolved over more than one component, and
//! symbolic links are never followed.
//!
//! Known limit: a directory that somebody on the host moves out of the folder stays reachable for a guest that looked it
//! up before, as with any open directory; `..` is refused, so that nothing beside it does.

use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, fstatfs, openat};
use rustix::io::Errno;

use super::descriptors::{Descriptor, Permit};
use super::protocol::Name;

/// The number of the folder itself.
pub(super) const ROOT: u64 = 1;
/// The most nodes that are remembered; about 100 bytes and a name each.
const MOST_NODES: usize = 512 * 1024;
/// The longest chain of closed directories that is opened again for one node.
const DEEPEST: usize = 1024;
/// Nodes that are looked at for one that can be closed, before giving up.
const SEARCH: usize = 4096;
/// `PROC_SUPER_MAGIC` of linux/magic.h.
const PROC: i64 = 0x9fa0;

type Identity = (u64, u64);

/// What a file looked like when the guest opened it, to tell whether what it has cached is still right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) modified: (i64, u64),
    pub(super) changed: (i64, u64),
    pub(super) size: i64,
}

#[derive(Debug)]
struct Node {
    identity: Identity,
    kind: FileType,
    /// `None` while closed to save a descriptor.
    fd: Option<Arc<Descriptor>>,
    /// Where it was seen last.
    place: Option<(u64, CString)>,
    /// How many times the guest's kernel was given this node and hasn't forgotten it.
    lookups: u64,
    /// Open file handles of it.
    handles: u32,
    /// Its place is gone, so that it couldn't be found again.
    unlinked: bool,
    /// Used since the search for a node to close last came by.
    recent: bool,
    version: Option<Version>,
}

/// All nodes of one folder.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: HashMap<u64, Node>,
    by_identity: HashMap<Identity, u64>,
    /// Nodes that have a descriptor, in the order in which they are considered for closing; may name nodes that are gone.
    open: VecDeque<u64>,
    next: u64,
    /// At most this many nodes have a descriptor.
    most_open: usize,
    root_device: u64,
}

/// A node that the guest was just given.
pub(super) struct Found {
    pub(super) node: u64,
    pub(super) stat: Stat,
}

fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

/// Opens a name for identity alone.
fn open_path(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

impl Nodes {
    /// A table that holds only the root. `most_open` bounds the descriptors that nodes have.
    pub(super) fn new(root: Arc<Descriptor>, stat: &Stat, most_open: usize) -> Self {
        let node = Node {
            identity: identity(stat),
            kind: FileType::from_raw_mode(stat.st_mode),
            fd: Some(root),
            place: None,
            lookups: 1,
            handles: 0,
            unlinked: false,
            recent: true,
            version: None,
        };
        Self {
            by_identity: HashMap::from([(node.identity, ROOT)]),
            nodes: HashMap::from([(ROOT, node)]),
            open: VecDeque::new(),
            next: ROOT + 1,
            most_open: most_open.max(8),
            root_device: stat.st_dev,
        }
    }

    /// Forgets everything but the root, as when the guest unmounts.
    pub(super) fn clear(&mut self) {
        self.nodes.retain(|number, _| *number == ROOT);
        self.by_identity.retain(|_, number| *number == ROOT);
        self.open.clear();
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> (usize, usize) {
        (self.nodes.len(), self.nodes.values().filter(|node| node.fd.is_some()).count())
    }

    /// The kind of a node's file, `ESTALE` for an unknown one.
    pub(super) fn kind(&self, number: u64) -> Result<FileType, Errno> {
        self.nodes.get(&number).map(|node| node.kind).ok_or(Errno::STALE)
    }

    /// The inode number that the guest sees. Files of other file systems mounted inside the folder are moved apart.
    pub(super) fn shown_number(&self, stat: &Stat) -> u64 {
        stat.st_ino ^ (stat.st_dev.wrapping_sub(self.root_device) << 40)
    }

    /// A descriptor of the node, opened again where it was closed. `ESTALE` where the node is unknown or can't be found.
    pub(super) fn open(&mut self, number: u64) -> Result<Arc<Descriptor>, Errno> {
        // The closed nodes on the way, from the wanted one up to one that is open.
        let mut closed = Vec::new();
        let mut at = number;
        let mut descriptor = loop {
            let node = self.nodes.get_mut(&at).ok_or(Errno::STALE)?;
            node.recent = true;
            if let Some(descriptor) = &node.fd {
                break Arc::clone(descriptor);
            }
            let (parent, _) = node.place.as_ref().ok_or(Errno::STALE)?;
            closed.push(at);
            at = *parent;
            if closed.len() > DEEPEST {
                return Err(Errno::STALE);
            }
        };
        while let Some(number) = closed.pop() {
            let permit = self.make_room()?;
            let node = self.nodes.get_mut(&number).ok_or(Errno::STALE)?;
            let (_, name) = node.place.as_ref().ok_or(Errno::STALE)?;
            let opened =
                permit.open(|| open_path(descriptor.as_fd(), name)).map_err(|errno| match errno {
                    Errno::NOENT | Errno::NOTDIR => Errno::STALE,
                    other => other,
                })?;
            let stat = fstat(&opened)?;
            if identity(&stat) != node.identity || FileType::from_raw_mode(stat.st_mode) != node.kind {
                return Err(Errno::STALE);
            }
            descriptor = Arc::new(opened);
            node.fd = Some(Arc::clone(&descriptor));
            self.open.push_back(number);
        }
        Ok(descriptor)
    }

    /// Looks a name up and gives the guest the node that lies there.
    pub(super) fn look_up(&mut self, parent: u64, name: Name<'_>) -> Result<Found, Errno> {
        let directory = self.open(parent)?;
        if self.kind(parent)? != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        let permit = self.make_room()?;
        let descriptor = permit.open(|| open_path(directory.as_fd(), name.as_c_str()))?;
        self.give(parent, name, descriptor)
    }

    /// Gives the guest the node of an `O_PATH` descriptor that was found under this name.
    pub(super) fn give(
        &mut self,
        parent: u64,
        name: Name<'_>,
        descriptor: Descriptor,
    ) -> Result<Found, Errno> {
        let stat = fstat(&descriptor)?;
        let identity = identity(&stat);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let parent_device = self.nodes.get(&parent).map(|node| node.identity.0);
        if parent_device != Some(stat.st_dev) && is_proc(descriptor.as_fd()) {
            // It would show the guest the keeper's own memory.
            return Err(Errno::ACCESS);
        }
        let place = Some((parent, name.as_c_str().to_owned()));
        if let Some(number) = self.by_identity.get(&identity).copied()
            && let Some(node) = self.nodes.get_mut(&number)
            // A closed node doesn't keep its inode number from being used for another file.
            && node.kind == kind
        {
            node.lookups = node.lookups.saturating_add(1);
            node.recent = true;
            if number != ROOT {
                node.place = place;
                node.unlinked = false;
            }
            if node.fd.is_none() {
                node.fd = Some(Arc::new(descriptor));
                self.open.push_back(number);
            }
            return Ok(Found { node: number, stat });
        }
        if self.nodes.len() >= MOST_NODES {
            return Err(Errno::NFILE);
        }
        let number = self.next;
        self.next += 1;
        let fd = Some(Arc::new(descriptor));
        let node = Node {
            identity,
            kind,
            fd,
            place,
            lookups: 1,
            handles: 0,
            unlinked: false,
            recent: false,
            version: None,
        };
        self.nodes.insert(number, node);
        self.by_identity.insert(identity, number);
        self.open.push_back(number);
        Ok(Found { node: number, stat })
    }

    /// Takes back `count` lookups of a node; unknown nodes and counts that are too large do no harm.
    pub(super) fn forget(&mut self, number: u64, count: u64) {
        let Some(node) = self.nodes.get_mut(&number) else {
            return;
        };
        if number == ROOT {
            return;
        }
        node.lookups = node.lookups.saturating_sub(count);
        if node.lookups == 0 && node.handles == 0 {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(node) = self.nodes.remove(&number) else {
            return;
        };
        if self.by_identity.get(&node.identity) == Some(&number) {
            self.by_identity.remove(&node.identity);
        }
        // Numbers of removed nodes are swept out of the queue once they are the larger part of it.
        if self.open.len() > 64 && self.open.len() / 2 > self.nodes.len() {
            self.open.retain(|number| self.nodes.get(number).is_some_and(|node| node.fd.is_some()));
        }
    }

    /// Counts an open handle, which keeps the node from being closed.
    pub(super) fn add_handle(&mut self, number: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.handles = node.handles.saturating_add(1);
        }
    }

    /// Takes an open handle back.
    pub(super) fn drop_handle(&mut self, number: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.handles = node.handles.saturating_sub(1);
            if node.handles == 0 && node.lookups == 0 && number != ROOT {
                self.remove(number);
            }
        }
    }

    /// Notes that a name of this file was removed: it can't be found there any more, so it stays open.
    pub(super) fn unlinked(&mut self, file: &Stat) {
        if let Some(node) = self.by_stat(file) {
            node.unlinked = true;
        }
    }

    /// Notes that this file lies in another place now.
    pub(super) fn moved(&mut self, file: &Stat, parent: u64, name: Name<'_>) {
        if let Some(node) = self.by_stat(file)
            && node.place.is_some()
        {
            node.place = Some((parent, name.as_c_str().to_owned()));
        }
    }

    fn by_stat(&mut self, file: &Stat) -> Option<&mut Node> {
        let number = self.by_identity.get(&identity(file))?;
        self.nodes.get_mut(number)
    }

    /// Notes the version of a file that is being opened; answers whether it is the same as when it was opened last.
    pub(super) fn same_version(&mut self, number: u64, version: Option<Version>) -> bool {
        let Some(node) = self.nodes.get_mut(&number) else {
            return false;
        };
        let same = version.is_some() && node.version == version;
        node.version = version;
        same
    }

    /// A permit for one more descriptor, closing a node that wasn't used lately where there is none left. `ENFILE`
    /// where every node is in use.
    pub(super) fn make_room(&mut self) -> Result<Permit, Errno> {
        let mut looked_at = 0;
        loop {
            if self.open.len() < self.most_open
                && let Some(permit) = Permit::take()
            {
                return Ok(permit);
            }
            let number = self.open.pop_front().ok_or(Errno::NFILE)?;
            let Some(node) = self.nodes.get_mut(&number) else {
                continue;
            };
            let busy = node.handles > 0 || node.unlinked || node.recent;
            node.recent = false;
            if !busy {
                node.fd = None;
                continue;
            }
            self.open.push_back(number);
            looked_at += 1;
            if looked_at > SEARCH {
                return Err(Errno::NFILE);
            }
        }
    }
}

/// Whether a file belongs to procfs.
pub(super) fn is_proc(fd: BorrowedFd<'_>) -> bool {
    fstatfs(fd).is_ok_and(|stat| stat.f_type == PROC)
}
