//! Frames: how the byte stream is cut into pieces.
//!
//! ```text
//!   0      1         2        4                8
//!   +------+---------+--------+----------------+----------------
//!   | kind | zero    | stream | payload length | payload ...
//!   | u8   | u8      | u16 LE | u32 LE         | at most MAX_PAYLOAD
//!   +------+---------+--------+----------------+----------------
//! ```

use std::fmt;

/// Bytes of a frame before its payload.
pub const HEADER: usize = 8;

/// The largest payload in bytes: a FUSE write of 1 MiB with its header, rounded up.
pub const MAX_PAYLOAD: usize = 1024 * 1024 + 4096;

/// One unit of the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A control message: JSON of [`super::message::ToGuest`] or [`super::message::ToHost`].
    Control(Vec<u8>),
    /// Bytes of a stream, in order; they use up credit.
    Data {
        /// The stream that the bytes belong to.
        stream: u16,
        /// At least one byte.
        bytes: Vec<u8>,
    },
    /// The receiver of a stream can take so many bytes more.
    Credit {
        /// The stream, as its sender numbers it.
        stream: u16,
        /// How many bytes more.
        bytes: u32,
    },
    /// No more bytes will come on this stream.
    Eof {
        /// The stream that ended.
        stream: u16,
    },
    /// One whole message of a folder's stream (a FUSE request or reply); needs no credit, as FUSE bounds what is under way.
    Message {
        /// The folder's stream.
        stream: u16,
        /// The message.
        bytes: Vec<u8>,
    },
}

const CONTROL: u8 = 1;
const DATA: u8 = 2;
const CREDIT: u8 = 3;
const EOF: u8 = 4;
const MESSAGE: u8 = 5;

/// Why bytes from the other side are no frame. After one, the byte stream has no meaning any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The first byte names no kind of frame.
    UnknownKind(u8),
    /// The second byte isn't zero.
    Reserved(u8),
    /// The payload would be larger than [`MAX_PAYLOAD`].
    TooLong(u32),
    /// The payload has a length that this kind of frame can't have.
    WrongLength {
        /// The kind's number.
        kind: u8,
        /// The length that the header names.
        length: u32,
    },
    /// A frame that belongs to the whole channel names a stream.
    StreamOnControl(u16),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKind(kind) => write!(f, "a frame of unknown kind {kind}"),
            Self::Reserved(byte) => write!(f, "a frame whose reserved byte is {byte} instead of 0"),
            Self::TooLong(length) => write!(f, "a frame of {length} bytes where {MAX_PAYLOAD} are allowed"),
            Self::WrongLength { kind, length } => {
                write!(f, "a frame of kind {kind} with {length} bytes, which that kind can't have")
            }
            Self::StreamOnControl(stream) => write!(f, "a control frame that names stream {stream}"),
        }
    }
}

impl std::error::Error for FrameError {}

impl Frame {
    /// Appends the frame to `out`. A payload over [`MAX_PAYLOAD`] is the caller's bug; [`super::link::Link`] never makes one.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Control(payload) => put(out, CONTROL, 0, payload),
            Self::Data { stream, bytes } => put(out, DATA, *stream, bytes),
            Self::Credit { stream, bytes } => put(out, CREDIT, *stream, &bytes.to_le_bytes()),
            Self::Eof { stream } => put(out, EOF, *stream, &[]),
            Self::Message { stream, bytes } => put(out, MESSAGE, *stream, bytes),
        }
    }
}

/// Appends a data frame without first copying its bytes into a [`Frame`].
pub(super) fn put_data(out: &mut Vec<u8>, stream: u16, bytes: &[u8]) {
    put(out, DATA, stream, bytes);
}

/// Appends a folder's message without first copying its bytes into a [`Frame`].
pub(super) fn put_message(out: &mut Vec<u8>, stream: u16, bytes: &[u8]) {
    put(out, MESSAGE, stream, bytes);
}

fn put(out: &mut Vec<u8>, kind: u8, stream: u16, payload: &[u8]) {
    debug_assert!(payload.len() <= MAX_PAYLOAD);
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.reserve(HEADER + payload.len());
    out.extend_from_slice(&[kind, 0]);
    out.extend_from_slice(&stream.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(payload);
}

/// Cuts received bytes into frames. Holds at most one partial frame and what was pushed behind it.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    read: usize,
}

impl Decoder {
    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.read == self.buffer.len() {
            self.buffer.clear();
            self.read = 0;
        } else if self.read > MAX_PAYLOAD {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next whole frame, `None` where more bytes are needed.
    ///
    /// # Errors
    /// The bytes are no frame; nothing sensible can follow.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = &self.buffer[self.read..];
        let Some(header) = rest.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [kind, reserved, stream_low, stream_high, a, b, c, d] = *header;
        let stream = u16::from_le_bytes([stream_low, stream_high]);
        let length = u32::from_le_bytes([a, b, c, d]);
        check_header(kind, reserved, stream, length)?;
        // MAX_PAYLOAD is far below usize::MAX, and check_header holds `length` to it.
        let end = HEADER + length as usize;
        let Some(payload) = rest.get(HEADER..end) else {
            return Ok(None);
        };
        let frame = match kind {
            CONTROL => Frame::Control(payload.to_vec()),
            DATA => Frame::Data { stream, bytes: payload.to_vec() },
            CREDIT => {
                let mut bytes = [0; 4];
                bytes.copy_from_slice(payload);
                Frame::Credit { stream, bytes: u32::from_le_bytes(bytes) }
            }
            EOF => Frame::Eof { stream },
            MESSAGE => Frame::Message { stream, bytes: payload.to_vec() },
            other => return Err(FrameError::UnknownKind(other)),
        };
        self.read += end;
        Ok(Some(frame))
    }

    /// Whether a frame has begun and not ended.
    pub fn is_mid_frame(&self) -> bool {
        self.read < self.buffer.len()
    }
}

fn check_header(kind: u8, reserved: u8, stream: u16, length: u32) -> Result<(), FrameError> {
    if !(CONTROL..=MESSAGE).contains(&kind) {
        return Err(FrameError::UnknownKind(kind));
    }
    if reserved != 0 {
        return Err(FrameError::Reserved(reserved));
    }
    if length as usize > MAX_PAYLOAD {
        return Err(FrameError::TooLong(length));
    }
    let fits = match kind {
        CREDIT => length == 4,
        EOF => length == 0,
        _ => length > 0,
    };
    if !fits {
        return Err(FrameError::WrongLength { kind, length });
    }
    if kind == CONTROL && stream != 0 {
        return Err(FrameError::StreamOnControl(stream));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let bytes = || proptest::collection::vec(any::<u8>(), 1..300);
        prop_oneof![
            bytes().prop_map(Frame::Control),
            (any::<u16>(), bytes()).prop_map(|(stream, bytes)| Frame::Data { stream, bytes }),
            (any::<u16>(), any::<u32>()).prop_map(|(stream, bytes)| Frame::Credit { stream, bytes }),
            any::<u16>().prop_map(|stream| Frame::Eof { stream }),
            (any::<u16>(), bytes()).prop_map(|(stream, bytes)| Frame::Message { stream, bytes }),
        ]
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            frames in proptest::collection::vec(any_frame(), 0..20),
            cut in 1usize..50,
        ) {
            let mut stream = Vec::new();
            frames.iter().for_each(|frame| frame.encode(&mut stream));
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(!decoder.is_mid_frame());
        }

        #[test]
        fn garbage_never_panics_and_never_makes_the_decoder_hold_more_than_it_was_given(
            garbage in proptest::collection::vec(any::<u8>(), 0..4096),
        ) {
            let mut decoder = Decoder::default();
            decoder.push(&garbage);
            while let Ok(Some(_)) = decoder.next_frame() {}
            prop_assert!(decoder.buffer.len() <= garbage.len());
        }
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_before_it_is_awaited() {
        let mut decoder = Decoder::default();
        decoder.push(&[DATA, 0, 1, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong(u32::MAX)));
    }

    #[test]
    fn lengths_that_a_kind_cant_have_are_refused() {
        for header in [[CREDIT, 0, 0, 0, 3, 0, 0, 0], [EOF, 0, 0, 0, 1, 0, 0, 0], [DATA, 0, 0, 0, 0, 0, 0, 0]]
        {
            let mut decoder = Decoder::default();
            decoder.push(&header);
            assert!(matches!(decoder.next_frame(), Err(FrameError::WrongLength { .. })), "{header:?}");
        }
    }
}
