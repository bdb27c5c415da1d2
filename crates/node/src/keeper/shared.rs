//! One keeper for many: all Wasm spacecores that a user runs.
//!
//! A Wasm program is kept apart from others by its compiler, not by a process, so that one process can hold many, and each
//! further one costs a fraction of a process and none of its start. They belong to one user, because whoever breaks out of
//! the compiler's isolation has the process and with it everything in it. Root's are in a process in a jail beside this one.
//!
//! ```text
//!   first vimana run ---executes---> keeper: binds run/wasm-VERSION.sock, one thread for each spacecore
//!   next  vimana run ---connects---> sends its assignment and control socket (SCM_RIGHTS), and is answered with one byte
//! ```
//!
//! The keeper ends with its last spacecore. Whoever can't join, because the keeper is about to end or is another version's,
//! starts a keeper of its own.

use std::fs::DirBuilder;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use hypercore::driver::Body;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::assignment::{Assignment, Lifetime, VERSION};
use super::host;
use crate::run_folder;
use crate::signals::Signals;

/// What a keeper answers to an assignment that it takes.
const TAKEN: u8 = b'k';
/// How long the other side may take to say its part.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether this spacecore can be held by a keeper that holds others. One with a network has a keeper of its own: without root it runs in
/// the keeper's process, where what belongs to the others would be within its reach; with root it has a process in a jail to itself,
/// and what it asks for is done by a process that holds nothing of others.
pub fn is_shareable(assignment: &Assignment) -> bool {
    let is_bound_wasm =
        matches!(assignment.machine.body, Body::Wasm(_)) && assignment.lifetime == Lifetime::Bound;
    is_bound_wasm && assignment.network.is_none()
}

fn socket_path(run: &Path) -> PathBuf {
    run.join(format!("wasm-{}-{VERSION}.sock", env!("CARGO_PKG_VERSION")))
}

/// Hands an assignment to the keeper that runs already. `false` if there is none, or it won't have it.
pub fn join(run: &Path, assignment: &OwnedFd, control: &OwnedFd) -> bool {
    offer(run, assignment, control).unwrap_or(false)
}

fn offer(run: &Path, assignment: &OwnedFd, control: &OwnedFd) -> io::Result<bool> {
    run_folder::check_own(run)?;
    let stream = UnixStream::connect(socket_path(run))?;
    check_peer(&stream)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let fds = [assignment.as_fd(), control.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(&stream, &[IoSlice::new(&[TAKEN])], &mut ancillary, SendFlags::NOSIGNAL)?;
    let mut answer = [0; 1];
    io::Read::read_exact(&mut &stream, &mut answer)?;
    Ok(answer == [TAKEN])
}

/// Refuses a process of another user, who must neither be told what runs nor have anything run here.
fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    match peer.uid == rustix::process::geteuid() {
        true => Ok(()),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

fn accept(stream: &UnixStream) -> io::Result<(OwnedFd, OwnedFd)> {
    check_peer(stream)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut byte = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    match (fds.next(), fds.next()) {
        (Some(assignment), Some(control)) => Ok((assignment, control)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Keeps this spacecore and those that join, until the last has ended.
///
/// # Errors
/// The process lacks what every keeper needs. How each spacecore fares is told to those who started it.
pub fn keep(assignment: Assignment, control: OwnedFd) -> io::Result<()> {
    let signals = Signals::block(&host::SIGNALS)?;
    allow_many_files();
    super::driver::jail_wasm(&assignment)?;
    let run = assignment.run_folder.parent().unwrap_or(Path::new("/")).to_owned();
    let listener = listen(&run)?;
    let (ended, endings) = mpsc::channel();
    let mut keeper = Keeper {
        listener,
        run,
        signals,
        bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        ended,
        endings,
        spacecores: Vec::new(),
        is_full: false,
        next: 0,
    };
    keeper.start(assignment, control)?;
    while !keeper.spacecores.is_empty() {
        keeper.turn()?;
        if keeper.spacecores.is_empty() {
            keeper.close()?;
        }
    }
    Ok(())
}

/// Lets this process have as many open files as it may: each of its programs may hold some hundred.
pub(crate) fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where that isn't possible, fewer programs fit in.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Binds the socket on which others join; nothing where another keeper has it.
fn listen(run: &Path) -> io::Result<Option<UnixListener>> {
    DirBuilder::new().recursive(true).mode(0o700).create(run)?;
    let path = socket_path(run);
    let _gate = run_folder::gate(run)?;
    if UnixStream::connect(&path).is_ok() {
        return Ok(None);
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

struct Keeper {
    listener: Option<UnixListener>,
    run: PathBuf,
    signals: Signals,
    /// Rung by each spacecore's thread at its end.
    bell: OwnedFd,
    ended: mpsc::Sender<u64>,
    endings: mpsc::Receiver<u64>,
    /// By number, with the control socket of each.
    spacecores: Vec<(u64, OwnedFd)>,
    /// Whether nobody more fits in until one has ended.
    is_full: bool,
    next: u64,
}

impl Keeper {
    fn start(&mut self, assignment: Assignment, control: OwnedFd) -> io::Result<()> {
        let number = self.next;
        self.next = number.wrapping_add(1);
        let (ended, bell) = (self.ended.clone(), self.bell.try_clone()?);
        let own = control.try_clone()?;
        thread::Builder::new().name(assignment.id.chars().take(15).collect()).spawn(move || {
            let _ending = Ending { number, ended, bell };
            // Whoever started it learns of a failure by the end of the control socket.
            let _ = host::keep_one_of_many(assignment, control);
        })?;
        self.spacecores.push((number, own));
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.bell, PollFlags::IN)];
        let open = self.listener.iter().filter(|_| !self.is_full);
        fds.extend(open.map(|listener| PollFd::new(listener, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(signal) = self.signals.next_signal() {
            if host::is_order_to_end(signal) {
                // Each spacecore ends as if its command were gone.
                self.spacecores.iter().for_each(|(_, control)| _ = shutdown(control, Shutdown::Both));
            }
        }
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
        while let Ok(number) = self.endings.try_recv() {
            self.spacecores.retain(|(known, _)| *known != number);
            self.is_full = false;
        }
        self.take_in();
        Ok(())
    }

    fn take_in(&mut self) {
        while let Some(accepted) = self.listener.as_ref().map(UnixListener::accept) {
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Without a descriptor to spare nobody fits in before somebody has ended.
                    self.is_full = error.kind() != io::ErrorKind::WouldBlock;
                    return;
                }
            };
            let taken = accept(&stream).and_then(|(assignment, control)| {
                let assignment = Assignment::from_fd(assignment)?;
                match is_shareable(&assignment) {
                    true => self.start(assignment, control),
                    false => Err(io::ErrorKind::InvalidInput.into()),
                }
            });
            if taken.is_ok() {
                // Whoever doesn't wait for the answer is gone, and its control socket with it.
                let _ = io::Write::write_all(&mut &stream, &[TAKEN]);
            }
        }
    }

    /// Takes nobody more in, but those who are at the door.
    fn close(&mut self) -> io::Result<()> {
        if self.listener.is_some() {
            let _gate = run_folder::gate(&self.run)?;
            let path = socket_path(&self.run);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            self.take_in();
            self.listener = None;
        }
        Ok(())
    }
}

/// Tells the keeper that a thread has ended, also by a panic.
struct Ending {
    number: u64,
    ended: mpsc::Sender<u64>,
    bell: OwnedFd,
}

impl Drop for Ending {
    fn drop(&mut self) {
        // The keeper waits for it as long as it lives.
        let _ = self.ended.send(self.number);
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

/// What a borrowed descriptor of a control socket is read for: the end of the keeper's thread.
pub fn wait_for_end(socket: BorrowedFd<'_>, patience: Duration) {
    let _ = shutdown(socket, Shutdown::Write);
    let timeout = rustix::event::Timespec::try_from(patience).ok();
    let mut bytes = [0; 4096];
    while let Ok(1..) = poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::IN)], timeout.as_ref()) {
        match rustix::io::read(socket, &mut bytes) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
}
