//! Layers as they come: gzip, zstd or plain, told apart by their first bytes.
//!
//! What a media type claims isn't used: the digests of both the packed and the plain bytes are checked, so
//! the only question left is how to get from one to the other, and that the bytes answer best.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

/// The largest zstd window that is accepted, as a power of two: 128 MiB, the format's recommended maximum.
const WINDOW_LOG_MAX: u32 = 27;

/// Reads the plain bytes of something that may be compressed.
pub(crate) enum Inflate<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

impl<R: BufRead> Inflate<R> {
    pub(crate) fn new(mut input: R) -> io::Result<Inflate<R>> {
        let start = input.fill_buf()?;
        if is_gzip(start) {
            Ok(Inflate::Gzip(Box::new(MultiGzDecoder::new(input))))
        } else if is_zstd(start) {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Ok(Inflate::Zstd(Box::new(decoder)))
        } else {
            Ok(Inflate::Plain(input))
        }
    }
}

impl Inflate<io::Empty> {
    /// Tells whether something that begins with these bytes (8 are enough) is compressed.
    pub(crate) fn is_compressed(start: &[u8]) -> bool {
        is_gzip(start) || is_zstd(start)
    }
}

fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(&[0x1f, 0x8b])
}

/// A zstd frame, or a skippable one such as zstd:chunked puts first (RFC 8878, sections 3.1.1 and 3.1.2).
fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

impl<R: BufRead> Read for Inflate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Inflate::Plain(reader) => reader.read(buffer),
            Inflate::Gzip(decoder) => decoder.read(buffer),
            Inflate::Zstd(decoder) => decoder.read(buffer),
        }
    }
}
