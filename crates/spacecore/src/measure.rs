//! What `vimana bench isolation` runs under every isolation: this binary with the argument `measure`.
//!
//! ```text
//!  measure hello              says "hello" and ends
//!  measure idle               says "idle" and does nothing until it is killed
//!  measure syscalls MS        asks for its parent's number, again and again
//!  measure cpu MS             takes steps of arithmetic and of memory, again and again
//!  measure disk PATH BYTES    writes a file, syncs it, reads it again, and removes it
//!  measure serve PORT         says "listening", and sends zeros to whoever connects, one after another, until it is killed
//! ```
//!
//! **The host keeps the time**, since the clock of an emulated guest may be off. Each piece of work stands between the lines
//! `begin WHAT` and `end WHAT AMOUNT NS`, with the nanoseconds by this process's own clock: a host that hears of the
//! beginning too late can tell. The work is done in rounds that double, until one has taken MS milliseconds by this
//! process's own clock, and the last round is the one that counts. So every isolation gets as much work as it can do in
//! about the same time, and the two lines cost next to nothing of it.
//!
//! Nothing here is told by a keeper: it is an ordinary process of a workload. Only as `/init` of a bare virtual machine it
//! ends the machine when it is done.

use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use rustix::process::Signal;
use rustix::system::RebootCommand;

/// The word that makes this binary measure.
pub(crate) const MODE: &str = "measure";

/// How much is read and written at once, in bytes.
const BLOCK: usize = 1 << 20;
/// How many words the table has that the steps of arithmetic go through: 64 KiB, as much as a fast cache holds.
const WORDS: usize = 8192;

/// Measures what the arguments behind `measure` say, and ends this process.
pub(crate) fn run() -> ExitCode {
    // A measurement that outlives whoever reads it is of no use.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let result = measure();
    if let Err(error) = &result {
        let _ = writeln!(io::stdout(), "failed {error}");
    }
    if std::env::args_os().next().is_some_and(|name| name == "/init") {
        let _ = io::stdout().flush();
        // A kernel whose PID 1 ends panics; this is the way that the virtual machine expects.
        let _ = rustix::system::reboot(RebootCommand::Restart);
    }
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure() -> io::Result<()> {
    let what = argument(2)?;
    match what.as_str() {
        "hello" => say("hello"),
        "idle" => {
            say("idle")?;
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        "syscalls" => double("syscalls", 1024, |count| {
            for _ in 0..count {
                black_box(rustix::process::getppid());
            }
        }),
        "cpu" => {
            let mut steps = Steps::new();
            double("cpu", 1 << 14, |count| steps.take(count))?;
            say(&format!("sum {}", steps.sum))
        }
        "disk" => disk(&argument(3)?, number(&argument(4)?)?),
        "serve" => serve(number(&argument(3)?)?),
        _ => Err(wrong("hello, idle, syscalls, cpu, disk and serve can be measured")),
    }
}

fn argument(place: usize) -> io::Result<String> {
    std::env::args().nth(place).ok_or_else(|| wrong("an argument is missing"))
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| wrong("a number is expected"))
}

fn wrong(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// A line of its own, written at once.
fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

fn end(what: &str, amount: u64, took: Duration) -> io::Result<()> {
    say(&format!("end {what} {amount} {}", took.as_nanos()))
}

/// Does `work` in rounds that double, until one has taken as long as the arguments ask for.
fn double(what: &str, first: u64, mut work: impl FnMut(u64)) -> io::Result<()> {
    let enough = Duration::from_millis(number(&argument(3)?)?);
    let mut count = first;
    loop {
        say(&format!("begin {what}"))?;
        let began = Instant::now();
        work(count);
        let took = began.elapsed();
        end(what, count, took)?;
        if took >= enough {
            return Ok(());
        }
        count = count.saturating_mul(2);
    }
}

/// One multiplication, one addition, a read and a write at a place that the product chooses, and a read that depends on what
/// was read before: the same steps that the program for Wasm takes.
struct Steps {
    table: Vec<u64>,
    state: u64,
    sum: u64,
}

impl Steps {
    fn new() -> Self {
        Self { table: vec![0; WORDS], state: 1, sum: 0 }
    }

    fn take(&mut self, count: u64) {
        // The length is known to the compiler, so that a masked place needs no check.
        let Some(table) = self.table.first_chunk_mut::<WORDS>() else { return };
        let (mut state, mut sum) = (self.state, self.sum);
        for _ in 0..count {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = (state >> 33) as usize % WORDS;
            table[place] ^= state;
            sum = sum.wrapping_add(table[sum as usize % WORDS]);
        }
        (self.state, self.sum) = (state, sum);
    }
}

/// Writes with one sync at the end; then reads, after the kernel was asked to forget what it holds of the file.
fn disk(path: &str, bytes: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    // Nothing that stores by content, or in less space, finds anything to save.
    let mut state = u64::from(std::process::id());
    for word in block.chunks_exact_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.copy_from_slice(&state.rotate_left(31).to_le_bytes());
    }
    let result = write_and_read(path, bytes, &mut block);
    let _ = fs::remove_file(path);
    result
}

fn write_and_read(path: &str, bytes: u64, block: &mut [u8]) -> io::Result<()> {
    let blocks = bytes.div_ceil(BLOCK as u64);
    let size = blocks.saturating_mul(BLOCK as u64);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    say("begin write")?;
    let began = Instant::now();
    for number in 0..blocks {
        block[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(block)?;
    }
    file.sync_all()?;
    end("write", size, began.elapsed())?;
    let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
    drop(file);
    let mut file = File::open(path)?;
    say("begin read")?;
    let began = Instant::now();
    let mut read = 0u64;
    loop {
        match file.read(block) {
            Ok(0) => break,
            Ok(count) => read = read.saturating_add(count as u64),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    end("read", read, began.elapsed())
}

fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    say("listening")?;
    let block = vec![0; BLOCK];
    loop {
        let (mut peer, _) = listener.accept()?;
        // Whoever has enough closes.
        while peer.write_all(&block).is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_give_the_same_sum_however_they_are_divided() {
        let (mut one, mut many) = (Steps::new(), Steps::new());
        one.take(100_000);
        (0..10).for_each(|_| many.take(10_000));
        assert_eq!(one.sum, many.sum);
        assert_ne!(one.sum, 0);
    }

    #[test]
    fn a_file_is_written_read_and_removed() {
        let path = std::env::temp_dir().join(format!("measure-{}", std::process::id()));
        let text = path.to_str().unwrap();
        disk(text, BLOCK as u64 + 1).unwrap();
        assert!(!path.exists());
    }
}
