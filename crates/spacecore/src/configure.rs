//! What PID 1 itself does with the configuration: everything outside the workload's root.

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::time::{ClockId, Timespec, clock_settime};
use spacecore::wire::message::{Configuration, Mount, MountSource, Refusal, RefusalKind, Upper};
use spacecore::wire::{FIRST_FOLDER, MAX_FOLDERS, VERSION};

use crate::disks::Disks;
use crate::folder::Folder;
use crate::modules::{Known, Modules};
use crate::steps::Steps;
use crate::{network, root};
use spacecore::refusal::{OrRefuse, refuse};

/// What the configuration has made.
#[derive(Debug)]
pub(crate) struct Outside {
    /// The disks, for the mounts to come.
    pub(crate) disks: Disks,
    /// One connection for each folder among the mounts, in order.
    pub(crate) folders: Vec<Folder>,
    /// Whether anything is kept on a disk.
    pub(crate) has_disk: bool,
}

/// Checks what can be checked before anything is done.
///
/// # Errors
/// A field that makes no sense.
pub(crate) fn check(configuration: &Configuration) -> Result<(), Refusal> {
    let protocol = |message: String| Err(refuse(RefusalKind::Protocol, message));
    if configuration.version != VERSION {
        return protocol(format!(
            "the keeper speaks version {} of the channel, this guest speaks {VERSION}",
            configuration.version
        ));
    }
    let name = &configuration.hostname;
    let is_name_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' || byte == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name_byte) {
        return protocol(format!("{name:?} is no host name of 1 to 64 letters, digits, '-', '_' and '.'"));
    }
    let mut streams = Vec::new();
    for mount in &configuration.mounts {
        if !mount.destination.starts_with('/') {
            return protocol(format!("the mount's destination {:?} is no absolute path", mount.destination));
        }
        if let MountSource::Folder { stream, .. } = mount.source {
            let last = FIRST_FOLDER + (MAX_FOLDERS - 1);
            if !(FIRST_FOLDER..=last).contains(&stream) || streams.contains(&stream) {
                return protocol(format!("stream {stream} isn't free for a folder"));
            }
            streams.push(stream);
        }
    }
    decode_entropy(&configuration.entropy).map(drop)
}

/// Does all that happens outside the workload's root.
///
/// # Errors
/// The part that failed, with what was wrong.
pub(crate) fn apply(
    configuration: &Configuration,
    modules: &mut Modules,
    steps: &mut Steps,
) -> Result<Outside, Refusal> {
    set_clock(configuration.unix_time_ns)?;
    add_entropy(&decode_entropy(&configuration.entropy)?)?;
    rustix::system::sethostname(configuration.hostname.as_bytes())
        .or_refuse(RefusalKind::Other, || "setting the host name".to_owned())?;
    steps.end("time, entropy, host name");
    modules.load_all(Known::from_configuration(configuration))?;
    steps.end("load modules of the devices");
    let disks = Disks::scan()?;
    steps.end("find disks");
    let no_root = || refuse(RefusalKind::Protocol, "a microVM needs a root file system");
    let root = configuration.root.as_ref().ok_or_else(no_root)?;
    let layers = root::mount_layers(root, &disks)?;
    steps.end("mount layers");
    root::mount_overlay(root, &layers, &disks)?;
    steps.end("mount overlay");
    if let Some(network) = &configuration.network {
        network::set_up(network)?;
        steps.end("network");
    }
    crate::cgroup::make(configuration.pids)?;
    steps.end("limits");
    let mut folders = Vec::new();
    for mount in &configuration.mounts {
        if let MountSource::Folder { stream, .. } = mount.source {
            folders.push(Folder::open(stream)?);
        }
    }
    let on_disk = |mount: &Mount| matches!(mount.source, MountSource::Disk { .. });
    let has_disk = matches!(root.upper, Upper::Disk { .. }) || configuration.mounts.iter().any(on_disk);
    Ok(Outside { disks, folders, has_disk })
}

fn set_clock(unix_time_ns: u64) -> Result<(), Refusal> {
    let now = Timespec {
        tv_sec: i64::try_from(unix_time_ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(unix_time_ns % 1_000_000_000).unwrap_or(0),
    };
    clock_settime(ClockId::Realtime, now).or_refuse(RefusalKind::Other, || "setting the clock".to_owned())
}

/// Decodes 64 to 1024 hexadecimal digits.
fn decode_entropy(digits: &str) -> Result<Vec<u8>, Refusal> {
    let decoded = if (64..=1024).contains(&digits.len()) { decode_hex(digits) } else { None };
    decoded.ok_or_else(|| {
        refuse(RefusalKind::Protocol, "the entropy isn't an even number of 64 to 1024 hexadecimal digits")
    })
}

/// Decodes pairs of hexadecimal digits; nothing where they are none.
pub(crate) fn decode_hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = pairs.iter().map(|&[high, low]| Some(digit(high)? * 16 + digit(low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

/// Credits entropy to the kernel's pool: `struct rand_pool_info`, bits and bytes counted first.
#[allow(unsafe_code)]
fn add_entropy(entropy: &[u8]) -> Result<(), Refusal> {
    const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
    let what = || "adding entropy".to_owned();
    let length = i32::try_from(entropy.len()).or_refuse(RefusalKind::Protocol, what)?;
    let mut pool = Vec::with_capacity(8 + entropy.len());
    pool.extend_from_slice(&length.saturating_mul(8).to_ne_bytes());
    pool.extend_from_slice(&length.to_ne_bytes());
    pool.extend_from_slice(entropy);
    let device = File::open("/dev/random").or_refuse(RefusalKind::Other, what)?;
    // SAFETY: `pool` is a `struct rand_pool_info` whose `buf_size` is the number of bytes behind its header.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, pool.as_ptr()) };
    if result < 0 {
        return Err(std::io::Error::last_os_error()).or_refuse(RefusalKind::Other, what);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_hexadecimal_of_a_sane_length() {
        assert_eq!(decode_entropy(&"0fF0".repeat(16)).unwrap()[..2], [0x0f, 0xf0]);
        for wrong in ["", "ab", &"x".repeat(64), &"a".repeat(65), &"a".repeat(1026), &"é".repeat(32)] {
            assert_eq!(decode_entropy(wrong).unwrap_err().kind, RefusalKind::Protocol, "{wrong:?}");
        }
    }
}
