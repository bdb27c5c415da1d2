//! Compresses blocks on other threads and writes them in the order in which they were handed over.
//!
//! ```text
//!            job 0, 2, 4 ...   +-> worker 0 -+   0, 2, 4 ...
//!   caller -------------------<               >--------------> writer -> file, hash tree
//!            job 1, 3, 5 ...   +-> worker 1 -+   1, 3, 5 ...
//! ```
//!
//! Caller and writer both go round the workers in turn, so that the order is that of the jobs whatever the threads'
//! timing is, and the image's bytes depend on nothing but the input. All queues are bounded.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use super::format::{BLOCK, DATA_RAW};
use super::sink::Sink;

/// More than two don't help: reading and inflating the layer is then slower than compressing it.
const WORKERS: usize = 2;
const QUEUE: usize = 8;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A buffer for one block; it comes from a pool, since a fresh one costs its page faults each time.
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    len: usize,
}

impl Buffer {
    fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Makes room for `count` more bytes, at most up to a whole block, and gives them to be written.
    pub(super) fn grow(&mut self, count: usize) -> &mut [u8] {
        let from = self.len;
        self.len = (from + count).min(BLOCK);
        &mut self.bytes[from..self.len]
    }

    pub(super) fn is_zero(&self) -> bool {
        self.filled() == &ZEROS[..self.len]
    }
}

#[derive(Default)]
struct Pool(Mutex<Vec<Buffer>>);

impl Pool {
    fn take(&self) -> Buffer {
        let pooled = self.0.lock().ok().and_then(|mut pool| pool.pop());
        let mut buffer = pooled.unwrap_or_else(|| Buffer {
            bytes: vec![0; get_maximum_output_size(BLOCK)].into_boxed_slice(),
            len: 0,
        });
        buffer.len = 0;
        buffer
    }

    fn give(&self, buffer: Buffer) {
        if let Ok(mut pool) = self.0.lock() {
            pool.push(buffer);
        }
    }
}

/// Takes blocks to be compressed and written.
pub(super) struct Packer<'p> {
    workers: Vec<SyncSender<Buffer>>,
    pool: &'p Pool,
    jobs: u32,
}

/// The writing side has ended before the caller did; [`pack`] returns the reason.
#[derive(Debug)]
pub(super) struct Stopped;

impl Packer<'_> {
    pub(super) fn buffer(&self) -> Buffer {
        self.pool.take()
    }

    pub(super) fn give_back(&self, buffer: Buffer) {
        self.pool.give(buffer);
    }

    /// Hands a block over and gives its number: 0, 1, 2 and so on, in the order on disk.
    pub(super) fn submit(&mut self, buffer: Buffer) -> Result<u32, Stopped> {
        let job = self.jobs;
        self.jobs = job.checked_add(1).ok_or(Stopped)?;
        let worker = self.workers.get(job as usize % WORKERS).ok_or(Stopped)?;
        worker.send(buffer).map_err(|_| Stopped)?;
        Ok(job)
    }
}

/// What became of the blocks.
pub(super) struct Packed<'f> {
    pub(super) sink: Sink<'f>,
    /// Each block's size on disk, with [`DATA_RAW`] where it is stored as it is.
    pub(super) sizes: Vec<u32>,
}

/// Runs `produce` in this thread, with the compressing and writing threads around it. The outer error is of writing.
pub(super) fn pack<'f, T>(
    sink: Sink<'f>,
    produce: impl FnOnce(&mut Packer<'_>) -> T,
) -> io::Result<(T, Packed<'f>)> {
    let pool = Pool::default();
    let pool = &pool;
    thread::scope(|scope| {
        let mut workers = Vec::with_capacity(WORKERS);
        let mut done = Vec::with_capacity(WORKERS);
        for _ in 0..WORKERS {
            let (job_to, job_from) = sync_channel(QUEUE);
            let (done_to, done_from) = sync_channel(QUEUE);
            thread::Builder::new()
                .name("layer-compress".into())
                .spawn_scoped(scope, move || compress(&job_from, &done_to, pool))?;
            workers.push(job_to);
            done.push(done_from);
        }
        let writer = thread::Builder::new()
            .name("layer-write".into())
            .spawn_scoped(scope, move || write(sink, &done, pool))?;
        let mut packer = Packer { workers, pool, jobs: 0 };
        let produced = produce(&mut packer);
        drop(packer);
        let packed = writer.join().map_err(|_| io::Error::other("the writing thread died"))??;
        Ok((produced, packed))
    })
}

struct Compressed {
    buffer: Buffer,
    size: u32,
}

fn compress(jobs: &Receiver<Buffer>, done: &SyncSender<Compressed>, pool: &Pool) {
    // One kind of table for every length: the smaller one finds other matches, and would make the bytes depend on which
    // job went before.
    let mut table = CompressTable::large();
    while let Ok(input) = jobs.recv() {
        let mut output = pool.take();
        let compressed = compress_into_with_table(input.filled(), &mut output.bytes, &mut table);
        let result = match compressed {
            Ok(len) if len < input.len() => {
                output.len = len;
                pool.give(input);
                Compressed { size: len as u32, buffer: output }
            }
            _ => {
                pool.give(output);
                Compressed { size: input.len() as u32 | DATA_RAW, buffer: input }
            }
        };
        if done.send(result).is_err() {
            return;
        }
    }
}

fn write<'f>(mut sink: Sink<'f>, done: &[Receiver<Compressed>], pool: &Pool) -> io::Result<Packed<'f>> {
    let mut sizes = Vec::new();
    for worker in done.iter().cycle() {
        let Ok(block) = worker.recv() else { break };
        sink.write(block.buffer.filled())?;
        sizes.push(block.size);
        pool.give(block.buffer);
    }
    Ok(Packed { sink, sizes })
}
