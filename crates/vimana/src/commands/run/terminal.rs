//! The person's terminal: its size, and its raw mode while the workload has it.

use std::io;

use anyhow::bail;
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use spacecore::wire::message::TerminalSize;

/// The terminal on standard input. When this is dropped it is as it was before.
pub struct Terminal {
    before: Termios,
    raw: bool,
}

impl Terminal {
    /// Opens it if it is wanted.
    pub fn open(wanted: bool) -> anyhow::Result<Option<Self>> {
        if !wanted {
            return Ok(None);
        }
        if !isatty(stdin()) || !isatty(stdout()) {
            bail!(
                "-t needs a terminal on standard input and output, and there is none; leave -t away for pipes"
            );
        }
        Ok(Some(Self { before: tcgetattr(stdin())?, raw: false }))
    }

    /// Its size now.
    pub fn size(&self) -> TerminalSize {
        match tcgetwinsize(stdout()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
                TerminalSize { rows: size.ws_row, columns: size.ws_col }
            }
            _ => TerminalSize { rows: 24, columns: 80 },
        }
    }

    /// Passes every key on as it is, Ctrl-C included.
    pub fn make_raw(&mut self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        self.raw = true;
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.raw {
            // There is nothing more to do for a terminal that is gone.
            let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
        }
    }
}
