//! What GNU tar unpacks, what `unsquashfs` unpacks and what the kernel mounts must be the same.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use image::layer::{Layer, Limits, convert, merge};

use crate::archive::{noise, prose};
use crate::skipped;

/// Everything that can be seen of a file without looking at where it lies.
#[derive(Debug, PartialEq, Eq)]
struct Attributes {
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    device: u64,
    links: u64,
    size: u64,
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path with the same inode.
    same_as: PathBuf,
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        // A squashfs in which nothing has xattrs says that it has none.
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        length => length.unwrap(),
    };
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut value = vec![0; 65536];
    names
        .filter(|name| !name.starts_with(b"trusted.vimana."))
        .map(|name| {
            let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]);
            let length = length.unwrap_or_else(|error| panic!("{path:?}: {}: {error}", name.escape_ascii()));
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

fn look(root: &Path) -> BTreeMap<PathBuf, Attributes> {
    let mut seen = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let name = path.strip_prefix(root).unwrap().to_owned();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mut content = Vec::new();
        let kind = metadata.file_type();
        if kind.is_dir() {
            let mut below: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            below.sort();
            pending.extend(below.into_iter().rev());
        } else if kind.is_symlink() {
            content = fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec();
        } else if kind.is_file() {
            File::open(&path).unwrap().read_to_end(&mut content).unwrap();
        }
        let same_as = inodes.entry((metadata.dev(), metadata.ino())).or_insert_with(|| name.clone()).clone();
        let attributes = Attributes {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            mtime: metadata.mtime(),
            device: metadata.rdev(),
            links: if kind.is_dir() { 0 } else { metadata.nlink() },
            size: if kind.is_dir() { 0 } else { metadata.size() },
            content,
            xattrs: xattrs(&path),
            same_as,
        };
        seen.insert(name, attributes);
    }
    seen
}

fn run(program: &str, arguments: &[&OsStr]) -> Result<Vec<u8>, String> {
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

fn shell(script: &str, folder: &Path) {
    let output = Command::new("sh").args(["-euc", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// A folder with one of everything.
fn plant(root: &Path) {
    let write = |name: &[u8], content: &[u8]| fs::write(root.join(OsStr::from_bytes(name)), content).unwrap();
    fs::create_dir(root.join("etc")).unwrap();
    write(b"etc/empty", b"");
    write(b"etc/one", b"1");
    write(b"etc/prose", &prose(300_000));
    write(b"etc/noise", &noise(300_000, 1));
    write(b"etc/block", &noise(128 << 10, 2));
    write(b"etc/two-blocks", &prose(256 << 10));
    write(b"etc/zeros", &vec![0; 700_000]);
    let mut holes = vec![0; 1 << 20];
    holes[500_000..600_000].copy_from_slice(&noise(100_000, 7));
    write(b"etc/holes", &holes);
    write(b"bytes-\xff\xfe", b"not text");
    write("n".repeat(255).as_bytes(), b"long name");
    let deep = vec!["deep".repeat(20); 12].join("/");
    fs::create_dir_all(root.join(&deep)).unwrap();
    write(format!("{deep}/leaf").as_bytes(), b"deep");
    fs::create_dir(root.join("many")).unwrap();
    for at in 0..1500 {
        write(format!("many/a file with some name {at}").as_bytes(), at.to_string().as_bytes());
    }
    shell(
        "ln etc/one etc/another; ln -s ../../nowhere link; ln -s /etc/one absolute
         ln link link-to-link; mkfifo fifo; chmod 4755 etc/one; chmod 1777 many; chmod 0 etc/empty
         touch -d @1 etc/prose; touch -d @4294967295 etc/noise; touch -h -d @1234567890 link",
        root,
    );
    if is_root() {
        shell(
            "mknod zero c 1 5; mknod disk b 259 70000; chown 1234:4294967294 etc/prose; chown -h 5:6 absolute",
            root,
        );
        let set = |name: &str, xattr: &str, value: &[u8]| {
            rustix::fs::lsetxattr(root.join(name), xattr, value, rustix::fs::XattrFlags::empty())
        };
        let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        set("etc/two-blocks", "security.capability", capability).unwrap();
        if set("etc", "user.color", b"blue").and_then(|()| set("etc/noise", "user.color", b"blue")).is_err() {
            skipped("xattrs in user. on files", "the file system below the temporary folder has none");
        }
    }
}

fn archive(root: &Path, to: &Path, format: &str) {
    let xattrs = ["--xattrs", "--xattrs-include=*"].map(OsStr::new);
    // GNU tar's own format can't hold any.
    let xattrs = if format == "--format=pax" { &xattrs[..] } else { &[] };
    let head = ["--sort=name", format, "-C"].map(OsStr::new);
    let tail = [root.as_os_str(), OsStr::new("-cf"), to.as_os_str(), OsStr::new(".")];
    run("tar", &[xattrs, &head[..], &tail[..]].concat()).unwrap();
}

fn convert_file(tar: &Path, to: &Path) -> (File, Layer) {
    let mut out = File::options().read(true).write(true).create(true).truncate(true).open(to).unwrap();
    let layer = convert(File::open(tar).unwrap(), &mut out, &Limits::default()).unwrap();
    (out, layer)
}

fn compare(ours: &Path, theirs: &Path) {
    let (ours, theirs) = (look(ours), look(theirs));
    let names = |side: &BTreeMap<PathBuf, Attributes>| side.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    for (name, attributes) in &theirs {
        assert!(&ours[name] == attributes, "{name:?}: {:.600?}\nshould be {attributes:.600?}", ours[name]);
    }
}

/// A mounted file system; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(arguments: &[&OsStr], at: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&at).unwrap();
        run("mount", &[arguments, &[at.as_os_str()]].concat())?;
        Ok(Self(at))
    }

    fn squashfs(image: &Path, at: PathBuf) -> Result<Self, String> {
        Self::new(
            &["-t", "squashfs", "-o", "loop,ro"]
                .map(OsStr::new)
                .into_iter()
                .chain([image.as_os_str()])
                .collect::<Vec<_>>(),
            at,
        )
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run("umount", &[self.0.as_os_str()]);
    }
}

#[test]
fn unsquashfs_unpacks_what_tar_unpacks() {
    const TEST: &str = "unsquashfs_unpacks_what_tar_unpacks";
    if !has("unsquashfs") {
        return skipped(TEST, "unsquashfs isn't installed");
    }
    if !is_root() {
        skipped(TEST, "devices, owners and xattrs are left out: this isn't root");
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("source")).unwrap();
    plant(&at("source"));
    for format in ["--format=pax", "--format=gnu"] {
        archive(&at("source"), &at("tar"), format);
        let (_, layer) = convert_file(&at("tar"), &at("image"));
        let (ours, theirs) = (at(&format!("ours{format}")), at(&format!("theirs{format}")));
        fs::create_dir(&theirs).unwrap();
        let unpack = ["--xattrs", "--xattrs-include=*", "-p", "-xf"].map(OsStr::new);
        run("tar", &[&unpack[..], &[at("tar").as_os_str(), OsStr::new("-C"), theirs.as_os_str()]].concat())
            .unwrap();
        let unsquash = ["-q", "-n", "-d"].map(OsStr::new);
        run("unsquashfs", &[&unsquash[..], &[ours.as_os_str(), at("image").as_os_str()]].concat()).unwrap();
        compare(&ours, &theirs);

        let listed = run("unsquashfs", &[OsStr::new("-lls"), at("image").as_os_str()]).unwrap();
        let lines = listed
            .split(|byte| *byte == b'\n')
            .filter(|line| line.windows(13).any(|part| part == b"squashfs-root"));
        assert_eq!(lines.count() as u64, layer.entries + 1);
        let text = String::from_utf8_lossy(&listed);
        assert!(
            text.lines().any(|line| line.starts_with("-rwsr-xr-x") && line.ends_with("etc/another")),
            "{text}"
        );
        assert!(text.lines().any(|line| line.ends_with("squashfs-root/link -> ../../nowhere")), "{text}");
        fs::set_permissions(ours.join("etc/empty"), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn the_kernel_mounts_what_tar_unpacks() {
    const TEST: &str = "the_kernel_mounts_what_tar_unpacks";
    if !is_root() {
        return skipped(TEST, "mounting needs root");
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("source")).unwrap();
    plant(&at("source"));
    archive(&at("source"), &at("tar"), "--format=pax");
    let (image, _) = convert_file(&at("tar"), &at("image"));
    let mounted = match Mounted::squashfs(&at("image"), at("mounted")) {
        Ok(mounted) => mounted,
        Err(error) => return skipped(TEST, &error),
    };
    compare(&mounted.0, &at("source"));
    // Every name is found, also by the index of a big folder.
    for name in look(&at("source")).keys() {
        assert!(fs::symlink_metadata(mounted.0.join(name)).is_ok(), "{name:?}");
    }
    assert!(fs::symlink_metadata(mounted.0.join("many/a file with some name 1500")).is_err());

    // A merge of one layer is that layer.
    let mut out = File::options().read(true).write(true).create_new(true).open(at("merged")).unwrap();
    merge(&[image], &mut out, true).unwrap();
    let merged = Mounted::squashfs(&at("merged"), at("merged-mounted")).unwrap();
    compare(&merged.0, &at("source"));
}

#[test]
fn a_merge_shows_what_overlayfs_shows() {
    const TEST: &str = "a_merge_shows_what_overlayfs_shows";
    if !is_root() {
        return skipped(TEST, "mounting needs root");
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: String| folder.path().join(name);
    let layers = [
        "mkdir -p a/b c d/e; echo 1 > a/b/one; echo 1 > a/x; echo 1 > c/old; echo 1 > d/e/f; echo 1 > f; ln -s f s
         chmod 700 c; echo 1 > g; mkdir h; echo 1 > h/in; mknod null c 1 3; mkdir w; echo 1 > w/1; mkdir -p p/q; echo 1 > p/q/r",
        "mkdir -p a/b c d; echo 2 > a/b/two; touch a/.wh.x c/.wh..wh..opq; echo 2 > c/new; touch d/.wh.e .wh.f
         rm -f s; mkdir s; echo 2 > s/inside; echo 2 > h; touch .wh.w; ln a/b/two two; touch .wh.p",
        "mkdir -p a d/e h w p/q; echo 3 > a/x; echo 3 > d/e/g; echo 3 > f; touch .wh.g; echo 3 > h/again; echo 3 > w/3
         chmod 1777 a; touch .wh.nothing a/.wh.missing; chown 7:8 h",
    ];
    let mut images = Vec::new();
    for (number, script) in layers.iter().enumerate() {
        let source = at(format!("source{number}"));
        fs::create_dir(&source).unwrap();
        shell(script, &source);
        shell("find . -exec touch -h -d @1000 {} +", &source);
        archive(&source, &at(format!("tar{number}")), "--format=pax");
        images.push(convert_file(&at(format!("tar{number}")), &at(format!("image{number}"))).0);
    }
    let mount = |name: &str| Mounted::squashfs(&at(format!("image{name}")), at(format!("mounted{name}")));
    let mut mounted = Vec::new();
    for name in ["0", "1", "2"] {
        match mount(name) {
            Ok(layer) => mounted.push(layer),
            Err(error) => return skipped(TEST, &error),
        }
    }
    let overlay = |layers: &[&str], name: &str| {
        // The first one named is the uppermost.
        let lower: Vec<_> =
            layers.iter().rev().map(|name| at(format!("mounted{name}")).display().to_string()).collect();
        let options = format!("lowerdir={}", lower.join(":"));
        Mounted::new(&["-t", "overlay", "overlay", "-o", &options].map(OsStr::new), at(name.to_owned()))
    };
    let all = match overlay(&["0", "1", "2"], "all") {
        Ok(all) => all,
        Err(error) => return skipped(TEST, &error),
    };
    let merged = |range: std::ops::Range<usize>, name: &str, bottom: bool| {
        let mut out =
            File::options().read(true).write(true).create_new(true).open(at(format!("image{name}"))).unwrap();
        let parts: Vec<_> = images[range].iter().map(|file| file.try_clone().unwrap()).collect();
        merge(&parts, &mut out, bottom).unwrap();
        mount(name).unwrap()
    };
    let whole = merged(0..3, "whole", true);
    compare(&whole.0, &all.0);
    let _upper = merged(1..3, "upper", false);
    let _lower = merged(0..2, "lower", true);
    let _middle = merged(1..2, "middle", false);
    for (number, layers) in
        [&["0", "upper"][..], &["lower", "2"], &["0", "middle", "2"]].into_iter().enumerate()
    {
        let parts = overlay(layers, &format!("parts{number}")).unwrap();
        compare(&parts.0, &all.0);
    }
}
