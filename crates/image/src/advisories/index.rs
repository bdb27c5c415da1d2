//! The index: one file, in which a package's advisories are found by one search and one read.
//!
//! ```text
//! magic 8 | state 32 | digest 32 | keys 8 | advisories 8 | unread 8 | table: keys × (hash 8, offset 8, length 4) | unread | lists
//! ```
//!
//! Numbers are little-endian; the table is sorted; lists and `unread` (with the ecosystems that there are) are JSON; offsets count from the lists' start. The
//! digest is of all that follows it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::gather::{Entry, Gathered};
use crate::digest::{Digest, hex};

const MAGIC: &[u8; 8] = b"VIMADV\x00\x02";
const HEADER: usize = 8 + 32 + 32 + 8 + 8 + 8;
const SLOT: usize = 8 + 8 + 4;
/// The most advisories about one package, in bytes.
const LONGEST_LIST: u32 = 256 << 20;

/// An index that is open.
#[derive(Debug)]
pub(super) struct Index {
    file: File,
    table: Vec<u8>,
    lists: u64,
    pub(super) digest: Digest,
    pub(super) advisories: u64,
    pub(super) unread: Vec<String>,
    /// What there are advisories for, with their releases.
    pub(super) ecosystems: Vec<String>,
}

pub(super) fn write(state: &Digest, gathered: Gathered) -> io::Result<Vec<u8>> {
    let mut slots = Vec::with_capacity(gathered.entries.len());
    let mut lists = Vec::new();
    for ((family, name), entries) in &gathered.entries {
        let offset = lists.len() as u64;
        serde_json::to_writer(&mut lists, entries)?;
        let length = u32::try_from(lists.len() as u64 - offset).map_err(io::Error::other)?;
        slots.push((hash(family, name), offset, length));
    }
    slots.sort_unstable();
    let affected = gathered.entries.values().flatten().map(|entry| entry.affected.ecosystem.as_str());
    let ecosystems: BTreeSet<&str> = affected.collect();
    let unread = serde_json::to_vec(&(&gathered.unread, ecosystems))?;
    let mut rest = Vec::new();
    for number in [slots.len() as u64, gathered.count, unread.len() as u64] {
        rest.extend(number.to_le_bytes());
    }
    for (hash, offset, length) in slots {
        rest.extend(hash.to_le_bytes());
        rest.extend(offset.to_le_bytes());
        rest.extend(length.to_le_bytes());
    }
    rest.extend(unread);
    rest.extend(lists);
    let mut bytes = MAGIC.to_vec();
    bytes.extend(raw(state));
    bytes.extend(raw(&Digest::of(&rest)));
    bytes.extend(rest);
    Ok(bytes)
}

impl Index {
    /// Opens an index if it is of this state and whole.
    pub(super) fn open(file: File, state: &Digest) -> io::Result<Option<Index>> {
        let length = file.metadata()?.len();
        let mut header = [0; HEADER];
        if length < HEADER as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut header, 0)?;
        if header[..8] != MAGIC[..] || header[8..40] != raw(state)[..] {
            return Ok(None);
        }
        let number = |at: usize| header[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        let (keys, advisories, unread) = (number(72), number(80), number(88));
        let table = keys.checked_mul(SLOT as u64).filter(|table| *table <= length);
        let lists = table.and_then(|table| (HEADER as u64).checked_add(table)?.checked_add(unread));
        let (Some(table), Some(lists)) = (table, lists.filter(|lists| *lists <= length)) else {
            return Ok(None);
        };
        let (Ok(table), Ok(unread)) = (usize::try_from(table), usize::try_from(unread)) else {
            return Ok(None);
        };
        let mut rest = vec![0; table + unread];
        file.read_exact_at(&mut rest, HEADER as u64)?;
        let Ok((unread, ecosystems)) = serde_json::from_slice(&rest[table..]) else { return Ok(None) };
        rest.truncate(table);
        let digest = format!("sha256:{}", hex(&header[40..72])).parse().map_err(io::Error::other)?;
        Ok(Some(Index { file, table: rest, lists, digest, advisories, unread, ecosystems }))
    }

    /// Reads what is known of a package.
    pub(super) fn find(&self, family: &str, name: &str) -> io::Result<Vec<Entry>> {
        let slots = self.table.as_chunks::<SLOT>().0;
        let part = |slot: &[u8; SLOT], at: usize| slot[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        let wanted = hash(family, name);
        let first = slots.partition_point(|slot| part(slot, 0) < wanted);
        let mut found = Vec::new();
        for slot in slots[first..].iter().take_while(|slot| part(slot, 0) == wanted) {
            let length = slot[16..].try_into().map_or(0, u32::from_le_bytes);
            if length > LONGEST_LIST {
                return Err(io::Error::other("the index is damaged"));
            }
            let mut list = vec![0; length as usize];
            let at = self.lists.checked_add(part(slot, 8)).ok_or(io::ErrorKind::InvalidData)?;
            self.file.read_exact_at(&mut list, at)?;
            let entries: Vec<Entry> = serde_json::from_slice(&list)?;
            found.extend(entries);
        }
        // Two names may share a hash.
        found.retain(|entry| super::gather::normal_name(&entry.affected) == (family, name.to_owned()));
        Ok(found)
    }
}

fn hash(family: &str, name: &str) -> u64 {
    let digest = raw(&Digest::of(format!("{family}\0{name}").as_bytes()));
    digest.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn raw(digest: &Digest) -> [u8; 32] {
    crate::digest::unhex(digest.hex()).unwrap_or_default()
}
