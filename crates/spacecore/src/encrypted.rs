//! dm-crypt: a disk of which the host sees only what can't be read without its key.
//!
//! ```text
//!  0                 4096                                                            the disk's end
//!  | a mark in clear | everything else, AES-256 in XTS mode by sectors of 4096 bytes |
//! ```
//!
//! The mark says whether the file system inside was made yet. Only where it says "not yet" is one made, and it says "made" once that
//! is on the disk: neither a wrong key nor a crash can lead to a new file system over an old one.
//!
//! Source: the Linux kernel's `Documentation/admin-guide/device-mapper/dm-crypt.rst`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use spacecore::crypt::{MARK_BYTES, Mark};
use spacecore::ext4::{self, Ground, Kind};
use spacecore::refusal::{OrRefuse, refuse};
use spacecore::wire::message::{Crypt, Refusal, RefusalKind};

use crate::mapper::Target;

const SECTOR: u64 = 512;
/// What every refusal is about.
const ABOUT: RefusalKind = RefusalKind::Mount;

/// Puts a device over `node` that is what it holds in clear, with a file system in it; returns its node.
///
/// # Errors
/// The key is no key or isn't this disk's, the disk is no such disk, or the kernel doesn't take it. The disk is then as it was.
pub(crate) fn open(serial: &str, node: &str, crypt: &Crypt, readonly: bool) -> Result<String, Refusal> {
    let shown = format!("the encrypted disk {serial:?}");
    let what = |step: &str| format!("{shown}: {step}");
    let is_key = crypt.key.len() == 128 && crypt.key.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_key {
        return Err(refuse(RefusalKind::Protocol, what("a key has 128 hexadecimal digits")));
    }
    let disk =
        OpenOptions::new().read(true).write(!readonly).open(node).or_refuse(ABOUT, || what("opening it"))?;
    let mut head = [0; MARK_BYTES];
    disk.read_exact_at(&mut head, 0).or_refuse(ABOUT, || what("reading its mark"))?;
    let mark = Mark::read(&head).ok_or_else(|| refuse(ABOUT, what("it isn't one, or was damaged")))?;
    let bytes = size_of(node).or_refuse(ABOUT, || what("finding its size"))?;
    let inner = bytes.saturating_sub(MARK_BYTES as u64);
    let name = format!("volume-{}", node.rsplit('/').next().unwrap_or(node));
    let target = Target { name: &name, shown: &shown, kind: "crypt", sectors: inner / SECTOR, readonly };
    let mut parameters =
        format!("aes-xts-plain64 {} 0 {node} {} 1 sector_size:4096", crypt.key, MARK_BYTES as u64 / SECTOR);
    let made = target.make(&parameters, ABOUT);
    spacecore::crypt::wipe(&mut parameters);
    let device = made?;
    match mark {
        Mark::New if readonly => {
            let message = "nothing was ever written to it, so that there is nothing to read";
            Err(refuse(ABOUT, what(message)))
        }
        Mark::New => {
            make_file_system(&device, inner, crypt).or_refuse(ABOUT, || what("making its file system"))?;
            let mut made = [0; MARK_BYTES];
            Mark::Made.write(&mut made);
            let marked = disk.write_all_at(&made, 0).and_then(|()| disk.sync_all());
            marked.or_refuse(ABOUT, || what("marking it"))?;
            Ok(device)
        }
        Mark::Made => {
            let clear = File::open(&device).or_refuse(ABOUT, || what("opening what it holds"))?;
            match ext4::is_there(&clear).or_refuse(ABOUT, || what("reading what it holds"))? {
                true => Ok(device),
                false => {
                    let message = "its key isn't the one that it was written with, or it was damaged; nothing was changed";
                    Err(refuse(ABOUT, what(message)))
                }
            }
        }
    }
}

fn make_file_system(device: &str, bytes: u64, crypt: &Crypt) -> std::io::Result<()> {
    let clear = OpenOptions::new().read(true).write(true).open(device)?;
    ext4::format(&clear, bytes, Kind::Volume(crypt.owner), Ground::Anything)?;
    clear.sync_all()
}

/// The size of a disk in bytes.
fn size_of(node: &str) -> std::io::Result<u64> {
    let name = node.rsplit('/').next().unwrap_or(node);
    let text = std::fs::read_to_string(format!("/sys/block/{name}/size"))?;
    let sectors = text.trim().parse::<u64>().map_err(std::io::Error::other)?;
    Ok(sectors.saturating_mul(SECTOR))
}
