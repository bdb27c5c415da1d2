//! A keeper's side of the channel, and programs to be kept.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hypercore::driver::wasm::Wasm;
use hypercore::driver::{self, Body, Class, Driver, Instance, Machine, Mount, MountSource, Wiring};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sha2::{Digest, Sha256};
use spacecore::wire::link::{Incoming, Link};
use spacecore::wire::message::{
    Configuration, ExitStatus, Process, Refusal, Stats, TerminalSize, ToGuest, ToHost,
};
use spacecore::wire::{stderr_of, stdin_of, stdout_of};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Says that a test couldn't be made here.
pub(crate) fn skipped(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// A folder with a program in it, and what is wanted of it.
pub(crate) struct Rig {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) driver: Wasm,
    pub(crate) machine: Machine,
    pub(crate) process: Process,
    pub(crate) network: Option<spacecore::wire::message::Network>,
}

impl Rig {
    /// A program in text form.
    pub(crate) fn text(text: &str) -> Self {
        Self::binary(&wat::parse_str(text).unwrap())
    }

    pub(crate) fn binary(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let module = folder.path().join("program.wasm");
        std::fs::write(&module, bytes).unwrap();
        let digest = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let body = driver::Wasm {
            module,
            digest,
            cache: folder.path().join("cache"),
            mounts: Vec::new(),
            table_elements: 10_000,
            folder: None,
        };
        let machine = Machine {
            name: "test".into(),
            cpu_milli: 1000,
            memory_mib: 64,
            class: Class::default(),
            network: None,
            body: Body::Wasm(body),
        };
        let process = Process::of(["program"]);
        Self { folder, driver: Wasm::new(), machine, process, network: None }
    }

    pub(crate) fn body(&mut self) -> &mut driver::Wasm {
        match &mut self.machine.body {
            Body::Wasm(body) => body,
            other => unreachable!("{other:?}"),
        }
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.process.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    pub(crate) fn mount(&mut self, name: &str, destination: &str, readonly: bool) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        let source = MountSource::Folder(path.clone());
        self.body().mounts.push(Mount { source, destination: destination.into(), readonly });
        path
    }

    pub(crate) fn start(&self) -> Running {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let prepared = self.driver.prepare(&self.machine).unwrap();
        let wire = self.machine.network.map(|_| UnixStream::pair().unwrap());
        let (kept, given) = wire.unzip();
        let wiring = Wiring {
            channel: theirs.into(),
            network: given.map(|end| hypercore::driver::Wire::Stream(end.into())),
            console: None,
        };
        let instance = self.driver.start(&prepared, wiring).unwrap();
        let mut running = Running::new(instance, ours);
        running.wire = kept;
        running.configure(&self.process, self.network.clone());
        running
    }

    pub(crate) fn run(&self) -> Seen {
        self.start().until_the_end()
    }
}

/// What a keeper has seen of a program.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) hello: bool,
    pub(crate) configured: Vec<String>,
    pub(crate) started: bool,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) status: Option<ExitStatus>,
    pub(crate) refusals: Vec<(Option<u16>, Refusal)>,
    pub(crate) stats: BTreeMap<u32, Stats>,
    pub(crate) gone: bool,
}

impl Seen {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    pub(crate) fn refusal(&self) -> &str {
        &self.refusals.first().unwrap_or_else(|| panic!("no refusal: {self:?}")).1.message
    }
}

/// A program that runs, with the keeper's side of its channel.
pub(crate) struct Running {
    pub(crate) instance: Box<dyn Instance>,
    socket: UnixStream,
    wire: Option<UnixStream>,
    pub(crate) link: Link,
    pub(crate) seen: Seen,
    /// Whether output is taken, so that the program gets more credit.
    pub(crate) reads: bool,
}

impl Running {
    pub(crate) fn new(instance: Box<dyn Instance>, socket: UnixStream) -> Self {
        socket.set_nonblocking(true).unwrap();
        let mut link = Link::new();
        link.open_receiver(stdout_of(0));
        Self { instance, socket, wire: None, link, seen: Seen::default(), reads: true }
    }

    pub(crate) fn configure(
        &mut self,
        process: &Process,
        network: Option<spacecore::wire::message::Network>,
    ) {
        if process.terminal.is_none() {
            self.link.open_receiver(stderr_of(0));
        }
        if process.stdin {
            self.link.open_sender(stdin_of(0));
        }
        let entropy = "00".repeat(32);
        let configuration = Configuration { entropy, network, ..Configuration::of("box", process.clone()) };
        self.say(&ToGuest::Configure(Box::new(configuration)));
    }

    pub(crate) fn say(&mut self, message: &ToGuest) {
        assert!(self.link.send_control(message));
        self.flush();
    }

    pub(crate) fn type_in(&mut self, bytes: &[u8]) {
        let mut sent = 0;
        while sent < bytes.len() {
            sent += self.link.send_data(stdin_of(0), &bytes[sent..]);
            self.flush();
            self.turn(Duration::from_millis(1));
        }
    }

    pub(crate) fn end_input(&mut self) {
        self.link.send_eof(stdin_of(0));
        self.flush();
    }

    fn flush(&mut self) {
        while !self.link.outgoing().is_empty() {
            match self.socket.write(self.link.outgoing()) {
                Ok(length) => self.link.written(length),
                Err(_) => return,
            }
        }
    }

    /// Waits a little for something to happen, and notes it.
    pub(crate) fn turn(&mut self, most: Duration) {
        use std::io::Read;
        let time = Timespec::try_from(most).unwrap();
        let mut fds = [
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::from_borrowed_fd(self.instance.handle(), PollFlags::IN),
        ];
        poll(&mut fds, Some(&time)).unwrap();
        self.seen.gone |= !fds[1].revents().is_empty();
        let mut buffer = [0; 65536];
        while let Ok(length @ 1..) = self.socket.read(&mut buffer) {
            self.link.receive(&buffer[..length]);
        }
        while let Some(incoming) = self.link.next_incoming::<ToHost>().unwrap() {
            self.note(incoming);
        }
        self.flush();
    }

    fn note(&mut self, incoming: Incoming<ToHost>) {
        let seen = &mut self.seen;
        match incoming {
            Incoming::Control(ToHost::Hello { .. }) => seen.hello = true,
            Incoming::Control(ToHost::Configured { steps }) => {
                seen.configured = steps.into_iter().map(|step| step.name).collect();
            }
            Incoming::Control(ToHost::Started { process: 0 }) => seen.started = true,
            Incoming::Control(ToHost::Ended { process: 0, status }) => seen.status = Some(status),
            Incoming::Control(ToHost::Refused { process, refusal }) => seen.refusals.push((process, refusal)),
            Incoming::Control(ToHost::Stats { request, stats }) => _ = seen.stats.insert(request, stats),
            Incoming::Data(stream, bytes) => {
                let into = if stream == stdout_of(0) { &mut seen.stdout } else { &mut seen.stderr };
                into.extend(&bytes);
                if self.reads {
                    self.link.consumed(stream, bytes.len());
                }
            }
            Incoming::Eof(_) | Incoming::Writable(_) => {}
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&Seen) -> bool) {
        let begin = Instant::now();
        while !holds(&self.seen) {
            assert!(begin.elapsed() < PATIENCE, "still not {what}: {:?}", self.seen);
            self.turn(Duration::from_millis(100));
        }
    }

    /// Closes the keeper's end of the channel.
    pub(crate) fn hang_up(self) -> Box<dyn Instance> {
        self.instance
    }

    /// Lets it run to its end, and switches it off.
    pub(crate) fn until_the_end(mut self) -> Seen {
        self.until("ended", |seen| seen.status.is_some() || seen.refusals.iter().any(|r| r.0.is_none()));
        self.say(&ToGuest::Shutdown { grace_ms: 0 });
        self.until("gone", |seen| seen.gone);
        assert_eq!(self.instance.ended().unwrap().unwrap().code, Some(0));
        self.seen
    }
}

pub(crate) fn a_terminal(process: &mut Process) {
    process.terminal = Some(TerminalSize { rows: 24, columns: 80 });
    process.stdin = true;
}

/// Whether the descriptor is readable now.
pub(crate) fn is_readable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).unwrap() > 0
}

/// Compiles a C program, where this machine can.
pub(crate) fn c(source: &str, flags: &[&str]) -> Result<Vec<u8>, String> {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("program.c"), folder.path().join("program.wasm"));
    std::fs::write(&from, source).unwrap();
    if !Path::new("/usr/include/wasm32-wasi").exists() {
        return Err(
            "wasi-libc isn't installed (apt-get install clang lld wasi-libc libclang-rt-dev-wasm32)".into()
        );
    }
    let mut clang = std::process::Command::new("clang");
    clang.args(["--target=wasm32-wasi", "--sysroot=/usr", "-O1", "-o"]).arg(&to).arg(&from).args(flags);
    let output = clang.output().map_err(|error| format!("clang: {error}"))?;
    if !output.status.success() {
        return Err(format!("clang: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(std::fs::read(to).unwrap())
}
