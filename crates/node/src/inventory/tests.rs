//! Inventories of made-up machines, and of this one.

use std::os::unix::fs::symlink;

use super::*;

/// A tree of files with these contents; what ends in `@` is a link.
fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let place = root.path().join(path.trim_end_matches('@'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        if path.ends_with('@') {
            symlink(content, place).unwrap();
        } else {
            fs::write(place, content).unwrap();
        }
    }
    root
}

fn read(files: &[(&str, &str)], arch: &str) -> Inventory {
    Inventory::read(machine(files).path(), arch, Disk { total: 100, free: 50 })
}

#[test]
fn a_server_with_two_sockets_is_read_whole() {
    let mut files = vec![
        (
            "proc/cpuinfo",
            "processor\t: 0\nmodel name\t: AMD EPYC 9654\nflags\t\t: fpu svm aes avx2 sev sev_snp nonsense\n\nprocessor\t: 1\n",
        ),
        (
            "proc/meminfo",
            "MemTotal:       1048576 kB\nMemFree: 1 kB\nMemAvailable:    524288 kB\nHugePages_Total:      16\nHugepagesize:       2048 kB\n",
        ),
        ("sys/devices/system/cpu/online", "0-3,8-11\n"),
        ("sys/devices/system/node/node0/cpulist", "0-3\n"),
        ("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:       524288 kB\n"),
        ("sys/devices/system/node/node1/cpulist", "8-11\n"),
        ("sys/devices/system/node/node1/meminfo", "Node 1 MemTotal:       524288 kB\n"),
        ("sys/devices/system/node/possible", "0-1\n"),
        ("sys/class/net/lo/ifindex", "1\n"),
        ("sys/class/net/lo/operstate", "unknown\n"),
        ("sys/class/net/bond0/ifindex", "4\n"),
        ("sys/class/net/bond0/operstate", "up\n"),
        ("sys/class/net/bonding_masters", "bond0\n"),
        ("sys/class/net/eth0/ifindex", "2\n"),
        ("sys/class/net/eth0/operstate", "up\n"),
        ("sys/class/net/eth0/speed", "25000\n"),
        ("sys/class/net/eth0/device/vendor", "0x15b3\n"),
        ("sys/class/net/eth1/ifindex", "3\n"),
        ("sys/class/net/eth1/operstate", "down\n"),
        ("sys/class/net/eth1/speed", "-1\n"),
        ("sys/class/net/eth1/device/vendor", "0x15b3\n"),
        // A GPU, a console, a network card, an accelerator without a driver.
        ("sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n"),
        ("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n"),
        ("sys/bus/pci/devices/0000:01:00.0/device", "0x2330\n"),
        ("sys/bus/pci/devices/0000:01:00.0/numa_node", "1\n"),
        ("sys/bus/pci/devices/0000:01:00.0/driver@", "../../../bus/pci/drivers/nvidia"),
        ("sys/bus/pci/devices/0000:02:00.0/class", "0x030000\n"),
        ("sys/bus/pci/devices/0000:02:00.0/vendor", "0x1a03\n"),
        ("sys/bus/pci/devices/0000:02:00.0/device", "0x2000\n"),
        ("sys/bus/pci/devices/0000:03:00.0/class", "0x020000\n"),
        ("sys/bus/pci/devices/0000:03:00.0/vendor", "0x15b3\n"),
        ("sys/bus/pci/devices/0000:03:00.0/device", "0x1017\n"),
        ("sys/bus/pci/devices/0000:04:00.0/class", "0x120000\n"),
        ("sys/bus/pci/devices/0000:04:00.0/vendor", "0x1da3\n"),
        ("sys/bus/pci/devices/0000:04:00.0/device", "0x1060\n"),
        ("sys/bus/pci/devices/0000:04:00.0/numa_node", "-1\n"),
        ("sys/class/tpm/tpm0/tpm_version_major", "2\n"),
        ("sys/module/kvm_amd/parameters/sev", "Y\n"),
        ("sys/module/kvm_amd/parameters/sev_snp", "N\n"),
    ];
    let topology: Vec<(String, String)> = [0, 1, 2, 3, 8, 9, 10, 11]
        .iter()
        .flat_map(|cpu| {
            let of = |file: &str, value: u32| {
                (format!("sys/devices/system/cpu/cpu{cpu}/topology/{file}"), format!("{value}\n"))
            };
            // Two threads to a core.
            [of("physical_package_id", cpu / 8), of("core_id", cpu % 8 / 2)]
        })
        .collect();
    files.extend(topology.iter().map(|(path, content)| (path.as_str(), content.as_str())));
    let found = read(&files, "x86_64");
    let processors = &found.processors;
    assert_eq!((processors.sockets, processors.cores, processors.threads), (2, 4, 8));
    assert_eq!(processors.model.as_deref(), Some("AMD EPYC 9654"));
    assert_eq!(processors.flags, ["svm", "aes", "avx2", "sev", "sev_snp"]);
    let nodes: Vec<_> =
        processors.numa_nodes.iter().map(|node| (node.number, node.threads, node.memory)).collect();
    assert_eq!(nodes, [(0, 4, 512 << 20), (1, 4, 512 << 20)]);
    assert_eq!(
        found.memory,
        Memory { total: 1 << 30, available: 512 << 20, huge_page: 2 << 20, huge_pages: 16 }
    );
    let interfaces: Vec<_> = found
        .interfaces
        .iter()
        .map(|one| (one.name.as_str(), one.up, one.speed_mbps, one.is_device))
        .collect();
    assert_eq!(
        interfaces,
        [("eth0", true, Some(25_000), true), ("eth1", false, None, true), ("bond0", true, None, false)]
    );
    let accelerators: Vec<_> = found
        .accelerators
        .iter()
        .map(|one| (one.kind, one.address.as_str(), one.id.as_str(), one.driver.as_deref(), one.numa_node))
        .collect();
    assert_eq!(
        accelerators,
        [
            (AcceleratorKind::Gpu, "0000:01:00.0", "10de:2330", Some("nvidia"), Some(1)),
            (AcceleratorKind::Processing, "0000:04:00.0", "1da3:1060", None, None),
        ]
    );
    assert_eq!(found.tpm.as_deref(), Some("2"));
    assert_eq!(found.confidential, Confidential { sev: true, ..Confidential::default() });
}

#[test]
fn a_small_arm_board_is_read_without_topology() {
    let cpuinfo =
        "processor\t: 0\nFeatures\t: fp asimd aes sha2 atomics\n\nprocessor\t: 1\n\nModel\t\t: Board 4\n";
    let found = read(&[("proc/cpuinfo", cpuinfo), ("proc/meminfo", "MemTotal: 2048 kB\n")], "arm64");
    let processors = &found.processors;
    assert_eq!(processors.architecture, "aarch64");
    assert_eq!((processors.sockets, processors.cores, processors.threads), (1, 2, 2));
    assert_eq!(processors.model.as_deref(), Some("Board 4"));
    assert_eq!(processors.flags, ["aes", "sha2", "asimd", "atomics"]);
    assert_eq!(found.memory.total, 2 << 20);
    assert!(found.interfaces.is_empty() && found.accelerators.is_empty() && found.tpm.is_none());
}

#[test]
fn whatever_stands_in_the_files_an_inventory_is_given() {
    let long = "9".repeat(1 << 16);
    let files = [
        ("proc/cpuinfo", "model name : \u{1b}[2Jevil\n::::\nflags"),
        ("proc/meminfo", "MemTotal: 99999999999999999999 kB\nMemAvailable:\nHugepagesize: -1 kB"),
        ("sys/devices/system/cpu/online", "0-4294967295,x,7-3,,"),
        ("sys/devices/system/node/nodeX/cpulist", "0"),
        ("sys/class/net/eth0/ifindex", ""),
        ("sys/class/net/eth0/operstate", long.as_str()),
        ("sys/bus/pci/devices/0000:01:00.0/class", "0xzz"),
        ("sys/class/tpm/tpm0/tpm_version_major", "\n"),
    ];
    let found = read(&files, "\u{7}");
    assert_eq!(found.memory, Memory::default());
    assert!(found.processors.threads <= 8193);
    let shown = serde_json::to_string(&found).unwrap();
    assert!(!shown.contains("\\u001b") && !shown.contains("\\u0007"), "{shown}");
    assert_eq!(serde_json::from_str::<Inventory>(&shown).unwrap(), found);
    assert_eq!(read(&[], "x86_64").processors.threads, 1);
}

#[test]
fn this_machine_has_what_everybody_can_see_of_it() {
    let home = tempfile::tempdir().unwrap();
    let found = Inventory::of_this_machine(&home.path().join("not/there/yet"));
    assert_eq!(found.processors.architecture, std::env::consts::ARCH);
    let threads = usize::try_from(found.processors.threads).unwrap();
    assert!(threads >= std::thread::available_parallelism().unwrap().get());
    assert!(found.processors.cores >= found.processors.sockets && found.processors.sockets >= 1);
    assert!(found.memory.total > 64 << 20 && found.memory.available <= found.memory.total);
    assert!(found.disk.total >= found.disk.free && found.disk.total > 0);
}
