//! A keeper that outlives whoever started it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use hac::model::Isolation;
use node::keeper::assignment::{Assignment, Lifetime, LogPlan};
use node::keeper::report::{FromKeeper, Outcome, Standing, ToKeeper};
use node::log::{Reader, Stream, Wanted, parse_line};
use node::session::Session;
use rustix::event::{PollFd, Timespec, poll};
use spacecore::wire::link::Incoming;
use spacecore::wire::message::{ExitStatus, Probe, Process};
use spacecore::wire::{stderr_of, stdout_of};

use crate::support::{Home, VIMANA, eventually, text};

/// Waits for a message that satisfies `wanted`; the output of process `process` collects in `output`.
pub fn until<T>(
    session: &mut Session,
    output: &mut Vec<u8>,
    mut wanted: impl FnMut(&FromKeeper) -> Option<T>,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        session.flush();
        let step = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let interest = session.interest();
        let _ = poll(&mut [PollFd::new(session, interest)], Some(&step));
        session.fill();
        while let Some(incoming) = session.next_incoming().unwrap() {
            match incoming {
                Incoming::Control(message) => {
                    if let FromKeeper::Opened { process, .. } = &message {
                        session.link().open_receiver(stdout_of(*process));
                        session.link().open_receiver(stderr_of(*process));
                    }
                    if let Some(value) = wanted(&message) {
                        return value;
                    }
                }
                Incoming::Data(stream, bytes) => {
                    session.link().consumed(stream, bytes.len());
                    output.extend(bytes);
                }
                _ => {}
            }
        }
        assert!(Instant::now() < deadline && session.is_open(), "the keeper said nothing of it");
    }
}

/// An assignment as `vimana run` makes it, but for a keeper that stays.
fn assignment(home: &Home, script: &str) -> Assignment {
    let mut manifest = hac::Manifest::from_image(&home.image);
    manifest.spec.deployment.args = Some(vec!["sh".into(), "-c".into(), script.into()]);
    manifest.spec.resources.memory = hac::units::Bytes::from_mib(96);
    manifest.spec.networking.network_type = hac::model::NetworkType::None;
    let store = image::Store::open(&home.path().join("images"), image::StoreOptions::default()).unwrap();
    let image = store.pull(&home.image.parse().unwrap(), &image::PullOptions::default(), &|_| {}).unwrap();
    let node_home = node::home::Home::at(home.path());
    let kernels = node::gather::kernels(&node_home).unwrap();
    let (kernel, _) = hypercore::kernel::choose(&kernels, None, None).unwrap();
    let machine = node::gather::machine_facts(Isolation::MicroVM, Some("this test emulates".into()), None);
    let known = node::gather::image_facts(&store, &image, Isolation::MicroVM).unwrap();
    let facts = node::gather::facts(known, Some(&kernel), machine);
    let request = node::plan::Request { manifest, ..node::plan::Request::default() };
    let plan = node::plan::Plan::decide(&request, &facts).unwrap();
    let initramfs = node::gather::initramfs(&node_home, &kernel, plan.virtual_machine().unwrap()).unwrap();
    plan.assignment("stays", &node_home, Some(&initramfs), Lifetime::Independent)
}

#[test]
fn a_keeper_outlives_its_parent_and_is_adopted_with_its_workload_running() {
    let Some(home) = Home::new("a_keeper_outlives_its_parent_and_is_adopted_with_its_workload_running")
    else {
        return;
    };
    let script =
        "trap 'echo bye; exit 4' TERM; echo begun; httpd -p 127.0.0.1:80; while :; do sleep 0.1; done";
    let mut assignment = assignment(&home, script);
    let folder = home.path().join("logs/stays");
    assignment.log = Some(LogPlan { folder: folder.clone(), file_bytes: 1 << 20, files: 1 });
    let run_folder = assignment.run_folder.clone();
    let session = Session::start(Path::new(VIMANA), &assignment).unwrap();
    let keeper = session.keeper_pid().unwrap();
    // As the parent's death would: its end of the socket closes.
    drop(session);

    let mut log = Reader::open(&folder, Wanted { follow: true, ..Wanted::default() }).unwrap();
    let line = eventually("the workload's output is kept", 40, || {
        Some(log.next_chunk().unwrap()).filter(|chunk| !chunk.is_empty())
    });
    let line = parse_line(&line).unwrap();
    assert_eq!((line.stream, line.full, line.text), (Stream::Stdout, true, &b"begun"[..]));
    let mut adopted = Session::adopt(&run_folder).unwrap();
    let mut output = Vec::new();
    let standing = until(&mut adopted, &mut output, |message| match message {
        FromKeeper::Standing(standing) => Some(*standing),
        _ => None,
    });
    assert_eq!(standing, Standing::Running);

    let beside = Process::of(["sh", "-c", "cat /proc/2/comm; echo beside; exit 6"]);
    let spec = Process { env: vec!["PATH=/bin".into()], ..beside };
    adopted.tell(&ToKeeper::Exec { request: 1, spec });
    let status = until(&mut adopted, &mut output, |message| match message {
        FromKeeper::Ended { process, status } if *process != 0 => Some(*status),
        _ => None,
    });
    assert_eq!(status, ExitStatus::Code(6));
    assert_eq!(text(&output), "sh\nbeside\n");

    adopted.tell(&ToKeeper::Stats { request: 9 });
    let (guest_memory, resident) = until(&mut adopted, &mut output, |message| match message {
        FromKeeper::Stats { request: 9, guest, vmm_resident, .. } => {
            Some((guest.memory_total, *vmm_resident))
        }
        _ => None,
    });
    assert!(guest_memory > 48 << 20 && guest_memory <= 96 << 20, "{guest_memory}");
    assert!(resident > 16 << 20, "{resident}");

    let mut check = |request, probe| {
        adopted.tell(&ToKeeper::Check { request, probe, timeout_ms: 20_000 });
        until(&mut adopted, &mut output, |message| match message {
            FromKeeper::Checked { request: answered, failure } if *answered == request => {
                Some(failure.clone())
            }
            _ => None,
        })
    };
    let command =
        |words: &[&str]| Probe::Exec { command: words.iter().map(|word| (*word).to_owned()).collect() };
    assert_eq!(check(1, Probe::Tcp { port: 80 }), None);
    assert!(check(2, Probe::Tcp { port: 81 }).is_some_and(|failure| failure.contains("refused")));
    let page = check(3, Probe::Http { port: 80, path: "/no/such/page".to_owned() });
    assert!(page.as_ref().is_some_and(|failure| failure.contains("404")), "{page:?}");
    assert_eq!(check(4, command(&["sh", "-c", "exit 0"])), None);
    let failed = check(5, command(&["sh", "-c", "echo unwell; exit 3"]));
    assert_eq!(failed.as_deref(), Some("exit code 3: unwell"));
    assert!(check(6, command(&["/no/such/program"])).is_some_and(|failure| failure.contains("/no/such")));

    adopted.tell(&ToKeeper::Stop { grace_ms: 10_000 });
    let outcome = until(&mut adopted, &mut output, |message| match message {
        FromKeeper::Finished { outcome, .. } => Some(outcome.clone()),
        _ => None,
    });
    assert_eq!(outcome, Outcome::Exited(ExitStatus::Code(4)));
    adopted.close().unwrap();
    eventually("the keeper ends", 10, || home.processes().is_empty().then_some(()));
    let kept: Outcome = serde_json::from_slice(&fs::read(run_folder.join("outcome.json")).unwrap()).unwrap();
    assert_eq!(kept, outcome);
    assert_eq!(parse_line(&log.next_chunk().unwrap()).unwrap().text, b"bye");
    // This test's own child; the keeper is reaped by it.
    let pid = rustix::process::Pid::from_raw(i32::try_from(keeper).unwrap());
    let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
}
