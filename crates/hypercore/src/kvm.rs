//! Whether KVM really works here, found out by running guest code.
//!
//! There are machines whose `/dev/kvm` opens and makes VMs and vCPUs, and then can't run a kernel that doesn't know of it.
//! So the probe runs the instructions by which every kernel starts, and has them tell what they see:
//!
//! | stage | what the guest has done when it reports |
//! |---|---|
//! | 1 | turned paging and long mode on by itself, and runs 64-bit code |
//! | 2 | jumped to where kernels lie, the upper half of the address space |
//! | 3 | loaded its own descriptor tables, and reads back its own segment, table limits and interrupt flag |
//! | 4 | written page table base, control and model-specific registers, and read them back |
//! | 5 | taken a breakpoint and an illegal instruction through its own interrupt table, and come back from both |
//!
//! then it halts. A probe ends within [`PATIENCE`] also where the guest never comes back: the thread that runs it is kicked
//! out of the kernel with a signal that no handler ever sees.

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod guest;
#[cfg(target_arch = "x86_64")]
mod run;

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long the guest may take.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Guest code ran, and saw what it should.
    Works,
    /// It didn't.
    Fails(Reason),
}

/// Why KVM doesn't work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// The probe knows no guest code for this processor.
    #[error("KVM is only used on x86_64 so far")]
    Architecture,
    /// There is no `/dev/kvm`.
    #[error(
        "/dev/kvm isn't there; the processor's virtualisation may be off in the firmware, the module not loaded \
         (sudo modprobe kvm_intel or kvm_amd), or this may be a virtual machine without nested virtualisation"
    )]
    NoDevice,
    /// It may not be opened.
    #[error(
        "/dev/kvm may not be opened by this user; join its group and log in again: sudo usermod -aG {group} $USER"
    )]
    Permission {
        /// The group that may.
        group: String,
    },
    /// A VM or vCPU can't be made.
    #[error("/dev/kvm is there, but {step} fails: {error}")]
    Setup {
        /// What was tried.
        step: String,
        /// What the system said.
        error: String,
    },
    /// The guest never came back.
    #[error(
        "/dev/kvm makes virtual machines, but a guest hangs after {stage} of 5 stages; nothing on this machine mends that"
    )]
    Hang {
        /// The last stage that it reported, 0 to 5.
        stage: u8,
    },
    /// The guest saw something wrong, or left in a way that it shouldn't have.
    #[error(
        "/dev/kvm makes virtual machines, but doesn't run an ordinary guest as a processor would ({exit} after {stage} of 5 \
         stages); nothing on this machine mends that"
    )]
    Wrong {
        /// The last stage that it reported, 0 to 5.
        stage: u8,
        /// How it left.
        exit: String,
    },
}

impl Verdict {
    /// Says why KVM doesn't work, and what would mend it; nothing if it works.
    pub fn missing(&self) -> Option<String> {
        match self {
            Self::Works => None,
            Self::Fails(reason) => Some(reason.to_string()),
        }
    }
}

/// Finds out whether KVM works, by running guest code. Takes a few milliseconds where it does, and less than a second where
/// the guest hangs.
pub fn probe() -> Verdict {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(device) => verdict(device),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Verdict::Fails(Reason::Permission { group: group() })
        }
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) =>
        {
            Verdict::Fails(Reason::NoDevice)
        }
        Err(error) => Verdict::Fails(Reason::Setup { step: "opening it".into(), error: error.to_string() }),
    }
}

#[cfg(target_arch = "x86_64")]
fn verdict(device: fs::File) -> Verdict {
    run::run(device.into())
}

#[cfg(not(target_arch = "x86_64"))]
fn verdict(_: fs::File) -> Verdict {
    Verdict::Fails(Reason::Architecture)
}

/// The name of the group that `/dev/kvm` belongs to; `kvm` if it has none.
fn group() -> String {
    use std::os::unix::fs::MetadataExt;
    let number = fs::metadata("/dev/kvm").map_or(0, |status| status.gid()).to_string();
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let mut lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let name =
        lines.find_map(|fields| (fields.get(2) == Some(&number.as_str())).then(|| fields[0].to_owned()));
    name.filter(|_| number != "0").unwrap_or_else(|| "kvm".to_owned())
}

/// What is kept of a probe: it holds for one boot of one kernel.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    boot: String,
    verdict: Verdict,
}

const VERSION: u32 = 1;

/// Like [`probe`], but runs guest code once per boot of the machine: the answer is kept in the folder `cache`. That a device
/// is missing or may not be opened isn't kept, because a person can mend it without a boot.
pub fn known(cache: &Path) -> Verdict {
    let path = cache.join("kvm.json");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    let openable = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    let kept = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Record>(&text).ok());
    if let Some(record) =
        kept.filter(|kept| openable && kept.version == VERSION && kept.boot == boot && !boot.is_empty())
    {
        return record.verdict;
    }
    let verdict = probe();
    let lasting = match &verdict {
        Verdict::Works => true,
        // A busy machine can look as if it hung; it is asked again the next time.
        Verdict::Fails(Reason::Wrong { .. }) => true,
        Verdict::Fails(_) => false,
    };
    if lasting && openable {
        // Only time is lost if this fails.
        let _ = keep(cache, &path, &Record { version: VERSION, boot, verdict: verdict.clone() });
    }
    verdict
}

fn keep(folder: &Path, path: &Path, record: &Record) -> io::Result<()> {
    crate::private_folder(folder)?;
    let file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(file.as_file(), record)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Whether a probe's thread is still there.
    fn probing() -> bool {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.into_iter().any(|name| name.trim() == "kvm-probe")
    }

    #[test]
    fn a_probe_answers_within_a_second_and_leaves_no_thread() {
        let begin = Instant::now();
        let verdict = probe();
        let took = begin.elapsed();
        eprintln!("{verdict:?} after {took:?}");
        assert!(took < Duration::from_secs(1), "{took:?}");
        while probing() {
            assert!(begin.elapsed() < Duration::from_secs(5), "a probe's thread is stuck");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_probe_agrees_with_itself_and_is_kept_for_this_boot_only() {
        let folder = tempfile::tempdir().unwrap();
        let first = known(folder.path());
        assert_eq!(known(folder.path()), first);
        let path = folder.path().join("kvm.json");
        if path.exists() {
            let other = Record { version: VERSION, boot: "another".into(), verdict: Verdict::Works };
            keep(folder.path(), &path, &other).unwrap();
            assert_eq!(known(folder.path()), first, "the answer of another boot was believed");
        }
    }
}
