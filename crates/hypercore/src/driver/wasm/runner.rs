//! The jailed process that runs Wasm programs, seen from its keeper.
//!
//! A program that breaks out of its compiler's isolation has the process that runs it. So root's keeper doesn't run programs
//! itself: it starts one process for all of them in a jail (see [`crate::jail`]), with a user of its own, and hands it each program
//! with what that is granted, as open descriptors. Beyond those the process can reach nothing.
//!
//! ```text
//!  keeper --"start": memory, processors, names--> runner     one message for each program, over a pair of sockets, with
//!     |                                              |       its channel, its folders, and two more sockets:
//!     |<--"?": not loaded yet------------------------|         code: until it is loaded
//!     |---compiled code, or why there is none------->|
//!     |---pause, resume, stop, observe-------------->|         line: its end says that the program's is over
//! ```
//!
//! Code is looked for, checked and compiled on the keeper's side, as without a jail.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};
use spacecore::wire::message::Refusal;

use super::engine::Shared;
use super::program::{Program, Source};
use super::run::refuse_program;
use crate::driver::{
    ControlError, Ended, Instance, MountSource, Observation, ObserveError, StopError, Wasm, container,
};
use crate::jail::{self, Calls, Device, Ids, Jail};
use crate::spawn::Spawned;

/// The name of the command that runs programs in the jail.
pub const RUN: &str = "run-wasm";

/// How long the runner may take to answer, and to end a program.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest message.
const MESSAGE_MAX: usize = 128 * 1024;
/// The most descriptors in one message (`SCM_MAX_FD` is 253).
const FDS_MAX: usize = 200;
/// Of all programs together.
const OPEN_FILES: u64 = 65_536;
const THREADS: u64 = 16_384;

/// What the runner is told of a program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) wasm: Wasm,
    pub(super) memory_bytes: u64,
    pub(super) cpu_milli: u32,
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
/// What the runner asks for, and is answered.
pub(super) const NEEDED: u8 = b'?';
pub(super) const CACHED: u8 = b'c';
pub(super) const COMPILED: u8 = b'n';
pub(super) const REFUSED: u8 = b'x';

/// The jailed process. It ends with the thread that started it.
#[derive(Debug)]
pub(super) struct Runner {
    socket: OwnedFd,
    spawned: Spawned,
    /// By which its folders are shown to its user.
    namespace: OwnedFd,
    /// Its user is nobody else's until it has ended.
    _jail: Jail,
}

impl Runner {
    /// Starts `program` with the argument [`RUN`] in its jail. Root alone can.
    pub(super) fn start(program: &Path, cache: Option<&Path>) -> io::Result<Self> {
        let (ours, theirs) = pair()?;
        let ids = Ids::take()?;
        let namespace = container::namespace(ids.first())?;
        let jail = Jail {
            shown: jail::closure(program, cache)?,
            devices: vec![Device::Null, Device::Urandom],
            calls: Calls::Wasm,
            file_bytes: libc::RLIM_INFINITY,
            open_files: OPEN_FILES,
            threads: THREADS,
            ids: Some(ids),
            group: None,
            profile: None,
            without: Vec::new(),
        };
        let spawned = jail.start(program, &[RUN.into()], vec![theirs])?;
        Ok(Self { socket: ours, spawned, namespace, _jail: jail })
    }

    /// Has a program started; its code is found by a thread of this process.
    pub(super) fn run(
        self: &Arc<Self>,
        order: &Order,
        channel: OwnedFd,
        shared: &Arc<Shared>,
    ) -> io::Result<Jailed> {
        let ((line, their_line), (code, their_code)) = (pair()?, pair()?);
        let mut fds = vec![channel, their_line, their_code];
        for mount in &order.wasm.mounts {
            let MountSource::Folder(folder) = &mount.source else { continue };
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
        send(&self.socket, &bytes, &fds)?;
        drop(fds);
        let (shared, wasm) = (Arc::clone(shared), order.wasm.clone());
        let loader = std::thread::Builder::new().name("wasm-loader".to_owned()).stack_size(256 * 1024);
        // A runner that has died hears nothing, and its programs are over.
        loader.spawn(move || drop(supply(&shared, &wasm, &code)))?;
        Ok(Jailed { line, runner: Arc::clone(self), is_over: false, was_told: false })
    }
}

/// Answers the runner's question for code, if it has one.
fn supply(shared: &Shared, wasm: &Wasm, code: &OwnedFd) -> io::Result<()> {
    let (asked, _) = receive(code)?;
    if asked != [NEEDED] {
        return Ok(());
    }
    match Program::find_code(shared, &wasm.module, &wasm.digest, &wasm.cache) {
        Ok((file, Source::Compiled)) => send(code, &[COMPILED], &[file.into()]),
        Ok((file, Source::Cache | Source::Process)) => send(code, &[CACHED], &[file.into()]),
        Err(error) => {
            let mut bytes = vec![REFUSED];
            bytes.extend(serde_json::to_vec(&refuse_program(&error))?);
            send(code, &bytes, &[])
        }
    }
}

/// What came for the question [`NEEDED`], on the runner's side.
pub(super) fn ask_for_code(code: &OwnedFd) -> Result<(File, Source), Refusal> {
    let broken = |error: io::Error| Refusal {
        kind: spacecore::wire::message::RefusalKind::Other,
        message: format!("the program's code didn't arrive: {error}"),
    };
    send(code, &[NEEDED], &[]).map_err(broken)?;
    let (bytes, fds) = receive(code).map_err(broken)?;
    let file = fds.into_iter().next().map(File::from);
    match (bytes.split_first(), file) {
        (Some((&CACHED, _)), Some(file)) => Ok((file, Source::Cache)),
        (Some((&COMPILED, _)), Some(file)) => Ok((file, Source::Compiled)),
        (Some((&REFUSED, refusal)), _) => Err(serde_json::from_slice(refusal).map_err(|e| broken(e.into()))?),
        _ => Err(broken(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Messages that stay whole.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

pub(super) fn send(to: &OwnedFd, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    rustix::io::retry_on_intr(|| sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// One message with its descriptors; an empty one where the other side is gone.
pub(super) fn receive(from: &OwnedFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    bytes.truncate(received.bytes);
    let fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    Ok((bytes, fds.collect()))
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
            Ok(1..) => Ended {
                code: None,
                signal: None,
                stderr: format!(
                    "the process in the jail, which runs all of this user's Wasm programs, has died; {}",
                    self.runner.spawned.stderr()
                ),
            },
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
            (Some(resident_bytes), Some(cpu), Some(threads)) => {
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
