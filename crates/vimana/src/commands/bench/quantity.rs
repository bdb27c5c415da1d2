//! What is measured: names, units, and the words that explain it. Pure.

/// A part of the measurements that can be asked for alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Start,
    Memory,
    Syscalls,
    Cpu,
    Disk,
    Network,
}

impl Group {
    /// All of them, in the order in which they are measured and shown.
    pub const ALL: [Self; 6] =
        [Self::Start, Self::Memory, Self::Syscalls, Self::Cpu, Self::Disk, Self::Network];

    /// The word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Memory => "memory",
            Self::Syscalls => "syscalls",
            Self::Cpu => "cpu",
            Self::Disk => "disk",
            Self::Network => "network",
        }
    }

    /// Reads the word.
    ///
    /// # Errors
    /// It is none of them; the message names all.
    pub fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|group| group.word() == text);
        found.ok_or_else(|| format!("expected one of {}", Self::ALL.map(Self::word).join(", ")))
    }
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Bytes,
    BytesPerSecond,
    PerSecond(&'static str),
}

impl Unit {
    /// The name in JSON, where every number is in the plain unit.
    pub fn name(self) -> String {
        match self {
            Self::Seconds => "s".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::BytesPerSecond => "bytes/s".to_owned(),
            Self::PerSecond(what) => format!("{what}/s"),
        }
    }

    /// What a step of the axis is a multiple of.
    pub fn scale(self) -> f64 {
        match self {
            Self::Bytes => 1024.0 * 1024.0,
            Self::Seconds | Self::BytesPerSecond | Self::PerSecond(_) => 1.0,
        }
    }

    /// The number as a person reads it, with three digits.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value >= 1.0 => format!("{} s", digits(value)),
            Self::Seconds if value >= 1e-3 => format!("{} ms", digits(value * 1e3)),
            Self::Seconds => format!("{} µs", digits(value * 1e6)),
            Self::Bytes => format!("{} MiB", digits(value / self.scale())),
            Self::BytesPerSecond => prefixed(value, "B/s"),
            Self::PerSecond(_) => prefixed(value, "/s"),
        }
    }
}

fn prefixed(value: f64, unit: &str) -> String {
    let (value, prefix) = match value {
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    format!("{} {prefix}{unit}", digits(value))
}

/// Three digits that count, and no more zeros behind the point than the number needs.
pub fn digits(value: f64) -> String {
    let places = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 => 2,
        v if v >= 0.0995 => 3,
        v if v >= 0.00995 => 4,
        v if v > 0.0 => 5,
        _ => 0,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// One thing that is measured.
#[derive(Debug, PartialEq, Eq)]
pub struct Quantity {
    /// The name in JSON.
    pub id: &'static str,
    pub group: Group,
    /// The heading.
    pub title: &'static str,
    pub unit: Unit,
    pub less_is_better: bool,
    /// What the number is, for a person who sees it for the first time.
    pub what: &'static str,
    /// How it is measured, exactly.
    pub how: &'static str,
    /// What it doesn't say.
    pub but: &'static str,
}

/// How long an isolation is given for the work that is counted, in milliseconds of its own clock.
pub const WORK_MS: [u64; 2] = [500, 150];
/// How large the files are, in bytes.
pub const FILE_BYTES: [u64; 2] = [64 << 20, 16 << 20];
/// How long bytes are read from the network, in milliseconds.
pub const NETWORK_MS: [u64; 2] = [1000, 300];
/// The memory that every isolation is given, in MiB.
pub const MEMORY_MIB: u64 = 128;

/// Everything that is measured, in order.
pub static QUANTITIES: [Quantity; 11] = [
    Quantity {
        id: "start",
        group: Group::Start,
        title: "Start",
        unit: Unit::Seconds,
        less_is_better: true,
        what: "How long it takes from the command to the first thing that the program says.",
        how: "The time from executing the command (vimana run, crun run, QEMU, or the program itself) to the arrival of the program's first line on the command's standard output. Image, kernel, initramfs and compiled code are in their caches, since everything was started once before.",
        but: "The first start ever, which has to fetch and convert the image, takes longer.",
    },
    Quantity {
        id: "whole",
        group: Group::Start,
        title: "Start to end",
        unit: Unit::Seconds,
        less_is_better: true,
        what: "How long the whole command takes for a program that says hello and ends.",
        how: "The same start, until the command has ended: what was made for the run is cleared away by then.",
        but: "Bare QEMU ends when its guest reboots; nothing is unmounted there, and nothing cleared away.",
    },
    Quantity {
        id: "memory",
        group: Group::Memory,
        title: "Memory of an idle instance",
        unit: Unit::Bytes,
        less_is_better: true,
        what: "How much of this machine's memory one instance takes while its program does nothing.",
        how: "The sum of the proportional set sizes (Pss in /proc/PID/smaps) of the started command and all processes below it: command, keeper, virtual machine with the guest memory that it has touched, and the workload; one second after the program said that it is idle. Of a page that several processes share, each counts its part.",
        but: "The kernel's own memory for it (page tables, sockets, page cache) isn't counted. The program of Vimana is shared with the bench itself, so a part of its pages is counted there.",
    },
    Quantity {
        id: "memory-beyond",
        group: Group::Memory,
        title: "Memory beyond the workload's own",
        unit: Unit::Bytes,
        less_is_better: true,
        what: "What of it the isolation itself takes on this machine.",
        how: "The same sum without the workload's own process, and without the mapping that is a virtual machine's memory: what is left is the command, the keeper and the virtual machine monitor.",
        but: "A guest's kernel lives in the guest's memory, so it is in the row above and not in this one. A Wasm program lives in its keeper, whose whole size is counted here, and there is no way to tell them apart.",
    },
    Quantity {
        id: "syscalls",
        group: Group::Syscalls,
        title: "System calls",
        unit: Unit::PerSecond("calls"),
        less_is_better: false,
        what: "How often a second the program can ask its kernel for something small.",
        how: "getppid(2) in a loop, by one thread: nothing caches it, and the kernel does next to nothing for it, so it is the way there and back that is measured, seccomp filters included. A Wasm program has no system calls; it calls clock_time_get of WASI instead, the way out of its sandbox and back.",
        but: "In a virtual machine the guest's own kernel answers: the number says what that costs there, not how fast the way to this machine's kernel is.",
    },
    Quantity {
        id: "cpu",
        group: Group::Cpu,
        title: "Arithmetic",
        unit: Unit::PerSecond("steps"),
        less_is_better: false,
        what: "How fast plain computing goes.",
        how: "Steps of one 64-bit multiplication, an addition, a read and a write at a place that the product chooses in a table of 64 KiB, and a read that depends on the one before; one thread. The same steps are machine code natively and WebAssembly under Wasm.",
        but: "Neither vector instructions nor floating point nor large memory. Under emulation, code with these behaves differently.",
    },
    Quantity {
        id: "disk-write",
        group: Group::Disk,
        title: "Write to the root file system",
        unit: Unit::BytesPerSecond,
        less_is_better: false,
        what: "How fast a file is written so that it survives a power cut.",
        how: "A file on /, written in blocks of 1 MiB that don't compress, with one fsync(2) at the end, which counts. For the plain process, a file in the folder where Vimana keeps everything: the same disk of this machine.",
        but: "One large file, in order. Many small ones with a sync each are another matter.",
    },
    Quantity {
        id: "disk-read",
        group: Group::Disk,
        title: "Read from the root file system",
        unit: Unit::BytesPerSecond,
        less_is_better: false,
        what: "How fast the same file is read back.",
        how: "In blocks of 1 MiB, after the program has asked its kernel to forget the file (posix_fadvise(2), DONTNEED).",
        but: "A guest's kernel forgets; this machine's kernel may still hold the virtual disk in memory. So a virtual machine can look faster than the disk is.",
    },
    Quantity {
        id: "folder-write",
        group: Group::Disk,
        title: "Write to a folder of this machine",
        unit: Unit::BytesPerSecond,
        less_is_better: false,
        what: "The same file, in a folder of this machine that the workload was given (-v).",
        how: "Written and synced as above. A microVM gets the folder's files over its channel, a container by a bind mount, a Wasm program by WASI.",
        but: "One large file, in order.",
    },
    Quantity {
        id: "folder-read",
        group: Group::Disk,
        title: "Read from a folder of this machine",
        unit: Unit::BytesPerSecond,
        less_is_better: false,
        what: "And read back from there.",
        how: "As above, after the program has asked its kernel to forget the file.",
        but: "What stays in a cache on the way is not the same everywhere: a guest's request to forget doesn't reach this machine's kernel.",
    },
    Quantity {
        id: "network",
        group: Group::Network,
        title: "Network, from the workload",
        unit: Unit::BytesPerSecond,
        less_is_better: false,
        what: "How fast the workload can send to this machine.",
        how: "The program listens; the bench connects to the published port on 127.0.0.1 and reads for a second what one TCP connection brings.",
        but: "It never leaves this machine: a real network card has limits of its own.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        let shown = [0.0, 0.001_234, 0.5, 1.0, 12.345, 99.96, 1234.0].map(digits);
        assert_eq!(shown, ["0", "0.00123", "0.5", "1", "12.3", "100", "1234"]);
    }

    #[test]
    fn every_unit_is_shown_as_people_write_it() {
        assert_eq!(Unit::Seconds.show(0.012_34), "12.3 ms");
        assert_eq!(Unit::Seconds.show(1.5), "1.5 s");
        assert_eq!(Unit::Bytes.show(3.0 * 1024.0 * 1024.0), "3 MiB");
        assert_eq!(Unit::BytesPerSecond.show(2.5e8), "250 MB/s");
        assert_eq!(Unit::PerSecond("calls").show(12_345_678.0), "12.3 M/s");
    }

    #[test]
    fn every_quantity_has_a_name_of_its_own_and_every_group_has_one() {
        let mut ids: Vec<&str> = QUANTITIES.iter().map(|quantity| quantity.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), QUANTITIES.len());
        assert!(
            Group::ALL.into_iter().all(|group| QUANTITIES.iter().any(|quantity| quantity.group == group))
        );
        assert!(Group::parse("disks").unwrap_err().contains("disk, network"));
    }
}
