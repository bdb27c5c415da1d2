//! The driver **qemu**: QEMU's system emulator, with KVM or its own translator (TCG).
//!
//! The machine is `q35` with everything off that a guest on virtio doesn't use, and virtio 1 devices only. Each wire is a
//! descriptor at a fixed number, so that nothing has a path on disk:
//!
//! | number | wire |
//! |---|---|
//! | 100 | QEMU's control protocol, see [`qmp`] |
//! | 101 | the guest channel, a virtio-serial port named [`CHANNEL_PORT`] |
//! | next | the network card's frames or its tap, if there is a card |
//! | next | the serial console, if there is one |
//! | next | each disk |
//!
//! It is held to the manifest's processor time and to the guest's memory with [`overhead_mib`] on top by a control group, where
//! there can be one (see [`crate::cgroup`]).
//!
//! QEMU runs in a jail (see [`crate::jail`]), in which it finds its kernel, its initramfs and its own files, and nothing else.
//!
//! A kernel image that is an ELF file is entered through its PVH entry by the `qboot` firmware, where QEMU's package has
//! it: this is the fastest start that was measured (see `docs/adr/0004-the-guest-kernel-is-stored-uncompressed.md`).

mod qmp;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use self::qmp::Qmp;
use super::{
    Accelerator, Body, CHANNEL_PORT, ControlError, Disk, DiskRates, Driver, Ended, Execution, Instance,
    Machine, Observation, ObserveError, PrepareError, Prepared, SERIAL_MAX, StartError, StopError, Virtual,
    Wire, Wiring,
};
use crate::cgroup::{Group, Limits};
use crate::confinement::PROFILE;
use crate::jail::{self, Device, Ids, Jail};
use crate::network::Carrier;
use crate::spawn::{self, FIRST, Spawned, Status};

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
/// Where QEMU's packages keep the small firmware.
const QBOOT: [&str; 3] =
    ["/usr/share/qemu/qboot.rom", "/usr/local/share/qemu/qboot.rom", "/usr/share/qemu-kvm/qboot.rom"];
/// Everything off that a guest on virtio doesn't use.
const MACHINE: &str = "q35,usb=off,smbus=off,sata=off,vmport=off,hpet=off,graphics=off,i8042=off";
/// What the guest's kernel is told on every start; `rdinit` names the initramfs's PID 1. `panic=-1` with `-no-reboot`
/// makes a kernel panic the end of the machine.
const COMMAND_LINE: [&str; 3] = ["rdinit=/init", "panic=-1", "cryptomgr.notests"];

/// The most threads that QEMU may have beside those of its virtual processors: its workers for disks are 64.
const THREADS: u64 = 96;
/// The most files that it may have open.
const OPEN_FILES: u64 = 1024;
/// What QEMU may keep of translated code, in MiB.
const TRANSLATED_MIB: u64 = 128;
/// What QEMU takes for itself, in MiB, with what the kernel keeps of its program and firmware; and what it takes for each virtual
/// processor. Measured were 45 to 60 for a machine of one.
const OWN_MIB: u64 = 96;
const VCPU_MIB: u64 = 4;
/// The highest rate that QEMU takes (`THROTTLE_VALUE_MAX`).
const MAX_RATE: u64 = 1_000_000_000_000_000;
/// What QEMU calls the rate of the disks.
const RATES: &str = "disks";
/// The share of the guest's memory that the kernel needs for its page tables, twice what they are on x86-64.
const TABLES: u64 = 256;

/// The driver, with the program that it found.
#[derive(Clone, Debug)]
pub struct Qemu {
    program: Option<PathBuf>,
}

impl Qemu {
    /// Looks for QEMU on this machine. Whether it was there is told by [`Driver::prepare`] or [`Qemu::program`].
    pub fn find() -> Self {
        Self { program: spawn::find(PROGRAM) }
    }

    /// The program that will be executed, if there is one.
    pub fn program(&self) -> Option<&Path> {
        self.program.as_deref()
    }
}

impl Driver for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn prepare(&self, machine: &Machine) -> Result<Prepared, PrepareError> {
        let missing = PrepareError::NoProgram { program: PROGRAM, package: PACKAGE };
        let program = self.program.clone().ok_or(missing)?;
        let Body::Virtual(hardware) = &machine.body else {
            return Err(PrepareError::Body { driver: self.name(), body: machine.body.kind() });
        };
        let vcpus = machine.cpu_milli.div_ceil(1000);
        check(machine, hardware, vcpus)?;
        let mut args = Args(Vec::new());
        args.flags(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        args.pair("-name", format!("guest=vimana-{}", machine.name));
        args.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        args.pair("-M", MACHINE);
        let (accelerator, processor) = match hardware.accelerator {
            Accelerator::Kvm => ("kvm".to_owned(), "host"),
            Accelerator::Tcg => (format!("tcg,thread=multi,tb-size={TRANSLATED_MIB}"), "max"),
        };
        args.pair("-accel", accelerator);
        args.pair("-cpu", processor);
        args.pair("-smp", vcpus.to_string());
        args.pair("-m", format!("{}M", machine.memory_mib));
        args.kernel(hardware)?;
        args.channel();
        let mut number = FIRST + 2;
        if let Some(network) = machine.network {
            args.network(number, network);
            number += 1;
        }
        if hardware.console {
            args.pair("-chardev", format!("socket,id=console,fd={number}"));
            args.pair("-serial", "chardev:console");
            number += 1;
        }
        let rates = hardware.rates;
        args.rates(rates);
        for (disk, number) in hardware.disks.iter().zip(number..) {
            args.disk(number, disk, rates != DiskRates::default())?;
        }
        let overhead = overhead_mib(hardware.accelerator, vcpus, machine.memory_mib);
        let limits = Limits {
            cpu_milli: machine.cpu_milli,
            memory_bytes: machine.memory_mib.saturating_add(overhead).saturating_mul(1 << 20),
            threads: u64::from(vcpus).saturating_add(THREADS),
            class: machine.class,
        };
        let kernel = [&hardware.kernel, &hardware.initramfs].map(|path| absolute(path).map(PathBuf::from));
        let kernel = kernel.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(Prepared {
            driver: self.name(),
            network: machine.network.is_some(),
            console: hardware.console,
            execution: Execution::Program {
                shown: kernel.into_iter().chain(own_files(&program)).collect(),
                program,
                args: args.0,
                disks: hardware.disks.clone(),
                accelerator: hardware.accelerator,
                vcpus,
                cache: hardware.cache.clone(),
                profile: hardware.profile,
                class: machine.class,
                group: hardware.folder.clone().map(|folder| (folder, limits)),
            },
        })
    }

    fn start(&self, prepared: &Prepared, wiring: Wiring) -> Result<Box<dyn Instance>, StartError> {
        wired("a network", prepared.network, wiring.network.is_some())?;
        wired("a console", prepared.console, wiring.console.is_some())?;
        let Execution::Program {
            program,
            args,
            disks,
            shown,
            accelerator,
            vcpus,
            cache,
            profile,
            class,
            group,
        } = &prepared.execution
        else {
            return Err(StartError::Prepared { driver: self.name(), other: prepared.driver });
        };
        let failed = |source| StartError::Execute { program: program.clone(), source };
        let (qmp, theirs) = Qmp::pair().map_err(failed)?;
        let network = wiring.network.map(|wire| match wire {
            Wire::Stream(end) | Wire::Tap(end) => Ok(end),
            Wire::Pair(_) => Err(StartError::Wiring { wire: "an interface of its own", prepared: "without" }),
        });
        let wires = [Some(theirs), Some(wiring.channel), network.transpose()?, wiring.console];
        let mut fds: Vec<OwnedFd> = wires.into_iter().flatten().collect();
        let mut file_bytes = 0;
        for disk in disks {
            let (opened, bytes) = open(disk).map_err(failed)?;
            file_bytes = file_bytes.max(if disk.readonly { 0 } else { bytes });
            fds.push(opened);
        }
        let closure = jail::closure(program, cache.as_deref()).map_err(failed)?;
        let mut devices = vec![Device::Null, Device::Urandom];
        if *accelerator == Accelerator::Kvm {
            devices.push(Device::Kvm);
        }
        let root = rustix::process::geteuid().is_root();
        let group = group.as_ref().map(|(folder, limits)| {
            let group = Group::prepare(folder)?;
            group.make(limits).map(|()| (group, limits.memory_bytes))
        });
        let group = group
            .transpose()
            .map_err(|error| failed(io::Error::other(format!("its control group: {error}"))))?;
        let jail = Jail {
            shown: closure.into_iter().chain(shown.iter().cloned()).collect(),
            devices,
            calls: (*accelerator).into(),
            open_files: OPEN_FILES,
            file_bytes,
            threads: u64::from(*vcpus).saturating_add(THREADS),
            ids: root.then(Ids::take).transpose().map_err(failed)?,
            group: group.as_ref().map(|(group, _)| group.clone()),
            class: *class,
            profile: profile.then_some(PROFILE),
            without: Vec::new(),
        };
        let spawned = jail.start(program, args, fds).map_err(|error| {
            if let Some((group, _)) = &group {
                // Why it didn't start matters more.
                let _ = group.remove();
            }
            failed(error)
        })?;
        Ok(Box::new(Running { spawned, qmp, ended: None, group, _jail: jail }))
    }
}

/// How much memory the monitor of a machine may take beside the guest's own, in MiB.
pub fn overhead_mib(accelerator: Accelerator, vcpus: u32, memory_mib: u64) -> u64 {
    let translated = if accelerator == Accelerator::Tcg { TRANSLATED_MIB } else { 0 };
    OWN_MIB
        .saturating_add(translated)
        .saturating_add(u64::from(vcpus).saturating_mul(VCPU_MIB))
        .saturating_add(memory_mib / TABLES)
}

/// Opens a disk for QEMU, which has no right to its path; says how many bytes it has.
fn open(disk: &Disk) -> io::Result<(OwnedFd, u64)> {
    let mut file =
        fs::OpenOptions::new().read(true).write(!disk.readonly).open(&disk.path).map_err(|error| {
            io::Error::new(error.kind(), format!("opening the disk {}: {error}", disk.path.display()))
        })?;
    // A block device has no length of its own.
    let bytes = io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
    Ok((file.into(), bytes))
}

/// Where QEMU's packages keep its firmware and its loadable parts.
fn own_files(program: &Path) -> impl Iterator<Item = PathBuf> {
    let above = program.parent().and_then(Path::parent).unwrap_or(Path::new("/usr")).to_owned();
    let machine = format!("lib/{}-linux-gnu/qemu", std::env::consts::ARCH);
    let folders = ["share/qemu", "share/seabios", "share/qemu-kvm", &machine, "lib/qemu", "lib64/qemu-kvm"]
        .map(|folder| above.join(folder));
    folders.into_iter().filter(|folder| folder.is_dir())
}

fn wired(wire: &'static str, prepared: bool, given: bool) -> Result<(), StartError> {
    if prepared == given {
        return Ok(());
    }
    Err(StartError::Wiring { wire, prepared: if prepared { "with" } else { "without" } })
}

fn check(machine: &Machine, hardware: &Virtual, vcpus: u32) -> Result<(), PrepareError> {
    let value =
        |what: &str, found: String, wanted| Err(PrepareError::Value { what: what.to_owned(), found, wanted });
    if !name_like(&machine.name, 64) {
        let wanted = "1 to 64 letters, digits, '-', '_' or '.'";
        return value("the machine's name", format!("{:?}", machine.name), wanted);
    }
    if !(1..=255).contains(&vcpus) {
        return value("the number of vCPUs", vcpus.to_string(), "1 to 255");
    }
    if !(32..=16 * 1024 * 1024).contains(&machine.memory_mib) {
        return value("the memory", format!("{} MiB", machine.memory_mib), "32 MiB to 16 TiB");
    }
    for argument in &hardware.command_line {
        if argument.is_empty() || argument.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return value("a kernel argument", format!("{argument:?}"), "a word without white space");
        }
    }
    let mut serials = BTreeSet::new();
    for disk in &hardware.disks {
        if !name_like(&disk.serial, SERIAL_MAX) {
            let what = format!("the serial of the disk {}", disk.path.display());
            return value(&what, format!("{:?}", disk.serial), "1 to 20 letters, digits, '-', '_' or '.'");
        }
        if !serials.insert(&disk.serial) {
            return Err(PrepareError::SerialTwice(disk.serial.clone()));
        }
    }
    if hardware.rates.operations == Some(0)
        || hardware.rates.bytes.is_some_and(|rate| !(1..=MAX_RATE).contains(&rate))
    {
        return value("the disks' rates", format!("{:?}", hardware.rates), "1 to 10^15 in a second, or none");
    }
    match machine.network {
        Some(network) if network.mtu < 68 => value("the MTU", network.mtu.to_string(), "68 to 65520"),
        Some(network) if network.mtu > 65520 => value("the MTU", network.mtu.to_string(), "68 to 65520"),
        Some(network) if network.mac.0[0] & 1 == 1 => value(
            "the hardware address",
            network.mac.to_string(),
            "an address of one card (its first byte even)",
        ),
        _ => Ok(()),
    }
}

fn name_like(text: &str, most: usize) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=most).contains(&text.len()) && text.bytes().all(plain)
}

/// An absolute path as text. QEMU runs in `/`.
fn absolute(path: &Path) -> Result<String, PrepareError> {
    let whole = std::path::absolute(path).map_err(|_| PrepareError::Path(path.to_owned()))?;
    whole.into_os_string().into_string().map_err(|_| PrepareError::Path(path.to_owned()))
}

/// QEMU's arguments as they grow.
struct Args(Vec<OsString>);

impl Args {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(OsString::from));
    }

    fn pair(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.extend([option.into(), value.into()]);
    }

    fn kernel(&mut self, hardware: &Virtual) -> Result<(), PrepareError> {
        if starts_with_elf(&hardware.kernel)
            && let Some(firmware) = QBOOT.iter().find(|path| Path::new(path).is_file())
        {
            self.pair("-bios", *firmware);
        }
        self.pair("-kernel", absolute(&hardware.kernel)?);
        self.pair("-initrd", absolute(&hardware.initramfs)?);
        let console = if hardware.console { "console=ttyS0" } else { "quiet 8250.nr_uarts=0" };
        let own = COMMAND_LINE.into_iter().chain([console]);
        let words: Vec<&str> = own.chain(hardware.command_line.iter().map(String::as_str)).collect();
        self.pair("-append", words.join(" "));
        Ok(())
    }

    fn channel(&mut self) {
        self.pair("-chardev", format!("socket,id=control,fd={FIRST}"));
        self.pair("-mon", "chardev=control,mode=control");
        self.pair("-chardev", format!("socket,id=channel,fd={}", FIRST + 1));
        self.pair("-device", "virtio-serial-pci,disable-legacy=on,max_ports=2");
        self.pair("-device", format!("virtserialport,chardev=channel,name={CHANNEL_PORT}"));
    }

    /// The bucket that all disks take from: each may have what the others leave.
    fn rates(&mut self, rates: DiskRates) {
        if rates == DiskRates::default() {
            return;
        }
        let limits =
            json!({ "iops-total": rates.operations.unwrap_or(0), "bps-total": rates.bytes.unwrap_or(0) });
        let group = json!({ "qom-type": "throttle-group", "id": RATES, "limits": limits });
        self.pair("-object", group.to_string());
    }

    fn disk(&mut self, number: i32, disk: &Disk, limited: bool) -> Result<(), PrepareError> {
        let node = format!("disk{number}");
        // What the set is, is only for those who read this line; a comma in it is written twice.
        let path = absolute(&disk.path)?.replace(',', ",,");
        self.pair("-add-fd", format!("fd={number},set={number},opaque={path}"));
        let mut file = json!({
            "driver": "raw", "read-only": disk.readonly, "discard": "unmap",
            "file": {
                "driver": backing(&disk.path), "filename": format!("/dev/fdset/{number}"), "read-only": disk.readonly,
            },
        });
        if limited {
            file = json!({
                "driver": "throttle", "throttle-group": RATES, "read-only": disk.readonly, "discard": "unmap", "file": file,
            });
        }
        if let Some(file) = file.as_object_mut() {
            file.insert("node-name".to_owned(), json!(node));
        }
        self.pair("-blockdev", file.to_string());
        let serial = &disk.serial;
        self.pair("-device", format!("virtio-blk-pci,disable-legacy=on,drive={node},serial={serial}"));
        Ok(())
    }

    fn network(&mut self, number: i32, network: super::Network) {
        let super::Network { mac, mtu, carrier } = network;
        let end = match carrier {
            Carrier::Passt => format!("stream,id=net,addr.type=fd,addr.str={number}"),
            Carrier::Routed => format!("tap,id=net,fd={number}"),
        };
        self.pair("-netdev", end);
        let device = format!("virtio-net-pci,disable-legacy=on,netdev=net,mac={mac},host_mtu={mtu},romfile=");
        self.pair("-device", device);
    }
}

/// QEMU reads files and block devices with different block drivers.
fn backing(path: &Path) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match fs::metadata(path) {
        Ok(status) if status.file_type().is_block_device() => "host_device",
        _ => "file",
    }
}

fn starts_with_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

/// A running QEMU.
#[derive(Debug)]
struct Running {
    spawned: Spawned,
    qmp: Qmp,
    ended: Option<Ended>,
    /// Its control group, and the bytes of memory that this may take.
    group: Option<(Group, u64)>,
    /// Its user is nobody else's until it has ended.
    _jail: Jail,
}

impl Running {
    fn wait_error(&self, source: io::Error) -> StopError {
        StopError::Wait { pid: self.pid(), source }
    }

    fn keep(&mut self, status: Status) -> Ended {
        let Status { code, signal } = status;
        let mut stderr = self.spawned.stderr();
        if let Some((group, bytes)) = self.group.take() {
            if group.killed_for_memory() > 0 {
                let most = bytes >> 20;
                stderr = format!(
                    "its monitor took more memory than the {most} MiB that guest and monitor may; {stderr}"
                );
            }
            // What can't be removed now, the next command clears away: how it ended counts more.
            let _ = group.remove();
        }
        self.ended.insert(Ended { code, signal, stderr }).clone()
    }

    fn proc(&self, file: &str) -> Result<String, ObserveError> {
        let path = format!("/proc/{}/{file}", self.spawned.pid());
        fs::read_to_string(path).map_err(ObserveError::Proc)
    }
}

impl Instance for Running {
    fn pid(&self) -> i32 {
        self.spawned.pid()
    }

    fn handle(&self) -> BorrowedFd<'_> {
        self.spawned.handle()
    }

    fn pause(&mut self) -> Result<(), ControlError> {
        self.qmp.execute("stop").map(drop)
    }

    fn resume(&mut self) -> Result<(), ControlError> {
        self.qmp.execute("cont").map(drop)
    }

    fn observe(&mut self) -> Result<Observation, ObserveError> {
        // Until it is reaped the process can't be another one, so its number is safe to use.
        if self.ended().ok().flatten().is_some() {
            return Err(ObserveError::Ended);
        }
        let broken = || ObserveError::Proc(io::ErrorKind::InvalidData.into());
        observation(&self.proc("stat")?, &self.proc("statm")?).ok_or_else(broken)
    }

    fn stop(&mut self) -> Result<Ended, StopError> {
        if let Some(ended) = &self.ended {
            return Ok(ended.clone());
        }
        self.spawned.kill().map_err(|error| self.wait_error(error))?;
        let status = self.spawned.wait().map_err(|error| self.wait_error(error))?;
        Ok(self.keep(status))
    }

    fn ended(&mut self) -> Result<Option<Ended>, StopError> {
        if let Some(ended) = &self.ended {
            return Ok(Some(ended.clone()));
        }
        let status = self.spawned.try_wait().map_err(|error| self.wait_error(error))?;
        Ok(status.map(|status| self.keep(status)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Whoever drops it without asking wants it gone, and has nobody to tell.
        let _ = self.stop();
    }
}

/// Reads `/proc/PID/stat` and `/proc/PID/statm` (proc(5)).
fn observation(stat: &str, statm: &str) -> Option<Observation> {
    // The second field is the name in parentheses and may contain anything.
    let fields: Vec<&str> = stat.get(stat.rfind(')')?..)?.split_whitespace().collect();
    let field = |number: usize| fields.get(number.checked_sub(2)?)?.parse::<u64>().ok();
    let ticks = field(14)?.checked_add(field(15)?)?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let tick_rate = rustix::param::clock_ticks_per_second().max(1);
    let micros = u128::from(ticks).checked_mul(1_000_000)?.checked_div(u128::from(tick_rate))?;
    Some(Observation {
        resident_bytes: pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)?,
        cpu: Duration::from_micros(u64::try_from(micros).ok()?),
        threads: field(20)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Class, Mac, Network};

    fn machine() -> Machine {
        Machine {
            name: "test".into(),
            cpu_milli: 1000,
            memory_mib: 128,
            class: Class::default(),
            network: None,
            body: Body::Virtual(Virtual {
                accelerator: Accelerator::Tcg,
                kernel: "/k/vmlinux".into(),
                initramfs: "/k/initramfs".into(),
                command_line: Vec::new(),
                disks: Vec::new(),
                rates: DiskRates::default(),
                profile: false,
                console: false,
                cache: None,
                folder: None,
            }),
        }
    }

    fn hardware(machine: &mut Machine) -> &mut Virtual {
        match &mut machine.body {
            Body::Virtual(hardware) => hardware,
            other => unreachable!("{other:?}"),
        }
    }

    fn qemu() -> Qemu {
        Qemu { program: Some("/usr/bin/qemu-system-x86_64".into()) }
    }

    fn line(machine: &Machine) -> String {
        qemu().prepare(machine).expect("a machine that can be prepared").to_string()
    }

    #[test]
    fn without_the_program_the_error_says_how_to_get_it() {
        let error = Qemu { program: None }.prepare(&machine()).unwrap_err().to_string();
        assert!(error.contains("sudo apt-get install qemu-system-x86"), "{error}");
    }

    #[test]
    fn a_bare_machine_has_neither_network_nor_console_nor_legacy_devices() {
        let line = line(&machine());
        for absent in ["-netdev", "-serial ", "user,", "vga", "-usb"] {
            assert!(!line.contains(absent), "{absent} in {line}");
        }
        assert!(line.contains("-nodefaults") && line.contains("spawn=deny"), "{line}");
    }

    #[test]
    fn a_path_with_commas_and_quotes_stays_one_path() {
        let mut machine = machine();
        let path = PathBuf::from("/a,b\"c/disk.img");
        hardware(&mut machine).disks.push(Disk { path, readonly: true, serial: "layer-0".into() });
        let prepared = qemu().prepare(&machine).unwrap();
        let Execution::Program { args, .. } = &prepared.execution else { panic!("{prepared:?}") };
        let blockdev = args.iter().find(|a| a.to_string_lossy().starts_with('{')).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&blockdev.to_string_lossy()).unwrap();
        assert_eq!(parsed["file"]["filename"], "/dev/fdset/102");
        assert_eq!(parsed["read-only"], true);
        let set = args.iter().find(|a| a.to_string_lossy().starts_with("fd=")).unwrap();
        assert_eq!(set, "fd=102,set=102,opaque=/a,,b\"c/disk.img");
    }

    #[test]
    fn the_wires_have_the_numbers_in_their_order() {
        let mut machine = machine();
        hardware(&mut machine).console = true;
        assert!(line(&machine).contains("socket,id=console,fd=102"));
        machine.network =
            Some(Network { mac: Mac([0x52, 0x54, 0, 1, 2, 3]), mtu: 1400, carrier: Carrier::Passt });
        let both = line(&machine);
        assert!(both.contains("addr.str=102") && both.contains("socket,id=console,fd=103"), "{both}");
        assert!(both.contains("mac=52:54:00:01:02:03,host_mtu=1400"), "{both}");
    }

    #[test]
    fn what_could_smuggle_an_option_in_is_refused() {
        let disk = |serial: &str| Disk { path: "/d".into(), readonly: true, serial: serial.into() };
        let refused: [fn(&mut Machine); 8] = [
            |m| hardware(m).rates.operations = Some(0),
            |m| hardware(m).rates.bytes = Some(u64::MAX),
            |m| m.name = "a,b".into(),
            |m| m.cpu_milli = 0,
            |m| m.memory_mib = u64::MAX,
            |m| hardware(m).command_line = vec!["a b".into()],
            |m| hardware(m).command_line = vec![String::new()],
            |m| m.network = Some(Network { mac: Mac([1; 6]), mtu: 1500, carrier: Carrier::Passt }),
        ];
        for spoil in refused {
            let mut machine = machine();
            spoil(&mut machine);
            assert!(matches!(qemu().prepare(&machine), Err(PrepareError::Value { .. })), "{machine:?}");
        }
        for serial in ["", "a,readonly=off", "123456789012345678901"] {
            let mut machine = machine();
            hardware(&mut machine).disks.push(disk(serial));
            assert!(matches!(qemu().prepare(&machine), Err(PrepareError::Value { .. })), "{serial}");
        }
        let mut twice = machine();
        hardware(&mut twice).disks = vec![disk("a"), disk("a")];
        assert!(matches!(qemu().prepare(&twice), Err(PrepareError::SerialTwice(_))));
    }

    #[test]
    fn a_process_s_use_is_read_whatever_its_name_is() {
        let stat =
            "7 (a ) b) S 1 7 7 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 3 0 99 1000 12 18446744073709551615";
        let seen = observation(stat, "1000 12 3 1 0 5 0").unwrap();
        assert_eq!(seen.threads, 3);
        assert_eq!(seen.resident_bytes, 12 * rustix::param::page_size() as u64);
        assert_eq!(seen.cpu, Duration::from_secs(200) / rustix::param::clock_ticks_per_second() as u32);
        assert!(observation("7 (a", "").is_none());
    }
}
