//! Writes a squashfs's tables after its data: inodes, folders, fragments, the export table, owners and xattrs.

mod metadata;
mod number;
mod xattrs;

use std::collections::BTreeMap;

use super::format::{
    BLOCK, BLOCK_DEVICE, CHAR_DEVICE, DIRECTORY, EXTENDED, FIFO, FILE, IMPLIED, METADATA, NO_TABLE, NONE,
    OPAQUE, RUN, SOCKET, SYMLINK, Superblock,
};
use super::sink::Sink;
use super::tree::{Data, Directory, Kind, NodeId, ROOT, Tree};
use super::{Layer, WriteError};
use metadata::{Metadata, Place, write_table};
use number::{Numbering, number};
pub(super) use xattrs::NAMESPACES;
use xattrs::XattrTable;

/// The tables under construction.
struct Tables<'t> {
    tree: &'t Tree,
    numbering: Numbering,
    inodes: Metadata,
    listings: Metadata,
    /// Where each node's inode was written.
    places: Vec<Option<Place>>,
    ids: BTreeMap<u32, u16>,
    id_table: Vec<u8>,
    xattrs: XattrTable,
}

/// Writes all that follows the data, and completes the image.
pub(super) fn write(
    mut sink: Sink<'_>,
    tree: &Tree,
    fragments: &[(u64, u32)],
    unpacked: u64,
) -> Result<Layer, WriteError> {
    let numbering = number(tree)?;
    let mut tables = Tables {
        tree,
        places: vec![None; tree.nodes.len()],
        inodes: Metadata::new(),
        listings: Metadata::new(),
        ids: BTreeMap::new(),
        id_table: Vec::new(),
        xattrs: XattrTable::new(),
        numbering,
    };
    // From the leaves to the root, since a listing says where the inodes are.
    for at in (0..tables.numbering.directories.len()).rev() {
        tables.write_directory(tables.numbering.directories[at])?;
    }
    let Tables { numbering, inodes, listings, places, id_table, xattrs, .. } = tables;

    let mut export = vec![0; numbering.count as usize * 8];
    for (inode, place) in numbering.inodes.iter().zip(&places) {
        let slot = (*inode as usize).checked_sub(1).and_then(|at| export.get_mut(at * 8..at * 8 + 8));
        if let (Some(slot), Some(place)) = (slot, place) {
            slot.copy_from_slice(&place.reference().to_le_bytes());
        }
    }
    let mut superblock = Superblock {
        inodes: numbering.count,
        fragments: u32::try_from(fragments.len()).map_err(|_| WriteError::Tables)?,
        ids: u16::try_from(id_table.len() / 4).map_err(|_| WriteError::Owners)?,
        root: places[ROOT].unwrap_or_default().reference(),
        fragment_table: NO_TABLE,
        xattr_table: NO_TABLE,
        inode_table: sink.position(),
        ..Superblock::default()
    };
    sink.write(&inodes.finish())?;
    superblock.directory_table = sink.position();
    sink.write(&listings.finish())?;
    if !fragments.is_empty() {
        let mut bytes = Vec::with_capacity(fragments.len() * 16);
        for (start, size) in fragments {
            bytes.extend_from_slice(&start.to_le_bytes());
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
        }
        superblock.fragment_table = write_table(&mut sink, &bytes, &[])?;
    }
    superblock.export_table = write_table(&mut sink, &export, &[])?;
    superblock.id_table = write_table(&mut sink, &id_table, &[])?;
    if xattrs.count > 0 {
        let mut header = sink.position().to_le_bytes().to_vec();
        header.extend_from_slice(&xattrs.count.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        sink.write(&xattrs.pairs.finish())?;
        superblock.xattr_table = write_table(&mut sink, &xattrs.sets, &header)?;
    }
    superblock.bytes_used = sink.position();
    let needs_lower = numbering.directories.iter().any(|node| match &tree.nodes[*node].kind {
        // The root's own attributes are the writable layer's.
        Kind::Directory(directory) if *node == ROOT => directory.opaque,
        Kind::Directory(directory) => directory.implied,
        _ => false,
    });
    Ok(Layer { needs_lower, ..sink.finish(&superblock, numbering.names, unpacked)? })
}

impl Tables<'_> {
    fn id(&mut self, id: u32) -> Result<u16, WriteError> {
        if let Some(index) = self.ids.get(&id) {
            return Ok(*index);
        }
        // The superblock counts them in 16 bits.
        let index = u16::try_from(self.ids.len()).ok().filter(|index| *index < u16::MAX);
        let index = index.ok_or(WriteError::Owners)?;
        self.id_table.extend_from_slice(&id.to_le_bytes());
        self.ids.insert(id, index);
        Ok(index)
    }

    /// Writes the inodes of what a folder holds, but for other folders, whose turn was before, then its listing, then
    /// its own inode.
    fn write_directory(&mut self, node: NodeId) -> Result<(), WriteError> {
        let tree = self.tree;
        let Some(directory) = tree.directory(node) else {
            return Ok(());
        };
        for child in directory.children.values() {
            if self.places[*child].is_none() && tree.directory(*child).is_none() {
                self.write_inode(*child)?;
            }
        }
        let start = self.listings.place()?;
        let (size, index) = self.write_listing(directory)?;
        let xattrs = self.directory_xattrs(node, directory)?;
        let links = self.numbering.links[node];
        let parent = match node {
            // Beyond all others, as the kernel's documentation and mksquashfs have it.
            ROOT => self.numbering.count.checked_add(1).ok_or(WriteError::Tables)?,
            _ => self.numbering.inodes[self.numbering.parents[node]],
        };
        // The size on disk counts "." and ".." with three bytes.
        let size = size.checked_add(3).ok_or(WriteError::Tables)?;
        let basic = u16::try_from(size).ok().filter(|_| xattrs == NONE && index.is_empty());
        let mut inode;
        if let Some(size) = basic {
            inode = self.header(node, DIRECTORY)?;
            inode.extend_from_slice(&start.block.to_le_bytes());
            inode.extend_from_slice(&links.to_le_bytes());
            inode.extend_from_slice(&size.to_le_bytes());
            inode.extend_from_slice(&start.offset.to_le_bytes());
            inode.extend_from_slice(&parent.to_le_bytes());
        } else {
            inode = self.header(node, DIRECTORY + EXTENDED)?;
            let indices = index.len().min(usize::from(u16::MAX));
            for word in [links, size, start.block, parent] {
                inode.extend_from_slice(&word.to_le_bytes());
            }
            inode.extend_from_slice(&(indices as u16).to_le_bytes());
            inode.extend_from_slice(&start.offset.to_le_bytes());
            inode.extend_from_slice(&xattrs.to_le_bytes());
            for entry in &index[..indices] {
                for word in [entry.offset, entry.block, (entry.name.len() as u32).saturating_sub(1)] {
                    inode.extend_from_slice(&word.to_le_bytes());
                }
                inode.extend_from_slice(entry.name);
            }
        }
        self.place_inode(node, &inode)
    }

    fn place_inode(&mut self, node: NodeId, inode: &[u8]) -> Result<(), WriteError> {
        self.places[node] = Some(self.inodes.place()?);
        self.inodes.write(inode);
        Ok(())
    }

    /// Writes a listing; gives its bytes, and where in it a search may begin.
    ///
    /// A header is followed by up to 256 entries whose inodes lie in one metadata block, with numbers not too far from
    /// the header's. A new metadata block of the listing gets a header of its own, for the index to point at.
    fn write_listing<'d>(&mut self, directory: &'d Directory) -> Result<(u32, Vec<Index<'d>>), WriteError> {
        let mut listed = Vec::with_capacity(directory.children.len());
        for (name, child) in &directory.children {
            let place = self.places[*child].ok_or(WriteError::Tables)?;
            listed.push((
                &**name,
                place,
                self.numbering.inodes[*child],
                basic_type(&self.tree.nodes[*child].kind),
            ));
        }
        let mut index = Vec::new();
        let mut size = 0_u32;
        let mut rest = listed.as_slice();
        let mut bytes = Vec::new();
        let mut indexed = u32::MAX;
        while let Some((first, place, inode, _)) = rest.first() {
            let here = self.listings.place()?;
            if indexed != u32::MAX && indexed != here.block {
                index.push(Index { offset: size, block: here.block, name: first });
            }
            indexed = here.block;

            bytes.clear();
            let mut filled = usize::from(here.offset) + 12;
            let mut count = 0;
            for (name, other, number, kind) in rest.iter().take(RUN) {
                let delta = i64::from(*number) - i64::from(*inode);
                let Ok(delta) = i16::try_from(delta) else { break };
                if other.block != place.block || (count > 0 && filled >= METADATA) {
                    break;
                }
                bytes.extend_from_slice(&other.offset.to_le_bytes());
                bytes.extend_from_slice(&delta.to_le_bytes());
                bytes.extend_from_slice(&kind.to_le_bytes());
                bytes.extend_from_slice(&((name.len() - 1) as u16).to_le_bytes());
                bytes.extend_from_slice(name);
                filled += 8 + name.len();
                count += 1;
            }
            for word in [count as u32 - 1, place.block, *inode] {
                self.listings.write(&word.to_le_bytes());
            }
            self.listings.write(&bytes);
            size = size.checked_add(bytes.len() as u32 + 12).ok_or(WriteError::Tables)?;
            rest = &rest[count..];
        }
        Ok((size, index))
    }

    /// What every inode begins with.
    fn header(&mut self, node: NodeId, kind: u16) -> Result<Vec<u8>, WriteError> {
        let attributes = self.tree.nodes[node].attributes;
        let (uid, gid) = (self.id(attributes.uid)?, self.id(attributes.gid)?);
        let mut bytes = Vec::with_capacity(64);
        for half in [kind, attributes.mode, uid, gid] {
            bytes.extend_from_slice(&half.to_le_bytes());
        }
        bytes.extend_from_slice(&attributes.mtime.to_le_bytes());
        bytes.extend_from_slice(&self.numbering.inodes[node].to_le_bytes());
        Ok(bytes)
    }

    fn write_inode(&mut self, node: NodeId) -> Result<(), WriteError> {
        let tree = self.tree;
        let Some(known) = tree.nodes.get(node) else {
            return Ok(());
        };
        let set = tree.xattrs.get(known.attributes.xattrs).ok_or(WriteError::Tables)?;
        let xattrs = self.xattrs.set(set)?;
        let links = self.numbering.links[node];
        let basic = basic_type(&known.kind);
        let extended = if xattrs == NONE { 0 } else { EXTENDED };
        let inode = match &known.kind {
            Kind::Directory(_) => return Ok(()),
            Kind::File(data) => self.file(node, data, links, xattrs)?,
            Kind::Symlink(target) => {
                let mut inode = self.header(node, basic + extended)?;
                let len = u32::try_from(target.len()).map_err(|_| WriteError::Tables)?;
                inode.extend_from_slice(&links.to_le_bytes());
                inode.extend_from_slice(&len.to_le_bytes());
                inode.extend_from_slice(target);
                inode
            }
            Kind::CharDevice(device) | Kind::BlockDevice(device) => {
                let mut inode = self.header(node, basic + extended)?;
                inode.extend_from_slice(&links.to_le_bytes());
                inode.extend_from_slice(&device.to_le_bytes());
                inode
            }
            Kind::Fifo | Kind::Socket => {
                let mut inode = self.header(node, basic + extended)?;
                inode.extend_from_slice(&links.to_le_bytes());
                inode
            }
        };
        let mut inode = inode;
        if extended != 0 && basic != FILE {
            inode.extend_from_slice(&xattrs.to_le_bytes());
        }
        self.place_inode(node, &inode)
    }

    fn file(&mut self, node: NodeId, data: &Data, links: u32, xattrs: u32) -> Result<Vec<u8>, WriteError> {
        let blocks = self.tree.blocks.get(data.first..).and_then(|blocks| blocks.get(..data.count));
        let blocks = blocks.ok_or(WriteError::Tables)?;
        let holes = blocks.iter().filter(|size| **size == 0).count() as u64;
        let fits = u32::try_from(data.start).ok().zip(u32::try_from(data.size).ok());
        let mut inode;
        match fits.filter(|_| links == 1 && xattrs == NONE && holes == 0) {
            Some((start, size)) => {
                inode = self.header(node, FILE)?;
                for word in [start, data.fragment, data.fragment_offset, size] {
                    inode.extend_from_slice(&word.to_le_bytes());
                }
            }
            None => {
                inode = self.header(node, FILE + EXTENDED)?;
                for long in [data.start, data.size, holes * BLOCK as u64] {
                    inode.extend_from_slice(&long.to_le_bytes());
                }
                for word in [links, data.fragment, data.fragment_offset, xattrs] {
                    inode.extend_from_slice(&word.to_le_bytes());
                }
            }
        }
        for size in blocks {
            inode.extend_from_slice(&size.to_le_bytes());
        }
        Ok(inode)
    }

    fn directory_xattrs(&mut self, node: NodeId, directory: &Directory) -> Result<u32, WriteError> {
        let set = self.tree.nodes[node].attributes.xattrs;
        let mut set = self.tree.xattrs.get(set).ok_or(WriteError::Tables)?.clone();
        if directory.opaque {
            set.push((OPAQUE.to_vec(), b"y".to_vec()));
        }
        if directory.implied {
            set.push((IMPLIED.to_vec(), b"y".to_vec()));
        }
        self.xattrs.set(&set)
    }
}

/// An entry of a big folder's index.
struct Index<'d> {
    /// Bytes into the listing.
    offset: u32,
    block: u32,
    name: &'d [u8],
}

fn basic_type(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory(_) => DIRECTORY,
        Kind::File(_) => FILE,
        Kind::Symlink(_) => SYMLINK,
        Kind::BlockDevice(_) => BLOCK_DEVICE,
        Kind::CharDevice(_) => CHAR_DEVICE,
        Kind::Fifo => FIFO,
        Kind::Socket => SOCKET,
    }
}
