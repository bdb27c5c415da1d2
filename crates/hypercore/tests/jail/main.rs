//! Attacks from inside the jail, by a program that runs in the place of a virtual machine monitor which a workload has taken
//! over. Each must fail in the jail, and must succeed once the parts of the jail that are to stop it are left out: a test
//! that passes for another reason would prove nothing. With `--nocapture` the table is printed.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod prisoner;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hypercore::cgroup::{self, Group, Limits};
use hypercore::driver::Class;
use hypercore::jail::{Calls, Device, Ids, Jail, Part, Strength, closure};
use hypercore::spawn::Status;
use prisoner::{ATTACKS, Attack, BY_SOCKETS};

const OTHER_USER: u32 = 65_534;
/// The size that the prisoner's only writable file may have.
const DISK_BYTES: u64 = 65_536;
const THREADS: u64 = 40;
/// What the prisoners may take together.
const TAKEN: Limits = Limits { cpu_milli: 150, memory_bytes: 64 << 20, threads: 60, class: Class::Burstable };

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("prisoner", rest)) => std::process::exit(prisoner::act(rest)),
        Some(("attacks", rest)) => return attacks(rest.first().map(Path::new).unwrap(), Calls::Emulator),
        _ => {}
    }
    let tests: [(&str, fn()); 9] = [
        ("nothing_that_root_s_jail_holds_back_succeeds", from_root),
        ("nothing_that_the_jail_of_wasm_programs_holds_back_succeeds", from_wasm),
        ("nothing_that_the_jail_of_a_wasm_program_with_sockets_holds_back_succeeds", from_wasm_with_sockets),
        ("a_wasm_program_with_a_network_may_use_tcp_and_udp_and_no_other_may", may_use_sockets),
        ("nothing_that_another_user_s_jail_holds_back_succeeds", from_another_user),
        ("a_program_in_the_jail_has_no_descriptors_and_no_variables_but_its_own", is_bare),
        ("a_jail_that_can_t_be_built_says_which_step_failed", says_why),
        ("two_jails_at_once_are_two_users", two_users),
        ("a_program_without_a_disk_may_still_complain", may_complain),
    ];
    let has = |word: &str| words.iter().any(|given| given == word);
    if has("--list") {
        if !has("--ignored") {
            tests.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return;
    }
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| {
        let matches =
            |filter: &&String| if has("--exact") { name == *filter } else { name.contains(*filter) };
        filters.is_empty() || filters.iter().any(matches)
    };
    for (name, test) in tests.iter().filter(|(name, _)| wanted(name)) {
        match rustix::process::geteuid().is_root() {
            true => test(),
            false => drop(writeln!(std::io::stderr(), "SKIPPED: {name}: needs root")),
        }
        println!("test {name} ... ok");
    }
}

/// What a prisoner attacks: things of the host and of a neighbour, that are there.
struct Rig {
    folder: PathBuf,
    values: BTreeMap<&'static str, String>,
    own: PathBuf,
    group: Option<Group>,
    _tcp: TcpListener,
    _path: UnixListener,
    _abstract: UnixListener,
    neighbour: std::process::Child,
    shared: i32,
}

impl Rig {
    /// Everything in it belongs to the user that makes it.
    #[allow(unsafe_code)]
    fn new(folder: &Path) -> Self {
        let file = |name: &str, mode: u32| {
            let path = folder.join(name);
            fs::write(&path, "a neighbour's").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path.display().to_string()
        };
        let secret = file("neighbour.img", 0o600);
        let image = file("kernel", 0o644);
        let open = folder.join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = folder.join("api.sock");
        let path = UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
        let name = format!("vimana-jail-test-{}", std::process::id());
        let hidden = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let neighbour = Command::new("/bin/sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        // SAFETY: plain numbers; the segment is removed when the rig is dropped.
        let shared = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o666) };
        assert!(shared >= 0);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let values = BTreeMap::from([
            ("secret", secret),
            ("image", image.clone()),
            ("open", open.display().to_string()),
            ("port", tcp.local_addr().unwrap().port().to_string()),
            ("socket", socket.display().to_string()),
            ("abstract", name),
            ("pid", neighbour.id().to_string()),
            ("shared", shared.to_string()),
            ("host", host),
        ]);
        let group = cgroup::usable().is_ok().then(|| {
            let group = Group::prepare(folder).unwrap();
            group.make(&TAKEN).unwrap();
            group
        });
        let own = folder.join("disk.img");
        fs::write(&own, vec![0; DISK_BYTES as usize]).unwrap();
        Self {
            folder: folder.to_owned(),
            values,
            own,
            group,
            _tcp: tcp,
            _path: path,
            _abstract: hidden,
            neighbour,
            shared,
        }
    }

    fn jail(&self, without: &[Part], calls: Calls) -> Jail {
        let program = std::env::current_exe().unwrap();
        let mut shown = closure(&program, None).unwrap();
        shown.push(self.values["image"].clone().into());
        let root = rustix::process::geteuid().is_root();
        Jail {
            shown,
            devices: vec![Device::Null, Device::Urandom],
            calls,
            open_files: 1024,
            file_bytes: DISK_BYTES,
            threads: THREADS,
            ids: root.then(|| Ids::take().unwrap()),
            group: self.group.clone(),
            class: Class::Burstable,
            profile: None,
            without: without.to_vec(),
        }
    }

    /// Runs an attack; says how it ended, and in which words.
    fn run(&self, attack: &str, without: &[Part], calls: Calls) -> (Status, String) {
        let mut args: Vec<OsString> = vec!["prisoner".into(), attack.into()];
        args.extend(self.values.iter().map(|(name, value)| format!("{name}={value}").into()));
        let disk: OwnedFd = fs::OpenOptions::new().read(true).write(true).open(&self.own).unwrap().into();
        let jail = self.jail(without, calls);
        let mut spawned = jail.start(&std::env::current_exe().unwrap(), &args, vec![disk]).unwrap();
        let status = spawned.wait().unwrap();
        (status, spawned.stderr())
    }
}

impl Drop for Rig {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        self.group.iter().for_each(|group| group.remove().unwrap());
        let _ = self.neighbour.kill();
        let _ = self.neighbour.wait();
        // SAFETY: plain numbers.
        unsafe { libc::shmctl(self.shared, libc::IPC_RMID, std::ptr::null_mut()) };
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A folder into which everybody may look, as far as the names in it allow.
fn a_folder() -> PathBuf {
    let folder = tempfile::Builder::new().prefix("vimana-jail-").tempdir().unwrap().keep();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Plays all attacks as the present user, and prints the table.
fn attacks(folder: &Path, calls: Calls) {
    let rig = Rig::new(folder);
    let root = rustix::process::geteuid().is_root();
    let mut wrong = Vec::new();
    println!("{:<44} {:<9} {:<9} stopped by", "attack", "jailed", "without");
    let by_sockets: &[Attack] = if calls == Calls::WasmSockets { BY_SOCKETS } else { &[] };
    for attack in ATTACKS.iter().chain(by_sockets).filter(|attack| root || !attack.root_only) {
        if calls == Calls::Wasm && attack.parts == [Part::Group] {
            // The jail of all Wasm programs without a network has none.
            continue;
        }
        if attack.parts.contains(&Part::Group) && rig.group.is_none() {
            let reason = cgroup::usable().unwrap_err();
            let _ = writeln!(std::io::stderr(), "SKIPPED: the attack {:?}: {reason}", attack.name);
            continue;
        }
        let succeeded = |without: &[Part]| {
            let (status, words) = rig.run(attack.name, without, calls);
            match (status.code, status.signal) {
                (Some(0), _) => (true, words),
                // The prisoner has said that it was held back, or was killed for what it did.
                (Some(1), _) | (None, Some(_)) => (false, words),
                other => panic!("{}: {other:?}: {words}", attack.name),
            }
        };
        let (jailed, why) = succeeded(&[]);
        let (without, reason) = succeeded(attack.parts);
        let word = |succeeded| if succeeded { "SUCCEEDS" } else { "fails" };
        let parts = format!("{:?}", attack.parts);
        println!("{:<44} {:<9} {:<9} {parts}", attack.name, word(jailed), word(without));
        if jailed {
            wrong.push(format!("{} succeeds in the jail", attack.name));
        }
        if !without {
            wrong.push(format!("{} fails without {parts} too ({reason}; in the jail: {why})", attack.name));
        }
        assert!(rig.neighbour_lives(), "{} has ended the neighbour", attack.name);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

impl Rig {
    fn neighbour_lives(&self) -> bool {
        Path::new("/proc").join(self.neighbour.id().to_string()).join("exe").exists()
    }
}

fn from_root() {
    assert_eq!(Strength::here(), Strength::Full);
    attacks(&a_folder(), Calls::Emulator);
}

/// A Wasm program that has left its compiler's isolation.
fn from_wasm() {
    attacks(&a_folder(), Calls::Wasm);
}

/// One that has a network, and with it sockets.
fn from_wasm_with_sockets() {
    attacks(&a_folder(), Calls::WasmSockets);
}

fn may_use_sockets() {
    let rig = Rig::new(&a_folder());
    for (calls, wanted) in [(Calls::WasmSockets, 0), (Calls::Wasm, 1)] {
        let (status, words) = rig.run("use sockets", &[], calls);
        assert_eq!(status.code, Some(wanted), "{calls:?}: {words}");
    }
}

fn from_another_user() {
    let folder = a_folder();
    std::os::unix::fs::chown(&folder, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
    let program = std::env::current_exe().unwrap();
    // The program itself may lie where another user can't look.
    let copy = a_folder().join("jail");
    fs::copy(&program, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let user = OTHER_USER.to_string();
    let output = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"])
        .arg(&copy)
        .arg("attacks")
        .arg(&folder)
        .output()
        .unwrap();
    fs::remove_dir_all(copy.parent().unwrap()).unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn is_bare() {
    let rig = Rig::new(&a_folder());
    let (status, words) = rig.run("look around", &[], Calls::Emulator);
    assert_eq!(status.code, Some(0), "{words}");
    let lines: Vec<&str> = words.lines().collect();
    // Its streams, and the disk that it was handed.
    assert!(lines.contains(&"descriptors 0 1 2 100"), "{words}");
    assert!(lines.contains(&"variables 0"), "{words}");
    assert!(lines.contains(&"pid 1 of a parent 0"), "{words}");
    assert!(lines.contains(&"groups 0"), "{words}");
}

fn says_why() {
    let rig = Rig::new(&a_folder());
    let program = std::env::current_exe().unwrap();
    let mut jail = rig.jail(&[], Calls::Emulator);
    jail.shown.push(rig.values["secret"].clone().into());
    let error = jail.start(&program, &[], Vec::new()).unwrap_err().to_string();
    assert!(error.contains("neighbour.img") && error.contains("chmod o+r"), "{error}");
    let mut jail = rig.jail(&[], Calls::Emulator);
    jail.shown.retain(|path| *path != program);
    let error = jail.start(&program, &[], Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
}

fn may_complain() {
    let rig = Rig::new(&a_folder());
    let mut jail = rig.jail(&[], Calls::Emulator);
    jail.file_bytes = 0;
    let program = std::env::current_exe().unwrap();
    let args = ["prisoner".into(), "look around".into()];
    let mut spawned = jail.start(&program, &args, Vec::new()).unwrap();
    assert_eq!(spawned.wait().unwrap(), Status { code: Some(0), signal: None });
    assert!(spawned.stderr().contains("descriptors 0 1 2"), "{}", spawned.stderr());
}

fn two_users() {
    let rig = Rig::new(&a_folder());
    let (first, second) = (rig.jail(&[], Calls::Emulator), rig.jail(&[], Calls::Emulator));
    let start = |jail: &Jail| {
        jail.start(&std::env::current_exe().unwrap(), &["prisoner".into(), "wait".into()], Vec::new())
            .unwrap()
    };
    let prisoners = [start(&first), start(&second)];
    let user = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u32>().unwrap()
    };
    let [a, b] = prisoners.each_ref().map(|prisoner| user(prisoner.pid()));
    assert_ne!(a, b);
    assert_eq!([a, b], [&first, &second].map(|jail| jail.ids.as_ref().unwrap().first()));
}
