//! The kernel's own network: what spacecores of one machine are to each other, and what is left of it.

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::thread;

use crate::support::{Home, Killed, code, eventually, kill, text};
use crate::world::{World, can};

/// A table of somebody else's, with a counter that nothing here counts on.
const OTHERS: &str = "table inet others { chain input { type filter hook input priority 0; policy accept; \
                      tcp dport 4711 counter packets 7 bytes 42 drop; }; set known { type ipv4_addr; elements = { 9.9.9.9 }; }; }";

fn home_and_world(test: &str) -> Option<(Home, World)> {
    let home = Home::new(test)?;
    can(test).then(|| (home, World::new()))
}

/// A manifest of a container with this name in this private network.
fn manifest(home: &Home, name: &str, network: &str) -> String {
    let path = home.path().join(format!("{name}.toml"));
    let text = format!(
        "[metadata]\nname = \"{name}\"\n[spec.deployment]\nimage = \"{}\"\n[spec.networking]\nprivate_network = \"{network}\"\n",
        home.image
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Starts a spacecore and waits until it says that it is ready.
fn ready(world: &World, home: &Home, flags: &[&str], script: &str) -> Killed {
    let script = format!("echo ready; {script}");
    let mut command = world.command(home, flags, &script);
    let mut child = Killed(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

/// What is on the machine of spacecores' networks: tables, interfaces, and settings that aren't as they were.
fn left(world: &World) -> Vec<String> {
    let tables = world.machine.says("nft list tables");
    let links = world.machine.says("ip -o link");
    let settings = "net.ipv4.conf.v0.forwarding net.ipv6.conf.all.forwarding net.ipv6.conf.v0.forwarding";
    let changed = world.machine.says(&format!("sysctl {settings}"));
    let router = world.machine.says("sysctl net.ipv6.conf.v0.accept_ra");
    let lines = tables.lines().filter(|line| line.contains("vimana"));
    let lines = lines.chain(links.lines().filter(|line| line.contains("vm-")));
    let lines = lines.chain(changed.lines().filter(|line| !line.ends_with("= 0")));
    lines.chain(router.lines().filter(|line| !line.ends_with("= 1"))).map(str::to_owned).collect()
}

#[test]
fn spacecores_of_one_private_network_reach_each_other_and_nobody_else_does() {
    let test = "spacecores_of_one_private_network_reach_each_other_and_nobody_else_does";
    let Some((home, world)) = home_and_world(test) else { return };
    let serve = "while :; do echo reached $(hostname) | nc -l -p 5432; done";
    let (db, web, other) = (
        manifest(&home, "db", "shop"),
        manifest(&home, "web", "shop"),
        manifest(&home, "other", "elsewhere"),
    );
    let db = ready(&world, &home, &[&db], serve);
    let stranger = ready(&world, &home, &[&other], serve);
    let links = world.machine.says("ip -o -4 addr");
    let numbers: Vec<String> = links
        .lines()
        .filter_map(|line| {
            let four = line.split_whitespace().nth(3)?.strip_suffix("/30")?;
            let last: u8 = four.rsplit('.').next()?.parse().ok()?;
            Some(format!("{}.{}", four.rsplit_once('.')?.0, last + 5))
        })
        .collect();
    let [db_address, stranger_address] = &numbers[..] else { panic!("{links}") };
    let tries = format!(
        "for a in db db.internal {db_address} other {stranger_address}; do echo \"$a: $(sleep 1 | nc -w 3 $a 5432 2>/dev/null)\"; done"
    );
    let output = world.command(&home, &[&web], &tries).output().unwrap();
    let wanted = format!(
        "db: reached db\ndb.internal: reached db\n{db_address}: reached db\nother: \n{stranger_address}: \n"
    );
    assert_eq!(text(&output.stdout), wanted, "{}", text(&output.stderr));
    // Neither does the machine, nor a stranger by trying.
    let tries = format!("sleep 1 | nc -w 3 {db_address} 5432; echo tried");
    let output = world.command(&home, &[&manifest(&home, "third", "elsewhere")], &tries).output().unwrap();
    assert_eq!(text(&output.stdout), "tried\n");
    drop((db, stranger));
    home.assert_nothing_is_left();
}

#[test]
fn the_last_spacecore_leaves_the_machine_as_it_was_and_others_rules_are_never_touched() {
    let test = "the_last_spacecore_leaves_the_machine_as_it_was_and_others_rules_are_never_touched";
    let Some((home, world)) = home_and_world(test) else { return };
    let rules = home.path().join("others.nft");
    std::fs::write(&rules, OTHERS).unwrap();
    world.machine.run(&format!("nft -f {}", rules.display()));
    let others = || world.machine.says("nft list table inet others");
    let before = others();
    assert!(before.contains("packets 7"), "{before}");
    assert_eq!(left(&world), [""; 0]);

    let image = home.image.clone();
    let mut first = ready(&world, &home, &[&image], "exec sleep 600");
    let mut second = ready(&world, &home, &[&image], "exec sleep 600");
    assert_eq!(others(), before);
    assert!(left(&world).iter().any(|line| line.contains("table inet vimana")));
    kill(first.0.id(), libc::SIGTERM);
    first.0.wait().unwrap();
    assert!(left(&world).iter().any(|line| line.contains("table inet vimana")), "one still runs");
    kill(second.0.id(), libc::SIGTERM);
    second.0.wait().unwrap();
    eventually("nothing is left", 10, || left(&world).is_empty().then_some(()));
    assert_eq!(others(), before);
    home.assert_nothing_is_left();
}

#[test]
fn what_the_administrator_switches_on_meanwhile_stays_on() {
    let test = "what_the_administrator_switches_on_meanwhile_stays_on";
    let Some((home, world)) = home_and_world(test) else { return };
    let image = home.image.clone();
    let first = ready(&world, &home, &[&image], "exec sleep 600");
    for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
        world.machine.run(&format!("sysctl -qw {setting}"));
    }
    kill(first.0.id(), libc::SIGTERM);
    drop(first);
    home.assert_nothing_is_left();
    let settings = "net.ipv4.conf.v0.forwarding net.ipv6.conf.all.forwarding net.ipv6.conf.v0.forwarding";
    let now = world.machine.says(&format!("sysctl -n {settings}"));
    assert_eq!(now.split_whitespace().collect::<Vec<_>>(), ["1", "1", "1"]);
    assert!(!world.machine.says("nft list tables").contains("vimana"));
}

#[test]
fn a_keeper_that_is_killed_while_it_changes_the_machine_leaves_nothing_for_ever() {
    let test = "a_keeper_that_is_killed_while_it_changes_the_machine_leaves_nothing_for_ever";
    let Some((home, world)) = home_and_world(test) else { return };
    // Does what it is told, and ends whoever told it.
    let folder = home.path().join("bin");
    std::fs::create_dir(&folder).unwrap();
    let nft = text(&Command::new("sh").args(["-c", "command -v nft"]).output().unwrap().stdout);
    let script = format!("#!/bin/sh\n{} \"$@\"\nkill -9 $PPID\n", nft.trim());
    std::fs::write(folder.join("nft"), script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.join("nft"), mode).unwrap();
    // What can be had here was found out before.
    assert_eq!(code(world.run(&home, &[], "true").status), 0);
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let image = home.image.clone();
    let ended = world.command(&home, &[&image], "true").env("PATH", path).output().unwrap();
    assert_ne!(code(ended.status), 0);
    assert!(!left(&world).is_empty(), "it was killed too early to have changed anything");
    let output = world.run(&home, &["--network", "none"], "true");
    assert_eq!(code(output.status), 0, "{}", text(&output.stderr));
    assert_eq!(left(&world), [""; 0]);
    home.assert_nothing_is_left();
}

#[test]
fn two_manifests_of_one_name_share_no_network() {
    let test = "two_manifests_of_one_name_share_no_network";
    let Some((home, world)) = home_and_world(test) else { return };
    let named = |folder: &str| {
        let folder = home.path().join(folder);
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("hac.toml");
        let lines = format!("[metadata]\nname = \"shop\"\n[spec.deployment]\nimage = \"{}\"\n", home.image);
        std::fs::write(&path, lines).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (one, other) = (named("one"), named("other"));
    let serve = "while :; do echo reached | nc -l -p 5432; done";
    let serving = ready(&world, &home, &["--name", "db", &one], serve);
    let script = "echo \"$(sleep 1 | nc -w 3 db 5432 2>/dev/null)\"";
    let asks = |manifest: &str| {
        text(&world.command(&home, &["--name", "web", manifest], script).output().unwrap().stdout)
    };
    assert_eq!((asks(&one).trim(), asks(&other).trim()), ("reached", ""));
    drop(serving);
    home.assert_nothing_is_left();
}

#[test]
fn many_that_start_and_end_at_once_leave_the_machine_as_it_was() {
    let test = "many_that_start_and_end_at_once_leave_the_machine_as_it_was";
    let Some((home, world)) = home_and_world(test) else { return };
    let script = "sleep 1 | nc -w 5 198.51.100.10 80; ip -4 -o addr show dev eth0 | grep -o 'inet [0-9.]*'";
    let shared = manifest(&home, "twin", "twins");
    let run = &|one: usize| {
        // Half of them are of one private network, whose members come and go.
        let source = if one.is_multiple_of(2) { &home.image } else { &shared };
        world.command(&home, &[source], script).output().unwrap()
    };
    let outputs: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|one| scope.spawn(move || run(one))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut addresses = Vec::new();
    for output in &outputs {
        let said = text(&output.stdout);
        let (reached, address) = said.split_once('\n').unwrap_or_default();
        assert_eq!(reached, "reached", "{said}{}", text(&output.stderr));
        addresses.push(address.to_owned());
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), outputs.len(), "{addresses:?}");
    eventually("nothing is left", 10, || left(&world).is_empty().then_some(()));
    home.assert_nothing_is_left();
}

#[test]
fn of_a_network_whose_keeper_is_killed_the_next_command_leaves_nothing() {
    let test = "of_a_network_whose_keeper_is_killed_the_next_command_leaves_nothing";
    let Some((home, world)) = home_and_world(test) else { return };
    let image = home.image.clone();
    let killed = ready(&world, &home, &[&image], "exec sleep 600");
    let keeper = home.processes().into_iter().find(|(pid, _)| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| text(&line).contains("keeper"))
    });
    kill(u32::try_from(keeper.unwrap().0).unwrap(), libc::SIGKILL);
    drop(killed);
    // The kernel clears away what nobody holds any more: the gateway, and with it both wires, rules and queues.
    let links = || world.machine.says("ip -o link");
    eventually("its interface is gone", 10, || (!links().contains("vm-")).then_some(()));
    assert!(left(&world).iter().any(|line| line.contains("table inet vimana")), "nobody has seen it yet");
    let output = world.run(&home, &["--network", "none"], "true");
    assert_eq!(code(output.status), 0, "{}", text(&output.stderr));
    assert_eq!(left(&world), [""; 0]);
    home.assert_nothing_is_left();
}

#[test]
fn a_table_that_somebody_has_flushed_is_there_again_for_the_next_spacecore() {
    let test = "a_table_that_somebody_has_flushed_is_there_again_for_the_next_spacecore";
    let Some((home, world)) = home_and_world(test) else { return };
    let image = home.image.clone();
    let first = ready(&world, &home, &[&image], "exec sleep 600");
    world.machine.run("nft flush ruleset");
    assert_eq!(world.reached(&home, &["--allow-to", "203.0.113.2"]), [""; 0]);
    assert_eq!(world.reached(&home, &[]), crate::world::PUBLIC);
    drop(first);
    home.assert_nothing_is_left();
}

/// A name server that knows 198.51.100.10 under every name, on an address of the machine's.
fn name_server(world: &World) {
    let socket = world.machine.make(|| UdpSocket::bind("127.0.0.1:53").unwrap());
    thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let mut answer = packet[..length].to_vec();
            (answer[2], answer[3]) = (0x81, 0x80);
            // An address of IPv4, if that was asked for; the question has no other records behind it.
            if answer[length - 3] == 1 {
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 198, 51, 100, 10]);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
}

#[test]
fn an_allowed_name_leads_to_its_addresses_once_it_was_asked_for_and_others_arent_asked() {
    let test = "an_allowed_name_leads_to_its_addresses_once_it_was_asked_for_and_others_arent_asked";
    let Some((home, world)) = home_and_world(test) else { return };
    name_server(&world);
    let resolver = home.path().join("resolv.conf");
    std::fs::write(&resolver, "nameserver 127.0.0.1\n").unwrap();
    let script = "try() { echo \"$1: $(sleep 1 | nc -w 2 $1 80 2>/dev/null)\"; }; \
                  try 198.51.100.10; try api.example.org; try 198.51.100.10; try other.example.org";
    let flags = ["--carrier", "routed", "--allow-to", "api.example.org:80/tcp", &home.image];
    let inner = world.command(&home, &flags, script);
    // With a list of name servers of its own.
    let mut command = Command::new("unshare");
    let bound = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    command
        .args(["--mount", "sh", "-c", bound])
        .arg(&resolver)
        .arg(inner.get_program())
        .args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let wanted = "198.51.100.10: \napi.example.org: reached\n198.51.100.10: reached\nother.example.org: \n";
    assert_eq!(text(&output.stdout), wanted, "{}", text(&output.stderr));
    home.assert_nothing_is_left();
}

#[test]
fn a_workload_learns_where_it_is_reached() {
    let test = "a_workload_learns_where_it_is_reached";
    let Some((home, world)) = home_and_world(test) else { return };
    let script = "env | grep VIMANA_ | sort; ip -4 -o addr show dev eth0 | grep -o 'inet [0-9.]*'";
    let output = world.run(&home, &["-p", "203.0.113.2:8080:80"], script);
    let said = text(&output.stdout);
    let own = said.lines().last().unwrap_or_default().replace("inet ", "");
    assert!(said.contains(&format!("VIMANA_ADDRESSES={own},fd76:")), "{said}{}", text(&output.stderr));
    assert!(said.contains("VIMANA_PUBLIC_ADDRESSES=203.0.113.2,2001:db8:1::2\n"), "{said}");
    assert!(said.contains("VIMANA_PUBLIC_PORTS=203.0.113.2:8080->80/tcp\n"), "{said}");
    home.assert_nothing_is_left();
}
