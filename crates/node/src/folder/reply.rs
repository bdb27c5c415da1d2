//! Replies of the FUSE protocol, put together as bytes. No I/O happens here.

use rustix::fs::{Stat, StatVfs};
use rustix::io::Errno;

/// Bytes of a reply before its body.
pub(super) const REPLY_HEADER: usize = 16;

/// How long, in seconds, the guest's kernel may believe a name, its absence, and attributes without asking again.
///
/// One second, for read-only folders too: they are read-only for the guest, and a person who edits a file on the host
/// expects to see it in the spacecore. Without any such time every `stat` costs a round trip per path component.
const BELIEVE_SECONDS: u64 = 1;

/// The body of a reply that is being written.
pub(super) struct Body<'a> {
    bytes: &'a mut Vec<u8>,
}

/// What `INIT` settles.
pub(super) struct Terms {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) readahead: u32,
    pub(super) flags: u32,
    pub(super) max_write: u32,
    pub(super) max_pages: u16,
}

impl<'a> Body<'a> {
    /// Begins a reply in `bytes`, whose former content is gone.
    pub(super) fn begin(bytes: &'a mut Vec<u8>) -> Self {
        bytes.clear();
        bytes.resize(REPLY_HEADER, 0);
        Self { bytes }
    }

    /// Writes the header over what was put so far; an error has no body.
    pub(super) fn finish(self, unique: u64, outcome: Result<(), Errno>) {
        let error = match outcome {
            Ok(()) => 0,
            Err(errno) => {
                self.bytes.truncate(REPLY_HEADER);
                errno.raw_os_error().saturating_neg()
            }
        };
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let mut header = [0; REPLY_HEADER];
        header[..4].copy_from_slice(&length.to_ne_bytes());
        header[4..8].copy_from_slice(&error.to_ne_bytes());
        header[8..].copy_from_slice(&unique.to_ne_bytes());
        self.bytes[..REPLY_HEADER].copy_from_slice(&header);
    }

    /// Bytes of the body so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(REPLY_HEADER)
    }

    pub(super) fn u32(&mut self, number: u32) {
        self.bytes.extend_from_slice(&number.to_ne_bytes());
    }

    pub(super) fn u64(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_ne_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Lets `fill` write up to `most` bytes at the end; it answers how many it wrote.
    pub(super) fn filled(
        &mut self,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
    ) -> Result<(), Errno> {
        let start = self.bytes.len();
        self.bytes.resize(start + most, 0);
        let written = fill(&mut self.bytes[start..]);
        self.bytes.truncate(start + written.unwrap_or(0).min(most));
        written.map(|_| ())
    }

    /// `fuse_attr`, of a file whose owner appears as `uid` and `gid`.
    pub(super) fn attributes(&mut self, attributes: &Attributes) {
        let stat = &attributes.stat;
        self.u64(attributes.number);
        self.u64(stat.st_size.try_into().unwrap_or(0));
        self.u64(stat.st_blocks.try_into().unwrap_or(0));
        for seconds in [stat.st_atime, stat.st_mtime, stat.st_ctime] {
            self.u64(seconds.cast_unsigned());
        }
        for nanoseconds in [stat.st_atime_nsec, stat.st_mtime_nsec, stat.st_ctime_nsec] {
            self.u32(nanoseconds.try_into().unwrap_or(0));
        }
        self.u32(stat.st_mode);
        self.u32(stat.st_nlink.try_into().unwrap_or(u32::MAX));
        self.u32(attributes.uid);
        self.u32(attributes.gid);
        // The kernel's `new_encode_dev`: 8 bits of the minor number, 12 of the major, the rest of the minor.
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        self.u32((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12));
        self.u32(stat.st_blksize.try_into().unwrap_or(4096));
        self.u32(0);
    }

    /// `fuse_attr_out`.
    pub(super) fn attributes_reply(&mut self, attributes: &Attributes) {
        self.u64(BELIEVE_SECONDS);
        self.u32(0);
        self.u32(0);
        self.attributes(attributes);
    }

    /// `fuse_entry_out`: a name leads to this node.
    pub(super) fn entry(&mut self, node: u64, attributes: &Attributes) {
        self.entry_head(node);
        self.attributes(attributes);
    }

    /// `fuse_entry_out` that says, and lets the guest believe for a while, that there is no such name; in a listing:
    /// that the entry isn't looked up.
    pub(super) fn no_entry(&mut self) {
        self.entry_head(0);
        self.bytes(&[0; 88]);
    }

    fn entry_head(&mut self, node: u64) {
        self.u64(node);
        self.u64(0); // Generation: node numbers are never given twice.
        self.u64(BELIEVE_SECONDS);
        self.u64(BELIEVE_SECONDS);
        self.u32(0);
        self.u32(0);
    }

    /// `fuse_open_out`.
    pub(super) fn opened(&mut self, handle: u64, keep_cache: bool) {
        const KEEP_CACHE: u32 = 1 << 1;
        self.u64(handle);
        self.u32(if keep_cache { KEEP_CACHE } else { 0 });
        self.u32(0);
    }

    /// `fuse_write_out`.
    pub(super) fn written(&mut self, bytes: usize) {
        self.u32(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.u32(0);
    }

    /// `fuse_dirent`; `next` is the offset that continues behind it.
    pub(super) fn directory_entry(&mut self, number: u64, next: u64, kind: u32, name: &[u8]) {
        self.u64(number);
        self.u64(next);
        self.u32(u32::try_from(name.len()).unwrap_or(0));
        self.u32(kind);
        self.bytes(name);
        let padding = directory_entry_length(name) - DIRECTORY_ENTRY - name.len();
        self.bytes(&[0; 8][..padding]);
    }

    /// `fuse_statfs_out`.
    pub(super) fn file_system(&mut self, stat: &StatVfs) {
        for number in [stat.f_blocks, stat.f_bfree, stat.f_bavail, stat.f_files, stat.f_ffree] {
            self.u64(number);
        }
        self.u32(stat.f_bsize.try_into().unwrap_or(4096));
        self.u32(u32::try_from(stat.f_namemax).unwrap_or(255).min(255));
        self.u32(stat.f_frsize.try_into().unwrap_or(4096));
        self.bytes(&[0; 28]);
    }

    /// `fuse_init_out`.
    pub(super) fn terms(&mut self, terms: &Terms) {
        /// Requests that the guest's kernel sends ahead of need; more only fills the channel.
        const BACKGROUND: u16 = 16;
        const CONGESTED: u16 = 12;
        const NANOSECOND: u32 = 1;
        self.u32(terms.major);
        self.u32(terms.minor);
        self.u32(terms.readahead);
        self.u32(terms.flags);
        self.bytes(&BACKGROUND.to_ne_bytes());
        self.bytes(&CONGESTED.to_ne_bytes());
        self.u32(terms.max_write);
        self.u32(NANOSECOND);
        self.bytes(&terms.max_pages.to_ne_bytes());
        self.bytes(&[0; 34]);
    }
}

/// What the guest is told of a file.
pub(super) struct Attributes {
    pub(super) stat: Stat,
    /// The inode number that the guest sees.
    pub(super) number: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

const DIRECTORY_ENTRY: usize = 24;

/// Bytes of `fuse_entry_out`, which goes before each entry of `READDIRPLUS`.
pub(super) const ENTRY: usize = 128;

/// Bytes of a `fuse_dirent` with its name and padding.
pub(super) fn directory_entry_length(name: &[u8]) -> usize {
    (DIRECTORY_ENTRY + name.len()).next_multiple_of(8)
}
