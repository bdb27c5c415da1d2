//! A layer's names and attributes in memory, while its file data goes straight to disk.
//!
//! The rules are those of unpacking: entries act in the order in which they come, a later one replaces an earlier one
//! of the same name, a folder over a folder only changes its attributes, and the parents that nobody described are
//! implied with mode 0755 and owner 0. A whiteout speaks of lower layers only, so that beside an entry of the same name
//! in this layer it turns into "opaque" (for a folder) or into nothing.

use std::collections::BTreeMap;

use super::format::NONE;

/// Where a node is in [`Tree::nodes`].
pub(super) type NodeId = usize;
/// Name and value, sorted by name.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The root folder's node.
pub(super) const ROOT: NodeId = 0;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// The lower 12 bits: permissions, set-id bits, sticky bit.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u32,
    /// Which of [`Tree::xattrs`].
    pub(super) xattrs: usize,
}

impl Attributes {
    pub(super) const IMPLIED: Self = Self { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: 0 };
}

#[derive(Clone, Debug)]
pub(super) struct Data {
    pub(super) size: u64,
    /// The offset of the first block on disk.
    pub(super) start: u64,
    /// The blocks' place in [`Tree::blocks`].
    pub(super) first: usize,
    pub(super) count: usize,
    /// Which fragment holds the tail, or [`NONE`].
    pub(super) fragment: u32,
    pub(super) fragment_offset: u32,
}

impl Data {
    pub(super) const EMPTY: Self =
        Self { size: 0, start: 0, first: 0, count: 0, fragment: NONE, fragment_offset: 0 };
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) children: BTreeMap<Box<[u8]>, NodeId>,
    pub(super) opaque: bool,
    pub(super) implied: bool,
}

#[derive(Debug)]
pub(super) enum Kind {
    Directory(Directory),
    File(Data),
    Symlink(Box<[u8]>),
    CharDevice(u32),
    BlockDevice(u32),
    Fifo,
    Socket,
}

impl Kind {
    pub(super) const WHITEOUT: Self = Self::CharDevice(0);

    pub(super) fn is_whiteout(&self) -> bool {
        matches!(self, Self::CharDevice(0))
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) attributes: Attributes,
    pub(super) kind: Kind,
}

/// Why a path can't be reached.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreachable {
    /// The first `components` of the path name something that isn't a folder.
    NotADirectory { components: usize },
    /// There would be more nodes than allowed.
    Full,
}

#[derive(Debug)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    /// For each data block of each file its size on disk (0: all zeros).
    pub(super) blocks: Vec<u32>,
    /// The distinct sets of xattrs; the first is the empty one.
    pub(super) xattrs: Vec<Xattrs>,
    sets: BTreeMap<Xattrs, usize>,
    capacity: u64,
    /// The folder that the last path led to: files of one folder mostly follow one another.
    last: Option<(Vec<u8>, NodeId)>,
}

impl Tree {
    /// A tree that holds nothing but an implied root, and takes at most `capacity` nodes beside it.
    pub(super) fn new(capacity: u64) -> Self {
        let root = Directory { implied: true, ..Directory::default() };
        Self {
            nodes: vec![Node { attributes: Attributes::IMPLIED, kind: Kind::Directory(root) }],
            blocks: Vec::new(),
            xattrs: vec![Vec::new()],
            sets: BTreeMap::from([(Vec::new(), 0)]),
            capacity,
            last: None,
        }
    }

    /// The number of a set of xattrs; equal sets share one.
    pub(super) fn xattr_set(&mut self, xattrs: Xattrs) -> usize {
        if let Some(set) = self.sets.get(&xattrs) {
            return *set;
        }
        let set = self.xattrs.len();
        self.xattrs.push(xattrs.clone());
        self.sets.insert(xattrs, set);
        set
    }

    pub(super) fn directory(&self, node: NodeId) -> Option<&Directory> {
        match self.nodes.get(node).map(|node| &node.kind) {
            Some(Kind::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn directory_mut(&mut self, node: NodeId) -> Option<&mut Directory> {
        match self.nodes.get_mut(node).map(|node| &mut node.kind) {
            Some(Kind::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.directory(parent)?.children.get(name).copied()
    }

    pub(super) fn add(&mut self, node: Node) -> Result<NodeId, Unreachable> {
        // The root isn't counted.
        if self.nodes.len() as u64 > self.capacity {
            return Err(Unreachable::Full);
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// The folder that `path` names, made where it is missing. The path is components joined by `/`.
    pub(super) fn make_directory(&mut self, path: &[u8]) -> Result<NodeId, Unreachable> {
        if let Some((last, node)) = &self.last
            && last == path
        {
            return Ok(*node);
        }
        let mut at = ROOT;
        for (index, name) in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).enumerate() {
            let found = self.child(at, name);
            let whiteout = found.is_some_and(|child| self.nodes[child].kind.is_whiteout());
            at = match found {
                Some(child) if self.directory(child).is_some() => child,
                Some(_) if !whiteout => {
                    return Err(Unreachable::NotADirectory { components: index + 1 });
                }
                _ => {
                    let directory = Directory { implied: true, ..Directory::default() };
                    let kind = Kind::Directory(directory);
                    let node = self.add(Node { attributes: Attributes::IMPLIED, kind })?;
                    self.link(at, name, node);
                    node
                }
            };
        }
        self.last = Some((path.to_vec(), at));
        Ok(at)
    }

    /// What `path` names, without following anything.
    pub(super) fn find(&self, path: &[u8]) -> Option<NodeId> {
        path.split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
            .try_fold(ROOT, |at, name| self.child(at, name))
    }

    /// Gives a node a name, as unpacking would: it replaces what has the name, but a folder keeps what it holds.
    pub(super) fn link(&mut self, parent: NodeId, name: &[u8], node: NodeId) {
        let previous = self.child(parent, name);
        if previous == Some(node) {
            return;
        }
        if let Some(previous) = previous {
            self.last = None;
            let was_whiteout = self.nodes[previous].kind.is_whiteout();
            if let (Some(_), Some(_)) = (self.directory(previous), self.directory(node)) {
                let attributes = self.nodes[node].attributes;
                self.nodes[previous].attributes = attributes;
                if let Some(directory) = self.directory_mut(previous) {
                    directory.implied = false;
                }
                return;
            }
            if was_whiteout && let Some(directory) = self.directory_mut(node) {
                directory.opaque = true;
            }
        }
        if let Some(directory) = self.directory_mut(parent) {
            match directory.children.get_mut(name) {
                Some(child) => *child = node,
                None => {
                    directory.children.insert(name.into(), node);
                }
            }
        }
    }

    /// Says that lower layers' entry of this name is gone.
    pub(super) fn white_out(&mut self, parent: NodeId, name: &[u8]) -> Result<(), Unreachable> {
        match self.child(parent, name) {
            Some(child) => {
                if let Some(directory) = self.directory_mut(child) {
                    directory.opaque = true;
                }
            }
            None => {
                let attributes = Attributes { mode: 0, ..Attributes::IMPLIED };
                let node = self.add(Node { attributes, kind: Kind::WHITEOUT })?;
                self.link(parent, name, node);
            }
        }
        Ok(())
    }
}
