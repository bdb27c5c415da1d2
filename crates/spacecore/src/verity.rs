//! dm-verity: a block device whose every block is checked against a root hash, set up by device-mapper ioctls.
//!
//! Source: the Linux kernel's `include/uapi/linux/dm-ioctl.h` and `Documentation/admin-guide/device-mapper/verity.rst`.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

use spacecore::wire::message::{Refusal, RefusalKind, Verity};

use spacecore::refusal::{OrRefuse, refuse};

const HEADER: usize = 312;
const TARGET: usize = 40;
const NAME_AT: usize = 48;
const NAME_LENGTH: usize = 128;
const DEVICE_AT: usize = 40;

const DEV_CREATE: u8 = 3;
const DEV_SUSPEND: u8 = 6;
const TABLE_LOAD: u8 = 9;
const READONLY: u32 = 1;

/// The header that begins every device-mapper ioctl.
fn header(name: &str, flags: u32, data: usize, targets: u32) -> Vec<u8> {
    let mut bytes = vec![0; HEADER + data];
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    put(0, 4);
    put(12, size);
    put(16, HEADER as u32);
    put(20, targets);
    put(28, flags);
    let name = &name.as_bytes()[..name.len().min(NAME_LENGTH - 1)];
    bytes[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
    bytes
}

/// The ioctl that loads a table of one verity target.
fn table(name: &str, node: &str, verity: &Verity) -> Vec<u8> {
    let parameters = format!(
        "1 {node} {node} 4096 4096 {} {} sha256 {} -",
        verity.data_blocks, verity.hash_start, verity.root
    );
    let padded = (parameters.len() + 1).next_multiple_of(8);
    let mut bytes = header(name, READONLY, TARGET + padded, 1);
    let target = &mut bytes[HEADER..];
    target[8..16].copy_from_slice(&verity.data_blocks.saturating_mul(8).to_ne_bytes());
    target[20..24].copy_from_slice(&((TARGET + padded) as u32).to_ne_bytes());
    target[24..30].copy_from_slice(b"verity");
    target[TARGET..TARGET + parameters.len()].copy_from_slice(parameters.as_bytes());
    bytes
}

/// The number of `_IOWR(0xfd, command, struct dm_ioctl)`.
fn request(command: u8) -> libc::Ioctl {
    (3 << 30) | ((HEADER as libc::Ioctl) << 16) | (0xfd << 8) | libc::Ioctl::from(command)
}

#[allow(unsafe_code)]
fn call(control: &File, command: u8, bytes: &mut [u8]) -> std::io::Result<()> {
    // SAFETY: `bytes` starts with a `struct dm_ioctl` whose `data_size` is the length of `bytes`; the kernel reads and
    // writes no further.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), request(command), bytes.as_mut_ptr()) };
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

fn check(verity: &Verity, serial: &str) -> Result<(), Refusal> {
    let is_hash = verity.root.len() == 64 && verity.root.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hash || verity.data_blocks == 0 || verity.data_blocks > u64::MAX / 4096 {
        return Err(refuse(
            RefusalKind::Protocol,
            format!(
                "the Merkle tree of disk {serial:?} needs a root of 64 hexadecimal digits and at least one block"
            ),
        ));
    }
    Ok(())
}

/// Puts a device over `node` that yields only what matches the tree; returns its node.
///
/// # Errors
/// The tree's description makes no sense, or the kernel doesn't take it.
pub(crate) fn open(serial: &str, node: &str, verity: &Verity) -> Result<String, Refusal> {
    check(verity, serial)?;
    let what = |step: &str| format!("verity of disk {serial:?}: {step}");
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/mapper/control")
        .or_refuse(RefusalKind::Root, || what("opening the device mapper"))?;
    let name = format!("layer-{}", node.rsplit('/').next().unwrap_or(node));
    let mut created = header(&name, READONLY, 0, 0);
    call(&control, DEV_CREATE, &mut created).or_refuse(RefusalKind::Root, || what("making the device"))?;
    call(&control, TABLE_LOAD, &mut table(&name, node, verity))
        .or_refuse(RefusalKind::Root, || what("loading the tree"))?;
    call(&control, DEV_SUSPEND, &mut header(&name, 0, 0, 0))
        .or_refuse(RefusalKind::Root, || what("starting the device"))?;
    let mut device = [0; 8];
    device.copy_from_slice(&created[DEVICE_AT..DEVICE_AT + 8]);
    Ok(format!("/dev/dm-{}", minor(u64::from_ne_bytes(device))))
}

/// The minor number in the kernel's `huge_encode_dev`.
fn minor(device: u64) -> u64 {
    (device & 0xff) | ((device >> 12) & 0xfff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Verity {
        Verity { root: "ab".repeat(32), data_blocks: 3, hash_start: 4 }
    }

    #[test]
    fn requests_have_the_numbers_of_the_kernel_s_header() {
        assert_eq!(request(DEV_CREATE), 0xc138_fd03);
        assert_eq!(request(TABLE_LOAD), 0xc138_fd09);
    }

    #[test]
    fn a_table_is_laid_out_as_the_kernel_reads_it() {
        let bytes = table("layer-vda", "/dev/vda", &tree());
        assert_eq!(bytes[0..4], 4u32.to_ne_bytes());
        assert_eq!(bytes[12..16], (bytes.len() as u32).to_ne_bytes());
        assert_eq!(bytes[16..20], 312u32.to_ne_bytes());
        assert_eq!(bytes[20..24], 1u32.to_ne_bytes());
        assert_eq!(&bytes[48..58], b"layer-vda\0");
        assert_eq!(bytes[320..328], 24u64.to_ne_bytes(), "24 sectors of 512 bytes");
        assert_eq!(&bytes[336..343], b"verity\0");
        let parameters = String::from_utf8(bytes[352..].to_vec()).unwrap();
        let expected = format!("1 /dev/vda /dev/vda 4096 4096 3 4 sha256 {} -", "ab".repeat(32));
        assert_eq!(parameters.trim_end_matches('\0'), expected);
        assert!(parameters.ends_with('\0'));
    }

    #[test]
    fn a_root_that_isnt_a_digest_is_refused() {
        let bad = Verity { root: "x 1 /dev/sda".to_owned(), ..tree() };
        assert_eq!(check(&bad, "l0").unwrap_err().kind, RefusalKind::Protocol);
        assert!(check(&tree(), "l0").is_ok());
    }

    #[test]
    fn a_minor_number_is_found_in_both_its_parts() {
        assert_eq!(minor(0x0000_fd07), 7);
        assert_eq!(minor(0x0010_fd01), 0x101);
    }
}
