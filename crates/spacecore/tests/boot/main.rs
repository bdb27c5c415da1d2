//! The guest in a real virtual machine: QEMU without KVM, Debian's kernel, a root file system of busybox.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod fuse;
mod rig;

use rig::*;
use spacecore::wire::message::*;
use std::time::{Duration, Instant};

/// The parts of a machine, or a line that says why there are none.
macro_rules! parts_or_skip {
    ($test:expr) => {
        match parts() {
            Ok(parts) => parts,
            Err(reason) => return skip($test, &reason),
        }
    };
}

fn root_of(configuration: &mut Configuration) -> &mut Root {
    configuration.root.get_or_insert_with(|| unreachable!("a microVM's configuration has a root"))
}

#[test]
fn a_workload_s_output_and_exit_code_arrive_whole() {
    let parts = parts_or_skip!("a_workload_s_output_and_exit_code_arrive_whole");
    let script = "echo out; echo err >&2; cat /etc/hostname; hostname; echo $$; exit 7";
    let mut machine = started("output", parts, configuration(shell(script)));
    let status = machine.keeper.wait_ended(0);
    assert_eq!(status, ExitStatus::Code(7));
    assert_eq!(machine.keeper.output(0), "out\nbox\nbox\n2\n");
    assert_eq!(machine.keeper.errors(0), "err\n");
    let asked = Instant::now();
    machine.keeper.send(&ToGuest::Shutdown { grace_ms: 1000 });
    machine.wait_off();
    eprintln!("Shutdown to off {:?}", asked.elapsed());
}

const WAITING: &str = "trap 'echo stopping; exit 3' TERM; echo ready; while :; do sleep 0.2; done";

#[test]
fn processes_run_beside_the_workload_with_their_own_user_folder_and_streams() {
    let parts = parts_or_skip!("processes_run_beside_the_workload_with_their_own_user_folder_and_streams");
    let mut machine = started("beside", parts, configuration(shell(WAITING)));
    let keeper = &mut machine.keeper;
    keeper.wait_for(0, "ready");

    let spec = Process {
        user: "web".to_owned(),
        working_directory: "/made/on the way".to_owned(),
        env: vec!["GREETING=hi".to_owned()],
        ..shell("id; pwd; echo $HOME $HOSTNAME $GREETING $PATH; echo again > /dev/stderr; ulimit -n")
    };
    assert_eq!(keeper.run(1, shell("mkdir -p '/made/on the way'")).1, ExitStatus::Code(0));
    let (output, status) = keeper.run(1, spec);
    assert_eq!(status, ExitStatus::Code(0));
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let expected = format!(
        "uid=33(web) gid=34(web) groups=34(web),40(logs)\n/made/on the way\n/srv box hi {path}\n65536\n"
    );
    assert_eq!(output, expected);
    assert_eq!(keeper.errors(1), "again\n");

    let numbers = Process { user: "1234:5678".to_owned(), ..shell("id -u; id -g; echo $HOME") };
    assert_eq!(keeper.run(1, numbers).0, "1234\n5678\n/\n");

    let confined = "grep -e CapEff -e CapBnd /proc/self/status; wc -c < /proc/kcore; touch /sys/x 2>/dev/null || echo no; \
                    echo x 2>/dev/null > /proc/sys/kernel/hostname || echo no; ls /dev; kill -0 2 && echo same";
    let (output, _) = keeper.run(1, shell(confined));
    let mut lines = output.lines();
    assert_eq!(lines.next(), Some("CapEff:\t00000000a80425fb"));
    assert_eq!(lines.next(), Some("CapBnd:\t00000000a80425fb"));
    let rest = lines.collect::<Vec<_>>().join(" ");
    let dev = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(rest, format!("0 no no {dev} same"));
    assert_eq!(
        keeper.run(1, shell("ls -d /escape/ && cat /etc/hosts | tail -1")).0,
        "/escape/\n127.0.1.1\tbox\n"
    );

    let above = "kill -9 1; kill -STOP 1; kill -SEGV 1; readlink /proc/1/exe || echo no exe; head -c 1 /proc/1/mem || echo no mem; \
                 (sh -c 'sleep 0.1' &); sleep 1; grep -l '^State:.Z' /proc/[0-9]*/status; echo alive";
    assert_eq!(
        keeper.run(1, shell(above)).0,
        "no exe\nno mem\nalive\n",
        "the first process is out of reach, and reaps"
    );

    for (program, kind) in [
        ("missing", RefusalKind::NotFound),
        ("/bin/missing", RefusalKind::NotFound),
        ("no-interpreter", RefusalKind::NotFound),
        ("no-shebang", RefusalKind::NotExecutable),
        ("not-executable", RefusalKind::NotExecutable),
        ("/etc", RefusalKind::NotExecutable),
    ] {
        let refusal = keeper.exec(2, process(&[program])).unwrap_err();
        assert_eq!(refusal.kind, kind, "{program}: {}", refusal.message);
    }
    let ghost = Process { user: "ghost".to_owned(), ..shell("id") };
    assert_eq!(keeper.exec(2, ghost).unwrap_err().kind, RefusalKind::User);

    let (_, status) = keeper.run(2, shell("kill -9 $$"));
    let killed = ExitStatus::Signal { signal: 9, out_of_memory: false };
    assert_eq!(status, killed);

    let begun = Instant::now();
    assert_eq!(keeper.run(2, shell("sleep 1000 & echo done")).0, "done\n");
    assert!(begun.elapsed() < Duration::from_secs(30), "what it left behind isn't waited for");

    let request = 77;
    keeper.send(&ToGuest::Stats { request });
    match keeper.control() {
        ToHost::Stats { request: 77, stats } => {
            assert!(
                stats.memory_total > 128 << 20 && stats.memory_available < stats.memory_total,
                "{stats:?}"
            );
            assert!(stats.processes >= 2 && stats.cpu_user_us > 0, "{stats:?}");
            assert_eq!(stats.upper_total, 64 << 20);
        }
        other => panic!("{other:?}"),
    }

    keeper.exec(3, shell("sleep 1000")).unwrap();
    keeper.send(&ToGuest::Shutdown { grace_ms: 30_000 });
    assert_eq!(keeper.wait_ended(3), killed, "what is left is killed with the workload, and reported first");
    assert_eq!(keeper.wait_ended(0), ExitStatus::Code(3));
    assert_eq!(keeper.output(0), "ready\nstopping\n");
    machine.wait_off();
}

#[test]
fn streams_are_whole_in_both_directions_and_terminals_are_terminals() {
    let parts = parts_or_skip!("streams_are_whole_in_both_directions_and_terminals_are_terminals");
    let mut machine = started("streams", parts, configuration(shell(WAITING)));
    let keeper = &mut machine.keeper;

    let (output, status) = keeper.run(1, shell("yes 0123456789abcde | head -c 10485760"));
    assert_eq!(status, ExitStatus::Code(0));
    assert!(output == "0123456789abcde\n".repeat(655_360), "{} bytes", output.len());

    let echo = Process { stdin: true, ..process(&["cat"]) };
    let input = (0..3_000_000u32).map(|n| (n % 241) as u8).collect::<Vec<_>>();
    keeper.exec(1, echo.clone()).unwrap();
    keeper.feed(1, &input);
    keeper.end_input(1);
    assert_eq!(keeper.wait_ended(1), ExitStatus::Code(0));
    assert!(keeper.data[&1u16.wrapping_mul(3).wrapping_add(1)] == input);

    let deaf = Process { stdin: true, ..shell("exec <&-; sleep 0.5; echo done") };
    keeper.exec(1, deaf).unwrap();
    keeper.feed(1, &input);
    assert_eq!(keeper.wait_ended(1), ExitStatus::Code(0), "input that nobody reads holds up nothing");

    let terminal = Process {
        stdin: true,
        terminal: Some(TerminalSize { rows: 40, columns: 100 }),
        ..shell("tty; stty size; echo $TERM; read line; stty size; echo got $line; cat; echo end")
    };
    keeper.exec(1, terminal).unwrap();
    // The terminal echoes what is typed at once, so the line before it must be out.
    keeper.wait_for(1, "xterm\r\n");
    let size = TerminalSize { rows: 50, columns: 132 };
    keeper.send(&ToGuest::Resize { process: 1, size });
    keeper.feed(1, b"hello\n");
    keeper.wait_for(1, "got hello");
    keeper.end_input(1);
    assert_eq!(keeper.wait_ended(1), ExitStatus::Code(0));
    let expected = "/dev/pts/0\r\n40 100\r\nxterm\r\nhello\r\n50 132\r\ngot hello\r\nend\r\n";
    assert_eq!(keeper.output(1), expected);

    let interrupted = Process { stdin: true, terminal: Some(size), ..shell("echo go; sleep 1000") };
    keeper.exec(1, interrupted).unwrap();
    keeper.wait_for(1, "go");
    keeper.feed(1, b"\x03");
    assert!(matches!(keeper.wait_ended(1), ExitStatus::Signal { signal: 2, .. } | ExitStatus::Code(130)));
}

#[test]
fn a_workload_that_ignores_its_stop_signal_is_killed_after_the_grace_period() {
    let parts = parts_or_skip!("a_workload_that_ignores_its_stop_signal_is_killed_after_the_grace_period");
    let ended_by = |signal| ExitStatus::Signal { signal, out_of_memory: false };
    let workload = configuration(shell("trap '' TERM; echo ready; while :; do sleep 1; done"));
    let mut machine = started("grace", parts, workload);
    machine.keeper.wait_for(0, "ready");
    machine.keeper.send(&ToGuest::Shutdown { grace_ms: 300 });
    assert_eq!(machine.keeper.wait_ended(0), ended_by(9));
    machine.wait_off();

    let mut machine = started("no-handler", parts, configuration(process(&["sleep", "1000"])));
    machine.keeper.send(&ToGuest::Shutdown { grace_ms: 600_000 });
    assert_eq!(machine.keeper.wait_ended(0), ended_by(15), "it says nothing about the signal");
    machine.wait_off();
}

#[test]
fn a_machine_without_its_keeper_powers_off() {
    let parts = parts_or_skip!("a_machine_without_its_keeper_powers_off");
    let mut machine = started("alone", parts, configuration(process(&["sleep", "1000"])));
    machine.keeper.hang_up();
    machine.wait_off();
}

/// Fills 120 MB of files in memory, then asks for 150 MB more in a machine of 256.
const EATER: &str = "head -c 60000000 /dev/zero > /tmp/eaten; head -c 60000000 /dev/zero > /dev/shm/eaten; \
                     exec dd bs=150M count=1 if=/dev/zero of=/dev/null";

#[test]
fn a_workload_that_eats_all_memory_is_told_apart_from_one_that_was_killed() {
    let parts = parts_or_skip!("a_workload_that_eats_all_memory_is_told_apart_from_one_that_was_killed");
    let mut machine = started("memory", parts, configuration(shell(EATER)));
    let status = machine.keeper.wait_ended(0);
    let expected = ExitStatus::Signal { signal: 9, out_of_memory: true };
    assert_eq!(status, expected);
}

#[test]
fn folders_memory_and_network_are_where_the_configuration_puts_them() {
    let parts = parts_or_skip!("folders_memory_and_network_are_where_the_configuration_puts_them");
    let nic = ["-netdev", "hubport,id=n,hubid=0", "-device", "virtio-net-pci,netdev=n"];
    let (mut machine, _) = Machine::boot_with("mounts", parts, &[layer(parts)], &nic);
    let script = "ls /data; cat /data/hello | wc -c; cat /etc/app/one.conf; df -k /scratch | tail -1 | awk '{print $2}'; \
                  (echo x > /data/hello) 2>/dev/null || echo readonly; echo x > /scratch/x; cat /scratch/x; \
                  ip -o addr show eth0 | awk '{print $4}'; ip route | head -1; cat /etc/resolv.conf; \
                  cat /sys/class/net/eth0/mtu; (touch /x) 2>/dev/null || echo root is readonly; ping -c1 -w2 ::1 | grep -c from";
    let mount =
        |source, destination: &str, readonly| Mount { source, destination: destination.to_owned(), readonly };
    let folder = |stream, file| MountSource::Folder { stream, file };
    let mut configuration = configuration(shell(script));
    configuration.mounts = vec![
        mount(folder(0x8000, false), "/data", true),
        mount(folder(0x8001, true), "/etc/app/one.conf", false),
        mount(MountSource::Memory { bytes: 1 << 20 }, "/scratch", false),
    ];
    root_of(&mut configuration).readonly = true;
    configuration.network = Some(Network {
        addresses: vec!["10.9.8.7/24".to_owned(), "fd00::7/64".to_owned()],
        gateways: vec!["192.0.2.1".to_owned(), "fe80::1".to_owned()],
        dns: vec!["192.0.2.53".to_owned()],
        search: vec!["example.org".to_owned()],
        mtu: 1400,
    });
    let content = b"0123456789".repeat(123_457);
    machine.keeper.serve(0x8000, fuse::Served { file: false, content });
    let content = b"one file\n".to_vec();
    machine.keeper.serve(0x8001, fuse::Served { file: true, content });
    machine.keeper.configure(configuration);
    assert_eq!(machine.keeper.control(), ToHost::Started { process: 0 });
    machine.keeper.wait_ended(0);
    let output = machine.keeper.output(0);
    let without_own = output.lines().filter(|line| !line.starts_with("fe80::")).collect::<Vec<_>>();
    let expected = [
        "hello",
        "1234570",
        "one file",
        "1024",
        "readonly",
        "x",
        "10.9.8.7/24",
        "fd00::7/64",
        "default via 192.0.2.1 dev eth0 onlink ",
        "search example.org",
        "nameserver 192.0.2.53",
        "1400",
        "root is readonly",
        "1",
    ];
    assert_eq!(without_own, expected, "{}", machine.keeper.errors(0));
}

#[test]
fn a_layer_is_held_to_its_merkle_tree() {
    let test = "a_layer_is_held_to_its_merkle_tree";
    let parts = parts_or_skip!(test);
    let folder = scratch("verity");
    let disk = folder.join("disk");
    std::fs::copy(&parts.layer, &disk).unwrap();
    let blocks = std::fs::metadata(&disk).unwrap().len().div_ceil(4096);
    let hash_offset = (blocks * 4096).to_string();
    let mut command = std::process::Command::new("/usr/sbin/veritysetup");
    command
        .args(["format", "--no-superblock", "--salt=-", "--data-blocks", &blocks.to_string()])
        .args(["--hash-offset", &hash_offset])
        .args([&disk, &disk]);
    let printed = match run(&mut command) {
        Ok(printed) => printed,
        Err(reason) => return skip(test, &reason),
    };
    let root = printed.lines().find_map(|line| line.strip_prefix("Root hash:")).unwrap().trim().to_owned();
    let with_tree = |script: &str| {
        let mut configuration = configuration(shell(script));
        root_of(&mut configuration).layers[0].verity =
            Some(Verity { root: root.clone(), data_blocks: blocks, hash_start: blocks });
        configuration
    };
    let boot = |name| {
        let layer = Disk { serial: "layer0", file: &disk, readonly: true };
        Machine::boot(name, parts, &[layer]).0
    };
    let mut good = boot("verity-good");
    good.keeper.configure(with_tree("cat /bin/busybox | wc -c"));
    assert_eq!(good.keeper.control(), ToHost::Started { process: 0 });
    assert_eq!(good.keeper.wait_ended(0), ExitStatus::Code(0));
    drop(good);

    let mut bytes = std::fs::read(&disk).unwrap();
    bytes[8] ^= 1;
    std::fs::write(&disk, bytes).unwrap();
    let (process, refusal) = boot("verity-bad").keeper.refused(with_tree("true"));
    assert_eq!((process, refusal.kind), (None, RefusalKind::Root), "{}", refusal.message);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_is_written_to_disks_is_there_after_the_next_boot() {
    let test = "what_is_written_to_disks_is_there_after_the_next_boot";
    let parts = parts_or_skip!(test);
    let folder = scratch("disks");
    let (upper, volume) = (folder.join("upper"), folder.join("volume"));
    for disk in [&upper, &volume] {
        std::fs::File::create(disk).unwrap().set_len(16 << 20).unwrap();
        if let Err(reason) = run(std::process::Command::new("/sbin/mkfs.ext4").args(["-q", "-F"]).arg(disk)) {
            return skip(test, &reason);
        }
    }
    let boot = |script: &str| {
        let disk = |serial, file| Disk { serial, file, readonly: false };
        let disks = [disk("volume", &*volume), disk("upper", &*upper), layer(parts)];
        let (mut machine, _) = Machine::boot("disks-machine", parts, &disks);
        let mut configuration = configuration(shell(script));
        root_of(&mut configuration).upper = Upper::Disk { serial: "upper".to_owned() };
        configuration.mounts = vec![Mount {
            source: MountSource::Disk { serial: "volume".to_owned(), crypt: None },
            destination: "/var/lib/volume".to_owned(),
            readonly: false,
        }];
        machine.keeper.configure(configuration);
        assert_eq!(machine.keeper.control(), ToHost::Started { process: 0 });
        machine.keeper.wait_ended(0);
        machine.keeper.send(&ToGuest::Shutdown { grace_ms: 0 });
        machine.wait_off();
        machine.keeper.output(0)
    };
    assert_eq!(boot("echo one > /one; echo two > /var/lib/volume/two; echo written"), "written\n");
    assert_eq!(boot("cat /one /var/lib/volume/two"), "one\ntwo\n");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_can_t_be_done_is_refused_with_a_reason() {
    let parts = parts_or_skip!("what_can_t_be_done_is_refused_with_a_reason");
    let boot = |name| Machine::boot(name, parts, &[layer(parts)]).0;

    let mut machine = boot("missing-program");
    let (number, refusal) = machine.keeper.refused(configuration(process(&["missing"])));
    assert_eq!((number, refusal.kind), (Some(0), RefusalKind::NotFound), "{}", refusal.message);
    machine.keeper.send(&ToGuest::Shutdown { grace_ms: 0 });
    machine.wait_off();

    let mut missing_disk = configuration(process(&["true"]));
    root_of(&mut missing_disk).layers[0].serial = "elsewhere".to_owned();
    let (number, refusal) = boot("missing-disk").keeper.refused(missing_disk);
    assert_eq!((number, refusal.kind), (None, RefusalKind::Root));
    assert!(
        refusal.message.contains("elsewhere") && refusal.message.contains("layer0"),
        "{}",
        refusal.message
    );

    let mut machine = boot("garbage");
    machine.keeper.send_raw(b"GET / HTTP/1.1\r\n\r\n");
    match machine.keeper.control() {
        ToHost::Refused { process: None, refusal } => assert_eq!(refusal.kind, RefusalKind::Protocol),
        other => panic!("{other:?}"),
    }
    machine.wait_off();
}
