//! Debian packages: which one has the kernel, and what is inside.
//!
//! A package is an `ar` archive with a member `data.tar`, packed in one of several ways (deb(5)). It is unpacked here, so
//! that this needs neither root nor a Debian system.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::image;

/// The most that a package may unpack to, in bytes.
const DATA_MAX: u64 = 4 << 30;
/// The largest file that is taken out of it, in bytes.
const FILE_MAX: u64 = 512 << 20;

/// The package of a distribution that always depends on its newest kernel for virtual machines. `id` and `like` are those
/// of os-release(5), `architecture` is Rust's name.
pub(super) fn newest_of(id: &str, like: &str, architecture: &str) -> Option<String> {
    let debian = match architecture {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        _ => return None,
    };
    let mut family = [id].into_iter().chain(like.split_whitespace());
    family.find_map(|name| match name {
        "debian" => Some(format!("linux-image-cloud-{debian}")),
        "ubuntu" => Some("linux-image-virtual".to_owned()),
        _ => None,
    })
}

/// The packages among those that `apt-cache depends` printed that have a kernel's image or modules of one release.
pub(super) fn concrete(printed: &str) -> Vec<String> {
    let names = printed.lines().filter_map(|line| {
        let line = line.trim_start_matches([' ', '|']);
        line.strip_prefix("Depends:").map(str::trim)
    });
    let kinds = ["linux-image-unsigned-", "linux-image-", "linux-modules-extra-", "linux-modules-"];
    let mut found = Vec::new();
    for name in names {
        let of_release = |kind: &&str| {
            name.strip_prefix(*kind).is_some_and(|release| release.starts_with(|c: char| c.is_ascii_digit()))
        };
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-+.~".contains(&b));
        if plain && kinds.iter().any(of_release) && !found.iter().any(|other| other == name) {
            found.push(name.to_owned());
        }
    }
    found
}

/// Takes a kernel's image and modules out of a package, to `into/boot` and `into/lib/modules`.
pub(super) fn unpack(package: &Path, into: &Path) -> io::Result<()> {
    let mut file = BufReader::new(File::open(package)?);
    let (name, length) = member(&mut file)?;
    let mut data = file.take(length);
    match name.strip_prefix("data.tar").unwrap_or_default() {
        "" => take(data, into),
        ".gz" => take(flate2::bufread::GzDecoder::new(data), into),
        ".zst" => take(zstd::Decoder::with_buffer(data)?, into),
        ".xz" => {
            let plain = tempfile::tempfile_in(into)?;
            let mut limited = image::Limited { inner: io::BufWriter::new(plain), left: DATA_MAX };
            image::xz_into(&mut data, &mut limited)?;
            let mut plain = limited.inner.into_inner().map_err(io::IntoInnerError::into_error)?;
            plain.seek(SeekFrom::Start(0))?;
            take(BufReader::new(plain), into)
        }
        other => {
            Err(io::Error::other(format!("the package is packed as {other:?}; known are gz, xz and zst")))
        }
    }
}

/// Goes to the member `data.tar*`; returns its name and length.
fn member(file: &mut (impl Read + Seek)) -> io::Result<(String, u64)> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "not a Debian package");
    let mut magic = [0; 8];
    file.read_exact(&mut magic).map_err(|_| broken())?;
    if magic != *b"!<arch>\n" {
        return Err(broken());
    }
    for _ in 0..16 {
        let mut header = [0; 60];
        file.read_exact(&mut header).map_err(|_| broken())?;
        let text = std::str::from_utf8(&header).map_err(|_| broken())?;
        let field = |range| text.get(range).map(str::trim).ok_or_else(broken);
        let length: u64 = field(48..58)?.parse().map_err(|_| broken())?;
        let name = field(0..16)?.trim_end_matches('/');
        if name.starts_with("data.tar") {
            return Ok((name.to_owned(), length));
        }
        let padded = length.checked_add(length % 2).and_then(|length| i64::try_from(length).ok());
        file.seek_relative(padded.ok_or_else(broken)?)?;
    }
    Err(broken())
}

fn take(tar: impl Read, into: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(tar.take(DATA_MAX));
    for entry in archive.entries()? {
        let entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let Some(place) = place(&entry.path()?) else {
            continue;
        };
        if entry.size() > FILE_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, place.display().to_string()));
        }
        let target = into.join(&place);
        fs::create_dir_all(target.parent().unwrap_or(into))?;
        io::copy(&mut entry.take(FILE_MAX), &mut File::create(target)?)?;
    }
    Ok(())
}

/// Where a packaged file goes, if it is of use.
fn place(path: &Path) -> Option<PathBuf> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::CurDir | Component::RootDir => {}
            Component::Normal(name) => names.push(name.to_str()?),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    let names = names.strip_prefix(&["usr"]).unwrap_or(&names);
    let file = *names.last()?;
    let wanted = match names {
        ["boot", name] => name.starts_with("vmlinuz-"),
        ["lib", "modules", _release, ..] => super::module::name(file).is_some() || file == "modules.builtin",
        _ => false,
    };
    wanted.then(|| names.iter().collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn a_package(data: &str, content: &[u8]) -> Vec<u8> {
        let mut package = b"!<arch>\n".to_vec();
        for (name, content) in [("debian-binary", &b"2.0"[..]), (data, content)] {
            package.extend(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, content.len()).bytes(),
            );
            package.extend(content);
            package.resize(package.len().next_multiple_of(2), b'\n');
        }
        package
    }

    /// A package with files of every kind, not compressed.
    pub(crate) fn a_whole_package() -> Vec<u8> {
        a_package("data.tar", &a_tar())
    }

    fn a_tar() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for name in [
            "./boot/vmlinuz-6.1",
            "./boot/System.map-6.1",
            "./usr/lib/modules/6.1/kernel/a.ko.xz",
            "./lib/modules/6.1/modules.builtin",
            "./etc/passwd",
        ] {
            let mut header = tar::Header::new_ustar();
            header.set_size(2);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, &b"ok"[..]).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn a_package_gives_its_kernel_and_modules_and_nothing_else_however_it_is_packed() {
        let tar = a_tar();
        let mut xz = Vec::new();
        lzma_rs::xz_compress(&mut &tar[..], &mut xz).unwrap();
        let zst = zstd::encode_all(&tar[..], 1).unwrap();
        for (name, content) in [("data.tar", tar.clone()), ("data.tar.xz", xz), ("data.tar.zst/", zst)] {
            let folder = tempfile::tempdir().unwrap();
            let package = folder.path().join("p.deb");
            fs::write(&package, a_package(name, &content)).unwrap();
            let into = tempfile::tempdir().unwrap();
            unpack(&package, into.path()).unwrap();
            assert_eq!(fs::read(into.path().join("boot/vmlinuz-6.1")).unwrap(), b"ok", "{name}");
            assert!(into.path().join("lib/modules/6.1/kernel/a.ko.xz").is_file());
            assert!(into.path().join("lib/modules/6.1/modules.builtin").is_file());
            assert!(!into.path().join("etc").exists());
            assert_eq!(fs::read_dir(into.path().join("boot")).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_isn_t_a_package_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let package = folder.path().join("p.deb");
        for content in [
            b"".to_vec(),
            b"!<arch>\nx".to_vec(),
            a_package("control.tar", b""),
            a_package("data.tar.lz", b""),
        ] {
            fs::write(&package, content).unwrap();
            assert!(unpack(&package, folder.path()).is_err());
        }
    }

    #[test]
    fn a_packaged_path_never_leaves_its_folder() {
        assert_eq!(place(Path::new("./boot/../../etc/vmlinuz-1")), None);
        assert_eq!(place(Path::new("/boot/vmlinuz-1")), Some("boot/vmlinuz-1".into()));
        assert_eq!(place(Path::new("lib/modules/../a.ko")), None);
    }

    #[test]
    fn each_distribution_has_its_package() {
        assert_eq!(newest_of("debian", "", "x86_64").unwrap(), "linux-image-cloud-amd64");
        assert_eq!(newest_of("linuxmint", "ubuntu debian", "x86_64").unwrap(), "linux-image-virtual");
        assert_eq!(newest_of("raspbian", "debian", "aarch64").unwrap(), "linux-image-cloud-arm64");
        assert_eq!(newest_of("fedora", "", "x86_64"), None);
    }

    #[test]
    fn the_concrete_packages_are_found_in_what_apt_prints() {
        let debian = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(concrete(debian), ["linux-image-6.1.0-56-cloud-amd64"]);
        let ubuntu = "linux-image-virtual\n  Depends: linux-image-6.8.0-31-generic\n |Depends: <x>\n  Recommends: thermald\n";
        assert_eq!(concrete(ubuntu), ["linux-image-6.8.0-31-generic"]);
        let image = "linux-image-6.8.0-31-generic\n  Depends: kmod\n  Depends: linux-base\n  Depends: linux-modules-6.8.0-31-generic\n";
        assert_eq!(concrete(image), ["linux-modules-6.8.0-31-generic"]);
        assert!(concrete("N: Unable to locate package").is_empty());
    }
}
