//! What the jail costs: `jail_speed [ROUNDS]` starts QEMU only to say its version, in the jail and without it by turns, and prints
//! the medians in milliseconds, from the start to the end of the process.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::{Duration, Instant};

use hypercore::cgroup::{self, Group, Limits};
use hypercore::driver::Class;
use hypercore::driver::qemu::Qemu;
use hypercore::jail::{Calls, Device, Ids, Jail, Part, closure};

const ALL: [Part; 8] = [
    Part::User,
    Part::Root,
    Part::Processes,
    Part::Network,
    Part::Filter,
    Part::Landlock,
    Part::Limits,
    Part::Group,
];

const LIMITS: Limits =
    Limits { cpu_milli: 2000, memory_bytes: 1 << 30, threads: 100, class: Class::Burstable };

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = std::env::args().nth(1).map_or(Ok(21), |word| word.parse::<usize>())?.max(1);
    let qemu = Qemu::find();
    let program = qemu.program().ok_or("QEMU isn't installed")?;
    let cache = tempfile::tempdir()?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..=rounds {
        for (times, without) in times.iter_mut().zip([&[][..], &ALL[..]]) {
            let begin = Instant::now();
            let group = match cgroup::usable().is_ok() && without.is_empty() {
                true => Some(Group::prepare(cache.path())?),
                false => None,
            };
            group.iter().try_for_each(|group| group.make(&LIMITS))?;
            let root = rustix::process::geteuid().is_root();
            let jail = Jail {
                shown: closure(program, Some(cache.path()))?,
                devices: vec![Device::Null, Device::Urandom],
                calls: Calls::Emulator,
                open_files: 1024,
                file_bytes: 0,
                threads: 100,
                ids: root.then(Ids::take).transpose()?,
                group: group.clone(),
                class: Class::Burstable,
                profile: None,
                without: without.to_vec(),
            };
            let mut child = jail.start(program, &["--version".into()], Vec::new())?;
            let status = child.wait()?;
            if status.code != Some(0) {
                return Err(format!("{status:?}: {}", child.stderr()).into());
            }
            group.map_or(Ok(()), |group| group.remove())?;
            times.push(begin.elapsed());
        }
    }
    let [jailed, bare] = times.map(|mut times| {
        // The first remembers which libraries there are.
        times.remove(0);
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(Duration::ZERO).as_secs_f64() * 1e3
    });
    println!("in the jail: {jailed:.2} ms");
    println!("without it: {bare:.2} ms");
    println!("the jail adds: {:.2} ms", jailed - bare);
    Ok(())
}
