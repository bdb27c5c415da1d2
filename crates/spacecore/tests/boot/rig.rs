//! A real virtual machine with this guest in it, and the keeper's end of its channel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use spacecore::wire::link::{Incoming, Link};
use spacecore::wire::message::*;
use spacecore::wire::{VERSION, stderr_of, stdin_of, stdout_of};

/// Says on stderr that a test can't run here.
pub(crate) fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED: {test}: {reason}");
}

const PATIENCE: Duration = Duration::from_secs(60);

/// What every machine of these tests is made of.
pub(crate) struct Parts {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    pub(crate) layer: PathBuf,
}

/// The parts, made once for each test program; an error says what is missing on this machine.
pub(crate) fn parts() -> Result<&'static Parts, String> {
    static PARTS: OnceLock<Result<Parts, String>> = OnceLock::new();
    PARTS.get_or_init(make_parts).as_ref().map_err(Clone::clone)
}

pub(crate) fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("{} can't be run: {error}", command.get_program().display()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Removes what test programs that have ended left: the parts are used until a program's very end.
fn sweep() {
    for entry in std::fs::read_dir(env!("CARGO_TARGET_TMPDIR")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(pid) = name.strip_prefix("parts-")
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn make_parts() -> Result<Parts, String> {
    sweep();
    run(Command::new("qemu-system-x86_64").arg("--version"))?;
    let folder = scratch("parts");
    let kernel = kernel()?;
    let initramfs = folder.join("initramfs");
    std::fs::write(&initramfs, make_initramfs(&kernel)?).unwrap();
    let layer = folder.join("layer");
    make_layer(&folder.join("tree"), &layer)?;
    Ok(Parts { kernel, initramfs, layer })
}

/// `VIMANA_TEST_KERNEL`, or Debian's cloud kernel, downloaded once for all tests.
fn kernel() -> Result<PathBuf, String> {
    if let Some(kernel) = std::env::var_os("VIMANA_TEST_KERNEL") {
        return Ok(kernel.into());
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel");
    let find = || {
        let entries = std::fs::read_dir(folder.join("boot")).ok()?;
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
    };
    if let Some(kernel) = find() {
        return Ok(kernel);
    }
    let fetch = scratch("fetch");
    let found = run(Command::new("apt-cache").args([
        "search",
        "--names-only",
        "^linux-image-6.1.0-[0-9]+-cloud-amd64$",
    ]))?;
    let newest = found
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .max_by_key(|name| name.split(['-', '.']).filter_map(|part| part.parse().ok()).collect::<Vec<u32>>())
        .ok_or("apt knows no linux-image-6.1.0-*-cloud-amd64")?
        .to_owned();
    run(Command::new("apt-get").args(["download", &newest]).current_dir(&fetch))?;
    let package = std::fs::read_dir(&fetch).unwrap().next().unwrap().unwrap().path();
    let unpacked = fetch.join("unpacked");
    run(Command::new("dpkg").arg("-x").args([&package, &unpacked]))?;
    // Another test program may have been faster; its kernel is the same.
    let _ = std::fs::rename(&unpacked, &folder);
    let _ = std::fs::remove_dir_all(&fetch);
    find().ok_or_else(|| format!("no kernel in {}", folder.display()))
}

fn find_modules(folder: &Path, found: &mut BTreeMap<String, PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find_modules(&path, found);
        } else if let Some(name) = path.file_name().unwrap().to_string_lossy().strip_suffix(".ko") {
            found.insert(name.replace('-', "_"), path);
        }
    }
}

/// Adds a module behind all that it depends on, as its own `depends=` says.
fn add_module(name: &str, all: &BTreeMap<String, PathBuf>, order: &mut Vec<(String, Vec<u8>)>) {
    if order.iter().any(|(there, _)| there == name) {
        return;
    }
    let Some(path) = all.get(name) else { return };
    let mut bytes = std::fs::read(path).unwrap();
    strip_signature(&mut bytes);
    let at = bytes.windows(8).position(|window| window == b"depends=").unwrap();
    let depends = bytes[at + 8..].split(|byte| *byte == 0).next().unwrap();
    for dependency in String::from_utf8_lossy(depends).split(',').filter(|name| !name.is_empty()) {
        add_module(&dependency.replace('-', "_"), all, order);
    }
    order.push((name.to_owned(), bytes));
}

/// Takes off the signature, which a kernel that doesn't enforce it would only spend time on.
fn strip_signature(bytes: &mut Vec<u8>) {
    const MAGIC: &[u8] = b"~Module signature appended~\n";
    if let Some(signed) = bytes.strip_suffix(MAGIC)
        && let Some((_, length)) = signed.split_last_chunk::<4>()
    {
        let length = u32::from_be_bytes(*length) as usize;
        bytes.truncate(bytes.len() - MAGIC.len() - 12 - length);
    }
}

fn make_initramfs(kernel: &Path) -> Result<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    find_modules(&kernel.parent().unwrap().join("../lib/modules"), &mut all);
    let mut order = Vec::new();
    for name in [
        "virtio_pci",
        "virtio_console",
        "squashfs",
        "overlay",
        "virtio_blk",
        "virtio_net",
        "fuse",
        "dm_verity",
        "sha256_ssse3",
        "sha256_generic",
        "ext4",
        "crc32c_generic",
    ] {
        add_module(name, &all, &mut order);
    }
    let mut cpio = Cpio::default();
    cpio.add("init", 0o100755, 0, &std::fs::read(guest_binary()?).unwrap());
    cpio.add("dev", 0o040755, 0, &[]);
    cpio.add("dev/console", 0o020600, 1, &[]);
    cpio.add("modules", 0o040755, 0, &[]);
    let mut list = String::new();
    for (number, (name, bytes)) in order.iter().enumerate() {
        let file = format!("{number:02}-{name}.ko");
        cpio.add(&format!("modules/{file}"), 0o100644, 0, bytes);
        list.push_str(&format!("{file}\n"));
    }
    cpio.add("modules/load", 0o100644, 0, list.as_bytes());
    cpio.add("TRAILER!!!", 0, 0, &[]);
    Ok(cpio.bytes)
}

/// An uncompressed archive of the kind `newc`.
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    count: u32,
}

impl Cpio {
    fn add(&mut self, name: &str, mode: u32, console_minor: u32, content: &[u8]) {
        self.count += 1;
        let major = if console_minor > 0 { 5 } else { 0 };
        let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
        let fields = [self.count, mode, 0, 0, 1, 0, size, 0, 0, major, console_minor, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// `VIMANA_TEST_GUEST`, or the static binary, built as it is for release.
fn guest_binary() -> Result<PathBuf, String> {
    if let Some(guest) = std::env::var_os("VIMANA_TEST_GUEST") {
        return Ok(guest.into());
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest");
    let triple = "x86_64-unknown-linux-gnu";
    run(Command::new(env!("CARGO"))
        .args(["build", "-p", "spacecore", "--bin", "spacecore", "--profile", "guest", "--target", triple])
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(env!("CARGO_MANIFEST_DIR")))?;
    Ok(target.join(triple).join("guest/spacecore"))
}

/// A root file system of busybox, and what the tests look for in it.
fn make_layer(tree: &Path, layer: &Path) -> Result<(), String> {
    for folder in ["bin", "etc", "tmp", "usr/bin"] {
        std::fs::create_dir_all(tree.join(folder)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .ok_or("there is no busybox")?;
    std::fs::copy(busybox, tree.join("bin/busybox")).unwrap();
    for applet in run(Command::new(busybox).arg("--list"))?.lines() {
        let _ = std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet));
    }
    let write = |name: &str, content: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(tree.join(name), content).unwrap();
        std::fs::set_permissions(tree.join(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:Web:/srv:/bin/sh\n", 0o644);
    write("etc/group", "root:x:0:\nweb:x:34:\nlogs:x:40:web\n", 0o644);
    write("bin/no-interpreter", "#!/bin/missing\n", 0o755);
    write("bin/no-shebang", "echo hello\n", 0o755);
    write("bin/not-executable", "#!/bin/sh\n", 0o644);
    // What a hostile image would try.
    std::os::unix::fs::symlink("/proc/self/fd/3", tree.join("etc/resolv.conf")).unwrap();
    std::os::unix::fs::symlink("../../../../dev", tree.join("escape")).unwrap();
    let mut options = vec!["-comp", "lz4", "-noappend", "-all-root", "-quiet", "-no-progress"];
    options.extend(["-p", "/tmp m 1777 0 0"]);
    run(Command::new("mksquashfs").args([tree, layer]).args(options)).map(drop)
}

/// A running machine. It is killed when it is dropped.
pub(crate) struct Machine {
    vmm: Child,
    folder: PathBuf,
    pub(crate) keeper: Keeper,
}

pub(crate) struct Disk<'a> {
    pub(crate) serial: &'a str,
    pub(crate) file: &'a Path,
    pub(crate) readonly: bool,
}

impl Machine {
    /// Boots until Hello.
    pub(crate) fn boot(name: &str, parts: &Parts, disks: &[Disk<'_>]) -> (Self, u64) {
        Self::boot_with(name, parts, disks, &[])
    }

    pub(crate) fn boot_with(name: &str, parts: &Parts, disks: &[Disk<'_>], further: &[&str]) -> (Self, u64) {
        let folder = scratch(name);
        let socket = folder.join("s");
        // A socket's path is short: it is named relative to the folder.
        let listener =
            UnixListener::bind(&socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args("-M q35 -accel tcg -cpu max -m 256 -smp 1 -nodefaults -display none -no-reboot".split(' '))
            .arg("-kernel")
            .arg(&parts.kernel)
            .arg("-initrd")
            .arg(&parts.initramfs)
            .args(["-append", "console=ttyS0 quiet reboot=t panic=-1"])
            .args(["-serial", &format!("file:{}", folder.join("console").display())])
            .args(["-device", "virtio-serial-pci"])
            .args(["-chardev", "socket,id=c,path=s"])
            .args(["-device", "virtserialport,chardev=c,name=vimana.channel"])
            .args(further)
            .args(std::env::var("VIMANA_TEST_VMM_ARGS").unwrap_or_default().split_whitespace());
        for (number, disk) in disks.iter().enumerate() {
            let readonly = if disk.readonly { ",readonly=on" } else { "" };
            let drive = format!("if=none,id=d{number},format=raw,file={}{readonly}", disk.file.display());
            let device = format!("virtio-blk-pci,drive=d{number},serial={}", disk.serial);
            command.args(["-drive", &drive, "-device", &device]);
        }
        let vmm = command
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("vmm")).unwrap())
            .spawn()
            .unwrap();
        let (socket, _) = listener.accept().unwrap();
        let mut machine = Self { vmm, folder, keeper: Keeper::new(socket) };
        match machine.keeper.control() {
            ToHost::Hello { version, uptime_us, .. } => {
                assert_eq!(version, VERSION);
                (machine, uptime_us)
            }
            other => panic!("{other:?} instead of Hello; {}", machine.console()),
        }
    }

    /// What the machine printed.
    pub(crate) fn console(&self) -> String {
        let read = |name: &str| {
            String::from_utf8_lossy(&std::fs::read(self.folder.join(name)).unwrap()).into_owned()
        };
        format!("console: {} vmm: {}", read("console"), read("vmm"))
    }

    /// Waits until the VMM has exited by itself.
    pub(crate) fn wait_off(&mut self) -> Duration {
        let start = Instant::now();
        while self.vmm.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "the machine doesn't power off; {}", self.console());
            std::thread::sleep(Duration::from_millis(5));
        }
        start.elapsed()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.console());
        }
        let _ = self.vmm.kill();
        let _ = self.vmm.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The keeper's end of the channel.
pub(crate) struct Keeper {
    socket: Option<UnixStream>,
    pub(crate) link: Link,
    controls: VecDeque<ToHost>,
    pub(crate) data: BTreeMap<u16, Vec<u8>>,
    pub(crate) ended: BTreeSet<u16>,
    folders: BTreeMap<u16, super::fuse::Served>,
}

impl Keeper {
    fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self {
            socket: Some(socket),
            link: Link::new(),
            controls: VecDeque::new(),
            data: BTreeMap::new(),
            ended: BTreeSet::new(),
            folders: BTreeMap::new(),
        }
    }

    pub(crate) fn hang_up(&mut self) {
        self.socket = None;
    }

    pub(crate) fn serve(&mut self, stream: u16, served: super::fuse::Served) {
        self.link.open_folder(stream);
        self.folders.insert(stream, served);
    }

    pub(crate) fn flush(&mut self) {
        while !self.link.outgoing().is_empty() {
            let length = self.socket.as_mut().unwrap().write(self.link.outgoing()).unwrap();
            self.link.written(length);
        }
    }

    pub(crate) fn send(&mut self, message: &ToGuest) {
        assert!(self.link.send_control(message));
        self.flush();
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Sends all of these bytes to a process' standard input, as fast as it takes them.
    pub(crate) fn feed(&mut self, process: u16, bytes: &[u8]) {
        let mut sent = 0;
        while sent < bytes.len() {
            sent += self.link.send_data(stdin_of(process), &bytes[sent..]);
            self.flush();
            if sent < bytes.len() {
                self.turn();
            }
        }
    }

    pub(crate) fn end_input(&mut self, process: u16) {
        self.link.send_eof(stdin_of(process));
        self.flush();
    }

    /// Reads once, and takes what came apart.
    fn turn(&mut self) {
        let mut buffer = vec![0; 65536];
        match self.socket.as_mut().unwrap().read(&mut buffer) {
            Ok(0) => panic!("the machine hung up; so far: {:?}", self.controls),
            Ok(length) => self.link.receive(&buffer[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("{error}"),
        }
        while let Some(incoming) = self.link.next_incoming::<ToHost>().unwrap() {
            match incoming {
                Incoming::Control(message) => self.controls.push_back(message),
                Incoming::Data(stream, bytes) => {
                    self.link.consumed(stream, bytes.len());
                    self.data.entry(stream).or_default().extend(bytes);
                }
                Incoming::Eof(stream) => {
                    self.ended.insert(stream);
                }
                Incoming::Writable(_) => {}
                Incoming::Message(stream, request) => {
                    if let Some(answer) = self.folders[&stream].answer(&request) {
                        self.link.send_message(stream, &answer);
                    }
                }
            }
        }
        self.flush();
    }

    /// The next control message.
    pub(crate) fn control(&mut self) -> ToHost {
        let start = Instant::now();
        loop {
            if let Some(message) = self.controls.pop_front() {
                return message;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "the guest says nothing; the workload said {:?} and {:?}",
                self.output(0),
                self.errors(0)
            );
            self.turn();
        }
    }

    /// Waits until the output of a process holds a text.
    pub(crate) fn wait_for(&mut self, process: u16, text: &str) {
        let start = Instant::now();
        while !self.output(process).contains(text) {
            assert!(start.elapsed() < PATIENCE, "{text:?} isn't in {:?}", self.output(process));
            self.turn();
        }
    }

    fn open(&mut self, process: u16, spec: &Process) {
        for stream in [stdout_of(process), stderr_of(process)] {
            self.data.remove(&stream);
            self.ended.remove(&stream);
            self.link.open_receiver(stream);
        }
        if spec.stdin {
            self.link.open_sender(stdin_of(process));
        }
    }

    pub(crate) fn configure(&mut self, configuration: Configuration) -> Vec<Step> {
        self.open(0, &configuration.process);
        self.send(&ToGuest::Configure(Box::new(configuration)));
        match self.control() {
            ToHost::Configured { steps } => steps,
            other => panic!("{other:?}"),
        }
    }

    /// Configures a guest that must refuse it.
    pub(crate) fn refused(&mut self, configuration: Configuration) -> (Option<u16>, Refusal) {
        self.open(0, &configuration.process);
        self.send(&ToGuest::Configure(Box::new(configuration)));
        loop {
            match self.control() {
                ToHost::Refused { process, refusal } => return (process, refusal),
                ToHost::Configured { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Starts a process beside the workload.
    pub(crate) fn exec(&mut self, process: u16, spec: Process) -> Result<(), Refusal> {
        self.open(process, &spec);
        self.send(&ToGuest::Exec { process, spec });
        match self.control() {
            ToHost::Started { process: started } if started == process => Ok(()),
            ToHost::Refused { refusal, .. } => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn wait_ended(&mut self, process: u16) -> ExitStatus {
        match self.control() {
            ToHost::Ended { process: ended, status } if ended == process => status,
            other => panic!("{other:?} instead of the end of {process}; it said {:?}", self.output(process)),
        }
    }

    /// Runs a process beside the workload to its end; returns standard output and how it ended.
    pub(crate) fn run(&mut self, process: u16, spec: Process) -> (String, ExitStatus) {
        self.exec(process, spec).unwrap();
        let status = self.wait_ended(process);
        assert!(self.ended.contains(&stdout_of(process)), "its output ends before it does");
        (self.output(process), status)
    }

    pub(crate) fn output(&self, process: u16) -> String {
        self.stream(stdout_of(process))
    }

    pub(crate) fn errors(&self, process: u16) -> String {
        self.stream(stderr_of(process))
    }

    fn stream(&self, stream: u16) -> String {
        String::from_utf8_lossy(self.data.get(&stream).map_or(&[], Vec::as_slice)).into_owned()
    }
}

pub(crate) fn process(args: &[&str]) -> Process {
    Process::of(args.iter().copied())
}

pub(crate) fn shell(script: &str) -> Process {
    process(&["/bin/sh", "-c", script])
}

pub(crate) fn configuration(process: Process) -> Configuration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Configuration {
        unix_time_ns: now.as_nanos() as u64,
        entropy: "5a".repeat(64),
        root: Some(Root {
            layers: vec![LayerDisk { serial: "layer0".to_owned(), verity: None }],
            upper: Upper::Memory { bytes: 64 << 20 },
            readonly: false,
        }),
        ..Configuration::of("box", process)
    }
}

/// Boots with the ordinary layer and runs this as the workload.
pub(crate) fn started(name: &str, parts: &Parts, configuration: Configuration) -> Machine {
    let (mut machine, hello) = Machine::boot(name, parts, &[layer(parts)]);
    let begun = Instant::now();
    let steps = machine.keeper.configure(configuration);
    assert_eq!(machine.keeper.control(), ToHost::Started { process: 0 });
    eprintln!("Hello at {hello} us; Configure to Started {:?}", begun.elapsed());
    for step in steps {
        eprintln!("  {:>8} us  {}", step.us, step.name);
    }
    machine
}

pub(crate) fn layer(parts: &Parts) -> Disk<'_> {
    Disk { serial: "layer0", file: &parts.layer, readonly: true }
}
