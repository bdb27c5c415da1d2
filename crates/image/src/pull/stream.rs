//! One layer on its way: three threads, joined by short queues.
//!
//! ```text
//! fetch: source -> hash, count -> | inflate: -> hash, count -> | convert: -> squashfs and verity tree
//! ```
//!
//! The queues bound the memory and let a slow stage hold back the ones before it. Each stage that fails closes
//! its queues, which ends the others; the failure nearest to the source is the one that is reported, because the
//! later ones follow from it.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::LayerError;
use super::inflate::Inflate;
use crate::digest::{Digest, Hasher};
use crate::layer::{self, Layer, Limits};
use crate::manifest::Descriptor;
use crate::source::Source;

const CHUNK: usize = 256 << 10;
const QUEUE: usize = 8;

pub(crate) struct Work<'a> {
    pub(crate) source: &'a Source,
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) diff_id: &'a Digest,
    pub(crate) limits: Limits,
    /// Set when another layer has failed, so that this one needn't be finished.
    pub(crate) stop: &'a AtomicBool,
    /// Is told the number of compressed bytes so far.
    pub(crate) fetched: &'a (dyn Fn(u64) + Sync),
}

/// Why a stage ended early.
enum Ended {
    Failed(LayerError),
    /// The next stage went away; its own failure says why.
    Unwanted,
}

impl From<LayerError> for Ended {
    fn from(error: LayerError) -> Ended {
        Ended::Failed(error)
    }
}

/// A piece of the stream, or its proper end; a queue that closes without an end was cut off.
enum Piece {
    Bytes(Vec<u8>),
    End,
}

/// Fetches, checks and converts a layer. `out` holds a file system to be used only if this answers `Ok`.
pub(crate) fn run(work: &Work<'_>, out: &mut File) -> Result<Layer, LayerError> {
    thread::scope(|scope| {
        let (packed_out, packed_in) = sync_channel(QUEUE);
        let (plain_out, plain_in) = sync_channel(QUEUE);
        let fetching = scope.spawn(move || fetch(work, &packed_out));
        let inflating = scope.spawn(move || inflate(work, Queue::new(packed_in), &plain_out));
        let mut plain = Queue::new(plain_in);
        let converted = layer::convert(&mut plain, out, &work.limits).map_err(LayerError::Convert);
        // A tar may be followed by padding, which belongs to the digest.
        let drained = match converted {
            Ok(_) => io::copy(&mut plain, &mut io::sink()).map(|_| ()),
            Err(_) => Ok(()),
        };
        drop(plain);
        let inflated = inflating.join().unwrap_or(Err(Ended::Failed(LayerError::Aborted)));
        let fetched = fetching.join().unwrap_or(Err(Ended::Failed(LayerError::Aborted)));
        for stage in [fetched, inflated] {
            if let Err(Ended::Failed(error)) = stage {
                return Err(error);
            }
        }
        let converted = converted?;
        drained.map_err(|_| LayerError::Aborted)?;
        Ok(converted)
    })
}

fn fetch(work: &Work<'_>, out: &SyncSender<Piece>) -> Result<(), Ended> {
    let descriptor = work.descriptor;
    let mut reader = work.source.blob(descriptor).map_err(LayerError::Source)?;
    let mut hasher = Hasher::new(descriptor.digest.algorithm());
    let mut total = 0u64;
    let mut wanted = true;
    loop {
        if work.stop.load(Ordering::Relaxed) {
            return Err(Ended::Failed(LayerError::Aborted));
        }
        let mut chunk = Vec::with_capacity(CHUNK);
        let count = (&mut reader)
            .take(CHUNK as u64)
            .read_to_end(&mut chunk)
            .map_err(|source| LayerError::Read { after: total, source })?;
        if count == 0 {
            break;
        }
        total = total.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if total > descriptor.size {
            return Err(LayerError::Long { declared: descriptor.size }.into());
        }
        hasher.update(&chunk);
        (work.fetched)(total);
        if wanted && out.send(Piece::Bytes(chunk)).is_err() {
            wanted = false;
            // What can't be unpacked is mostly a layer that isn't what its digest says: worth finding out, for
            // as much as is cheap.
            if descriptor.size.saturating_sub(total) > 64 << 20 {
                return Err(Ended::Unwanted);
            }
        }
    }
    if total < descriptor.size {
        return Err(LayerError::Short { declared: descriptor.size, found: total }.into());
    }
    let found = hasher.finish();
    if found != descriptor.digest {
        return Err(LayerError::Digest { declared: descriptor.digest.clone(), found }.into());
    }
    if !wanted {
        return Err(Ended::Unwanted);
    }
    out.send(Piece::End).map_err(|_| Ended::Unwanted)
}

fn inflate(work: &Work<'_>, input: Queue, out: &SyncSender<Piece>) -> Result<(), Ended> {
    let broken = |source| LayerError::Compression { source };
    let mut plain = Inflate::new(input).map_err(broken)?;
    let mut hasher = Hasher::new(work.diff_id.algorithm());
    let most = work.limits.unpacked_bytes;
    let mut total = 0u64;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let count = (&mut plain).take(CHUNK as u64).read_to_end(&mut chunk).map_err(broken)?;
        if count == 0 {
            break;
        }
        total = total.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if total > most {
            return Err(LayerError::Bomb { packed: work.descriptor.size, most }.into());
        }
        hasher.update(&chunk);
        out.send(Piece::Bytes(chunk)).map_err(|_| Ended::Unwanted)?;
    }
    let found = hasher.finish();
    if found != *work.diff_id {
        return Err(LayerError::DiffId { declared: work.diff_id.clone(), found }.into());
    }
    out.send(Piece::End).map_err(|_| Ended::Unwanted)
}

/// The receiving end of a queue, read like a file.
struct Queue {
    pieces: Receiver<Piece>,
    current: Vec<u8>,
    position: usize,
    ended: bool,
}

impl Queue {
    fn new(pieces: Receiver<Piece>) -> Queue {
        Queue { pieces, current: Vec::new(), position: 0, ended: false }
    }
}

impl BufRead for Queue {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position >= self.current.len() && !self.ended {
            match self.pieces.recv() {
                Ok(Piece::Bytes(bytes)) => {
                    self.current = bytes;
                    self.position = 0;
                }
                Ok(Piece::End) => self.ended = true,
                Err(_) => return Err(io::Error::other("the layer was cut off")),
            }
        }
        Ok(self.current.get(self.position..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.position = self.position.saturating_add(count);
    }
}

impl Read for Queue {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}
