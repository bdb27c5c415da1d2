//! The process that starts a keeper, or adopts one, and speaks to it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hypercore::cgroup;
use hypercore::driver::Body;
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use spacecore::wire::link::{Incoming, Link, Violation};

use crate::again;
use crate::keeper::assignment::{Assignment, Lifetime};
use crate::keeper::host;
use crate::keeper::report::{FromKeeper, PROTOCOL, ToKeeper};
use crate::keeper::shared;
use crate::keeper::wire_socket::WireSocket;
use crate::run_folder::{self, RunFolder};

/// The places at which a keeper finds its assignment, its control socket and, where it is independent, the lock of its
/// run folder.
const ASSIGNMENT: u8 = 0;
const CONTROL: u8 = 1;
const LOCK: u8 = 2;

/// How long a keeper that goes on may take to clear one spacecore away.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to a keeper.
#[derive(Debug)]
pub struct Session {
    socket: WireSocket,
    keeper: Option<Child>,
    /// Whether the keeper holds other spacecores too, or may.
    is_shared: bool,
    run_folder: PathBuf,
    lifetime: Lifetime,
    /// The version that the keeper speaks.
    protocol: u32,
}

impl Session {
    /// Starts a keeper: `program` (the running `vimana`) executed again with the one argument `keeper`. Where a keeper that can
    /// hold the spacecore beside others runs already, it gets it instead.
    ///
    /// The run folder of an independent keeper is made and locked here, and the keeper inherits the lock: from this call on
    /// [`run_folder::look`] tells whether there is a keeper, whatever happens to this process. Such a keeper isn't waited for by
    /// [`Session::close`]: whoever started it reaps the process [`Session::keeper_pid`].
    ///
    /// # Errors
    /// The program can't be executed, no descriptor is left, or an independent keeper's run folder exists already
    /// ([`io::ErrorKind::AlreadyExists`]) or can't be made.
    pub fn start(program: &Path, assignment: &Assignment) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let (assignment_fd, control) = (assignment.to_memfd()?, theirs);
        let is_shared = shared::is_shareable(assignment);
        let run = assignment.run_folder.parent().unwrap_or(Path::new("/"));
        let session = |keeper| {
            Ok(Self {
                socket: WireSocket::new(ours)?,
                keeper,
                is_shared,
                run_folder: assignment.run_folder.clone(),
                lifetime: assignment.lifetime,
                protocol: PROTOCOL,
            })
        };
        if is_shared && shared::join(run, &assignment_fd, &control) {
            return session(None);
        }
        let folder = match assignment.lifetime {
            Lifetime::Bound => None,
            Lifetime::Independent => Some(RunFolder::create(&assignment.run_folder)?),
        };
        if wants_group(assignment) {
            // While the keeper starts. Where nobody can be spared the waiting, nothing else changes.
            let waiter = std::thread::Builder::new().name("cgroup-wait".to_owned());
            let _ = waiter.spawn(|| cgroup::wake().ok());
        }
        let mut command = Command::new(program);
        command.arg("keeper");
        // What may outlive this process doesn't hold on to its terminal or pipe.
        if is_shared || assignment.lifetime == Lifetime::Independent {
            command.stderr(Stdio::null());
        }
        let lock = folder.as_ref().map(|folder| folder.lock().as_fd());
        let passed_on: Vec<BorrowedFd<'_>> =
            [assignment_fd.as_fd(), control.as_fd()].into_iter().chain(lock).collect();
        match again::execute(&mut command, &passed_on) {
            Ok(keeper) => session(Some(keeper)),
            Err(error) => {
                // There is no keeper to do it.
                let removed = folder.map(RunFolder::remove);
                removed.transpose().and(Err(error))
            }
        }
    }

    /// Connects to a keeper that outlived whoever started it.
    ///
    /// # Errors
    /// It can't be connected to. As long as [`run_folder::look`] finds the folder held, it is worth to try again some
    /// milliseconds later: the keeper may not have come to listening yet ([`io::ErrorKind::NotFound`]), or is just ending. The same
    /// holds for a connection that ends without [`FromKeeper::Finished`].
    pub fn adopt(run_folder: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(run_folder.join("keeper.sock"))?;
        Ok(Self {
            socket: WireSocket::new(stream.into())?,
            keeper: None,
            is_shared: false,
            run_folder: run_folder.to_owned(),
            lifetime: Lifetime::Independent,
            // It has said so before it listened.
            protocol: run_folder::protocol(run_folder),
        })
    }

    /// The version that the keeper speaks, of which [`is_spoken`](crate::keeper::report::is_spoken) tells whether it can be understood.
    pub fn protocol(&self) -> u32 {
        self.protocol
    }

    /// Speaks to a keeper of this version over a connection that somebody else has made, of which `read` was read already.
    ///
    /// # Errors
    /// It isn't a socket.
    pub fn over(socket: OwnedFd, read: &[u8], protocol: u32) -> io::Result<Self> {
        let mut socket = WireSocket::new(socket)?;
        socket.link.receive(read);
        Ok(Self {
            socket,
            keeper: None,
            is_shared: false,
            run_folder: PathBuf::new(),
            lifetime: Lifetime::Independent,
            protocol,
        })
    }

    /// Ends the connection to a keeper that outlives it; gives its process, where this process started it.
    #[must_use]
    pub fn into_keeper(self) -> Option<Child> {
        self.keeper
    }

    /// The process of the keeper, where this process started it.
    pub fn keeper_pid(&self) -> Option<u32> {
        self.keeper.as_ref().map(Child::id)
    }

    /// The protocol's state, for streams.
    pub fn link(&mut self) -> &mut Link {
        &mut self.socket.link
    }

    /// Queues a message.
    pub fn tell(&mut self, message: &ToKeeper) {
        // One that is older would end the connection over it.
        if message.since() <= self.protocol {
            self.socket.link.send_control(message);
        }
    }

    /// What to poll this session for.
    pub fn interest(&self) -> PollFlags {
        self.socket.interest()
    }

    /// Whether the keeper can still say something.
    pub fn is_open(&self) -> bool {
        self.socket.is_open()
    }

    /// Writes what is queued, as far as it fits.
    pub fn flush(&mut self) {
        self.socket.flush();
    }

    /// Reads once what is there; `false` where nothing was.
    pub fn fill(&mut self) -> bool {
        self.socket.fill()
    }

    /// The next thing that the keeper said.
    ///
    /// # Errors
    /// It isn't the protocol: the keeper is another version's.
    pub fn next_incoming(&mut self) -> Result<Option<Incoming<FromKeeper>>, Violation> {
        self.socket.link.next_incoming()
    }

    /// Waits for the keeper's end and clears away what it couldn't, as when it was killed. To be called when the
    /// connection has ended, or to end a bound keeper.
    ///
    /// # Errors
    /// The keeper can't be waited for, or its folder can't be removed.
    pub fn close(self) -> io::Result<()> {
        let Self { socket, keeper, is_shared, run_folder, lifetime, protocol: _ } = self;
        if is_shared {
            shared::wait_for_end(socket.as_fd(), PATIENCE);
        }
        drop(socket);
        if lifetime == Lifetime::Bound {
            if let Some(mut keeper) = keeper.filter(|_| !is_shared) {
                keeper.wait()?;
            }
            run_folder::clear(&run_folder)?;
        }
        Ok(())
    }
}

/// Whether the keeper is going to move a process into a control group itself.
fn wants_group(assignment: &Assignment) -> bool {
    match &assignment.machine.body {
        Body::Virtual(machine) => machine.folder.is_some(),
        Body::Wasm(wasm) => wasm.folder.is_some(),
        // Its runtime sees to that.
        Body::Container(_) => false,
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The life of a keeper's process, whose parent called [`Session::start`].
///
/// # Errors
/// The process wasn't started that way, or lacks what every keeper needs.
pub fn keeper_main() -> io::Result<()> {
    let (assignment, control) = (again::take(ASSIGNMENT)?, again::take(CONTROL)?);
    let assignment = Assignment::from_fd(assignment)?;
    match shared::is_shareable(&assignment) {
        true => shared::keep(assignment, control),
        false => {
            let lock = match assignment.lifetime {
                Lifetime::Bound => None,
                Lifetime::Independent => Some(again::take(LOCK)?),
            };
            host::keep(assignment, control, lock)
        }
    }
}
