//! The network helper with a real guest: what it reaches, and what it must not.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use hypercore::driver::qemu::Qemu;
use hypercore::driver::{Class, Driver, Network, Wire, Wiring};
use hypercore::network::{Carrier, NetworkPlan, Protocol, Publish};
use hypercore::passt::Passt;

mod busybox;

const TEST: &str = "a_guest_answers_on_its_published_port_and_reaches_no_service_of_its_host";
const PATIENCE: Duration = Duration::from_secs(120);

fn skipped(reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {TEST}: {reason}");
}

#[test]
fn a_guest_answers_on_its_published_port_and_reaches_no_service_of_its_host() {
    let address = Ipv4Addr::LOCALHOST.into();
    let plan = NetworkPlan {
        published: vec![Publish { address, host: 0, guest: 80, protocol: Protocol::Tcp }],
        ..NetworkPlan::default()
    };
    let (mut passt, wire, network) = match Passt::start(&plan) {
        Ok(started) => started,
        Err(error) => return skipped(&error.to_string()),
    };
    let Some((own, prefix, gateway)) = network.ipv4 else {
        return skipped("the host has no IPv4");
    };

    // A service of the host, on all its addresses.
    let service = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = service.local_addr().unwrap().port();
    // Any further address that the host has.
    let listed = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let lines: Vec<&str> = listed.lines().collect();
    let local = lines.windows(2).filter(|pair| pair[1].contains("/32 host LOCAL"));
    let other = local
        .filter_map(|pair| pair[0].trim_start_matches([' ', '|', '-']).parse::<Ipv4Addr>().ok())
        .find(|address| !address.is_loopback() && *address != own);
    let further = other.map(|address| address.to_string()).unwrap_or_default();

    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "#!/busybox sh\nb=/busybox\n$b mkdir /proc /sys /bin\n$b mount -t proc p /proc\n$b mount -t sysfs s /sys\n\
         $b mount -t devtmpfs d /dev\n$b --install -s /bin\nexport PATH=/bin\n\
         for m in $(cat /modules/load); do insmod /modules/$m; done\n\
         while [ ! -e /sys/class/net/eth0 ]; do usleep 5000; done\n\
         while :; do for p in /sys/class/virtio-ports/*; do\n\
         [ \"$(cat $p/name 2>/dev/null)\" = vimana.channel ] && break 2; done; usleep 5000; done\n\
         exec <> /dev/${{p##*/}} >&0\n\
         ip link set lo up; ip link set eth0 up; ip addr add {own}/{prefix} dev eth0; ip route add default via {gateway}\n\
         reach() {{ echo x | nc -w 3 $1 {port} >/dev/null 2>&1 && echo \"$2 reached\" || echo \"$2 not reached\"; }}\n\
         reach {gateway} gateway; reach {own} own\n\
         [ -n \"{further}\" ] && reach {further} further\n\
         echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet\n\
         ip addr del 127.0.0.1/8 dev lo; ip route del local 127.0.0.0/8 dev lo table local 2>/dev/null\n\
         ip route add 127.0.0.0/8 via {gateway} dev eth0 src {own}\n\
         reach 127.0.0.1 loopback; reach 127.0.0.2 loopback2\n\
         ip route del 127.0.0.0/8; ip addr add 127.0.0.1/8 dev lo; echo 0 > /proc/sys/net/ipv4/conf/all/route_localnet\n\
         echo ready\nwhile :; do echo published | nc -l -p 80; done\n"
    );
    let modules = ["virtio_pci", "virtio_console", "virtio_net", "af_packet"];
    let mut machine = match busybox::machine(folder.path(), &modules, &script) {
        Ok(machine) => machine,
        Err(reason) => return skipped(&reason),
    };
    machine.network =
        Some(Network { mac: hypercore::network::MAC, mtu: network.mtu, carrier: Carrier::Passt });
    let (mut channel, theirs) = UnixStream::pair().unwrap();
    channel.set_read_timeout(Some(PATIENCE)).unwrap();
    let qemu = Qemu::find();
    let wiring = Wiring { channel: theirs.into(), network: Some(Wire::Stream(wire)), console: None };
    let mut instance = qemu.start(&qemu.prepare(&machine).unwrap(), wiring).unwrap();

    let mut said = String::new();
    while !said.ends_with("ready\n") {
        let mut byte = [0; 1];
        let count = channel.read(&mut byte).expect("the guest says something");
        assert_eq!(count, 1, "the machine ended after {said:?}; passt: {:?}", passt.ended());
        said.push(byte[0] as char);
    }
    service.set_nonblocking(true).unwrap();
    let met = service.accept().map(|(_, peer)| peer);
    assert!(met.is_err(), "a service of the host was reached from {met:?}: {said}");

    let published = passt.published()[0];
    let begin = Instant::now();
    let answer = loop {
        let mut answer = String::new();
        let stream = TcpStream::connect((published.address, published.host));
        let read = stream.and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            // Some versions of the helper complete a connection only when the client says something.
            stream.write_all(b"hello\n")?;
            stream.read_to_string(&mut answer)
        });
        if read.is_ok() && !answer.is_empty() {
            break answer;
        }
        assert!(begin.elapsed() < PATIENCE, "the published port never answered");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(answer, "published\n");

    // passt ends with the machine.
    instance.stop().unwrap();
    let begin = Instant::now();
    while passt.ended().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(10), "passt outlived the machine");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn passt_has_a_control_group_as_long_as_it_runs() {
    const TEST: &str = "passt_has_a_control_group_as_long_as_it_runs";
    let folder = tempfile::tempdir().unwrap();
    if let Err(reason) = hypercore::cgroup::usable() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {TEST}: {reason}");
        return;
    }
    let (ours, machine) = UnixStream::pair().unwrap();
    let passt = match Passt::start_on(
        &NetworkPlan::default(),
        ours.into(),
        Some((folder.path(), Class::Burstable)),
    ) {
        Ok((passt, _)) => passt,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED: {TEST}: {error}");
            return;
        }
    };
    // The hierarchy of processes on version 1, the only one on version 2.
    let listed = std::fs::read_to_string(format!("/proc/{}/cgroup", passt.pid())).unwrap();
    let of = |which: &str| listed.lines().find_map(|line| Some(line.split_once(which)?.1.to_owned()));
    let place = match of(":pids:") {
        Some(own) => format!("/sys/fs/cgroup/pids{own}"),
        None => format!("/sys/fs/cgroup{}", of("0::").unwrap()),
    };
    assert_eq!(std::fs::read_to_string(format!("{place}/pids.max")).unwrap(), "8\n");
    drop(passt);
    assert!(!std::path::Path::new(&place).exists(), "{place} is left");
    drop(machine);
}
