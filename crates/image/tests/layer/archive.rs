//! Tar streams byte by byte, and what became of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;

use image::layer::reader::{Entry, Kind, Reader};
use image::layer::{ConvertError, Layer, Limits, convert};

/// A tar stream under construction.
#[derive(Clone, Default)]
pub(crate) struct Archive {
    pub(crate) bytes: Vec<u8>,
}

/// One header; the rest of an entry's fields keep their defaults.
#[derive(Clone)]
pub(crate) struct Header<'h> {
    pub(crate) name: &'h [u8],
    pub(crate) flag: u8,
    pub(crate) link: &'h [u8],
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) size: u64,
    pub(crate) device: (u64, u64),
    pub(crate) magic: &'h [u8; 8],
}

impl<'h> Header<'h> {
    pub(crate) fn new(flag: u8, name: &'h [u8]) -> Self {
        let magic = b"ustar\x0000";
        Self { name, flag, link: b"", mode: 0o644, uid: 0, gid: 0, mtime: 1, size: 0, device: (0, 0), magic }
    }

    pub(crate) fn encode(&self) -> [u8; 512] {
        let mut header = [0; 512];
        header[..self.name.len()].copy_from_slice(self.name);
        header[157..157 + self.link.len()].copy_from_slice(self.link);
        let mut octal = |at: usize, width: usize, value: u64| {
            let text = format!("{value:0width$o}", width = width - 1);
            header[at..at + width - 1].copy_from_slice(text.as_bytes());
        };
        octal(100, 8, self.mode.into());
        octal(108, 8, self.uid);
        octal(116, 8, self.gid);
        octal(124, 12, self.size);
        octal(136, 12, self.mtime);
        octal(329, 8, self.device.0);
        octal(337, 8, self.device.1);
        header[156] = self.flag;
        header[257..265].copy_from_slice(self.magic);
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    }
}

impl Archive {
    pub(crate) fn raw(mut self, header: Header<'_>, data: &[u8]) -> Self {
        let size = if data.is_empty() { header.size } else { data.len() as u64 };
        self.bytes.extend_from_slice(&Header { size, ..header }.encode());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.raw(Header { mode: 0o755, ..Header::new(b'5', name.as_bytes()) }, b"")
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.raw(Header::new(b'0', name.as_bytes()), data)
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(Header { link: target.as_bytes(), ..Header::new(b'2', name.as_bytes()) }, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.raw(Header { link: target.as_bytes(), ..Header::new(b'1', name.as_bytes()) }, b"")
    }

    /// Extended headers for the next entry (`x`) or for all that follow (`g`).
    pub(crate) fn pax(self, flag: u8, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.raw(Header::new(flag, b"PaxHeaders/x"), &data)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    /// Converts it, which must succeed.
    pub(crate) fn converted(self) -> Image {
        Image::of(&self.end())
    }

    pub(crate) fn refused(self) -> ConvertError {
        try_convert(&self.end(), &Limits::default()).unwrap_err()
    }
}

pub(crate) fn try_convert(tar: &[u8], limits: &Limits) -> Result<(File, Layer), ConvertError> {
    let mut file = tempfile::tempfile().unwrap();
    let layer = convert(tar, &mut file, limits)?;
    Ok((file, layer))
}

/// An image, and what was said about it.
pub(crate) struct Image {
    pub(crate) file: File,
    pub(crate) layer: Layer,
}

/// An entry without its place in the image, and with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: &'static str,
    pub(crate) mode: u16,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: u32,
    pub(crate) links: u32,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    pub(crate) content: Vec<u8>,
}

impl Image {
    pub(crate) fn of(tar: &[u8]) -> Self {
        let (file, layer) = try_convert(tar, &Limits::default()).unwrap();
        Self { file, layer }
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        Reader::open(&self.file).unwrap().entries().map(|entry| entry.unwrap()).collect()
    }

    pub(crate) fn entry(&self, path: &str) -> Entry {
        let found = self.entries().into_iter().find(|entry| entry.path == path.as_bytes());
        found.unwrap_or_else(|| panic!("{path} isn't in the image"))
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.entries().iter().skip(1).map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
    }

    pub(crate) fn content(&self, path: &str) -> Vec<u8> {
        let reader = Reader::open(&self.file).unwrap();
        let entry = self.entry(path);
        let mut content = Vec::new();
        reader.content(&entry).unwrap().read_to_end(&mut content).unwrap();
        content
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        use std::os::unix::fs::FileExt as _;
        let mut bytes = vec![0; self.layer.total_bytes as usize];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(self.file.metadata().unwrap().len(), self.layer.total_bytes);
        bytes
    }

    /// Everything, by path.
    pub(crate) fn seen(&self) -> BTreeMap<Vec<u8>, Seen> {
        let reader = Reader::open(&self.file).unwrap();
        reader
            .entries()
            .map(|entry| {
                let entry = entry.unwrap();
                let mut content = Vec::new();
                let kind = match &entry.kind {
                    Kind::Directory => "directory",
                    Kind::File(_) => {
                        reader.content(&entry).unwrap().read_to_end(&mut content).unwrap();
                        "file"
                    }
                    Kind::Symlink(target) => {
                        content.clone_from(target);
                        "symlink"
                    }
                    Kind::CharDevice { major, minor } => {
                        content = format!("{major}:{minor}").into();
                        "char"
                    }
                    Kind::BlockDevice { major, minor } => {
                        content = format!("{major}:{minor}").into();
                        "block"
                    }
                    Kind::Fifo => "fifo",
                    Kind::Socket => "socket",
                };
                let xattrs = entry.xattrs.iter();
                let seen = Seen {
                    kind,
                    mode: entry.mode,
                    owner: (entry.uid, entry.gid),
                    mtime: entry.mtime,
                    links: if kind == "directory" { 0 } else { entry.links },
                    xattrs: xattrs
                        .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.clone()))
                        .collect(),
                    content,
                };
                (entry.path, seen)
            })
            .collect()
    }
}

/// Bytes that differ, without randomness; `seed` picks which.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Bytes that compress well.
pub(crate) fn prose(length: usize) -> Vec<u8> {
    (0_u32..)
        .flat_map(|line| format!("line {line} of a text that repeats itself\n").into_bytes())
        .take(length)
        .collect()
}
