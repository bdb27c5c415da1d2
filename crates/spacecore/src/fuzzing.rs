//! What the fuzz targets of this crate do with any bytes; tests do the same with real inputs that were changed.

use serde::de::DeserializeOwned;

use crate::wire::frame::{Decoder, Frame};
use crate::wire::link::{Incoming, Link, WINDOW};
use crate::wire::message::{ToGuest, ToHost};
use crate::wire::{FIRST_FOLDER, stdin_of, stdout_of};

/// What a guest sends to its keeper, and what a keeper sends to its guest. The first byte says in which pieces it comes.
pub fn channel(bytes: &[u8]) {
    let Some((pieces, rest)) = bytes.split_first() else { return };
    frames(rest);
    for_side::<ToHost>(rest, usize::from(*pieces) + 1);
    for_side::<ToGuest>(rest, usize::from(*pieces) + 1);
}

/// What a spacecore or a person sends as files: passed on checked, or refused.
pub fn archive(bytes: &[u8]) {
    let mut out = Vec::new();
    let limits = crate::archive::Limits { entries: 1000, bytes: 1 << 20 };
    match crate::archive::pass::pass(bytes, &mut out, limits) {
        // What was checked once is taken again, and is what it was.
        Ok(()) => {
            let mut again = Vec::new();
            let passed = crate::archive::pass::pass(&out[..], &mut again, limits);
            assert!(passed.is_ok() && again == out, "{passed:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn frames(bytes: &[u8]) {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    let mut encoded = Vec::new();
    while let Ok(Some(frame)) = decoder.next_frame() {
        if let Frame::Data { bytes, .. } = &frame {
            assert!(!bytes.is_empty());
        }
        frame.encode(&mut encoded);
    }
    assert!(bytes.starts_with(&encoded), "a frame has one form");
}

fn for_side<M: DeserializeOwned>(bytes: &[u8], piece: usize) {
    let mut link = Link::new();
    link.open_sender(stdin_of(0));
    link.open_receiver(stdout_of(0));
    link.open_folder(FIRST_FOLDER);
    let mut taken = 0_usize;
    for piece in bytes.chunks(piece) {
        link.receive(piece);
        loop {
            match link.next_incoming::<M>() {
                Ok(Some(Incoming::Data(stream, bytes))) => {
                    assert_eq!(stream, stdout_of(0), "only what is open");
                    taken += bytes.len();
                    assert!(taken <= WINDOW as usize, "only what there was credit for");
                }
                Ok(Some(Incoming::Message(stream, _))) => assert_eq!(stream, FIRST_FOLDER),
                Ok(Some(Incoming::Writable(stream))) => {
                    assert!(stream == stdin_of(0) && link.credit(stream) > 0);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(violation) => {
                    assert!(!violation.to_string().is_empty());
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
