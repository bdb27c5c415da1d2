//! What every test needs: a home with a guest kernel in it, an image, and the binary.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

/// The binary under test.
pub const VIMANA: &str = env!("CARGO_BIN_EXE_vimana");

/// Says that a test could not run here; `make test` counts and names these lines.
pub fn skipped(test: &str, reason: &str) {
    eprintln!("SKIPPED: {test}: {reason}");
}

/// A home of a test's own. Guest kernel, caches and image are shared, as they take long to make.
pub struct Home {
    pub folder: TempDir,
    pub image: String,
}

impl Home {
    /// Makes one, or says why that isn't possible here.
    pub fn new(test: &str) -> Option<Self> {
        match shared() {
            Ok(shared) => {
                let folder = tempfile::tempdir().unwrap();
                for part in ["kernels", "cache", "images"] {
                    symlink(shared.join("home").join(part), folder.path().join(part)).unwrap();
                }
                let image = format!("oci:{}:latest", shared.join("busybox.oci").display());
                Some(Self { folder, image })
            }
            Err(reason) => {
                skipped(test, &reason);
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `vimana` with these arguments, in this home.
    pub fn vimana(&self, args: &[&str]) -> Command {
        let mut command = Command::new(VIMANA);
        command.args(args).env("VIMANA_HOME", self.path()).env_remove("VIMANA_KERNEL").stdin(Stdio::null());
        command
    }

    /// `vimana run` of the image without a network, emulated, with these flags and this shell command.
    pub fn run(&self, flags: &[&str], script: &str) -> Command {
        self.run_on("none", flags, script)
    }

    /// The same with a network of this kind.
    pub fn run_on(&self, network: &str, flags: &[&str], script: &str) -> Command {
        let mut args = vec!["run", "--accel", "tcg", "-m", "96Mi", "--network", network];
        args.extend(flags);
        args.extend([self.image.as_str(), "--", "sh", "-c", script]);
        self.vimana(&args)
    }

    /// Runs and waits.
    pub fn output(&self, flags: &[&str], script: &str) -> Output {
        self.run(flags, script).output().unwrap()
    }

    /// Everything that lives because of this home: processes with it in their environment or arguments, and every
    /// passt that no keeper has any more.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let marker = format!("VIMANA_HOME={}", self.path().display());
        let home = self.path().display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
                continue;
            };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let is_of_home =
                environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes())
                    || text(&fs::read(entry.path().join("cmdline")).unwrap_or_default()).contains(&*home);
            if is_of_home || (name.starts_with("passt") && is_orphan(&entry.path())) {
                found.push((pid, name.trim().to_owned()));
            }
        }
        found
    }

    /// Waits until nothing of this home's is left, and says what is if that takes too long.
    pub fn assert_nothing_is_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let processes = self.processes();
            let folders = self.run_folders();
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
            let mounted = mounts.contains(&self.path().display().to_string());
            if processes.is_empty() && folders.is_empty() && !mounted {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "left: processes {processes:?}, folders {folders:?}, mounts {mounted}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn run_folders(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path().join("run")) else {
            return Vec::new();
        };
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }
}

/// Whether a process lost its parent: its keeper, or the test that started it.
fn is_orphan(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let Some(parent) = status.lines().find_map(|line| line.strip_prefix("PPid:")) else { return false };
    let name = fs::read_to_string(format!("/proc/{}/comm", parent.trim())).unwrap_or_default();
    parent.trim() == "1" || name.starts_with("systemd")
}

/// Why an isolation can't be given on this machine, if it can't.
pub fn missing(isolation: &str) -> Option<String> {
    let output = Command::new(VIMANA).args(["doctor", "--json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = report["isolations"].as_array().unwrap();
    let mut ways = all.iter().filter(|known| known["kind"] == isolation);
    let reason = |way: &serde_json::Value| way["missing"][0].as_str().map(str::to_owned);
    match ways.clone().any(|way| reason(way).is_none()) {
        true => None,
        false => ways.find_map(reason).or_else(|| Some(format!("there is no {isolation}"))),
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The exit code as a shell shows it.
pub fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Waits for a condition, and fails with the words if it doesn't come about.
pub fn eventually<T>(what: &str, seconds: u64, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "didn't happen within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn kill(pid: u32, signal: i32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
    // A process that has just ended can't be signalled; the test notices what matters itself.
    let _ = rustix::process::kill_process(pid, signal);
}

/// A child that is killed at the end, also when the test fails.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder with the guest kernel and the image, made once for all tests.
pub fn shared() -> Result<PathBuf, String> {
    for program in ["qemu-system-x86_64", "umoci", "busybox"] {
        if Command::new("which").arg(program).output().map_or(true, |output| !output.status.success()) {
            return Err(format!("{program} isn't installed"));
        }
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e");
    fs::create_dir_all(folder.join("home")).map_err(|error| error.to_string())?;
    for part in ["kernels", "cache", "images"] {
        fs::create_dir_all(folder.join("home").join(part)).map_err(|error| error.to_string())?;
    }
    let lock = File::create(folder.join("lock")).map_err(|error| error.to_string())?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| error.to_string())?;
    if fs::read_dir(folder.join("home/kernels")).map_or(true, |mut kernels| kernels.next().is_none()) {
        let fetched = Command::new(VIMANA)
            .args(["kernel", "fetch"])
            .env("VIMANA_HOME", folder.join("home"))
            .output()
            .map_err(|error| error.to_string())?;
        if !fetched.status.success() {
            return Err(format!("there is no guest kernel: {}", text(&fetched.stderr).trim()));
        }
    }
    if !folder.join("busybox.oci").exists() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/image");
        let made = Command::new(script)
            .env("IMAGE", folder.join("busybox.oci"))
            .output()
            .map_err(|e| e.to_string())?;
        if !made.status.success() {
            return Err(format!("the image can't be made: {}", text(&made.stderr).trim()));
        }
    }
    Ok(folder)
}
