//! A tar file as a small read-only folder: where each file begins, and how long it is.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::SourceError;
use crate::pull::inflate::Inflate;
use crate::store::disk::Scratch;

const MAX_ENTRIES: usize = 100_000;
const MAX_LINKS: usize = 8;

pub(crate) struct Tarball {
    file: Arc<File>,
    files: HashMap<String, (u64, u64)>,
    links: HashMap<String, String>,
    _unpacked: Option<Scratch>,
}

impl Tarball {
    /// Opens the tar file at `path`. One that is compressed as a whole is unpacked into `tmp`, up to `most` bytes.
    pub(crate) fn open(path: &Path, tmp: &Path, most: u64) -> Result<Tarball, SourceError> {
        let failed = |source| SourceError::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::other("it is not a regular file")));
        }
        let mut start = Vec::new();
        (&file).take(8).read_to_end(&mut start).map_err(failed)?;
        (&file).seek(SeekFrom::Start(0)).map_err(failed)?;
        let (file, unpacked) = match Inflate::is_compressed(&start) {
            true => {
                let (file, scratch) = unpack(file, tmp, most).map_err(failed)?;
                (file, Some(scratch))
            }
            false => (file, None),
        };
        let (files, links) = index(&file).map_err(failed)?;
        Ok(Tarball { file: Arc::new(file), files, links, _unpacked: unpacked })
    }

    /// Finds a file by name, through symbolic and hard links within the tar file.
    pub(crate) fn open_entry(&self, name: &str) -> Option<(Section, u64)> {
        let mut name = normal(Path::new(name))?;
        for _ in 0..MAX_LINKS {
            if let Some(&(offset, size)) = self.files.get(&name) {
                let end = offset.checked_add(size)?;
                return Some((Section { file: Arc::clone(&self.file), offset, end }, size));
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }
}

fn unpack(file: File, tmp: &Path, most: u64) -> io::Result<(File, Scratch)> {
    let scratch = Scratch::new(tmp)?;
    let mut out = scratch.create("archive.tar")?;
    let mut plain = Inflate::new(io::BufReader::with_capacity(1 << 18, file))?;
    let mut buffer = vec![0; 1 << 18];
    let mut total = 0u64;
    loop {
        let count = plain.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        total = total.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if total > most {
            return Err(io::Error::other(format!("unpacked, it has more than {most} bytes")));
        }
        out.write_all(buffer.get(..count).unwrap_or_default())?;
    }
    out.seek(SeekFrom::Start(0))?;
    Ok((out, scratch))
}

type Index = (HashMap<String, (u64, u64)>, HashMap<String, String>);

fn index(file: &File) -> io::Result<Index> {
    let (mut files, mut links) = (HashMap::new(), HashMap::new());
    let mut archive = tar::Archive::new(io::BufReader::new(file));
    for (count, entry) in archive.entries_with_seek()?.enumerate() {
        let entry = entry?;
        if count >= MAX_ENTRIES {
            return Err(io::Error::other(format!("it has more than {MAX_ENTRIES} entries")));
        }
        let path = entry.path()?.into_owned();
        let Some(name) = normal(&path) else { continue };
        let kind = entry.header().entry_type();
        if kind.is_file() || kind.is_contiguous() {
            files.insert(name, (entry.raw_file_position(), entry.size()));
        } else if kind.is_symlink() || kind.is_hard_link() {
            let Some(target) = entry.link_name()? else {
                continue;
            };
            let target = match path.parent() {
                Some(parent) if kind.is_symlink() => parent.join(target),
                _ => PathBuf::from(target),
            };
            if let Some(target) = normal(&target) {
                links.insert(name, target);
            }
        }
    }
    Ok((files, links))
}

/// Resolves `.` and `..` by name; `None` for what leaves the tar file or isn't UTF-8, as nothing here is so named.
fn normal(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// A part of a file, read by position, so that several threads can read parts of one.
pub(crate) struct Section {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.offset)?;
        if count == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the tar file ends within an entry"));
        }
        self.offset = self.offset.saturating_add(u64::try_from(count).unwrap_or(0));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_through_links_and_never_outside() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("x.tar");
        let mut builder = tar::Builder::new(File::create(&path).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        builder.append_data(&mut header, "./a/layer.tar", &b"hello"[..]).unwrap();
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        builder.append_link(&mut link, "b/layer.tar", "../a/layer.tar").unwrap();
        builder.append_link(&mut link, "c", "../../etc/passwd").unwrap();
        builder.append_link(&mut link, "loop", "loop").unwrap();
        builder.finish().unwrap();
        let tar = Tarball::open(&path, tmp.path(), 1 << 20).unwrap();
        let (mut section, size) = tar.open_entry("b/layer.tar").unwrap();
        let mut text = String::new();
        section.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), size), ("hello", 5));
        for name in ["c", "loop", "../x", "/etc/passwd"] {
            assert!(tar.open_entry(name).is_none(), "{name}");
        }
    }
}
