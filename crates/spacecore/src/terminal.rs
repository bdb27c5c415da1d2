//! Pseudo terminals.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use spacecore::wire::message::{Refusal, RefusalKind, TerminalSize};

use crate::boot::PTS;
use spacecore::refusal::OrRefuse;

/// The byte that means end of file to a terminal (`VEOF`).
pub(crate) const END_OF_FILE: u8 = 4;

/// Both ends of a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// What the keeper reads and writes.
    pub(crate) master: OwnedFd,
    /// What the process has as standard input, output and error.
    pub(crate) slave: OwnedFd,
}

impl Terminal {
    /// Opens a terminal of this size.
    ///
    /// # Errors
    /// The kernel has no more of them.
    pub(crate) fn open(size: TerminalSize) -> Result<Self, Refusal> {
        let what = || "opening a terminal".to_owned();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let terminals = if crate::mode::is_container() { "/dev/pts" } else { PTS };
        let master = rustix::fs::open(format!("{terminals}/ptmx"), flags, Mode::empty())
            .or_refuse(RefusalKind::Other, what)?;
        rustix::pty::unlockpt(&master).or_refuse(RefusalKind::Other, what)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).or_refuse(RefusalKind::Other, what)?;
        resize(&master, size);
        Ok(Self { master, slave })
    }
}

/// Sets a terminal's size, which tells its foreground processes by `SIGWINCH`.
pub(crate) fn resize(master: &OwnedFd, size: TerminalSize) {
    let _ = rustix::termios::tcsetwinsize(
        master,
        Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 },
    );
}
