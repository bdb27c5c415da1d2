//! What the kernel's network of a spacecore costs, on a machine and in a world made of network namespaces.
//!
//! `network_speed starts COUNT` makes so many networks, one after the other, and then removes them: the median of one alone, what one
//! of the first and one of the last costs. `network_speed wire KERNELS ROUNDS` boots the same virtual machine by turns at a network's
//! tap and at a bare tap on the machine, has it send to the world, and prints throughput and latency of both.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hypercore::driver::qemu::Qemu;
use hypercore::driver::{
    Accelerator, Body, Class, DiskRates, Driver, Machine, Network, Virtual, Wire, Wiring,
};
use hypercore::initramfs;
use hypercore::kernel::KernelStore;
use hypercore::network::{Carrier, MAC, NetworkPlan};
use hypercore::routed::Routed;
use hypercore::tap;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How long a sender is measured, after what its start takes.
const MEASURED: Duration = Duration::from_secs(4);
const SETTLES: Duration = Duration::from_secs(1);
const MTU: u32 = 1500;
const BARE: &str = "bare";
/// What this program is told where it is a keeper.
const HOLD: &str = "hold";

fn main() -> Fallible<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if words == [HOLD] {
        return hold();
    }
    let world = spaces()?;
    match words[..] {
        ["starts", count] => starts(count.parse()?),
        ["wire", kernels, rounds] => wire(Path::new(kernels), rounds.parse()?, &world),
        _ => Err("network_speed starts COUNT | wire KERNELS ROUNDS".into()),
    }
}

/// Moves this thread to a network namespace of its own, the machine; the world is in another one.
#[allow(unsafe_code)]
fn spaces() -> Fallible<OwnedFd> {
    let make = || -> Fallible<OwnedFd> {
        // SAFETY: a network namespace says which interfaces sockets find; it concerns neither memory nor descriptors.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    };
    let world = make()?;
    for words in ["link set lo up", "addr add 198.51.100.10/32 dev lo"] {
        ip(words)?;
    }
    let machine = make()?;
    ip("link set lo up")?;
    ip(&format!(
        "link add v0 type veth peer name v1 netns /proc/{}/fd/{}",
        std::process::id(),
        number(&world)
    ))?;
    ip("addr add 203.0.113.2/24 dev v0")?;
    ip("link set v0 up")?;
    ip("route add default via 203.0.113.1")?;
    within(&world, &machine, || {
        ip("addr add 203.0.113.1/24 dev v1")?;
        ip("link set v1 up")?;
        ip("route add 10.0.0.0/8 via 203.0.113.2")
    })?;
    Ok(world)
}

fn number(fd: &OwnedFd) -> i32 {
    use std::os::fd::AsRawFd;
    fd.as_raw_fd()
}

fn within<T>(space: &OwnedFd, back: &OwnedFd, work: impl FnOnce() -> Fallible<T>) -> Fallible<T> {
    move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
    let done = work();
    move_into_link_name_space(back.as_fd(), Some(LinkNameSpaceType::Network))?;
    done
}

fn ip(words: &str) -> Fallible<()> {
    match Command::new("ip").args(words.split_whitespace()).status()?.success() {
        true => Ok(()),
        false => Err(format!("ip {words} failed").into()),
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn in_ms(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}

fn plan() -> NetworkPlan {
    NetworkPlan { name: "speed".to_owned(), carrier: Carrier::Routed, ..NetworkPlan::default() }
}

/// A whole network, with the wire that keeps its interface.
fn network() -> Fallible<(Routed, Wire)> {
    let (mut routed, wire) = Routed::prepare(&plan(), true)?;
    routed.open(&plan())?;
    Ok((routed, wire))
}

/// A process with a network, as a keeper is one.
struct Holder(Child);

impl Holder {
    /// Starts it on this machine; says how long it needed.
    fn start() -> Fallible<(Self, f64)> {
        let mut child = Command::new("/proc/self/exe");
        let child = child.arg(HOLD).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut holder = Self(child);
        let took = holder.says()?;
        Ok((holder, took))
    }

    /// The number in its next line.
    fn says(&mut self) -> Fallible<f64> {
        let (mut line, mut byte) = (String::new(), [0; 1]);
        let output = self.0.stdout.as_mut().ok_or("no output")?;
        while !line.ends_with('\n') {
            output.read_exact(&mut byte)?;
            line.push(char::from(byte[0]));
        }
        Ok(line.trim().parse()?)
    }

    /// Ends it; says how long its network needed.
    fn end(mut self) -> Fallible<f64> {
        drop(self.0.stdin.take());
        let took = self.says()?;
        self.0.wait()?;
        Ok(took)
    }
}

fn hold() -> Fallible<()> {
    let begin = Instant::now();
    let made = network()?;
    println!("{}", in_ms(begin));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let begin = Instant::now();
    drop(made);
    println!("{}", in_ms(begin));
    Ok(())
}

fn starts(count: usize) -> Fallible<()> {
    // One stays, as there is one on a machine that is in use; and the first loads modules of the kernel.
    let (stays, _) = Holder::start()?;
    let mut alone = Vec::new();
    for _ in 0..15 {
        let (holder, took) = Holder::start()?;
        alone.push(took);
        holder.end()?;
    }
    println!("a network adds: {:.2} ms", median(alone));
    let (mut all, mut made, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let (holder, took) = Holder::start()?;
        made.push(took);
        all.push(holder);
    }
    for one in all {
        removed.push(one.end()?);
    }
    stays.end()?;
    let part = (count / 10).max(1);
    let ends = |times: &[f64]| {
        let last = times.len().saturating_sub(part);
        let of = |part: Option<&[f64]>| median(part.unwrap_or_default().to_vec());
        (of(times.get(..part)), of(times.get(last..)))
    };
    let ((first, last), (first_removed, last_removed)) = (ends(&made), ends(&removed));
    println!("one of the first is made in: {first:.2} ms");
    println!("one of the last is made in: {last:.2} ms");
    println!("with all the others it is removed in: {first_removed:.2} ms");
    println!("with few others it is removed in: {last_removed:.2} ms");
    Ok(())
}

/// What a virtual machine did at a tap.
#[derive(Default)]
struct Measured {
    megabits: Vec<f64>,
    round_trip_ms: Vec<f64>,
}

fn wire(kernels: &Path, rounds: usize, world: &OwnedFd) -> Fallible<()> {
    let machine = OwnedFd::from(File::open("/proc/thread-self/ns/net")?);
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    let listener = within(world, &machine, || Ok(TcpListener::bind("198.51.100.10:9000")?))?;
    let (mut ours, mut bare) = (Measured::default(), Measured::default());
    for _ in 0..rounds.max(1) {
        let (routed, wire) = network()?;
        let (guest, prefix, gateway) = routed.guest().ipv4.ok_or("no IPv4")?;
        send(kernels, wire, &format!("{guest}/{prefix}"), &gateway.to_string(), &listener, &mut ours)?;
        drop(routed);

        let mut mac = MAC;
        mac.0[5] = 1;
        let tap = tap::open_for_offload(BARE, mac, MTU)?;
        ip(&format!("addr add 10.99.0.1/30 dev {BARE}"))?;
        ip(&format!("link set {BARE} up"))?;
        send(kernels, Wire::Tap(tap), "10.99.0.2/30", "10.99.0.1", &listener, &mut bare)?;
    }
    println!("throughput at our tap: {:.1} Mbit/s", median(ours.megabits));
    println!("throughput at a bare tap: {:.1} Mbit/s", median(bare.megabits));
    println!("round trip at our tap: {:.3} ms", median(ours.round_trip_ms));
    println!("round trip at a bare tap: {:.3} ms", median(bare.round_trip_ms));
    Ok(())
}

fn send(
    kernels: &Path,
    wire: Wire,
    address: &str,
    gateway: &str,
    listener: &TcpListener,
    measured: &mut Measured,
) -> Fallible<()> {
    let script = format!(
        "#!/busybox sh\nb=/busybox\n$b mkdir /proc /sys /bin\n$b mount -t proc p /proc\n$b mount -t sysfs s /sys\n\
         $b mount -t devtmpfs d /dev\n$b --install -s /bin\nexport PATH=/bin\n\
         for m in $(cat /modules/load); do insmod /modules/$m; done\n\
         while [ ! -e /sys/class/net/eth0 ]; do usleep 5000; done\n\
         while :; do for p in /sys/class/virtio-ports/*; do\n\
         [ \"$(cat $p/name 2>/dev/null)\" = vimana.channel ] && break 2; done; usleep 5000; done\n\
         exec <> /dev/${{p##*/}} >&0\n\
         ip addr add {address} dev eth0; ip link set eth0 mtu {MTU} up\n\
         ip route add default via {gateway}\n\
         ping -q -A -c 200 198.51.100.10; echo measured\n\
         nc 198.51.100.10 9000 < /dev/zero\nwhile :; do sleep 1; done\n"
    );
    let folder = tempfile::tempdir()?;
    let machine = guest(kernels, folder.path(), &script)?;
    let (mut channel, theirs) = UnixStream::pair()?;
    channel.set_read_timeout(Some(Duration::from_secs(60)))?;
    let qemu = Qemu::find();
    let wiring = Wiring { channel: theirs.into(), network: Some(wire), console: None };
    let mut instance = qemu.start(&qemu.prepare(&machine)?, wiring)?;
    let mut said = String::new();
    while !said.ends_with("measured\n") {
        let mut byte = [0; 1];
        channel.read_exact(&mut byte).map_err(|error| format!("{error}, after {said:?}"))?;
        said.push(char::from(byte[0]));
    }
    // round-trip min/avg/max = 0.2/0.3/0.4 ms
    let times = said.rsplit_once(" = ").and_then(|(_, times)| times.split('/').nth(1));
    measured.round_trip_ms.push(times.ok_or_else(|| format!("no round trip in {said:?}"))?.parse()?);
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; 1 << 18];
    let mut count = |time: Duration| -> Fallible<f64> {
        let (begin, mut bytes) = (Instant::now(), 0_usize);
        while begin.elapsed() < time {
            bytes = bytes.saturating_add(stream.read(&mut buffer)?);
        }
        Ok(bytes as f64 * 8.0 / 1e6 / begin.elapsed().as_secs_f64())
    };
    count(SETTLES)?;
    measured.megabits.push(count(MEASURED)?);
    instance.stop()?;
    Ok(())
}

fn guest(kernels: &Path, folder: &Path, script: &str) -> Fallible<Machine> {
    let kernel = KernelStore::open(kernels)?.newest()?.ok_or("no kernel there")?;
    let mut modules = Vec::new();
    for path in kernel.modules_for(&["virtio_pci", "virtio_console", "virtio_net", "af_packet"])? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        modules.push((name, fs::read(&path)?));
    }
    let mut archive = initramfs::build(script.as_bytes(), &modules)?;
    // A second archive may follow the first: the program that the script runs.
    fs::copy("/bin/busybox", folder.join("busybox"))?;
    let mut cpio = Command::new("cpio");
    cpio.args(["-o", "-H", "newc", "--quiet"]).current_dir(folder);
    let mut cpio = cpio.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    cpio.stdin.take().ok_or("no input")?.write_all(b"busybox\n")?;
    archive.extend(cpio.wait_with_output()?.stdout);
    let initramfs = folder.join("initramfs");
    fs::write(&initramfs, archive)?;
    Ok(Machine {
        name: "speed".into(),
        cpu_milli: 1000,
        memory_mib: 128,
        class: Class::default(),
        network: Some(Network { mac: MAC, mtu: u16::try_from(MTU)?, carrier: Carrier::Routed }),
        body: Body::Virtual(Virtual {
            accelerator: Accelerator::Tcg,
            kernel: kernel.image,
            initramfs,
            command_line: Vec::new(),
            disks: Vec::new(),
            rates: DiskRates::default(),
            console: false,
            cache: None,
            folder: None,
            profile: false,
        }),
    })
}
