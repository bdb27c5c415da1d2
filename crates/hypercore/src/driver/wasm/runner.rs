//! The jailed process that runs Wasm programs, seen from its keeper.
//!
//! A program that breaks out of its compiler's isolation has the process that runs it. So root's keeper doesn't run programs
//! itself: it starts a process in a jail (see [`crate::jail`]), with a user of its own, and hands it each program
//! with what that is granted, as open descriptors. Beyond those the process can reach nothing.
//!
//! ```text
//!  keeper --"start": memory, processors, names--> runner     one message for each program, over a pair of sockets, with
//!     |                                              |       its channel, its folders, and two more sockets:
//!     |<--code? network?-----------------------------|         asks: see questions.rs
//!     |---code; what was set up; or why not--------->|
//!     |---pause, resume, stop, observe-------------->|         line: its end says that the program's is over
//! ```
//!
//! One process runs all programs of a keeper of many. A program that has a network or a keeper of its own gets a process of its own,
//! which a control group holds to what the manifest says. With a network the namespace of the jail is that program's, and the keeper
//! sets it up; the process's system calls are those of the other kind and what sockets of TCP and UDP need.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::engine::Shared;
use super::grants::HANDLES_MAX;
use super::memory;
use super::network::{Card, Seen};
use super::questions::{self, FDS_MAX, MESSAGE_MAX, pair, receive, send};
use crate::cgroup::{Group, Limits};
use crate::driver::{
    Class, ControlError, Ended, Instance, MountSource, Observation, ObserveError, StopError, Wasm, container,
};
use crate::jail::{self, Calls, Device, Ids, Jail};
use crate::spawn::Spawned;

/// The name of the command that runs programs in the jail.
pub const RUN: &str = "run-wasm";

/// How long the runner may take to answer, and to end a program.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of all programs together.
const OPEN_FILES: u64 = 65_536;
const THREADS: u64 = 16_384;
/// Of a process for one program: its handles, some of which are two files, and what the process has open itself.
const OPEN_FILES_OF_ONE: u64 = 2 * HANDLES_MAX as u64 + 256;
/// The program's, its channel's and its line's, those that wait for files, the one that ticks.
const THREADS_OF_ONE: u64 = 32;
/// What such a process takes beside its program's memory, in bytes. Measured were 4 MiB for one that had used all of its memory and
/// served 300 connections; what waits in sockets' buffers counts too, and what the kernel keeps of files, which it gives up first.
const OWN_BYTES: u64 = 64 << 20;
/// What it takes for each element of tables, and for each byte of the program: its code has at most four times as many, and is there
/// twice while it is loaded.
const ELEMENT_BYTES: u64 = 16;
const LOADED: u64 = 8;

/// What the runner is told of a program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) wasm: Wasm,
    pub(super) memory_bytes: u64,
    pub(super) cpu_milli: u32,
    /// Whether its process has a network that the keeper sets up when it is asked to.
    pub(super) has_network: bool,
}

/// What a program's line carries towards the runner.
pub(super) const PAUSE: u8 = b'p';
pub(super) const RESUME: u8 = b'r';
pub(super) const STOP: u8 = b's';
pub(super) const OBSERVE: u8 = b'o';
/// What the runner says last of a program: one that died says nothing.
pub(super) const OVER: u8 = b'e';
/// How long a process that died may take from closing its files to its end.
const DYING: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// What the process of one program may take: what the program may, and the process itself.
pub(super) fn limits(wasm: &Wasm, memory_bytes: u64, cpu_milli: u32, class: Class) -> Limits {
    // A program that isn't there is refused when it is looked for.
    let program = fs::metadata(&wasm.module).map_or(0, |status| status.len());
    let memory_bytes = memory_bytes
        .saturating_add(OWN_BYTES)
        .saturating_add(wasm.table_elements.saturating_mul(ELEMENT_BYTES))
        .saturating_add(program.saturating_mul(LOADED));
    Limits { cpu_milli, memory_bytes, threads: THREADS_OF_ONE, class }
}

/// The jailed process. It ends with the thread that started it.
#[derive(Debug)]
pub(super) struct Runner {
    socket: OwnedFd,
    spawned: Spawned,
    /// By which its folders are shown to its user.
    namespace: OwnedFd,
    /// Its user, as this machine counts.
    user: u32,
    /// Its user is nobody else's until it has ended.
    _jail: Jail,
    /// After the process, which must have ended.
    group: Option<Limited>,
    whose: Whose,
}

/// Which programs a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// All of a keeper's without a network.
    All,
    /// One, without a network.
    One,
    /// One with a network.
    NetworkedOne,
}

/// A control group, which is removed when this is dropped.
#[derive(Debug)]
struct Limited {
    group: Group,
    memory_bytes: u64,
    class: Class,
}

impl Drop for Limited {
    fn drop(&mut self) {
        // What can't be removed now, the next command clears away.
        let _ = self.group.remove();
    }
}

impl Runner {
    /// Starts `program` with the argument [`RUN`] in its jail, for all programs that have no process of their own. Root alone can.
    pub(super) fn for_all(program: &Path, cache: Option<&Path>) -> io::Result<Self> {
        Self::start(program, cache, None, Whose::All)
    }

    /// The same for one program; the control group is named by the folder.
    pub(super) fn for_one(
        program: &Path,
        cache: Option<&Path>,
        group: Option<&(PathBuf, Limits)>,
        has_network: bool,
    ) -> io::Result<Self> {
        let limited = group.map(|(folder, limits)| {
            let group = Group::prepare(folder)?;
            group.make(limits)?;
            Ok(Limited { group, memory_bytes: limits.memory_bytes, class: limits.class })
        });
        let limited = limited.transpose();
        let limited = limited.map_err(|error: io::Error| {
            io::Error::new(error.kind(), format!("the program's control group: {error}"))
        })?;
        Self::start(program, cache, limited, if has_network { Whose::NetworkedOne } else { Whose::One })
    }

    fn start(program: &Path, cache: Option<&Path>, group: Option<Limited>, whose: Whose) -> io::Result<Self> {
        let (ours, theirs) = pair()?;
        let ids = Ids::take()?;
        let user = ids.first();
        let namespace = container::namespace(user)?;
        let (calls, open_files, threads) = match whose {
            Whose::All => (Calls::Wasm, OPEN_FILES, THREADS),
            Whose::One => (Calls::Wasm, OPEN_FILES_OF_ONE, THREADS_OF_ONE),
            Whose::NetworkedOne => (Calls::WasmSockets, OPEN_FILES_OF_ONE, THREADS_OF_ONE),
        };
        let jail = Jail {
            shown: jail::closure(program, cache)?,
            devices: vec![Device::Null, Device::Urandom],
            calls,
            file_bytes: libc::RLIM_INFINITY,
            open_files,
            threads,
            ids: Some(ids),
            group: group.as_ref().map(|limited| limited.group.clone()),
            class: group.as_ref().map_or_else(Class::default, |limited| limited.class),
            profile: None,
            without: Vec::new(),
        };
        let spawned = jail.start(program, &[RUN.into()], vec![theirs])?;
        Ok(Self { socket: ours, spawned, namespace, user, _jail: jail, group, whose })
    }

    /// Has a program started; what its process asks is answered by a thread of this one. With a network, it is the only one that
    /// this runner is given.
    pub(super) fn run(
        self: &Arc<Self>,
        order: &Order,
        channel: OwnedFd,
        shared: &Arc<Shared>,
        network: Option<Card>,
    ) -> io::Result<Jailed> {
        let ((line, their_line), (asks, their_asks)) = (pair()?, pair()?);
        let mut fds = vec![channel, their_line, their_asks];
        for mount in &order.wasm.mounts {
            let folder = match &mount.source {
                MountSource::Folder(folder) => folder,
                MountSource::Memory(bytes) => {
                    fds.push(memory::folder(*bytes, self.user)?);
                    continue;
                }
                MountSource::File(_) | MountSource::Disk(_) => continue,
            };
            let shown = container::show(folder, &self.namespace, mount.readonly);
            fds.push(shown.map_err(|error| {
                let what = format!("the folder {} can't be shown to the program's user", folder.display());
                io::Error::new(error.kind(), format!("{what}: {error}"))
            })?);
        }
        let bytes = serde_json::to_vec(order)?;
        if bytes.len() > MESSAGE_MAX || fds.len() > FDS_MAX {
            return Err(io::Error::other("the program has too many folders"));
        }
        let network = network.map(|card| self.prepare_network(card)).transpose()?;
        send(&self.socket, &bytes, &fds)?;
        drop(fds);
        let (shared, wasm) = (Arc::clone(shared), order.wasm.clone());
        let answers = std::thread::Builder::new().name("wasm-answers".to_owned()).stack_size(256 * 1024);
        // A runner that has died hears nothing, and its programs are over.
        answers.spawn(move || drop(questions::answer(&shared, &wasm, network, &asks)))?;
        Ok(Jailed { line, runner: Arc::clone(self), is_over: false, was_told: false })
    }

    /// Makes the program's interface in the namespace that the jail gave to the process.
    fn prepare_network(&self, card: Card) -> io::Result<Seen> {
        let its_own = File::open(format!("/proc/{}/ns/net", self.spawned.pid()))?;
        let of_machine = File::open("/proc/thread-self/ns/net")?;
        if self.whose != Whose::NetworkedOne || its_own.metadata()?.ino() == of_machine.metadata()?.ino() {
            return Err(io::Error::other("the process in the jail has no network namespace for the program"));
        }
        Seen::make(its_own.into(), card).map_err(|refusal| io::Error::other(refusal.message))
    }

    /// What a process that has died died of, as far as it is known.
    fn why_it_died(&self) -> String {
        let whose = match self.whose {
            Whose::All => "all of this user's Wasm programs",
            Whose::One | Whose::NetworkedOne => "the program",
        };
        let stderr = self.spawned.stderr();
        let limited = self.group.as_ref().filter(|limited| limited.group.killed_for_memory() > 0);
        match limited {
            Some(limited) => format!(
                "the process in the jail, which runs {whose}, has died: it took more memory than the {} MiB that it and the program may; {stderr}",
                limited.memory_bytes >> 20
            ),
            None => format!("the process in the jail, which runs {whose}, has died; {stderr}"),
        }
    }
}

impl Runner {
    /// The process' memory that lies in RAM (proc(5), `/proc/PID/statm`), if it can be told.
    fn resident_bytes(&self) -> Option<u64> {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.spawned.pid())).ok()?;
        let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
        pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
    }
}

/// A program in the runner. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Jailed {
    line: OwnedFd,
    runner: Arc<Runner>,
    is_over: bool,
    /// Whether the runner has said so.
    was_told: bool,
}

impl Jailed {
    fn say(&self, word: u8) -> io::Result<()> {
        send(&self.line, &[word], &[])
    }

    /// Whether the line's other end is gone.
    fn check(&mut self) -> bool {
        let mut fds = [PollFd::new(&self.line, PollFlags::empty())];
        let polled = poll(&mut fds, Some(&Timespec::default()));
        self.is_over |= polled.is_ok_and(|ready| ready > 0) && fds[0].revents().contains(PollFlags::HUP);
        self.is_over
    }

    /// A program has no exit code of its own; what became of it was said over the channel. Of a runner that has died nobody said
    /// anything.
    fn status(&mut self) -> Ended {
        // Behind the other end's, nothing can make this wait.
        while !self.was_told && self.check() {
            match receive(&self.line) {
                Ok((word, _)) if !word.is_empty() => self.was_told = word == [OVER],
                _ => break,
            }
        }
        let patience = if self.was_told { Timespec::default() } else { DYING };
        let mut process = [PollFd::from_borrowed_fd(self.runner.spawned.handle(), PollFlags::IN)];
        match poll(&mut process, Some(&patience)) {
            Ok(1..) => Ended { code: None, signal: None, stderr: self.runner.why_it_died() },
            Ok(0) | Err(_) => Ended { code: Some(0), signal: None, stderr: String::new() },
        }
    }

    fn tell(&mut self, word: u8) -> Result<(), ControlError> {
        if self.check() {
            return Err(ControlError::Ended);
        }
        self.say(word).map_err(ControlError::Connection)
    }
}

impl Instance for Jailed {
    fn pid(&self) -> i32 {
        self.runner.spawned.pid()
    }

    fn handle(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }

    fn pause(&mut self) -> Result<(), ControlError> {
        self.tell(PAUSE)
    }

    fn resume(&mut self) -> Result<(), ControlError> {
        self.tell(RESUME)
    }

    fn observe(&mut self) -> Result<Observation, ObserveError> {
        if self.check() {
            return Err(ObserveError::Ended);
        }
        self.say(OBSERVE).map_err(ObserveError::Proc)?;
        let patience = Timespec::try_from(PATIENCE).ok();
        let answered = poll(&mut [PollFd::new(&self.line, PollFlags::IN)], patience.as_ref());
        if answered.map_err(|error| ObserveError::Proc(error.into()))? == 0 {
            return Err(ObserveError::Proc(io::ErrorKind::TimedOut.into()));
        }
        let (bytes, _) = receive(&self.line).map_err(ObserveError::Proc)?;
        let mut numbers =
            bytes.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok()).map(u64::from_ne_bytes);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(own_bytes), Some(cpu), Some(threads)) => {
                // Beside the runner's other handles this one alone: then all of the process is there for it.
                let is_alone =
                    Arc::strong_count(&self.runner) <= if self.runner.whose == Whose::All { 2 } else { 1 };
                let process_bytes = is_alone.then(|| self.runner.resident_bytes()).flatten();
                let resident_bytes = process_bytes.unwrap_or(own_bytes).max(own_bytes);
                Ok(Observation { resident_bytes, cpu: Duration::from_nanos(cpu), threads })
            }
            _ => Err(ObserveError::Ended),
        }
    }

    fn stop(&mut self) -> Result<Ended, StopError> {
        if !self.check() {
            // A runner that has died has stopped.
            let _ = self.say(STOP);
            let patience = Timespec::try_from(PATIENCE).ok();
            let _ = poll(&mut [PollFd::new(&self.line, PollFlags::empty())], patience.as_ref());
        }
        self.is_over = true;
        Ok(self.status())
    }

    fn ended(&mut self) -> Result<Option<Ended>, StopError> {
        Ok(self.check().then(|| self.status()))
    }
}

impl Drop for Jailed {
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.stop();
        }
    }
}

/// Where a descriptor's file can be opened by a path.
pub(super) fn path_of(fd: &impl AsRawFd) -> std::path::PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

/// Puts code into memory that has no name.
pub(super) fn in_memory(code: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("code", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(code)?;
    io::Seek::rewind(&mut file)?;
    Ok(file)
}
