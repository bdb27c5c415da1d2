//! What every test needs: a home with a guest kernel in it, an image, and the binary.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::vimana;
pub use crate::vimana::{VIMANA, code, eventually, kill};

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
        Self::inside(test, &std::env::temp_dir())
    }

    /// The same in this folder.
    pub fn inside(test: &str, folder: &Path) -> Option<Self> {
        match shared() {
            Ok(shared) => {
                let folder = vimana::home_in(folder, &shared, "e2e-").unwrap();
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
        vimana::command(self.path(), args)
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
        vimana::run_folders(self.path())
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
    // The kernel that counts is the tests' own.
    let home = match shared() {
        Ok(shared) => shared.join("home"),
        Err(reason) => return Some(reason),
    };
    let output = vimana::command(&home, &["doctor", "--json"]).output().unwrap();
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

/// What a web server on this port of the machine answers; nothing if it doesn't, or not in time.
pub fn page(port: u16, time: Duration) -> Option<String> {
    page_of(TcpStream::connect(("127.0.0.1", port)).ok()?, time)
}

/// What a web server answers over a connection.
pub fn page_of(mut stream: TcpStream, time: Duration) -> Option<String> {
    stream.set_read_timeout(Some(time)).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
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
    let folder = vimana::shared("e2e")?;
    let _lock = vimana::lock(&folder.join("lock"))?;
    vimana::fetch_kernel(&folder.join("home"))?;
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
