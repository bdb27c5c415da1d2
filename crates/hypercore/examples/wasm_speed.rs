//! Measures the Wasm driver beside `bare_wasmtime`: cold and warm starts, further instances, memory, quotas.
//!
//! ```text
//! wasm_speed all PROGRAM.wasm      everything; a program that prints a line and ends
//! wasm_speed one PROGRAM.wasm CACHE   one run in a process, as `bare_wasmtime run` is one
//! ```

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hypercore::driver::wasm::Wasm;
use hypercore::driver::{self, Body, Class, Driver, Instance, Machine, Wiring};
use sha2::{Digest, Sha256};
use spacecore::wire::link::{Incoming, Link};
use spacecore::wire::message::{Configuration, Process, ToGuest, ToHost};

type Failure = Box<dyn Error>;

/// Loops for ever, after a line.
const LOOP: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;

/// Waits for ever: polls a clock a day from now.
const WAIT: &str = r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store8 (i32.const 8) (i32.const 0))
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 86400000000000))
    (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"#;

struct Kept {
    instance: Box<dyn Instance>,
    socket: UnixStream,
    link: Link,
}

fn machine(module: &Path, cache: &Path, cpu_milli: u32) -> Result<Machine, Failure> {
    let digest = Sha256::digest(std::fs::read(module)?).iter().map(|byte| format!("{byte:02x}")).collect();
    let body = driver::Wasm {
        module: module.to_owned(),
        digest,
        cache: cache.to_owned(),
        mounts: Vec::new(),
        table_elements: 100_000,
        folder: None,
    };
    Ok(Machine {
        name: "speed".into(),
        cpu_milli,
        memory_mib: 64,
        class: Class::default(),
        network: None,
        body: Body::Wasm(body),
    })
}

fn start(wasm: &Wasm, machine: &Machine) -> Result<Kept, Failure> {
    let (ours, theirs) = UnixStream::pair()?;
    let prepared = wasm.prepare(machine)?;
    let instance = wasm.start(&prepared, Wiring { channel: theirs.into(), network: None, console: None })?;
    let mut link = Link::new();
    link.open_receiver(1);
    link.open_receiver(2);
    let process = Process::of(["program"]);
    let configuration = Configuration { entropy: "00".repeat(32), ..Configuration::of("speed", process) };
    link.send_control(&ToGuest::Configure(Box::new(configuration)));
    let mut kept = Kept { instance, socket: ours, link };
    kept.flush()?;
    Ok(kept)
}

impl Kept {
    fn flush(&mut self) -> Result<(), Failure> {
        self.socket.write_all(self.link.outgoing())?;
        self.link.written(self.link.outgoing().len());
        Ok(())
    }

    /// Reads until something holds of a message; output is kept.
    fn until(&mut self, holds: impl Fn(&Incoming<ToHost>) -> bool) -> Result<Vec<u8>, Failure> {
        let (mut output, mut buffer) = (Vec::new(), vec![0; 65536]);
        loop {
            while let Some(incoming) = self.link.next_incoming::<ToHost>()? {
                let found = holds(&incoming);
                if let Incoming::Data(stream, bytes) = incoming {
                    self.link.consumed(stream, bytes.len());
                    output.extend(bytes);
                }
                if found {
                    return Ok(output);
                }
            }
            self.flush()?;
            let length = self.socket.read(&mut buffer)?;
            if length == 0 {
                return Err("the program is gone".into());
            }
            self.link.receive(buffer.get(..length).unwrap_or_default());
        }
    }

    fn until_output(&mut self) -> Result<Vec<u8>, Failure> {
        self.until(|incoming| matches!(incoming, Incoming::Data(..)))
    }

    fn until_started(&mut self) -> Result<Vec<u8>, Failure> {
        self.until(|incoming| matches!(incoming, Incoming::Control(ToHost::Started { .. })))
    }

    fn until_ended(&mut self) -> Result<Vec<u8>, Failure> {
        self.until(|incoming| matches!(incoming, Incoming::Control(ToHost::Ended { .. })))
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn timed(times: usize, mut what: impl FnMut() -> Result<Duration, Failure>) -> Result<Duration, Failure> {
    Ok(median((0..times).map(|_| what()).collect::<Result<_, _>>()?))
}

fn say(what: &str, value: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{what:<52} {value}")?)
}

/// Anonymous and other memory that this process alone has, in KiB.
fn own_memory() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    Ok(line("Private_Dirty:") + line("Private_Clean:"))
}

fn text(folder: &Path, name: &str, text: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    std::fs::write(&path, wat::parse_str(text)?)?;
    Ok(path)
}

fn one(module: &Path, cache: &Path) -> Result<(), Failure> {
    let mut kept = start(&Wasm::new(), &machine(module, cache, 1000)?)?;
    let output = kept.until_ended()?;
    std::io::stdout().write_all(&output)?;
    Ok(())
}

fn all(module: &Path) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let cache = folder.path().join("cache");
    let wanted = machine(module, &cache, 1000)?;
    let first_byte = |wasm: &Wasm| -> Result<Duration, Failure> {
        let begin = Instant::now();
        let mut kept = start(wasm, &wanted)?;
        kept.until_output()?;
        Ok(begin.elapsed())
    };
    let cold = timed(5, || {
        let _ = std::fs::remove_dir_all(&cache);
        first_byte(&Wasm::new())
    })?;
    say("cold: new engine, compiled, to the first byte", &format!("{cold:.2?}"))?;
    let warm = timed(51, || first_byte(&Wasm::new()))?;
    say("warm: new engine, compiled code from disk", &format!("{warm:.2?}"))?;
    let wasm = Wasm::new();
    first_byte(&wasm)?;
    let second = timed(201, || first_byte(&wasm))?;
    say("second instance in the same process", &format!("{second:.2?}"))?;

    let compiled = folder.path().join("bare.cwasm");
    let bare = std::env::current_exe()?.with_file_name("bare_wasmtime");
    if !Command::new(&bare).arg("compile").arg(module).arg(&compiled).status()?.success() {
        return Err("bare_wasmtime can't compile the program".into());
    }
    let process = |command: &mut Command| -> Result<Duration, Failure> {
        let begin = Instant::now();
        let output = command.output()?;
        if !output.status.success() || output.stdout.is_empty() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(begin.elapsed())
    };
    let (mut bares, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..51 {
        bares.push(process(Command::new(&bare).arg("run").arg(&compiled))?);
        ours.push(process(Command::new(std::env::current_exe()?).arg("one").arg(module).arg(&cache))?);
    }
    let (bares, ours) = (median(bares), median(ours));
    let ratio = ours.as_secs_f64() / bares.as_secs_f64();
    say("whole process, bare wasmtime", &format!("{bares:.2?}"))?;
    say("whole process, this driver with a channel", &format!("{ours:.2?} (ratio {ratio:.2})"))?;

    let waiting = machine(&text(folder.path(), "wait.wasm", WAIT)?, &cache, 1000)?;
    let mut many = Vec::new();
    let mut before = 0;
    for number in 0..101 {
        if number == 1 {
            before = own_memory()?;
        }
        let mut kept = start(&wasm, &waiting)?;
        kept.until_started()?;
        many.push(kept);
    }
    std::thread::sleep(Duration::from_millis(200));
    let each = own_memory()?.saturating_sub(before) / 100;
    say("memory for each further instance that waits", &format!("{each} KiB"))?;
    let begin = Instant::now();
    many.clear();
    say("ending 101 instances", &format!("{:.2?}", begin.elapsed()))?;

    let spinning = text(folder.path(), "loop.wasm", LOOP)?;
    for milli in [100, 250, 500, 900] {
        let mut kept = start(&wasm, &machine(&spinning, &cache, milli)?)?;
        kept.until_started()?;
        let (begin, used) = (Instant::now(), kept.instance.observe()?.cpu);
        std::thread::sleep(Duration::from_secs(5));
        let used = kept.instance.observe()?.cpu.saturating_sub(used).as_secs_f64();
        let share = used / begin.elapsed().as_secs_f64() * 1000.0;
        let off = (share / f64::from(milli) - 1.0) * 100.0;
        say(&format!("a quota of {milli} thousandths over 5 s"), &format!("{share:.1} ({off:+.1} %)"))?;
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["all", module] => all(Path::new(module)),
        ["one", module, cache] => one(Path::new(module), Path::new(cache)),
        _ => Err("wasm_speed all PROGRAM.wasm, or wasm_speed one PROGRAM.wasm CACHE".into()),
    }
}
