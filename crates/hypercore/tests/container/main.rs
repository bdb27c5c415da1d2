//! Containers on this machine's kernel. Each test is a process of one thread, as a keeper is when it starts a container.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod judges;
mod rig;

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use hypercore::driver::container;
use hypercore::driver::{Mount, MountSource};
use rig::{Image, Keeper, configuration, container_of, left, process, shell};
use spacecore::wire::message::{ExitStatus, RefusalKind, TerminalSize, ToGuest};

macro_rules! tests {
    ($($name:path),* $(,)?) => {
        &[$((stringify!($name), $name as fn())),*]
    };
}

const TESTS: &[(&str, fn())] = tests![
    a_workload_s_output_and_exit_code_arrive_whole,
    large_and_binary_output_arrives_whole_and_input_reaches_the_workload,
    a_terminal_is_one,
    users_groups_and_working_directories_are_the_image_s,
    what_can_t_be_run_is_refused_with_a_reason,
    commands_run_beside_the_workload_and_end_with_it,
    signals_reach_the_workload_and_the_grace_period_ends,
    a_memory_hog_dies_alone_with_the_reason_in_its_status,
    a_fork_bomb_stays_inside,
    a_processor_quota_holds,
    writes_end_where_their_limit_is,
    a_read_only_root_can_t_be_written_but_has_its_names,
    mounts_of_the_host_have_the_container_s_owners,
    a_volume_on_a_disk_keeps_what_is_written,
    two_containers_have_no_id_in_common,
    without_an_overlay_the_layers_are_copied,
    a_linked_image_is_refused_before_it_leads_anywhere,
    the_workload_has_no_more_than_it_is_given,
    a_workload_as_root_can_t_touch_pid_1_or_the_host,
    a_container_that_is_paused_stands_still_and_can_be_stopped,
    what_is_measured_is_the_container_s,
    a_network_carries_frames_to_the_stream_and_back,
    nothing_is_left_when_the_keeper_is_killed,
    judges::other_runtimes_accept_and_run_the_bundle,
];

fn skipped(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// Speaks as much of the usual harness as test runners ask for.
fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| words.iter().any(|given| given == word);
    if has("--list") {
        if !has("--ignored") {
            TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return;
    }
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| {
        let matches = |filter: &&String| match has("--exact") {
            true => name == filter.as_str(),
            false => name.contains(filter.as_str()),
        };
        filters.is_empty() || filters.iter().any(matches)
    };
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        if !rustix::process::geteuid().is_root() {
            // A user's are tried by the conformance suite.
            skipped(name, "it looks at root's containers from outside");
        } else if let Err(reason) = container::usable() {
            skipped(name, &reason.to_string());
        } else if !std::path::Path::new("/bin/busybox").exists() {
            skipped(name, "/bin/busybox isn't installed");
        } else {
            test();
        }
        println!("test {name} ... ok");
    }
}

fn a_workload_s_output_and_exit_code_arrive_whole() {
    let image = Image::new();
    let mut keeper = Keeper::run(&image.machine(), shell("echo hello; echo there >&2; exit 7"));
    assert_eq!(keeper.said(0), "hello\nthere\n");
    assert_eq!(keeper.ended[&0], ExitStatus::Code(7));
    keeper.instance.stop().unwrap();
    assert_eq!(left(&image.run()), Vec::<String>::new());
}

fn large_and_binary_output_arrives_whole_and_input_reaches_the_workload() {
    let image = Image::new();
    let mut keeper = Keeper::start(&image.machine());
    let mut cat = process(&["cat"]);
    cat.stdin = true;
    keeper.configure(configuration(cat));
    let bytes: Vec<u8> = (0..200_000_u32).map(|number| (number * 7 % 251) as u8).collect();
    keeper.input(&bytes);
    keeper.until(|keeper| keeper.ended.contains_key(&0));
    assert!(keeper.output[&1] == bytes, "cat gives back what it gets");
    keeper.instance.stop().unwrap();

    let flood = shell("head -c 3000000 /dev/zero | tr '\\000' x");
    let keeper = Keeper::run(&image.machine(), flood);
    assert_eq!(keeper.output[&1].len(), 3_000_000);
}

fn a_terminal_is_one() {
    let image = Image::new();
    let mut spec = shell("test -t 0 && test -t 1 && stty size && tty && echo x > /dev/console");
    spec.terminal = Some(TerminalSize { rows: 30, columns: 90 });
    spec.stdin = true;
    let keeper = Keeper::run(&image.machine(), spec);
    assert_eq!(keeper.said(0), "30 90\r\n/dev/pts/0\r\nx\r\n");
    assert_eq!(keeper.ended[&0], ExitStatus::Code(0));
}

fn users_groups_and_working_directories_are_the_image_s() {
    let image = Image::new();
    let mut spec = shell("id; pwd; echo $HOME $HOSTNAME; hostname; cat /etc/hostname; touch /tmp/x");
    spec.user = "alice".to_owned();
    spec.working_directory = "/made/on/demand".to_owned();
    std::fs::set_permissions(image.layer().join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777))
        .unwrap();
    let keeper = Keeper::run(&image.machine(), spec);
    let said = "uid=1000(alice) gid=1000(alice) groups=1000(alice),2000(play)\n/made/on/demand\n\
                /home/alice box\nbox\nbox\n";
    assert_eq!(keeper.said(0), said);
    assert_eq!(keeper.ended[&0], ExitStatus::Code(0));
    let owner = std::fs::metadata(image.run().join("upper/tmp/x")).unwrap().uid();
    assert_eq!((owner - container::FIRST_ID) % container::IDS, 1000);
}

fn two_containers_have_no_id_in_common() {
    let start = |image: &Image| {
        let mut keeper = Keeper::start(&image.machine());
        keeper.configure(configuration(shell("cat /proc/self/uid_map; read x")));
        keeper.until(|keeper| keeper.said(0).ends_with('\n'));
        keeper
    };
    let images = [Image::new(), Image::new()];
    let keepers = images.each_ref().map(start);
    let first = |keeper: &Keeper| {
        keeper.said(0).split_whitespace().nth(1).map(|id| id.parse::<u32>().unwrap()).unwrap()
    };
    assert!(
        first(&keepers[0]).abs_diff(first(&keepers[1])) >= container::IDS,
        "{:?}",
        keepers.each_ref().map(first)
    );
}

fn what_can_t_be_run_is_refused_with_a_reason() {
    let image = Image::new();
    let refused = |spec| {
        let mut keeper = Keeper::run(&image.machine(), spec);
        keeper.instance.stop().unwrap();
        keeper.refused.remove(0).1
    };
    assert_eq!(refused(process(&["nowhere"])).kind, RefusalKind::NotFound);
    assert_eq!(refused(process(&["/etc/passwd"])).kind, RefusalKind::NotExecutable);
    let mut stranger = shell("true");
    stranger.user = "bob".to_owned();
    assert_eq!(refused(stranger).kind, RefusalKind::User);
}

fn commands_run_beside_the_workload_and_end_with_it() {
    let image = Image::new();
    let mut keeper = Keeper::start(&image.machine());
    // What is left behind becomes PID 1's, which reaps it.
    keeper.configure(configuration(shell("(sleep 0.1 & ) ; touch /tmp/there; sleep 1000 & exec sleep 1000")));
    keeper.until(|keeper| keeper.started.contains(&0));
    keeper.exec(1, shell("while ! test -e /tmp/there; do sleep 0.01; done; echo beside; id -u; exit 3"));
    keeper.until(|keeper| keeper.ended.contains_key(&1));
    assert_eq!((keeper.said(1).as_str(), keeper.ended[&1]), ("beside\n0\n", ExitStatus::Code(3)));
    keeper.exec(2, shell("sleep 0.5; ps -o pid,stat | grep -c Z; sleep 1000"));
    keeper.until(|keeper| keeper.said(2) == "0\n");
    keeper.tell(&ToGuest::Signal { process: 0, signal: 10 });
    keeper.until(|keeper| keeper.ended.contains_key(&0));
    assert_eq!(keeper.ended[&0], ExitStatus::Signal { signal: 10, out_of_memory: false });
    assert_eq!(keeper.ended[&2], ExitStatus::Signal { signal: 9, out_of_memory: false });
}

fn signals_reach_the_workload_and_the_grace_period_ends() {
    let image = Image::new();
    let stop = |script: &str| {
        let mut keeper = Keeper::start(&image.machine());
        keeper.configure(configuration(shell(script)));
        keeper.until(|keeper| keeper.said(0).contains("ready"));
        keeper.tell(&ToGuest::Shutdown { grace_ms: 200 });
        let begin = Instant::now();
        keeper.until(|keeper| keeper.ended.contains_key(&0));
        keeper.instance.stop().unwrap();
        (keeper.ended[&0], begin.elapsed())
    };
    let willing = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done";
    assert_eq!(stop(willing).0, ExitStatus::Code(5));
    let (status, after) = stop("trap '' TERM; echo ready; while :; do sleep 0.01; done");
    assert_eq!(status, ExitStatus::Signal { signal: 9, out_of_memory: false });
    assert!(after >= Duration::from_millis(200), "{after:?}");
    assert_eq!(left(&image.run()), Vec::<String>::new());
}

fn a_memory_hog_dies_alone_with_the_reason_in_its_status() {
    let image = Image::new();
    let mut machine = image.machine();
    machine.memory_mib = 32;
    let mut keeper = Keeper::start(&machine);
    keeper.configure(configuration(process(&["tail", "/dev/zero"])));
    keeper.until(|keeper| keeper.ended.contains_key(&0));
    assert_eq!(keeper.ended[&0], ExitStatus::Signal { signal: 9, out_of_memory: true });
    // PID 1 still answers.
    let stats = keeper.measure();
    assert_eq!(stats.memory_total, 32 << 20);
}

fn a_fork_bomb_stays_inside() {
    let image = Image::new();
    let mut machine = image.machine();
    container_of(&mut machine).pids = 16;
    let script = "n=0; while [ $n -lt 100 ]; do sleep 100 & n=$((n+1)); done; echo all";
    let mut keeper = Keeper::start(&machine);
    keeper.configure(configuration(shell(script)));
    keeper.until(|keeper| keeper.said(0).contains("fork") || keeper.ended.contains_key(&0));
    assert!(!keeper.said(0).contains("all"), "{}", keeper.said(0));
    let observed = keeper.instance.observe();
    assert!(observed.map_or(0, |observed| observed.threads) <= 17);
    keeper.instance.stop().unwrap();
    assert_eq!(left(&image.run()), Vec::<String>::new());
}

fn a_processor_quota_holds() {
    let image = Image::new();
    let mut machine = image.machine();
    machine.cpu_milli = 200;
    let mut keeper = Keeper::start(&machine);
    keeper.configure(configuration(shell("while :; do :; done")));
    keeper.until(|keeper| keeper.started.contains(&0));
    let (begin, before) = (Instant::now(), keeper.instance.observe().unwrap().cpu);
    std::thread::sleep(Duration::from_secs(3));
    let used = keeper.instance.observe().unwrap().cpu - before;
    let share = used.as_secs_f64() / begin.elapsed().as_secs_f64();
    // A busy machine may give less, and the ends of the time are cut anywhere in a period.
    assert!(share <= 0.2 * 1.05 + 0.02, "{share}");
}

fn writes_end_where_their_limit_is() {
    let image = Image::new();
    let mut machine = image.machine();
    container_of(&mut machine).upper_bytes = Some(16 << 20);
    let script =
        "dd if=/dev/zero of=/file bs=1M count=64 2>&1 | grep -o 'No space'; echo small > /other || echo full";
    let mut keeper = Keeper::run(&machine, shell(script));
    assert!(keeper.said(0).contains("No space"), "{}", keeper.said(0));
    keeper.instance.stop().unwrap();
    assert_eq!(left(&image.run()), Vec::<String>::new());
}

fn a_read_only_root_can_t_be_written_but_has_its_names() {
    let image = Image::new();
    std::os::unix::fs::symlink("/nowhere/resolv.conf", image.layer().join("etc/resolv.conf")).unwrap();
    let mut machine = image.machine();
    container_of(&mut machine).readonly = true;
    container_of(&mut machine).mounts =
        vec![Mount { source: MountSource::Memory(1 << 20), destination: "/scratch".into(), readonly: false }];
    let script = "touch /x || echo refused; touch /scratch/x && cat /etc/hostname && stat -c %a /scratch; \
                  dd if=/dev/zero of=/scratch/y bs=1M count=4 2>&1 | grep -o 'No space'";
    let mut keeper = Keeper::run(&machine, shell(script));
    let said = keeper.said(0);
    assert!(said.contains("refused\nbox\n1777\nNo space\n"), "{said}");
    keeper.instance.stop().unwrap();
    assert_eq!(left(&image.run()), Vec::<String>::new());
}

fn mounts_of_the_host_have_the_container_s_owners() {
    let image = Image::new();
    let folder = image.folder.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("given"), "given").unwrap();
    std::os::unix::fs::chown(folder.join("given"), Some(1000), Some(1000)).unwrap();
    let file = image.folder.path().join("one.conf");
    std::fs::write(&file, "one").unwrap();
    let mut machine = image.machine();
    let mount =
        |source, destination: &str, readonly| Mount { source, destination: destination.into(), readonly };
    container_of(&mut machine).mounts = vec![
        mount(MountSource::Folder(folder.clone()), "/data", false),
        mount(MountSource::Folder(folder.clone()), "/kept", true),
        mount(MountSource::File(file.clone()), "/etc/app/one.conf", true),
    ];
    let script = "stat -c %u /data/given; echo made > /data/made; touch /kept/x || echo kept; cat /etc/app/one.conf; \
                  echo x > /etc/app/one.conf || echo kept; chmod 4755 /data/made || echo plain; \
                  grep ' /data ' /proc/mounts | grep -c nosuid,nodev";
    let mut keeper = Keeper::run(&machine, shell(script));
    let said: Vec<String> =
        keeper.said(0).lines().filter(|line| !line.contains(": ")).map(str::to_owned).collect();
    assert_eq!(said, ["1000", "kept", "onekept", "plain", "1"], "{}", keeper.said(0));
    let made = std::fs::metadata(folder.join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (0, 0));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one");
    keeper.instance.stop().unwrap();
    assert_eq!(left(&image.run()), Vec::<String>::new());
}

fn a_volume_on_a_disk_keeps_what_is_written() {
    let image = Image::new();
    let disk = image.folder.path().join("volume.img");
    hypercore::scratch::create(&disk, 16 << 20).unwrap();
    let mut machine = image.machine();
    let mount = |readonly| {
        vec![Mount { source: MountSource::Disk(disk.clone()), destination: "/vol".into(), readonly }]
    };
    for (readonly, script, said) in [
        (false, "stat -c %u /vol; echo kept > /vol/file && sync", "0\n"),
        (true, "cat /vol/file; touch /vol/x 2>/dev/null || echo refused", "kept\nrefused\n"),
    ] {
        container_of(&mut machine).mounts = mount(readonly);
        let mut keeper = Keeper::run(&machine, shell(script));
        assert_eq!(keeper.said(0), said);
        keeper.instance.stop().unwrap();
        assert_eq!(left(&image.run()), Vec::<String>::new());
    }
}

/// A folder on an overlay can't take the writes of another one.
#[allow(unsafe_code)]
fn without_an_overlay_the_layers_are_copied() {
    let image = Image::new();
    for name in ["up", "work", "over"] {
        std::fs::create_dir(image.folder.path().join(name)).unwrap();
    }
    // SAFETY: this process has one thread.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(unshared, 0);
    let done = |command: &mut std::process::Command| assert!(command.status().unwrap().success());
    done(std::process::Command::new("mount").args(["--make-rprivate", "/"]));
    let options = "lowerdir=run,upperdir=up,workdir=work";
    let mut mount = std::process::Command::new("mount");
    done(mount.args(["-t", "overlay", "overlay", "-o", options, "over"]).current_dir(image.folder.path()));
    let mut machine = image.machine();
    for readonly in [false, true] {
        container_of(&mut machine).folder = image.folder.path().join("over");
        container_of(&mut machine).readonly = readonly;
        let script = "stat -c %u /bin/busybox; touch /x 2>/dev/null && echo written; cat /etc/hostname";
        let mut keeper = Keeper::run(&machine, shell(script));
        assert_eq!(keeper.said(0), if readonly { "0\nbox\n" } else { "0\nwritten\nbox\n" });
        keeper.instance.stop().unwrap();
        assert_eq!(std::fs::read_dir(image.folder.path().join("over")).unwrap().count(), 0);
    }
    assert!(!image.layer().join("x").exists());
}

fn a_linked_image_is_refused_before_it_leads_anywhere() {
    use hypercore::driver::Driver;
    let image = Image::new();
    std::fs::remove_dir(image.layer().join("dev")).unwrap();
    std::os::unix::fs::symlink("/tmp", image.layer().join("dev")).unwrap();
    let prepared = container::ContainerDriver.prepare(&image.machine()).unwrap();
    let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let wiring = hypercore::driver::Wiring { channel: theirs.into(), network: None, console: None };
    let error = container::ContainerDriver.start(&prepared, wiring).err().unwrap();
    assert!(error.to_string().contains("/dev of the image"), "{error}");
    assert_eq!(left(&image.run()), Vec::<String>::new());
}

fn the_workload_has_no_more_than_it_is_given() {
    let image = Image::new();
    let script = "grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status; \
                  ls /proc/self/fd | tr '\\n' ' '; cat /proc/1/oom_score_adj /proc/self/oom_score_adj; \
                  cat /proc/self/uid_map | tr -s ' '; umask; ls /sys/class/net; cat /proc/interrupts | wc -c; \
                  echo x > /proc/sys/kernel/hostname || echo masked; trap";
    let keeper = Keeper::run(&image.machine(), shell(script));
    let said = keeper.said(0).replace('\t', " ");
    for line in [
        "CapInh: 0000000000000000",
        "CapPrm: 00000000a80425fb",
        "CapEff: 00000000a80425fb",
        "CapBnd: 00000000a80425fb",
        "CapAmb: 0000000000000000",
        "NoNewPrivs: 1",
        "Seccomp: 2",
        "0 1 2 3 500\n600\n",
        "0022",
        "lo",
        "\n0\n",
        "masked",
    ] {
        assert!(said.contains(line), "{line:?} isn't in {said}");
    }
    let ids =
        said.lines().map(|line| line.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>());
    let maps: Vec<Vec<u32>> = ids.flatten().filter(|numbers| numbers.len() == 3).collect();
    let is_own = |map: &Vec<u32>| {
        map[0] == 0
            && map[2] == container::IDS
            && map[1] >= container::FIRST_ID
            && map[1].is_multiple_of(container::IDS)
    };
    assert!(!maps.is_empty() && maps.iter().all(is_own), "{said}");
}

fn a_workload_as_root_can_t_touch_pid_1_or_the_host() {
    let image = Image::new();
    let script = "kill -9 1; kill -STOP 1; kill -TERM 1; readlink /proc/1/exe || echo no exe; readlink /proc/1/fd/3 || echo no fd; \
                  head -c 1 /proc/1/mem || echo no mem; mount -t tmpfs t /tmp || echo no mount; unshare -m true || echo no unshare; \
                  mknod /tmp/disk b 254 0 || echo no node; umount /proc || echo no umount; rm -f /dev/null || echo no rm; \
                  echo 1 > /sys/fs/cgroup/memory/memory.limit_in_bytes || echo no limit; ls -A /run 2>/dev/null | wc -l; echo alive";
    let keeper = Keeper::run(&image.machine(), shell(script));
    let said = keeper.said(0);
    let wanted = [
        "no exe",
        "no fd",
        "no mem",
        "no mount",
        "no unshare",
        "no node",
        "no umount",
        "no rm",
        "no limit",
        "0\nalive",
    ];
    for word in wanted {
        assert!(said.contains(word), "{word:?} isn't in {said}");
    }
}

fn a_container_that_is_paused_stands_still_and_can_be_stopped() {
    let image = Image::new();
    let mut keeper = Keeper::start(&image.machine());
    keeper.configure(configuration(shell("while :; do :; done")));
    keeper.until(|keeper| keeper.started.contains(&0));
    keeper.instance.pause().unwrap();
    let before = keeper.instance.observe().unwrap().cpu;
    std::thread::sleep(Duration::from_millis(300));
    assert!(keeper.instance.observe().unwrap().cpu - before < Duration::from_millis(20));
    keeper.instance.resume().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(keeper.instance.observe().unwrap().cpu - before > Duration::from_millis(50));
    keeper.instance.pause().unwrap();
    let ended = keeper.instance.stop().unwrap();
    assert_eq!(ended.signal, Some(9));
    assert_eq!(left(&image.run()), Vec::<String>::new());
}

fn what_is_measured_is_the_container_s() {
    let image = Image::new();
    let mut keeper = Keeper::start(&image.machine());
    let script =
        "n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done; echo ready; sleep 1000 & exec sleep 1000";
    keeper.configure(configuration(shell(script)));
    keeper.until(|keeper| keeper.said(0).contains("ready"));
    std::thread::sleep(Duration::from_millis(200));
    let stats = keeper.measure();
    assert_eq!((stats.memory_total, stats.processes, stats.load_milli), (128 << 20, 2, 0), "{stats:?}");
    assert!(stats.memory_available > 64 << 20 && stats.memory_available < 128 << 20, "{stats:?}");
    assert!(stats.cpu_user_us + stats.cpu_system_us >= 10_000, "{stats:?}");
    let observed = keeper.instance.observe().unwrap();
    assert!(observed.threads == 3 && observed.resident_bytes > 0, "{observed:?}");
}

fn a_network_carries_frames_to_the_stream_and_back() {
    use std::io::Read;
    if !std::path::Path::new("/dev/net/tun").exists() {
        return skipped("a_network_carries_frames_to_the_stream_and_back", "/dev/net/tun isn't there");
    }
    let image = Image::new();
    let mut machine = image.machine();
    machine.network = Some(hypercore::driver::Network {
        mac: hypercore::network::MAC,
        mtu: 32_000,
        carrier: hypercore::network::Carrier::Passt,
    });
    let (mut wire, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    wire.set_read_timeout(Some(rig::PATIENCE)).unwrap();
    let mut keeper = Keeper::start_on(&machine, Some(theirs.into()));
    let script = "cat /sys/class/net/eth0/address; cat /etc/resolv.conf; ls /dev/net 2>/dev/null; ping -c 1 -W 20 10.9.8.1 | grep -c '1 packets received'";
    let mut configuration = configuration(shell(script));
    configuration.network = Some(spacecore::wire::message::Network {
        addresses: vec!["10.9.8.7/24".to_owned()],
        gateways: vec!["10.9.8.1".to_owned()],
        dns: vec!["10.9.8.2".to_owned()],
        search: Vec::new(),
        mtu: 32_000,
    });
    keeper.configure(configuration);
    // The other end answers the question for its address, and the ping.
    let answers = std::thread::spawn(move || {
        let own = [2, 0, 0, 0, 0, 1];
        let mut answered = 0;
        let mut length = [0; 4];
        while answered < 2 && wire.read_exact(&mut length).is_ok() {
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            wire.read_exact(&mut frame).unwrap();
            let asked = frame[12..14] == [8, 6] && frame[21] == 1 && frame[38..42] == [10, 9, 8, 1];
            let pinged = frame[12..14] == [8, 0] && frame[23] == 1 && frame[34] == 8;
            if !asked && !pinged {
                continue;
            }
            let guest: [u8; 6] = frame[6..12].try_into().unwrap();
            frame[0..6].copy_from_slice(&guest);
            frame[6..12].copy_from_slice(&own);
            if asked {
                let (sender, target): (Vec<u8>, Vec<u8>) = (frame[28..32].to_vec(), frame[38..42].to_vec());
                frame[21] = 2;
                frame[22..28].copy_from_slice(&own);
                frame[28..32].copy_from_slice(&target);
                frame[32..38].copy_from_slice(&guest);
                frame[38..42].copy_from_slice(&sender);
            } else {
                let addresses = [&frame[30..34], &frame[26..30]].concat();
                frame[26..34].copy_from_slice(&addresses);
                // An answer instead of a question: 8 less in the type is 0x0800 more in the checksum.
                frame[34] = 0;
                let sum = u32::from(u16::from_be_bytes([frame[36], frame[37]])) + 0x0800;
                let sum = (sum & 0xffff) + (sum >> 16);
                frame[36..38].copy_from_slice(&(sum as u16).to_be_bytes());
            }
            answered += 1;
            wire.write_all(&[&length[..], &frame].concat()).unwrap();
        }
        wire
    });
    keeper.until(|keeper| keeper.ended.contains_key(&0) || !keeper.refused.is_empty());
    assert_eq!(keeper.said(0), "52:54:00:76:69:6d\nnameserver 10.9.8.2\n1\n", "{:?}", keeper.refused);
    let _wire = answers.join().unwrap();
    keeper.instance.stop().unwrap();
    assert_eq!(left(&image.run()), Vec::<String>::new());
}

#[allow(unsafe_code)]
fn nothing_is_left_when_the_keeper_is_killed() {
    use std::io::Read;
    let image = Image::new();
    let mut machine = image.machine();
    container_of(&mut machine).upper_bytes = Some(16 << 20);
    for paused in [false, true] {
        let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        // SAFETY: this process has one thread.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(ours);
            let mut keeper = Keeper::start(&machine);
            keeper.configure(configuration(shell(
                "trap '' TERM HUP; setsid sleep 1000 & echo ready; sleep 1000",
            )));
            keeper.until(|keeper| keeper.said(0).contains("ready"));
            if paused {
                keeper.instance.pause().unwrap();
            }
            theirs.write_all(&keeper.instance.pid().to_ne_bytes()).unwrap();
            std::thread::sleep(rig::PATIENCE);
            std::process::exit(0);
        }
        drop(theirs);
        let mut pid = [0; 4];
        ours.read_exact(&mut pid).unwrap();
        let pid = i32::from_ne_bytes(pid);
        // SAFETY: both take plain numbers of processes that this test has started.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        if paused {
            // What stands still can't die before the sweeper has been.
            container::clear(&image.run()).unwrap();
        }
        let begin = Instant::now();
        let lives = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            !status.is_empty() && !status.contains("State:\tZ")
        };
        while lives() {
            assert!(begin.elapsed() < Duration::from_secs(10), "PID 1 outlived its keeper");
            std::thread::sleep(Duration::from_millis(5));
        }
        container::clear(&image.run()).unwrap();
        assert_eq!(left(&image.run()), Vec::<String>::new());
    }
}
