//! Control messages: what keeper and guest say to each other, as JSON in control frames.

use serde::{Deserialize, Serialize};

use crate::ext4::Owner;

/// What a keeper tells its guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum ToGuest {
    /// All that the guest is told about itself. Sent once, in answer to [`ToHost::Hello`].
    Configure(Box<Configuration>),
    /// Starts one more process beside the workload.
    Exec {
        /// Its number, chosen by the keeper: 1 to [`super::MAX_PROCESS`], not in use.
        process: u16,
        /// What to start.
        spec: Process,
    },
    /// Sends a signal to a process: to it alone, as container engines do. Terminals signal their foreground group.
    Signal {
        /// The process' number.
        process: u16,
        /// The signal's number on Linux, 1 to 64.
        signal: i32,
    },
    /// Sets the size of a process' terminal.
    Resize {
        /// The process' number.
        process: u16,
        /// The new size.
        size: TerminalSize,
    },
    /// Asks for [`ToHost::Stats`].
    Stats {
        /// Returned with the answer.
        request: u32,
    },
    /// Asks whether the workload is well; answered by [`ToHost::Checked`]. At most [`super::MAX_CHECKS`] at a time.
    Check {
        /// Returned with the answer.
        request: u32,
        /// How to find out.
        probe: Probe,
        /// Milliseconds after which no answer of the workload's counts as failure; at most an hour.
        timeout_ms: u64,
    },
    /// Asks for a page that the workload serves about itself; answered by [`ToHost::Fetched`]. It counts as one of the checks.
    Fetch {
        /// Returned with the answer.
        request: u32,
        /// The port, asked for as by [`Probe::Http`].
        port: u16,
        /// The page's path with its query; begins with `/`, no spaces.
        path: String,
        /// Milliseconds that it may take; at most an hour.
        timeout_ms: u64,
    },
    /// Ends the spacecore: the workload gets its stop signal, after the grace period all that is left is killed, file
    /// systems are synced, the machine powers off.
    Shutdown {
        /// Milliseconds between stop signal and kill.
        grace_ms: u64,
    },
}

/// What a guest tells its keeper. Every field is a claim of a hostile machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum ToHost {
    /// The first message: the guest is up.
    Hello {
        /// [`super::VERSION`] of the guest.
        version: u32,
        /// The kernel's release (`uname -r`).
        release: String,
        /// Microseconds since the guest kernel started its clock.
        uptime_us: u64,
    },
    /// Everything of [`ToGuest::Configure`] is in place.
    Configured {
        /// How long each step took, in order.
        steps: Vec<Step>,
    },
    /// A process runs.
    Started {
        /// Its number.
        process: u16,
    },
    /// A process ended, and all of its output has been sent.
    Ended {
        /// Its number.
        process: u16,
        /// How it ended.
        status: ExitStatus,
    },
    /// Something that was asked for could not be done.
    Refused {
        /// The process that it was about; `None` where the configuration as a whole failed, which ends the spacecore.
        process: Option<u16>,
        /// What went wrong.
        refusal: Refusal,
    },
    /// The answer to [`ToGuest::Stats`].
    Stats {
        /// The number from the question.
        request: u32,
        /// What the guest measured.
        stats: Stats,
    },
    /// The answer to [`ToGuest::Check`].
    Checked {
        /// The number from the question.
        request: u32,
        /// Why the check failed, for a person; none where it passed.
        failure: Option<String>,
    },
    /// The answer to [`ToGuest::Fetch`].
    Fetched {
        /// The number from the question.
        request: u32,
        /// What came of it.
        fetched: Fetched,
    },
}

/// What came of asking the workload for a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fetched {
    /// The page: at most [`super::MAX_PAGE`] bytes.
    Page(String),
    /// Why there is none, for a person.
    Failure(String),
}

/// How the guest finds out whether its workload is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Probe {
    /// The port takes connections, on 127.0.0.1 or on an address of the guest's own.
    Tcp {
        /// The port.
        port: u16,
    },
    /// The port answers `GET` by HTTP/1.1 with a status of 200 to 399, asked there as for `Tcp`.
    Http {
        /// The port.
        port: u16,
        /// The page's path with its query; begins with `/`, no spaces.
        path: String,
    },
    /// The program exits with 0. It runs with the workload's user, variables and working directory, as with [`ToGuest::Exec`].
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
    },
}

/// All that a guest is told about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Configuration {
    /// [`super::VERSION`] of the keeper.
    pub version: u32,
    /// The host name.
    pub hostname: String,
    /// Wall clock time at sending, in nanoseconds since 1970 (UTC).
    pub unix_time_ns: u64,
    /// Entropy for the guest kernel's random pool: 64 to 1024 hexadecimal digits, credited in full.
    pub entropy: String,
    /// The root file system; none where it is in place already, as in a container.
    pub root: Option<Root>,
    /// What is mounted on top, in this order.
    pub mounts: Vec<Mount>,
    /// The network interface; none where the spacecore has no network.
    pub network: Option<Network>,
    /// The most processes and threads of the workload at a time; none where something outside of the guest holds it to them.
    pub pids: Option<u32>,
    /// Files in `/run/secrets`, which only the workload's user reads. Where there are any, [`Configuration::mounts`] has a folder in
    /// memory there, or whoever made the container has mounted one.
    pub secrets: Vec<Secret>,
    /// The workload.
    pub process: Process,
}

impl Configuration {
    /// Makes a configuration with nothing beyond a name and a workload: no time, entropy, root, mounts or network.
    pub fn of(hostname: impl Into<String>, process: Process) -> Self {
        Self {
            version: super::VERSION,
            hostname: hostname.into(),
            unix_time_ns: 0,
            entropy: String::new(),
            root: None,
            mounts: Vec::new(),
            network: None,
            pids: None,
            secrets: Vec::new(),
            process,
        }
    }
}

/// A secret value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Secret {
    /// Its file's name: no slash, and no dot first.
    pub name: String,
    /// Its bytes, as hexadecimal digits.
    pub value: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The root file system: read-only layers under one writable layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Root {
    /// The image's layers, lowest first, each a squashfs on a disk of its own. At least one.
    pub layers: Vec<LayerDisk>,
    /// Where writes go.
    pub upper: Upper,
    /// Whether the workload sees its root read-only.
    pub readonly: bool,
}

/// One layer as the guest finds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LayerDisk {
    /// The disk's serial (`/sys/block/*/serial`), at most 20 bytes.
    pub serial: String,
    /// The Merkle tree to hold the disk to; none where the guest needn't enforce it.
    pub verity: Option<Verity>,
}

/// A dm-verity tree (format 1, SHA-256, blocks of 4096 bytes) behind the data on the same disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Verity {
    /// The root hash, 64 hexadecimal digits.
    pub root: String,
    /// How many blocks of data the tree covers.
    pub data_blocks: u64,
    /// The block at which the tree starts.
    pub hash_start: u64,
}

/// Where writes to the root file system go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Upper {
    /// The guest's own memory.
    Memory {
        /// At most so many bytes.
        bytes: u64,
    },
    /// An ext4 file system on a disk of its own.
    Disk {
        /// The disk's serial.
        serial: String,
    },
}

/// One mount over the root file system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Where: an absolute path inside the root file system; made if it doesn't exist.
    pub destination: String,
    /// Whether it can't be written.
    pub readonly: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum MountSource {
    /// A folder (or single file) of the host, served over the channel as FUSE messages.
    Folder {
        /// The stream that carries them: [`super::FIRST_FOLDER`] or above.
        stream: u16,
        /// Whether the source is a single file, mounted over a file.
        file: bool,
    },
    /// Memory of the guest.
    Memory {
        /// At most so many bytes.
        bytes: u64,
    },
    /// An ext4 file system on a disk of its own.
    Disk {
        /// The disk's serial.
        serial: String,
        /// How it is encrypted; none where it isn't.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        crypt: Option<Crypt>,
    },
}

/// What a guest needs for an encrypted disk. The key is wiped when this is dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Crypt {
    /// The key of AES-256 in XTS mode: 128 hexadecimal digits.
    pub key: String,
    /// Who owns the root folder of the file system, where it has to be made first.
    pub owner: Owner,
}

impl std::fmt::Debug for Crypt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crypt").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Drop for Crypt {
    fn drop(&mut self) {
        crate::crypt::wipe(&mut self.key);
    }
}

/// The network interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Network {
    /// Addresses with prefix length, such as `10.0.2.15/24` or `fd00::2/64`.
    pub addresses: Vec<String>,
    /// Default gateways, at most one IPv4 and one IPv6 address.
    pub gateways: Vec<String>,
    /// Name servers for `/etc/resolv.conf`.
    pub dns: Vec<String>,
    /// Search domains for `/etc/resolv.conf`.
    pub search: Vec<String>,
    /// The largest packet in bytes.
    pub mtu: u32,
}

/// One process to start, with OCI semantics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Process {
    /// The program and its arguments; the program is looked up in the environment's `PATH` unless it holds a `/`.
    pub args: Vec<String>,
    /// `NAME=value` pairs. `PATH`, `HOME`, `HOSTNAME` and (with a terminal) `TERM` are added where they lack.
    pub env: Vec<String>,
    /// `user`, `user:group`, `uid` or `uid:gid`, looked up in the root's `/etc/passwd` and `/etc/group`; empty is root.
    pub user: String,
    /// An absolute path, made if it doesn't exist; empty is `/`.
    pub working_directory: String,
    /// Whether the stream of standard input is used; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// The size of the terminal that the process gets; none for pipes.
    pub terminal: Option<TerminalSize>,
    /// The signal that asks it to end, as number; 15 where the image names none.
    pub stop_signal: i32,
    /// What the process copies; it is no program of the image's then, and everything above but `stdin` means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
}

/// Files to copy, as a tar stream ([`crate::archive`]), in the workload's root and with what is mounted there. It exits with 0 where
/// all was copied, else with 1 and the reason on its standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Transfer {
    /// To standard output.
    Out {
        /// What; [`crate::archive::place::means_contents`] tells in which form.
        path: String,
    },
    /// From standard input.
    Into {
        /// Where to.
        path: String,
        /// Whether the archive holds what is in a folder, rather than one thing.
        contents: bool,
    },
}

impl Process {
    /// Makes a process that copies.
    pub fn of_transfer(transfer: Transfer) -> Self {
        let stdin = matches!(transfer, Transfer::Into { .. });
        Self { stdin, transfer: Some(transfer), ..Self::of([""; 0]) }
    }

    /// Makes a process of these arguments that is as plain as can be: root in `/` without variables, standard input or a
    /// terminal, asked to end by SIGTERM.
    pub fn of(args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            user: String::new(),
            working_directory: String::new(),
            stdin: false,
            terminal: None,
            stop_signal: 15,
            transfer: None,
        }
    }
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u8),
    /// This signal killed it.
    Signal {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel killed it for want of memory.
        out_of_memory: bool,
    },
}

impl ExitStatus {
    /// The exit code as a shell shows it: 128 and the number for a signal.
    pub fn shell_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal { signal, .. } => u8::try_from(signal).unwrap_or(127).saturating_add(128),
        }
    }
}

/// How long one step of the guest took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Step {
    /// What was done, a few words.
    pub name: String,
    /// Microseconds.
    pub us: u64,
}

/// Why the guest could not do something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Refusal {
    /// The kind, for programs.
    pub kind: RefusalKind,
    /// What was wrong and with what, for a person; at most 1024 bytes are shown.
    pub message: String,
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum RefusalKind {
    /// The guest speaks another version of the protocol, or the message makes no sense.
    Protocol,
    /// A disk, a module or a layer can't be used.
    Root,
    /// A mount can't be made.
    Mount,
    /// The network can't be set up.
    Network,
    /// The user or group isn't known to the image.
    User,
    /// The program doesn't exist (a shell's 127).
    NotFound,
    /// The program exists and can't be executed (a shell's 126).
    NotExecutable,
    /// Anything else.
    Other,
}

/// What the guest measured of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Stats {
    /// Memory of the guest in bytes.
    pub memory_total: u64,
    /// Memory that could still be given to processes, in bytes.
    pub memory_available: u64,
    /// CPU time of user code since boot, microseconds, all CPUs.
    pub cpu_user_us: u64,
    /// CPU time of the kernel since boot, microseconds, all CPUs.
    pub cpu_system_us: u64,
    /// Processes of the workload that live.
    pub processes: u32,
    /// Load average of one minute, in thousandths.
    pub load_milli: u64,
    /// Bytes written to the writable layer.
    pub upper_used: u64,
    /// Size of the writable layer in bytes.
    pub upper_total: u64,
    /// Bytes received by the network interface.
    pub network_received: u64,
    /// Bytes sent by the network interface.
    pub network_sent: u64,
}
