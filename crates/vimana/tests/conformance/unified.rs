//! A machine of this suite's own, whose control groups are of version 2 alone, and the suite inside of it.
//!
//! QEMU boots Debian's cloud kernel with a disk that holds this very test program, the binary under test and
//! what they need, at the paths that they have here. The machine's `init` runs the containers' part of the suite three times:
//! as root, as a user with ranges of ids, and as a user without; each in a control group of its own, delegated to users as
//! systemd would. What is the same whoever makes the container is left out, as everything is emulated.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::group::ARGUMENT as GROUP;
use crate::isolation::Isolation;
use crate::rig::{self, VIMANA};
use crate::{vimana, workload};

/// How long the machine may take, most of which it needs on a busy machine alone.
const PATIENCE: Duration = Duration::from_secs(220);

/// What differs neither by the version of control groups nor by who makes the container.
const ELSEWHERE: &[&str] = &[
    "a_name_server",
    "a_program_that",
    "a_read_only_folder",
    "a_second_run",
    "a_second_signal",
    "a_signal_",
    "a_stop_",
    "a_working_folder",
    "are_among_the_events",
    "are_json_lines",
    "arguments_arrive",
    "ctrl_c_ends",
    "every_byte",
    "has_its_spacecore_s_name",
    "in_etc_hosts",
    "megabytes",
    "no_descriptors",
    "no_signal_is",
    "on_loopback_alone",
    "output_and_errors",
    "output_needs",
    "process_beside_that",
    "recursion",
    "standard_input",
    "the_clock_is",
    "the_terminal",
    "there_is_no_terminal",
    "two_at_once",
    "variables_come",
    "what_tells",
];

/// What doesn't differ for root, for whom the version of control groups alone does.
const NOT_ROOT_S: &[&str] = &[
    "a_folder_",
    "a_memory_folder",
    "a_read_only",
    "a_single_file",
    "a_user_",
    "a_volume_has",
    "an_exit_code",
    "half_a_cpu",
    "no_way_leads",
    "other_processes",
    "what_a_workload_leaves",
    "without_a_network",
];

/// What is tried of a user's containers where the user has no ranges of ids.
const ONE_ID: &[&str] =
    &["a_published_port_answers", "a_read_only_root", "a_volume_survives", "it_can_be_measured"];

/// The modules that the machine's own kernel needs, those that containers do, and an interface that leads nowhere.
const MODULES: [&str; 7] = ["virtio_pci", "virtio_blk", "ext4", "overlay", "loop", "tun", "dummy"];

/// Programs that the machine has beside the suite. Those that set ranges of ids are `uidmap`'s.
const PROGRAMS: [&str; 3] = ["busybox", "setpriv", "passt"];
const RANGES: [&str; 2] = ["newuidmap", "newgidmap"];

/// The trial's name.
pub const NAME: &str = "containers_of_root_and_of_users_hold_where_control_groups_are_version_2";

/// The trial.
pub fn containers_of_root_and_of_users_hold_where_control_groups_are_version_2() {
    let test = NAME;
    let folder = tempfile::Builder::new().prefix("unified-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (kernel, programs) = match parts() {
        Ok(parts) => parts,
        Err(reason) => return eprintln!("SKIPPED: {test}: {reason}"),
    };
    let initramfs = initramfs(folder.path(), &kernel);
    let (disk, passes) = disk(folder.path(), &programs);
    if !passes.contains(&"range") {
        eprintln!(
            "SKIPPED: {test} (a user with ranges of ids): newuidmap isn't installed (apt-get install uidmap)"
        );
    }
    let said = boot(&kernel, &initramfs, &disk);
    for pass in passes {
        assert!(said.contains(&format!("PASS {pass} 0")), "as {pass}:\n{said}");
    }
    let is_mapped = said.contains("PASS range");
    assert!(said.contains("GROUP root 0") && (!is_mapped || said.contains("GROUP range 0")), "{said}");
    assert!(!is_mapped || said.contains("OWNERS 1") && said.contains("TREES 0"), "{said}");
    assert!(said.lines().any(|line| line.ends_with("alone")), "{said}");
    assert!(said.contains("LEFT 0 groups"), "{said}");
    assert!(
        said.contains("start it in one of its own: systemd-run"),
        "what isn't delegated is said:\n{said}"
    );
}

/// Debian's cloud kernel with all of its modules, of which guests of microVMs keep few; downloaded once, installed nowhere.
fn kernel() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel");
    if folder.join("boot").exists() {
        return Ok(folder);
    }
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|error| error.to_string())?;
    let said = |command: &mut Command| match command.current_dir(work.path()).output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{command:?}: {error}")),
    };
    let pattern = "^linux-image-6.1.0-[0-9]+-cloud-amd64$";
    let found = said(Command::new("apt-cache").args(["search", "--names-only", pattern]))?;
    let numbers =
        |name: &&str| name.split(['-', '.']).filter_map(|part| part.parse().ok()).collect::<Vec<u32>>();
    let names = found.lines().filter_map(|line| line.split_whitespace().next());
    let newest = names.max_by_key(numbers).ok_or("apt knows no linux-image-6.1.0-*-cloud-amd64")?;
    said(Command::new("apt-get").args(["download", newest]))?;
    said(Command::new("sh").args(["-c", "dpkg -x *.deb unpacked"]))?;
    // Another test may have been faster; its kernel is the same.
    let _ = fs::rename(work.path().join("unpacked"), &folder);
    Ok(folder)
}

/// The files below a folder whose names begin or end so.
fn files(folder: &Path, is_wanted: &dyn Fn(&str) -> bool, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            files(&path, is_wanted, found);
        } else if path.file_name().is_some_and(|name| is_wanted(&name.to_string_lossy())) {
            found.push(path);
        }
    }
}

/// Adds a module's file behind those of all that it needs. What has no file is built in.
fn add_module(name: &str, all: &[PathBuf], order: &mut Vec<PathBuf>) {
    let wanted = |path: &&PathBuf| {
        path.file_stem().is_some_and(|stem| stem.to_string_lossy().replace('-', "_") == name)
    };
    let Some(path) = all.iter().find(wanted).filter(|path| !order.contains(path)) else { return };
    let bytes = fs::read(path).unwrap();
    let at = bytes.windows(9).position(|window| window == b"\0depends=").unwrap() + 9;
    let needs = String::from_utf8_lossy(bytes[at..].split(|byte| *byte == 0).next().unwrap()).into_owned();
    for need in needs.split(',').filter(|need| !need.is_empty()) {
        add_module(&need.replace('-', "_"), all, order);
    }
    order.push(path.clone());
}

/// The kernel's folder, and where the programs are; or what lacks.
fn parts() -> Result<(PathBuf, Vec<PathBuf>), String> {
    for (program, package) in
        [("qemu-system-x86_64", "qemu-system-x86"), ("mke2fs", "e2fsprogs"), ("cpio", "cpio")]
    {
        find(program).ok_or_else(|| format!("{program} isn't installed (apt-get install {package})"))?;
    }
    let found = PROGRAMS.map(|name| find(name).ok_or_else(|| format!("{name} isn't installed")));
    let mut programs = found.into_iter().collect::<Result<Vec<_>, _>>()?;
    programs.extend(RANGES.iter().filter_map(|name| find(name)));
    let shared = rig::shared()?;
    let _lock = vimana::lock(&shared.join("lock"))?;
    workload::image(&shared, Isolation::Container)?;
    Ok((kernel()?, programs))
}

fn find(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].into_iter();
    folders.map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Loads the modules and goes over to the disk.
fn initramfs(folder: &Path, kernel: &Path) -> PathBuf {
    let tree = folder.join("initramfs");
    for name in ["bin", "dev", "proc", "root"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    fs::copy(find("busybox").unwrap(), tree.join("bin/busybox")).unwrap();
    let mut script = "#!/bin/busybox sh\n/bin/busybox mount -t devtmpfs dev /dev\n".to_owned();
    let (mut all, mut modules) = (Vec::new(), Vec::new());
    files(&kernel.join("lib/modules"), &|name| name.ends_with(".ko"), &mut all);
    MODULES.iter().for_each(|name| add_module(name, &all, &mut modules));
    for module in modules {
        let name = module.file_name().unwrap().to_string_lossy().into_owned();
        fs::copy(&module, tree.join(&name)).unwrap();
        script.push_str(&format!("/bin/busybox insmod /{name}\n"));
    }
    script.push_str("/bin/busybox mount -t ext4 /dev/vda /root\nexec /bin/busybox switch_root /root /init\n");
    executable(&tree.join("init"), &script);
    let archive = folder.join("initramfs.cpio");
    let pack = format!("find . | cpio -o -H newc --quiet > {}", archive.display());
    run(Command::new("sh").args(["-c", &pack]).current_dir(&tree));
    archive
}

/// The disk, and the passes that what is on it allows.
fn disk(folder: &Path, programs: &[PathBuf]) -> (PathBuf, Vec<&'static str>) {
    let tree = folder.join("tree");
    for name in ["dev", "proc", "sys", "run", "tmp", "root", "bin", "etc", "home/user", "mnt"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    let own = std::env::current_exe().unwrap();
    for program in [&own, Path::new(VIMANA)] {
        copy(&tree, program);
        // Debug information is most of them; it may stay where nothing can take it out.
        let _ = Command::new("strip").arg(inside(&tree, program)).output();
    }
    for program in programs {
        copy(&tree, program);
    }
    let busybox = find("busybox").unwrap();
    for applet in run(Command::new(&busybox).arg("--list")).lines() {
        let _ = symlink(&busybox, tree.join("bin").join(applet));
    }
    let shared = rig::shared().unwrap();
    let within = inside(&tree, &shared);
    for name in ["kernels", "cache", "images"] {
        fs::create_dir_all(within.join("home").join(name)).unwrap();
    }
    for entry in fs::read_dir(&shared).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("native-") {
            run(Command::new("cp").arg("-r").arg(entry.path()).arg(&within));
        }
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n\
                  nobody:x:65534:65534:nobody:/:/bin/false\n";
    let files = [
        ("passwd", passwd),
        ("group", "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n"),
        ("subuid", "user:100000:65536\n"),
        ("subgid", "user:100000:65536\n"),
        ("hosts", "127.0.0.1 localhost\n"),
        ("resolv.conf", "nameserver 192.0.2.53\n"),
    ];
    for (name, text) in files {
        fs::write(tree.join("etc").join(name), text).unwrap();
    }
    let ranges = RANGES.iter().all(|name| programs.iter().any(|path| path.ends_with(name)));
    let passes = if ranges { vec!["root", "range", "one"] } else { vec!["root", "one"] };
    executable(&tree.join("init"), &init(&own, &passes));
    let image = folder.join("disk.img");
    File::create(&image).unwrap().set_len(1 << 30).unwrap();
    let tool = find("mke2fs").unwrap();
    let format = ["-q", "-t", "ext4", "-O", "^has_journal", "-E", "root_owner=0:0", "-d"];
    run(Command::new(tool).args(format).args([&tree, &image]));
    (image, passes)
}

fn inside(tree: &Path, path: &Path) -> PathBuf {
    tree.join(path.strip_prefix("/").unwrap())
}

/// Copies a program and the libraries that it is linked to.
fn copy(tree: &Path, program: &Path) {
    let listed = Command::new("ldd").arg(program).output().map(|output| output.stdout).unwrap_or_default();
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    for file in libraries.chain([program]) {
        let to = inside(tree, file);
        if !to.exists() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(file, to).unwrap();
        }
    }
}

/// What the machine does. `PASS` and `LEFT` lines say how it went.
fn init(suite: &Path, passes: &[&str]) -> String {
    let (shared, suite) = (rig::shared().unwrap().display().to_string(), suite.display().to_string());
    let without = |names: &[&str]| names.iter().map(|name| format!(" --skip {name}")).collect::<String>();
    let all = format!("{suite} --test-threads 2{} container::", without(ELSEWHERE));
    let root_s = format!("{all}{}", without(NOT_ROOT_S));
    let few: String = ONE_ID.iter().map(|name| format!("{suite} container::{name} || exit 1\n")).collect();
    let mut script = format!(
        "#!/bin/sh
export PATH=/usr/bin:/bin:/usr/sbin:/sbin TMPDIR=/home/user HOME=/home/user
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm; mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm; mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
chmod 666 /dev/net/tun; chmod 1777 /tmp
ip link set lo up
ip addr add 192.0.2.2/24 dev dummy0; ip link set dummy0 up; ip route add default via 192.0.2.1
chown 0:0 /usr/bin/new?idmap; chmod 4755 /usr/bin/new?idmap
groups=/sys/fs/cgroup
echo '+cpu +memory +pids' > $groups/cgroup.subtree_control
delegate() {{
  mkdir $groups/$1
  for file in . cgroup.procs cgroup.subtree_control; do chown 1000:1000 $groups/$1/$file; done
}}
delegate user; delegate user/suite
cat > /run/all <<'END'
{all}
END
cat > /run/few <<'END'
{few}END
# As a login would: in the user's group, and then the user.
as_user() {{
  sh -c 'echo 0 > '$1'/cgroup.procs; shift; exec /usr/bin/setpriv --reuid 1000 --regid 1000 --clear-groups sh \"$@\"' sh \"$@\"
}}
"
    );
    let home = format!("VIMANA_HOME={shared}/home");
    for pass in passes {
        let part = match *pass {
            "root" => format!("{root_s}; echo PASS root $?\n{suite} {GROUP}; echo GROUP root $?\n"),
            // The image goes again, with files of owners that the user isn't.
            "range" => format!(
                "as_user $groups/user/suite /run/all; echo PASS range $?\n\
                 as_user $groups/user/suite -c '{suite} {GROUP}'; echo GROUP range $?\n\
                 echo OWNERS $(ls -lnR {shared}/home/images | grep -c 101233)\n\
                 as_user $groups -c '{home} {VIMANA} image prune --all'\n\
                 echo TREES $(find {shared}/home/images -name 'tree-*' | wc -l)\n"
            ),
            _ => {
                "rm -f /usr/bin/new?idmap; as_user $groups/user/suite /run/few; echo PASS one $?\n".to_owned()
            }
        };
        script.push_str(&part);
        if *pass == "root" {
            script.push_str(&format!("chown -R 1000:1000 /home/user {shared}\n"));
        }
    }
    // As systemd-run starts it: alone in a group that is the user's, but for its keeper.
    let image = workload::image(&rig::shared().unwrap(), Isolation::Container).unwrap();
    script.push_str(&format!(
        "delegate alone; chown -R 1000:1000 {shared}\n\
         as_user $groups/alone -c 'exec env {home} {VIMANA} run --isolation Container {image} -- say alone' | cat; echo\n"
    ));
    script.push_str(&format!("as_user $groups -c '{VIMANA} doctor'\n"));
    script.push_str(
        "echo LEFT $(find $groups/user $groups/alone -mindepth 1 -type d ! -name suite ! -name vimana-keepers | wc -l) groups\npoweroff -f\n",
    );
    script
}

/// Boots the machine and gives what it said.
fn boot(kernel: &Path, initramfs: &Path, disk: &Path) -> String {
    let console = disk.with_file_name("console");
    let mut images = Vec::new();
    files(&kernel.join("boot"), &|name| name.starts_with("vmlinuz-"), &mut images);
    let mut vmm = Command::new("qemu-system-x86_64");
    vmm.args(
        "-M q35 -accel tcg,thread=multi -cpu max -m 1024 -smp 2 -nodefaults -display none -no-reboot"
            .split(' '),
    )
    .args([Path::new("-kernel"), &images[0], Path::new("-initrd"), initramfs])
    .args(["-append", "console=ttyS0 quiet reboot=t panic=-1 cgroup_no_v1=all mitigations=off"])
    .args(["-serial", &format!("file:{}", console.display())])
    .args(["-drive", &format!("if=none,id=disk,format=raw,cache=unsafe,file={}", disk.display())])
    .args(["-device", "virtio-blk-pci,drive=disk"])
    .stdin(Stdio::null());
    let said = || String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).replace('\r', "");
    let mut vmm = vmm.spawn().unwrap();
    let begun = Instant::now();
    loop {
        if let Some(status) = vmm.try_wait().unwrap() {
            assert!(status.success(), "{status}: {}", said());
            eprintln!("the machine took {:?}", begun.elapsed());
            return said();
        }
        if begun.elapsed() > PATIENCE {
            vmm.kill().unwrap();
            vmm.wait().unwrap();
            panic!("the machine didn't end within {PATIENCE:?}: {}", said());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
