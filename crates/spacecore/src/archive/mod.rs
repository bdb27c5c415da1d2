//! Files and folders as a tar stream: what is copied out of a spacecore or into it.
//!
//! ```text
//!  pack    walks by descriptors, never through a link   ->  write  ->  stream
//!  stream  ->  read  bounds, types, names               ->  unpack  below one folder, temporary names, renames
//! ```
//!
//! Both ends do both, and neither believes the other: who packs may have a folder swapped for a link while it walks, and who
//! unpacks may be sent any bytes. Nothing is held in memory but one entry's head and a piece of its data. What travels is
//! names, content, permissions (the lowest nine bits of the mode), times of modification, symbolic and hard links: no owners, no
//! set-user-ID, no devices, no extended attributes.

pub mod error;
mod header;
mod names;
pub mod pack;
pub mod pass;
pub mod place;
pub mod read;
pub mod unpack;
pub mod write;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;

pub use error::ArchiveError;

/// The longest path in bytes, as Linux has it.
pub const MAX_PATH: usize = 4095;
/// The longest name in bytes, as Linux has it.
pub const MAX_NAME: usize = 255;
/// The most folders in each other: each takes a descriptor of who walks them.
pub const MAX_DEPTH: usize = 200;

/// The permissions that travel.
pub const PERMISSIONS: u32 = 0o777;

/// A moment since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A plain file, so many bytes of which follow.
    File {
        /// Bytes.
        size: u64,
    },
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink {
        /// Where it leads, as it is written in it.
        target: Vec<u8>,
    },
    /// Another name of a file that came before.
    HardLink {
        /// The other's path in the archive.
        target: Vec<u8>,
    },
}

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path; `.` or empty for the root of an archive of a folder's contents.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions: [`PERMISSIONS`] at most.
    pub mode: u32,
    /// When it was modified.
    pub modified: Time,
}

/// What is taken from a stream at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries.
    pub entries: u64,
    /// Bytes of all files together.
    pub bytes: u64,
}

impl Limits {
    /// Four million entries, and no more bytes than these.
    pub fn of_bytes(bytes: u64) -> Self {
        Self { entries: 4 << 20, bytes }
    }
}
