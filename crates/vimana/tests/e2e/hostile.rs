//! A guest that doesn't keep to the protocol can't hang, crash or grow its keeper.
//!
//! The machine is real; in place of PID 1 a shell script of the attacker's drives the channel.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hypercore::driver::{Accelerator, Body, Class, DiskRates, Machine, Virtual};
use hypercore::kernel::{Kernel, KernelStore};
use node::keeper::assignment::{Assignment, FolderShare, Lifetime, Patience, VERSION};
use node::keeper::report::{FromKeeper, Outcome, Standing, ToKeeper};
use node::session::Session;
use rustix::event::{PollFd, Timespec, poll};
use spacecore::wire;
use spacecore::wire::frame::Frame;
use spacecore::wire::link::Incoming;
use spacecore::wire::message::{Configuration, ExitStatus, Process, Root, ToHost, Upper};

use crate::support::{Home, VIMANA};

/// The most memory that a keeper may have while it is attacked, in KiB.
const KEEPER_LIMIT_KIB: u64 = 64 * 1024;

/// Boots a guest whose PID 1 runs this script, with `$port` the channel, and files in `/`; returns how it ended.
fn attacked(test: &str, script: &str, files: &[(&str, Vec<u8>)], boot_ms: u64) -> Option<Outcome> {
    let home = Home::new(test)?;
    let kernel = kernel(&home);
    let initramfs = initramfs(&home, &kernel, script, files);
    let assignment = assignment(&home, &kernel, initramfs, boot_ms);
    let mut session = Session::start(Path::new(VIMANA), &assignment).unwrap();
    let keeper = session.keeper_pid().unwrap();
    session.link().open_receiver(wire::stdout_of(0));
    session.link().open_receiver(wire::stderr_of(0));
    session.tell(&ToKeeper::Attach);
    let deadline = Instant::now() + Duration::from_secs(40);
    let (mut ending, mut unread) = (false, Vec::new());
    let outcome = 'outer: loop {
        assert!(Instant::now() < deadline, "the keeper hangs");
        session.flush();
        let step = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let interest = session.interest();
        let _ = poll(&mut [PollFd::new(&session, interest)], Some(&step));
        session.fill();
        let peak = peak_kib(keeper);
        assert!(peak < KEEPER_LIMIT_KIB, "the keeper grew to {peak} KiB");
        while let Ok(Some(incoming)) = session.next_incoming() {
            match incoming {
                Incoming::Control(FromKeeper::Finished { outcome, .. }) => break 'outer outcome,
                Incoming::Control(FromKeeper::Standing(Standing::Ending)) => ending = true,
                Incoming::Data(stream, bytes) => unread.push((stream, bytes.len())),
                _ => {}
            }
        }
        // Nothing is read before the end: a keeper that let the guest run ahead would have to hold it all.
        if ending {
            unread.drain(..).for_each(|(stream, bytes)| session.link().consumed(stream, bytes));
        }
        assert!(session.is_open(), "the keeper crashed");
    };
    session.close().unwrap();
    home.assert_nothing_is_left();
    Some(outcome)
}

fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or("VmHWM: 0");
    line.split_whitespace().nth(1).unwrap_or("0").parse().unwrap_or(0)
}

fn kernel(home: &Home) -> Kernel {
    let store = KernelStore::open(&home.path().join("kernels")).unwrap();
    store.newest().unwrap().expect("a kernel was fetched")
}

/// A busybox that loads the channel's driver and then runs the script.
fn initramfs(home: &Home, kernel: &Kernel, script: &str, files: &[(&str, Vec<u8>)]) -> PathBuf {
    let root = home.path().join("attacker");
    fs::create_dir_all(root.join("bin")).unwrap();
    for folder in ["proc", "sys", "dev"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists()).unwrap();
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    let mut load = String::new();
    for module in kernel.modules_for(&["virtio_pci", "virtio_console"]).unwrap() {
        let name = module.file_name().unwrap().to_str().unwrap().to_owned();
        fs::copy(&module, root.join(&name)).unwrap();
        load.push_str(&format!("insmod /{name}\n"));
    }
    for (name, bytes) in files {
        fs::write(root.join(name), bytes).unwrap();
    }
    let init = format!(
        "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\nmount -t proc proc /proc\n\
         mount -t sysfs sys /sys\nmount -t devtmpfs dev /dev\n{load}\
         port=/dev/$(basename $(dirname $(grep -l vimana.channel /sys/class/virtio-ports/*/name)))\n{script}\nsleep 1000\n"
    );
    fs::write(root.join("init"), init).unwrap();
    Command::new("chmod").arg("755").arg(root.join("init")).status().unwrap();
    let archive = home.path().join("attacker.cpio");
    let pack = format!("cd {} && find . | cpio -o -H newc --quiet > {}", root.display(), archive.display());
    assert!(Command::new("sh").args(["-c", &pack]).stderr(Stdio::inherit()).status().unwrap().success());
    archive
}

fn assignment(home: &Home, kernel: &Kernel, initramfs: PathBuf, boot_ms: u64) -> Assignment {
    let share = home.path().join("share");
    fs::create_dir_all(&share).unwrap();
    fs::write(share.join("f"), vec![7; 1 << 20]).unwrap();
    Assignment {
        version: VERSION,
        id: "attacked".into(),
        run_folder: home.path().join("run/attacked"),
        lifetime: Lifetime::Bound,
        driver: "qemu".into(),
        machine: Machine {
            name: "attacked".into(),
            cpu_milli: 1000,
            memory_mib: 128,
            class: Class::default(),
            network: None,
            body: Body::Virtual(Virtual {
                accelerator: Accelerator::Tcg,
                kernel: kernel.image.clone(),
                initramfs,
                command_line: Vec::new(),
                disks: Vec::new(),
                rates: DiskRates::default(),
                profile: false,
                console: false,
                cache: None,
                folder: None,
            }),
        },
        network: None,
        configuration: Configuration {
            root: Some(Root { layers: Vec::new(), upper: Upper::Memory { bytes: 1 << 20 }, readonly: false }),
            ..Configuration::of("attacked", Process::of(["true"]))
        },
        folders: vec![FolderShare { source: share, readonly: true, stream: wire::FIRST_FOLDER }],
        volumes: Vec::new(),
        scratch: Vec::new(),
        orderly_end: false,
        patience: Patience { boot_ms, configure_ms: 3000, shutdown_ms: 1000 },
        log: None,
    }
}

fn control(message: &ToHost) -> Vec<u8> {
    let mut bytes = Vec::new();
    Frame::Control(serde_json::to_vec(message).unwrap()).encode(&mut bytes);
    bytes
}

fn hello() -> Vec<u8> {
    control(&ToHost::Hello { version: wire::VERSION, release: "6.6.6".into(), uptime_us: 1 })
}

/// As if the workload ran.
fn up() -> Vec<u8> {
    [hello(), control(&ToHost::Configured { steps: Vec::new() }), control(&ToHost::Started { process: 0 })]
        .concat()
}

#[test]
fn a_guest_that_writes_garbage_is_ended() {
    let outcome = attacked("a_guest_that_writes_garbage_is_ended", "cat /dev/urandom > $port", &[], 20_000);
    assert!(matches!(outcome, None | Some(Outcome::Violation { .. })), "{outcome:?}");
}

#[test]
fn a_guest_that_never_answers_is_ended_in_time() {
    let outcome = attacked("a_guest_that_never_answers_is_ended_in_time", "exec 3<>$port", &[], 4_000);
    assert!(matches!(outcome, None | Some(Outcome::Silent { after_ms: 4_000, .. })), "{outcome:?}");
}

#[test]
fn a_guest_that_goes_silent_after_its_hello_is_ended_in_time() {
    let test = "a_guest_that_goes_silent_after_its_hello_is_ended_in_time";
    let outcome = attacked(test, "exec 3<>$port; cat /hello >&3", &[("hello", hello())], 20_000);
    assert!(matches!(outcome, None | Some(Outcome::Silent { after_ms: 3_000, .. })), "{outcome:?}");
}

#[test]
fn a_guest_that_breaks_off_within_a_frame_is_ended_in_time() {
    let test = "a_guest_that_breaks_off_within_a_frame_is_ended_in_time";
    let mut half = hello();
    half.truncate(half.len() - 3);
    let outcome = attacked(test, "exec 3<>$port; cat /half >&3", &[("half", half)], 5_000);
    assert!(matches!(outcome, None | Some(Outcome::Silent { .. })), "{outcome:?}");
}

#[test]
fn a_guest_that_floods_beyond_its_credit_is_ended() {
    let test = "a_guest_that_floods_beyond_its_credit_is_ended";
    let mut data = Vec::new();
    Frame::Data { stream: wire::stdout_of(0), bytes: vec![b'x'; 64 * 1024] }.encode(&mut data);
    let script = "exec 3<>$port; cat /up >&3; while :; do cat /data; done >&3";
    let outcome = attacked(test, script, &[("up", up()), ("data", data)], 20_000);
    assert!(matches!(outcome, None | Some(Outcome::Violation { .. })), "{outcome:?}");
}

#[test]
fn a_guest_that_says_the_same_again_and_again_is_ended() {
    let again = |what: &str, message: Vec<u8>| {
        let script = "exec 3<>$port; cat /before >&3; while :; do cat /again; done >&3";
        let files = [("before", [hello(), message.clone()].concat()), ("again", message.repeat(500))];
        let outcome = attacked("a_guest_that_says_the_same_again_and_again_is_ended", script, &files, 20_000);
        assert!(matches!(outcome, None | Some(Outcome::Violation { .. })), "{what}: {outcome:?}");
    };
    again("configured", control(&ToHost::Configured { steps: Vec::new() }));
    again("started", control(&ToHost::Started { process: 0 }));
    again("hello", hello());
}

#[test]
fn a_guest_that_asks_for_more_of_a_folder_than_it_reads_doesnt_grow_its_keeper() {
    let test = "a_guest_that_asks_for_more_of_a_folder_than_it_reads_doesnt_grow_its_keeper";
    let request = |opcode: u32, node: u64, unique: u64, body: &[u8]| {
        let length = u32::try_from(40 + body.len()).unwrap();
        let mut bytes = [length.to_le_bytes(), opcode.to_le_bytes()].concat();
        bytes.extend([unique.to_le_bytes(), node.to_le_bytes()].concat());
        bytes.extend([0; 16]);
        bytes.extend(body);
        let mut frame = Vec::new();
        Frame::Message { stream: wire::FIRST_FOLDER, bytes }.encode(&mut frame);
        frame
    };
    let init: Vec<u8> = [7u32, 33, 1 << 20, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    // INIT, LOOKUP of the one file, OPEN of the node that it gets.
    let mut flood = [request(26, 0, 2, &init), request(1, 1, 4, b"f\0"), request(14, 2, 6, &[0; 8])].concat();
    for (number, handle) in [0u64, 1, 2].into_iter().cycle().take(900).enumerate() {
        // READ of a megabyte.
        let mut read = [handle.to_le_bytes(), 0u64.to_le_bytes()].concat();
        read.extend((1u32 << 20).to_le_bytes());
        read.extend([0; 20]);
        flood.extend(request(15, 2, 100 + 2 * number as u64, &read));
    }
    let script = "exec 3<>$port; cat /hello >&3; while :; do cat /flood; done >&3";
    let outcome = attacked(test, script, &[("hello", hello()), ("flood", flood)], 20_000);
    // It never reads a reply, so the keeper stops listening until the time to configure is over.
    assert!(matches!(outcome, None | Some(Outcome::Silent { .. })), "{outcome:?}");
}

#[test]
fn a_guest_that_lies_about_processes_and_streams_is_ended() {
    let mut data = Vec::new();
    Frame::Data { stream: wire::stdout_of(77), bytes: vec![1] }.encode(&mut data);
    let mut eof = Vec::new();
    Frame::Eof { stream: wire::stdin_of(0) }.encode(&mut eof);
    let lies = [
        ("ended", control(&ToHost::Ended { process: 77, status: ExitStatus::Code(0) })),
        ("started", control(&ToHost::Started { process: u16::MAX })),
        ("data", data),
        ("eof", eof),
    ];
    for (what, lie) in lies {
        let files = [("up", up()), ("lie", lie)];
        let test = "a_guest_that_lies_about_processes_and_streams_is_ended";
        let outcome =
            attacked(test, "exec 3<>$port; cat /up /lie >&3; while :; do sleep 1; done", &files, 20_000);
        assert!(matches!(outcome, None | Some(Outcome::Violation { .. })), "{what}: {outcome:?}");
    }
}

#[test]
fn a_guest_that_claims_an_endless_frame_is_ended() {
    let test = "a_guest_that_claims_an_endless_frame_is_ended";
    let mut endless = Vec::new();
    endless.write_all(&[2, 0, 1, 0, 0xff, 0xff, 0xff, 0x7f]).unwrap();
    let outcome = attacked(test, "exec 3<>$port; cat /e >&3; cat /dev/zero >&3", &[("e", endless)], 20_000);
    assert!(matches!(outcome, None | Some(Outcome::Violation { .. })), "{outcome:?}");
}
