//! By too much: processes, memory, disk, files, words. What holds an attack back is a limit; without its defence it has a larger
//! one.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{INSIDE, Table, done, guests, said, shown, tries};
use crate::support::{Home, Killed, eventually, page, text};

static ATTACKS: &[(&str, &str)] = &[
    ("have 300 processes of 64", "forks 300"),
    ("write 100 MiB to a disk of 64", "disk /full 100"),
    ("make 10000 files on a disk for 8192", "inodes /many 10000"),
    ("fill 300 MiB of 128 MiB of memory", "memory 300"),
];

const HELD: &str = "pids = 64\nmemory = \"128Mi\"\nstorage = \"64Mi\"\n";
const FREE: &str = "pids = 1000\nmemory = \"512Mi\"\nstorage = \"256Mi\"\n";

/// How much a workload says that nobody listens to, in MiB, and how much of it the machine may have to keep.
const SAID: u64 = 256;
const KEPT: u64 = 64;

fn run(home: &Home, flags: &[&str], resources: &str, shown: &str, all: &[(String, String)]) -> Command {
    let manifest = home.path().join("limits.toml");
    let image = &home.image;
    let lines = "[spec.networking]\nnetwork_type = \"none\"\n";
    fs::write(
        &manifest,
        format!("[spec.deployment]\nimage = {image:?}\n[spec.resources]\n{resources}{lines}"),
    )
    .unwrap();
    let args = ["run", "--name", "attacker", "-v", shown];
    let mut command = home.vimana(&[&args, flags, &[manifest.to_str().unwrap(), "--", INSIDE]].concat());
    command.args(tries(all));
    command
}

/// A neighbour that serves a page; where it does.
fn neighbour(home: &Home) -> (Killed, u16) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = "echo still here > /www/index.html; httpd -f -p 80 -h /www";
    let publish = format!("127.0.0.1:{port}:80");
    let args = [
        "run",
        "--isolation",
        "Container",
        "--name",
        "neighbour",
        "-p",
        &publish,
        &home.image,
        "--",
        "sh",
        "-c",
        script,
    ];
    let serving = Killed(home.vimana(&args).stdout(Stdio::null()).spawn().unwrap());
    eventually("the neighbour serves", 30, || serves(port).then_some(()));
    (serving, port)
}

fn serves(port: u16) -> bool {
    page(port, Duration::from_secs(10)).is_some_and(|page| page.contains("still here"))
}

#[test]
fn who_wants_too_much_gets_no_more_than_was_agreed() {
    let test = "who_wants_too_much_gets_no_more_than_was_agreed";
    let (Some(program), Some(home)) = (super::can(test), Home::new(test)) else { return };
    if crate::support::missing("Container").is_some()
        || Command::new("passt").arg("--version").output().is_err()
    {
        return crate::support::skipped(test, "there can be no neighbour: it needs containers and passt");
    }
    let (serving, port) = neighbour(&home);
    let all: Vec<_> =
        (0..).zip(ATTACKS).map(|(place, (_, text))| (format!("try-{place}"), (*text).to_owned())).collect();
    let mut table = Table::new();
    for (from, flags) in guests(test) {
        let tried = |resources: &str| {
            let output = run(&home, flags, resources, &shown(&program), &all).output().unwrap();
            assert!(serves(port), "an attack from a {from} has ended the neighbour");
            // Some isolations end as a whole where memory is short.
            let mut said = text(&output.stdout);
            if !said.contains("try-3") {
                assert!(text(&output.stderr).contains("memory"), "{}", text(&output.stderr));
                said.push_str("try-3 held the whole workload was ended\n");
            }
            said
        };
        let (guarded, free) = (tried(HELD), tried(FREE));
        for ((word, _), (name, _)) in all.iter().zip(ATTACKS) {
            table.row(name, from, done(&guarded, word), done(&free, word), said(&guarded, word));
        }
        let (kept, bare) = (chatter(&home, flags, &shown(&program)), bare_chatter(&home, &program));
        let words = format!("{} MiB are kept", kept >> 20);
        table.row("say more than anybody listens to", from, kept > KEPT << 20, bare > KEPT << 20, &words);
        assert!(serves(port), "an attack from a {from} has ended the neighbour");
    }
    table.judge();
    drop(serving);
}

/// How many bytes more the machine keeps, in memory and in files, of what a workload says to nobody.
fn chatter(home: &Home, flags: &[&str], shown: &str) -> u64 {
    let all =
        [("try-wait".to_owned(), "memory 1".to_owned()), ("try-words".to_owned(), format!("chatter {SAID}"))];
    let mut child = run(home, flags, HELD, shown, &all);
    let before = kept(home);
    let mut child = Killed(child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut ready = [0; 8];
    std::io::Read::read_exact(child.0.stdout.as_mut().unwrap(), &mut ready).unwrap();
    // Until it says no more: nobody takes it from there.
    let mut last = u64::MAX;
    eventually("it stands still", 60, || {
        std::thread::sleep(Duration::from_millis(500));
        let now = kept(home);
        let still = now == last;
        last = now;
        still.then_some(())
    });
    // What it costs to run it at all isn't what it has said.
    let idle = 48 << 20;
    last.saturating_sub(before).saturating_sub(idle)
}

/// Memory of the processes that aren't a guest's own, and files of the run folders, in bytes.
fn kept(home: &Home) -> u64 {
    let memory = |pid: i32| -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
    };
    let own = |(pid, name): &(i32, String)| name.starts_with("vimana").then(|| memory(*pid));
    let processes: u64 = home.processes().iter().filter_map(own).sum();
    let files: u64 = home
        .run_folders()
        .iter()
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
        .filter_map(|file| file.metadata().ok())
        .filter(|found| found.is_file())
        .map(|found| std::os::unix::fs::MetadataExt::blocks(&found) * 512)
        .sum();
    processes + files
}

/// What a file keeps of the same where nothing is between.
fn bare_chatter(home: &Home, program: &std::path::Path) -> u64 {
    let path = home.path().join("words");
    let file = fs::File::create(&path).unwrap();
    let said = Command::new(program)
        .args(["try-words", "chatter", &SAID.to_string()])
        .stderr(file)
        .output()
        .unwrap();
    assert!(said.status.success());
    let kept = fs::metadata(&path).unwrap().len();
    fs::remove_file(path).unwrap();
    kept
}
