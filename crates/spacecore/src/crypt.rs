//! What keeper and guest agree on of encrypted disks: the mark in clear at their beginning.

/// The bytes of the mark.
pub const MARK_BYTES: usize = 4096;

const MAGIC: &[u8; 16] = b"vimana crypt 1\n\0";

/// Whether there is a file system in an encrypted disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// None was made yet.
    New,
    /// It was made whole.
    Made,
}

impl Mark {
    /// Reads a mark; nothing where it is none.
    pub fn read(bytes: &[u8; MARK_BYTES]) -> Option<Self> {
        let (magic, rest) = bytes.split_at(MAGIC.len());
        match (magic == MAGIC, &rest[..4]) {
            (true, b"new\n") => Some(Self::New),
            (true, b"made") => Some(Self::Made),
            _ => None,
        }
    }

    /// Writes it to the beginning.
    pub fn write(self, bytes: &mut [u8; MARK_BYTES]) {
        let word = match self {
            Self::New => b"new\n",
            Self::Made => b"made",
        };
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        bytes[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(word);
    }
}

/// Overwrites a text that was secret, and empties it.
pub fn wipe(text: &mut String) {
    let mut bytes = std::mem::take(text).into_bytes();
    bytes.fill(0);
    // Nobody reads it again, which is no reason to leave the zeros out.
    std::hint::black_box(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_nothing_else_is_one() {
        let mut bytes = [0; MARK_BYTES];
        assert_eq!(Mark::read(&bytes), None);
        for mark in [Mark::New, Mark::Made] {
            mark.write(&mut bytes);
            assert_eq!(Mark::read(&bytes), Some(mark));
        }
        bytes[3] ^= 1;
        assert_eq!(Mark::read(&bytes), None);
    }
}
