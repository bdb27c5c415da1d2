//! Several layers become one, as overlayfs would show them, without compressing anything again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::format::{BLOCK, DATA_RAW, IMPLIED, OPAQUE};
use super::reader::{self, Extents, ReadError, Reader};
use super::sink::Sink;
use super::tree::{Attributes, Data, Directory, Kind, Node, NodeId, ROOT, Tree};
use super::{Layer, WriteError, write};

/// Why layers were not merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A layer's image can't be read.
    #[error("layer {layer} (counted from 0 at the bottom) can't be merged")]
    Layer {
        /// Which one.
        layer: usize,
        /// What is wrong with it.
        source: ReadError,
    },
    /// The merged image can't be written.
    #[error("the merged layer can't be written")]
    Write(#[from] WriteError),
    /// There is nothing to merge.
    #[error("at least one layer is needed to merge")]
    Nothing,
}

/// A file's content: where it is in which layer.
struct Source {
    layer: usize,
    node: NodeId,
    extents: Extents,
}

pub(super) fn merge(layers: &[File], out: &mut File, bottom: bool) -> Result<Layer, MergeError> {
    if layers.is_empty() {
        return Err(MergeError::Nothing);
    }
    let mut merged = Merged { tree: Tree::new(u64::MAX), sources: Vec::new(), bottom };
    let mut readers = Vec::with_capacity(layers.len());
    for (layer, file) in layers.iter().enumerate() {
        let failed = |source| MergeError::Layer { layer, source };
        let reader = Reader::open(file).map_err(failed)?;
        merged.add_layer(layer, &reader).map_err(failed)?;
        readers.push(reader);
    }
    let named = named(&merged.tree);
    let Merged { mut tree, sources, .. } = merged;
    let mut copy = Copy {
        sink: Sink::new(out).map_err(WriteError::Io)?,
        readers: &readers,
        fragments: Vec::new(),
        places: BTreeMap::new(),
        buffer: Vec::new(),
    };
    let mut unpacked = 0_u64;
    for Source { layer, node, extents } in sources {
        if !named[node] {
            continue;
        }
        unpacked = unpacked.saturating_add(extents.size);
        let data = copy.file(layer, &extents, &mut tree)?;
        tree.nodes[node].kind = Kind::File(data);
    }
    Ok(write::write(copy.sink, &tree, &copy.fragments, unpacked)?)
}

/// Which nodes still have a name.
fn named(tree: &Tree) -> Vec<bool> {
    let mut named = vec![false; tree.nodes.len()];
    let mut pending = vec![ROOT];
    while let Some(node) = pending.pop() {
        named[node] = true;
        let children = tree.directory(node).map(|directory| directory.children.values());
        pending.extend(children.into_iter().flatten().filter(|child| !named[**child]));
    }
    named
}

struct Merged {
    tree: Tree,
    sources: Vec<Source>,
    /// Nothing lies below the merged layer, so that whiteouts have nothing left to hide.
    bottom: bool,
}

impl Merged {
    fn add_layer(&mut self, layer: usize, reader: &Reader<'_>) -> Result<(), ReadError> {
        // By the layer's inode numbers, for hard links.
        let mut nodes: BTreeMap<u32, NodeId> = BTreeMap::new();
        for entry in reader.entries() {
            let entry = entry?;
            let opaque = entry.is_opaque();
            let implied = entry.is_implied();
            let set =
                entry.xattrs.into_iter().filter(|(name, _)| name != OPAQUE && name != IMPLIED).collect();
            let attributes = Attributes {
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                mtime: entry.mtime,
                xattrs: self.tree.xattr_set(set),
            };
            let kind = match entry.kind {
                reader::Kind::Directory => {
                    self.directory(&entry.path, attributes, opaque, implied)?;
                    continue;
                }
                reader::Kind::File(extents) => {
                    if let Some(node) = nodes.get(&entry.inode) {
                        self.put(&entry.path, *node)?;
                    } else {
                        let node = self.add(&entry.path, attributes, Kind::File(Data::EMPTY))?;
                        nodes.insert(entry.inode, node);
                        self.sources.push(Source { layer, node, extents });
                    }
                    continue;
                }
                reader::Kind::Symlink(target) => Kind::Symlink(target.into()),
                reader::Kind::CharDevice { major: 0, minor: 0 } if self.bottom => {
                    self.remove(&entry.path)?;
                    continue;
                }
                reader::Kind::CharDevice { major, minor } => Kind::CharDevice(numbers(major, minor)?),
                reader::Kind::BlockDevice { major, minor } => Kind::BlockDevice(numbers(major, minor)?),
                reader::Kind::Fifo => Kind::Fifo,
                reader::Kind::Socket => Kind::Socket,
            };
            match nodes.get(&entry.inode) {
                Some(node) => self.put(&entry.path, *node)?,
                None => {
                    let node = self.add(&entry.path, attributes, kind)?;
                    nodes.insert(entry.inode, node);
                }
            }
        }
        Ok(())
    }

    /// The folder that holds the path, which is there since a layer's folders come before what they hold.
    fn parent<'p>(&mut self, path: &'p [u8]) -> Result<(&mut Directory, &'p [u8]), ReadError> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path),
        };
        let node = self.tree.find(parent);
        let directory = node.and_then(|node| self.tree.directory_mut(node));
        let missing = ReadError::Damaged { what: "something lies below what isn't a folder" };
        Ok((directory.ok_or(missing)?, name))
    }

    fn put(&mut self, path: &[u8], node: NodeId) -> Result<(), ReadError> {
        let (parent, name) = self.parent(path)?;
        parent.children.insert(name.into(), node);
        Ok(())
    }

    fn remove(&mut self, path: &[u8]) -> Result<(), ReadError> {
        let (parent, name) = self.parent(path)?;
        parent.children.remove(name);
        Ok(())
    }

    fn new_node(&mut self, attributes: Attributes, kind: Kind) -> NodeId {
        self.tree.nodes.push(Node { attributes, kind });
        self.tree.nodes.len() - 1
    }

    fn add(&mut self, path: &[u8], attributes: Attributes, kind: Kind) -> Result<NodeId, ReadError> {
        let node = self.new_node(attributes, kind);
        self.put(path, node)?;
        Ok(node)
    }

    /// A folder joins the folder of the same name below it, unless it is opaque; it hides anything else, for good: what
    /// was hidden by a file or a whiteout in a lower layer doesn't come back.
    fn directory(
        &mut self,
        path: &[u8],
        attributes: Attributes,
        opaque: bool,
        implied: bool,
    ) -> Result<(), ReadError> {
        let existing = self.tree.find(path);
        let keeps = !self.bottom;
        if let Some(node) = existing
            && let Some(directory) = self.tree.directory_mut(node)
        {
            if opaque {
                directory.children.clear();
                directory.opaque = keeps;
            }
            if opaque || !implied {
                directory.implied = implied;
                self.tree.nodes[node].attributes = attributes;
            }
            return Ok(());
        }
        let directory =
            Directory { opaque: keeps && (opaque || existing.is_some()), implied, ..Directory::default() };
        self.add(path, attributes, Kind::Directory(directory))?;
        Ok(())
    }
}

fn numbers(major: u32, minor: u32) -> Result<u32, ReadError> {
    let device = super::format::device(u64::from(major), u64::from(minor));
    device.ok_or(ReadError::Damaged { what: "a device's numbers are too great" })
}

/// Copies compressed blocks as they are.
struct Copy<'r, 'f> {
    sink: Sink<'f>,
    readers: &'r [Reader<'r>],
    fragments: Vec<(u64, u32)>,
    /// Where a layer's fragment went.
    places: BTreeMap<(usize, u32), u32>,
    buffer: Vec<u8>,
}

impl Copy<'_, '_> {
    fn file(&mut self, layer: usize, extents: &Extents, tree: &mut Tree) -> Result<Data, MergeError> {
        let mut data = Data {
            size: extents.size,
            start: self.sink.position(),
            first: tree.blocks.len(),
            count: extents.blocks.len(),
            ..Data::EMPTY
        };
        let mut at = extents.start;
        for size in &extents.blocks {
            let length = size & !DATA_RAW;
            self.range(layer, at, length)?;
            at += u64::from(length);
        }
        tree.blocks.extend_from_slice(&extents.blocks);
        if let Some((fragment, offset)) = extents.fragment {
            data.fragment = match self.places.get(&(layer, fragment)) {
                Some(place) => *place,
                None => {
                    let failed = |source| MergeError::Layer { layer, source };
                    let (start, size) = self.readers[layer].fragment(fragment).map_err(failed)?;
                    let place = u32::try_from(self.fragments.len()).map_err(|_| WriteError::Tables)?;
                    self.fragments.push((self.sink.position(), size));
                    self.range(layer, start, size & !DATA_RAW)?;
                    self.places.insert((layer, fragment), place);
                    place
                }
            };
            data.fragment_offset = offset;
        }
        Ok(data)
    }

    fn range(&mut self, layer: usize, at: u64, length: u32) -> Result<(), MergeError> {
        debug_assert!(length as usize <= BLOCK);
        self.buffer.resize(length as usize, 0);
        let read: io::Result<()> = self.readers[layer].file().read_exact_at(&mut self.buffer, at);
        read.map_err(|source| MergeError::Layer { layer, source: ReadError::Io { at, source } })?;
        Ok(self.sink.write(&self.buffer).map_err(WriteError::Io)?)
    }
}
