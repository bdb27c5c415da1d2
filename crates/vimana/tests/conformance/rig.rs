//! What every behaviour is tried with: a home of its own, the image, the binary, and what is left behind.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::isolation::Isolation;
use crate::vimana::{self, fetch_kernel, lock};
use crate::workload;

pub use crate::vimana::{VIMANA, code, eventually, kill};

/// How long a run may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(100);

/// One isolation in a home of its own. Guest kernel, caches and image are shared, as they take long to make.
pub struct Rig {
    pub isolation: Isolation,
    pub image: String,
    /// The spacecore's name, which no other test's has.
    pub name: String,
    folder: TempDir,
}

/// How a run ended, and what it said.
#[derive(Clone)]
pub struct Ran {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl fmt::Debug for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}\n--- out\n{}\n--- err\n{}", self.code, self.text(), self.err)
    }
}

impl Ran {
    /// Its standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// What each of the probe's commands said, in order.
    pub fn parts(&self) -> Vec<(String, String)> {
        let text = self.text();
        let mut parts: Vec<(String, String)> = Vec::new();
        for line in text.split_inclusive('\n') {
            match (line.strip_prefix("== "), parts.last_mut()) {
                (Some(name), _) => parts.push((name.trim().to_owned(), String::new())),
                (None, Some((_, said))) => said.push_str(line),
                (None, None) => {}
            }
        }
        parts
    }

    /// What the only command of this name said.
    pub fn part(&self, name: &str) -> String {
        let parts = self.parts();
        let found = parts.iter().find(|(known, _)| known == name);
        found.map(|(_, said)| said.clone()).unwrap_or_else(|| panic!("{name} isn't in {self:?}"))
    }

    /// What each command said, without line ends, for comparing.
    pub fn said(&self) -> Vec<String> {
        self.parts().into_iter().map(|(_, said)| said.trim_end().replace('\n', " ")).collect()
    }

    fn to_json(&self) -> Value {
        json!({ "code": self.code, "out": self.out, "err": self.err })
    }

    fn from_json(value: &Value) -> Self {
        Self {
            code: serde_json::from_value(value["code"].clone()).unwrap(),
            out: serde_json::from_value(value["out"].clone()).unwrap(),
            err: serde_json::from_value(value["err"].clone()).unwrap(),
        }
    }
}

impl Rig {
    /// Makes one, or says why this machine can't.
    pub fn new(isolation: Isolation) -> Result<Self, String> {
        let shared = shared()?;
        let _lock = lock(&shared.join("lock"))?;
        if isolation == Isolation::MicroVm {
            fetch_kernel(&shared.join("home"))?;
        }
        let image = workload::image(&shared, isolation)?;
        // Before the kernel is fetched the report says that it lacks.
        let name = if isolation == Isolation::MicroVm { "doctor-with-kernel" } else { "doctor" };
        let report = once(&shared, name, || {
            let doctor = vimana::command(&shared.join("home"), &["doctor", "--json"]).output();
            let output = doctor.map_err(|error| error.to_string())?;
            serde_json::from_slice(&output.stdout).map_err(|error| format!("vimana doctor --json: {error}"))
        })?;
        if let Some(reason) = isolation.missing(&report) {
            return Err(reason);
        }
        let folder = vimana::home(&shared, "conformance-")?;
        let random = folder.path().file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        Ok(Self { isolation, image, name: random, folder })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A new folder in the home, for mounting.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// `vimana` with these arguments, in this home.
    pub fn vimana(&self, args: &[&str]) -> Command {
        vimana::command(self.path(), args)
    }

    /// `vimana run` of the image without a network, with these flags and these commands of the probe.
    pub fn run(&self, flags: &[&str], probe: &[&str]) -> Command {
        let own = ["--network", "none"];
        self.run_source(&self.image, &[&own, flags].concat(), probe)
    }

    /// `vimana run` of a manifest with these lines, with these flags and these commands of the probe.
    pub fn run_manifest(&self, lines: &str, flags: &[&str], probe: &[&str]) -> Command {
        let manifest = self.path().join("hac.toml");
        // The image's line goes into the table that the lines may open themselves.
        let image = format!("image = {:?}\n", self.image);
        let text = match lines.contains("[spec.deployment]") {
            true => lines.replace("[spec.deployment]\n", &format!("[spec.deployment]\n{image}")),
            false => format!("[spec.deployment]\n{image}{lines}"),
        };
        fs::write(&manifest, text).unwrap();
        self.run_source(manifest.to_str().unwrap(), flags, probe)
    }

    fn run_source(&self, source: &str, flags: &[&str], probe: &[&str]) -> Command {
        let mut args = vec!["run", "--isolation", self.isolation.kind(), "--name", &self.name];
        if !flags.contains(&"-m") {
            args.extend(["-m", "96Mi"]);
        }
        args.extend(flags);
        args.extend([source, "--"]);
        args.extend(probe);
        self.vimana(&args)
    }

    /// Runs and waits.
    pub fn output(&self, flags: &[&str], probe: &[&str]) -> Ran {
        finish(&mut self.run(flags, probe))
    }

    /// A run that several behaviours look at; it happens once in a run of the suite.
    pub fn shared(&self, what: &str, run: impl FnOnce() -> Ran) -> Ran {
        let shared = shared().unwrap();
        let what = format!("{}-{what}", self.isolation.module());
        // Only those who want the same run wait for each other.
        let _lock = lock(&shared.join(format!("{what}.lock"))).unwrap();
        let value = once(&shared, &what, || {
            let ran = run();
            self.assert_nothing_is_left();
            Ok(ran.to_json())
        });
        Ran::from_json(&value.unwrap())
    }

    pub fn run_folders(&self) -> Vec<PathBuf> {
        vimana::run_folders(self.path())
    }

    /// Waits until nothing of this home's is left, and says what is if that takes too long.
    pub fn assert_nothing_is_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left: {left:#?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Processes, cgroups, mounts, loop devices, network namespaces and run folders that this home's spacecores left.
    fn left(&self) -> Vec<String> {
        let home = self.path().display().to_string();
        let mut left: Vec<String> =
            self.run_folders().iter().map(|path| path.display().to_string()).collect();
        left.extend(self.processes().into_iter().map(|(pid, name)| format!("process {pid} {name}")));
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(&home)).map(|line| format!("mount {line}")));
        for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
            let file = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
            if file.contains(&home) {
                left.push(format!("{} on {file}", device.path().display()));
            }
        }
        for namespace in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = namespace.file_name().to_string_lossy().into_owned();
            if name.contains(&self.name) {
                left.push(format!("network namespace {name}"));
            }
        }
        self.cgroups(Path::new("/sys/fs/cgroup"), 0, &mut left);
        left
    }

    fn cgroups(&self, folder: &Path, depth: usize, found: &mut Vec<String>) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for path in entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()) {
            if path.to_string_lossy().contains(&self.name) {
                found.push(format!("cgroup {}", path.display()));
            } else if depth < 6 {
                self.cgroups(&path, depth + 1, found);
            }
        }
    }

    /// Processes with this home in their environment or arguments, or with its name as host name.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let marker = format!("VIMANA_HOME={}", self.path().display());
        let home = self.path().display().to_string();
        let mut found = Vec::new();
        for (pid, folder) in all_processes() {
            let environment = fs::read(folder.join("environ")).unwrap_or_default();
            let line = fs::read(folder.join("cmdline")).unwrap_or_default();
            let ours = environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes());
            if ours || String::from_utf8_lossy(&line).contains(&home) {
                let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
                found.push((pid, name.trim().to_owned()));
            }
        }
        found
    }

    /// The keeper of the only spacecore that runs here.
    pub fn keeper(&self) -> Option<u32> {
        let is_keeper = |pid: i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ").trim() == "vimana keeper"
        };
        let pid = self.processes().into_iter().map(|(pid, _)| pid).find(|pid| is_keeper(*pid));
        pid.and_then(|pid| u32::try_from(pid).ok())
    }
}

/// A folder with the guest kernel and the images, for all tests.
pub fn shared() -> Result<PathBuf, String> {
    vimana::shared("conformance")
}

/// Does something once in a run of the suite, whose tests may be processes of their own. The caller holds a lock.
fn once(shared: &Path, what: &str, make: impl FnOnce() -> Result<Value, String>) -> Result<Value, String> {
    let id = std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| format!("process-{}", std::process::id()));
    let kept = shared.join("kept");
    fs::create_dir_all(&kept).map_err(|error| error.to_string())?;
    let path = kept.join(what);
    let known = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    if let Some(known) = known.filter(|known| known["run"] == id.as_str()) {
        return Ok(known["value"].clone());
    }
    let value = make()?;
    let text = json!({ "run": id, "value": value }).to_string();
    fs::write(&path, text).map_err(|error| error.to_string())?;
    Ok(value)
}

/// Runs a command to its end, and fails if that doesn't come.
pub fn finish(command: &mut Command) -> Ran {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(PATIENCE) {
        Ok(output) => {
            let output = output.unwrap();
            let err = String::from_utf8_lossy(&output.stderr).into_owned();
            Ran { code: code(output.status), out: output.stdout, err }
        }
        Err(_) => {
            kill(pid, libc::SIGKILL);
            let output = receiver.recv_timeout(Duration::from_secs(20));
            panic!("it didn't end within {PATIENCE:?}: {output:?}");
        }
    }
}

/// A run that goes on while the test looks at it. It is killed at the end, also when the test fails.
pub struct Running {
    pub child: Child,
    pub out: BufReader<ChildStdout>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Starts it and waits until its workload has said `ready`.
    pub fn ready(command: &mut Command) -> Self {
        let mut running = Self::start(command);
        running.until("ready");
        running
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line; empty at the end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    /// Reads until a line is this one.
    pub fn until(&mut self, wanted: &str) {
        loop {
            let mut line = String::new();
            if self.out.read_line(&mut line).unwrap() == 0 {
                let mut err = String::new();
                self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
                panic!("it ended before it said {wanted:?}: {err}");
            }
            if line.trim_end() == wanted {
                return;
            }
        }
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ran {
        let pid = self.pid();
        let (done, waiting) = mpsc::channel::<()>();
        let watch = thread::spawn(move || {
            let late = waiting.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                kill(pid, libc::SIGKILL);
            }
            late
        });
        let mut err = self.child.stderr.take().unwrap();
        let err = thread::spawn(move || {
            let mut text = Vec::new();
            err.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
        });
        let mut out = Vec::new();
        self.out.read_to_end(&mut out).unwrap();
        let code = code(self.child.wait().unwrap());
        drop(done);
        assert!(!watch.join().unwrap(), "it didn't end within {PATIENCE:?}");
        Ran { code, out, err: err.join().unwrap().unwrap() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn all_processes() -> impl Iterator<Item = (i32, PathBuf)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

/// A process as nothing else can be mistaken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alive {
    pub pid: i32,
    started: u64,
}

/// This process and all that come from it, with the processor time that each has used, in ticks.
pub fn tree(root: u32) -> BTreeMap<Alive, u64> {
    let mut known: BTreeMap<i32, (i32, Alive, u64)> = BTreeMap::new();
    for (pid, folder) in all_processes() {
        let stat = fs::read_to_string(folder.join("stat")).unwrap_or_default();
        // The name may hold anything; what follows its closing parenthesis doesn't.
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<u64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        if let [_, parent, _, _, _, _, _, _, _, _, _, user, system, ..] = fields[..] {
            let started = fields.get(19).copied().unwrap_or(0);
            let parent = i32::try_from(parent).unwrap_or(0);
            known.insert(pid, (parent, Alive { pid, started }, user + system));
        }
    }
    let root = i32::try_from(root).unwrap();
    let comes_from_root = |mut pid: i32| {
        for _ in 0..64 {
            if pid == root {
                return true;
            }
            let Some((parent, ..)) = known.get(&pid) else { return false };
            pid = *parent;
        }
        false
    };
    known
        .iter()
        .filter(|(pid, _)| comes_from_root(**pid))
        .map(|(_, (_, alive, used))| (*alive, *used))
        .collect()
}

/// Which of these processes still live, those that only wait to be reaped not counted.
pub fn still_alive(processes: impl Iterator<Item = Alive>) -> Vec<Alive> {
    processes
        .filter(|one| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", one.pid)).unwrap_or_default();
            let Some((_, rest)) = stat.rsplit_once(')') else { return false };
            let mut fields = rest.split_whitespace();
            let state = fields.next().unwrap_or("Z");
            let started = fields.nth(18).and_then(|field| field.parse::<u64>().ok());
            state != "Z" && started == Some(one.started)
        })
        .collect()
}
