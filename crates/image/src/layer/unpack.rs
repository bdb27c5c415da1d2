//! From tar entries to a tree and packed data.

use std::fs::File;
use std::io::Read;

use super::format::{BLOCK, NONE, device};
use super::pack::{Buffer, Packed, Packer, Stopped, pack};
use super::sink::Sink;
use super::tar::{Entry, Tar, Type};
use super::tree::{Attributes, Data, Directory, Kind, Node, NodeId, ROOT, Tree, Unreachable, Xattrs};
use super::{ConvertError, Layer, Limits, WriteError, shown, write};

/// Names, link targets and xattrs are what is held in memory.
const METADATA_LIMIT: u64 = 512 << 20;
const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 4095;
const LONGEST_XATTR: usize = 64 << 10;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
/// Other names of this kind are aufs's own bookkeeping.
const MARKS: &[u8] = b".wh..wh.";

/// Marks a block of zeros among the numbers of jobs.
const ZEROS: u32 = u32::MAX;

pub(super) fn convert(tar: impl Read, out: &mut File, limits: &Limits) -> Result<Layer, ConvertError> {
    let sink = Sink::new(out).map_err(WriteError::Io)?;
    let data_start = sink.position();
    let (produced, packed) = pack(sink, |packer| {
        let mut unpack = Unpack {
            tar: Tar::new(tar, limits.unpacked_bytes),
            tree: Tree::new(limits.entries),
            fragments: Vec::new(),
            fragment: packer.buffer(),
            packer,
            limits,
            entries: 0,
            unpacked: 0,
            metadata: 0,
        };
        unpack.run()?;
        Ok((unpack.tree, unpack.fragments, unpack.unpacked))
    })
    .map_err(WriteError::Io)?;
    let (mut tree, fragments, unpacked) = match produced {
        Ok(produced) => produced,
        Err(Failure::Layer(error)) => return Err(*error),
        // The writer gave no reason, so what stopped was the count of blocks.
        Err(Failure::Stopped) => return Err(WriteError::Tables.into()),
    };
    let Packed { sink, sizes } = packed;
    let starts = starts(data_start, &sizes);
    settle(&mut tree, &starts, &sizes);
    let fragments: Vec<_> =
        fragments.iter().map(|job| (starts[*job as usize], sizes[*job as usize])).collect();
    Ok(write::write(sink, &tree, &fragments, unpacked)?)
}

/// Where each job's block begins on disk.
fn starts(data_start: u64, sizes: &[u32]) -> Vec<u64> {
    let lengths = sizes.iter().map(|size| u64::from(size & !super::format::DATA_RAW));
    lengths
        .scan(data_start, |at, length| {
            let start = *at;
            *at += length;
            Some(start)
        })
        .collect()
}

/// Replaces the numbers of jobs by what the jobs gave.
fn settle(tree: &mut Tree, starts: &[u64], sizes: &[u32]) {
    for node in &mut tree.nodes {
        let Kind::File(data) = &mut node.kind else {
            continue;
        };
        let jobs = &tree.blocks[data.first..data.first + data.count];
        let first = jobs.iter().find(|job| **job != ZEROS);
        data.start = first.map_or(0, |job| starts[*job as usize]);
    }
    for block in &mut tree.blocks {
        *block = if *block == ZEROS { 0 } else { sizes[*block as usize] };
    }
}

enum Failure {
    Layer(Box<ConvertError>),
    Stopped,
}

impl From<ConvertError> for Failure {
    fn from(error: ConvertError) -> Self {
        Self::Layer(Box::new(error))
    }
}

impl From<Stopped> for Failure {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

struct Unpack<'u, 'p, R> {
    tar: Tar<R>,
    tree: Tree,
    packer: &'u mut Packer<'p>,
    /// The fragment being filled with the tails of files.
    fragment: Buffer,
    /// The jobs of the fragments handed over.
    fragments: Vec<u32>,
    limits: &'u Limits,
    /// Entries read, also those that give a node another name, and make none.
    entries: u64,
    unpacked: u64,
    metadata: u64,
}

impl<R: Read> Unpack<'_, '_, R> {
    fn run(&mut self) -> Result<(), Failure> {
        while let Some(entry) = self.tar.next()? {
            self.entry(entry)?;
        }
        self.tar.drain()?;
        if self.fragment.len() > 0 {
            self.flush_fragment()?;
        }
        Ok(())
    }

    fn entry(&mut self, mut entry: Entry) -> Result<(), Failure> {
        self.entries += 1;
        let limit = self.limits.entries;
        if self.entries > limit.saturating_add(1) {
            // One more than nodes, for the root.
            return Err(ConvertError::TooManyEntries { limit }.into());
        }
        let path = normalise(&entry.path).map_err(|wrong| match wrong {
            Wrong::Parent => ConvertError::ParentComponent { path: shown(&entry.path) },
            Wrong::Long => ConvertError::TooLong { path: shown(&entry.path) },
        })?;
        self.count_metadata(&entry, &path)?;
        if path.is_empty() {
            return Ok(self.root(&mut entry)?);
        }
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path.as_slice()),
        };
        if parent.split(|byte| *byte == b'/').any(|name| name.starts_with(MARKS)) {
            return Ok(());
        }
        if parent.split(|byte| *byte == b'/').any(|name| name.starts_with(WHITEOUT)) {
            return Err(ConvertError::Whiteout { path: shown(&path) }.into());
        }
        let directory = self.tree.make_directory(parent).map_err(|why| self.unreachable(&path, &why))?;
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return Ok(self.whiteout(directory, name, hidden, &path)?);
        }
        let node = match entry.kind {
            Type::HardLink => self.hard_link(&entry, &path)?,
            _ => {
                let attributes = self.attributes(&mut entry, &path)?;
                let kind = self.kind(&entry, &path)?;
                self.add(Node { attributes, kind }, &path)?
            }
        };
        self.tree.link(directory, name, node);
        Ok(())
    }

    fn unreachable(&self, path: &[u8], why: &Unreachable) -> ConvertError {
        match why {
            Unreachable::Full => ConvertError::TooManyEntries { limit: self.limits.entries },
            Unreachable::NotADirectory { components } => {
                let at: Vec<_> = path.split(|byte| *byte == b'/').take(*components).collect();
                ConvertError::BelowNonDirectory { path: shown(path), at: shown(&at.join(&b'/')) }
            }
        }
    }

    fn add(&mut self, node: Node, path: &[u8]) -> Result<NodeId, ConvertError> {
        self.tree.add(node).map_err(|why| self.unreachable(path, &why))
    }

    fn count_metadata(&mut self, entry: &Entry, path: &[u8]) -> Result<(), ConvertError> {
        let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.metadata += (path.len() + entry.link.len() + xattrs) as u64;
        if self.metadata > METADATA_LIMIT {
            return Err(ConvertError::TooMuchMetadata { limit: METADATA_LIMIT });
        }
        Ok(())
    }

    fn root(&mut self, entry: &mut Entry) -> Result<(), ConvertError> {
        if entry.kind != Type::Directory {
            return Err(ConvertError::Root);
        }
        let attributes = self.attributes(entry, b".")?;
        self.tree.nodes[ROOT].attributes = attributes;
        if let Some(root) = self.tree.directory_mut(ROOT) {
            root.implied = false;
        }
        Ok(())
    }

    fn whiteout(
        &mut self,
        parent: NodeId,
        name: &[u8],
        hidden: &[u8],
        path: &[u8],
    ) -> Result<(), ConvertError> {
        if name == OPAQUE_MARK {
            if let Some(directory) = self.tree.directory_mut(parent) {
                directory.opaque = true;
            }
            return Ok(());
        }
        if name.starts_with(MARKS) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(ConvertError::Whiteout { path: shown(path) });
        }
        self.tree.white_out(parent, hidden).map_err(|why| self.unreachable(path, &why))
    }

    fn hard_link(&mut self, entry: &Entry, path: &[u8]) -> Result<NodeId, ConvertError> {
        let (path, shown_target) = (shown(path), shown(&entry.link));
        let target = match normalise(&entry.link) {
            Ok(target) => target,
            Err(Wrong::Parent) => {
                return Err(ConvertError::LinkEscapes { path, target: shown_target });
            }
            Err(Wrong::Long) => return Err(ConvertError::TooLong { path: shown_target }),
        };
        match self.tree.find(&target) {
            Some(node) if self.tree.directory(node).is_some() => {
                Err(ConvertError::LinkDirectory { path, target: shown_target })
            }
            Some(node) if !self.tree.nodes[node].kind.is_whiteout() => Ok(node),
            _ => Err(ConvertError::LinkMissing { path, target: shown_target }),
        }
    }

    fn attributes(&mut self, entry: &mut Entry, path: &[u8]) -> Result<Attributes, ConvertError> {
        let mut xattrs = std::mem::take(&mut entry.xattrs);
        xattrs.retain(|(name, _)| is_kept(name));
        check_xattrs(&xattrs, path)?;
        Ok(Attributes {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: self.tree.xattr_set(xattrs),
        })
    }

    fn kind(&mut self, entry: &Entry, path: &[u8]) -> Result<Kind, Failure> {
        let numbers = || {
            device(entry.major, entry.minor).ok_or_else(|| ConvertError::Device {
                path: shown(path),
                major: entry.major,
                minor: entry.minor,
            })
        };
        Ok(match entry.kind {
            Type::Directory => Kind::Directory(Directory::default()),
            Type::Fifo => Kind::Fifo,
            Type::CharDevice => Kind::CharDevice(numbers()?),
            Type::BlockDevice => Kind::BlockDevice(numbers()?),
            Type::Symlink => {
                let length = entry.link.len();
                if !(1..=LONGEST_PATH).contains(&length) {
                    return Err(ConvertError::SymlinkTarget { path: shown(path), length }.into());
                }
                Kind::Symlink(entry.link.as_slice().into())
            }
            Type::File | Type::HardLink => Kind::File(self.file(entry.size)?),
        })
    }

    /// Reads a file's data and hands it over: whole blocks of their own, the tail into the current fragment.
    fn file(&mut self, size: u64) -> Result<Data, Failure> {
        let limit = self.limits.unpacked_bytes;
        self.unpacked = self.unpacked.saturating_add(size);
        if self.unpacked > limit {
            return Err(ConvertError::TooLarge { limit }.into());
        }
        if size == 0 {
            return Ok(Data::EMPTY);
        }
        let first = self.tree.blocks.len();
        let blocks = size / BLOCK as u64;
        for _ in 0..blocks {
            let mut buffer = self.packer.buffer();
            self.tar.read(buffer.grow(BLOCK))?;
            let job = if buffer.is_zero() {
                self.packer.give_back(buffer);
                ZEROS
            } else {
                self.packer.submit(buffer)?
            };
            self.tree.blocks.push(job);
        }
        let tail = (size % BLOCK as u64) as usize;
        let mut data = Data { size, first, count: blocks as usize, ..Data::EMPTY };
        if tail > 0 {
            // Only here, between two files, for a file's own blocks must follow one another.
            if self.fragment.len() + tail > BLOCK {
                self.flush_fragment()?;
            }
            data.fragment = self.fragments.len() as u32;
            data.fragment_offset = self.fragment.len() as u32;
            self.tar.read(self.fragment.grow(tail))?;
        }
        debug_assert!(data.fragment == NONE || (data.fragment_offset as usize) < BLOCK);
        Ok(data)
    }

    fn flush_fragment(&mut self) -> Result<(), Stopped> {
        let full = std::mem::replace(&mut self.fragment, self.packer.buffer());
        self.fragments.push(self.packer.submit(full)?);
        Ok(())
    }
}

/// Whether an image may bring this xattr: squashfs has a place for it, and it isn't one that overlayfs believes.
fn is_kept(name: &[u8]) -> bool {
    let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    user || name.starts_with(b"security.")
}

fn check_xattrs(xattrs: &Xattrs, path: &[u8]) -> Result<(), ConvertError> {
    for (name, value) in xattrs {
        if name.len() > LONGEST_NAME || value.len() > LONGEST_XATTR || name.contains(&0) {
            return Err(ConvertError::Xattr { path: shown(path), name: name.len(), value: value.len() });
        }
    }
    Ok(())
}

enum Wrong {
    Parent,
    Long,
}

/// A path without leading, doubled and trailing slashes and without `.`; empty for the root.
fn normalise(path: &[u8]) -> Result<Vec<u8>, Wrong> {
    let mut clean = Vec::with_capacity(path.len().min(LONGEST_PATH));
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => continue,
            b".." => return Err(Wrong::Parent),
            _ => {}
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(name);
        if name.len() > LONGEST_NAME || clean.len() > LONGEST_PATH {
            return Err(Wrong::Long);
        }
    }
    Ok(clean)
}
