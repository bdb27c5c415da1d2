use hypercore::confinement::{AppArmor, Confinement};
use hypercore::driver::container::Ids;
use hypercore::driver::{self, Accelerator};
use hypercore::jail::Strength;
use hypercore::network::Protocol;
use spacecore::wire::message::{MountSource, Upper};

use super::*;
use crate::volume::Content;

fn facts(kvm_missing: Option<&str>) -> Facts {
    let layer = Layer {
        path: "/images/layer".into(),
        digest: "sha256:aa".into(),
        bytes: 8192,
        verity_root: "00".repeat(32),
        data_blocks: 1,
        hash_start: 1,
    };
    let config = image::ImageConfig {
        entrypoint: vec!["/bin/sh".into()],
        cmd: vec!["-c".into(), "true".into()],
        env: vec!["PATH=/bin".into()],
        ..image::ImageConfig::default()
    };
    Facts {
        image: ImageFacts {
            reference: "example".into(),
            digest: "sha256:bb".into(),
            config,
            layers: vec![layer.clone(), layer],
            trees: vec!["/images/trees/a".into(), "/images/trees/b".into()],
            wasm: None,
            settings: None,
        },
        kernel: Some(KernelFacts {
            release: "6.1.0".into(),
            digest: "cc".repeat(32),
            path: "/kernels/vmlinuz".into(),
        }),
        machine: MachineFacts {
            kvm_missing: kvm_missing.map(str::to_owned),
            container_missing: None,
            group_missing: None,
            jail: Some(Strength::Full),
            confinement: Confinement { seccomp: true, apparmor: AppArmor::Off, selinux: false },
            scan_missing: None,
            is_root: true,
            container_ids: Ids::High { first: 0x7000_0000 },
            routed_missing: None,
            routed_hindered: None,
            cpus: 2,
            memory: 8 << 30,
            secrets: ["token".to_owned()].into(),
            volumes: std::collections::BTreeMap::new(),
        },
    }
}

fn request(manifest: &str) -> Request {
    let text = format!("[spec.deployment]\nimage = \"example\"\n{manifest}");
    let manifest = hac::parse(&text, hac::Format::Toml).expect("the manifest is valid");
    Request { manifest, ..Request::default() }
}

fn decide(manifest: &str, kvm_missing: Option<&str>) -> Result<Plan, PlanError> {
    Plan::decide(&request(manifest), &facts(kvm_missing))
}

#[test]
fn a_secret_must_be_there_and_lies_in_memory() {
    let plan = decide("secrets = [\"token\"]", None).unwrap();
    assert_eq!(plan.secrets, ["token"]);
    assert!(plan.memory_mounts.iter().any(|(place, _)| place == "/run/secrets"));
    assert!(matches!(decide("secrets = [\"other\"]", None), Err(PlanError::Secret { .. })));
    let wasm = request("secrets = [\"token\"]\n[spec.virtualization]\ntype = \"Wasm\"");
    let mut machine = facts(None).machine;
    Plan::check(&wasm, &machine).unwrap();
    machine.is_root = false;
    assert!(matches!(Plan::check(&wasm, &machine), Err(PlanError::SecretsInWasm)));
}

#[test]
fn a_workload_s_metrics_need_somebody_who_fetches_them() {
    let metrics = "[spec.observability]\nmetrics = { port = 9090 }\n[spec.virtualization]\ntype = ";
    assert!(decide(&format!("{metrics}\"MicroVM\""), Some("none")).is_ok());
    let refused = Plan::decide(&request(&format!("{metrics}\"Wasm\"")), &wasm_facts(false));
    assert!(matches!(refused, Err(PlanError::MetricsInWasm)), "{refused:?}");
}

/// Facts of an image that is nothing but a Wasm program.
fn wasm_facts(sockets: bool) -> Facts {
    let mut facts = facts(None);
    facts.image.layers.clear();
    facts.image.trees.clear();
    facts.image.config = image::ImageConfig::default();
    let (name, path) = ("hello.wasm".to_owned(), "/images/wasm/hello".into());
    facts.image.wasm = Some(WasmFacts { name, path, digest: "dd".repeat(32), bytes: 4096, sockets });
    facts
}

fn machine_of(plan: &Plan) -> &Virtual {
    plan.virtual_machine().expect("a plan for a virtual machine")
}

#[test]
fn kvm_is_taken_where_it_works_and_emulation_where_it_doesnt_with_a_notice() {
    let plan = decide("", None).unwrap();
    assert_eq!((machine_of(&plan).accelerator, machine_of(&plan).verity), (Accelerator::Kvm, true));
    let plan = decide("", Some("the processor can't")).unwrap();
    assert_eq!((machine_of(&plan).accelerator, machine_of(&plan).verity), (Accelerator::Tcg, false));
    assert!(plan.notices[0].contains("TCG") && plan.notices[0].contains("doctor"), "{:?}", plan.notices);
}

#[test]
fn a_provider_that_needs_kvm_is_refused_where_there_is_none_with_what_would_run_instead() {
    let error =
        decide("[spec.virtualization]\nprovider = \"KVM\"", Some("no /dev/kvm")).unwrap_err().to_string();
    for part in ["KVM", "no /dev/kvm", "--accel tcg"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn high_security_is_given_where_all_of_it_is_there_and_each_lack_is_told_with_its_remedy() {
    let high = "[spec.virtualization.criteria]\nsecurity = \"high\"";
    assert!(matches!(decide(high, Some("none")), Err(PlanError::HighSecurityNeedsKvm { .. })));
    assert_eq!(machine_of(&decide(high, None).unwrap()).accelerator, Accelerator::Kvm);
    let lacking = |spoil: &dyn Fn(&mut MachineFacts)| {
        let mut facts = facts(None);
        spoil(&mut facts.machine);
        Plan::check(&request(high), &facts.machine).unwrap_err().to_string()
    };
    let jail = lacking(&|machine| machine.jail = Some(Strength::UserNamespace));
    assert!(jail.contains("full jail") && jail.contains("run vimana as root"), "{jail}");
    let limits = lacking(&|machine| machine.group_missing = Some("no cgroups".to_owned()));
    assert!(limits.contains("no cgroups"), "{limits}");
    let scan = lacking(&|machine| machine.scan_missing = Some("set x in policy.toml".to_owned()));
    assert!(scan.contains("set x in policy.toml"), "{scan}");
}

#[test]
fn no_isolation_is_replaced_by_another() {
    let refused = |isolation: &str, facts: &Facts| {
        let request = request(&format!("[spec.virtualization]\ntype = \"{isolation}\""));
        Plan::decide(&request, facts).unwrap_err()
    };
    for isolation in ["Unikernel", "TEE"] {
        let error = refused(isolation, &facts(None));
        assert!(matches!(error, PlanError::IsolationNotYet { .. }), "{isolation}: {error}");
    }
    for isolation in ["MicroVM", "Container"] {
        assert!(matches!(refused(isolation, &wasm_facts(false)), PlanError::OnlyWasm { .. }), "{isolation}");
    }
    assert!(matches!(refused("Wasm", &facts(None)), PlanError::NoWasm { .. }));
    let mut without = facts(None);
    without.machine.container_missing = Some("cgroup v1 without root".into());
    let error = refused("Container", &without).to_string();
    assert!(error.contains("cgroup v1 without root") && error.contains("--isolation MicroVM"), "{error}");
}

#[test]
fn one_key_changes_the_isolation_and_the_workload_stays_what_it_was() {
    let limits = "[spec.resources]\ncpu = \"500m\"\nmemory = \"96Mi\"\npids = 10";
    let plan = |isolation: &str| {
        decide(&format!("{limits}\n[spec.virtualization]\ntype = \"{isolation}\""), Some("none")).unwrap()
    };
    let (machine, container) = (plan("MicroVM"), plan("Container"));
    assert_eq!(machine.process, container.process);
    assert_eq!((machine.driver, container.driver), ("qemu", "container"));
    let home = Home::at(Path::new("/home"));
    let assignment = container.assignment("id", &home, None, Lifetime::Bound);
    assert_eq!((assignment.machine.cpu_milli, assignment.machine.memory_mib), (500, 96));
    assert_eq!((&assignment.configuration.root, assignment.configuration.mounts.len()), (&None, 0));
    let driver::Body::Container(body) = assignment.machine.body else { panic!("{:?}", container.body) };
    assert_eq!(
        (body.pids, body.layers.len(), body.folder.as_path()),
        (10, 2, Path::new("/home/run/id/container"))
    );
}

#[test]
fn a_wasm_program_is_called_by_its_file_and_gets_a_network_only_if_it_imports_sockets() {
    let wasm = |manifest: &str, sockets| {
        let request = request(&format!("[spec.virtualization]\ntype = \"Wasm\"\n{manifest}"));
        Plan::decide(&request, &wasm_facts(sockets))
    };
    let plan = wasm("", false).unwrap();
    assert_eq!((plan.process.args.as_slice(), plan.network), (["hello.wasm".to_owned()].as_slice(), false));
    assert!(wasm("", true).unwrap().network);
    let ports = "[spec.networking.inbound_ports]\nhttp = 80";
    assert!(wasm(ports, true).is_ok());
    assert_eq!(wasm(ports, false).unwrap_err(), PlanError::PortsWithoutSockets);
    let storage = wasm("[spec.resources]\nstorage = \"1Gi\"", false);
    assert!(matches!(storage, Err(PlanError::NoRoot { key: "spec.resources.storage" })));
    assert!(plan.to_string().contains("one for all Wasm spacecores of this user"), "{plan}");
}

#[test]
fn a_volume_is_a_disk_of_the_machine_and_makes_its_end_orderly() {
    let mounts = "[[spec.mounts]]\nsource = \"chain\"\ndestination = \"/data\"\nsize = \"64Mi\"";
    let plan = decide(mounts, None).unwrap();
    let home = Home::at(Path::new("/home"));
    let assignment = plan.assignment("id", &home, Some(Path::new("/initramfs")), Lifetime::Bound);
    assert!(assignment.orderly_end && machine_of(&plan).modules.contains(&"ext4"));
    let folder = Path::new("/home/volumes/example/chain");
    assert_eq!(assignment.volumes[0].folder, folder);
    let driver::Body::Virtual(hardware) = &assignment.machine.body else { panic!("{:?}", plan.body) };
    let disk = hardware.disks.last().unwrap();
    assert_eq!((disk.path.as_path(), disk.readonly), (folder.join("disk.img").as_path(), false));
    let told = &assignment.configuration.mounts[0].source;
    assert_eq!(told, &MountSource::Disk { serial: disk.serial.clone(), crypt: None });
    let small = decide(&mounts.replace("64Mi", "1Mi"), None).unwrap_err();
    assert!(matches!(small, PlanError::VolumeSize { .. }), "{small}");
}

#[test]
fn a_volume_that_isnt_what_is_asked_for_is_refused_before_an_image_is_needed() {
    let disk = |guest_written| Content::Disk { bytes: 64 << 20, guest_written, encrypted: false };
    let checked = |isolation: &str, size: &str, content| {
        let mounts = format!("[[spec.mounts]]\nsource = \"chain\"\ndestination = \"/data\"\n{size}");
        let request = request(&format!("{mounts}\n[spec.virtualization]\ntype = \"{isolation}\""));
        let mut machine = facts(None).machine;
        machine.volumes.insert("chain".to_owned(), content);
        Plan::check(&request, &machine)
    };
    let refused = |isolation, size, content| checked(isolation, size, content).unwrap_err().to_string();
    assert!(refused("Container", "", disk(true)).contains("written by a microVM"));
    assert!(refused("Wasm", "", disk(false)).contains("kept as a disk"));
    assert!(refused("MicroVM", "", Content::Folder).contains("kept as plain files"));
    assert!(refused("MicroVM", "size = \"1Gi\"", disk(true)).contains("size = \"64Mi\""));
    assert_eq!(checked("MicroVM", "size = \"64Mi\"", disk(true)), Ok(()));
    assert_eq!(checked("Container", "", disk(false)), Ok(()));
    assert_eq!(checked("Wasm", "size = \"1Gi\"", Content::Folder), Ok(()));
}

#[test]
fn a_plan_shows_how_large_a_volume_is_or_will_be() {
    let shown = |isolation: &str, size: &str, there: Option<Content>| {
        let mounts = format!("[[spec.mounts]]\nsource = \"chain\"\ndestination = \"/data\"\n{size}");
        let request = request(&format!("{mounts}\n[spec.virtualization]\ntype = \"{isolation}\""));
        let mut facts = if isolation == "Wasm" { wasm_facts(false) } else { facts(None) };
        facts.machine.volumes.extend(there.map(|content| ("chain".to_owned(), content)));
        let plan = Plan::decide(&request, &facts).unwrap();
        (plan.volumes[0].bytes, plan.to_string(), plan.notices)
    };
    let (bytes, text, _) = shown("MicroVM", "", None);
    assert_eq!(bytes, Some(crate::volume::DEFAULT_BYTES));
    assert!(text.contains("chain -> /data (read-write), a disk of 10Gi"), "{text}");
    let (_, text, _) = shown("Container", "size = \"1Gi\"", None);
    assert!(text.contains("a disk of 1Gi"), "{text}");
    let (_, text, _) =
        shown("MicroVM", "", Some(Content::Disk { bytes: 64 << 20, guest_written: true, encrypted: false }));
    assert!(text.contains("a disk of 64Mi"), "{text}");
    let (bytes, text, notices) = shown("Wasm", "size = \"1Gi\"", None);
    assert!(bytes.is_none() && text.contains("plain files without a limit"), "{text}");
    assert!(notices.iter().any(|notice| notice.contains("asked for chain")), "{notices:?}");
}

#[test]
fn a_wasm_program_is_given_folders_and_volumes_alone() {
    let wasm = |manifest: &str| request(&format!("[spec.virtualization]\ntype = \"Wasm\"\n{manifest}"));
    let machine = wasm_facts(false).machine;
    let mut file = wasm("");
    let (source, destination) = ("/srv/one".into(), "/one".to_owned());
    file.shares = vec![Share { source, destination, readonly: true, file: true }];
    let memory = wasm("[[spec.mounts]]\ndestination = \"/scratch\"");
    for (request, part) in [(file, "the file /srv/one"), (memory, "in memory")] {
        let error = Plan::check(&request, &machine).unwrap_err();
        assert!(matches!(error, PlanError::NoFolder { .. }) && error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_volume_is_encrypted_by_a_guest_s_own_kernel_or_not_at_all() {
    let mount = "[[spec.mounts]]\nsource = \"data\"\ndestination = \"/data\"\nencrypted = true\n";
    let plan = decide(mount, None).unwrap();
    assert!(plan.volumes[0].encrypted && machine_of(&plan).modules.contains(&"dm-crypt"));
    for isolation in ["Container", "Wasm"] {
        let error =
            decide(&format!("{mount}[spec.virtualization]\ntype = \"{isolation}\""), None).unwrap_err();
        assert!(matches!(error, PlanError::EncryptedHere { .. }), "{error}");
        assert!(error.to_string().contains("run it as MicroVM"), "{error}");
    }
}

#[test]
fn the_modules_are_those_that_this_spacecore_needs() {
    let plan = decide("[spec.networking]\nnetwork_type = \"none\"", Some("none")).unwrap();
    assert_eq!(
        machine_of(&plan).modules,
        ["virtio_pci", "virtio_console", "squashfs", "overlay", "virtio_blk"]
    );
    let plan = decide("[spec.resources]\nstorage = \"1Gi\"", None).unwrap();
    for module in ["dm-verity", "ext4", "virtio_net"] {
        assert!(machine_of(&plan).modules.contains(&module), "{module}");
    }
}

#[test]
fn a_command_replaces_the_image_s_whole_and_arguments_only_its_arguments() {
    let args = |manifest: &str| {
        let text = format!("[spec.deployment]\nimage = \"example\"\n{manifest}");
        let manifest = hac::parse(&text, hac::Format::Toml).unwrap();
        Plan::decide(&Request { manifest, ..Request::default() }, &facts(None)).map(|plan| plan.process.args)
    };
    assert_eq!(args("").unwrap(), ["/bin/sh", "-c", "true"]);
    assert_eq!(args("args = [\"x\"]").unwrap(), ["/bin/sh", "x"]);
    assert_eq!(args("command = [\"/app\"]").unwrap(), ["/app"]);
    assert_eq!(args("command = [\"/app\"]\nargs = [\"y\"]").unwrap(), ["/app", "y"]);
}

#[test]
fn a_port_of_the_manifest_can_be_published_elsewhere() {
    let mut request = request("[spec.networking.inbound_ports]\nhttp = 80\nmetrics = 9100");
    let address = std::net::Ipv4Addr::LOCALHOST.into();
    request.publish = vec![Publish { address, host: 8080, guest: 80, protocol: Protocol::Tcp }];
    let plan = Plan::decide(&request, &facts(None)).unwrap();
    let pairs: Vec<_> = plan.publish.iter().map(|p| (p.host, p.guest)).collect();
    assert_eq!(pairs, [(9100, 9100), (8080, 80)]);
    request.publish.push(Publish { address, host: 9100, guest: 81, protocol: Protocol::Tcp });
    assert_eq!(Plan::decide(&request, &facts(None)).unwrap_err(), PlanError::PortTwice { port: 9100 });
}

#[test]
fn the_guest_is_told_of_disks_by_the_serials_that_the_machine_gives_them() {
    let plan = decide("[spec.resources]\nstorage = \"64Mi\"", None).unwrap();
    let assignment =
        plan.assignment("id", &Home::at(Path::new("/home")), Some(Path::new("/initramfs")), Lifetime::Bound);
    let driver::Body::Virtual(hardware) = &assignment.machine.body else {
        panic!("{:?}", assignment.machine)
    };
    let serials: Vec<_> = hardware.disks.iter().map(|disk| disk.serial.as_str()).collect();
    let root = assignment.configuration.root.unwrap();
    let told: Vec<_> = root.layers.iter().map(|layer| layer.serial.as_str()).collect();
    assert_eq!(serials[..2], told[..]);
    assert_eq!(root.upper, Upper::Disk { serial: serials[2].to_owned() });
    assert_eq!(assignment.scratch[0].path, hardware.disks[2].path);
    assert!(hardware.disks[..2].iter().all(|disk| disk.readonly));
}

#[test]
fn a_printed_plan_never_shows_the_value_of_a_variable() {
    let plan = decide("[spec.deployment.env]\nTOKEN = \"hunter2\"", None).unwrap();
    let (text, json) = (plan.to_string(), serde_json::to_string(&plan).unwrap());
    assert!(text.contains("TOKEN") && json.contains("TOKEN"));
    assert!(!text.contains("hunter2") && !json.contains("hunter2"));
}

#[test]
fn two_mounts_never_share_a_place() {
    let mut request = request("");
    let share = |destination: &str| Share {
        source: "/srv".into(),
        destination: destination.into(),
        readonly: true,
        file: false,
    };
    request.shares = vec![share("/data"), share("/data/")];
    assert!(matches!(Plan::decide(&request, &facts(None)), Err(PlanError::DestinationTwice { .. })));
    for bad in ["data", "/", "/a/../b", ""] {
        request.shares = vec![share(bad)];
        assert!(
            matches!(Plan::decide(&request, &facts(None)), Err(PlanError::Destination { .. })),
            "{bad:?}"
        );
    }
}

#[test]
fn nothing_that_a_manifest_asks_for_is_dropped_silently() {
    let cases = [
        ("[[spec.checks]]\ntype = \"tcp\"\nport = 80", "checks"),
        ("[spec.security]\nattestation = \"BLS\"", "security.attestation"),
        ("[spec.placement]\ndvci = \"berlin\"", "placement"),
        ("[spec.pricing]\nmax_per_hour = \"1\"", "pricing"),
        ("[spec.observability]\nsidecar = true", "sidecars"),
        ("[spec.resources]\nclass = \"guaranteed\"", "class"),
        ("[spec.failover]\nstrategy = \"auto-recovery\"", "failover"),
    ];
    for (manifest, word) in cases {
        let notices = decide(manifest, None).unwrap().notices;
        assert!(notices.iter().any(|notice| notice.contains(word)), "{word}: {notices:?}");
    }
    assert!(decide("", None).unwrap().notices.is_empty());
}

#[test]
fn a_machine_that_cant_run_it_is_told_before_an_image_is_needed() {
    let request = request("[spec.virtualization]\nprovider = \"KVM\"");
    let machine = facts(Some("no /dev/kvm")).machine;
    assert!(matches!(Plan::check(&request, &machine), Err(PlanError::NoKvm { .. })));
}

#[test]
fn an_image_s_words_never_move_the_cursor_of_who_reads_a_plan() {
    let mut facts = facts(None);
    facts.image.config.user = "\u{1b}[2Jroot\nisolation    none".to_owned();
    facts.image.config.env = vec!["\u{202e}A=1".to_owned()];
    let text = Plan::decide(&request(""), &facts).unwrap().to_string();
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    assert!(!text.contains('\u{202e}') && !text.lines().any(|line| line == "isolation    none"), "{text}");
}

#[test]
fn what_doesnt_fit_into_one_message_is_refused_with_its_size() {
    let mut request = request("");
    request.manifest.spec.deployment.env.insert("LONG".to_owned(), "x".repeat(2_000_000));
    assert!(matches!(Plan::decide(&request, &facts(None)), Err(PlanError::TooLong { .. })));
}

#[test]
fn a_user_s_container_with_one_id_runs_as_root_alone_and_says_what_would_give_more() {
    let decide = |user: &str, image_user: &str, ids: Ids| {
        let mut facts = facts(None);
        facts.machine.container_ids = ids;
        facts.image.config.user = image_user.to_owned();
        let user = if user.is_empty() { String::new() } else { format!("user = {user:?}\n") };
        Plan::decide(&request(&format!("{user}[spec.virtualization]\ntype = \"Container\"")), &facts)
    };
    for (user, image_user) in [("", ""), ("0:0", "web"), ("", "root"), ("root:root", "")] {
        decide(user, image_user, Ids::One).unwrap();
    }
    for (user, image_user) in [("", "web"), ("1000", ""), ("0:5", ""), ("web", "0")] {
        let error = decide(user, image_user, Ids::One).unwrap_err();
        assert!(matches!(error, PlanError::OneId { .. }), "{error}");
        assert!(error.to_string().contains("apt-get install uidmap"), "{error}");
        decide(user, image_user, Ids::Range { users: 100_000, groups: 100_000 }).unwrap();
        decide(user, image_user, Ids::High { first: 0x7000_0000 }).unwrap();
    }
}

#[test]
fn a_user_s_container_keeps_a_volume_as_files_and_says_that_nothing_holds_its_size() {
    let manifest = "[[spec.mounts]]\nsource = \"data\"\ndestination = \"/data\"\nsize = \"64Mi\"\n\
                    [spec.virtualization]\ntype = \"Container\"";
    let mut facts = facts(None);
    facts.machine.container_ids = Ids::Range { users: 100_000, groups: 100_000 };
    let plan = Plan::decide(&request(manifest), &facts).unwrap();
    assert!(plan.notices.iter().any(|notice| notice.contains("volume data")), "{:?}", plan.notices);
    let assignment = plan.assignment("id", &Home::at(Path::new("/home")), None, Lifetime::Bound);
    assert_eq!(assignment.volumes[0].form, crate::volume::Form::OwnedFolder);
    let driver::Body::Container(body) = assignment.machine.body else { panic!("{:?}", plan.body) };
    let source = driver::MountSource::Folder(assignment.volumes[0].folder.join("files"));
    assert_eq!(body.mounts[0].source, source);
}

#[test]
fn a_plan_says_whom_the_workload_reaches_and_who_reaches_it() {
    let plan = decide("", None).unwrap();
    assert!(plan.to_string().contains("reaches      public\n"), "{plan}");
    let policy = plan.reach.policy();
    assert_eq!(policy, hypercore::network::Policy::default());
    let manifest = "[spec.networking]\nallow_to = [\"api.example.org:443/tcp\", \"10.0.0.0/8\"]\nallow_from = [\"192.0.2.0/24\"]\n\
                    egress = \"10Mbps\"\ninbound_ports = { http = 80 }";
    let plan = decide(manifest, None).unwrap();
    let shown = plan.to_string();
    for line in [
        "reaches      api.example.org:443/tcp, 10.0.0.0/8\n",
        "rates        out 10Mbps, in without limit\n",
        "reached by   192.0.2.0/24\n",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    let policy = plan.reach.policy();
    assert_eq!((policy.to.len(), policy.from.map(|from| from.len())), (2, Some(1)));
    assert_eq!((policy.out_bits, policy.in_bits), (Some(10_000_000), None));
    let nobody = decide("[spec.networking]\nallow_to = []\nallow_from = []", None).unwrap();
    assert!(nobody.to_string().contains("reaches      nobody, but for answers\n"), "{nobody}");
    assert_eq!(nobody.reach.policy().from, Some(Vec::new()));
}

#[test]
fn what_an_image_demands_tightens_the_plan_and_is_shown() {
    let demanding = |settings: &str| {
        let mut facts = facts(None);
        facts.image.settings = Some(hac::settings::parse(settings).unwrap());
        facts
    };
    let facts = demanding(
        "[spec.deployment]\nuser = \"1000\"\nreadonly_root = true\n[spec.networking]\nallow_to = [\"192.0.2.7:443\"]\n",
    );
    let plan = Plan::decide(&request(""), &facts).unwrap();
    assert!(machine_of(&plan).readonly_root);
    assert_eq!(plan.process.user, "1000");
    assert_eq!(plan.reach.to, ["192.0.2.7:443".parse().unwrap()]);
    let shown = plan.to_string();
    assert!(
        shown.contains("by image     spec.networking.allow_to = [192.0.2.7:443] (was [public])"),
        "{shown}"
    );
    let said = Plan::decide(&request("user = \"root\"\n"), &facts).unwrap_err().to_string();
    assert!(said.contains("\"1000\"") && said.contains("\"root\""), "{said}");
    // What it leaves can't be had: the error says whose demand that was.
    let facts = demanding("[spec.networking]\nnetwork_type = \"none\"\n");
    let error = Plan::decide(&request("[spec.networking.inbound_ports]\nhttp = 80\n"), &facts).unwrap_err();
    let PlanError::Tightened { changes, source } = error else { panic!("{error}") };
    assert_eq!(changes, "spec.networking.network_type = \"none\" (was \"public\")");
    assert_eq!(*source, PlanError::PortsWithoutNetwork);
}

#[test]
fn a_virtual_machine_is_held_to_its_processor_time_where_that_can_be_and_says_so_where_it_cant() {
    let half = request("[spec.resources]\ncpu = \"500m\"");
    let held = Plan::decide(&half, &facts(Some("none"))).unwrap();
    let shown = held.to_string();
    assert!(shown.contains("1 vCPU, 512 MiB") && shown.contains("500m CPU and 742 MiB at most"), "{shown}");
    let mut without = facts(Some("none"));
    without.machine.group_missing = Some("no cgroups".to_owned());
    let plan = Plan::decide(&half, &without).unwrap();
    let notice = plan.notices.join("\n");
    assert!(notice.contains("no cgroups") && notice.contains("whole CPUs, therefore: 1"), "{notice}");
    assert!(!plan.to_string().contains("at most, with its monitor"));
}

#[test]
fn disk_rates_are_given_where_they_hold_and_refused_elsewhere() {
    let asked = "[spec.resources]\niops = 300\ndisk_bandwidth = \"20MiB/s\"\n";
    let plan = decide(asked, Some("none")).unwrap();
    let rates = machine_of(&plan).rates;
    assert_eq!((rates.operations, rates.bytes), (Some(300), Some(20 << 20)));
    assert!(plan.to_string().contains("300 reads and writes a second at most"), "{plan}");
    for isolation in ["Container", "Wasm"] {
        let manifest = format!("{asked}[spec.virtualization]\ntype = \"{isolation}\"\n");
        let error = decide(&manifest, None).unwrap_err().to_string();
        assert!(error.contains(isolation) && error.contains("--isolation MicroVM"), "{error}");
    }
    for low in ["iops = 9", "disk_bandwidth = \"1KB/s\""] {
        let error = decide(&format!("[spec.resources]\n{low}\n"), None).unwrap_err();
        assert!(matches!(error, PlanError::DiskRate { .. }), "{error}");
    }
}

#[test]
fn what_the_manifest_names_confines_it_where_the_machine_has_it_and_nothing_runs_without_seccomp() {
    let on = |apparmor, selinux| {
        let mut facts = facts(None);
        facts.machine.confinement = Confinement { seccomp: true, apparmor, selinux };
        facts
    };
    let plan = |manifest: &str, facts: &Facts| Plan::decide(&request(manifest), facts).unwrap();
    let (off, alone) = (facts(None), "[spec.security]\nisolation = \"enforced via seccomp\"\n");
    assert_eq!(plan("", &off).confined, "seccomp; AppArmor isn't on; SELinux isn't on");
    assert_eq!(plan(alone, &off).confined, "seccomp");
    let with = plan("", &on(AppArmor::Profile, true));
    assert!(machine_of(&with).profile);
    assert!(with.to_string().contains("seccomp, AppArmor by the profile vimana-monitor; SELinux"), "{with}");
    let without = plan(alone, &on(AppArmor::Profile, true));
    assert!(!machine_of(&without).profile && without.confined == "seccomp", "{without}");
    let unloaded = plan("", &on(AppArmor::NoProfile, false));
    assert!(unloaded.confined.contains("adds nothing") && !machine_of(&unloaded).profile, "{unloaded}");
    let mut none = facts(None);
    none.machine.confinement.seccomp = false;
    assert_eq!(Plan::decide(&request(""), &none).unwrap_err(), PlanError::NoSeccomp);
}

#[test]
fn the_kernel_carries_a_network_where_it_can_and_a_private_one_needs_it() {
    use hypercore::network::Carrier;
    let decide = |manifest: &str, asked: Option<Carrier>, missing: Option<&str>| {
        let mut facts = facts(None);
        facts.machine.routed_missing = missing.map(str::to_owned);
        Plan::decide(&Request { carrier: asked, ..request(manifest) }, &facts)
    };
    let missing = Some("only root can have it");
    assert_eq!(decide("", None, None).unwrap().carrier, Carrier::Routed);
    assert_eq!(decide("", None, missing).unwrap().carrier, Carrier::Passt);
    assert_eq!(decide("", Some(Carrier::Passt), None).unwrap().carrier, Carrier::Passt);
    // A firewall is the operator's to judge of.
    let mut behind = facts(None);
    behind.machine.routed_hindered = Some("the firewall's table filter forwards nothing".to_owned());
    let hindered = |asked| Plan::decide(&Request { carrier: asked, ..request("") }, &behind).unwrap();
    assert_eq!(hindered(None).carrier, Carrier::Passt);
    assert!(hindered(None).to_string().contains("the firewall's table filter"), "{}", hindered(None));
    assert_eq!(hindered(Some(Carrier::Routed)).carrier, Carrier::Routed);
    let refused = decide("", Some(Carrier::Routed), missing).unwrap_err();
    assert!(refused.to_string().contains("only root"), "{refused}");

    let private = "[spec.networking]\nnetwork_type = \"private\"\nprivate_network = \"shop\"\n\
                   [spec.networking.inbound_ports]\nhttp = 80";
    let plan = decide(private, None, None).unwrap();
    assert!(plan.network && plan.publish.is_empty() && plan.reach.to.is_empty(), "{plan}");
    assert_eq!(plan.private_network.as_deref(), Some("shop"));
    assert!(matches!(decide(private, None, missing), Err(PlanError::PrivateNotRouted { .. })));
    assert!(matches!(decide(private, Some(Carrier::Passt), None), Err(PlanError::PrivateNotRouted { .. })));
}
