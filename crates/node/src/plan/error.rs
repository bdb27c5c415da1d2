//! Why there is no plan.

use hac::model::{Isolation, Provider};
use hac::settings::Contradiction;
use hac::units::Bytes;

use crate::volume::Conflict;

/// Why a manifest can't be fulfilled on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// KVM is asked for and doesn't work here.
    #[error("{}KVM doesn't work on this machine: {why}{}", asks(provider.as_deref()), instead(*high))]
    NoKvm {
        /// Why not.
        why: String,
        /// The provider that asks for it, if one does.
        provider: Option<String>,
        /// Whether high security is asked for, which nothing else can give.
        high: bool,
    },
    /// High security demands hardware virtualisation.
    #[error(
        "spec.virtualization.criteria.security = \"high\" demands hardware virtualisation{}; with \"standard\" QEMU's emulator (TCG) would run it",
        because(why.as_deref())
    )]
    HighSecurityNeedsKvm {
        /// Why KVM doesn't work here.
        why: Option<String>,
    },
    /// High security demands a virtual machine.
    #[error(
        "spec.virtualization.criteria.security = \"high\" demands hardware virtualisation, which a {isolation} hasn't; spec.virtualization.type = \"MicroVM\" has, or ask for \"standard\""
    )]
    HighSecurityIsolation {
        /// The isolation that is asked for.
        isolation: Isolation,
    },
    /// High security demands the whole jail.
    #[error(
        "spec.virtualization.criteria.security = \"high\" demands the full jail around the virtual machine monitor, and what there is here is {there}; run vimana as root, or ask for \"standard\""
    )]
    HighSecurityNeedsJail {
        /// What there is of it.
        there: &'static str,
    },
    /// High security demands a control group.
    #[error(
        "spec.virtualization.criteria.security = \"high\" demands a control group around the virtual machine monitor: {why}; or ask for \"standard\""
    )]
    HighSecurityNeedsLimits {
        /// Why there is none.
        why: String,
    },
    /// High security demands that images are scanned.
    #[error(
        "spec.virtualization.criteria.security = \"high\" demands that images are scanned, and those with known flaws that are high or worse refused: {remedy}; or ask for \"standard\""
    )]
    HighSecurityNeedsScan {
        /// What to write where.
        remedy: String,
    },
    /// The kernel can't filter system calls.
    #[error("this machine's kernel has no seccomp filters, and nothing runs without them; see vimana doctor")]
    NoSeccomp,
    /// Emulation and a provider that excludes it.
    #[error(
        "spec.virtualization asks for provider {provider}, which needs KVM, and for accel tcg; drop one of them"
    )]
    ProviderAgainstTcg {
        /// The provider.
        provider: Provider,
    },
    /// An isolation that no driver gives yet.
    #[error(
        "no driver provides the isolation {isolation} yet; MicroVM, Container and Wasm are there, and nothing replaces what was asked for by itself"
    )]
    IsolationNotYet {
        /// The isolation.
        isolation: Isolation,
    },
    /// A provider that there is no driver for yet.
    #[error("there is no driver for {provider} yet; provider = \"QEMU\", or none at all, runs it in QEMU")]
    ProviderNotYet {
        /// The provider.
        provider: Provider,
    },
    /// More memory than the machine has.
    #[error("{} MiB of memory are asked for (-m, spec.resources.memory); this machine has {} MiB", wanted / 1_048_576, there / 1_048_576)]
    Memory {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes there.
        there: u64,
    },
    /// A writable disk of an impossible size.
    #[error("spec.resources.storage asks for {bytes} bytes; a disk has {least} to {most}")]
    Storage {
        /// Bytes asked for.
        bytes: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A rate for disks at which nothing would work.
    #[error("{key} is too low for anything to start; at least {least}, or leave it out for no limit")]
    DiskRate {
        /// The key.
        key: &'static str,
        /// The least.
        least: String,
    },
    /// A rate for what isn't a disk of its own.
    #[error(
        "spec.resources.iops and disk_bandwidth can't be held for a {isolation}: {}; a MicroVM's disks can: spec.virtualization.type = \"MicroVM\", or --isolation MicroVM",
        not_a_disk(*isolation)
    )]
    DiskRates {
        /// The isolation.
        isolation: Isolation,
    },
    /// An image without a file system.
    #[error("the image {image} has no layers, so there is nothing to run")]
    EmptyImage {
        /// The image.
        image: String,
    },
    /// The image demands what the manifest says the opposite of.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// What the image demands can't be had here.
    #[error("with the settings that the image carries, {changes}, it can't run here")]
    Tightened {
        /// What they change.
        changes: String,
        /// Why it can't.
        #[source]
        source: Box<PlanError>,
    },
    /// Nothing says what to run.
    #[error("the image {image} names no command; give one behind `--`, or as spec.deployment.command")]
    NoCommand {
        /// The image.
        image: String,
    },
    /// A stop signal that doesn't exist.
    #[error("the image {image} names {signal} as its stop signal, which is no signal of Linux")]
    StopSignal {
        /// The image.
        image: String,
        /// What it says.
        signal: String,
    },
    /// A secret that isn't there.
    #[error(
        "spec.deployment.secrets names {name}, and there is no such secret here; make it with: vimana secret set {name} < FILE"
    )]
    Secret {
        /// Its name.
        name: String,
    },
    /// A Wasm program of a user's has no folder in memory.
    #[error(
        "spec.deployment.secrets: only root can give a Wasm program a folder in memory, which /run/secrets is; run it as root, as MicroVM or Container, or drop them"
    )]
    SecretsInWasm,
    /// An encrypted volume where this machine's kernel would have the key.
    #[error(
        "spec.mounts has the volume {volume} encrypted, and in a {isolation} this machine's kernel would read and write its files, and so hold its key; run it as MicroVM, whose own kernel does that, or encrypt the disk below VIMANA_HOME and drop encrypted = true"
    )]
    EncryptedHere {
        /// The volume.
        volume: String,
        /// The isolation that was asked for.
        isolation: Isolation,
    },
    /// A volume of an impossible size.
    #[error("spec.mounts gives the volume {volume} a size of {}; a volume has {} to {}", Bytes(*bytes), Bytes(*least), Bytes(*most))]
    VolumeSize {
        /// The volume.
        volume: String,
        /// Bytes asked for.
        bytes: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A volume that is there, and isn't what is asked for.
    #[error(transparent)]
    Volume(#[from] Conflict),
    /// A Wasm program serves no page.
    #[error(
        "spec.observability.metrics: a Wasm program has nobody beside it who could fetch its metrics; run it as MicroVM or Container, or drop the key"
    )]
    MetricsInWasm,
    /// Something mounted that a Wasm program can't be given.
    #[error(
        "{what} is to be mounted at {destination}, and a Wasm program can be given folders and volumes alone; {instead}"
    )]
    NoFolder {
        /// Where.
        destination: String,
        /// What.
        what: String,
        /// What would be right.
        instead: &'static str,
    },
    /// Containers don't work here.
    #[error(
        "no container can run on this machine: {why}; a MicroVM would: spec.virtualization.type = \"MicroVM\", or --isolation MicroVM"
    )]
    NoContainers {
        /// Why not.
        why: String,
    },
    /// Another user than root in a container that has only one.
    #[error(
        "the workload's user is {user:?} (spec.deployment.user, or the image's own), and without root this user has no further ids to give a container; sudo apt-get install uidmap, with a range of 65535 ids in /etc/subuid and /etc/subgid, gives it some; or run it as root: user = \"0\""
    )]
    OneId {
        /// The user.
        user: String,
    },
    /// A virtual machine without a kernel.
    #[error("there is no guest kernel; get one with: vimana kernel fetch")]
    NoKernel,
    /// A Wasm program that is to run as something else.
    #[error(
        "the image {image} is a Wasm program, which the isolation Wasm alone can run: spec.virtualization.type = \"Wasm\", or --isolation Wasm"
    )]
    OnlyWasm {
        /// The image.
        image: String,
    },
    /// An image without a Wasm program.
    #[error("the image {image} holds no Wasm program; MicroVM and Container run what it holds")]
    NoWasm {
        /// The image.
        image: String,
    },
    /// A terminal for a Wasm program.
    #[error("a Wasm program has no terminal, because WASI knows none; leave out -t")]
    NoTerminal,
    /// Something about a root file system, for a Wasm program.
    #[error(
        "{key} is about the root file system, and a Wasm program has none: it reaches the folders that spec.mounts grants"
    )]
    NoRoot {
        /// The key.
        key: &'static str,
    },
    /// A mount point that can't be one.
    #[error("{destination:?} can't be a mount point; it must be an absolute path below /, without `..`")]
    Destination {
        /// The path.
        destination: String,
    },
    /// Arguments, variables and mounts that don't fit into one message to the guest.
    #[error("arguments, environment and mounts take {bytes} bytes together; a spacecore can be given {most}")]
    TooLong {
        /// Bytes that they take.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// More virtual CPUs than a machine can have.
    #[error("{vcpus} virtual CPUs are asked for (--cpus, spec.resources.cpu); a machine can have 1 to 255")]
    Cpus {
        /// How many.
        vcpus: u32,
    },
    /// A place that belongs to the kernel.
    #[error("{destination:?} can't be a mount point: /proc, /sys and /dev are the guest kernel's")]
    KernelFolder {
        /// The path.
        destination: String,
    },
    /// Two mounts at one place.
    #[error("two mounts have the destination {destination}; each needs its own")]
    DestinationTwice {
        /// The path.
        destination: String,
    },
    /// Too many folders.
    #[error("{count} folders are to be mounted; a spacecore can have {most}")]
    TooManyFolders {
        /// How many.
        count: usize,
        /// The most.
        most: u16,
    },
    /// A network among spacecores alone needs the kernel to carry it.
    #[error(
        "spec.networking.network_type = \"private\" can't be had here: {missing}; nothing more open replaces it by itself, \"public\" and \"none\" are there"
    )]
    PrivateNotRouted {
        /// Why the kernel can't carry it.
        missing: String,
    },
    /// The kernel was asked to carry the network, and can't here.
    #[error(
        "the kernel can't carry a spacecore's network here: {missing}; leave out --carrier routed, or mend that"
    )]
    NotRouted {
        /// Why not.
        missing: String,
    },
    /// Ports of a spacecore without a network.
    #[error("ports are to be published, and spec.networking.network_type is \"none\"; drop one of them")]
    PortsWithoutNetwork,
    /// Ports of a program without sockets.
    #[error(
        "ports are to be published, and the Wasm program imports no sockets, so that nothing would ever answer there; leave them out"
    )]
    PortsWithoutSockets,
    /// One port of the host for two of the guest.
    #[error(
        "port {port} of this machine is to be published twice; publish one of them elsewhere with -p HOST:GUEST"
    )]
    PortTwice {
        /// The port.
        port: u16,
    },
}

fn asks(provider: Option<&str>) -> String {
    provider
        .map(|provider| format!("spec.virtualization.provider asks for {provider}, and "))
        .unwrap_or_default()
}

fn instead(high: bool) -> &'static str {
    if high {
        ", and security = \"high\" accepts nothing less"
    } else {
        "; QEMU's emulator (TCG) would run it: ask for that with --accel tcg and without a provider that needs KVM"
    }
}

fn not_a_disk(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Container => {
            "the host's kernel writes its files back later, for all of the machine at once"
        }
        _ => "its files are read and written by the process that runs it",
    }
}

fn because(why: Option<&str>) -> String {
    why.map(|why| format!(", and KVM doesn't work on this machine: {why}")).unwrap_or_default()
}
