//! What a driver is: workloads in, running machines out.
//!
//! ```text
//!   Machine --prepare--> Prepared --start(Wiring)--> Instance --stop--> Ended
//!                        (printable,                 pause <-> resume
//!                         nothing has run)           observe
//! ```
//!
//! [`Machine`] says what is wanted, in no driver's words. [`Driver::prepare`] turns it into the exact program and
//! arguments, without running anything: `vimana plan` prints them. [`Driver::start`] runs them with the file
//! descriptors of [`Wiring`]; no socket has a path on disk.

pub mod container;
pub mod qemu;
pub mod wasm;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroup::Limits;
use crate::network::Carrier;
use crate::routed::Pair;

/// The longest serial number that a virtio block device can carry, in bytes (VIRTIO 1.2, section 5.2.6.1).
pub const SERIAL_MAX: usize = 20;

/// The name of the virtio-serial port that carries the guest channel; the guest finds it by this name.
pub const CHANNEL_PORT: &str = "vimana.channel";

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor itself, through `/dev/kvm`.
    Kvm,
    /// QEMU's translator. Its authors don't promise isolation for it as they do for KVM.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// How firmly a machine has its processors and its memory, where others want them too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// They are its own: whoever else wants them gets what it leaves.
    Guaranteed,
    /// It has a share of them.
    #[default]
    Burstable,
}

impl Class {
    /// How early the kernel ends a process of it when the whole machine is short of memory (`oom_score_adj`, proc(5), from -1000 to
    /// 1000): before any that has no score of its own, as the node has none.
    pub fn oom_score(self) -> u16 {
        match self {
            Self::Guaranteed => 200,
            Self::Burstable => 500,
        }
    }
}

/// A machine as it is wanted, in no driver's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// A name for people and process lists: letters, digits, `-`, `_` and `.`, at most 64 bytes.
    pub name: String,
    /// Processor time in thousandths of a CPU, at least 1. A virtual machine has whole virtual processors, rounded up; the
    /// time that they and their monitor take together is held to this where there is a control group.
    pub cpu_milli: u32,
    /// Memory in MiB: that of a virtual machine, at least 32; the most that a container or a Wasm program may use.
    pub memory_mib: u64,
    /// How firmly it has these, where there is a control group.
    #[serde(default)]
    pub class: Class,
    /// The network card, if there is one; its wire is [`Wiring::network`].
    pub network: Option<Network>,
    /// What the workload is kept in.
    pub body: Body,
}

/// What a workload is kept in. Each driver knows one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// A virtual machine with a kernel of its own.
    Virtual(Virtual),
    /// Namespaces and control groups of the host's kernel.
    Container(Container),
    /// A WebAssembly runtime.
    Wasm(Wasm),
}

impl Body {
    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Virtual(_) => "a virtual machine",
            Self::Container(_) => "a container",
            Self::Wasm(_) => "a Wasm program",
        }
    }
}

/// A virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Virtual {
    /// What executes the guest's instructions.
    pub accelerator: Accelerator,
    /// The guest kernel's image (a bzImage or an ELF vmlinux).
    pub kernel: PathBuf,
    /// The initramfs that holds the guest's PID 1.
    pub initramfs: PathBuf,
    /// Further kernel arguments, each without white space; the driver's own come first.
    pub command_line: Vec<String>,
    /// Disks; the guest finds each by its serial, not by its place.
    pub disks: Vec<Disk>,
    /// How fast it may read and write them.
    pub rates: DiskRates,
    /// Whether its monitor gets the AppArmor profile [`crate::confinement::PROFILE`].
    pub profile: bool,
    /// A folder of the machine's own, by which its control group is named; without one it has no control group.
    pub folder: Option<PathBuf>,
    /// Whether the kernel speaks on a serial console; its wire is [`Wiring::console`].
    pub console: bool,
    /// The folder that remembers which libraries the driver's program needs, if there is one.
    pub cache: Option<PathBuf>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The image's layers as unpacked trees, lowest first; whiteouts are in overlayfs's form. At least one.
    pub layers: Vec<PathBuf>,
    /// A folder of the spacecore's own, for everything that the driver keeps while the container runs.
    pub folder: PathBuf,
    /// The host name.
    pub hostname: String,
    /// Whether the workload can't write to its root.
    pub readonly: bool,
    /// The most bytes that the workload may write to its root; none where only the host's disk limits it.
    pub upper_bytes: Option<u64>,
    /// What is mounted over the root, in this order.
    pub mounts: Vec<Mount>,
    /// The most processes and threads at a time.
    pub pids: u32,
}

impl Container {
    /// Whether the workload may write to files or folders of the host.
    pub(crate) fn writes_to_host(&self) -> bool {
        let is_host = |mount: &Mount| matches!(mount.source, MountSource::Folder(_) | MountSource::File(_));
        self.mounts.iter().any(|mount| is_host(mount) && !mount.readonly)
    }
}

/// A Wasm program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wasm {
    /// The module or component, a file in Wasm's binary form.
    pub module: PathBuf,
    /// The SHA-256 digest of that file, in hexadecimal digits.
    pub digest: String,
    /// The folder that keeps compiled code.
    pub cache: PathBuf,
    /// Folders that the program may reach, and what it finds them as.
    pub mounts: Vec<Mount>,
    /// The most elements in all of the program's tables.
    pub table_elements: u64,
    /// The folder that the control group of its process is named by, where programs run in jails: with one it has a process of its own.
    #[serde(default)]
    pub folder: Option<PathBuf>,
}

/// Something that a container or a Wasm program finds at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Where: an absolute path inside the root.
    pub destination: String,
    /// Whether it can't be written.
    pub readonly: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountSource {
    /// A folder of the host.
    Folder(PathBuf),
    /// A single file of the host.
    File(PathBuf),
    /// An empty folder in memory of at most so many bytes.
    Memory(u64),
    /// An ext4 file system in a file that only this machine's kernel has ever written to.
    Disk(PathBuf),
}

/// One block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// A raw image, or a block device.
    pub path: PathBuf,
    /// Whether the guest can't write to it.
    pub readonly: bool,
    /// What the guest finds it by: 1 to [`SERIAL_MAX`] bytes of letters, digits, `-`, `_` and `.`.
    pub serial: String,
}

/// How fast a machine may read and write, over all of its disks together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRates {
    /// The most reads and writes in a second; none is without limit, 0 isn't possible.
    pub operations: Option<u32>,
    /// The most bytes in a second; none is without limit, 0 isn't possible.
    pub bytes: Option<u64>,
}

/// One network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its hardware address.
    pub mac: Mac,
    /// Its greatest packet in bytes, as offered to the guest; 68 to 65520.
    pub mtu: u16,
    /// What its wire is: frames for passt, or the kernel's own.
    pub carrier: Carrier,
}

/// The wire of a network card.
#[derive(Debug)]
pub enum Wire {
    /// A stream socket that carries Ethernet frames, each after its length (32 bits, big endian): [`Carrier::Passt`].
    Stream(OwnedFd),
    /// A tap whose interface is elsewhere: [`Carrier::Routed`], for virtual machines.
    Tap(OwnedFd),
    /// What an interface is made with in a network namespace: [`Carrier::Routed`], for all others.
    Pair(Pair),
}

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The file descriptors that join a machine to its keeper.
#[derive(Debug)]
pub struct Wiring {
    /// The machine's end of a stream socket pair: the guest channel.
    pub channel: OwnedFd,
    /// The network card's; needed if and only if [`Machine::network`] is set, and as its carrier has it.
    pub network: Option<Wire>,
    /// The serial console, as a stream socket; needed if and only if [`Virtual::console`] is set.
    pub console: Option<OwnedFd>,
}

/// Exactly what a start will do. Its `Display` is for people; that of a program is a line for a POSIX shell.
#[derive(Clone, Debug, Serialize)]
pub struct Prepared {
    /// The driver that made it.
    pub driver: &'static str,
    /// Whether [`Wiring::network`] is needed.
    pub network: bool,
    /// Whether [`Wiring::console`] is needed.
    pub console: bool,
    /// What will be executed.
    pub execution: Execution,
}

/// What a start will execute.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Execution {
    /// A program of the host.
    Program {
        /// Its absolute path.
        program: PathBuf,
        /// Its arguments.
        #[serde(serialize_with = "lossy")]
        args: Vec<OsString>,
        /// The disks, in the order of their descriptors.
        disks: Vec<Disk>,
        /// What its jail shows it beside its program and libraries.
        shown: Vec<PathBuf>,
        /// What executes the guest's instructions.
        accelerator: Accelerator,
        /// Its virtual processors.
        vcpus: u32,
        /// The folder that remembers which libraries the program needs.
        cache: Option<PathBuf>,
        /// Whether it gets the AppArmor profile of monitors.
        profile: bool,
        /// How firmly it has processors and memory.
        class: Class,
        /// The folder that its control group is named by, and what the group may take.
        group: Option<(PathBuf, Limits)>,
    },
    /// A container, described as the OCI runtime specification has it (`config.json`).
    Container {
        /// The bundle's configuration.
        config: serde_json::Value,
        /// What it was made from.
        container: Container,
        /// Its network card.
        network: Option<Network>,
    },
    /// A Wasm program inside the keeper, or a process that this has put into a jail.
    Wasm {
        /// The program and what it may reach.
        wasm: Wasm,
        /// The most bytes that its memories may have, in sum.
        memory_bytes: u64,
        /// Processor time in thousandths of a CPU.
        cpu_milli: u32,
        /// Its network card.
        network: Option<Network>,
        /// The folder that the control group of its own process is named by, and what the group may take.
        group: Option<(PathBuf, Limits)>,
    },
}

fn lossy<S: serde::Serializer>(args: &[OsString], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(args.iter().map(|a| a.to_string_lossy()))
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.execution {
            Execution::Program { program, args, .. } => {
                write!(f, "{}", quoted(&program.to_string_lossy()))?;
                args.iter().try_for_each(|arg| write!(f, " {}", quoted(&arg.to_string_lossy())))
            }
            Execution::Container { config, .. } => write!(f, "{config:#}"),
            Execution::Wasm { wasm, .. } => write!(f, "{}", quoted(&wasm.module.to_string_lossy())),
        }
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,./:@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What a running machine costs this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Observation {
    /// Memory of the machine's process that lies in RAM, in bytes, shared pages included.
    pub resident_bytes: u64,
    /// Processor time that it has used since its start.
    pub cpu: Duration,
    /// Its threads.
    pub threads: u64,
}

/// How a machine's process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Its exit code, if it exited by itself.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
    /// What it wrote to standard error: the last 4 KiB of the first 64 KiB.
    pub stderr: String,
}

/// Provides an isolation on this machine.
pub trait Driver: Send + Sync {
    /// Its name, as in the table of drivers: `qemu`.
    fn name(&self) -> &'static str;

    /// Turns a machine into the exact program and arguments. Runs nothing and changes nothing.
    fn prepare(&self, machine: &Machine) -> Result<Prepared, PrepareError>;

    /// Runs what was prepared.
    ///
    /// The machine dies with the *thread* that called this (`PR_SET_PDEATHSIG`), so that must be one that lives as
    /// long as the machine shall. Dropping the instance stops the machine.
    fn start(&self, prepared: &Prepared, wiring: Wiring) -> Result<Box<dyn Instance>, StartError>;
}

/// A running machine. Dropping it kills and reaps the machine's process.
pub trait Instance: Send {
    /// The process that is the machine.
    fn pid(&self) -> i32;

    /// Becomes readable, for `poll`, when the machine's process has ended.
    fn handle(&self) -> BorrowedFd<'_>;

    /// Stops the guest's processors; memory and devices stay.
    fn pause(&mut self) -> Result<(), ControlError>;

    /// Lets the guest's processors go on.
    fn resume(&mut self) -> Result<(), ControlError>;

    /// Measures the machine's process.
    fn observe(&mut self) -> Result<Observation, ObserveError>;

    /// Kills the machine's process, waits for it, and says how it ended. Also answers after it has ended by itself.
    fn stop(&mut self) -> Result<Ended, StopError>;

    /// Says how the machine's process ended, or nothing while it runs. Doesn't wait.
    fn ended(&mut self) -> Result<Option<Ended>, StopError>;
}

/// Why a machine can't be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The program isn't installed.
    #[error("{program} isn't on this machine; on Debian and Ubuntu: sudo apt-get install {package}")]
    NoProgram {
        /// The program's name.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// A machine of a kind that this driver can't run.
    #[error("the driver {driver} can't run {body}")]
    Body {
        /// The driver.
        driver: &'static str,
        /// What it was asked for.
        body: &'static str,
    },
    /// A value that no machine can have.
    #[error("{what} is {found}; it must be {wanted}")]
    Value {
        /// What was looked at.
        what: String,
        /// What it was.
        found: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// A path with bytes that can't be told to the driver's program.
    #[error("the path {0:?} isn't UTF-8, which this driver needs")]
    Path(PathBuf),
    /// Two disks with one serial.
    #[error("two disks have the serial {0}; the guest finds them by it, so each needs its own")]
    SerialTwice(String),
}

/// Why a prepared machine didn't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The wires don't match what was prepared.
    #[error("the machine was prepared {prepared} {wire}, but started the other way")]
    Wiring {
        /// Which wire.
        wire: &'static str,
        /// `with` or `without`.
        prepared: &'static str,
    },
    /// Another driver prepared it.
    #[error("the driver {driver} can't start what the driver {other} prepared")]
    Prepared {
        /// The driver that was asked.
        driver: &'static str,
        /// The driver that prepared it.
        other: &'static str,
    },
    /// The container can't be made.
    #[error("can't make the container: {0}")]
    Container(String),
    /// The program can't be executed.
    #[error("can't execute {}", program.display())]
    Execute {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why a machine can't be paused or resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The machine's process has ended.
    #[error("the machine has ended")]
    Ended,
    /// The control connection failed or timed out.
    #[error("the machine's control connection failed")]
    Connection(#[source] io::Error),
    /// The program answered something that isn't its protocol.
    #[error("the machine answered {command} with something that isn't an answer")]
    Answer {
        /// What was asked.
        command: &'static str,
    },
    /// The program refused.
    #[error("the machine refused {command}: {reason}")]
    Refused {
        /// What was asked.
        command: &'static str,
        /// Its words.
        reason: String,
    },
}

/// Why a machine can't be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// The machine's process has ended.
    #[error("the machine has ended")]
    Ended,
    /// `/proc` couldn't be read.
    #[error("can't read what the machine uses")]
    Proc(#[source] io::Error),
}

/// Why a machine couldn't be stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// It couldn't be killed or waited for.
    #[error("can't end the machine's process {pid}")]
    Wait {
        /// The process.
        pid: i32,
        /// Why.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prepared_command_line_can_be_pasted_into_a_shell() {
        let prepared = Prepared {
            driver: "qemu",
            network: false,
            console: false,
            execution: Execution::Program {
                program: "/usr/bin/qemu-system-x86_64".into(),
                args: ["-m", "64M", "-append", "quiet init='x'", ""].map(OsString::from).to_vec(),
                disks: Vec::new(),
                shown: Vec::new(),
                accelerator: Accelerator::Tcg,
                vcpus: 1,
                cache: None,
                profile: false,
                class: Class::default(),
                group: None,
            },
        };
        assert_eq!(
            prepared.to_string(),
            r"/usr/bin/qemu-system-x86_64 -m 64M -append 'quiet init='\''x'\''' ''"
        );
    }

    #[test]
    fn a_hardware_address_is_printed_as_people_write_it() {
        assert_eq!(Mac([0x52, 0x54, 0, 0, 0, 0xa]).to_string(), "52:54:00:00:00:0a");
    }
}
