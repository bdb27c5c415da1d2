//! One end of the channel: streams with credit over frames, free of I/O.
//!
//! Bytes read from the transport go in by [`Link::receive`] and come out as [`Incoming`] by [`Link::next_incoming`]; what is
//! to be sent collects in [`Link::outgoing`]. A stream's sender starts with [`WINDOW`] bytes of credit and gets more as
//! the receiver says [`Link::consumed`], so that a reader that stops reading stops the writer and nothing piles up.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{self, Decoder, Frame, FrameError, MAX_PAYLOAD};

/// Credit that a stream starts with, in bytes.
pub const WINDOW: u32 = 256 * 1024;

/// The largest piece of a stream that is sent in one frame, in bytes: small enough that streams take turns.
pub const PIECE: usize = 64 * 1024;

/// What arrived from the other side, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming<M> {
    /// A control message.
    Control(M),
    /// Bytes of an open stream. [`Link::consumed`] must be told once they are dealt with.
    Data(u16, Vec<u8>),
    /// The stream's sender is done.
    Eof(u16),
    /// The other side has taken bytes of this stream: there is credit again.
    Writable(u16),
    /// A whole message of a folder.
    Message(u16, Vec<u8>),
}

/// How the other side broke the protocol. The channel can't be used any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Bytes that are no frame.
    Frame(FrameError),
    /// A control message that isn't one.
    Message(String),
    /// A frame for a stream that was never opened in this direction, or has ended.
    NoSuchStream(u16),
    /// More bytes than there was credit for.
    Overrun {
        /// The stream.
        stream: u16,
        /// Bytes in the frame.
        bytes: usize,
        /// Bytes that were allowed.
        credit: u32,
    },
    /// Credit beyond what any sender could have used.
    Credit(u16),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => write!(f, "{error}"),
            Self::Message(reason) => write!(f, "a control message that can't be read: {reason}"),
            Self::NoSuchStream(stream) => write!(f, "a frame for stream {stream}, which isn't open"),
            Self::Overrun { stream, bytes, credit } => {
                write!(f, "{bytes} bytes on stream {stream}, which had credit for {credit}")
            }
            Self::Credit(stream) => write!(f, "more credit for stream {stream} than it can ever need"),
        }
    }
}

impl std::error::Error for Violation {}

impl From<FrameError> for Violation {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

/// One end of the channel.
#[derive(Debug, Default)]
pub struct Link {
    decoder: Decoder,
    outgoing: Vec<u8>,
    sent: usize,
    senders: BTreeMap<u16, u32>,
    receivers: BTreeMap<u16, Receiver>,
    folders: std::collections::BTreeSet<u16>,
}

#[derive(Debug)]
struct Receiver {
    credit: u32,
    owed: u32,
}

impl Link {
    /// An end with no streams open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a stream that this side sends on.
    pub fn open_sender(&mut self, stream: u16) {
        self.senders.insert(stream, WINDOW);
    }

    /// Opens a stream that the other side sends on.
    pub fn open_receiver(&mut self, stream: u16) {
        self.receivers.insert(stream, Receiver { credit: WINDOW, owed: 0 });
    }

    /// Opens a folder's stream, for messages in both directions.
    pub fn open_folder(&mut self, stream: u16) {
        self.folders.insert(stream);
    }

    /// Closes a sender without an end-of-file frame, as when the process behind it is gone. What the other side still
    /// says of it is ignored.
    pub fn close_sender(&mut self, stream: u16) {
        self.senders.remove(&stream);
    }

    /// Bytes that can be sent on this stream now; 0 for one that isn't open.
    pub fn credit(&self, stream: u16) -> usize {
        self.senders.get(&stream).map_or(0, |credit| *credit as usize)
    }

    /// Whether this side can still send on the stream.
    pub fn is_sending(&self, stream: u16) -> bool {
        self.senders.contains_key(&stream)
    }

    /// Whether the other side can still send on the stream.
    pub fn is_receiving(&self, stream: u16) -> bool {
        self.receivers.contains_key(&stream)
    }

    /// Queues bytes of a stream as far as its credit goes; returns how many were taken.
    pub fn send_data(&mut self, stream: u16, bytes: &[u8]) -> usize {
        let Some(credit) = self.senders.get_mut(&stream) else {
            return 0;
        };
        let taken = bytes.len().min(*credit as usize);
        *credit -= taken as u32;
        for piece in bytes[..taken].chunks(PIECE) {
            frame::put_data(&mut self.outgoing, stream, piece);
        }
        taken
    }

    /// Ends a stream that this side sends on; nothing happens for one that isn't open.
    pub fn send_eof(&mut self, stream: u16) {
        if self.senders.remove(&stream).is_some() {
            Frame::Eof { stream }.encode(&mut self.outgoing);
        }
    }

    /// Queues one message of a folder; one over the limit is dropped and reported as `false`.
    pub fn send_message(&mut self, stream: u16, message: &[u8]) -> bool {
        let fits = !message.is_empty() && message.len() <= MAX_PAYLOAD;
        if fits {
            frame::put_message(&mut self.outgoing, stream, message);
        }
        fits
    }

    /// Queues a control message; one over the limit is dropped and reported as `false`.
    pub fn send_control(&mut self, message: &impl Serialize) -> bool {
        let Ok(payload) = serde_json::to_vec(message) else {
            return false;
        };
        let fits = payload.len() <= MAX_PAYLOAD;
        if fits {
            Frame::Control(payload).encode(&mut self.outgoing);
        }
        fits
    }

    /// Says that `bytes` of a stream were dealt with; credit goes back in larger steps.
    pub fn consumed(&mut self, stream: u16, bytes: usize) {
        let Some(receiver) = self.receivers.get_mut(&stream) else {
            return;
        };
        receiver.owed = receiver.owed.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if receiver.owed >= WINDOW / 4 {
            receiver.credit = receiver.credit.saturating_add(receiver.owed);
            Frame::Credit { stream, bytes: receiver.owed }.encode(&mut self.outgoing);
            receiver.owed = 0;
        }
    }

    /// What waits to be written to the transport.
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.sent..]
    }

    /// Says that the first `bytes` of [`Link::outgoing`] were written.
    pub fn written(&mut self, bytes: usize) {
        self.sent = (self.sent + bytes).min(self.outgoing.len());
        if self.sent == self.outgoing.len() {
            self.outgoing.clear();
            self.sent = 0;
        } else if self.sent >= MAX_PAYLOAD {
            self.outgoing.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Adds bytes read from the transport.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    /// Forgets bytes that were received and not taken, as after a violation, behind which nothing has a meaning.
    pub fn drop_received(&mut self) {
        self.decoder = Decoder::default();
    }

    /// Takes the next thing that arrived, `None` where more bytes are needed.
    ///
    /// # Errors
    /// The other side broke the protocol.
    pub fn next_incoming<M: DeserializeOwned>(&mut self) -> Result<Option<Incoming<M>>, Violation> {
        while let Some(frame) = self.decoder.next_frame()? {
            match frame {
                Frame::Control(payload) => {
                    let message = serde_json::from_slice(&payload)
                        .map_err(|error| Violation::Message(error.to_string()))?;
                    return Ok(Some(Incoming::Control(message)));
                }
                Frame::Data { stream, bytes } => {
                    self.take_credit(stream, bytes.len())?;
                    return Ok(Some(Incoming::Data(stream, bytes)));
                }
                Frame::Eof { stream } => {
                    self.receivers.remove(&stream).ok_or(Violation::NoSuchStream(stream))?;
                    return Ok(Some(Incoming::Eof(stream)));
                }
                Frame::Credit { stream, bytes } => {
                    if self.give_credit(stream, bytes)? {
                        return Ok(Some(Incoming::Writable(stream)));
                    }
                }
                Frame::Message { stream, bytes } => {
                    if !self.folders.contains(&stream) {
                        return Err(Violation::NoSuchStream(stream));
                    }
                    return Ok(Some(Incoming::Message(stream, bytes)));
                }
            }
        }
        Ok(None)
    }

    fn take_credit(&mut self, stream: u16, bytes: usize) -> Result<(), Violation> {
        let receiver = self.receivers.get_mut(&stream).ok_or(Violation::NoSuchStream(stream))?;
        let credit = receiver.credit;
        receiver.credit = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| credit.checked_sub(bytes))
            .ok_or(Violation::Overrun { stream, bytes, credit })?;
        Ok(())
    }

    /// Adds credit; `false` for a stream that has been closed here while the credit was on its way.
    fn give_credit(&mut self, stream: u16, bytes: u32) -> Result<bool, Violation> {
        let Some(credit) = self.senders.get_mut(&stream) else {
            return Ok(false);
        };
        let sum = credit.checked_add(bytes).filter(|sum| *sum <= WINDOW).ok_or(Violation::Credit(stream))?;
        *credit = sum;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{ToGuest, ToHost};
    use super::*;
    use proptest::prelude::*;

    fn carry(from: &mut Link, to: &mut Link) {
        let bytes = from.outgoing().to_vec();
        from.written(bytes.len());
        to.receive(&bytes);
    }

    fn next(link: &mut Link) -> Result<Option<Incoming<ToHost>>, Violation> {
        link.next_incoming()
    }

    #[test]
    fn a_sender_stops_at_its_credit_and_goes_on_when_the_reader_has_read() {
        let (mut guest, mut keeper) = (Link::new(), Link::new());
        guest.open_sender(1);
        keeper.open_receiver(1);
        let flood = vec![7; WINDOW as usize * 2];
        assert_eq!(guest.send_data(1, &flood), WINDOW as usize);
        assert_eq!(guest.send_data(1, &flood), 0);
        carry(&mut guest, &mut keeper);
        let mut got = 0;
        while let Some(Incoming::Data(1, bytes)) = next(&mut keeper).unwrap() {
            got += bytes.len();
            keeper.consumed(1, bytes.len());
        }
        assert_eq!(got, WINDOW as usize);
        carry(&mut keeper, &mut guest);
        assert_eq!(guest.next_incoming::<ToGuest>().unwrap(), Some(Incoming::Writable(1)));
        while guest.next_incoming::<ToGuest>().unwrap().is_some() {}
        assert_eq!(guest.credit(1), WINDOW as usize);
    }

    #[test]
    fn bytes_beyond_the_credit_are_a_violation() {
        let mut keeper = Link::new();
        keeper.open_receiver(1);
        let mut raw = Vec::new();
        for _ in 0..5 {
            frame::put_data(&mut raw, 1, &vec![0; PIECE]);
        }
        keeper.receive(&raw);
        for _ in 0..4 {
            assert!(matches!(next(&mut keeper), Ok(Some(Incoming::Data(1, _)))));
        }
        assert!(matches!(next(&mut keeper), Err(Violation::Overrun { stream: 1, credit: 0, .. })));
    }

    #[test]
    fn nothing_can_be_said_on_a_stream_that_isnt_open_or_has_ended() {
        for frame in [
            Frame::Data { stream: 9, bytes: vec![1] },
            Frame::Eof { stream: 9 },
            Frame::Message { stream: 0x8000, bytes: vec![1] },
        ] {
            let mut raw = Vec::new();
            frame.encode(&mut raw);
            let mut keeper = Link::new();
            keeper.receive(&raw);
            assert!(matches!(next(&mut keeper), Err(Violation::NoSuchStream(_))), "{frame:?}");
        }
        let mut keeper = Link::new();
        keeper.open_receiver(4);
        let mut raw = Vec::new();
        Frame::Eof { stream: 4 }.encode(&mut raw);
        Frame::Data { stream: 4, bytes: vec![1] }.encode(&mut raw);
        keeper.receive(&raw);
        assert_eq!(next(&mut keeper), Ok(Some(Incoming::Eof(4))));
        assert_eq!(next(&mut keeper), Err(Violation::NoSuchStream(4)));
    }

    #[test]
    fn credit_from_nowhere_is_a_violation() {
        let mut guest = Link::new();
        guest.open_sender(1);
        let mut raw = Vec::new();
        Frame::Credit { stream: 1, bytes: 1 }.encode(&mut raw);
        guest.receive(&raw);
        assert_eq!(guest.next_incoming::<ToGuest>(), Err(Violation::Credit(1)));
    }

    #[test]
    fn a_control_message_that_isnt_one_is_a_violation() {
        let mut keeper = Link::new();
        let mut raw = Vec::new();
        Frame::Control(br#"{"hello":{"version":"one"}}"#.to_vec()).encode(&mut raw);
        keeper.receive(&raw);
        assert!(matches!(next(&mut keeper), Err(Violation::Message(_))));
    }

    proptest! {
        #[test]
        fn a_stream_arrives_whole_and_in_order_whatever_the_reader_s_pace(
            chunks in proptest::collection::vec((1usize..200_000, 1usize..100_000), 1..12),
        ) {
            let (mut guest, mut keeper) = (Link::new(), Link::new());
            guest.open_sender(1);
            keeper.open_receiver(1);
            let total: usize = chunks.iter().map(|(size, _)| size).sum();
            let source: Vec<u8> = (0..total).map(|i| (i % 251) as u8).collect();
            let (mut sent, mut read, mut turn) = (0, Vec::new(), 0);
            let mut unread = 0;
            while read.len() < total {
                let (size, pace) = chunks[turn % chunks.len()];
                turn += 1;
                sent += guest.send_data(1, &source[sent..total.min(sent + size)]);
                carry(&mut guest, &mut keeper);
                while let Some(Incoming::Data(1, bytes)) = next(&mut keeper).unwrap() {
                    unread += bytes.len();
                    read.extend(bytes);
                }
                let now = pace.min(unread);
                unread -= now;
                keeper.consumed(1, now);
                prop_assert!(unread <= WINDOW as usize);
                carry(&mut keeper, &mut guest);
                while guest.next_incoming::<ToGuest>().unwrap().is_some() {}
            }
            prop_assert_eq!(read, source);
        }
    }
}
