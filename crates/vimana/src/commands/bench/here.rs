//! What this machine has: what the program can be run under, and the facts that stand beside the numbers.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use hypercore::doctor::{self, Isolation, Report};
use hypercore::spawn::find;
use node::home::Home;

use super::report::{Role, Subject};
use super::target::{self, Means, Runtime, Target};
use super::workload::Workload;

/// What isn't compared, and why.
type Missing = (String, String);

/// What can be compared here, and what can't with the reason.
///
/// # Errors
/// The running program can't be found.
pub fn targets(home: &Home, workload: &Workload) -> Result<(Vec<Target>, Vec<Missing>)> {
    let report = doctor::examine(home.root());
    let vimana = env::current_exe().context("can't find the program that is running")?;
    let mut targets = vec![process()];
    let mut missing = Vec::new();
    let runtime = Runtime::find(workload, find);
    let runtime_id = runtime.as_ref().ok().map(|runtime| runtime.name);
    match runtime {
        Ok(runtime) => targets.push(bare_runtime(runtime)),
        Err(why) => missing.push(("crun or runc".to_owned(), why)),
    }
    let (here, absent): (Vec<&Isolation>, Vec<&Isolation>) =
        report.isolations.iter().partition(|isolation| isolation.missing.is_empty());
    for isolation in &here {
        let Some(accelerator) = isolation.accelerator.map(|accelerator| accelerator.to_string()) else {
            continue;
        };
        let options = target::options(isolation.kind, Some(&accelerator));
        match target::bare_options(&vimana, &options, workload)
            .and_then(|options| bare_qemu(&accelerator, options))
        {
            Ok(bare) => targets.push(bare),
            Err(error) => missing.push((format!("bare QEMU ({accelerator})"), format!("{error:#}"))),
        }
    }
    for isolation in here {
        // These are kernels of an application's own, or need one that this program isn't: nothing to compare.
        if ["Unikernel", "TEE"].contains(&isolation.kind) {
            missing.push((
                isolation.kind.to_owned(),
                "the measuring program is an ordinary program of Linux".to_owned(),
            ));
            continue;
        }
        targets.push(of_vimana(isolation, &vimana, runtime_id));
    }
    missing.extend(absent.into_iter().map(|isolation| (name_of(isolation), isolation.missing.join("; "))));
    Ok((targets, missing))
}

fn name_of(isolation: &Isolation) -> String {
    match isolation.accelerator {
        Some(accelerator) => format!("{} ({accelerator})", isolation.kind),
        None => isolation.kind.to_owned(),
    }
}

fn process() -> Target {
    let subject = Subject {
        id: "process".to_owned(),
        name: "plain process".to_owned(),
        what: "The program, executed as it is, with no isolation at all. Everything is compared with it."
            .to_owned(),
        command: "measure hello".to_owned(),
        role: Role::Reference,
        bare: None,
    };
    Target { subject, means: Means::Process }
}

fn bare_runtime(runtime: Runtime) -> Target {
    let name = runtime.name;
    let cgroups = if runtime.has_cgroups() {
        ""
    } else {
        " Without control groups, since it doesn't take those of this machine."
    };
    let subject = Subject {
        id: name.to_owned(),
        name: name.to_owned(),
        what: format!(
            "{name} alone, on a bundle that was unpacked beforehand, with the configuration that {name} spec writes: \
             namespaces, but neither a user namespace (for root) nor a seccomp filter, nor anybody who keeps the container.{cgroups}"
        ),
        command: format!("{name} run --bundle BUNDLE NAME"),
        role: Role::Bare,
        bare: None,
    };
    Target { subject, means: Means::Runtime { runtime } }
}

fn bare_qemu(accelerator: &str, options: Vec<String>) -> Result<Target> {
    let program = find("qemu-system-x86_64").context("QEMU isn't installed")?;
    let subject = Subject {
        id: format!("qemu-{accelerator}"),
        name: format!("bare QEMU ({accelerator})"),
        what: format!(
            "QEMU alone with the accelerator {accelerator}: the same machine and the same guest kernel as the microVM, with \
             the measuring program as its only process and a serial line. No disks, no network, nobody who keeps it."
        ),
        command: "qemu-system-x86_64 -M ... -kernel KERNEL -initrd PROGRAM -serial stdio".to_owned(),
        role: Role::Bare,
        bare: None,
    };
    Ok(Target { subject, means: Means::Qemu { program, options } })
}

fn of_vimana(isolation: &Isolation, vimana: &Path, runtime: Option<&str>) -> Target {
    let accelerator = isolation.accelerator.map(|accelerator| accelerator.to_string());
    let options = target::options(isolation.kind, accelerator.as_deref());
    let wasm = isolation.kind == "Wasm";
    let (what, bare) = match (isolation.kind, &accelerator) {
        ("MicroVM", Some(accelerator)) if accelerator == "tcg" => (
            "A virtual machine with a kernel of its own, emulated: QEMU translates every instruction of the guest (TCG), \
             because that needs no virtualisation by the processor.",
            Some("qemu-tcg".to_owned()),
        ),
        ("MicroVM", Some(accelerator)) => (
            "A virtual machine with a kernel of its own; the processor runs the guest's instructions itself.",
            Some(format!("qemu-{accelerator}")),
        ),
        ("Container", _) => (
            "This machine's kernel, with namespaces (a user namespace among them), limits, a seccomp filter, and the image's \
             files as its root; a keeper watches over it.",
            runtime.map(str::to_owned),
        ),
        ("Wasm", _) => (
            "The same measurements as a WebAssembly program with WASI, compiled to machine code by wasmtime inside a keeper.",
            None,
        ),
        _ => ("", None),
    };
    let subject = Subject {
        id: isolation.kind.to_lowercase()
            + &accelerator.as_ref().map(|a| format!("-{a}")).unwrap_or_default(),
        name: name_of(isolation),
        what: what.to_owned(),
        command: format!("vimana run hac.toml {}", options.join(" ")),
        role: Role::Isolation,
        bare,
    };
    Target { subject, means: Means::Vimana { vimana: vimana.to_owned(), options, wasm } }
}

/// What stands beside the numbers: they mean nothing without it.
pub fn machine(home: &Home, targets: &[Target]) -> Vec<(&'static str, String)> {
    let report = doctor::examine(home.root());
    let mut facts = vec![("Processor", processor()), ("Memory", memory())];
    facts.push(("System", system()));
    facts.push(("Disk", disk(home.root())));
    let mut version = |name: &'static str, program: &str| {
        if let Some(line) = first_line(program) {
            facts.push((name, line));
        }
    };
    version("QEMU", "qemu-system-x86_64");
    for target in targets {
        if let Means::Runtime { runtime } = &target.means {
            version("OCI runtime", runtime.name);
        }
    }
    for (name, what) in [("Guest kernel", "guest kernel"), ("KVM", "KVM"), ("Control groups", "cgroups")] {
        facts.extend(found(&report, what).map(|found| (name, found)));
    }
    facts.push((
        "Vimana",
        env!("CARGO_PKG_VERSION").to_owned()
            + if cfg!(debug_assertions) { ", a debug build: its numbers mean little" } else { "" },
    ));
    facts
}

fn found(report: &Report, what: &str) -> Option<String> {
    report.findings.iter().find(|finding| finding.what == what).map(|finding| finding.found.clone())
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |wanted: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == wanted).then(|| value.trim().to_owned())
        })
    };
    let model = field("model name").unwrap_or_else(|| env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = if cores == 1 { "1 CPU".to_owned() } else { format!("{cores} CPUs") };
    let virtual_ =
        field("flags").is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"));
    format!("{model}, {cores}{}", if virtual_ { ", itself a virtual machine" } else { "" })
}

fn memory() -> String {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    total.map_or_else(|| "unknown".to_owned(), |kib| format!("{:.1} GiB", kib as f64 / 1024.0 / 1024.0))
}

fn system() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux")
        .trim_matches('"');
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{name}, Linux {}", kernel.trim())
}

/// The file system that Vimana's folder lies on.
fn disk(home: &Path) -> String {
    let home = fs::canonicalize(home).unwrap_or_else(|_| home.to_owned());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let of = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [device, point, kind, ..] = words[..] else { return None };
        home.starts_with(point).then(|| (point.len(), format!("{kind} on {device}")))
    };
    // The mount that hides the others is the last of the longest.
    mounts
        .lines()
        .filter_map(of)
        .max_by_key(|(length, _)| *length)
        .map_or_else(|| "unknown".to_owned(), |(_, text)| text)
}

fn first_line(program: &str) -> Option<String> {
    let output = Command::new(find(program)?).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(|line| line.trim().chars().take(100).collect())
}

/// The date and time in UTC, to the minute.
pub fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
    date(seconds)
}

fn date(seconds: u64) -> String {
    let time = node::log::line::time(seconds.saturating_mul(1_000_000_000));
    format!("{} {} UTC", &time[..10], &time[11..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(date(951_868_800), "2000-03-01 00:00 UTC");
        assert_eq!(date(1_709_164_800), "2024-02-29 00:00 UTC");
        assert_eq!(date(1_795_175_000), "2026-11-20 11:43 UTC");
    }

    #[test]
    fn the_machine_is_described() {
        let home = tempfile::tempdir().unwrap();
        let facts = machine(&Home::at(home.path()), &[]);
        assert!(facts.iter().all(|(_, found)| !found.is_empty()), "{facts:?}");
        assert!(facts.iter().any(|(name, found)| *name == "Disk" && found != "unknown"));
    }
}
