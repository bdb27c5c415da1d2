//! Numbers the inodes and counts their names.

use super::super::WriteError;
use super::super::tree::{NodeId, ROOT, Tree};

/// The numbers of nodes: siblings follow one another, so that a listing's entries fit its header's 16-bit differences.
pub(super) struct Numbering {
    /// By node; 0 for what has no name any more.
    pub(super) inodes: Vec<u32>,
    pub(super) links: Vec<u32>,
    /// By node; only meaningful for folders.
    pub(super) parents: Vec<NodeId>,
    /// Folders, each after the one that holds it.
    pub(super) directories: Vec<NodeId>,
    pub(super) count: u32,
    /// How many names there are, the root aside.
    pub(super) names: u64,
}

pub(super) fn number(tree: &Tree) -> Result<Numbering, WriteError> {
    let nodes = tree.nodes.len();
    let mut inodes = vec![0; nodes];
    let mut links = vec![0_u32; nodes];
    let mut parents = vec![ROOT; nodes];
    let mut directories = vec![ROOT];
    let (mut count, mut names) = (1_u32, 0_u64);
    inodes[ROOT] = 1;
    links[ROOT] = 2;
    let mut next = 0;
    while let Some(parent) = directories.get(next).copied() {
        next += 1;
        for child in tree.directory(parent).into_iter().flat_map(|directory| directory.children.values()) {
            names += 1;
            if inodes[*child] == 0 {
                count = count.checked_add(1).ok_or(WriteError::Tables)?;
                inodes[*child] = count;
            }
            if tree.directory(*child).is_some() {
                links[*child] = 2;
                links[parent] = links[parent].saturating_add(1);
                parents[*child] = parent;
                directories.push(*child);
            } else {
                links[*child] = links[*child].saturating_add(1);
            }
        }
    }
    Ok(Numbering { inodes, links, parents, directories, count, names })
}
