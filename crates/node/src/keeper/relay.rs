//! Bytes of one stream on their way from one link to another.
//!
//! A relay takes what arrives, gives the other link as much as it has credit for, and only then says that the bytes were
//! consumed. So what waits here is bounded by one window, whatever either side does.

use std::collections::VecDeque;

use spacecore::wire::link::Link;

/// Bytes of one stream that wait for credit.
#[derive(Debug, Default)]
pub struct Relay {
    waiting: VecDeque<u8>,
    ended: bool,
}

impl Relay {
    /// Takes bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
    }

    /// Notes that no more bytes will arrive.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Moves what `to` has credit for, gives credit back to `from`, and passes the end on behind the last byte.
    pub fn pump(&mut self, stream: u16, from: &mut Link, to: &mut Link) {
        while !self.waiting.is_empty() {
            let (front, _) = self.waiting.as_slices();
            let taken = to.send_data(stream, front);
            if taken == 0 {
                break;
            }
            self.waiting.drain(..taken);
            from.consumed(stream, taken);
        }
        if self.waiting.is_empty() && self.ended {
            to.send_eof(stream);
        }
    }

    /// Drops what waits, as when nobody is there to take it, and gives credit back so that the sender goes on.
    pub fn discard(&mut self, stream: u16, from: &mut Link) {
        from.consumed(stream, self.waiting.len());
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spacecore::wire::link::{Incoming, WINDOW};
    use spacecore::wire::message::ToGuest;

    #[test]
    fn a_client_that_doesnt_read_stops_the_guest_and_loses_nothing() {
        let (mut guest, mut keeper, mut to_client, mut client) =
            (Link::new(), Link::new(), Link::new(), Link::new());
        guest.open_sender(1);
        keeper.open_receiver(1);
        to_client.open_sender(1);
        client.open_receiver(1);
        let source: Vec<u8> = (0..WINDOW as usize * 5).map(|i| (i % 253) as u8).collect();
        let (mut relay, mut sent, mut read) = (Relay::default(), 0, Vec::new());
        for round in 0..10_000 {
            sent += guest.send_data(1, &source[sent..]);
            carry(&mut guest, &mut keeper);
            while let Ok(Some(Incoming::<ToGuest>::Data(1, bytes))) = keeper.next_incoming() {
                relay.push(&bytes);
            }
            relay.pump(1, &mut keeper, &mut to_client);
            assert!(relay.waiting.len() <= WINDOW as usize);
            carry(&mut to_client, &mut client);
            carry(&mut keeper, &mut guest);
            while let Ok(Some(_)) = guest.next_incoming::<ToGuest>() {}
            if round < 50 {
                assert!(sent <= 2 * WINDOW as usize, "the guest ran ahead of a client that doesn't read");
                continue;
            }
            while let Ok(Some(Incoming::<ToGuest>::Data(1, bytes))) = client.next_incoming() {
                client.consumed(1, bytes.len());
                read.extend(bytes);
            }
            carry(&mut client, &mut to_client);
            while let Ok(Some(_)) = to_client.next_incoming::<ToGuest>() {}
            if read.len() == source.len() {
                break;
            }
        }
        assert_eq!(read, source);
    }

    fn carry(from: &mut Link, to: &mut Link) {
        let bytes = from.outgoing().to_vec();
        from.written(bytes.len());
        to.receive(&bytes);
    }
}
