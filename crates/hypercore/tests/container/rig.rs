//! A keeper as small as can be: starts a container, speaks the protocol, and collects what comes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hypercore::driver::container::ContainerDriver;
use hypercore::driver::{Body, Class, Container, Driver, Instance, Machine, Wiring};
use spacecore::wire::link::{Incoming, Link};
use spacecore::wire::message::{Configuration, ExitStatus, Process, Refusal, Stats, ToGuest, ToHost};
use spacecore::wire::{self, stderr_of, stdin_of, stdout_of};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A layer with busybox, made once for each test.
pub(crate) struct Image {
    pub(crate) folder: tempfile::TempDir,
}

impl Image {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let layer = folder.path().join("layer");
        for name in ["bin", "etc", "tmp", "root", "proc", "sys", "dev"] {
            std::fs::create_dir_all(layer.join(name)).unwrap();
        }
        std::fs::create_dir(folder.path().join("run")).unwrap();
        std::fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
        let applets = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
        for applet in String::from_utf8(applets).unwrap().lines().filter(|applet| *applet != "busybox") {
            std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).unwrap();
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        std::fs::write(layer.join("etc/passwd"), passwd).unwrap();
        std::fs::write(layer.join("etc/group"), "root:x:0:\nalice:x:1000:\nplay:x:2000:alice\n").unwrap();
        Self { folder }
    }

    pub(crate) fn layer(&self) -> PathBuf {
        self.folder.path().join("layer")
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub(crate) fn machine(&self) -> Machine {
        Machine {
            name: "test".into(),
            cpu_milli: 1000,
            memory_mib: 128,
            class: Class::default(),
            network: None,
            body: Body::Container(Container {
                layers: vec![self.layer()],
                folder: self.run(),
                hostname: "box".into(),
                readonly: false,
                upper_bytes: None,
                mounts: Vec::new(),
                pids: 64,
            }),
        }
    }
}

pub(crate) fn container_of(machine: &mut Machine) -> &mut Container {
    match &mut machine.body {
        Body::Container(container) => container,
        _ => unreachable!("the machine is a container"),
    }
}

pub(crate) fn process(args: &[&str]) -> Process {
    Process::of(args.iter().copied())
}

pub(crate) fn shell(script: &str) -> Process {
    process(&["sh", "-c", script])
}

pub(crate) fn configuration(process: Process) -> Configuration {
    Configuration { unix_time_ns: 1, entropy: "5a".repeat(64), ..Configuration::of("box", process) }
}

/// A container under way.
pub(crate) struct Keeper {
    pub(crate) instance: Box<dyn Instance>,
    stream: UnixStream,
    link: Link,
    pub(crate) output: BTreeMap<u16, Vec<u8>>,
    pub(crate) ended: BTreeMap<u16, ExitStatus>,
    pub(crate) started: Vec<u16>,
    pub(crate) refused: Vec<(Option<u16>, Refusal)>,
    pub(crate) stats: Option<Stats>,
    hello: bool,
}

impl Keeper {
    pub(crate) fn start(machine: &Machine) -> Self {
        Self::start_on(machine, None)
    }

    pub(crate) fn start_on(machine: &Machine, network: Option<std::os::fd::OwnedFd>) -> Self {
        let (stream, theirs) = UnixStream::pair().unwrap();
        let prepared = ContainerDriver.prepare(machine).unwrap();
        let network = network.map(hypercore::driver::Wire::Stream);
        let wiring = Wiring { channel: theirs.into(), network, console: None };
        let instance = ContainerDriver.start(&prepared, wiring).unwrap_or_else(|error| panic!("{error}"));
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Self {
            instance,
            stream,
            link: Link::new(),
            output: BTreeMap::new(),
            ended: BTreeMap::new(),
            started: Vec::new(),
            refused: Vec::new(),
            stats: None,
            hello: false,
        }
    }

    /// Starts a container, configures it with this workload, and waits for its end.
    pub(crate) fn run(machine: &Machine, process: Process) -> Self {
        let mut keeper = Self::start(machine);
        keeper.configure(configuration(process));
        keeper.until(|keeper| keeper.ended.contains_key(&0) || !keeper.refused.is_empty());
        keeper
    }

    pub(crate) fn configure(&mut self, configuration: Configuration) {
        self.until(|keeper| keeper.hello);
        self.open(0, &configuration.process);
        self.tell(&ToGuest::Configure(Box::new(configuration)));
    }

    fn open(&mut self, number: u16, process: &Process) {
        self.link.open_receiver(stdout_of(number));
        if process.terminal.is_none() {
            self.link.open_receiver(stderr_of(number));
        }
        if process.stdin {
            self.link.open_sender(stdin_of(number));
        }
    }

    pub(crate) fn exec(&mut self, number: u16, process: Process) {
        self.open(number, &process);
        self.tell(&ToGuest::Exec { process: number, spec: process });
    }

    pub(crate) fn input(&mut self, bytes: &[u8]) {
        assert_eq!(self.link.send_data(stdin_of(0), bytes), bytes.len());
        self.link.send_eof(stdin_of(0));
        self.flush();
    }

    pub(crate) fn tell(&mut self, message: &ToGuest) {
        assert!(self.link.send_control(message));
        self.flush();
    }

    fn flush(&mut self) {
        let bytes = self.link.outgoing().to_vec();
        // A container that has ended takes nothing more.
        let _ = self.stream.write_all(&bytes);
        self.link.written(bytes.len());
    }

    /// Takes what comes until this holds.
    pub(crate) fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        let mut buffer = vec![0; 64 * 1024];
        while !holds(self) {
            assert!(begin.elapsed() < PATIENCE, "nothing for {PATIENCE:?}: {}", self.said(0));
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    let ended = self.instance.stop();
                    panic!("the channel has hung up: {ended:?}, {:?}, {}", self.refused, self.said(0));
                }
                Ok(length) => self.link.receive(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            while let Some(incoming) = self.link.next_incoming::<ToHost>().unwrap() {
                self.incoming(incoming);
            }
            self.flush();
        }
    }

    fn incoming(&mut self, incoming: Incoming<ToHost>) {
        match incoming {
            Incoming::Data(stream, bytes) => {
                self.link.consumed(stream, bytes.len());
                self.output.entry(stream).or_default().extend(bytes);
            }
            Incoming::Control(ToHost::Hello { version, .. }) => self.hello = version == wire::VERSION,
            Incoming::Control(ToHost::Started { process }) => self.started.push(process),
            Incoming::Control(ToHost::Ended { process, status }) => {
                self.ended.insert(process, status);
            }
            Incoming::Control(ToHost::Refused { process, refusal }) => self.refused.push((process, refusal)),
            Incoming::Control(ToHost::Stats { stats, .. }) => self.stats = Some(stats),
            _ => {}
        }
    }

    /// What a process has written to standard output and error.
    pub(crate) fn said(&self, number: u16) -> String {
        let of = |stream| self.output.get(&stream).cloned().unwrap_or_default();
        String::from_utf8_lossy(&[of(stdout_of(number)), of(stderr_of(number))].concat()).into_owned()
    }

    pub(crate) fn measure(&mut self) -> Stats {
        self.stats = None;
        self.tell(&ToGuest::Stats { request: 1 });
        self.until(|keeper| keeper.stats.is_some());
        self.stats.clone().unwrap()
    }
}

/// What of containers is left on this machine.
pub(crate) fn left(folder: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let name = folder.to_string_lossy().into_owned();
    for controller in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        for group in std::fs::read_dir(controller.path()).into_iter().flatten().flatten() {
            let path = group.path().to_string_lossy().into_owned();
            if path.contains("/vimana-") && own_group(&path, &name) {
                left.push(path);
            }
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(&name)).map(str::to_owned));
    let loops = std::fs::read_dir("/sys/block").unwrap().flatten();
    for device in loops {
        let file = std::fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        if file.contains(&name) {
            left.push(file);
        }
    }
    left.extend(std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path().display().to_string()));
    left
}

fn own_group(path: &str, folder: &str) -> bool {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(folder.as_bytes());
    let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    path.ends_with(&digest)
}
