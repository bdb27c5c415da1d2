//! The dm-verity hash tree: format 1, SHA-256, 4096-byte data blocks and hash blocks.
//!
//! ```text
//!                    root = H(salt || top hash block)            known to who verifies
//!                                   |
//! level n-1   [ d d d d . . . 0 0 0 ]                            one 4096-byte hash block
//!               |       \
//! level 0     [ d d ... d ] [ d d ... d ] [ d 0 ... 0 ]          128 digests to a hash block, padded with zeros
//!               |
//! data        [ 4096 bytes ] [ 4096 bytes ] ...
//! ```
//!
//! Every digest is `SHA-256(salt || block)`. On disk the levels follow one another from the top one down to level 0. A
//! single data block has no level at all: its own digest is the root. Source: the Linux kernel's
//! `Documentation/admin-guide/device-mapper/verity.rst`; `veritysetup format` writes the same bytes.
//!
//! The root says nothing about how many data blocks there are, so who verifies has to know both, from the same trusted
//! source: with another count, a hash block could pass for a data block.

use sha2::{Digest as _, Sha256};

/// Bytes in a data block and in a hash block.
pub const BLOCK: usize = 4096;

/// A SHA-256 digest.
pub type Digest = [u8; 32];

const DIGEST: usize = 32;
const FANOUT: u64 = (BLOCK / DIGEST) as u64;

/// The tree under construction: takes the data in order and keeps 32 bytes for each 4096.
#[derive(Clone)]
pub struct Tree {
    salted: Sha256,
    leaves: Vec<u8>,
    partial: Vec<u8>,
}

impl Tree {
    /// Starts a tree over no data. The salt may be empty; dm-verity allows at most 256 bytes of it.
    #[must_use]
    pub fn new(salt: &[u8]) -> Self {
        Self { salted: salted(salt), leaves: Vec::new(), partial: Vec::new() }
    }

    /// Appends one whole block. Where [`Tree::update`] has left a part of a block, the bytes continue that part.
    pub fn push_block(&mut self, block: &[u8; BLOCK]) {
        if self.partial.is_empty() {
            self.leaves.extend_from_slice(&digest(&self.salted, block));
        } else {
            self.update(block);
        }
    }

    /// Appends bytes of any length.
    pub fn update(&mut self, mut bytes: &[u8]) {
        if !self.partial.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(BLOCK - self.partial.len()));
            self.partial.extend_from_slice(head);
            bytes = rest;
            if self.partial.len() == BLOCK {
                self.leaves.extend_from_slice(&digest(&self.salted, &self.partial));
                self.partial.clear();
            }
        }
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for block in blocks {
            self.leaves.extend_from_slice(&digest(&self.salted, block));
        }
        self.partial.extend_from_slice(rest);
    }

    /// Replaces a block that was pushed before, as a writer needs that knows its first block only at the end.
    ///
    /// # Errors
    /// [`NoSuchBlock`] when fewer blocks than that have been completed.
    pub fn replace_block(&mut self, index: u64, block: &[u8; BLOCK]) -> Result<(), NoSuchBlock> {
        let missing = NoSuchBlock { index, blocks: (self.leaves.len() / DIGEST) as u64 };
        let slot = usize::try_from(index)
            .ok()
            .and_then(|index| index.checked_mul(DIGEST))
            .and_then(|start| self.leaves.get_mut(start..)?.get_mut(..DIGEST))
            .ok_or(missing)?;
        slot.copy_from_slice(&digest(&self.salted, block));
        Ok(())
    }

    /// Completes the tree. A last block that is only begun is padded with zeros.
    ///
    /// # Errors
    /// [`NoData`] when nothing was pushed: there is no tree over nothing.
    pub fn finish(mut self) -> Result<Verity, NoData> {
        if !self.partial.is_empty() {
            self.partial.resize(BLOCK, 0);
            self.leaves.extend_from_slice(&digest(&self.salted, &self.partial));
        }
        let data_blocks = (self.leaves.len() / DIGEST) as u64;
        let mut level = self.leaves;
        let mut levels = Vec::new();
        while level.len() > DIGEST {
            level.resize(level.len().next_multiple_of(BLOCK), 0);
            let mut above = Vec::with_capacity(level.len() / BLOCK * DIGEST);
            for block in level.as_chunks::<BLOCK>().0 {
                above.extend_from_slice(&digest(&self.salted, block));
            }
            levels.push(level);
            level = above;
        }
        levels.reverse();
        let root = Digest::try_from(level.as_slice()).map_err(|_| NoData)?;
        Ok(Verity { root, data_blocks, levels })
    }
}

/// A finished hash tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verity {
    /// The digest that stands for all the data.
    pub root: Digest,
    /// How many 4096-byte blocks of data it covers; at least 1.
    pub data_blocks: u64,
    levels: Vec<Vec<u8>>,
}

impl Verity {
    /// The hash blocks as they lie on disk, level by level from the top; each piece is a multiple of 4096 bytes. Empty
    /// for a single data block.
    pub fn tree(&self) -> impl Iterator<Item = &[u8]> {
        self.levels.iter().map(Vec::as_slice)
    }

    /// How many bytes [`Verity::tree`] gives in all.
    #[must_use]
    pub fn tree_bytes(&self) -> u64 {
        self.tree().map(|level| level.len() as u64).sum()
    }

    /// Makes the proof for one data block: the hash blocks on the way from it to the root, 4096 bytes for each level.
    ///
    /// # Errors
    /// [`NoSuchBlock`] when the index isn't below [`Verity::data_blocks`].
    pub fn prove(&self, index: u64) -> Result<Proof, NoSuchBlock> {
        let missing = NoSuchBlock { index, blocks: self.data_blocks };
        if index >= self.data_blocks {
            return Err(missing);
        }
        let mut path = Vec::with_capacity(self.levels.len());
        let mut position = index;
        for level in self.levels.iter().rev() {
            position /= FANOUT;
            let hash_block = usize::try_from(position)
                .ok()
                .and_then(|position| level.as_chunks::<BLOCK>().0.get(position))
                .ok_or_else(|| missing.clone())?;
            path.push(*hash_block);
        }
        Ok(Proof { index, path })
    }
}

/// The way from one data block to the root: what [`check`] needs beside the block itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Which block, counted from 0.
    pub index: u64,
    /// The hash blocks, from level 0 up.
    pub path: Vec<[u8; BLOCK]>,
}

/// Checks that `block` is the block number `proof.index` of the data that `root` stands for. `salt`, `root` and
/// `data_blocks` come from who is trusted; `block` and `proof` may come from anybody.
///
/// # Errors
/// [`Refuted`], which says at which step the claim fell.
pub fn check(
    root: &Digest,
    data_blocks: u64,
    salt: &[u8],
    block: &[u8; BLOCK],
    proof: &Proof,
) -> Result<(), Refuted> {
    if proof.index >= data_blocks {
        return Err(Refuted::Index { index: proof.index, blocks: data_blocks });
    }
    let wanted = depth(data_blocks);
    if proof.path.len() != wanted {
        return Err(Refuted::Depth { given: proof.path.len(), wanted });
    }
    let salted = salted(salt);
    let mut expected = digest(&salted, block);
    let mut position = proof.index;
    for (level, hash_block) in proof.path.iter().enumerate() {
        // Below 128, so it fits.
        let slot = (position % FANOUT) as usize;
        if hash_block.as_chunks::<DIGEST>().0.get(slot) != Some(&expected) {
            return Err(Refuted::Level { level });
        }
        expected = digest(&salted, hash_block);
        position /= FANOUT;
    }
    if expected == *root { Ok(()) } else { Err(Refuted::Root) }
}

/// The number of hash levels over that many data blocks.
fn depth(data_blocks: u64) -> usize {
    let mut levels = 0;
    let mut blocks = data_blocks;
    while blocks > 1 {
        blocks = blocks.div_ceil(FANOUT);
        levels += 1;
    }
    levels
}

fn salted(salt: &[u8]) -> Sha256 {
    Sha256::new_with_prefix(salt)
}

fn digest(salted: &Sha256, block: &[u8]) -> Digest {
    salted.clone().chain_update(block).finalize().into()
}

/// There is nothing to make a tree of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash tree needs at least one byte of data")]
pub struct NoData;

/// A block was named that isn't there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no block {index}: the data has {blocks} blocks, counted from 0")]
pub struct NoSuchBlock {
    /// The block that was named.
    pub index: u64,
    /// How many there are.
    pub blocks: u64,
}

/// Why a block isn't what the claim says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refuted {
    /// The proof names a block beyond the data.
    #[error("the proof is for block {index}, but the data has {blocks} blocks")]
    Index {
        /// The block that the proof names.
        index: u64,
        /// How many there are.
        blocks: u64,
    },
    /// The proof is of a tree of another height.
    #[error("the proof has {given} hash levels where data of this size has {wanted}")]
    Depth {
        /// Levels in the proof.
        given: usize,
        /// Levels that the number of data blocks asks for.
        wanted: usize,
    },
    /// A hash block doesn't hold the digest of what lies below it.
    #[error("the hash block at level {level} doesn't hold the digest of the block below it")]
    Level {
        /// The level, counted from the data up.
        level: usize,
    },
    /// The path holds together, but leads to another root.
    #[error("the proof leads to another root")]
    Root,
}
