//! Reads a tar stream entry by entry: ustar, GNU and PAX. It believes nothing.

use std::io::{BufReader, ErrorKind, Read};

use super::error::shown;
use super::header::{RECORD, has_right_sum, number, records, terminated, time};
use super::{ArchiveError, Entry, Kind, Limits, MAX_PATH, PERMISSIONS, Time};

/// The longest extended head that is read, in bytes: two paths and a few words.
const EXTENDED: u64 = 64 * 1024;

/// An archive that comes from a stream.
#[derive(Debug)]
pub struct Reader<R: Read> {
    input: BufReader<R>,
    limits: Limits,
    entries: u64,
    bytes: u64,
    /// Data of the entry that nobody has read yet, and the padding behind it.
    data: u64,
    padding: u64,
}

/// What extended heads override.
#[derive(Debug, Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<Time>,
}

impl<R: Read> Reader<R> {
    /// An archive that may hold so much.
    pub fn new(input: R, limits: Limits) -> Self {
        let input = BufReader::with_capacity(64 * 1024, input);
        Self { input, limits, entries: 0, bytes: 0, data: 0, padding: 0 }
    }

    /// The next entry; none at the end of the archive. Data of the one before that wasn't read is skipped.
    ///
    /// # Errors
    /// The stream is no archive, ends before the archive does, or holds what isn't copied.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut over = Overrides::default();
        loop {
            self.skip()?;
            let Some(head) = self.head()? else { return Ok(None) };
            let size = number(&head[124..136]).ok_or(ArchiveError::Header("a size isn't a number"))?;
            match head[156] {
                b'x' => {
                    let bytes = self.extended(size)?;
                    records(&bytes, |key, value| set(&mut over, key, value)).map_err(ArchiveError::Header)?;
                }
                b'L' => over.path = Some(terminated(&self.extended(size)?).to_vec()),
                b'K' => over.link = Some(terminated(&self.extended(size)?).to_vec()),
                // What it says is meant for all entries; none of it is copied.
                b'g' => _ = self.extended(size)?,
                flag => return self.entry(&head, flag, size, over).map(Some),
            }
            // Extended heads count too, so that they can't come for ever.
            self.count()?;
        }
    }

    fn entry(
        &mut self,
        head: &[u8; RECORD],
        flag: u8,
        size: u64,
        over: Overrides,
    ) -> Result<Entry, ArchiveError> {
        self.count()?;
        let short = terminated(&head[..100]);
        // GNU's own format keeps other things where POSIX has the prefix.
        let prefix = if &head[257..263] == b"ustar\0" { terminated(&head[345..500]) } else { &[] };
        let path = over.path.unwrap_or_else(|| match prefix {
            [] => short.to_vec(),
            _ => [prefix, b"/", short].concat(),
        });
        let link = over.link.unwrap_or_else(|| terminated(&head[157..257]).to_vec());
        let unsupported = |what| ArchiveError::Unsupported { path: shown(&path), what };
        let size = over.size.unwrap_or(size);
        let kind = match flag {
            b'0' | b'\0' | b'7' if path.ends_with(b"/") => Kind::Folder,
            b'0' | b'\0' | b'7' => Kind::File { size },
            b'1' => Kind::HardLink { target: link },
            b'2' if link.is_empty() || link.len() > MAX_PATH || link.contains(&0) => {
                return Err(ArchiveError::path(&path, "a link's target has 1 to 4095 bytes"));
            }
            b'2' => Kind::Symlink { target: link },
            b'3' | b'4' => return Err(unsupported("a device")),
            b'5' => Kind::Folder,
            b'6' => return Err(unsupported("a named pipe")),
            b'S' => return Err(unsupported("a sparse file in GNU tar's own form")),
            _ => return Err(unsupported("of a kind that this version doesn't know")),
        };
        if let Kind::File { size } = kind {
            self.follow(size)?;
            self.bytes = self.bytes.saturating_add(size);
            if self.bytes > self.limits.bytes {
                return Err(ArchiveError::TooMuch { what: "bytes of files", limit: self.limits.bytes });
            }
        }
        let mode = number(&head[100..108]).ok_or(ArchiveError::Header("a mode isn't a number"))?;
        let seconds = || number(&head[136..148]).and_then(|seconds| i64::try_from(seconds).ok());
        let modified =
            over.modified.unwrap_or_else(|| Time { seconds: seconds().unwrap_or(0), nanoseconds: 0 });
        let mode = u32::try_from(mode & u64::from(PERMISSIONS)).unwrap_or(0);
        Ok(Entry { path, kind, mode, modified })
    }

    /// Reads data of the entry; 0 bytes at its end.
    ///
    /// # Errors
    /// The stream fails or ends early.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let most = usize::try_from(self.data).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        loop {
            match self.input.read(&mut buffer[..most]) {
                Ok(0) => return Err(ArchiveError::Truncated),
                Ok(read) => {
                    self.data -= read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Stream(error)),
            }
        }
    }

    fn count(&mut self) -> Result<(), ArchiveError> {
        self.entries += 1;
        match self.entries > self.limits.entries {
            true => Err(ArchiveError::TooMuch { what: "entries", limit: self.limits.entries }),
            false => Ok(()),
        }
    }

    /// Notes that so much data follows.
    fn follow(&mut self, size: u64) -> Result<(), ArchiveError> {
        let end = size.checked_next_multiple_of(RECORD as u64);
        let end = end.ok_or(ArchiveError::Header("a size is beyond all files"))?;
        (self.data, self.padding) = (size, end - size);
        Ok(())
    }

    fn skip(&mut self) -> Result<(), ArchiveError> {
        self.data = self.data.saturating_add(std::mem::take(&mut self.padding));
        let mut buffer = [0; 4096];
        while self.read_data(&mut buffer)? > 0 {}
        Ok(())
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > EXTENDED {
            return Err(ArchiveError::Header("an extended head is longer than 64 KiB"));
        }
        self.follow(size)?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.read_data(&mut bytes[filled..])?;
        }
        Ok(bytes)
    }

    /// The next head; none where the archive says that it ends.
    fn head(&mut self) -> Result<Option<[u8; RECORD]>, ArchiveError> {
        let mut head = [0; RECORD];
        self.input.read_exact(&mut head).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => ArchiveError::Truncated,
            _ => ArchiveError::Stream(error),
        })?;
        if head.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        match has_right_sum(&head) {
            true => Ok(Some(head)),
            false => Err(ArchiveError::Header("a head's checksum is wrong")),
        }
    }
}

fn set(over: &mut Overrides, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
    match key {
        b"path" => over.path = Some(value.to_vec()),
        b"linkpath" => over.link = Some(value.to_vec()),
        b"size" => {
            let size = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            over.size = Some(size.ok_or("an extended size isn't a number")?);
        }
        b"mtime" => over.modified = Some(time(value).ok_or("an extended time isn't a number")?),
        _ if key.starts_with(b"GNU.sparse.") => return Err("a sparse file in GNU tar's own form"),
        _ => {}
    }
    Ok(())
}
