//! A small client for QEMU's control protocol (QMP, `docs/interop/qmp-spec.txt` in QEMU's sources).
//!
//! ```text
//!   QEMU: {"QMP": ...}          greeting, once
//!   us:   {"execute": "qmp_capabilities"}
//!   QEMU: {"return": {}}
//!   us:   {"execute": COMMAND}
//!   QEMU: {"event": ...}*  {"return": ...} | {"error": {"desc": ...}}
//! ```
//!
//! The greeting is awaited at the first command, not at the start, so that a boot pays nothing for it. A line is at most
//! [`LINE_MAX`] bytes and an answer comes within [`PATIENCE`]; QEMU isn't trusted any more than its guest.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::SendFlags;
use serde_json::Value;

use crate::driver::ControlError;

/// The longest line that is read, in bytes.
const LINE_MAX: usize = 64 * 1024;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many events may come before an answer.
const EVENTS_MAX: usize = 1000;

/// Our end of the control connection.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: UnixStream,
    buffered: Vec<u8>,
    greeted: bool,
}

impl Qmp {
    /// Makes a connection; the second value is QEMU's end.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self { stream: ours, buffered: Vec::new(), greeted: false }, theirs.into()))
    }

    /// Has QEMU execute a command without arguments, and waits for its answer.
    pub(crate) fn execute(&mut self, command: &'static str) -> Result<Value, ControlError> {
        let deadline = Instant::now().checked_add(PATIENCE).unwrap_or_else(Instant::now);
        if !self.greeted {
            let greeting = self.line(deadline, "qmp_capabilities")?;
            if greeting.get("QMP").is_none() {
                return Err(ControlError::Answer { command: "qmp_capabilities" });
            }
            self.ask("qmp_capabilities", deadline)?;
            self.greeted = true;
        }
        self.ask(command, deadline)
    }

    fn ask(&mut self, command: &'static str, deadline: Instant) -> Result<Value, ControlError> {
        let request = format!("{{\"execute\":\"{command}\"}}\n");
        self.stream.set_write_timeout(Some(PATIENCE)).map_err(ControlError::Connection)?;
        // A QEMU that has ended must be an error here, and no signal.
        let mut left = request.as_bytes();
        while !left.is_empty() {
            let count = rustix::net::send(&self.stream, left, SendFlags::NOSIGNAL)
                .map_err(|error| lost(error.into()))?;
            left = left.get(count..).unwrap_or_default();
        }
        for _ in 0..EVENTS_MAX {
            let mut answer = self.line(deadline, command)?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                let reason = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
                return Err(ControlError::Refused { command, reason: reason.chars().take(500).collect() });
            }
            if answer.get("event").is_none() {
                return Err(ControlError::Answer { command });
            }
        }
        Err(ControlError::Answer { command })
    }

    fn line(&mut self, deadline: Instant, command: &'static str) -> Result<Value, ControlError> {
        let mut searched = 0;
        loop {
            let fresh = self.buffered.get(searched..).unwrap_or_default();
            if let Some(end) = fresh.iter().position(|b| *b == b'\n') {
                let rest = self.buffered.split_off(searched.saturating_add(end).saturating_add(1));
                let line = std::mem::replace(&mut self.buffered, rest);
                return serde_json::from_slice(&line).map_err(|_| ControlError::Answer { command });
            }
            searched = self.buffered.len();
            if searched > LINE_MAX {
                return Err(ControlError::Answer { command });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ControlError::Connection(io::ErrorKind::TimedOut.into()));
            }
            self.stream.set_read_timeout(Some(left)).map_err(ControlError::Connection)?;
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ControlError::Ended),
                Ok(count) => self.buffered.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(ControlError::Connection(io::ErrorKind::TimedOut.into()));
                }
                Err(error) => return Err(lost(error)),
            }
        }
    }
}

fn lost(error: io::Error) -> ControlError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ControlError::Ended,
        _ => ControlError::Connection(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::thread;

    /// A peer that says `script` at once, whatever it is asked.
    fn against(script: &str) -> Result<Value, ControlError> {
        let (mut qmp, theirs) = Qmp::pair().unwrap();
        let mut theirs = UnixStream::from(theirs);
        let script = script.to_owned();
        let peer = thread::spawn(move || {
            let _ = theirs.write_all(script.as_bytes());
            let _ = theirs.shutdown(std::net::Shutdown::Write);
            let _ = theirs.read_to_end(&mut Vec::new());
        });
        let answer = qmp.execute("stop");
        drop(qmp);
        peer.join().unwrap();
        answer
    }

    #[test]
    fn an_answer_is_found_behind_events() {
        let answer =
            against("{\"QMP\":{}}\r\n{\"return\":{}}\r\n{\"event\":\"STOP\"}\r\n{\"return\":{\"a\":1}}\r\n");
        assert_eq!(answer.unwrap()["a"], 1);
    }

    #[test]
    fn a_refusal_carries_the_reason() {
        let answer =
            against("{\"QMP\":{}}\n{\"return\":{}}\n{\"error\":{\"class\":\"x\",\"desc\":\"not now\"}}\n");
        assert!(matches!(answer, Err(ControlError::Refused { reason, .. }) if reason == "not now"));
    }

    #[test]
    fn what_isn_t_the_protocol_is_an_error_and_bounded() {
        assert!(matches!(against("hello\n"), Err(ControlError::Answer { .. })));
        assert!(matches!(against("{}\n"), Err(ControlError::Answer { .. })));
        assert!(matches!(against("[]\n"), Err(ControlError::Answer { .. })));
        assert!(matches!(against(&"x".repeat(10 * LINE_MAX)), Err(ControlError::Answer { .. })));
        let flood = format!("{{\"QMP\":{{}}}}\n{}", "{\"event\":\"A\"}\n".repeat(2 * EVENTS_MAX));
        assert!(matches!(against(&flood), Err(ControlError::Answer { .. })));
        assert!(matches!(against(""), Err(ControlError::Ended)));
    }
}
