//! The qemu driver with a real kernel: boots, channel, pause, disks, and what is left when somebody dies.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hypercore::driver::qemu::Qemu;
use hypercore::driver::{Body, Disk, DiskRates, Driver, Instance, Machine, StartError, Wiring};

mod busybox;

/// How long a guest may take to say something on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn skipped(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// A guest whose PID 1 is busybox with this script; the channel is its standard input and output.
fn a_machine(folder: &Path, script: &str) -> Result<Machine, String> {
    let init = format!(
        "#!/busybox sh\n/busybox mkdir /proc /sys\n/busybox mount -t proc p /proc\n/busybox mount -t sysfs s /sys\n\
         /busybox mount -t devtmpfs d /dev\nfor m in $(/busybox cat /modules/load); do /busybox insmod /modules/$m; done\n\
         while :; do for p in /sys/class/virtio-ports/*; do\n\
         [ \"$(/busybox cat $p/name 2>/dev/null)\" = vimana.channel ] && break 2; done; /busybox usleep 5000; done\n\
         exec <> /dev/${{p##*/}} >&0\n{script}\n/busybox poweroff -f\n"
    );
    busybox::machine(folder, &["virtio_pci", "virtio_console", "virtio_blk"], &init)
}

fn disks(machine: &mut Machine) -> &mut Vec<Disk> {
    match &mut machine.body {
        Body::Virtual(hardware) => &mut hardware.disks,
        other => unreachable!("{other:?}"),
    }
}

fn start(machine: &Machine) -> (Box<dyn Instance>, UnixStream) {
    let qemu = Qemu::find();
    let prepared = qemu.prepare(machine).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let wiring = Wiring { channel: theirs.into(), network: None, console: None };
    (qemu.start(&prepared, wiring).unwrap(), ours)
}

fn line(channel: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0; 1];
    loop {
        assert_eq!(
            channel.read(&mut byte).expect("the guest says something"),
            1,
            "the machine ended: {line:?}"
        );
        if byte[0] == b'\n' {
            break;
        }
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

fn wait(instance: &dyn Instance) {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(instance.handle(), rustix::event::PollFlags::IN)];
    let patience = rustix::time::Timespec { tv_sec: 120, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&patience)).unwrap(), 1, "the machine didn't end");
}

fn alive(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

#[test]
fn a_guest_boots_answers_over_the_channel_and_powers_off() {
    let folder = tempfile::tempdir().unwrap();
    let machine = match a_machine(folder.path(), "echo hello; read x; echo \"got $x\"") {
        Ok(machine) => machine,
        Err(reason) => return skipped("a_guest_boots_answers_over_the_channel_and_powers_off", &reason),
    };
    let (mut instance, mut channel) = start(&machine);
    assert_eq!(line(&mut channel), "hello");
    assert!(instance.ended().unwrap().is_none());
    let seen = instance.observe().unwrap();
    assert!(seen.resident_bytes > 1 << 20 && seen.cpu > Duration::ZERO && seen.threads > 1, "{seen:?}");
    channel.write_all(b"this\n").unwrap();
    assert_eq!(line(&mut channel), "got this");
    wait(&*instance);
    let ended = instance.ended().unwrap().expect("it has ended");
    assert_eq!((ended.code, ended.signal, ended.stderr.as_str()), (Some(0), None, ""));
    assert!(!alive(instance.pid()));
}

#[test]
fn a_paused_guest_is_silent_until_it_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let machine = match a_machine(folder.path(), "while :; do echo tick; /busybox usleep 10000; done") {
        Ok(machine) => machine,
        Err(reason) => return skipped("a_paused_guest_is_silent_until_it_is_resumed", &reason),
    };
    let (mut instance, mut channel) = start(&machine);
    assert_eq!(line(&mut channel), "tick");
    instance.pause().unwrap();
    channel.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    while channel.read(&mut [0; 64]).is_ok() {}
    channel.set_read_timeout(Some(PATIENCE)).unwrap();
    instance.resume().unwrap();
    assert!(line(&mut channel).ends_with("tick"));
    let ended = instance.stop().unwrap();
    assert_eq!(ended.signal, Some(9));
    assert_eq!(instance.stop().unwrap(), ended, "a second stop says the same");
    assert!(instance.observe().is_err());
    assert!(!alive(instance.pid()));
}

#[test]
fn a_guest_finds_its_disks_by_their_serials_and_can_t_write_to_a_read_only_one() {
    let folder = tempfile::tempdir().unwrap();
    let script = "for d in /sys/block/vd*; do n=${d##*/}; s=$(/busybox cat $d/serial); \
                  echo \"$s $(/busybox head -c 5 /dev/$n)\"; \
                  echo wrote 2>/dev/null | /busybox dd of=/dev/$n conv=fsync 2>/dev/null && echo yes || echo no; done; echo end";
    let mut machine = match a_machine(folder.path(), script) {
        Ok(machine) => machine,
        Err(reason) => {
            let test = "a_guest_finds_its_disks_by_their_serials_and_can_t_write_to_a_read_only_one";
            return skipped(test, &reason);
        }
    };
    for (name, readonly) in [("first", true), ("second", false)] {
        let path = folder.path().join(format!("{name},disk"));
        let mut content = vec![b'.'; 1 << 20];
        content[..5].copy_from_slice(&name.as_bytes()[..5]);
        std::fs::write(&path, content).unwrap();
        disks(&mut machine).push(Disk { path, readonly, serial: name.into() });
    }
    let (_instance, mut channel) = start(&machine);
    let said: Vec<String> =
        std::iter::repeat_with(|| line(&mut channel)).take_while(|line| line != "end").collect();
    assert_eq!(said, ["first first", "no", "second secon", "yes"]);
    let read = |disk: &Disk| std::fs::read(&disk.path).unwrap();
    assert!(read(&disks(&mut machine)[0]).starts_with(b"first"));
    assert!(read(&disks(&mut machine)[1]).starts_with(b"wrote"));
}

#[test]
fn dropping_an_instance_leaves_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let machine = match a_machine(folder.path(), "echo up; read x") {
        Ok(machine) => machine,
        Err(reason) => return skipped("dropping_an_instance_leaves_no_process", &reason),
    };
    let (instance, channel) = start(&machine);
    let pid = instance.pid();
    assert!(alive(pid));
    drop(instance);
    assert!(!alive(pid));
    drop(channel);
}

#[test]
fn a_machine_dies_with_the_process_that_started_it() {
    const TEST: &str = "a_machine_dies_with_the_process_that_started_it";
    let folder = tempfile::tempdir().unwrap();
    let machine = match a_machine(folder.path(), "echo up; read x") {
        Ok(machine) => machine,
        Err(reason) => return skipped(TEST, &reason),
    };
    if std::env::var_os("VIMANA_TEST_OWNER").is_some() {
        let (instance, mut channel) = start(&machine);
        println!("pid {}", instance.pid());
        line(&mut channel);
        std::thread::sleep(PATIENCE);
        return;
    }
    let mut owner = Command::new(std::env::current_exe().unwrap());
    owner.args([TEST, "--exact", "--nocapture", "--test-threads=1"]).env("VIMANA_TEST_OWNER", "1");
    let mut owner = owner.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = String::new();
    let mut output = owner.stdout.take().unwrap();
    while !said.lines().any(|line| line.contains("pid ") && said.ends_with('\n')) {
        let mut byte = [0; 1];
        assert_eq!(output.read(&mut byte).unwrap(), 1, "{said}");
        said.push(byte[0] as char);
    }
    let pid = said.rsplit("pid ").next().unwrap().trim().parse().unwrap();
    assert!(alive(pid));
    owner.kill().unwrap();
    owner.wait().unwrap();
    let begin = Instant::now();
    while alive(pid) {
        assert!(begin.elapsed() < Duration::from_secs(10), "the machine outlived its owner");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn wires_that_don_t_match_what_was_prepared_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let machine = match a_machine(folder.path(), "") {
        Ok(machine) => machine,
        Err(reason) => return skipped("wires_that_don_t_match_what_was_prepared_are_refused", &reason),
    };
    let prepared = Qemu::find().prepare(&machine).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let spare: OwnedFd = ours.as_fd().try_clone_to_owned().unwrap();
    let wiring = Wiring { channel: theirs.into(), network: None, console: Some(spare) };
    assert!(matches!(
        Qemu::find().start(&prepared, wiring),
        Err(StartError::Wiring { wire: "a console", .. })
    ));
}

/// How long a guest takes for a command that reads its only disk.
fn reading(rates: DiskRates, command: &str) -> Result<Duration, String> {
    let folder = tempfile::tempdir().unwrap();
    let mut machine =
        a_machine(folder.path(), &format!("echo begin\n{command} 2>/dev/null\necho end; read x"))?;
    let path = folder.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
    disks(&mut machine).push(Disk { path, readonly: false, serial: "data".into() });
    if let Body::Virtual(hardware) = &mut machine.body {
        hardware.rates = rates;
    }
    let (_instance, mut channel) = start(&machine);
    assert_eq!(line(&mut channel), "begin");
    let begin = Instant::now();
    assert_eq!(line(&mut channel), "end");
    Ok(begin.elapsed())
}

#[test]
fn disks_are_read_and_written_no_faster_than_their_rates() {
    let rates = |operations, bytes| DiskRates { operations, bytes };
    let read = "/busybox dd if=/dev/vda of=/dev/null bs=64k count=320 iflag=direct";
    let write = "/busybox dd if=/dev/zero of=/dev/vda bs=64k count=320 oflag=direct";
    let many = "/busybox dd if=/dev/vda of=/dev/null bs=4k count=500 iflag=direct";
    // 20 MiB at 4 MiB a second; 500 reads at 100 a second.
    let tried = [
        (rates(None, Some(4 << 20)), read),
        (rates(None, Some(4 << 20)), write),
        (rates(Some(100), None), many),
    ];
    for (rates, command) in tried {
        let free = match reading(DiskRates::default(), command) {
            Ok(free) => free.as_secs_f64(),
            Err(reason) => return skipped("disks_are_read_and_written_no_faster_than_their_rates", &reason),
        };
        let held = reading(rates, command).unwrap().as_secs_f64();
        println!("{command}: {held:.2} s at {rates:?}, {free:.2} s without");
        assert!(free < 3.5, "without a rate it takes {free} s too");
        // A tenth of a second's worth may come at once.
        assert!(held > 4.75, "{command} took {held} s instead of 5 at {rates:?}");
        assert!(
            held < 5.25 + 2.0 * free,
            "{command} took {held} s instead of 5 at {rates:?}, {free} without"
        );
    }
}
