//! The connection between the node and one keeper.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use spacecore::wire::link::Incoming;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::keeper::report::{FromKeeper, ToKeeper};
use crate::run_folder::{self, Left};
use crate::session::Session;

/// How often something is looked for that nobody announces.
const NAP: Duration = Duration::from_millis(20);

/// Speaks with a keeper until the connection has ended: passes on what is ordered, and tells what the keeper says.
///
/// # Errors
/// The connection can't be watched.
pub(super) async fn speak(
    session: &mut Session,
    orders: &mut UnboundedReceiver<ToKeeper>,
    mut tell: impl FnMut(FromKeeper),
) -> io::Result<()> {
    let watched = std::os::unix::net::UnixStream::from(session.as_fd().try_clone_to_owned()?);
    let watched = UnixStream::from_std(watched)?;
    let again = || Err(io::ErrorKind::WouldBlock.into());
    loop {
        session.flush();
        let waits = !session.link().outgoing().is_empty();
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => session.tell(&order),
                // The node doesn't concern itself with this keeper any more.
                None => return Ok(()),
            },
            ready = watched.readable() => {
                ready?;
                // One that finds nothing more to read has tokio wait for more.
                let _ = watched.try_io(Interest::READABLE, || if session.fill() { Ok(()) } else { again() });
                hear(session, &mut tell);
                if !session.is_open() {
                    return Ok(());
                }
            }
            ready = watched.writable(), if waits => {
                ready?;
                let _ = watched.try_io(Interest::WRITABLE, || {
                    session.flush();
                    if session.link().outgoing().is_empty() { Ok(()) } else { again() }
                });
            }
        }
    }
}

fn hear(session: &mut Session, tell: &mut impl FnMut(FromKeeper)) {
    // A keeper of another version says something that can't be understood; its end will still be noticed.
    while let Ok(Some(incoming)) = session.next_incoming() {
        if let Incoming::Control(message) = incoming {
            tell(message);
        }
    }
}

/// Connects to the keeper that holds a run folder, which may be about to begin; what is left of it where none does.
pub(super) async fn adopt(run_folder: &Path) -> Result<Session, Left> {
    loop {
        if let Ok(session) = Session::adopt(run_folder) {
            return Ok(session);
        }
        match look(run_folder) {
            Left::Held => tokio::time::sleep(NAP).await,
            other => return Err(other),
        }
    }
}

/// What is left of a keeper whose connection has ended, once it is gone.
pub(super) async fn end_of(run_folder: &Path) -> Left {
    loop {
        match look(run_folder) {
            Left::Held => tokio::time::sleep(NAP).await,
            other => return other,
        }
    }
}

/// What is left of whoever has this run folder, as far as it can be told.
pub(super) fn look(run_folder: &Path) -> Left {
    // What can't be read may still be held: it is looked at again.
    run_folder::look(run_folder).unwrap_or(Left::Held)
}
