//! A terminal's line discipline, as much of it as a Wasm program can notice: it has no terminal of the kernel's.
//!
//! Lines are edited and echoed before the program gets them; Ctrl-C and Ctrl-\ are signals; Ctrl-D ends the input.

const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const KILL_LINE: u8 = 0x15;
const QUIT: u8 = 0x1c;
const DELETE: u8 = 0x7f;

/// The longest line, as the kernel's terminals have it (N_TTY_BUF_SIZE).
const LINE_MAX: usize = 4096;

/// The line that is being typed.
#[derive(Debug, Default)]
pub(super) struct LineDiscipline {
    line: Vec<u8>,
}

/// What came of some keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    /// What the program may read.
    pub(super) input: Vec<u8>,
    /// What the person sees of it.
    pub(super) echo: Vec<u8>,
    /// Signals that were typed.
    pub(super) signals: Vec<i32>,
    /// Whether the input ended.
    pub(super) ended: bool,
}

impl LineDiscipline {
    /// A program's output as a terminal shows it: each line starts at the left.
    pub(super) fn show(bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(bytes.len() + 16);
        for byte in bytes {
            if *byte == b'\n' {
                shown.push(b'\r');
            }
            shown.push(*byte);
        }
        shown
    }

    /// Takes keys.
    pub(super) fn type_in(&mut self, keys: &[u8]) -> Typed {
        let mut typed = Typed::default();
        for key in keys {
            match *key {
                INTERRUPT | QUIT => {
                    self.line.clear();
                    let interrupts = *key == INTERRUPT;
                    typed.echo.extend(if interrupts { b"^C" } else { b"^\\" });
                    typed.signals.push(if interrupts { libc::SIGINT } else { libc::SIGQUIT });
                }
                END if self.line.is_empty() => typed.ended = true,
                END => typed.input.append(&mut self.line),
                BACKSPACE | DELETE => {
                    // A character of several bytes goes as a whole.
                    while let Some(byte) = self.line.pop() {
                        if byte & 0xc0 != 0x80 {
                            typed.echo.extend(b"\x08 \x08");
                            break;
                        }
                    }
                }
                KILL_LINE => {
                    typed.echo.extend(b"\x08 \x08".repeat(self.line.len()));
                    self.line.clear();
                }
                b'\r' | b'\n' => {
                    self.line.push(b'\n');
                    typed.echo.extend(b"\r\n");
                    typed.input.append(&mut self.line);
                }
                key if self.line.len() < LINE_MAX => {
                    self.line.push(key);
                    typed.echo.push(key);
                }
                _ => {}
            }
        }
        typed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_the_line_as_it_was_corrected() {
        let mut terminal = LineDiscipline::default();
        let typed = terminal.type_in("helx\u{7f}lo\u{15}hé\u{7f}i\rrest".as_bytes());
        assert_eq!(typed.input, b"hi\n");
        assert!(typed.echo.ends_with(b"i\r\nrest"));
        assert_eq!(terminal.type_in(b"\n").input, b"rest\n");
    }

    #[test]
    fn control_keys_are_signals_and_the_end() {
        let mut terminal = LineDiscipline::default();
        let typed = terminal.type_in(b"half\x03\x1c\x04");
        assert_eq!((typed.signals, typed.ended), (vec![libc::SIGINT, libc::SIGQUIT], true));
        assert_eq!(typed.input, b"", "an interrupted line is gone");
        let typed = terminal.type_in(b"half\x04");
        assert_eq!((typed.input, typed.ended), (b"half".to_vec(), false));
    }

    #[test]
    fn a_line_has_an_end_however_long_it_is() {
        let mut terminal = LineDiscipline::default();
        terminal.type_in(&[b'x'; 100_000]);
        assert_eq!(terminal.type_in(b"\n").input.len(), LINE_MAX + 1);
        assert_eq!(LineDiscipline::show(b"a\nb"), b"a\r\nb");
    }
}
