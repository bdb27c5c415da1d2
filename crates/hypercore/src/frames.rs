//! Frames on a stream, as on the wire of [`crate::driver::Wiring::network`]: each behind its length in 32 bits, big endian.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;

use rustix::net::{RecvFlags, SendFlags};

/// The bytes of a length.
pub(crate) const LENGTH: usize = 4;
/// The shortest frame: two hardware addresses and a type.
pub(crate) const SHORTEST: usize = 14;

/// Hands on each whole frame, with its length and by itself; returns how many bytes they had together. A length that isn't
/// one of `lengths` is an error.
pub(crate) fn each(
    bytes: &[u8],
    lengths: RangeInclusive<usize>,
    mut pass: impl FnMut(&[u8], &[u8]) -> io::Result<()>,
) -> io::Result<usize> {
    let mut taken = 0_usize;
    while let Some((length, rest)) = bytes.get(taken..).and_then(|rest| rest.split_first_chunk::<LENGTH>()) {
        let size = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if !lengths.contains(&size) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(frame) = rest.get(..size) else { break };
        let end = taken.saturating_add(LENGTH).saturating_add(size);
        pass(bytes.get(taken..end).unwrap_or_default(), frame)?;
        taken = end;
    }
    Ok(taken)
}

/// Reads what has come; 0 at the stream's end.
pub(crate) fn receive(from: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let (count, _) = rustix::io::retry_on_intr(|| rustix::net::recv(from, &mut *buffer, RecvFlags::empty()))?;
    Ok(count)
}

/// Sends everything; a closed peer is an error and no signal.
pub(crate) fn send_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::net::send(to, bytes, SendFlags::NOSIGNAL))?;
        bytes = bytes.get(count..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_out_of_the_stream_and_a_length_that_none_has_ends_it() {
        let frame =
            |length: usize| [&u32::try_from(length).unwrap().to_be_bytes()[..], &vec![7; length]].concat();
        let bytes = [frame(14), frame(60), frame(100)].concat();
        let mut seen = Vec::new();
        let pass = |framed: &[u8], frame: &[u8]| {
            assert_eq!(framed.get(LENGTH..), Some(frame));
            seen.push(frame.len());
            Ok(())
        };
        assert_eq!(each(&bytes[..bytes.len() - 1], SHORTEST..=1500, pass).unwrap(), bytes.len() - 104);
        assert_eq!(seen, [14, 60]);
        assert!(each(&[0, 0, 0, 1, 9], SHORTEST..=1500, |_, _| Ok(())).is_err());
        assert!(each(&frame(1501), SHORTEST..=1500, |_, _| Ok(())).is_err());
    }
}
