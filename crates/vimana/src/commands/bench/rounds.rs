//! Every measurement, under every target, in alternating order.
//!
//! A round takes the targets one after another, and the next round takes them the other way round, so that a machine that
//! grows slower or faster meanwhile does so for all of them. Each start ends before the next begins.

use std::io::{self, IsTerminal, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use node::home::Home;
use node::signals::Signals;

use super::child::{Child, Failure};
use super::quantity::{FILE_BYTES, Group, MEMORY_MIB, NETWORK_MS, QUANTITIES, WORK_MS};
use super::report::{Cell, Report, Row};
use super::target::{Need, Target};
use super::workload::{PROGRAM, Workload};
use super::{here, memory};

/// How long an instance is left alone before its memory is counted: what it only needed to start is gone by then.
const SETTLING: Duration = Duration::from_secs(1);
/// How long a port may take to be connected to, and to bring bytes.
const CONNECTING: Duration = Duration::from_secs(3);
/// How often it is tried: the first connection into a guest that has only just begun to listen may be lost.
const TRIES: u32 = 5;

/// What one start gave: a number for each of these quantities.
type Numbers = Vec<(&'static str, f64)>;

/// Measures these groups that often. None if it was interrupted.
///
/// # Errors
/// The programs that are measured can't be written.
pub fn measure(home: &Home, groups: &[Group], rounds: u32, quick: bool) -> Result<Option<Report>> {
    // Before anything is there that would have to be cleared away.
    let mut signals = Signals::block(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT])?;
    let workload = Workload::write(home)?;
    let (targets, missing) = here::targets(home, &workload)?;
    let mut report = Report {
        date: here::now(),
        machine: here::machine(home, &targets),
        rounds,
        quick,
        subjects: targets.iter().map(|target| target.subject.clone()).collect(),
        missing,
        rows: Vec::new(),
    };
    let mut rows: Vec<Row> = QUANTITIES
        .iter()
        .filter(|quantity| groups.contains(&quantity.group))
        .map(|quantity| Row { quantity, cells: vec![Cell::Absent("not measured".to_owned()); targets.len()] })
        .collect();
    let mut bench = Bench {
        workload: &workload,
        signals: &mut signals,
        quick: usize::from(quick),
        progress: Progress::new(),
    };
    let finished = bench.all(&targets, &mut rows, groups, rounds);
    bench.progress.clear();
    report.rows = rows;
    Ok(finished.then_some(report))
}

struct Bench<'a> {
    workload: &'a Workload,
    signals: &'a mut Signals,
    /// Which of the two amounts of work is done.
    quick: usize,
    progress: Progress,
}

impl Bench<'_> {
    /// Fills the rows. False if it was interrupted.
    fn all(&mut self, targets: &[Target], rows: &mut [Row], groups: &[Group], rounds: u32) -> bool {
        // Once without counting: images are converted then, programs compiled, caches filled.
        let mut usable = vec![true; targets.len()];
        for (index, target) in targets.iter().enumerate() {
            self.progress.show(&format!("getting ready: {}", target.subject.name));
            match self.start_and_end(target) {
                Ok(_) => {}
                Err(Failure::Interrupted) => return false,
                Err(Failure::Failed(why)) => {
                    self.progress.tell(&format!("{} doesn't start: {why}", target.subject.name));
                    usable[index] = false;
                    rows.iter_mut()
                        .for_each(|row| row.cells[index] = Cell::Absent(format!("doesn't start: {why}")));
                }
            }
        }
        let groups: Vec<Group> = Group::ALL.into_iter().filter(|group| groups.contains(group)).collect();
        for group in groups {
            for step in parts(group) {
                let mut usable = usable.clone();
                for round in 0..rounds {
                    let mut order: Vec<usize> = (0..targets.len()).filter(|index| usable[*index]).collect();
                    if round % 2 == 1 {
                        order.reverse();
                    }
                    for index in order {
                        let target = &targets[index];
                        let which =
                            format!("{} {}/{rounds}: {}", step.name(), round + 1, target.subject.name);
                        self.progress.show(&which);
                        match self.step(*step, target) {
                            Ok(numbers) => keep(rows, index, &numbers),
                            Err(Failure::Interrupted) => return false,
                            Err(Failure::Failed(why)) => {
                                // What failed once is not tried again; what it gave before stays.
                                usable[index] = false;
                                excuse(rows, index, step.ids(), &why);
                            }
                        }
                    }
                }
            }
        }
        true
    }

    fn step(&mut self, step: Step, target: &Target) -> Result<Numbers, Failure> {
        match step {
            Step::Start => self.start_and_end(target),
            Step::Memory => self.memory(target),
            Step::Syscalls => self.work(target, "syscalls"),
            Step::Cpu => self.work(target, "cpu"),
            Step::Disk => self.disk(target, Need::Root),
            Step::Folder => self.disk(target, Need::Folder),
            Step::Network => self.network(target),
        }
    }

    fn start(&mut self, target: &Target, args: &[&str], need: Need) -> Result<Child<'_>, Failure> {
        let start = target.start(self.workload, args, need).map_err(Failure::Failed)?;
        Child::start(start, self.signals)
    }

    fn start_and_end(&mut self, target: &Target) -> Result<Numbers, Failure> {
        let mut child = self.start(target, &["hello"], Need::Nothing)?;
        let came = child.expect("hello")?;
        let ended = child.end()?;
        let since = |moment: Instant| moment.saturating_duration_since(child.began).as_secs_f64();
        Ok(vec![("start", since(came)), ("whole", since(ended))])
    }

    fn memory(&mut self, target: &Target) -> Result<Numbers, Failure> {
        let mut child = self.start(target, &["idle"], Need::Nothing)?;
        child.expect("idle")?;
        child.rest(SETTLING)?;
        let taken = memory::of(child.pid(), MEMORY_MIB << 20, PROGRAM);
        if taken.whole == 0 {
            return Err(Failure::Failed("its memory can't be read".to_owned()));
        }
        Ok(match taken.beyond {
            // The plain process is the workload, and nothing else.
            0 => vec![("memory", taken.whole as f64)],
            beyond => vec![("memory", taken.whole as f64), ("memory-beyond", beyond as f64)],
        })
    }

    fn work(&mut self, target: &Target, what: &'static str) -> Result<Numbers, Failure> {
        let ms = WORK_MS[self.quick].to_string();
        let mut child = self.start(target, &[what, &ms], Need::Nothing)?;
        let rates = rates(&mut child, &[(what, what)])?;
        child.end()?;
        Ok(rates)
    }

    fn disk(&mut self, target: &Target, need: Need) -> Result<Numbers, Failure> {
        let file = target.file(self.workload, need).map_err(|why| Failure::Failed(why.to_owned()))?;
        let bytes = FILE_BYTES[self.quick].to_string();
        let names = match need {
            Need::Folder => [("write", "folder-write"), ("read", "folder-read")],
            Need::Nothing | Need::Root | Need::Port(_) => [("write", "disk-write"), ("read", "disk-read")],
        };
        let mut child = self.start(target, &["disk", &file, &bytes], need)?;
        let rates = rates(&mut child, &names)?;
        child.end()?;
        Ok(rates)
    }

    fn network(&mut self, target: &Target) -> Result<Numbers, Failure> {
        let published = free_port()?;
        let inside = target.port(published).map_err(|why| Failure::Failed(why.to_owned()))?;
        let most = Duration::from_millis(NETWORK_MS[self.quick]);
        let mut child = self.start(target, &["serve", &inside.to_string()], Need::Port(published))?;
        child.expect("listening")?;
        let mut tried = receive(published, most);
        for _ in 1..TRIES {
            if tried.is_ok() {
                break;
            }
            child.rest(Duration::from_millis(200))?;
            tried = receive(published, most);
        }
        let rate = tried.map_err(|error| Failure::Failed(format!("its port doesn't answer: {error}")))?;
        Ok(vec![("network", rate)])
    }
}

/// A part of a group that is measured by one start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Start,
    Memory,
    Syscalls,
    Cpu,
    Disk,
    Folder,
    Network,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Memory => "memory",
            Self::Syscalls => "system calls",
            Self::Cpu => "arithmetic",
            Self::Disk => "root file system",
            Self::Folder => "folder of this machine",
            Self::Network => "network",
        }
    }

    fn ids(self) -> &'static [&'static str] {
        match self {
            Self::Start => &["start", "whole"],
            Self::Memory => &["memory", "memory-beyond"],
            Self::Syscalls => &["syscalls"],
            Self::Cpu => &["cpu"],
            Self::Disk => &["disk-write", "disk-read"],
            Self::Folder => &["folder-write", "folder-read"],
            Self::Network => &["network"],
        }
    }
}

fn parts(group: Group) -> &'static [Step] {
    match group {
        Group::Start => &[Step::Start],
        Group::Memory => &[Step::Memory],
        Group::Syscalls => &[Step::Syscalls],
        Group::Cpu => &[Step::Cpu],
        Group::Disk => &[Step::Disk, Step::Folder],
        Group::Network => &[Step::Network],
    }
}

fn keep(rows: &mut [Row], index: usize, numbers: &Numbers) {
    for (id, number) in numbers {
        let Some(row) = rows.iter_mut().find(|row| row.quantity.id == *id) else { continue };
        match &mut row.cells[index] {
            Cell::Measured(values) => values.push(*number),
            absent @ Cell::Absent(_) => *absent = Cell::Measured(vec![*number]),
        }
    }
    // What the plain process can't have is told as what it is.
    let beyond = rows.iter_mut().find(|row| row.quantity.id == "memory-beyond");
    if let Some(row) = beyond.filter(|_| numbers.len() == 1 && numbers[0].0 == "memory") {
        row.cells[index] = Cell::Absent("nothing: it is the workload, and nothing beside it".to_owned());
    }
}

fn excuse(rows: &mut [Row], index: usize, ids: &[&str], why: &str) {
    for row in rows.iter_mut().filter(|row| ids.contains(&row.quantity.id)) {
        if let absent @ Cell::Absent(_) = &mut row.cells[index] {
            *absent = Cell::Absent(why.to_owned());
        }
    }
}

/// Reads the lines `begin WHAT` and `end WHAT AMOUNT NS`: the last of each gives the rate. `names` are the words and the
/// quantities that they stand for.
fn rates(child: &mut Child<'_>, names: &[(&str, &'static str)]) -> Result<Numbers, Failure> {
    let mut began: Option<Instant> = None;
    let mut found: Vec<Option<f64>> = vec![None; names.len()];
    while let Some((came, line)) = child.line()? {
        child.told_failure(&line)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["begin", _] => began = Some(came),
            ["end", what, amount, own] => {
                let heard = began.take().map(|began| came.saturating_duration_since(began).as_secs_f64());
                let place = names.iter().position(|(name, _)| *name == what);
                if let (Some(heard), Some(place), Ok(amount), Ok(own)) =
                    (heard, place, amount.parse::<f64>(), own.parse::<f64>())
                {
                    found[place] = rate(amount, heard, own / 1e9);
                }
            }
            _ => {}
        }
    }
    if found.contains(&None) {
        return Err(child.failed());
    }
    Ok(names.iter().zip(found).filter_map(|((_, id), rate)| Some((*id, rate?))).collect())
}

/// What was done in a second, by the longer of two times: between the two lines as they were heard, and by the program's own
/// clock. A line that tells of the beginning may be heard late, when the processor is busy with what it tells of.
fn rate(amount: f64, heard: f64, own: f64) -> Option<f64> {
    let took = heard.max(own);
    (took > 0.0 && took.is_finite()).then(|| amount / took)
}

/// A port that nobody has at the moment.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Connects and reads for this long; bytes a second, counted from the first byte.
fn receive(port: u16, most: Duration) -> io::Result<f64> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, CONNECTING)?;
    stream.set_read_timeout(Some(CONNECTING))?;
    // There are versions of passt that pass nothing on before the side that connected has said something.
    stream.write_all(b"\n")?;
    let mut block = vec![0; 1 << 18];
    let mut began: Option<Instant> = None;
    let mut bytes = 0u64;
    loop {
        let count = stream.read(&mut block)?;
        let now = Instant::now();
        let Some(began) = began else {
            if count == 0 {
                return Err(io::Error::other("the connection brought nothing"));
            }
            // What comes first waited in buffers, so it doesn't count.
            began = Some(now);
            continue;
        };
        bytes = bytes.saturating_add(count as u64);
        let passed = now.saturating_duration_since(began);
        if count == 0 || passed >= most {
            return Ok(bytes as f64 / passed.as_secs_f64().max(1e-9));
        }
    }
}

/// What is being done, on standard error: one line that is drawn over on a terminal, one line each elsewhere.
struct Progress {
    draws: bool,
    began: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { draws: io::stderr().is_terminal(), began: Instant::now() }
    }

    fn show(&self, what: &str) {
        let passed = self.began.elapsed().as_secs();
        let mut err = io::stderr().lock();
        // Progress that nobody can see is no reason to stop.
        let _ = match self.draws {
            true => write!(err, "\r\x1b[K[{:02}:{:02}] {what}", passed / 60, passed % 60),
            false => writeln!(err, "vimana: [{:02}:{:02}] {what}", passed / 60, passed % 60),
        };
    }

    fn tell(&self, what: &str) {
        self.clear();
        let _ = writeln!(io::stderr(), "vimana: note: {what}");
    }

    fn clear(&self) {
        if self.draws {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::quantity::Quantity;
    use super::*;

    #[test]
    fn every_quantity_is_given_by_exactly_one_step() {
        let steps: Vec<Step> = Group::ALL.into_iter().flat_map(parts).copied().collect();
        for quantity in &QUANTITIES {
            let giving: Vec<&Step> = steps.iter().filter(|step| step.ids().contains(&quantity.id)).collect();
            assert_eq!(giving.len(), 1, "{}", quantity.id);
            assert!(parts(quantity.group).contains(giving[0]));
        }
    }

    #[test]
    fn what_was_measured_before_a_failure_stays() {
        let row = |quantity: &'static Quantity| Row {
            quantity,
            cells: vec![Cell::Absent("not measured".to_owned())],
        };
        let mut rows = vec![row(&QUANTITIES[0]), row(&QUANTITIES[1])];
        keep(&mut rows, 0, &vec![("start", 1.0)]);
        keep(&mut rows, 0, &vec![("start", 2.0)]);
        excuse(&mut rows, 0, Step::Start.ids(), "it broke");
        assert_eq!(rows[0].cells[0], Cell::Measured(vec![1.0, 2.0]));
        assert_eq!(rows[1].cells[0], Cell::Absent("it broke".to_owned()));
    }

    #[test]
    fn a_beginning_that_is_heard_late_makes_nothing_faster() {
        assert_eq!(rate(100.0, 0.5, 0.4), Some(200.0));
        assert_eq!(rate(100.0, 0.000_001, 0.5), Some(200.0));
        assert_eq!(rate(100.0, 0.0, 0.0), None);
    }

    #[test]
    fn bytes_are_counted_from_the_first_on() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let sender = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            while peer.write_all(&[0; 65536]).is_ok() {}
        });
        assert!(receive(port, Duration::from_millis(50)).unwrap() > 0.0);
        sender.join().unwrap();
    }
}
