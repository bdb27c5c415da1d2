//! What a keeper does for those who ask it: processes beside the workload, measurements, the order of an end.

use std::path::Path;
use std::time::{Duration, Instant};

use node::keeper::assignment::{Assignment, Lifetime};
use node::keeper::report::{FromKeeper, Outcome, ToKeeper};
use node::session::Session;
use rustix::event::{PollFd, Timespec, poll};
use spacecore::wire::link::Incoming;
use spacecore::wire::message::{ExitStatus, Fetched, Probe, Process, Refusal, Stats};
use spacecore::wire::{stderr_of, stdout_of};

use crate::rig::{Rig, VIMANA};
use crate::workload::program_path;
use crate::{Behaviour, behaviours};

pub const BEHAVIOURS: &[Behaviour] = behaviours![
    a_process_can_be_started_beside_the_workload,
    a_process_beside_that_cant_start_is_refused,
    it_can_be_checked_from_inside,
    it_can_be_measured,
    a_stop_begins_with_the_image_s_signal,
    a_stop_ends_with_a_kill_after_its_grace,
];

/// A spacecore whose keeper this test talks to.
struct Kept {
    session: Session,
    out: String,
}

impl Kept {
    /// Starts it and waits until its workload has said `ready`.
    fn start(rig: &Rig, probe: &[&str]) -> Self {
        let mut session = Session::start(Path::new(VIMANA), &assignment(rig, probe)).unwrap();
        session.link().open_receiver(stdout_of(0));
        session.link().open_receiver(stderr_of(0));
        session.tell(&ToKeeper::Attach);
        let mut kept = Self { session, out: String::new() };
        kept.wait(|kept, message| match message {
            Some(FromKeeper::Finished { outcome, .. }) => panic!("it ended: {outcome:?} {}", kept.out),
            _ => kept.out.contains("ready\n").then_some(()),
        });
        kept
    }

    /// Waits until something that was said satisfies this; no message is new output.
    fn wait<T>(&mut self, mut wanted: impl FnMut(&mut Self, Option<&FromKeeper>) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            self.session.flush();
            let step = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            let interest = self.session.interest();
            let _ = poll(&mut [PollFd::new(&self.session, interest)], Some(&step));
            self.session.fill();
            while let Some(incoming) = self.session.next_incoming().unwrap() {
                let found = match incoming {
                    Incoming::Control(message) => {
                        if let FromKeeper::Opened { process, .. } = &message {
                            self.session.link().open_receiver(stdout_of(*process));
                            self.session.link().open_receiver(stderr_of(*process));
                        }
                        wanted(self, Some(&message))
                    }
                    Incoming::Data(stream, bytes) => {
                        self.session.link().consumed(stream, bytes.len());
                        self.out.push_str(&String::from_utf8_lossy(&bytes));
                        wanted(self, None)
                    }
                    _ => None,
                };
                if let Some(found) = found {
                    return found;
                }
            }
            assert!(
                Instant::now() < deadline && self.session.is_open(),
                "the keeper said nothing of it: {}",
                self.out
            );
        }
    }

    /// Starts a process beside the workload: how it ended, or why it wasn't started.
    fn exec(&mut self, args: &[&str]) -> Result<ExitStatus, Refusal> {
        let spec = Process {
            env: vec!["PATH=/bin".into(), "BESIDE=yes".into()],
            user: "1234".into(),
            working_directory: "/tmp".into(),
            ..Process::of(args.iter().copied())
        };
        self.session.tell(&ToKeeper::Exec { request: 1, spec });
        self.wait(|_, message| match message {
            Some(FromKeeper::Ended { process, status }) if *process != 0 => Some(Ok(*status)),
            Some(FromKeeper::Refused { refusal, .. }) => Some(Err(refusal.clone())),
            _ => None,
        })
    }

    /// Has the guest check something: why it failed, if it did.
    fn check(&mut self, probe: Probe) -> Option<String> {
        self.session.tell(&ToKeeper::Check { request: 5, probe, timeout_ms: 20_000 });
        self.wait(|_, message| match message {
            Some(FromKeeper::Checked { request: 5, failure }) => Some(failure.clone()),
            _ => None,
        })
    }

    /// Has the guest fetch a page of the workload's.
    fn fetch(&mut self, port: u16) -> Fetched {
        self.session.tell(&ToKeeper::Fetch {
            request: 6,
            port,
            path: "/metrics".to_owned(),
            timeout_ms: 20_000,
        });
        self.wait(|_, message| match message {
            Some(FromKeeper::Fetched { request: 6, fetched }) => Some(fetched.clone()),
            _ => None,
        })
    }

    fn stats(&mut self) -> (Stats, u64) {
        self.session.tell(&ToKeeper::Stats { request: 9 });
        self.wait(|_, message| match message {
            Some(FromKeeper::Stats { request: 9, guest, vmm_resident, .. }) => {
                Some((guest.clone(), *vmm_resident))
            }
            _ => None,
        })
    }

    fn stop(mut self, grace_ms: u64) -> (Outcome, String) {
        self.session.tell(&ToKeeper::Stop { grace_ms });
        let outcome = self.wait(|_, message| match message {
            Some(FromKeeper::Finished { outcome, .. }) => Some(outcome.clone()),
            _ => None,
        });
        self.session.close().unwrap();
        (outcome, self.out)
    }
}

/// An assignment as `vimana run` makes it.
fn assignment(rig: &Rig, probe: &[&str]) -> Assignment {
    let mut manifest = hac::Manifest::from_image(&rig.image);
    manifest.metadata.name.clone_from(&rig.name);
    manifest.spec.virtualization.isolation = rig.isolation.kind().parse().unwrap();
    manifest.spec.deployment.args = Some(probe.iter().map(|arg| (*arg).to_owned()).collect());
    manifest.spec.resources.memory = hac::units::Bytes::from_mib(96);
    manifest.spec.networking.network_type = hac::model::NetworkType::None;
    let isolation = manifest.spec.virtualization.isolation;
    let store = image::Store::open(&rig.path().join("images"), image::StoreOptions::default()).unwrap();
    let wasm = match isolation {
        hac::model::Isolation::Wasm => image::WasmChoice::First,
        _ => image::WasmChoice::Never,
    };
    let options = image::PullOptions { wasm, ..Default::default() };
    let image = store.pull(&rig.image.parse().unwrap(), &options, &|_| {}).unwrap();
    let home = node::home::Home::at(rig.path());
    let kernel = (isolation == hac::model::Isolation::MicroVM).then(|| {
        let kernels = node::gather::kernels(&home).unwrap();
        hypercore::kernel::choose(&kernels, None, None).unwrap().0
    });
    let machine =
        node::gather::machine_facts(isolation, hypercore::kvm::known(&home.cache()).missing(), None);
    let known = node::gather::image_facts(&store, &image, isolation).unwrap();
    let facts = node::gather::facts(known, kernel.as_ref(), machine);
    let request = node::plan::Request { manifest, ..node::plan::Request::default() };
    let plan = node::plan::Plan::decide(&request, &facts).unwrap();
    let initramfs = kernel.as_ref().zip(plan.virtual_machine());
    let initramfs =
        initramfs.map(|(kernel, machine)| node::gather::initramfs(&home, kernel, machine).unwrap());
    plan.assignment(&rig.name, &home, initramfs.as_deref(), Lifetime::Bound)
}

fn a_process_can_be_started_beside_the_workload(rig: &Rig) {
    let mut kept = Kept::start(rig, &["write", "/tmp/mark", "of the workload", ",", "pause"]);
    let probe = program_path(rig.isolation);
    let args = [probe, "read", "/tmp/mark", ",", "id", ",", "cwd", ",", "host", ",", "env", ",", "exit", "6"];
    assert_eq!(kept.exec(&args), Ok(ExitStatus::Code(6)), "{}", kept.out);
    for part in ["of the workload", "1234", "/tmp\n", rig.name.as_str(), "BESIDE=yes"] {
        assert!(kept.out.contains(part), "{part:?} isn't in {}", kept.out);
    }
    let (outcome, _) = kept.stop(0);
    assert!(!matches!(outcome, Outcome::Violation { .. }), "{outcome:?}");
}

fn a_process_beside_that_cant_start_is_refused(rig: &Rig) {
    let mut kept = Kept::start(rig, &["pause"]);
    let refusal = kept.exec(&["/no/such/program"]).unwrap_err();
    assert!(refusal.message.contains("/no/such/program"), "{refusal:?}");
    kept.stop(0);
}

/// Where there are no processes.
pub fn a_process_beside_is_refused(rig: &Rig) {
    let mut kept = Kept::start(rig, &["spin"]);
    let refusal = kept.exec(&["anything"]).unwrap_err();
    assert!(refusal.message.contains("Wasm"), "{refusal:?}");
    // The workload has gone on meanwhile.
    let (outcome, _) = kept.stop(1000);
    assert!(matches!(outcome, Outcome::Exited(ExitStatus::Signal { .. })), "{outcome:?}");
}

fn it_can_be_checked_from_inside(rig: &Rig) {
    let mut kept = Kept::start(rig, &["pause"]);
    let probe = program_path(rig.isolation);
    let command = |args: &[&str]| Probe::Exec {
        command: std::iter::once(probe).chain(args.iter().copied()).map(str::to_owned).collect(),
    };
    assert_eq!(kept.check(command(&["exit", "0"])), None);
    assert_eq!(kept.check(command(&["exit", "3"])).as_deref(), Some("exit code 3"));
    let failure = kept.check(Probe::Tcp { port: 9 }).unwrap();
    assert!(failure.contains("refused"), "{failure}");
    let fetched = kept.fetch(9);
    assert!(matches!(&fetched, Fetched::Failure(failure) if failure.contains("refused")), "{fetched:?}");
    kept.stop(0);
}

/// Where nothing can be checked from inside.
pub fn a_check_fails_with_the_reason(rig: &Rig) {
    let mut kept = Kept::start(rig, &["spin"]);
    for probe in [Probe::Tcp { port: 9 }, Probe::Exec { command: vec!["anything".to_owned()] }] {
        let failure = kept.check(probe).unwrap();
        assert!(failure.contains("Wasm"), "{failure}");
    }
    let fetched = kept.fetch(9);
    assert!(matches!(&fetched, Fetched::Failure(failure) if failure.contains("Wasm")), "{fetched:?}");
    kept.stop(0);
}

fn it_can_be_measured(rig: &Rig) {
    let mut kept = Kept::start(rig, &["spin"]);
    let (first, resident) = kept.stats();
    assert!(first.memory_total > 32 << 20 && first.memory_total <= 96 << 20, "{first:?}");
    assert!(first.memory_available <= first.memory_total && first.processes >= 1, "{first:?}");
    assert!(resident > 0);
    // It is told of the time that the workload uses: sooner or later more than before.
    let used = |stats: &Stats| stats.cpu_user_us + stats.cpu_system_us;
    let deadline = Instant::now() + Duration::from_secs(20);
    while used(&kept.stats().0) < used(&first) + 50_000 {
        assert!(Instant::now() < deadline, "it spins, and uses no time: {first:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    kept.stop(0);
}

fn a_stop_begins_with_the_image_s_signal(rig: &Rig) {
    let kept = Kept::start(rig, &["trap"]);
    let (outcome, out) = kept.stop(20_000);
    assert_eq!(outcome, Outcome::Exited(ExitStatus::Code(7)), "{out}");
    assert!(out.contains(&format!("got {}\n", libc::SIGUSR2)), "{out}");
}

/// Where a workload can't handle signals.
pub fn a_stop_ends_it_with_the_image_s_signal(rig: &Rig) {
    let (outcome, out) = Kept::start(rig, &["spin"]).stop(20_000);
    let status = ExitStatus::Signal { signal: libc::SIGUSR2, out_of_memory: false };
    assert_eq!(outcome, Outcome::Exited(status), "{out}");
}

fn a_stop_ends_with_a_kill_after_its_grace(rig: &Rig) {
    let kept = Kept::start(rig, &["ignore"]);
    let begun = Instant::now();
    let (outcome, out) = kept.stop(700);
    let status = ExitStatus::Signal { signal: libc::SIGKILL, out_of_memory: false };
    assert_eq!(outcome, Outcome::Exited(status), "{out}");
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
}
