//! The sets of xattrs.

use std::collections::BTreeMap;

use super::super::WriteError;
use super::super::format::NONE;
use super::super::tree::Xattrs;
use super::metadata::Metadata;

/// The sets of xattrs; inodes with equal sets share one.
pub(super) struct XattrTable {
    pub(super) pairs: Metadata,
    /// 16 bytes for each set: place, number of pairs, bytes.
    pub(super) sets: Vec<u8>,
    known: BTreeMap<Xattrs, u32>,
    pub(super) count: u32,
}

/// The name spaces that squashfs can say, with their numbers.
pub(in crate::layer) const NAMESPACES: [(&[u8], u16); 3] =
    [(b"user.", 0), (b"trusted.", 1), (b"security.", 2)];

impl XattrTable {
    pub(super) fn new() -> Self {
        Self { pairs: Metadata::new(), sets: Vec::new(), known: BTreeMap::new(), count: 0 }
    }

    pub(super) fn set(&mut self, xattrs: &Xattrs) -> Result<u32, WriteError> {
        if xattrs.is_empty() {
            return Ok(NONE);
        }
        if let Some(set) = self.known.get(xattrs) {
            return Ok(*set);
        }
        let place = self.pairs.place()?;
        let (mut pairs, mut bytes) = (0_u32, 0_usize);
        for (name, value) in xattrs {
            let space =
                NAMESPACES.iter().find_map(|(prefix, space)| Some((name.strip_prefix(*prefix)?, *space)));
            let Some((name, space)) = space else { continue };
            let name_length = u16::try_from(name.len()).map_err(|_| WriteError::Tables)?;
            let value_length = u32::try_from(value.len()).map_err(|_| WriteError::Tables)?;
            self.pairs.write(&space.to_le_bytes());
            self.pairs.write(&name_length.to_le_bytes());
            self.pairs.write(name);
            self.pairs.write(&value_length.to_le_bytes());
            self.pairs.write(value);
            pairs += 1;
            bytes += 8 + name.len() + value.len();
        }
        self.sets.extend_from_slice(&place.reference().to_le_bytes());
        self.sets.extend_from_slice(&pairs.to_le_bytes());
        self.sets.extend_from_slice(&u32::try_from(bytes).map_err(|_| WriteError::Tables)?.to_le_bytes());
        let set = self.count;
        self.count = set.checked_add(1).ok_or(WriteError::Tables)?;
        self.known.insert(xattrs.clone(), set);
        Ok(set)
    }
}
