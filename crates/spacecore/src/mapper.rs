//! Block devices that the kernel's device mapper puts over others, set up by its ioctls.
//!
//! Source: the Linux kernel's `include/uapi/linux/dm-ioctl.h`.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

use spacecore::refusal::OrRefuse;
use spacecore::wire::message::{Refusal, RefusalKind};

const HEADER: usize = 312;
const TARGET: usize = 40;
const NAME_AT: usize = 48;
const NAME_LENGTH: usize = 128;
const DEVICE_AT: usize = 40;

const DEV_CREATE: u8 = 3;
const DEV_SUSPEND: u8 = 6;
const TABLE_LOAD: u8 = 9;
const READONLY: u32 = 1;
/// The kernel wipes its copy of what it was told (`DM_SECURE_DATA_FLAG`).
const SECRET: u32 = 1 << 15;

/// A device to make: one target over all of it.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    /// What the device is called, at most 127 bytes.
    pub(crate) name: &'a str,
    /// What stands for it in errors.
    pub(crate) shown: &'a str,
    /// The target's kind, such as `verity`; at most 15 bytes.
    pub(crate) kind: &'static str,
    /// Its length in sectors of 512 bytes.
    pub(crate) sectors: u64,
    /// Whether it can't be written.
    pub(crate) readonly: bool,
}

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

impl Target<'_> {
    fn flags(&self) -> u32 {
        if self.readonly { READONLY } else { 0 }
    }

    /// The ioctl that loads a table of this one target.
    fn table(&self, parameters: &str) -> Vec<u8> {
        let padded = (parameters.len() + 1).next_multiple_of(8);
        let mut bytes = header(self.name, self.flags() | SECRET, TARGET + padded, 1);
        let target = &mut bytes[HEADER..];
        target[8..16].copy_from_slice(&self.sectors.to_ne_bytes());
        target[20..24].copy_from_slice(&((TARGET + padded) as u32).to_ne_bytes());
        let kind = self.kind.as_bytes();
        target[24..24 + kind.len()].copy_from_slice(kind);
        target[TARGET..TARGET + parameters.len()].copy_from_slice(parameters.as_bytes());
        bytes
    }

    /// Makes the device; returns its node. What it is told is wiped.
    ///
    /// # Errors
    /// The kernel doesn't take it.
    pub(crate) fn make(&self, parameters: &str, kind: RefusalKind) -> Result<String, Refusal> {
        let what = |step: &str| format!("{}: {step}", self.shown);
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/mapper/control")
            .or_refuse(kind, || what("opening the device mapper"))?;
        let mut created = header(self.name, self.flags(), 0, 0);
        call(&control, DEV_CREATE, &mut created).or_refuse(kind, || what("making the device"))?;
        let mut table = self.table(parameters);
        let loaded = call(&control, TABLE_LOAD, &mut table);
        table.fill(0);
        std::hint::black_box(&table);
        loaded.or_refuse(kind, || what("telling the device what it is"))?;
        call(&control, DEV_SUSPEND, &mut header(self.name, 0, 0, 0))
            .or_refuse(kind, || what("starting the device"))?;
        let mut device = [0; 8];
        device.copy_from_slice(&created[DEVICE_AT..DEVICE_AT + 8]);
        Ok(format!("/dev/dm-{}", minor(u64::from_ne_bytes(device))))
    }
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

/// The minor number in the kernel's `huge_encode_dev`.
fn minor(device: u64) -> u64 {
    (device & 0xff) | ((device >> 12) & 0xfff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_numbers_of_the_kernel_s_header() {
        assert_eq!(request(DEV_CREATE), 0xc138_fd03);
        assert_eq!(request(TABLE_LOAD), 0xc138_fd09);
    }

    #[test]
    fn a_table_is_laid_out_as_the_kernel_reads_it() {
        let target =
            Target { name: "layer-vda", shown: "a layer", kind: "verity", sectors: 24, readonly: true };
        let bytes = target.table("1 /dev/vda");
        assert_eq!(bytes[0..4], 4u32.to_ne_bytes());
        assert_eq!(bytes[12..16], (bytes.len() as u32).to_ne_bytes());
        assert_eq!(bytes[16..20], 312u32.to_ne_bytes());
        assert_eq!(bytes[20..24], 1u32.to_ne_bytes());
        assert_eq!(bytes[28..32], (READONLY | SECRET).to_ne_bytes());
        assert_eq!(&bytes[48..58], b"layer-vda\0");
        assert_eq!(bytes[320..328], 24u64.to_ne_bytes(), "sectors of 512 bytes");
        assert_eq!(&bytes[336..343], b"verity\0");
        assert_eq!(&bytes[352..], b"1 /dev/vda\0\0\0\0\0\0");
    }

    #[test]
    fn a_minor_number_is_found_in_both_its_parts() {
        assert_eq!(minor(0x0000_fd07), 7);
        assert_eq!(minor(0x0010_fd01), 0x101);
    }
}
