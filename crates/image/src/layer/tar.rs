//! Reads a tar stream entry by entry: ustar, GNU and PAX, and the form from before them.
//!
//! It believes nothing: lengths of extended headers are bounded, numbers are checked, and a stream that ends early is
//! an error. Sources: POSIX.1-2024 `pax`, the GNU tar manual's "Tar Internals". Where these leave a choice, it is the
//! one that Go's `archive/tar` makes, since that is what most images are written and read by.

use std::io::{BufRead, BufReader, Read};

use super::ConvertError;
use super::tree::Xattrs;

const RECORD: usize = 512;
/// The longest extended header that is read: some xattrs of 64 KiB fit in.
const EXTENDED: u64 = 1 << 20;
const BUFFER: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry, after PAX and GNU extensions have been applied.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: Type,
    pub(super) link: Vec<u8>,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u32,
    /// Bytes of data that follow; 0 for what has none.
    pub(super) size: u64,
    pub(super) major: u64,
    pub(super) minor: u64,
    pub(super) xattrs: Xattrs,
}

/// What extended headers override.
#[derive(Clone, Debug, Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<u32>,
    xattrs: Xattrs,
    sparse: bool,
}

pub(super) struct Tar<R> {
    input: BufReader<R>,
    /// Bytes of the stream taken so far.
    at: u64,
    /// The most bytes that the stream may have.
    limit: u64,
    /// Data of the current entry that nobody has read yet, and the padding behind it.
    data: u64,
    padding: u64,
    global: Overrides,
}

impl<R: Read> Tar<R> {
    pub(super) fn new(input: R, limit: u64) -> Self {
        let input = BufReader::with_capacity(BUFFER, input);
        Self { input, at: 0, limit, data: 0, padding: 0, global: Overrides::default() }
    }

    /// The next entry, or `None` at the end of the archive. Data of the entry before that wasn't read is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ConvertError> {
        let mut local = self.global.clone();
        loop {
            self.skip()?;
            let at = self.at;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let bad = |what| ConvertError::Header { at, what };
            let field = |from: usize, len: usize| &header[from..from + len];
            let number = |from, len, what| number(field(from, len)).ok_or_else(|| bad(what));
            check_sum(&header).map_err(bad)?;
            let size = number(124, 12, "its size isn't a number")?;
            let flag = header[156];
            match flag {
                b'x' | b'X' => {
                    let records = self.extended(size)?;
                    apply(&records, &mut local).map_err(bad)?;
                    continue;
                }
                b'g' => {
                    let records = self.extended(size)?;
                    apply(&records, &mut self.global).map_err(bad)?;
                    apply(&records, &mut local).map_err(bad)?;
                    continue;
                }
                b'L' => {
                    local.path = Some(terminated(&self.extended(size)?).to_vec());
                    continue;
                }
                b'K' => {
                    local.link = Some(terminated(&self.extended(size)?).to_vec());
                    continue;
                }
                // A volume's label: there's nothing to unpack.
                b'V' => {
                    self.follow(size)?;
                    continue;
                }
                _ => {}
            }

            let short = terminated(field(0, 100));
            // GNU's own format keeps other things where POSIX has the prefix.
            let prefix = if field(257, 6) == b"ustar\0" { terminated(field(345, 155)) } else { &[] };
            let path = local.path.take().unwrap_or_else(|| match prefix {
                [] => short.to_vec(),
                _ => [prefix, b"/", short].concat(),
            });
            let kind = match flag {
                b'0' | b'\0' | b'7' if path.ends_with(b"/") => Type::Directory,
                b'0' | b'\0' | b'7' => Type::File,
                b'1' => Type::HardLink,
                b'2' => Type::Symlink,
                b'3' => Type::CharDevice,
                b'4' => Type::BlockDevice,
                b'5' => Type::Directory,
                b'6' => Type::Fifo,
                other => return Err(ConvertError::unsupported(&path, other)),
            };
            if local.sparse {
                return Err(ConvertError::unsupported(&path, b'S'));
            }
            // As with Go's reader, what has no data has none, whatever the size says.
            let size = if kind == Type::File { local.size.unwrap_or(size) } else { 0 };
            self.follow(size)?;
            let owner = |over: Option<u64>, from, what| {
                let id = over.map_or_else(|| number(from, 8, what), Ok)?;
                u32::try_from(id).map_err(|_| bad(what))
            };
            let uid = owner(local.uid, 108, "its uid isn't a number of 32 bits")?;
            let gid = owner(local.gid, 116, "its gid isn't a number of 32 bits")?;
            let mtime = match local.mtime {
                Some(mtime) => mtime,
                // A time before 1970 or after 2106 is as near as the file system can say.
                None if header[136] >= 0xc0 => 0,
                None => u32::try_from(number(136, 12, "its time isn't a number")?).unwrap_or(u32::MAX),
            };
            let device = matches!(kind, Type::CharDevice | Type::BlockDevice);
            let part = |from, what| if device { number(from, 8, what) } else { Ok(0) };
            let mut xattrs = local.xattrs;
            xattrs.sort();
            return Ok(Some(Entry {
                kind,
                link: local.link.take().unwrap_or_else(|| terminated(field(157, 100)).to_vec()),
                mode: (number(100, 8, "its mode isn't a number")? & 0o7777) as u16,
                uid,
                gid,
                mtime,
                size,
                major: part(329, "its major device number isn't a number")?,
                minor: part(337, "its minor device number isn't a number")?,
                xattrs,
                path,
            }));
        }
    }

    /// Reads the next bytes of the current entry's data. The caller asks for no more than there are.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<(), ConvertError> {
        self.data = self.data.saturating_sub(into.len() as u64);
        self.exactly(into)
    }

    /// Reads to the end of the stream, whatever is in it.
    pub(super) fn drain(&mut self) -> Result<(), ConvertError> {
        loop {
            let available = match self.input.fill_buf() {
                Ok(bytes) => bytes.len(),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(ConvertError::Read { at: self.at, source }),
            };
            if available == 0 {
                return Ok(());
            }
            self.input.consume(available);
            self.advance(available as u64)?;
        }
    }

    fn advance(&mut self, count: u64) -> Result<(), ConvertError> {
        self.at = self.at.saturating_add(count);
        if self.at > self.limit {
            return Err(ConvertError::TooLarge { limit: self.limit });
        }
        Ok(())
    }

    fn exactly(&mut self, into: &mut [u8]) -> Result<(), ConvertError> {
        self.input.read_exact(into).map_err(|source| self.failed(source))?;
        self.advance(into.len() as u64)
    }

    fn failed(&self, source: std::io::Error) -> ConvertError {
        match source.kind() {
            std::io::ErrorKind::UnexpectedEof => ConvertError::Truncated { at: self.at },
            _ => ConvertError::Read { at: self.at, source },
        }
    }

    /// Notes that so much data follows.
    fn follow(&mut self, size: u64) -> Result<(), ConvertError> {
        let record = RECORD as u64;
        let end =
            size.checked_next_multiple_of(record).ok_or(ConvertError::TooLarge { limit: self.limit })?;
        (self.data, self.padding) = (size, end - size);
        Ok(())
    }

    fn skip(&mut self) -> Result<(), ConvertError> {
        let mut left = self.data.saturating_add(self.padding);
        let padding = self.padding;
        (self.data, self.padding) = (0, 0);
        while left > 0 {
            let available = match self.input.fill_buf() {
                Ok(bytes) => bytes.len() as u64,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(ConvertError::Read { at: self.at, source }),
            };
            if available == 0 {
                // Some writers leave the last entry's padding and the end mark off; readers elsewhere accept it.
                let complete = left <= padding;
                return if complete { Ok(()) } else { Err(ConvertError::Truncated { at: self.at }) };
            }
            let step = available.min(left);
            self.input.consume(step as usize);
            self.advance(step)?;
            left -= step;
        }
        Ok(())
    }

    /// The next header record; `None` at the end: two records of zeros, or where the stream ends between entries.
    fn header(&mut self) -> Result<Option<[u8; RECORD]>, ConvertError> {
        let mut header = [0; RECORD];
        for attempt in 0..2 {
            let at_end = loop {
                match self.input.fill_buf() {
                    Ok(bytes) => break bytes.is_empty(),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(source) => return Err(ConvertError::Read { at: self.at, source }),
                }
            };
            if at_end {
                return Ok(None);
            }
            self.exactly(&mut header)?;
            if header.iter().any(|byte| *byte != 0) {
                return match attempt {
                    0 => Ok(Some(header)),
                    _ => Err(ConvertError::Header {
                        at: self.at - RECORD as u64,
                        what: "it follows a single record of zeros",
                    }),
                };
            }
        }
        Ok(None)
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>, ConvertError> {
        if size > EXTENDED {
            return Err(ConvertError::Header {
                at: self.at,
                what: "its extended header is longer than 1 MiB",
            });
        }
        self.follow(size)?;
        let mut bytes = vec![0; size as usize];
        self.read(&mut bytes)?;
        Ok(bytes)
    }
}

fn terminated(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn check_sum(header: &[u8; RECORD]) -> Result<(), &'static str> {
    let bytes =
        || header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    let unsigned: i64 = bytes().map(i64::from).sum();
    // Old programs summed signed characters.
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    let noted = number(&header[148..156]).and_then(|sum| i64::try_from(sum).ok());
    if noted == Some(unsigned) || noted == Some(signed) { Ok(()) } else { Err("its checksum is wrong") }
}

/// A numeric field: octal digits, or GNU's base 256 when the first bit is set. Negative numbers aren't any here.
fn number(field: &[u8]) -> Option<u64> {
    match field {
        [first @ 0x80..=0xbf, rest @ ..] => {
            let mut value = u64::from(first & 0x3f);
            for byte in rest {
                if value >> 56 != 0 {
                    return None;
                }
                value = value << 8 | u64::from(*byte);
            }
            Some(value)
        }
        [0xc0..=0xff, ..] => None,
        _ => {
            let digits = terminated(field).trim_ascii();
            if digits.is_empty() {
                return Some(0);
            }
            let text = std::str::from_utf8(digits).ok()?;
            let plain = digits.iter().all(u8::is_ascii_digit);
            plain.then(|| u64::from_str_radix(text, 8).ok()).flatten()
        }
    }
}

/// Applies PAX records: "LENGTH KEY=VALUE\n", the length counting the whole record.
fn apply(mut records: &[u8], to: &mut Overrides) -> Result<(), &'static str> {
    const MALFORMED: &str = "its PAX header is malformed";
    // Some writers pad with zeros.
    while records.iter().any(|byte| *byte != 0) {
        let space = records.iter().take(20).position(|byte| *byte == b' ').ok_or(MALFORMED)?;
        let length = decimal(&records[..space]).and_then(|length| usize::try_from(length).ok());
        let (record, rest) = records.split_at_checked(length.ok_or(MALFORMED)?).ok_or(MALFORMED)?;
        records = rest;
        let record =
            record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n")).ok_or(MALFORMED)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(MALFORMED)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        set(key, value, to)?;
    }
    Ok(())
}

fn set(key: &[u8], value: &[u8], to: &mut Overrides) -> Result<(), &'static str> {
    // An empty value takes an earlier header's word back.
    let given = |value: &[u8]| (!value.is_empty()).then(|| value.to_vec());
    let count = |value: &[u8], what| {
        if value.is_empty() { Ok(None) } else { decimal(value).map(Some).ok_or(what) }
    };
    match key {
        b"path" => {
            if value.contains(&0) {
                return Err("its path has a zero byte in it");
            }
            to.path = given(value);
        }
        b"linkpath" => {
            if value.contains(&0) {
                return Err("its link target has a zero byte in it");
            }
            to.link = given(value);
        }
        b"size" => to.size = count(value, "its PAX size isn't a number")?,
        b"uid" => to.uid = count(value, "its PAX uid isn't a number")?,
        b"gid" => to.gid = count(value, "its PAX gid isn't a number")?,
        b"mtime" => {
            to.mtime = match value {
                [] => None,
                [b'-', ..] => Some(0),
                _ => {
                    let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
                    let seconds = decimal(whole).ok_or("its PAX time isn't a number")?;
                    Some(u32::try_from(seconds).unwrap_or(u32::MAX))
                }
            };
        }
        _ => {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                to.xattrs.retain(|(other, _)| other != name);
                to.xattrs.push((name.to_vec(), value.to_vec()));
            } else if key.starts_with(b"GNU.sparse.") {
                to.sparse = true;
            }
        }
    }
    Ok(())
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}
