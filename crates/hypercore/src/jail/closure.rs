//! The files that a program of the host needs to start: its libraries and who loads them.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// Where the loader looks libraries up; it changes when a library is installed or removed.
const LOADER_CACHE: &str = "/etc/ld.so.cache";
/// The longest list that is believed, in bytes.
const LIST_MAX: usize = 1 << 20;

/// What was found, and of what.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    program: Stamp,
    loader_cache: Option<Stamp>,
    paths: Vec<PathBuf>,
}

/// What changes when a file does.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    path: PathBuf,
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let status = fs::metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: status.dev(),
            inode: status.ino(),
            bytes: status.len(),
            changed: (status.ctime(), status.ctime_nsec()),
        })
    }
}

/// The program, its loader, and all libraries that it is linked with; nothing but the program if that is static. What was
/// found is kept in a folder for the next time, which spares 8 ms for a large program; without one it is found anew.
///
/// # Errors
/// The program isn't there, or its loader can't list its libraries.
pub fn closure(program: &Path, cache: Option<&Path>) -> io::Result<Vec<PathBuf>> {
    let stamp = Stamp::of(program)?;
    let loader_cache = Stamp::of(Path::new(LOADER_CACHE)).ok();
    let file = cache.map(|folder| folder.join(format!("{}.json", name(program))));
    let known = file.as_ref().and_then(|file| serde_json::from_slice::<Known>(&fs::read(file).ok()?).ok());
    if let Some(known) = known
        && known.program == stamp
        && known.loader_cache == loader_cache
        && known.paths.iter().all(|path| path.is_file())
    {
        return Ok(known.paths);
    }
    let paths = look(program)?;
    let known = Known { program: stamp, loader_cache, paths };
    if let (Some(folder), Some(file)) = (cache, file) {
        // What can't be kept is found again.
        let _ = keep(folder, &file, &known);
    }
    Ok(known.paths)
}

fn name(program: &Path) -> String {
    use sha2::Digest;
    crate::kernel::hex(&sha2::Sha256::digest(program.as_os_str().as_bytes()))
}

fn keep(folder: &Path, file: &Path, known: &Known) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut temporary, known)?;
    temporary.persist(file).map(drop).map_err(|error| error.error)
}

fn look(program: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = vec![program.to_owned()];
    let Some(loader) = interpreter(program)? else {
        return Ok(paths);
    };
    let listed = Command::new(&loader)
        .arg("--list")
        .arg(program)
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    if !listed.status.success() || listed.stdout.len() > LIST_MAX {
        return Err(io::Error::other(format!("{} can't list what it loads", loader.display())));
    }
    paths.push(loader);
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        // `name => path (address)`, `path (address)`, or a name without a file: the kernel's own.
        let line = line.trim();
        let place = line.split_once("=> ").map_or(line, |(_, place)| place);
        let path = place.rsplit_once(" (").map_or(place, |(path, _)| path);
        if path == "not found" {
            return Err(io::Error::other(format!("{} lacks the library {line}", program.display())));
        }
        if path.starts_with('/') {
            paths.push(path.into());
        }
    }
    if Path::new(LOADER_CACHE).is_file() {
        paths.push(LOADER_CACHE.into());
    }
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

/// The loader that an ELF program names (`PT_INTERP`); none for a static one.
fn interpreter(program: &Path) -> io::Result<Option<PathBuf>> {
    const PATH_MAX: u64 = 4096;
    const PT_INTERP: u32 = 3;
    let broken = || io::Error::other(format!("{} isn't a program for this machine", program.display()));
    let mut file = fs::File::open(program)?;
    let mut head = [0; 64];
    file.read_exact(&mut head).map_err(|_| broken())?;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Err(broken());
    }
    let word = |bytes: &[u8], at: usize| -> Option<u64> {
        Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
    };
    let half = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let (table, size, count) = (word(&head, 32), half(54), half(56));
    let (Some(table), Some(size @ 56..), Some(count)) = (table, size, count) else { return Err(broken()) };
    file.seek(SeekFrom::Start(table))?;
    for _ in 0..count {
        let mut entry = vec![0; usize::from(size)];
        file.read_exact(&mut entry).map_err(|_| broken())?;
        let kind = entry.get(..4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        if kind != Some(PT_INTERP) {
            continue;
        }
        let (Some(offset), Some(length @ 2..=PATH_MAX)) = (word(&entry, 8), word(&entry, 32)) else {
            return Err(broken());
        };
        let mut path = Vec::new();
        file.seek(SeekFrom::Start(offset))?;
        file.take(length).read_to_end(&mut path)?;
        if path.pop() != Some(0) || !path.starts_with(b"/") {
            return Err(broken());
        }
        return Ok(Some(std::ffi::OsString::from_vec(path).into()));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_s_libraries_and_its_loader_are_found_and_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let paths = closure(&own, Some(folder.path())).unwrap();
        let has = |name: &str| paths.iter().any(|path| path.to_string_lossy().contains(name));
        assert!(paths.contains(&own) && has("libc.so") && has("/ld-"), "{paths:?}");
        assert_eq!(closure(&own, Some(folder.path())).unwrap(), paths);
        // What is remembered is believed only as long as the program is the same.
        let file = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let text = fs::read_to_string(&file).unwrap();
        let mut known: Known = serde_json::from_str(&text).unwrap();
        known.paths = vec![own.clone()];
        fs::write(&file, serde_json::to_vec(&known).unwrap()).unwrap();
        assert_eq!(closure(&own, Some(folder.path())).unwrap(), std::slice::from_ref(&own));
        known.program.bytes += 1;
        fs::write(&file, serde_json::to_vec(&known).unwrap()).unwrap();
        assert_eq!(closure(&own, Some(folder.path())).unwrap(), paths);
    }

    #[test]
    fn what_is_no_program_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("text");
        for bytes in [&b""[..], b"#!/bin/sh\n", &[b"\x7fELF\x02\x01", &[0xff; 80][..]].concat()] {
            fs::write(&file, bytes).unwrap();
            assert!(closure(&file, None).is_err(), "{bytes:?}");
        }
    }
}
