//! The terminal: its second screen, raw keys, and its size. When this is dropped it is as it was before.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use node::signals::Signals;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::draw::{Line, Look, Size};
use super::state::Key;

/// Another screen without a cursor, as `xterm` and all since have it.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// The terminal while it is used.
pub struct Screen {
    before: Termios,
    signals: Signals,
    colours: bool,
}

impl Screen {
    /// Takes the terminal over.
    pub fn open() -> anyhow::Result<Self> {
        let signals = Signals::block(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGWINCH])?;
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let screen = Self { before, signals, colours };
        write(ENTER)?;
        Ok(screen)
    }

    /// Its size now.
    pub fn size(&self) -> Size {
        match tcgetwinsize(stdout()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
                Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
            }
            _ => Size { columns: 80, rows: 24 },
        }
    }

    /// Shows these lines instead of what there was: over it, in one write, so that nothing flickers.
    pub fn show(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut text = "\x1b[?2026h\x1b[H".to_owned();
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                text.push_str("\r\n");
            }
            let (begin, end) = match line.look {
                Look::Plain => ("", ""),
                Look::Head => ("\x1b[7m", "\x1b[0m"),
                Look::Warning if self.colours => ("\x1b[31m", "\x1b[0m"),
                Look::Warning => ("", ""),
            };
            text.push_str(begin);
            text.push_str(&line.text);
            text.push_str(end);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J\x1b[?2026l");
        write(&text)
    }

    /// The keys that were pressed, after so long at the latest. A terminal that is gone is as a key that ends it.
    pub fn keys(&mut self, wait: Duration) -> io::Result<Vec<Key>> {
        let timeout = Timespec::try_from(wait).ok();
        let input = stdin();
        let mut fds = [
            PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let has_input = !fds[0].revents().is_empty();
        let mut keys = Vec::new();
        while let Some(signal) = self.signals.next_signal() {
            keys.extend((signal != libc::SIGWINCH).then_some(Key::Interrupt));
        }
        if has_input {
            let mut buffer = [0; 256];
            match rustix::io::retry_on_intr(|| rustix::io::read(stdin(), &mut buffer)) {
                Ok(0) | Err(_) => keys.push(Key::Interrupt),
                Ok(count) => keys.extend(decode(&buffer[..count])),
            }
        }
        Ok(keys)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nothing more to do for a terminal that is gone.
        let _ = write(LEAVE);
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Keys as terminals send them.
///
/// Source: "XTerm Control Sequences", section "PC-Style Function Keys".
pub fn decode(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = String::from_utf8_lossy(bytes).into_owned();
    let sequences = [
        ("\x1b[A", Key::Up),
        ("\x1bOA", Key::Up),
        ("\x1b[B", Key::Down),
        ("\x1bOB", Key::Down),
        ("\x1b[5~", Key::PageUp),
        ("\x1b[6~", Key::PageDown),
        ("\x1b[H", Key::Home),
        ("\x1bOH", Key::Home),
        ("\x1b[1~", Key::Home),
        ("\x1b[F", Key::End),
        ("\x1bOF", Key::End),
        ("\x1b[4~", Key::End),
    ];
    while let Some(letter) = rest.chars().next() {
        if let Some((sequence, key)) = sequences.iter().find(|(sequence, _)| rest.starts_with(sequence)) {
            keys.push(*key);
            rest.drain(..sequence.len());
            continue;
        }
        let length = match letter {
            // A sequence that means nothing here ends with a letter.
            '\x1b' if rest.starts_with("\x1b[") || rest.starts_with("\x1bO") => {
                let end = rest
                    .char_indices()
                    .skip(2)
                    .find(|(_, letter)| letter.is_ascii_alphabetic() || *letter == '~');
                end.map_or(rest.len(), |(at, letter)| at + letter.len_utf8())
            }
            _ => letter.len_utf8(),
        };
        if length == letter.len_utf8() {
            keys.extend(match letter {
                '\x03' | '\x04' => Some(Key::Interrupt),
                '\r' | '\n' => Some(Key::Enter),
                '\x1b' => Some(Key::Escape),
                '\x7f' | '\x08' => Some(Key::Backspace),
                letter if letter.is_control() => None,
                letter => Some(Key::Char(letter)),
            });
        }
        rest.drain(..length);
    }
    keys
}
